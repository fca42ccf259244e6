"""Numbers of talking: do lips close where they have to, do they rest in silence, do they fit the audio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avatar.audio.levels import frame_levels, silent_frames
from avatar.errors import AvatarError
from avatar.eval.face_metrics import FaceTrack, Segments
from avatar.motion.timeline import load_words
from avatar.sync.judge import SyncJudge

CLOSURE_SECONDS = 0.08  # to either side of the consonant
CLOSED = 0.15  # of the way from the real video's most closed to its most open mouth

Word = tuple[float, float, str]


@dataclass(frozen=True, kw_only=True)
class Speech:
    """The audio that belongs to the measured frames.

    Attributes:
        samples: [S] 16 kHz mono float32 from the time of the first frame on.
        closures: Frames, as fractions, at which p, b or m is spoken; None where words are not known.
    """

    samples: np.ndarray
    closures: np.ndarray | None = None


class Judge(Protocol):
    """Judges whether mouth and audio belong together."""

    def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> Any:
        """Score a clip by ``confidence``, ``audio_delay_s`` and ``distance``.

        The confidence is the median minus the least distance over offsets, as SyncNet has it. The delay is in seconds,
        > 0: audio after video, and None where the best offset is at the border of the range.

        Args:
            landmarks: [T, 478, 2 or 3] float32 pixels, NaN where no face was found.
            audio: [S] float32 16 kHz mono from the time of the first frame on.
            fps: Frames per second.
        """
        ...


def load_judge(notes: list[str]) -> Judge | None:
    """The sync judge, or None with a note that says why there is none."""
    try:
        return SyncJudge.load()
    except AvatarError as error:
        notes.append(f"Sync was not judged: {error}")
    return None


def sync_metrics(
    judge: Judge | None, track: FaceTrack, speech: Speech | None, fps: float, notes: list[str]
) -> dict[str, float | None]:
    """Confidence, audio delay in seconds and distance; None where they are not available."""
    names = {"sync_confidence": "confidence", "sync_audio_delay_s": "audio_delay_s", "sync_distance": "distance"}
    if judge is None or speech is None:
        return dict.fromkeys(names)
    try:
        score = judge.score(track.landmarks.astype(np.float32), speech.samples, fps)
    except AvatarError as error:  # too short, silent, or no face
        if (note := f"Sync was not judged everywhere: {error}") not in notes:
            notes.append(note)
        return dict.fromkeys(names)
    return {key: None if (value := getattr(score, name)) is None else float(value) for key, name in names.items()}


def read_words(path: Path) -> list[Word]:
    """Words with their times in seconds from ``{"unit": "seconds", "words": [[start, end, word], ...]}``.

    Raises:
        AvatarError: The file is missing or has another form.
    """
    return list(load_words(path))


def closure_times(words: list[Word]) -> np.ndarray:
    """Find the seconds at which the lips have to close: p, b and m.

    They are placed in a word by their place in its spelling.

    Spelling is a rough guide to English sounds: "ph", a silent b ("climb", "debt") and a silent p ("psalm") are left
    out, doubled letters count once, and the letters "b", "m" and "p" spoken by themselves count ("em" at its end).
    """
    times = []
    for start, end, word in words:
        letters = word.lower()
        if letters == "sil":
            continue
        for i, letter in enumerate(letters):
            before, after = letters[i - 1 : i], letters[i + 1 : i + 2]
            silent = (
                letter not in "pbm"
                or letter == before
                or (letter == "p" and (after == "h" or (i == 0 and after in ("s", "n", "t"))))
                or (letter == "b" and (after == "t" or (before == "m" and not after)))
            )
            if not silent:
                share = 1.0 if letters == "m" else i / max(len(letters) - 1, 1)
                times.append(start + share * (end - start))
    return np.array(times)


def closed_at(opening: np.ndarray, real_opening: np.ndarray, closures: np.ndarray, fps: float) -> np.ndarray:
    """Tell at the frame of each p, b, m whether the lips close within 0.08 s of it.

    Each belongs to the frame that is shown meanwhile (`avatar.preprocess.sync` has the clock).

    Returns [T] 1 or 0 at those frames, and NaN elsewhere.

    Closed is what is nearer than 15 % of the real video's range to its most closed mouth (5th to 95th percentile).

    Args:
        opening: [T] relative mouth opening of the judged video.
        real_opening: The same of the real video, any length.
        closures: Frames, as fractions.
        fps: Frames per second.
    """
    reach = max(1, round(CLOSURE_SECONDS * fps))
    out = np.full(len(opening), np.nan)
    if not np.isfinite(real_opening).any():
        return out
    low, high = np.nanpercentile(real_opening, [5, 95])
    limit = low + CLOSED * (high - low)
    for frame in np.floor(closures + 1e-6).astype(int):  # words may begin with a frame, but for a rounding
        if not 0 <= frame < len(opening):
            continue
        near = opening[max(0, frame - reach) : frame + reach + 1]
        if np.isfinite(near).any():
            out[frame] = float(np.nanmin(near) <= limit)
    return out


def stillness_series(
    opening: np.ndarray, speech: Speech, fps: float, segments: Segments
) -> dict[str, np.ndarray]:  # fmt: skip
    """Velocity of the mouth opening per frame, in silence and in speech, [T] each; NaN in the other."""
    velocity = np.full(len(opening), np.nan)
    for start, end in segments:
        velocity[start + 1 : end] = np.diff(opening[start:end])
    silent = silent_frames(frame_levels([speech.samples], len(opening), fps), fps)
    return {
        "silent_velocity": np.where(silent, velocity, np.nan),
        "speech_velocity": np.where(silent, np.nan, velocity),
    }
