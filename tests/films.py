"""Small recordings with the traits of real ones: turned, stretched, high dynamic range, interlaced, repeated frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MOVING = 96, 64  # width and height of the frames of `moving`


def moving(count: int, noise: float = 2.0, width: int = MOVING[0], height: int = MOVING[1]) -> list[np.ndarray]:
    """Frames of a bright bar that sways before a fixed pattern, with a sensor's noise, and their number in bits."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    ground = 90 + 40 * np.sin(x / 9) * np.cos(y / 7)
    frames = []
    for k in range(count):
        middle = width / 2 + width / 4 * np.sin(k / 2.5)
        grey = np.where(np.abs(x - middle) < width / 10, 210.0, ground) + rng.normal(0, noise, (height, width))
        _write_number(grey, k)
        frames.append(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, -1))
    return frames


def _write_number(grey: np.ndarray, number: int) -> None:
    """Write a number below 256 as eight columns on the upper eighth of a picture [H, W]."""
    height, width = grey.shape[0] // 8, grey.shape[1] // 8
    for bit in range(8):
        grey[:height, bit * width : (bit + 1) * width] = 130 if number >> bit & 1 else 90


def number_of(image: np.ndarray) -> int:
    """Read the number of a frame of `moving`, which may be scaled, uint8 [H, W, 3]."""
    strip = image[1 : image.shape[0] // 8 - 1].mean((0, 2))
    return sum(int(part.mean() > 110) << bit for bit, part in enumerate(np.array_split(strip, 8)))


def film(
    path: Path, frames: Sequence[np.ndarray | av.VideoFrame], fps: Fraction | float = 25, *, codec: str = "libx264",
    pixel_format: str = "yuv420p", pixel: Fraction | None = None, matrix: Sequence[int] | None = None,
    tags: Mapping[str, int] | None = None, options: Mapping[str, str] | None = None,
    times: Sequence[float] | None = None, last: float = 0.0, container: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write frames [H, W, 3] (or decoded ones); near lossless where ``options`` say nothing else.

    Args:
        path: Where to; the suffix chooses the container.
        frames: All of one size.
        fps: Frames per second.
        codec, pixel_format, options: As FFmpeg names them.
        pixel: Width of a pixel by its height.
        matrix: Display matrix, 9 numbers.
        tags: Attributes of the encoder: ``color_trc``, ``color_primaries``, ``colorspace``, ``color_range``.
        times: Seconds at which the frames are shown; None: evenly.
        last: Seconds that the last packet says it is shown; 0: as long as the others.
        container: Options of the container.
    """
    rate = Fraction(fps).limit_denominator(1001)
    base = 1 / rate if times is None and not last else Fraction(1, 1000)
    with av.open(str(path), "w", options=dict(container or {})) as out:
        stream = out.add_stream(codec, rate=rate)
        first = frames[0]
        size = first.shape[1::-1] if isinstance(first, np.ndarray) else (first.width, first.height)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = base
        default = {"qp": "2", "preset": "ultrafast"} if codec == "libx264" else {}
        stream.options = dict(options) if options is not None else default
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        packets: list[av.Packet[Any]] = []
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24") if isinstance(image, np.ndarray) else image
            frame.pts, frame.time_base = round((times[k] if times is not None else k / rate) / base), base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if last:
            packets[-1].duration = round(last / base)
        out.mux(packets)
    return path


def coded(rgb: np.ndarray, bits: int = 10, kr: float = 0.2627, kb: float = 0.0593) -> av.VideoFrame:
    """A 4:4:4 frame of limited range from R'G'B' [H, W, 3] in 0..1 (BT.2020 non-constant luminance)."""
    y = rgb @ np.array([kr, 1 - kr - kb, kb])
    scale = 2 ** (bits - 8)
    planes: list[Any] = [
        16 + 219 * y,
        128 + 224 * (rgb[..., 2] - y) / (2 * (1 - kb)),
        128 + 224 * (rgb[..., 0] - y) / (2 * (1 - kr)),
    ]
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv444p" + (f"{bits}le" if bits > 8 else ""))
    kind = np.uint16 if bits > 8 else np.uint8
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
        rows[:, : plane.width] = np.rint(np.clip(values, 0, 255) * scale)
        plane.update(rows.tobytes())
    return frame


def woven(frames: Sequence[np.ndarray], top_first: bool = True) -> list[np.ndarray]:
    """Interlaced frames: even and odd lines from two frames that follow each other."""
    first, second = (0, 1) if top_first else (1, 0)
    pairs = []
    for k in range(0, len(frames) - 1, 2):
        frame = frames[k].copy()
        frame[second::2] = frames[k + 1][second::2]
        frame[first::2] = frames[k][first::2]
        pairs.append(frame)
    return pairs
