"""Results of the stages of `avatar prepare`, as each stage's stage.json holds them under "result"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args, get_type_hints

from avatar.checks import MOST_FRAMES, SIDES, Record, number, whole
from avatar.errors import AvatarError
from avatar.io.media import Treatment

FAR = 1e6  # pixels, centimetres: no number in a PERSON folder lies beyond
REDO = "Run `avatar prepare --force`."

Edges = tuple[bool, bool, bool, bool]  # left, top, right, bottom
NO_EDGES: Edges = (False, False, False, False)
Segments = Sequence[tuple[int, int]]  # [start, end) of each part without a cut, in order
Level = Literal["good", "note", "bad"]
LEVELS: tuple[Level, ...] = ("good", "note", "bad")

Read = Callable[[Record, str], Any]
P = TypeVar("P", bound="Parsed")


def read_segments(data: Record, name: str, frames: int = MOST_FRAMES) -> list[tuple[int, int]]:
    """Read [start, end) of each segment, in order and within ``frames``.

    Raises:
        AvatarError: The field is missing, empty or something else.
    """
    place, found, last = data.place(name), [], 0
    for pair in data.list(name):
        if not isinstance(pair, list) or len(pair) != 2:
            raise AvatarError(f"{place} is not a list of [start, end].")
        start, end = whole(pair[0], place, last, frames), whole(pair[1], place, last, frames)
        if start > end:
            raise AvatarError(f"{place}: a segment ends before it starts.")
        found.append((start, end))
        last = end
    if not found:
        raise AvatarError(f"{place} is empty.")
    return found


def read_treatments(data: Record, name: str) -> list[Treatment]:
    """Read what was done to a recording.

    Raises:
        AvatarError: The field is missing or something else.
    """
    return [Treatment(item.text("kind"), item.text("text")) for item in data.records(name)]


def _number(low: float = -FAR, high: float = FAR) -> Read:
    return lambda data, name: data.number(name, low, high)


def _whole(low: int, high: int) -> Read:
    return lambda data, name: data.whole(name, low, high)


def numbers(count: int) -> Read:
    """Make a reader of a list of ``count`` numbers."""
    return lambda data, name: _row(data.list(name), data.place(name), count)


def _row(values: Any, place: str, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise AvatarError(f"{place} does not hold {count} numbers.")
    return [number(value, place, -FAR, FAR) for value in values]


def _wholes(count: int, low: int, high: int) -> Read:
    def read(data: Record, name: str) -> tuple[int, ...]:
        place, values = data.place(name), data.list(name)
        if len(values) != count:
            raise AvatarError(f"{place} does not hold {count} numbers.")
        return tuple(whole(value, place, low, high) for value in values)

    return read


def _spans(data: Record, name: str) -> list[tuple[int, int]]:
    return read_segments(data, name) if data.list(name) else []


def _corners(data: Record, name: str) -> list[list[float]]:
    place, rows = data.place(name), data.list(name)
    if len(rows) != 2:
        raise AvatarError(f"{place} does not hold 2 times 2 numbers.")
    return [_row(row, place, 2) for row in rows]


def _frames(data: Record, name: str) -> list[int]:
    return [whole(value, data.place(name), 0, MOST_FRAMES) for value in data.list(name)]


def _level(data: Record, name: str) -> Level:
    if (found := data.text(name)) not in LEVELS:
        raise AvatarError(f"{data.place(name)} is none of {', '.join(LEVELS)}.")
    return found


def _inner(kind: type[Parsed]) -> Read:
    return lambda data, name: kind.parse(data.record(name))


def _inners(kind: type[Parsed]) -> Read:
    return lambda data, name: [kind.parse(item) for item in data.records(name)]


class Parsed:
    """A dataclass read from JSON; the annotation of each field says how it is read and checked."""

    @classmethod
    def parse(cls: type[P], data: Record) -> P:
        """Read the fields of a JSON object; fields that are not known do no harm.

        Raises:
            AvatarError: A field without a default is missing, or one is of another type or out of range.
        """
        hints, values = get_type_hints(cls, include_extras=True), {}
        for field in dataclasses.fields(cast(Any, cls)):
            if field.name in data.data:
                values[field.name] = get_args(hints[field.name])[1](data, field.name)
            elif field.default is MISSING and field.default_factory is MISSING:
                raise AvatarError(f"{data.where} lacks {field.name}.", fix=REDO)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them, without those that are None."""
        return {name: value for name, value in dataclasses.asdict(cast(Any, self)).items() if value is not None}


