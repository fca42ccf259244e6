"""How good is a sync judge? Delays found and strangers' audio told apart, on clips cut from real videos.

The true delay of real footage is seldom known, so three things are counted: whether a clip agrees with its whole
video, whether the answer moves by k frames when the audio is moved by k frames, and, where a delay is known from
elsewhere, whether that is what is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avatar.io.audio import SAMPLE_RATE, is_silent
from avatar.preprocess.face_tracker import Track
from avatar.sync.judge import MIN_SECONDS, SyncJudge, SyncScore

SHIFTS = (-7, 3)  # frames
STRANGERS = 2  # other audio per clip, of each kind


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A part of a video, and what the judge said about it.

    Attributes:
        video: Its name.
        start, seconds: Which part.
        fps: Frames per second.
        score: With its own audio.
        of_video: Audio delay in seconds found for the whole video; None where it is at the border of the range.
        moved: Frames by which the audio was moved to earlier times, to the delay in seconds found then, or None.
        strangers: Scores with audio from "other" videos, and from elsewhere in the "same" one.
    """

    video: str
    start: float
    seconds: float
    fps: float
    score: SyncScore
    of_video: float | None
    moved: dict[int, float | None] = field(default_factory=dict)
    strangers: dict[str, list[SyncScore]] = field(default_factory=dict)


def judge_clips(judge: SyncJudge, videos: Mapping[str, Track], seconds: float) -> list[Clip]:
    """Judge all clips of a length, each overlapping the next by half.

    A video that is shorter is one clip, if it can be judged at all. Clips whose audio is silent are left out.
    """
    rng = np.random.default_rng(0)
    places = [(name, *part) for name, track in videos.items() for part in _parts(track, seconds)]
    whole = {name: judge.score(videos[name].landmarks, videos[name].audio, videos[name].fps) for name, _, _ in places}
    clips = []
    for name, start, length in places:

        def score(
            heard: str, at: float, name: str = name, start: float = start, length: float = length
        ) -> SyncScore | None:
            return _score(judge, videos[name], start, length, videos[heard], at)

        own = score(name, start)
        if own is None:
            continue
        # The audio moved to earlier times: its delay is less by so much.
        moved = {shift: score(name, start + shift / videos[name].fps) for shift in SHIFTS}
        same = [(v, at) for v, at, n in places if v == name and n >= length and abs(at - start) >= length]
        other = [(v, at) for v, at, n in places if v != name and n >= length]
        strangers = {
            kind: [score(*pool[i]) for i in rng.permutation(len(pool))[:STRANGERS]]
            for kind, pool in (("same", same), ("other", other))
        }
        clips.append(
            Clip(
                video=name,
                start=start,
                seconds=length,
                fps=videos[name].fps,
                score=own,
                of_video=whole[name].audio_delay_s,
                moved={shift: found.audio_delay_s for shift, found in moved.items() if found is not None},
                strangers={kind: [s for s in scores if s is not None] for kind, scores in strangers.items()},
            )
        )
    return clips


