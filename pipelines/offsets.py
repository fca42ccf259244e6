"""Measure how often the delay between audio and video is found, on clips of real videos (docs/notes/offset.md).

The audio of each clip is moved by known times. An answer is right if it is within a frame of that time plus the delay
of the whole video, wrong if it is trusted and is not, and else none. Audio that does not belong to the mouth, a delay
out of range, a drift and a jump must not be answered at all, or the latter two by the delay of the larger part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.log import info, on_terminal, track
from avatar.paths import write_json
from avatar.preprocess.face_tracker import FaceTracker, Track, track_video
from avatar.sync.judge import SyncJudge
from avatar.sync.offset import Offset, measure

ANSWERS = ("right", "none", "wrong")
SHIFTS = tuple(round(0.1 * k, 1) for k in range(-15, 16))  # seconds
BEYOND = (-5.0, -4.0, -3.0, 3.0, 4.0, 5.0)
DRIFTS = (-0.01, 0.01)  # seconds per second
STRANGERS = 6  # other clips whose audio each clip gets
JUMPS = (-0.8, 0.4, 1.0)  # seconds, in the middle


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos of people who talk, with their own audio."""
    seconds: tuple[float, ...] = (8.0, 10.0, 12.0, 20.0, 40.0, 60.0)
    """Lengths of the clips."""
    clips: int = 3
    """Clips of a length per video, at most."""
    same: tuple[str, ...] = ()
    """Pairs of videos with the same audio, as NAME=NAME: they are not taken for strangers."""
    tracks: Path | None = None
    """Keep tracked landmarks here for the next time."""
    json: Path | None = None
    """Write the numbers here."""


@dataclass(frozen=True, kw_only=True)
class _Clip:
    name: str
    track: Track
    start: int
    frames: int
    reference: float

    @property
    def landmarks(self) -> np.ndarray:
        return self.track.landmarks[self.start : self.start + self.frames]

    @property
    def audio(self) -> np.ndarray:
        first, count = (round(n / self.track.fps * SAMPLE_RATE) for n in (self.start, self.frames))
        return self.track.audio[first : first + count]


