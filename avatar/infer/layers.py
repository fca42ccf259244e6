"""Everything that an avatar does but its lips: head motion under them, and edits over all of it in a fixed order."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar import log
from avatar.data.run import HEADMOTION, MOTION
from avatar.errors import AvatarError
from avatar.headmotion.loop import LOOPS, POSES, Unrolled, endless_pose
from avatar.infer.controls import Controls
from avatar.infer.live_pose import LiveAudio, LivePose
from avatar.infer.sources import read_motion
from avatar.infer.view_cone import ViewCone
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.arkit_map import FaceMap
from avatar.motion.edits import Blinks, Gaze, MotionEdit, breathe, scale_lips, scale_pose
from avatar.motion.emotion import Expression, Mix
from avatar.motion.gaps import measured_segments
from avatar.motion.motion import POSE_TRACKS
from avatar.motion.mouth import with_lips
from avatar.motion.retarget import back_and_forth, follow_pose, restyle
from avatar.motion.statistics import MotionStats
from avatar.motion.timeline import READERS, Span

if TYPE_CHECKING:
    from avatar.headmotion.generator import GeneratorStream, MotionGenerator

TOLD_DEGREES = 1.0  # change of a head turn from which a message says that it is limited
IDLE_POSE = 0.6  # somebody who waits moves less than somebody who talks

CameraAt = Callable[[float], Tensor]  # second of the video -> position in the world [3]


class Person(Protocol):
    """What a plan needs of an avatar: frames per second, the RUN folder, and the person.json."""

    @property
    def fps(self) -> float: ...

    @property
    def run(self) -> Path: ...

    @property
    def person(self) -> Any: ...


class PersonMotion(NamedTuple):
    """The training part of a person's motion, its segments without a cut or a long gap, statistics, and view limits."""

    track: Motion
    segments: list[tuple[int, int]]
    stats: MotionStats
    cone: ViewCone

    @staticmethod
    def of(avatar: Person) -> PersonMotion:
        """Read it from the RUN folder, once for each avatar."""
        if (known := _people.get(avatar)) is None:
            track = Motion.load(avatar.run / MOTION)
            segments = measured_segments(track, avatar.person.motion_segments(len(track)))
            cone = ViewCone.of_run(avatar.run)
            known = _people[avatar] = PersonMotion(track, segments, MotionStats.of(track, segments), cone)
        return known


_people: weakref.WeakKeyDictionary[Person, PersonMotion] = weakref.WeakKeyDictionary()


class PoseSource(Protocol):
    """Motion of head, torso, gaze and upper face, read forwards from frame 0 on.

    Attributes:
        ready: How many frames are known; infinite where no audio decides.
    """

    @property
    def ready(self) -> float: ...

    def push(self, samples: np.ndarray) -> None:
        """Take 16 kHz mono audio [N]."""
        ...

    def finish(self) -> None:
        """End the audio; silence follows."""
        ...

    def read(self, start: int, count: int) -> Motion:
        """Frames ``start`` to ``start + count``; ``start`` must not be less than it was before."""
        ...

    def forget(self, before: int) -> None:
        """Frames before this one will not be read again."""
        ...