def summary(clips: Iterable[Clip], known: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Shares and areas over some clips.

    Args:
        clips: Of :func:`judge_clips`.
        known: True audio delays in seconds of some of the videos.

    Returns:
        ``clips``; shares of ``agrees_with_video``, also ``per_video``, and ``follows_shift`` (all within one frame);
        ``known_delay``, the share within one frame of the truth, per video; areas under the ROC curve of the distance
        for matched against shuffled audio: ``auc`` over all, ``auc_other_video`` and ``auc_same_video`` by where the
        shuffled audio is from; ``auc_confidence``, over all, of the confidence; ``accuracy``, the mean of the shares
        that one ``threshold`` of the distance gets right of either; medians of the confidence.
    """
    clips = list(clips)
    agrees: dict[str, list[bool]] = {}
    right: dict[str, list[bool]] = {}
    for clip in clips:
        found = clip.score.audio_delay_s
        agrees.setdefault(clip.video, []).append(_within_a_frame(found, clip.of_video, clip.fps))
        if known and clip.video in known:
            right.setdefault(clip.video, []).append(_within_a_frame(found, known[clip.video], clip.fps))
    follows = [
        _within_a_frame(delay, clip.score.audio_delay_s, clip.fps, -shift)
        for clip in clips
        for shift, delay in clip.moved.items()
    ]
    matched = [clip.score for clip in clips]
    others = {kind: [s for clip in clips for s in clip.strangers[kind]] for kind in ("same", "other")}
    shuffled = others["same"] + others["other"]
    threshold, accuracy = _best_threshold(_distances(matched), _distances(shuffled))
    return {
        "clips": len(clips),
        "agrees_with_video": _mean([yes for values in agrees.values() for yes in values]),
        "follows_shift": _mean(follows),
        "auc": auc(_distances(shuffled), _distances(matched)),
        "auc_other_video": auc(_distances(others["other"]), _distances(matched)),
        "auc_same_video": auc(_distances(others["same"]), _distances(matched)),
        "auc_confidence": auc(_confidences(matched), _confidences(shuffled)),
        "accuracy": accuracy,
        "threshold": threshold,
        "median_confidence_matched": _median(_confidences(matched)),
        "median_confidence_shuffled": _median(_confidences(shuffled)),
        "known_delay": {name: _mean(values) for name, values in right.items()},
        "per_video": {name: _mean(values) for name, values in agrees.items()},
    }


def _within_a_frame(found: float | None, expected: float | None, fps: float, moved: int = 0) -> bool:
    """Whether a delay is the expected one and ``moved`` frames, give or take one; no delay is not."""
    return found is not None and expected is not None and abs((found - expected) * fps - moved) <= 1


def auc(positive: list[float], negative: list[float]) -> float | None:
    """Area under the ROC curve: how often a positive is larger than a negative, ties half. None without either."""
    if not positive or not negative:
        return None
    a, b = np.array(positive)[:, None], np.array(negative)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def _parts(track: Track, seconds: float) -> list[tuple[float, float]]:
    """(start, length) of the clips of a video."""
    length = min(len(track.landmarks) / track.fps, len(track.audio) / SAMPLE_RATE)
    if length < seconds:
        return [(0.0, length)] if length >= MIN_SECONDS else []
    return [(float(start), seconds) for start in np.arange(0, length - seconds + 1e-6, seconds / 2)]


def _score(
    judge: SyncJudge, seen: Track, start: float, seconds: float, heard: Track, audio_start: float
) -> SyncScore | None:
    """Score the mouth from ``start`` on with the audio from ``audio_start`` on; None where that is silent."""
    first = round(start * seen.fps)
    landmarks = seen.landmarks[first : first + round(seconds * seen.fps)]
    begin = round((audio_start + first / seen.fps - start) * SAMPLE_RATE)
    at = begin + np.arange(round(len(landmarks) / seen.fps * SAMPLE_RATE))
    inside = (at >= 0) & (at < len(heard.audio))
    audio = np.where(inside, heard.audio[at.clip(0, len(heard.audio) - 1)], 0).astype(np.float32)
    return None if is_silent(audio) else judge.score(landmarks, audio, seen.fps)


def _distances(scores: list[SyncScore]) -> list[float]:
    return [score.distance for score in scores]


def _confidences(scores: list[SyncScore]) -> list[float]:
    return [score.confidence for score in scores]


def _best_threshold(near: list[float], far: list[float]) -> tuple[float | None, float | None]:
    """The distance that parts the two best, and the mean of the shares that it gets right of either."""
    if not near or not far:
        return None, None
    a, b = np.array(near), np.array(far)
    cuts = np.unique(np.concatenate([a, b]))
    balanced = [((a <= cut).mean() + (b > cut).mean()) / 2 for cut in cuts]
    best = int(np.argmax(balanced))
    return float(cuts[best]), float(balanced[best])


def _mean(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