Frame = Annotated[int, _whole(0, MOST_FRAMES)]
Share = Annotated[float, _number(0, 1)]
Number = Annotated[float, _number()]
OptionalNumber = Annotated[float | None, _number()]
Flag = Annotated[bool, lambda data, name: data.flag(name)]
Text = Annotated[str, lambda data, name: data.text(name)]


@dataclass(frozen=True, kw_only=True)
class Intrinsics(Parsed):
    """Intrinsics of the camera that filmed the person, at the size of the stored frames.

    Attributes:
        focal: Focal length in pixels, the same for x and y.
        cx, cy: Principal point in pixels, pixel centres at +0.5.
    """

    focal: Annotated[float, _number(1)]
    cx: Number
    cy: Number


class StageResult(Parsed):
    """What a stage found, apart from its files; ``STAGE`` names the stage and its folder."""

    STAGE: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class FrameView(Parsed):
    """What rendering shows, where that is more than the stored frames.

    Attributes:
        width, height: Size of it in pixels.
        x, y: Where the upper left corner of the stored frames lies in it, pixels.
        scale: Pixels of it per pixel of the stored frames.
    """

    width: Annotated[int, _whole(*SIDES)]
    height: Annotated[int, _whole(*SIDES)]
    x: Number
    y: Number
    scale: Annotated[float, _number(1 / 64, 64)]

    def inner_edges(self, width: int, height: int) -> Edges:
        """Tell which edges (left, top, right, bottom) of stored frames of that size lie inside of what is shown."""
        right, bottom = self.x + width * self.scale, self.y + height * self.scale
        near = 0.75  # pixels: the height of what is shown is rounded
        return self.x >= near, self.y >= near, right <= self.width - near, bottom <= self.height - near


