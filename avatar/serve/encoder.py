"""Encode images into H.264 or VP8 packets that a browser decodes one by one, without delay."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

Codec = Literal["h264", "vp8"]
KEY_SECONDS = 2.0  # between frames that need no other
# What `VideoDecoder.configure` takes. Of H.264 constrained baseline, level 3.1 or 4.0 by size.
STRINGS = {"h264": "avc1.42E01F", "vp8": "vp8"}
LARGE = 1280 * 720  # pixels; more needs another level of H.264


class Packet(NamedTuple):
    """An encoded frame.

    Attributes:
        data: H.264 in Annex B with its parameter sets, or VP8.
        key: Whether it needs no other frame.
    """

    data: bytes
    key: bool


class Encoder:
    """Encode consecutive images of one size; a new size begins anew with a key frame.

    Args:
        codec: ``h264`` or ``vp8``.
        fps: Frames per second, nominally; frames may be left out.
        bits_per_second: On average.
    """

    def __init__(self, codec: Codec, fps: float, bits_per_second: int) -> None:
        from av.video.reformatter import Colorspace, VideoReformatter

        self._codec, self._fps, self._bits = codec, fps, bits_per_second
        self._matrix = Colorspace.ITU709 if codec == "h264" else Colorspace.ITU601  # what a browser takes VP8 for
        self._context = None
        # One for all images: `VideoFrame.reformat` makes a converter, with its threads, for every one.
        self._convert = VideoReformatter().reformat
        self._count = 0
        self._key = True

    def string(self, width: int, height: int) -> str:
        """The codec's name as `VideoDecoder.configure` takes it."""
        return "avc1.42E028" if self._codec == "h264" and width * height > LARGE else STRINGS[self._codec]

    def want_key(self) -> None:
        """Make the next frame one that needs no other."""
        self._key = True

    def encode(self, image: UInt8[np.ndarray, "H W 3"]) -> Packet:
        """Encode an image; odd sizes lose a row or a column, as 4:2:0 has it."""
        import av
        from av.video.frame import PictureType

        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        if self._context is None or (self._context.width, self._context.height) != (width, height):
            self._context, self._count = self._open(width, height), 0
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        frame = self._convert(frame, width=width, height=height, format="yuv420p", dst_colorspace=self._matrix)
        frame.pts, frame.time_base = self._count, Fraction(1, round(self._fps))
        key = self._key or self._count % max(1, round(KEY_SECONDS * self._fps)) == 0
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._key, self._count = False, self._count + 1
        packets = self._context.encode(frame)
        return Packet(b"".join(bytes(packet) for packet in packets), any(packet.is_keyframe for packet in packets))

    def _open(self, width: int, height: int):  # PyAV's type
        import av
        from av.video.codeccontext import VideoCodecContext

        name = "libx264" if self._codec == "h264" else "libvpx"
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, round(self._fps)), Fraction(round(self._fps), 1)
        context.bit_rate, context.gop_size = self._bits, 1 << 16
        context.thread_count = 1
        if self._codec == "h264":
            context.profile = "Baseline"
            context.options = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1",
                               "x264-params": "annexb=1:repeat-headers=1:bframes=0:scenecut=0:"
                               "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv"}  # fmt: skip
        else:
            context.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1"}
        return context
