"""How good is a sync judge? Offsets found and strangers' sound told apart, on clips cut from real videos.

The true offset of real footage is seldom known, so three things are counted: whether a clip agrees with its whole
video, whether the answer moves by k frames when the sound is moved by k frames, and, where an offset is known from
elsewhere, whether that is what is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from avatar.eval.sync_judge import MIN_SECONDS, SyncJudge, SyncScore
from avatar.eval.sync_training import Track
from avatar.io.audio import SAMPLE_RATE, is_silent

SHIFTS = (-7, -3, 3, 7)  # frames
STRANGERS = 4  # other sounds per clip, of each kind


@dataclass(frozen=True)
class _Clip:
    video: str
    start: float  # seconds
    seconds: float


def evaluate(
    judge: SyncJudge, videos: Mapping[str, Track], seconds: float, known: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Judge all clips of a length, each overlapping the next by half.

    Args:
        judge: To be measured.
        videos: Name to video. One that is shorter than ``seconds`` is one clip if it can be judged at all.
        seconds: Length of the clips.
        known: True offsets in frames (positive: the picture is late) of some of the videos.

    Returns:
        ``clips``; shares of ``agrees_with_video`` and ``follows_shift`` (both within one frame); ``known_offset``
        share within one frame of the truth, per video; areas under the ROC curve of the confidence for matched
        against shuffled sound, ``auc`` overall, with shuffled sound from ``auc_other_video`` and ``auc_same_video``;
        ``accuracy`` at the best single threshold and that ``threshold``; medians of the confidence.
    """
    rng = np.random.default_rng(0)
    clips = [clip for name, track in videos.items() for clip in _clips(name, track, seconds)]
    whole = {name: judge.score(track.landmarks, track.audio, track.fps).offset_frames for name, track in videos.items()}
    agrees: list[bool] = []
    follows: list[bool] = []
    right: dict[str, list[bool]] = {}
    matched: list[float] = []
    others: dict[str, list[float]] = {"other": [], "same": []}
    for clip in clips:
        score = _score(judge, videos, clip, clip)
        if score is None:
            continue
        fps = videos[clip.video].fps
        matched.append(score.confidence)
        agrees.append(abs(score.offset_frames - whole[clip.video]) <= 1)
        for shift in SHIFTS:  # the sound moved to earlier times: the picture is late by so much more
            moved = _score(judge, videos, clip, _Clip(clip.video, clip.start + shift / fps, clip.seconds))
            if moved is not None:
                follows.append(abs(moved.offset_frames - score.offset_frames - shift) <= 1)
        if known and clip.video in known:
            right.setdefault(clip.video, []).append(abs(score.offset_frames - known[clip.video]) <= 1)
        for kind, values in others.items():
            pool = [c for c in clips if _is_stranger(c, clip, kind)]
            for i in rng.permutation(len(pool))[:STRANGERS]:
                strange = _score(judge, videos, clip, pool[i])
                if strange is not None:
                    values.append(strange.confidence)
    shuffled = others["other"] + others["same"]
    threshold, accuracy = _best_threshold(matched, shuffled)
    return {
        "seconds": seconds,
        "clips": len(matched),
        "agrees_with_video": _mean(agrees),
        "follows_shift": _mean(follows),
        "known_offset": {name: _mean(values) for name, values in right.items()},
        "auc": auc(matched, shuffled),
        "auc_other_video": auc(matched, others["other"]),
        "auc_same_video": auc(matched, others["same"]),
        "accuracy": accuracy,
        "threshold": threshold,
        "median_confidence_matched": _median(matched),
        "median_confidence_shuffled": _median(shuffled),
    }


def auc(positive: list[float], negative: list[float]) -> float | None:
    """Area under the ROC curve: how often a positive is larger than a negative, ties half. None without either."""
    if not positive or not negative:
        return None
    a, b = np.array(positive)[:, None], np.array(negative)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def _clips(name: str, track: Track, seconds: float) -> list[_Clip]:
    length = min(len(track.landmarks) / track.fps, len(track.audio) / SAMPLE_RATE)
    if length < seconds:
        return [_Clip(name, 0.0, length)] if length >= MIN_SECONDS else []
    starts = np.arange(0, length - seconds + 1e-6, seconds / 2)
    return [_Clip(name, float(start), seconds) for start in starts]


def _is_stranger(other: _Clip, clip: _Clip, kind: str) -> bool:
    if other.seconds < clip.seconds:
        return False
    if kind == "other":
        return other.video != clip.video
    return other.video == clip.video and abs(other.start - clip.start) >= clip.seconds


def _score(judge: SyncJudge, videos: Mapping[str, Track], mouth: _Clip, sound: _Clip) -> SyncScore | None:
    """The mouth of one clip with the sound of another; None where that sound is silent."""
    seen, heard = videos[mouth.video], videos[sound.video]
    first = round(mouth.start * seen.fps)
    landmarks = seen.landmarks[first : first + round(mouth.seconds * seen.fps)]
    at = round((sound.start + first / seen.fps - mouth.start) * SAMPLE_RATE) + np.arange(
        round(len(landmarks) / seen.fps * SAMPLE_RATE)
    )
    inside = (at >= 0) & (at < len(heard.audio))
    audio = np.where(inside, heard.audio[at.clip(0, len(heard.audio) - 1)], 0).astype(np.float32)
    return None if is_silent(audio) else judge.score(landmarks, audio, seen.fps)


def _best_threshold(positive: list[float], negative: list[float]) -> tuple[float | None, float | None]:
    """The confidence that parts the two best, and the mean of the shares that it gets right on either side."""
    if not positive or not negative:
        return None, None
    a, b = np.array(positive), np.array(negative)
    cuts = np.unique(np.concatenate([a, b]))
    balanced = [((a >= cut).mean() + (b < cut).mean()) / 2 for cut in cuts]
    best = int(np.argmax(balanced))
    return float(cuts[best]), float(balanced[best])


def _mean(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