@dataclass(frozen=True, kw_only=True)
class IngestResult(StageResult):
    """What `ingest` found about the source.

    Attributes:
        width, height: Size of the stored frames in pixels.
        fps: Frames per second.
        num_frames: Number of stored frames.
        has_audio: Whether audio.wav was written.
        source: Path of the video or dataset.
        source_size: Width and height of the source in pixels, upright.
        rotation: Clockwise rotation in degrees that a player applies to the source.
        variable_rate: Whether the frames of the source are not evenly spaced.
        crop: x, y, width and height of the part of the source that is stored, pixels. It may reach over the right and
            the lower edge of the source by less than 2 % of a side; edge pixels are repeated there.
        head: x, y and side of the square around the head in the source, in which the face is looked for, pixels.
        frame: x, y, width and height of what rendering shows of the source, pixels; None where it shows the crop.
        frame_size: Width and height of what rendering shows, pixels.
        whole: Frames that are stored as rendering shows them as well, for the background.
        face_height: Median height of the face in the source, pixels.
        test_start: First held-out frame, where a dataset names one.
        usual: x, y and height of the face to learn in the source where it is most of the time, pixels; None where that
            was not looked at.
        face: The same where it was chosen among several; None where it was alone.
        recording: What was done to the recording.
        audio_span: From when to when the video has audio, seconds; None where hardly any is missing at either end.
        photo: SHA-256 of the photo, where the source is one; there is one frame then, and nothing is held out.
    """

    STAGE: ClassVar[str] = "ingest"
    width: Annotated[int, _whole(*SIDES)]
    height: Annotated[int, _whole(*SIDES)]
    fps: Annotated[float, lambda data, name: data.frame_rate(name)]
    num_frames: Annotated[int, _whole(1, MOST_FRAMES)]
    has_audio: Flag = True
    source: Text = ""
    source_size: Annotated[tuple[int, int], _wholes(2, *SIDES)]
    rotation: Annotated[int, _whole(0, 270)] = 0
    variable_rate: Flag = False
    crop: Annotated[tuple[int, int, int, int], _wholes(4, 0, SIDES[1])]
    head: Annotated[tuple[int, int, int] | None, _wholes(3, 0, SIDES[1])] = None
    frame: Annotated[tuple[int, int, int, int] | None, _wholes(4, 0, SIDES[1])] = None
    frame_size: Annotated[tuple[int, int] | None, _wholes(2, *SIDES)] = None
    whole: Annotated[list[int], _frames] = dataclasses.field(default_factory=list[int])
    face_height: Number = 0.0
    test_start: Annotated[int | None, _whole(0, MOST_FRAMES)] = None
    usual: Annotated[tuple[int, int, int] | None, _wholes(3, 0, SIDES[1])] = None
    face: Annotated[tuple[int, int, int] | None, _wholes(3, 0, SIDES[1])] = None
    recording: Annotated[list[Treatment], read_treatments] = dataclasses.field(default_factory=list[Treatment])
    audio_span: Annotated[list[float] | None, numbers(2)] = None
    photo: Annotated[str | None, lambda data, name: data.text(name)] = None

    @property
    def scale(self) -> float:
        """Pixels of a stored frame per pixel of the source."""
        return self.width / self.crop[2]

    def view(self) -> FrameView | None:
        """What rendering shows; None where it shows the stored frames."""
        if self.frame is None or self.frame_size is None:
            return None
        enlarged = self.frame_size[0] / self.frame[2]
        return FrameView(
            width=self.frame_size[0], height=self.frame_size[1], x=(self.crop[0] - self.frame[0]) * enlarged,
            y=(self.crop[1] - self.frame[1]) * enlarged, scale=enlarged / self.scale,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrackResult(StageResult):
    """What `track` found: the parts without a cut, and the share of frames that show the face."""

    STAGE: ClassVar[str] = "track"
    segments: Annotated[list[tuple[int, int]], read_segments]
    valid_share: Share = 1.0


@dataclass(frozen=True, kw_only=True)
class RefineResult(StageResult):
    """What `refine` found: the camera, and how well the head pose fits.

    Attributes:
        camera: Intrinsics.
        reprojection_px: Median over frames of the rigid points' mean reprojection error, pixels.
        jitter_before_deg, jitter_after_deg: Jitter of the head rotation per frame alone and after smoothing, degrees.
        distance_cm: Median distance from camera to face, centimetres.
        rotation_range_deg: Range of the head rotation (2nd to 98th percentile) per axis, degrees.
        still: [start, end) of the spans in which the face stands still like a photo; they are not learnt from.
    """

    STAGE: ClassVar[str] = "refine"
    camera: Annotated[Intrinsics, _inner(Intrinsics)]
    reprojection_px: Number = 0.0
    jitter_before_deg: Number = 0.0
    jitter_after_deg: Number = 0.0
    distance_cm: Number = 0.0
    rotation_range_deg: Annotated[list[float], numbers(3)] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    still: Annotated[list[tuple[int, int]], _spans] = dataclasses.field(default_factory=list[tuple[int, int]])


@dataclass(frozen=True, kw_only=True)
class ParseResult(StageResult):
    """What `parse` made.

    Attributes:
        keyframes: Frames that have a mask.
        stride: Frames between them.
        method: What made the masks.
        covered: [start, end) of the spans in which something is before the mouth.
        leaves: Share of the key frames in which the person reaches out of the stored part, inside the whole frame.
    """

    STAGE: ClassVar[str] = "parse"
    keyframes: Annotated[list[int], _frames]
    stride: Annotated[int, _whole(1, MOST_FRAMES)] = 1
    method: Text = ""
    covered: Annotated[list[tuple[int, int]], _spans] = dataclasses.field(default_factory=list[tuple[int, int]])
    leaves: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class PoseResult(StageResult):
    """What `pose` found: how the aligned head poses differ from the tracked ones.

    Attributes:
        aligned_share: Share of the alignments that can be believed; the others keep the tracked pose.
        residual_before_px, residual_after_px: Median length of the flow that the pose does not explain, pixels.
        pitch_gain: How many times larger nods are than tracked.
        change_deg, change_cm: Standard deviation of the change per axis of the head.
        jitter_deg: Jitter of the aligned head rotation, degrees.
    """

    STAGE: ClassVar[str] = "pose"
    aligned_share: Share = 0.0
    residual_before_px: Number = 0.0
    residual_after_px: Number = 0.0
    pitch_gain: Number = 1.0
    change_deg: Annotated[list[float], numbers(3)] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    change_cm: Annotated[list[float], numbers(3)] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    jitter_deg: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class BackgroundResult(StageResult):
    """What `background` found.

    Attributes:
        seen: Share of the background's pixels that were seen.
        moves: Whether the camera moves.
        num_frames: Number of frames that the background was built from.
        offset: x and y of the camera at rest in wide.png, pixels; None where the camera stands still, or the folder is
            an older one.
        largest_shift_px, largest_zoom: Largest shift in pixels and largest change of scale.
        alignment_gain: How many times more alike the frames become when aligned.
    """

    STAGE: ClassVar[str] = "background"
    seen: Share
    moves: Flag
    num_frames: Frame = 0
    offset: Annotated[tuple[int, int] | None, _wholes(2, 0, SIDES[1])] = None
    largest_shift_px: Number = 0.0
    largest_zoom: Number = 0.0
    alignment_gain: OptionalNumber = None


@dataclass(frozen=True, kw_only=True)
class TorsoResult(StageResult):
    """What `torso` found.

    Attributes:
        pivot: World point [3] about which the torso rotation turns, centimetres.
        warp_box: Corners [2][2] of the grid of the torso warp, centimetres from the pivot.
        tracked_share: Share of the frames in which the clothes were followed.
        alignment_gain: How many times more alike the clothes become when aligned.
        range_cm: Range of the translation per axis, centimetres.
        range_warp_cm: 99th percentile of the warp, centimetres.
        range_roll_deg: Range of the roll, degrees.
    """

    STAGE: ClassVar[str] = "torso"
    pivot: Annotated[list[float], numbers(3)]
    warp_box: Annotated[list[list[float]], _corners]
    tracked_share: Share = 0.0
    alignment_gain: OptionalNumber = None
    range_cm: Annotated[list[float] | None, numbers(3)] = None
    range_warp_cm: OptionalNumber = None
    range_roll_deg: OptionalNumber = None


@dataclass(frozen=True, kw_only=True)
class SyncResult(StageResult):
    """What `sync` found about the offset between audio and video.

    Attributes:
        has_audio: Whether there is any audio.
        audio_delay_s: Offset that is corrected, seconds; positive: audio after video.
        given: Whether the user gave it.
        trusted: Whether the measurement was certain enough to be used.
        doubt: Why it was not, as a clause.
        measured_delay_s: Measured offset, seconds.
        z_score: How far the measurement stands out from chance, in standard deviations.
        stability: 0 to 1, the share of resampled clips that give the same offset within 40 ms.
        whole: Whether held-out frames were measured as well, because the others did not decide.
    """

    STAGE: ClassVar[str] = "sync"
    has_audio: Flag
    audio_delay_s: Number
    given: Flag = False
    trusted: Flag = True
    doubt: Text = ""
    measured_delay_s: OptionalNumber = None
    z_score: OptionalNumber = None
    stability: OptionalNumber = None
    whole: Flag = False


@dataclass(frozen=True, kw_only=True)
class Finding(Parsed):
    """One sentence about the video, and whether it is good news."""

    level: Annotated[Level, _level]
    text: Text


@dataclass(frozen=True, kw_only=True)
class FlaggedSpan(Parsed):
    """Frames [start, end) to look at, and the reason."""

    start: Frame
    end: Frame
    reason: Text


@dataclass(frozen=True, kw_only=True)
class ReportResult(StageResult):
    """What `report` says: findings, flagged spans (longest first), and the number of blinks."""

    STAGE: ClassVar[str] = "report"
    findings: Annotated[list[Finding], _inners(Finding)]
    flagged: Annotated[list[FlaggedSpan], _inners(FlaggedSpan)]
    blinks: Frame = 0


RESULTS: dict[str, type[StageResult]] = {
    kind.STAGE: kind
    for kind in (
        IngestResult, TrackResult, RefineResult, ParseResult, PoseResult, BackgroundResult, TorsoResult, SyncResult,
        ReportResult,
    )
}  # fmt: skip
