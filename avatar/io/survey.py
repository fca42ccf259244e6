"""What a few spans of decoded frames say of a video: sizes, colours, fields, and how much its frames change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.io.colour import ColourKind, colour_of, peak_light
from avatar.io.frames import Orientation, Orientations, PixelShapes, check_colours, shown_size

if TYPE_CHECKING:
    import av

SPANS, SPAN_FRAMES = 6, 75
_CHANGE_SIDE = 320  # pixels; frames are compared at about this width
_BLOCK = 8  # pixels of that: the change is that of the block that changes most
_MOST_LINES = 1200  # nobody interlaces more
_COMBED = 0.3  # of the frames whose fields can be told apart, where they are marked as interlaced
_COMBED_UNFLAGGED = 0.8  # where they are not
_PEAK_EVERY = 20  # frames
_LEAST_COMBED = 8  # frames


@dataclass
class Survey:
    """Counts over the surveyed frames.

    Attributes:
        sizes: Frames per size as shown: width, height.
        orientations: Frames per orientation.
        colours: Frames per kind of colours.
        pixels: Frames per shape of a pixel.
        peaks: Light in cd/m2 of the brightest parts of some HDR frames (see :func:`avatar.io.colour.peak_light`).
        flagged: Frames that are marked as interlaced.
        fields: Frames per what their lines show: "tff", "bff" or "progressive".
        flagged_fields: The same of the frames that are marked as interlaced.
        times: Seconds of every frame, span by span.
        changes: Levels by which a frame differs from the one before; NaN at the beginning of a span.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    orientations: Counter[Orientation] = field(default_factory=Counter)
    colours: Counter[ColourKind] = field(default_factory=Counter)
    pixels: Counter[Fraction] = field(default_factory=Counter)
    peaks: list[tuple[float, float, float]] = field(default_factory=list)
    flagged: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    flagged_fields: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """The size that most frames have; the larger one of two."""
        return max(self.sizes, key=lambda size: (self.sizes[size], size))

    @property
    def interlaced(self) -> str | None:
        """The field that comes first, where the frames are interlaced and show it."""
        order = max(("tff", "bff"), key=lambda name: self.fields[name])
        combed = self.fields[order]
        told = self.fields["tff"] + self.fields["bff"] + self.fields["progressive"]
        if self.flagged > 0.5 * len(self.times):
            return order if combed >= _COMBED * told else None
        if self.partly:
            return order
        sure = combed >= max(_LEAST_COMBED, _COMBED_UNFLAGGED * told, _COMBED * len(self.times))
        return order if sure else None

    @property
    def partly(self) -> bool:
        """Whether only the frames that are marked as interlaced are so, and they are the fewer ones."""
        combed = max(self.flagged_fields["tff"], self.flagged_fields["bff"])
        told = combed + self.flagged_fields["progressive"]
        return self.flagged <= 0.5 * len(self.times) and combed >= max(_LEAST_COMBED, _COMBED * told)

    def step(self) -> float | None:
        """Median seconds from a frame to the next one."""
        steps = np.diff(self.times)[~np.isnan(self.changes[1:])]
        return float(np.median(steps)) if len(steps) else None


def survey(
    spans: Iterable[Iterator[av.VideoFrame]], stream: av.VideoStream, pixel: Fraction | None, path: Path
) -> Survey:
    """Look at spans of frames.

    Args:
        spans: Each gives frames that follow each other.
        stream: Where they come from.
        pixel: Shape of a pixel that the container says; None: the coded stream says it.
        path: The file, for errors.

    Raises:
        AvatarError: The colours are of a kind that cannot be converted.
    """
    from av.video.reformatter import VideoReformatter

    found = Survey()
    convert = VideoReformatter().reformat  # one for all frames: `VideoFrame.reformat` makes one for every frame
    pixels = PixelShapes(stream, pixel)
    orientations = Orientations()
    for frames in spans:
        before: np.ndarray | None = None
        fields = _FieldDetector()
        for frame in frames:
            shape = pixels.next()
            orientation = orientations.next(frame)
            found.sizes[shown_size(frame, shape, orientation)] += 1
            found.orientations[orientation] += 1
            kind = colour_of(frame)
            if kind not in found.colours:
                check_colours(frame, kind, path)
            if kind.hdr and found.colours[kind] % _PEAK_EVERY == 0:
                found.peaks.append(peak_light(frame, kind))
            found.colours[kind] += 1
            found.pixels[shape] += 1
            found.flagged += frame.interlaced_frame
            if frame.height <= _MOST_LINES:
                seen = fields.look(frame)
                found.fields[seen] += 1
                found.flagged_fields[seen] += frame.interlaced_frame
            image = _small(frame, convert)
            same = before is not None and before.shape == image.shape
            found.changes.append(change(before, image) if before is not None and same else float("nan"))
            found.times.append(float("nan") if frame.time is None else frame.time)
            before = image
    return found


def _small(frame: av.VideoFrame, convert: Callable[..., av.VideoFrame]) -> np.ndarray:
    from av.video.reformatter import Interpolation

    scale = max(1, round(max(frame.width, frame.height) / _CHANGE_SIDE))
    small = convert(
        frame, width=max(_BLOCK, frame.width // scale), height=max(_BLOCK, frame.height // scale), format="gray",
        interpolation=Interpolation.FAST_BILINEAR,
    )  # fmt: skip
    return small.to_ndarray()


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference in levels of the block of two grey images [H, W] that changes most."""
    import cv2

    height, width = after.shape
    difference = cv2.absdiff(before, after)
    blocks = cv2.resize(
        difference.astype(np.float32), (width // _BLOCK, height // _BLOCK), interpolation=cv2.INTER_AREA
    )
    return float(blocks.max())


class _FieldDetector:
    """FFmpeg's idet over frames that follow each other."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._shape: tuple[Any, ...] = ()

    def look(self, frame: av.VideoFrame) -> str:
        """Tell "tff", "bff", "progressive" or "undetermined" of a frame (the one before: the filter looks ahead)."""
        from av.error import BlockingIOError, EOFError
        from av.filter import Graph

        shape = frame.width, frame.height, frame.format.name
        if shape != self._shape:
            self._shape, self._graph = shape, Graph()
            base: Any = frame.time_base or Fraction(1, 1000)
            source = self._graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
            self._graph.link_nodes(source, self._graph.add("idet"), self._graph.add("buffersink")).configure()
        self._graph.vpush(frame)
        try:
            return self._graph.vpull().metadata.get("lavfi.idet.single.current_frame", "undetermined")
        except (BlockingIOError, EOFError):
            return "undetermined"
