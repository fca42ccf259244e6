"""Speech features and energy at the times of video frames, in constant memory, the same for any chunk size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.audio import spectra
from avatar.audio.encoders.base import AudioEncoder, SpeechEncoder
from avatar.audio.resampling import FrameResampler, SideBySide
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, chunked

_REPORT = "Report it to those who wrote the encoder."
_LOUDEST = 100.0  # nobody clips by 40 dB: such samples are not scaled


@dataclass(frozen=True)
class FrameFeatures:
    """Consecutive video frames.

    Attributes:
        features: [n, dim] float32.
        energy: [n] float32, level in the speech band in dB relative to full scale, at least `ENERGY_FLOOR_DB`.
    """

    features: np.ndarray
    energy: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)


class FrameFeatureStream:
    """Features and energy of one recording, interpolated linearly at the times of video frames.

    Args:
        encoder: Makes the features.
        fps: Video frames per second.
        num_frames: Frames in all; the last row is repeated where the audio ends early. None: as many as begin within
            the audio.
        offset: Frames by which the audio comes after the video: frame t gets the audio at ``(t + offset) / fps``.
    """

    def __init__(
        self, encoder: SpeechEncoder | AudioEncoder, fps: float, *, num_frames: int | None = None, offset: float = 0.0
    ) -> None:
        self._fps, self._limit, self._offset = fps, num_frames, offset
        self._encoder = encoder
        parts = _parts(encoder)
        start = offset / fps
        self._parts = parts
        self._sources = [spectra.SpeechEnergy(), *(part.open() for part in parts)]
        self._frames = [FrameResampler(spectra.RATE, 0.0, fps, start)]
        self._frames += [FrameResampler(part.rate, part.first, fps, start) for part in parts]
        self._join = SideBySide(len(self._sources))
        self._samples = self._done = 0
        self._last: np.ndarray | None = None

    def frames_at(self, fps: float, offset: float = 0.0) -> int:
        """Frames that begin within the audio so far, at a rate; at least one."""
        return max(1, int(np.ceil(self._samples / SAMPLE_RATE * fps - offset - 1e-6)))

    def push(self, samples: np.ndarray) -> FrameFeatures:
        """Take samples [N]; return the frames [n >= 0] that they complete.

        Raises:
            AvatarError: The samples are no mono floating-point audio within -1 and 1.
        """
        _check(samples)
        self._samples += len(samples)
        if self._limit is not None and self._done >= self._limit:
            return self._cut(None, 0)
        rows = self._checked([source.push(samples) for source in self._sources])
        columns = [frames.push(part) for part, frames in zip(rows, self._frames, strict=True)]
        return self._cut(self._join.push(columns), self._limit)

    def finish(self) -> FrameFeatures:
        """End the audio; return the remaining frames. None come out where there was no audio."""
        limit = self.frames_at(self._fps, self._offset) if self._limit is None else self._limit
        columns = []
        last = self._checked([source.finish() for source in self._sources])
        for rows, frames in zip(last, self._frames, strict=True):
            columns.append(_joined(frames.push(rows), frames.finish()))
        out = self._cut(self._join.finish(columns), limit)
        missing = limit - self._done
        if missing <= 0 or self._last is None:
            return out
        self._done += missing  # the last rows of an encoder end before the audio does
        return FrameFeatures(
            np.concatenate([out.features, np.repeat(self._last[:, 1:], missing, 0)]),
            np.concatenate([out.energy, np.repeat(self._last[:, 0], missing)]),
        )

    def _checked(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """Refuse what no network can learn from; encoders may be other people's."""
        for part, found in zip(self._parts, rows[1:], strict=True):
            if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != part.dim:
                raise AvatarError(f"The speech encoder {part.name!r} gave {list(np.shape(found))}, not rows of "
                                  f"{part.dim} features.", fix=_REPORT)  # fmt: skip
            if not np.isfinite(found).all():
                raise AvatarError(
                    f"The speech encoder {part.name!r} gave features that are NaN or infinite.", fix=_REPORT
                )
        return rows

    def _cut(self, rows: np.ndarray | None, limit: int | None) -> FrameFeatures:
        """Rows up to frame ``limit``, split into features and energy."""
        if rows is not None and limit is not None:
            rows = rows[: max(0, limit - self._done)]
        if rows is None or not len(rows):
            return FrameFeatures(np.zeros((0, self._encoder.dim), np.float32), np.zeros(0, np.float32))
        self._last = rows[-1:]
        self._done += len(rows)
        return FrameFeatures(np.ascontiguousarray(rows[:, 1:]), np.ascontiguousarray(rows[:, 0]))


def features_at(
    encoder: SpeechEncoder | AudioEncoder,
    samples: np.ndarray,
    fps: float,
    num_frames: int | None = None,
    offset: float = 0.0,
) -> FrameFeatures:
    """Features and energy of a whole recording [N]; see `FrameFeatureStream`."""
    stream = FrameFeatureStream(encoder, fps, num_frames=num_frames, offset=offset)
    blocks = [*(stream.push(piece) for piece in chunked(samples)), stream.finish()]
    return FrameFeatures(np.concatenate([b.features for b in blocks]), np.concatenate([b.energy for b in blocks]))


def features_look_ahead(encoder: SpeechEncoder | AudioEncoder, fps: float) -> float:
    """Seconds of audio after a frame's time that are needed before its features come out, at most."""
    energy = spectra.LOOK_AHEAD + FrameResampler(spectra.RATE, 0.0, fps, 0.0).look_ahead
    waits = [p.look_ahead + FrameResampler(p.rate, p.first, fps, 0.0).look_ahead for p in _parts(encoder)]
    return max([energy, *waits])


def _parts(encoder: SpeechEncoder | AudioEncoder) -> tuple[AudioEncoder, ...]:
    return encoder.parts if isinstance(encoder, SpeechEncoder) else (encoder,)


def _joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, b]) if len(b) else a


def _check(chunk: np.ndarray) -> None:
    """Raise where a program hands over what is no 16 kHz mono audio."""
    if chunk.ndim != 1 or not np.issubdtype(chunk.dtype, np.floating):
        raise AvatarError(
            "Audio has to come as floating-point samples [N] of one channel,",
            why=f"not as {chunk.dtype} {list(chunk.shape)}.",
            fix="Mix the channels, and divide whole numbers by their full scale.",
        )
    if not np.isfinite(chunk).all():
        raise AvatarError("The audio contains samples that are not numbers (NaN or infinite).")
    if len(chunk) and np.abs(chunk).max() > _LOUDEST:
        raise AvatarError("The samples of audio have to be within -1 and 1,", why=f"not {np.abs(chunk).max():g}.")
