"""The PERSON folder that `avatar prepare` writes: its person.json, and a reader of what each stage left in it.

Stages and `PersonDataset` read through :class:`PersonFolder`, so paths, shapes and checks are written once.
No numpy and no torch is imported before an array is read.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from avatar.checks import MOST_FRAMES, SIDES, Record, image_size, whole
from avatar.data.photo import KIND, PhotoInfo
from avatar.data.results import (
    FAR,
    NO_EDGES,
    REDO,
    Edges,
    FrameView,
    IngestResult,
    Intrinsics,
    Number,
    Parsed,
    ParseResult,
    Share,
    StageResult,
    TrackResult,
    numbers,
    read_segments,
    read_treatments,
)  # fmt: skip
from avatar.errors import AvatarError
from avatar.io.media import Treatment
from avatar.paths import read_json, write_json

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np

    from avatar.data.background import Background
    from avatar.data.masks import MaskReader
    from avatar.geometry.cameras import Camera
    from avatar.motion.motion import Motion

FILE = "person.json"  # in a PERSON folder, and a copy of it in a RUN folder
FORMAT = "avatar-person-4"
MOTION = "motion.safetensors"
MARKER = "prepare.json"  # which video the folder belongs to
STAGE_FILE = "stage.json"  # in the folder of each finished stage

R = TypeVar("R", bound=StageResult)


@dataclass(frozen=True, kw_only=True)
class TrackingQuality(Parsed):
    """How well the face was tracked; see :class:`avatar.data.results.RefineResult`."""

    valid_share: Share
    reprojection_px: Number
    jitter_before_deg: Number
    jitter_after_deg: Number
    distance_cm: Number
    rotation_range_deg: Annotated[list[float], numbers(3)]


@dataclass(frozen=True, kw_only=True)
class PersonInfo:
    """What person.json says about a prepared video.

    Attributes:
        width, height: Size of the stored frames in pixels.
        fps: Frames per second.
        num_frames: Number of frames.
        test_start: First held-out frame.
        segments: [start, end) of each part without a cut, in order.
        camera: Intrinsics of the camera that filmed the person.
        has_audio: Whether there is an audio.wav.
        audio_delay_s: Offset between audio and video in seconds; positive: audio after video.
        source: Path of the video or dataset; empty where it is not known.
        crop: x, y, width and height of the frames in the source, pixels; None where there is no source.
        view: What rendering shows around the stored frames; None where it shows no more than them.
        quality: How well the face was tracked, for people to read.
        recording: What was done to the recording, for people to read.
        photo: The photo that all of it was made from; None: a video.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    test_start: int
    segments: tuple[tuple[int, int], ...]
    camera: Intrinsics
    has_audio: bool
    audio_delay_s: float = 0.0
    source: str = ""
    crop: tuple[int, int, int, int] | None = None
    view: FrameView | None = None
    quality: TrackingQuality | None = None
    recording: tuple[Treatment, ...] = ()
    photo: PhotoInfo | None = None

    def motion_segments(self, frames: int) -> list[tuple[int, int]]:
        """[start, end) of each part without a cut, of the first ``frames`` of a RUN folder's motion.

        That of a photo is generated, and has no cut.
        """
        if self.photo is not None:
            return [(0, frames)]
        return [(start, min(end, frames)) for start, end in self.segments if start < frames]

    @property
    def audio_delay_frames(self) -> float:
        """`audio_delay_s` in frames; rounding undoes the division that made seconds of frames, so both agree."""
        return round(self.audio_delay_s * self.fps, 6)

    @property
    def inner_edges(self) -> Edges:
        """Which edges of the stored frames lie inside of what rendering shows, so that nobody is beyond them."""
        return NO_EDGES if self.view is None else self.view.inner_edges(self.width, self.height)

    def source_camera(self) -> Camera:
        """The camera that filmed the person, at the size of the stored frames."""
        from avatar.geometry.cameras import Camera

        return Camera.source(self.camera.focal, self.camera.cx, self.camera.cy, self.width, self.height)

    def view_camera(self) -> Camera:
        """The camera that filmed the person, at the size of what rendering shows."""
        from avatar.geometry.cameras import Camera

        camera, view = self.camera, self.view
        if view is None:
            return self.source_camera()
        scale = view.scale
        cx, cy = camera.cx * scale + view.x, camera.cy * scale + view.y
        filming = Camera.source(camera.focal * scale, cx, cy, view.width, view.height)
        return replace(filming, enlarged=scale)

    @staticmethod
    def read(path: Path) -> PersonInfo:
        """Read a person.json; fields that are not known do no harm.

        Raises:
            AvatarError: It is missing, damaged or of another version, or a field is missing, of another type or out of
                range.
        """
        data = Record(read_json(path), path)
        if (found := data.value("format", None)) != FORMAT:
            raise AvatarError(
                f"{path} was written by another version; its format is not {FORMAT}.",
                why="" if found is None or len(str(found)) > 40 else f"It is {found}.",
                fix="Run `avatar prepare --force`, and `avatar train` for avatars trained from it.",
                see="written-by-another-version",
            )
        width, height = image_size(data.value("width"), data.value("height"), path)
        frames = data.whole("num_frames", 1, MOST_FRAMES)
        return PersonInfo(
            width=width, height=height, fps=data.frame_rate(), num_frames=frames,
            test_start=data.whole("test_start", 0, frames),
            segments=tuple(read_segments(data, "segments", frames)),
            camera=Intrinsics.parse(data.record("camera")), has_audio=data.flag("has_audio"),
            audio_delay_s=data.number("audio_delay_s", -FAR, FAR, 0.0), source=data.text("source", ""),
            crop=_crop(data) if "crop" in data.data else None,
            view=FrameView.parse(data.record("view")) if "view" in data.data else None,
            quality=TrackingQuality.parse(data.record("quality")) if "quality" in data.data else None,
            recording=tuple(read_treatments(data, "recording")) if "recording" in data.data else (),
            photo=_photo(data),
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write it as a person.json, atomically."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        write_json(path, {"format": FORMAT} | ({} if self.photo is None else {"kind": KIND}) | fields)


def _photo(data: Record) -> PhotoInfo | None:
    if (kind := data.text("kind", "video")) not in (KIND, "video"):
        raise AvatarError(f"{data.place('kind')} is {kind!r}, neither video nor {KIND}.")
    return PhotoInfo.parse(data.record("photo")) if kind == KIND or "photo" in data.data else None


def _crop(data: Record) -> tuple[int, int, int, int]:
    place, values = data.place("crop"), data.list("crop")
    if len(values) != 4:
        raise AvatarError(f"{place} is not [x, y, width, height].")
    x, y, width, height = (whole(value, place, 0, SIDES[1]) for value in values)
    return x, y, width, height


class PersonFolder:
    """Paths and lazy readers of a PERSON folder; it needs no finished preparation.

    Every reader raises AvatarError where its file is missing, damaged, or of another shape than expected.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    # --- as a whole ---

    @property
    def info_path(self) -> Path:
        """The person.json."""
        return self.path / FILE

    def info(self) -> PersonInfo:
        """What person.json says; it is there once the stages belong together."""
        return PersonInfo.read(self.info_path)

    @property
    def motion_path(self) -> Path:
        """The motion of the whole video, torso included."""
        return self.path / MOTION

    # --- stages ---

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.path / name

    def is_finished(self, name: str) -> bool:
        """Whether a stage has left its record."""
        return (self.stage(name) / STAGE_FILE).is_file()

    def result(self, kind: type[R]) -> R:
        """Read what a finished stage found: `person.result(TrackResult).segments`."""
        if not self.is_finished(kind.STAGE):
            raise AvatarError(f"{self.path} has no finished stage '{kind.STAGE}'.", fix="Run `avatar prepare` again.")
        path = self.stage(kind.STAGE) / STAGE_FILE
        return kind.parse(Record(read_json(path), path).record("result"))

    # --- ingest ---

    @property
    def audio_path(self) -> Path:
        """The audio, 16 kHz mono, as long as the video."""
        return self.stage("ingest") / "audio.wav"

    def frame_path(self, index: int) -> Path:
        """The JPEG file of frame ``index``."""
        return self.stage("ingest") / "frames" / f"{index:06d}.jpg"

    def frame(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 RGB [H, W, 3]."""
        from avatar.io.images import read_rgb

        return read_rgb(self.frame_path(index), REDO)

    def whole_frame(self, index: int) -> np.ndarray:
        """Frame ``index`` as rendering shows it, uint8 RGB [h, w, 3]; only of `IngestResult.whole`."""
        from avatar.io.images import read_rgb

        return read_rgb(self.stage("ingest") / "whole" / f"{index:06d}.jpg", REDO)

    def grey_frame(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 grey [H, W]."""
        from avatar.io.images import read_grey

        return read_grey(self.frame_path(index), REDO)

    def frames(self, count: int, ahead: int = 4) -> Iterator[np.ndarray]:
        """The first ``count`` frames as uint8 RGB, decoded by a second thread up to ``ahead`` frames ahead."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[np.ndarray]] = deque()
            for index in range(count):
                pending.append(pool.submit(self.frame, index))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    # --- track: T is the number of frames ---

    def landmarks(self, frames: int | None = None, *, mapped: bool = False) -> np.ndarray:
        """Landmarks [T, 478, 3] float32 in pixels, gaps filled; ``mapped``: into memory, not read."""
        return self._array("track/landmarks.npy", f"{_size(frames)} 478 3", mapped=mapped)

    def blendshapes(self, frames: int | None = None) -> np.ndarray:
        """ARKit coefficients [T, 52] float32."""
        return self._array("track/blendshapes.npy", f"{_size(frames)} 52")

    def valid(self, frames: int | None = None) -> np.ndarray:
        """Whether the face was found, bool [T]."""
        from avatar.io.arrays import load_array

        return load_array(self.path / "track/valid.npy", _size(frames), "bool")

    def sharpness(self, frames: int | None = None) -> np.ndarray:
        """Sharpness of the face, float32 [T]."""
        return self._array("track/sharpness.npy", _size(frames), finite=False)

    def change(self, frames: int | None = None) -> np.ndarray:
        """Mean change of the image from each frame to the next, grey levels, float32 [T - 1]."""
        return self._array("track/change.npy", _size(None if frames is None else frames - 1), finite=False)

    # --- refine, pose, torso ---

    def shape(self) -> np.ndarray:
        """The neutral face [478, 3] float32, head axes, centimetres."""
        return self._array("refine/shape.npy", "478 3")

    def tracked_motion(self) -> Motion:
        """The motion of head and face as landmarks and texture say, torso at rest."""
        from avatar.motion.motion import Motion

        return Motion.load(self.stage("refine") / MOTION)

    def face_motion(self) -> Motion:
        """The motion of head and face with aligned head poses, torso at rest."""
        from avatar.motion.motion import Motion

        return Motion.load(self.stage("pose") / MOTION)

    def residual(self, frames: int | None = None) -> np.ndarray:
        """Reprojection error of the rigid points in pixels, float32 [T]."""
        return self._array("refine/residual.npy", _size(frames), finite=False)

    def raw_pose(self, frames: int | None = None) -> np.ndarray:
        """Head poses without smoothing, float32 [T, 6]."""
        return self._array("refine/raw_pose.npy", f"{_size(frames)} 6", finite=False)

    def torso(self, frames: int | None = None) -> np.ndarray:
        """Torso motion and warp, float32 [T, 138]; see :mod:`avatar.preprocess.torso`."""
        return self._array("torso/torso.npy", f"{_size(frames)} 138")

    # --- parse, background ---

    @functools.cached_property
    def _mask_reader(self) -> MaskReader:
        from avatar.data.masks import MaskReader

        ingest, segments = self.result(IngestResult), self.result(TrackResult).segments
        keyframes = self.result(ParseResult).keyframes
        return MaskReader(
            self.stage("parse") / "masks",
            keyframes,
            segments,
            (ingest.width, ingest.height),
            self.landmarks(mapped=True),
        )

    def masks(self, index: int, size: int | tuple[int, int]) -> dict[str, np.ndarray]:
        """Soft masks of one frame; see :meth:`avatar.data.masks.MaskReader.masks`."""
        return self._mask_reader.masks(index, (size, size) if isinstance(size, int) else size)

    def background(self, frames: int | None = None, *, whole: bool = False) -> Background:
        """The background without the person, and how the camera moves over it; ``whole``: as rendering shows it."""
        from avatar.data.background import Background

        return Background.read(self.stage("background"), frames, whole=whole)

    def _array(self, name: str, shape: str, *, finite: bool = True, mapped: bool = False) -> np.ndarray:
        from avatar.io.arrays import load_array

        return load_array(self.path / name, shape, finite=finite, mapped=mapped)


def _size(frames: int | None) -> str:
    return "T" if frames is None else str(frames)
