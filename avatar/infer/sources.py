"""Where audio and motion come from: audio files, runs, motion files, ARKit coefficients, videos."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32

from avatar import log
from avatar.data.person import PersonInfo
from avatar.data.run import MOTION, PERSON, RunInfo
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, open_audio
from avatar.io.listening import AudioContent
from avatar.io.tracks import choose_audio
from avatar.motion import Motion
from avatar.motion.statistics import MotionStats


def frames_within(seconds: float, fps: float) -> int:
    """Video frames that begin within some seconds of audio; one at least."""
    return max(1, math.ceil(seconds * fps - 1e-6))


class AudioFile:
    """An audio file as a stream whose end is known. It is decoded once.

    Args:
        path: Any file with audio that FFmpeg reads. Where no voice is heard in it, a warning says so.
        track: Number of the audio track from 1; None: see :func:`avatar.io.tracks.choose_audio`.

    Attributes:
        path: The file.
        track: The audio track, as it was asked for.
        voice_db: Level of the voice, dBFS; None where there is none, see `avatar.io.tracks.AudioChoice`.

    Raises:
        AvatarError: It cannot be read, has no audio, or no such track.
    """

    def __init__(self, path: Path | str, track: int | None = None) -> None:
        self.path, self.track = Path(path), track
        header, chunks = open_audio(self.path, track=track)
        first = next(chunks)  # a broken file is an error here, before slow work
        self._chunks: Iterator[np.ndarray] = itertools.chain([first], chunks)
        self._seconds = header.duration
        for treatment in header.treatments:
            log.info(f"{self.path}: {treatment.text}")
        if warning := voice_warning(self.path, track):
            log.warn(warning)
        self.voice_db = choose_audio(self.path, track, listen=True).voice_db  # kept, so nothing is decoded again

    def frames(self, fps: float) -> int:
        """Count the video frames that begin within the audio; decodes it where its header does not say."""
        if not self._seconds:
            copy, count = tempfile.TemporaryFile(), 0  # noqa: SIM115  # an hour is 230 MB; closed when it is read
            for chunk in self._chunks:
                copy.write(chunk.tobytes())
                count += len(chunk)
            copy.seek(0)
            self._chunks = _read_samples(copy)
            self._seconds = count / SAMPLE_RATE
        return frames_within(self._seconds, fps)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Chunks of a second, 16 kHz mono float32; once."""
        return self._chunks


def voice_warning(path: Path, track: int | None = None) -> str:
    """Warn where no voice is heard in a file: one sentence and an advice; empty where one is.

    Args:
        path: The audio file.
        track: Number of the audio track from 1; None: the one that is read by default.

    Raises:
        AvatarError: It cannot be read.
    """
    choice = choose_audio(path, track, listen=True)
    place = f"audio track {choice.index + 1} of {path}"
    if choice.content is AudioContent.SILENCE:
        return f"Nothing is heard in {place}: it is silent, so the mouth stays closed. Check the recording."
    if choice.content is AudioContent.NOISE:
        return f"No voice is heard in {place}, only noise or music: the mouth hardly moves. Check the recording."
    if choice.content is AudioContent.SOUND:
        return (
            f"No voice with a pitch was found in {place}: lips follow a whisper, and may follow music and noises. "
            "Check the recording."
        )
    return ""


def _read_samples(file: IO[bytes]) -> Iterator[np.ndarray]:
    with file:
        while data := file.read(4 * SAMPLE_RATE):
            yield np.frombuffer(data, np.float32)


def checked_samples(samples: np.ndarray) -> Float32[np.ndarray, " N"]:
    """Samples [N] as a plan takes them: float32 in -1 to 1; what is not a number becomes silence.

    Raises:
        AvatarError: They are no mono float samples.
    """
    return np.nan_to_num(mono_floats(samples), nan=0.0, posinf=0.0, neginf=0.0).clip(-1, 1)


def mono_floats(samples: np.ndarray) -> Float32[np.ndarray, " N"]:
    """Samples [N] of any floating-point type as float32, uncopied where they are that already.

    Raises:
        AvatarError: They are no mono float samples.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AvatarError(
            "Audio comes in pieces of 16 kHz mono float32 in -1 to 1,",
            why=f"not as {samples.dtype} {list(samples.shape)}.",
            fix="Mix the channels, and divide whole numbers by their full scale."
            if samples.ndim
            else "Put a single piece into a list.",
        )
    return samples.astype(np.float32, copy=False)


def is_video(path: Path) -> bool:
    """Whether :func:`read_motion` would track a face to read it."""
    return path.is_file() and path.suffix.lower() not in (".safetensors", ".csv", ".json")


def read_motion(path: Path, person: MotionStats) -> Motion:
    """Read the motion of a folder (RUN or PERSON), a motion or ARKit file, or a video.

    It has its own frame rate.

    Args:
        path: Any of these.
        person: Whose face ARKit coefficients are to move.

    Raises:
        AvatarError: It cannot be read, is a folder of another version, or shows no face.
    """
    path = Path(path)
    if path.is_dir():
        RunInfo.read(path)
        if (path / PERSON).is_file():
            PersonInfo.read(path / PERSON)
        return Motion.load(path / MOTION)
    if path.suffix.lower() == ".safetensors":
        return Motion.load(path)
    if path.suffix.lower() in (".csv", ".json"):
        from avatar.motion import arkit_files

        return arkit_files.load(path, person)
    from avatar.preprocess.face_tracker import track_motion

    return track_motion(path)
