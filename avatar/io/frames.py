"""From a decoded frame to an image: deinterlaced, upright, with square pixels, SDR BT.709 and of one size."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.errors import AvatarError
from avatar.io.colour import UNTAGGED, WHITE, ColourGraph, ColourKind, colour_of

if TYPE_CHECKING:
    import av

MOST_STRETCH = 4  # of the sides of a pixel: more is a mistake in the header
_SQUARE = 0.01  # a pixel that is less out of square is a rounding of the header
_SAME_SHAPE = 0.02  # two sizes whose aspect differs by less are scaled into each other
_NEAR_TURN = 10.0  # degrees from a quarter turn that are left standing
_NO_BASE_LAYER = {14: "ICtCp", 15: "IPT", 10: "constant luminance"}  # matrices that FFmpeg does not convert


@dataclass(frozen=True)
class Orientation:
    """What a player does to a stored frame.

    Attributes:
        transposed: Whether rows become columns; before the rest.
        flip_x, flip_y: Whether left and right, or top and bottom, change places; after that.
        slant: Degrees that the file asks for on top, less than a quarter turn.
    """

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False
    slant: float = 0.0

    @property
    def turn(self) -> int:
        """Clockwise turn in degrees: 0, 90, 180 or 270, before mirroring left and right where it is mirrored."""
        if not self.transposed:
            return 180 if self.flip_y else 0
        return 270 if self.flip_y else 90

    @property
    def mirrored(self) -> bool:
        """Whether right and left hand change places."""
        return self.transposed ^ self.flip_x ^ self.flip_y

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn an image [H, W, C]."""
        if self == _UPRIGHT:
            return image
        image = image.swapaxes(0, 1) if self.transposed else image
        return np.ascontiguousarray(image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


_UPRIGHT = Orientation()


class Orientations:
    """Follows the display matrix of a stream: it comes from the container, or from the coded stream itself.

    A coded stream says it only now and then, and it holds until the next one.
    """

    def __init__(self) -> None:
        self._orientation: Orientation | None = None
        self._rotation = 0

    def next(self, frame: av.VideoFrame) -> Orientation:
        """Orientation of the frame that came last."""
        # Looking at side data ties a frame into a reference cycle, so that it is not freed at once: only where needed.
        if self._orientation is None or frame.rotation not in (0, self._rotation):
            self._orientation = orientation_of(frame) or self._orientation or _UPRIGHT
            self._rotation = frame.rotation
        return self._orientation


def orientation_of(frame: av.VideoFrame) -> Orientation | None:
    """Read the display matrix of a decoded frame; None where it has none."""
    side_data: Any = frame.side_data
    try:
        matrix = struct.unpack("<9i", bytes(side_data["DISPLAYMATRIX"]))
    except KeyError:
        return None
    right, down = np.array(matrix[0:2], float), np.array(matrix[3:5], float)  # where the axes of the frame point to
    if not right.any() or not down.any():
        return None
    right, down = right / np.hypot(*right), down / np.hypot(*down)
    transposed = bool(abs(right[1]) + abs(down[0]) > abs(right[0]) + abs(down[1]))
    along_x, along_y = (down[0], right[1]) if transposed else (right[0], down[1])
    slant = float(np.degrees(np.arccos(np.clip(min(abs(along_x), abs(along_y)), 0, 1))))
    return Orientation(transposed, bool(along_x < 0), bool(along_y < 0), slant if slant > 0.5 else 0.0)


def pixel_shape(ratio: Fraction | None) -> Fraction:
    """Width of a pixel by its height; 1 where the header says nothing, or nothing sane."""
    if not ratio or not 1 / MOST_STRETCH <= ratio <= MOST_STRETCH or abs(ratio - 1) < _SQUARE:
        return Fraction(1)
    return Fraction(ratio)


class PixelShapes:
    """Follows the shape of the pixels of a stream, frame by frame.

    Args:
        stream: Where the frames come from.
        fixed: Shape that the container gives; None: the coded stream says it, and may change it.
    """

    def __init__(self, stream: Any, fixed: Fraction | None) -> None:
        self._context, self._fixed = stream.codec_context, fixed
        self._shape = pixel_shape(self._context.sample_aspect_ratio)
        self._left = 0

    def next(self) -> Fraction:
        """Shape of a pixel of the frame that came last."""
        if self._fixed is not None:
            return self._fixed
        newest = pixel_shape(self._context.sample_aspect_ratio)
        if newest == self._shape:
            self._left = self._context.reorder_depth  # frames that come out before the one that changes it
        elif self._left:
            self._left -= 1
        else:
            self._shape = newest
        return self._shape


def shown_size(frame: av.VideoFrame, pixel: Fraction, orientation: Orientation) -> tuple[int, int]:
    """Width and height as a player shows them: the shorter side of a pixel is stretched, then all is turned."""
    width, height = frame.width, frame.height
    width, height = (round(width * pixel), height) if pixel > 1 else (width, round(height / pixel))
    return (height, width) if orientation.transposed else (width, height)


@dataclass(frozen=True)
class Look:
    """What all frames of a video are brought to.

    Attributes:
        width, height: Size in pixels.
        pixel: Width of a pixel by its height, from the container; None: from the coded stream, frame by frame.
        fields: "tff" or "bff" where the frames are interlaced, that field first; None: progressive.
        colours: Transfer, primaries and matrix of the container, where it gives any but those of SDR BT.709.
        partly: Whether only those frames are interlaced that are marked as such.
        white: Light in cd/m2 of an HDR video that becomes the white of SDR.
    """

    width: int
    height: int
    pixel: Fraction | None = None
    fields: str | None = None
    white: float = WHITE
    colours: tuple[int, int, int] | None = None
    partly: bool = False


@dataclass(frozen=True)
class Shot:
    """A frame that is to be developed, and the width of its pixels by their height."""

    frame: av.VideoFrame
    pixel: Fraction

    @property
    def time(self) -> float | None:
        """Seconds on the file's clock; None where the file does not say."""
        return self.frame.time


class Developer:
    """Turns the decoded frames of one stream into images; holds on to what that needs."""

    def __init__(self, look: Look, stream: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self._look, self._stream = look, stream
        self._pixels = PixelShapes(stream, look.pixel)
        self._colours: ColourGraph | None = None
        self._orientations = Orientations()
        # One for all frames: `VideoFrame.reformat` makes a converter, with its threads, for every frame.
        self._convert = VideoReformatter().reformat

    def shots(self, frames: Iterator[av.VideoFrame]) -> Iterator[Shot]:
        """Take decoded frames as they come, deinterlaced where the video is interlaced: one shot for every frame."""
        shapes: deque[Fraction] = deque()

        def noted() -> Iterator[av.VideoFrame]:
            for frame in frames:
                shapes.append(self._pixels.next())
                yield frame

        look = self._look
        base = self._stream.time_base
        source = noted() if look.fields is None else deinterlaced(noted(), look.fields, base, look.partly)
        for frame in source:
            yield Shot(frame, shapes.popleft())

    def image(self, shot: Shot) -> np.ndarray:
        """Develop a shot into uint8 RGB [height, width, 3]."""
        look, frame = self._look, shot.frame
        orientation = self._orientations.next(frame)
        size = shown_size(frame, shot.pixel, orientation)
        wanted = _fitted(size, (look.width, look.height))
        stored = wanted[::-1] if orientation.transposed else wanted
        scaled = {} if (frame.width, frame.height) == stored else {"width": stored[0], "height": stored[1]}
        image = orientation.apply(self._rgb(frame, scaled))
        return image if wanted == (look.width, look.height) else _framed(image, look.width, look.height)

    def _rgb(self, frame: av.VideoFrame, scaled: dict[str, int]) -> np.ndarray:
        """Convert a frame to uint8 RGB of SDR BT.709, as stored."""
        from av.video.reformatter import Colorspace

        kind = colour_of(frame)
        matrix = None
        if frame.colorspace == UNTAGGED:
            # Players take the HD matrix from 720 lines on, and the SD one below.
            high = min(self._look.width, self._look.height) >= 720
            matrix = Colorspace.BT2020 if kind.hdr else Colorspace.ITU709 if high else Colorspace.ITU601
        if kind.plain:
            return self._convert(frame, format="rgb24", src_colorspace=matrix, **scaled).to_ndarray()
        deep = any(part.bits > 8 for part in frame.format.components)
        rgb = self._convert(frame, format="gbrp12le" if deep else "gbrp", src_colorspace=matrix, **scaled)
        if self._colours is None or not self._colours.fits(kind, rgb):
            self._colours = ColourGraph(kind, rgb, self._look.white)
        return self._colours.convert(rgb).reformat(format="rgb24").to_ndarray()


def check_colours(frame: av.VideoFrame, kind: ColourKind, path: Any) -> None:
    """Refuse colours that cannot be converted.

    Raises:
        AvatarError: The matrix is none that FFmpeg converts, or the picture is in Dolby Vision's own colours.
    """
    dolby = "DOVI_METADATA" in frame.side_data and kind.hdr is None and frame.color_trc == UNTAGGED
    if dolby or frame.colorspace in _NO_BASE_LAYER:
        name = "Dolby Vision without a base layer" if dolby else _NO_BASE_LAYER[frame.colorspace]
        raise AvatarError(
            f"The colours of {path} are coded as {name}, which cannot be converted here.",
            fix="Export it as SDR, or as HLG (on iPhones: Settings > Camera > Record Video > HDR off).",
        )


def deinterlaced(
    frames: Iterator[av.VideoFrame], fields: str, time_base: Fraction | None, partly: bool = False
) -> Iterator[av.VideoFrame]:
    """Deinterlace frames by Bob Weaver (bwdif): one frame for every frame, at the time of its first field.

    With ``partly``, frames that are not marked as interlaced are kept.
    """
    from av.error import BlockingIOError, EOFError
    from av.filter import Graph

    graph: Graph | None = None
    shape: tuple[Any, ...] = ()

    def pulled(graph: Graph | None, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        if graph is None:
            return
        graph.vpush(frame)
        while True:
            try:
                yield graph.vpull()
            except (BlockingIOError, EOFError):
                return

    for frame in frames:
        if shape != (frame.width, frame.height, frame.format.name):
            yield from pulled(graph, None)
            shape = frame.width, frame.height, frame.format.name
            graph = Graph()
            base: Any = time_base or frame.time_base
            source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
            bwdif = graph.add("bwdif", mode="send_frame", parity=fields, deint="interlaced" if partly else "all")
            graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        yield from pulled(graph, frame)
    yield from pulled(graph, None)


def _fitted(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Size of a frame in the room of the video: all of it, where the shape is the same."""
    if size == room:
        return room
    across, up = room[0] / size[0], room[1] / size[1]
    if abs(across / up - 1) < _SAME_SHAPE:
        return room
    scale = min(across, up)
    return max(2, round(size[0] * scale)), max(2, round(size[1] * scale))


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are scaled into each other, without black edges."""
    return _fitted(size, other) == other


def _framed(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image in the middle of a black one."""
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    framed[top : top + image.shape[0], left : left + image.shape[1]] = image
    return framed


def near_turn(orientation: Orientation) -> bool:
    """Whether a slant is small enough to be left standing."""
    return orientation.slant <= _NEAR_TURN
