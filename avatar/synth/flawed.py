"""Videos as they should not be but are: a rotation flag, irregular frame times."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avatar.io.media import open_media
from avatar.io.video_writer import BT709, LIMITED_RANGE
from avatar.writing import atomic_file


def write_variable_rate(
    path: Path, images: Iterable[np.ndarray], width: int, height: int, fps: float, speech: Path | None
) -> None:
    """Like `avatar.io.video_writer.VideoWriter`, with every frame shown up to 0.3 frames early or late.

    The frames still belong to their regular times on average, so the audio stays in step.
    """
    ticks = 90_000
    rng = np.random.default_rng(0)
    with atomic_file(path) as temporary, av.open(f"file:{temporary}", "w", format="mp4") as output:
        video = output.add_stream("libx264", rate=Fraction(fps).limit_denominator(10_000))
        video.width, video.height, video.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        video.options = {"crf": "18", "preset": "veryfast"}
        context = video.codec_context
        context.time_base = Fraction(1, ticks)
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        audio = output.add_stream("aac", rate=24000, layout="mono") if speech else None
        for number, image in enumerate(images):
            padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
            shift = rng.uniform(-0.3, 0.3) if number else 0.0
            frame.pts, frame.time_base = round((number + shift) / fps * ticks), Fraction(1, ticks)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None and speech is not None:
            with open_media(speech, "audio") as source:
                for chunk in source.decode(audio=0):
                    output.mux(audio.encode(chunk))
            output.mux(audio.encode(None))


def set_rotation(path: Path, degrees: int) -> None:
    """Set the rotation flag of an mp4: players turn the image clockwise by ``degrees`` (a multiple of 90).

    The flag is the 3x3 matrix in the header of the video track (ISO/IEC 14496-12, `tkhd`).
    """
    data = bytearray(path.read_bytes())
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees % 360]
    at = data.find(b"tkhd")
    while at >= 0:
        wide = data[at + 4] == 1  # version 1 has 64-bit times
        matrix = at + 4 + 4 + (32 if wide else 20) + 16
        width, height = struct.unpack(">II", data[matrix + 36 : matrix + 44])
        if width and height:  # audio tracks have none
            w, h = width >> 16, height >> 16
            x = {0: 0, 90: h, 180: w, 270: 0}[degrees % 360]
            y = {0: 0, 90: 0, 180: h, 270: w}[degrees % 360]
            fixed = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, x << 16, y << 16, 1 << 30)
            data[matrix : matrix + 36] = struct.pack(">9i", *fixed)
        at = data.find(b"tkhd", at + 4)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
