"""Rows of a stream at another rate, and rows of several streams joined; pushed piece by piece, whatever the pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class LinearResampler:
    """Linear interpolation of a stream of rows to another rate. A row comes out when those on both sides are there.

    Args:
        rate, fps: Rows per second, before and after.
    """

    def __init__(self, rate: float, fps: float) -> None:
        self._rate, self._fps = rate, fps
        self._held: Tensor | None = None
        self._base = self._frame = 0  # row number of held[0]; next row to make

    def push(self, rows: Float[Tensor, "n C"]) -> Float[Tensor, "m C"]:
        """Take rows [n, C] at ``rate``; return rows [m, C] at ``fps``."""
        held = self._held = rows if self._held is None else torch.cat([self._held, rows])
        ready = int((self._base + len(held) - 1) * self._fps / self._rate + 1e-6) + 1 - self._frame
        return self._take(held, ready) if len(held) else rows

    def finish(self, total: int) -> Float[Tensor, "m C"]:
        """Return the rest, ``total`` rows in all: the last one is repeated."""
        if self._held is None or not len(self._held):
            return torch.zeros(0, 0) if self._held is None else self._held
        return self._take(self._held, total - self._frame)

    def _take(self, held: Tensor, count: int) -> Tensor:
        if count <= 0:
            return held[:0]
        frames = torch.arange(self._frame, self._frame + count, dtype=torch.float64)
        at = (frames * (self._rate / self._fps) - self._base).clamp(max=len(held) - 1)
        low = at.long()
        high = (low + 1).clamp(max=len(held) - 1)
        part = (at - low)[:, None]
        mixed = held[low] * (1 - part) + held[high] * part
        self._frame += count
        drop = min(int(self._frame * self._rate / self._fps) - self._base, len(held) - 1)
        self._held, self._base = held[drop:], self._base + drop
        return mixed.float()


class FrameResampler:
    """Interpolate rows at ``first + k / rate`` seconds to frames at ``start + t / fps``.

    The first row holds before its time. Where there are several rows to a frame they are first averaged with a triangle
    as wide as two frames, so that nothing between two frames is lost. It ends with the last row
    (the frame at or just after it included).

    Args:
        rate, first: Rows per second before, and the time of the first one in seconds.
        fps, start: The same after.
    """

    def __init__(self, rate: float, first: float, fps: float, start: float) -> None:
        self._rate, self._first, self._fps, self._start = rate, first, fps, start
        self._same = rate == fps and first == start  # the rows are the frames': nothing to wait for
        self._half = max(1.0, rate / fps)  # rows on each side of the triangle
        self._reach = int(np.ceil(self._half))
        self._held: np.ndarray | None = None
        self._base = self._frame = 0  # row number of held[0]; next frame to make

    @property
    def look_ahead(self) -> float:
        """Seconds from a frame's time to the last row that it needs, at most."""
        return 0.0 if self._same else self._half / self._rate

    def push(self, rows: Float[np.ndarray, "n F"]) -> Float[np.ndarray, "m F"]:
        """Take rows [n, F]; return frames [m, F]."""
        if self._same:
            return rows
        held = self._held = rows if self._held is None else np.concatenate([self._held, rows])
        if not len(held):
            return held
        out = self._take(held, False)
        needed = int(np.floor(((self._start + self._frame / self._fps) - self._first) * self._rate)) - self._reach
        drop = min(max(0, needed - self._base), len(held) - 1)
        self._held, self._base = held[drop:], self._base + drop
        return out

    def finish(self) -> Float[np.ndarray, "m F"]:
        """Return the remaining frames [m, F]."""
        if self._same or self._held is None or not len(self._held):
            return np.zeros((0, 0), np.float32)
        return self._take(self._held, True)

    def _take(self, held: np.ndarray, final: bool) -> np.ndarray:
        """The frames that the rows at hand are enough for."""
        top = self._base + len(held) - (1 if final else self._half)  # rows further away than that have no weight
        last = int(np.floor((top / self._rate + self._first - self._start) * self._fps + 1e-9)) + int(final)
        if last < self._frame:
            return held[:0]
        frames = np.arange(self._frame, last + 1)
        at = ((self._start + frames / self._fps) - self._first) * self._rate  # in rows
        nearest = np.floor(at).astype(int)[:, None] + np.arange(-self._reach + 1, self._reach + 1)
        weight = np.maximum(0, 1 - np.abs(nearest - at[:, None]) / self._half)
        weight /= weight.sum(1, keepdims=True)
        rows = np.clip(nearest - self._base, 0, len(held) - 1)
        self._frame = last + 1
        return np.einsum("nk,nkf->nf", weight.astype(np.float32), held[rows])


class SideBySide:
    """Rows of several streams joined into one, as soon as all have them.

    A stream that ends early repeats its last row until all have ended.

    Args:
        count: Streams.
    """

    def __init__(self, count: int) -> None:
        self._held: list[np.ndarray | None] = [None] * count  # rows not yet given
        self._last: list[np.ndarray | None] = [None] * count  # the last one that was given

    def push(self, columns: Sequence[np.ndarray]) -> np.ndarray | None:
        """Take rows [n_i, F_i] of each stream; return rows [m, sum F_i], None where there are none yet."""
        held = self._add(columns)
        size = min(map(len, held))
        return self._take(held, size) if size else None

    def finish(self, columns: Sequence[np.ndarray]) -> np.ndarray | None:
        """Take the last rows of each stream and return all that is left; None where a stream had no row."""
        held = self._add(columns)
        size = max(map(len, held))
        if not size or any(not len(rows) and last is None for rows, last in zip(held, self._last, strict=True)):
            return None
        filled = []
        for rows, last in zip(held, self._last, strict=True):
            source = rows if len(rows) or last is None else last
            filled.append(np.pad(source, ((0, size - len(source)), (0, 0)), "edge"))
        return self._take(filled, size)

    def _add(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        held = []
        for before, rows in zip(self._held, columns, strict=True):
            held.append(rows if before is None else before if not len(rows) else np.concatenate([before, rows]))
        self._held = list(held)
        return held

    def _take(self, held: Sequence[np.ndarray], size: int) -> np.ndarray:
        self._last = [rows[size - 1 : size] for rows in held]
        self._held = [rows[size:] for rows in held]
        return np.concatenate([rows[:size] for rows in held], 1)