def main(config: Config) -> None:
    """Track, move the audio, measure, count."""
    with FaceTracker() as tracker:
        tracks = {
            path.stem: track_video(path, tracker, config.tracks)
            for path in track(config.videos, "Tracking", len(config.videos))
        }
    judge = SyncJudge.load()
    whole = {name: measure(judge, t.landmarks, t.audio, t.fps) for name, t in tracks.items()}
    untrusted = sorted(name for name, found in whole.items() if not found.trusted)
    if untrusted:
        raise AvatarError(f"No delay is found for all of {', '.join(untrusted)}.", fix="Leave these videos out.")
    same = {frozenset(pair.split("=")) for pair in config.same}
    result: dict[str, Any] = environment() | {
        "videos": {
            name: {"seconds": round(len(t.landmarks) / t.fps, 1), "delay_frames": whole[name].audio_delay_s * t.fps,
                   "z_score": whole[name].z_score}
            for name, t in tracks.items()
        }
    }  # fmt: skip
    for seconds in config.seconds:
        clips = [clip for name, t in tracks.items() for clip in _cut(name, t, whole[name], seconds, config.clips)]
        row: dict[str, Any] = {
            "moved": _moved(judge, clips),
            "must_not_be_answered": _unanswerable(judge, clips, same),
            "changes": _changing(judge, clips),
        }
        result[f"clips of {seconds:g} s"] = row
        counts = row["moved"]["all"]
        info(f"{seconds:g} s, {len(clips)} clips: " + ", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS))
        info(f"  trusted where it must not be: {row['must_not_be_answered']}; changing: {row['changes']}")
        if config.json is not None:  # after every length: it takes minutes
            write_json(config.json, result)


def _cut(name: str, video: Track, whole: Offset, seconds: float, most: int) -> Iterator[_Clip]:
    """Clips of a video, evenly spread over it."""
    frames = round(seconds * video.fps)
    spare = min(len(video.landmarks), int(len(video.audio) / SAMPLE_RATE * video.fps)) - frames
    if spare < 0:
        return
    count = min(most, 1 + 2 * spare // frames)
    for start in np.linspace(0, spare, count).astype(int).tolist():
        yield _Clip(name=name, track=video, start=start, frames=frames, reference=whole.audio_delay_s)


def _moved(judge: SyncJudge, clips: list[_Clip]) -> dict[str, dict[str, int]]:
    """Count the answers for audio moved by each of `SHIFTS`, over all and by video."""
    counts: dict[str, Counter[str]] = {}
    for clip in clips:
        for shift in SHIFTS:
            found = measure(judge, clip.landmarks, moved(clip.audio, shift), clip.track.fps)
            answer = _answer(found, clip.reference + shift, clip.track.fps)
            for key in ("all", clip.name):
                counts.setdefault(key, Counter())[answer] += 1
    return {key: {answer: count[answer] for answer in ANSWERS} for key, count in counts.items()}


def _unanswerable(judge: SyncJudge, clips: list[_Clip], same: set[frozenset[str]]) -> dict[str, str]:
    """Count trusted answers among clips whose delay is out of range, or whose audio is of another video or place."""
    rng = np.random.default_rng(0)
    trusted: Counter[str] = Counter()
    asked: Counter[str] = Counter()

    def ask(kind: str, clip: _Clip, audio: np.ndarray) -> None:
        asked[kind] += 1
        trusted[kind] += measure(judge, clip.landmarks, audio, clip.track.fps).trusted

    for clip in clips:
        for shift in BEYOND:
            ask("beyond the range", clip, moved(clip.audio, shift))
        for other in [clips[i] for i in rng.permutation(len(clips))[:STRANGERS]]:
            if other.name != clip.name and frozenset((clip.name, other.name)) not in same:
                ask("audio of another video", clip, other.audio)
            elif other.name == clip.name and abs(other.start - clip.start) >= clip.frames + 12 * clip.track.fps:
                ask("audio of another place", clip, other.audio)
    return {kind: f"{trusted[kind]} of {asked[kind]}" for kind in asked}


def _changing(judge: SyncJudge, clips: list[_Clip]) -> dict[str, str]:
    """Count trusted answers among clips whose audio runs at another rate, or jumps in the middle."""
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        **{f"drifts by {100 * drift:+g} %": lambda audio, drift=drift: drifting(audio, drift) for drift in DRIFTS},
        **{f"jumps by {jump:+g} s": lambda audio, jump=jump: jumping(audio, jump) for jump in JUMPS},
    }
    return {
        kind: f"{sum(measure(judge, c.landmarks, change(c.audio), c.track.fps).trusted for c in clips)} of {len(clips)}"
        for kind, change in changes.items()
    }


def _answer(found: Offset, expected: float, fps: float) -> str:
    if not found.trusted:
        return "none"
    return "right" if abs(found.audio_delay_s - expected) * fps <= 1 else "wrong"


def moved(audio: np.ndarray, seconds: float) -> np.ndarray:
    """Samples [S] that come later by ``seconds``; silence fills the end that is missing."""
    shift = round(seconds * SAMPLE_RATE)
    out = np.zeros_like(audio)
    if abs(shift) < len(audio):
        out[max(shift, 0) : len(audio) + min(shift, 0)] = audio[max(-shift, 0) : len(audio) - max(shift, 0)]
    return out


def drifting(audio: np.ndarray, drift: float) -> np.ndarray:
    """Samples [S] that come later and later, by ``drift`` seconds per second."""
    import soxr

    out = np.zeros_like(audio)
    slower = soxr.resample(audio, SAMPLE_RATE, SAMPLE_RATE * (1 + drift)).astype(np.float32)[: len(audio)]
    out[: len(slower)] = slower
    return out


def jumping(audio: np.ndarray, seconds: float) -> np.ndarray:
    """Samples [S] whose second half is moved by ``seconds``."""
    half = len(audio) // 2
    return np.concatenate([audio[:half], moved(audio, seconds)[half:]])


if __name__ == "__main__":
    with on_terminal():
        main(tyro.cli(Config))