class LoopedPose:
    """A loop of the person's own head motion, which no audio changes.

    Args:
        person: The person.
        mode: One of `LOOPS`.
        fps: Frames per second.
        seed: Another seed, another loop.
        origin: Frame at which the loop begins; None: the first one that is read.
    """

    ready = math.inf

    def __init__(self, person: PersonMotion, mode: str, fps: float, seed: int, origin: int | None = 0) -> None:
        self._loop = Unrolled(endless_pose(person.track, person.segments, fps, mode, seed))
        self._origin = origin

    def push(self, samples: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def forget(self, before: int) -> None: ...

    def read(self, start: int, count: int) -> Motion:
        if self._origin is None:
            self._origin = start
        return self._loop.read(start - self._origin, count)


class GeneratedPose:
    """Head motion generated from the audio; needs audio ahead of each frame.

    Args:
        stream: The opened generator.
    """

    def __init__(self, stream: GeneratorStream) -> None:
        self._stream, self._finished = stream, False
        self._held, self._first = stream.push(np.zeros(0, np.float32)), 0

    @property
    def ready(self) -> float:
        return math.inf if self._finished else self._first + len(self._held)

    def push(self, samples: np.ndarray) -> None:
        self._held = joined(self._held, self._stream.push(samples))

    def finish(self) -> None:
        self._finished = True

    def forget(self, before: int) -> None:
        drop = min(before - self._first, len(self._held))
        self._held, self._first = self._held[drop:], self._first + drop

    def read(self, start: int, count: int) -> Motion:
        self.forget(start)
        while start + count > self._first + len(self._held):  # after the audio, silence goes on
            self.push(np.zeros(SAMPLE_RATE, np.float32))
        return self._held[start - self._first : start - self._first + count]


def load_generator(run: Path) -> MotionGenerator:
    """Read the head-motion generator of a run.

    Raises:
        AvatarError: The run has none, or it cannot be read.
    """
    from avatar.headmotion.generator import MotionGenerator

    path = Path(run) / HEADMOTION
    if not path.is_file():
        raise AvatarError(
            f"{run} cannot generate head motion: it holds no {HEADMOTION}.",
            why="Its training has not finished, or its video is too short.",
            fix="Finish training with `avatar train PERSON --out RUN --resume`, or choose --pose own.",
        )
    return MotionGenerator.load(path)


@dataclass(frozen=True, kw_only=True)
class MotionLayers:
    """What goes under and over the lips of an utterance.

    Attributes:
        fps: Frames per second.
        lead: Frames before second 0 of the controls.
        base: Head motion under the lips; None: the lips come with a whole motion.
        sources: Every head motion that is read, ``base`` included.
        pose_edits: Edits before the idle motion: pose and its scale.
        face_edits: Edits after it: style, limit of the head's turns, lips, blinks, emotions, gaze.
        idle: What waiting adds.
        still: Whether the head is held still, and so does not nod.
    """

    fps: float
    lead: int
    base: PoseSource | None
    sources: Sequence[PoseSource]
    pose_edits: Sequence[MotionEdit]
    face_edits: Sequence[MotionEdit]
    idle: MotionEdit
    still: bool = False

    @property
    def ready(self) -> float:
        """How many frames can be composed."""
        return min((source.ready for source in self.sources), default=math.inf)

    def push(self, samples: np.ndarray) -> None:
        """Pass the audio to all head motion."""
        for source in self.sources:
            source.push(samples)

    def finish(self) -> None:
        """End the audio."""
        for source in self.sources:
            source.finish()

    def compose(
        self, lips: Motion, start: int, waiting: Float[Tensor, " T"] | None = None,
        react: Callable[[Motion], Motion] | None = None,
    ) -> Motion:  # fmt: skip
        """Lay lips over the head motion and apply the edits.

        Args:
            lips: [T] frames; only mouth, jaw and cheeks count, unless there is no ``base``.
            start: Number of the first frame; must not be less than it was before.
            waiting: [T] how much the avatar waits, 0 to 1; None: not at all.
            react: What listening adds; controls that were given change it, and so it comes before them.

        Returns:
            [T] frames.
        """
        count = len(lips)
        for source in self.sources:
            source.forget(start)
        block = lips if self.base is None else with_lips(self.base.read(start, count), lips)
        seconds = torch.arange(start - self.lead, start - self.lead + count, dtype=torch.float64) / self.fps
        for edit in self.pose_edits:
            block = edit(block, seconds)
        if waiting is not None and bool(waiting.any()):
            block = block.blend(self.idle(block, seconds), waiting)
        block = block if react is None else react(block)
        for edit in self.face_edits:
            block = edit(block, seconds)
        return block


def build_layers(
    avatar: Person, controls: Controls, camera: CameraAt | None = None, *, lead: int = 0, driven: bool = False,
    origin: int | None = 0, playing: dict[str, PoseSource] | None = None, live: LiveAudio | None = None,
) -> MotionLayers:  # fmt: skip
    """Build the layers that controls ask for.

    Args:
        avatar: The avatar.
        controls: All that is asked for.
        camera: Where the camera is, for eyes that hold it; by default as filmed.
        lead: Frames before second 0 of the controls.
        driven: The lips come with a whole motion, which needs no head motion under it.
        origin: See `LoopedPose`.
        playing: Head motion that plays already and goes on, by all that it depends on; what is new is added.
        live: What a session says, for head motion that is generated before all of the audio is known.

    Raises:
        AvatarError: Something cannot be read.
    """
    person, fps, spans = PersonMotion.of(avatar), avatar.fps, controls.spans()
    poses_by_key: dict[str, PoseSource] = {} if playing is None else playing

    def source(name: str) -> PoseSource:
        options = {"guidance": controls.pose_guidance, "noise": controls.pose_noise} if name == "generated" else {}
        key = " ".join(map(str, (name, controls.seed, *options.values())))
        if key not in poses_by_key:
            if name == "generated":
                generator = load_generator(avatar.run)
                stream = generator.open(fps, lead=lead / fps, seed=controls.seed, **options)
                poses_by_key[key] = GeneratedPose(stream) if live is None else LivePose(stream, live, fps)
            else:
                poses_by_key[key] = LoopedPose(person, name, fps, controls.seed, origin)
        used.append(poses_by_key[key])
        return poses_by_key[key]

    used: list[PoseSource] = []
    base_name = None if driven else _base_pose(spans)
    base = None if driven else source(base_name or LOOPS[0])
    names = {s.value for s in spans if s.control == "pose"} - {base_name}
    poses = {name: _pose_track(name, source, person.stats, fps) for name in names}
    place = camera or (lambda _: torch.zeros(3))  # the world is the frame of the camera that filmed
    layers = _timed_edits(spans, person.stats, controls.seed, poses, lead, place, fps)
    face_edits: list[MotionEdit | None] = []
    if controls.style is not None:
        style = MotionStats.of(read_motion(controls.style, person.stats))
        face_edits.append(lambda block, _: restyle(block, person.stats, style))
    if not controls.beyond:
        filmed = camera is None or (_as_filmed(spans) and not driven and controls.style is None)
        seen = None if filmed else (lambda second: place(second + lead / fps))
        face_edits.append(HeadLimit(person.cone, seen))  # before the gaze, which follows the head
    # Blinks open the eyes between them, so they come before what an emotion does to the lids, as the person's own do.
    face_edits += [layers["lip-scale"], layers["blink"], *_emotions(spans, person.stats, controls.emotion_limit)]
    face_edits.append(layers["gaze"])
    return MotionLayers(
        fps=fps, lead=lead, base=base, sources=used, pose_edits=_wanted([layers["pose"], layers["pose-scale"]]),
        face_edits=_wanted(face_edits),
        idle=lambda block, seconds: breathe(scale_pose(block, IDLE_POSE, person.stats), seconds),
        still=base_name == "still",
    )  # fmt: skip


class HeadLimit:
    """Stop turns of the head softly where it was not filmed, and say so once.

    Args:
        cone: View limits of the avatar. Within them, and where it was filmed, nothing changes.
        camera: Where the camera is at a second of the controls, for heads whose turns add to its own; None: as filmed.
    """

    def __init__(self, cone: ViewCone, camera: CameraAt | None = None) -> None:
        self._cone, self._camera, self._said = cone, camera, False

    def __call__(self, block: Motion, seconds: Float[Tensor, " T"]) -> Motion:
        camera = self._camera
        cameras = None if camera is None else torch.stack([camera(second) for second in seconds.tolist()]).cpu()
        limited, change = self._cone.limit_head(block, cameras)
        if change >= TOLD_DEGREES and self._cone.head is not None and not self._said:
            self._said = True
            log.warn(
                f"The head motion goes further than this avatar is good for: it is limited to {self._cone.head.text}, "
                "and to less where the camera is turned as well. --beyond shows it all the same."
            )
        return limited


def joined(a: Motion, b: Motion) -> Motion:
    """One track after the other; nothing is copied where one is empty."""
    if not len(b):
        return a
    return Motion.cat([a, b]) if len(a) else b


PoseAt = Callable[[Tensor], Motion]  # frames [T], one after the other -> their motion


def _base_pose(spans: Sequence[Span]) -> str | None:
    """What the whole motion is laid over, of `POSES`; None: nothing was asked for."""
    always = next((s.value for s in reversed(spans) if s.control == "pose" and s.always), None)
    return always if always in POSES else None


def _as_filmed(spans: Sequence[Span]) -> bool:
    """Whether the head moves as the person's own did; wherever the camera is, that is left as it is."""
    return all(s.control != "pose-scale" and (s.control != "pose" or s.value in LOOPS) for s in spans)


def _pose_track(name: str, source: Callable[[str], PoseSource], stats: MotionStats, fps: float) -> PoseAt:
    """A head pose that is asked for: one of `POSES`, or that of a file."""
    if name in POSES:
        looped = source(name)
        return lambda at: looped.read(int(at[0]), len(at))
    track = read_motion(Path(name), stats).resample(fps)
    track = follow_pose(track, MotionStats.of(track), stats)
    return lambda at: back_and_forth(track, at)


def _timed_edits(
    spans: Sequence[Span], stats: MotionStats, seed: int, poses: dict[str, PoseAt], lead: int, camera: CameraAt,
    fps: float,
) -> dict[str, MotionEdit | None]:  # fmt: skip
    """The edit of each timed control, None where it is not asked for; emotions are apart because they add up."""

    def pose(name: str) -> MotionEdit | None:
        if name not in poses:
            return None
        track = poses[name]

        def follow(block: Motion, seconds: Tensor) -> Motion:
            there = track((seconds * fps + lead).round().long())
            return block.map(**{n: getattr(there, n) for n in POSE_TRACKS})

        return follow

    def gaze(value: tuple[float, float] | str) -> MotionEdit | None:
        if value == "free":
            return None
        if value == "camera":
            return Gaze(stats, None, lambda second: camera(second + lead / fps))
        assert not isinstance(value, str)
        return Gaze(stats, value)

    makers: dict[str, Callable[..., MotionEdit | None]] = {
        "pose": pose,
        "pose-scale": lambda scale: lambda block, _: scale_pose(block, scale, stats),
        "lip-scale": lambda scale: lambda block, _: scale_lips(block, scale, stats),
        "blink": lambda rate: None if rate == "own" else Blinks(rate, stats, seed),
        "gaze": gaze,
    }
    return {
        control: _replacing([(s, make(READERS[control](s.value))) for s in spans if s.control == control])
        for control, make in makers.items()
    }


def _emotions(spans: Sequence[Span], stats: MotionStats, limit: float) -> Iterator[MotionEdit]:
    mixes = [(s, Mix.parse(s.value)) for s in spans if s.control == "emotion"]
    if not mixes:
        return
    face_map = FaceMap.fit(stats.track)
    for span, mix in mixes:
        yield _expressing(span, Expression(mix, stats, face_map, limit))


def _expressing(span: Span, expression: Expression) -> MotionEdit:
    return lambda block, seconds: expression(block, span.weight(seconds))


def _replacing(choices: list[tuple[Span, MotionEdit | None]]) -> MotionEdit | None:
    """Spans of one control: each replaces what was there before it, as much as its weight says."""
    if not choices:
        return None

    def edit(block: Motion, seconds: Tensor) -> Motion:
        result = block
        for span, change in choices:
            weight = span.weight(seconds)
            if bool(weight.any()):
                result = result.blend(block if change is None else change(block, seconds), weight)
        return result

    return edit


def _wanted(edits: Sequence[MotionEdit | None]) -> list[MotionEdit]:
    return [edit for edit in edits if edit is not None]
