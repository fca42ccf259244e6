"""What an avatar does, from all the controls: the lips of a speech or the motion of somebody, and what is laid over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar.audio2motion.load import choose_speech, count_frames, with_lips
from avatar.errors import AvatarError
from avatar.headmotion.loop import LOOPS, POSES, Unrolled, endless_pose
from avatar.infer.controls import Controls
from avatar.infer.sources import is_video, read_motion
from avatar.io.audio import SAMPLE_RATE, stream_audio
from avatar.motion import Motion
from avatar.motion.arkit_map import FaceMap
from avatar.motion.edits import Blinks, Gaze, MotionEdit, breathe, scale_lips, scale_pose
from avatar.motion.emotion import Expression, Mix
from avatar.motion.motion import POSE_TRACKS
from avatar.motion.retarget import back_and_forth, follow_pose, restyle, retarget
from avatar.motion.statistics import MotionStats
from avatar.motion.timeline import READERS, Span

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.headmotion.generator import MotionGenerator
    from avatar.infer.avatar import Avatar

EASE_SECONDS = 0.4  # from rest to the first sound, and from the last one to rest
IDLE_POSE = 0.6  # somebody who waits moves less than somebody who talks


class MotionPlan(NamedTuple):
    """Motion to be shown.

    Attributes:
        motions: Blocks of motion.
        total: Frames.
        audio: The sound, if there is one.
        audio_start: Second of it that belongs to the first frame; negative where the avatar waits first.
    """

    motions: Iterator[Motion]
    total: int
    audio: Path | None
    audio_start: float


CameraAt = Callable[[float], Tensor]  # second of the video -> position in the world [3]
PoseAt = Callable[[Tensor], Motion]  # frames [T], one after the other -> their motion
PoseMaker = Callable[[str], Unrolled]  # one of `POSES` -> its motion, from the first frame on


def plan_motion(
    avatar: Avatar,
    controls: Controls,
    audio: Path | None,
    camera: CameraAt | None = None,
    speech: AudioToMotion | None = None,
) -> MotionPlan:
    """Plan what an avatar does.

    Args:
        avatar: The avatar.
        controls: All that is asked for.
        audio: What it says; may be None where ``controls`` has a motion or an idle time.
        camera: Where the camera is, for eyes that hold it; by default as filmed.
        speech: What turns the sound into lips, where it is loaded already; by default as ``controls`` say.

    Raises:
        AvatarError: There is nothing to do, or something cannot be read.
    """
    controls.check()
    fps = avatar.fps
    person = _Person.of(avatar)
    profile, spans = person.profile, controls.spans()
    pause = round(controls.idle * fps)
    lead = 0 if audio is None or controls.motion is not None else pause

    def pose(name: str) -> Unrolled:
        if name != "generated":
            return person.loop(name, fps, controls.seed)
        sound = iter(()) if audio is None else stream_audio(audio)
        numbers = controls.seed, controls.pose_guidance, controls.pose_noise
        return Unrolled(load_generator(avatar.run).stream(sound, fps, lead / fps, *numbers))

    if controls.motion is not None:
        track = _driven(controls.motion, controls.retarget, profile, fps)
        base, total, waiting = None, len(track), None
        blocks = iter([track])
    else:
        if audio is None and not pause:
            raise AvatarError("Nothing to say:", fix="give a sound, --motion or --idle.")
        spoken = 0 if audio is None else count_frames(audio, fps)
        total = pause if audio is None else 2 * pause + spoken
        lips: Iterator[Motion] = iter(())
        if audio is not None:
            speech = speech or choose_speech(avatar.run, fps, controls.speech)
            lips = speech.stream(stream_audio(audio))
        lips = with_pauses(lips, profile.rest, lead, total - lead, fps) if pause else lips
        base = _base_pose(spans)
        blocks = laid_over(pose(base or LOOPS[0]), lips)
        waiting = _waiting(profile, None if audio is None else spoken / fps) if pause else None
    poses = _poses(spans, profile, pose, fps, base)
    stages = _stages(spans, controls, profile, poses, lead / fps, camera or _as_filmed, fps, waiting)
    return MotionPlan(staged(blocks, stages, lead, fps), total, audio, -lead / fps)


def respond(
    avatar: Avatar,
    controls: Controls,
    sound: Iterable[np.ndarray],
    camera: CameraAt | None = None,
    speech: AudioToMotion | None = None,
) -> Iterator[Motion]:
    """What an avatar does while it speaks sound that is still coming in: a block of motion as soon as it is known.

    Args:
        avatar: The avatar.
        controls: All that is asked for. ``speech="auto"`` is ``live``: 0.2 s of look-ahead at most.
        sound: Chunks of any length, 16 kHz mono float32 in -1 to 1; may go on for ever. As much is taken as is needed.
        camera, speech: See :func:`plan_motion`.

    Raises:
        AvatarError: A control needs to know the sound beforehand, or something cannot be read.
    """
    controls.check()
    spans = controls.spans()
    beforehand = {
        "--motion": controls.motion is not None, "--idle": controls.idle > 0,
        "--pose generated": any(s.control == "pose" and s.value == "generated" for s in spans),
    }  # fmt: skip
    if named := [name for name, given in beforehand.items() if given]:
        raise AvatarError(f"{' and '.join(named)} cannot be had for sound that is still being spoken.",
                          fix="Give a sound file.")  # fmt: skip
    fps, person = avatar.fps, _Person.of(avatar)
    which = "live" if controls.speech == "auto" else controls.speech
    speech = speech or choose_speech(avatar.run, fps, which)
    base = _base_pose(spans)
    for _ in speech.stream([np.zeros(SAMPLE_RATE // 2, np.float32)]):
        pass  # what hears is loaded now, not while somebody speaks

    def pose(name: str) -> Unrolled:
        return person.loop(name, fps, controls.seed)

    poses = _poses(spans, person.profile, pose, fps, base)
    stages = _stages(spans, controls, person.profile, poses, 0.0, camera or _as_filmed, fps, None)
    return staged(laid_over(pose(base or LOOPS[0]), speech.stream(_sane(sound))), stages, 0, fps)


class _Person(NamedTuple):
    track: Motion  # the training part
    segments: list[tuple[int, int]]
    profile: MotionStats

    @staticmethod
    def of(avatar: Avatar) -> _Person:
        track = Motion.load(avatar.run / "motion.safetensors")
        segments = [(a, min(b, len(track))) for a, b in avatar.person.segments if a < len(track)]
        return _Person(track, segments, MotionStats.of(track, segments))

    def loop(self, mode: str, fps: float, seed: int) -> Unrolled:
        return Unrolled(endless_pose(self.track, self.segments, fps, mode, seed))


def _base_pose(spans: Sequence[Span]) -> str | None:
    """What the whole motion is laid over, of `POSES`; None: nothing was asked for."""
    always = next((s.value for s in reversed(spans) if s.control == "pose" and s.always), None)
    return always if always in POSES else None


def _as_filmed(_: float) -> Tensor:
    return torch.zeros(3)  # the world is the frame of the camera that filmed


def _sane(sound: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Chunks as they have to be; what is not a number is silence."""
    for chunk in sound:
        chunk = np.asarray(chunk)
        if chunk.ndim != 1 or not np.issubdtype(chunk.dtype, np.floating):
            raise AvatarError("Sound comes in chunks of 16 kHz mono float32 in -1 to 1,",
                              why=f"not as {chunk.dtype} {list(chunk.shape)}.")  # fmt: skip
        yield np.nan_to_num(chunk.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(-1, 1)


def load_generator(run: Path) -> MotionGenerator:
    """What generates a run's motion.

    Raises:
        AvatarError: The run has none, or it cannot be read.
    """
    from avatar.headmotion.generator import FILE, MotionGenerator

    path = Path(run) / FILE
    if not path.is_file():
        raise AvatarError(
            f"{run} cannot generate head motion: it holds no {FILE}.",
            why="An older version trained it, its training has not finished, or its video is too short.",
            fix="Finish training with `avatar train PERSON --out RUN --resume`, or choose --pose own.",
        )
    return MotionGenerator.load(path)


def laid_over(track: Unrolled, lips: Iterable[Motion]) -> Iterator[Motion]:
    """The track, as long as the lips move, with these lips."""
    done = 0
    for block in lips:
        if len(block):
            yield with_lips(track.read(done, len(block)), block)
            done += len(block)


def staged(blocks: Iterable[Motion], stages: Sequence[MotionEdit], lead: int, fps: float) -> Iterator[Motion]:
    """Blocks of motion through all stages; frame ``lead`` is at second 0."""
    done = -lead
    for block in blocks:
        seconds = torch.arange(done, done + len(block), dtype=torch.float64) / fps
        for stage in stages:
            block = stage(block, seconds)
        yield block
        done += len(block)


def with_pauses(lips: Iterable[Motion], rest: Motion, lead: int, most: int, fps: float) -> Iterator[Motion]:
    """Lips at rest for ``lead`` frames, the lips of a speech, and lips at rest until there are ``most`` frames of both.

    The speech begins and ends where its lips do: the mouth eases there from rest and back.
    """
    ease = max(1, round(EASE_SECONDS * fps))
    blocks = (block for block in lips if len(block))
    first = next(blocks, rest)
    yield from _between(rest, first[:1], lead, lead - ease, ease)
    last, done = first, 0
    for block in chain([first], blocks):
        last = block[: most - done]
        yield last
        done += len(last)
        if done == most:
            return
    yield from _between(last[-1:], rest, most - done, 0, ease)


def _between(a: Motion, b: Motion, frames: int, start: int, length: int) -> Iterator[Motion]:
    """``frames`` frames that go smoothly from frame ``a`` to frame ``b``, from index ``start`` on, in blocks."""
    for low in range(0, frames, 256):
        at = torch.arange(low, min(low + 256, frames))
        t = ((at - start + 1) / (length + 1)).clamp(0, 1)
        zeros = torch.zeros(len(at), dtype=torch.long)
        yield a[zeros].blend(b[zeros], t * t * (3 - 2 * t))


def _driven(path: Path, fit: str, profile: MotionStats, fps: float) -> Motion:
    track = read_motion(path, profile).resample(fps)
    if fit == "yes" or (fit == "auto" and is_video(path)):
        return retarget(track, MotionStats.of(track), profile)
    return track


def _poses(
    spans: list[Span], profile: MotionStats, pose: PoseMaker, fps: float, base: str | None
) -> dict[str, PoseAt]:  # fmt: skip
    """Every pose that is asked for, but the one that the base has already."""

    def track_of(name: str) -> PoseAt:
        if name in POSES:
            source = pose(name)
            return lambda at: source.read(int(at[0]), len(at))
        track = read_motion(Path(name), profile).resample(fps)
        track = follow_pose(track, MotionStats.of(track), profile)
        return lambda at: back_and_forth(track, at)

    return {name: track_of(name) for name in {s.value for s in spans if s.control == "pose"} - {base}}


def _stages(
    spans: list[Span], controls: Controls, profile: MotionStats, poses: dict[str, PoseAt], lead: float, camera: CameraAt,
    fps: float, waiting: MotionEdit | None,
) -> list[MotionEdit]:  # fmt: skip
    """The controls in their order: pose, its scale, waiting, style, lips, emotion, blinks, gaze."""

    def pose(name: str) -> MotionEdit | None:
        if name not in poses:
            return None
        track = poses[name]

        def follow(block: Motion, seconds: Tensor) -> Motion:
            there = track(((seconds + lead) * fps).round().long())
            return block.map(**{n: getattr(there, n) for n in POSE_TRACKS})

        return follow

    def gaze(value: tuple[float, float] | str) -> MotionEdit | None:
        if value == "free":
            return None
        if value == "camera":
            return Gaze(profile, None, lambda second: camera(second + lead))
        assert not isinstance(value, str)
        return Gaze(profile, value)

    makers: dict[str, Callable[..., MotionEdit | None]] = {
        "pose": pose,
        "pose-scale": lambda scale: lambda block, _: scale_pose(block, scale, profile),
        "lip-scale": lambda scale: lambda block, _: scale_lips(block, scale, profile),
        "blink": lambda rate: None if rate == "own" else Blinks(rate, profile, controls.seed),
        "gaze": gaze,
    }
    layers = {
        control: _layer([(s, make(READERS[control](s.value))) for s in spans if s.control == control])
        for control, make in makers.items()
    }
    mixes = [(s, Mix.parse(s.value)) for s in spans if s.control == "emotion"]
    face_map = FaceMap.fit(profile.track) if mixes else FaceMap.generic()
    emotions = [_emotion(s, Expression(mix, profile, face_map, controls.emotion_limit)) for s, mix in mixes]
    order = [layers["pose"], layers["pose-scale"], waiting]
    if controls.style is not None:
        style = MotionStats.of(read_motion(controls.style, profile))
        order.append(lambda block, _: restyle(block, profile, style))
    order += [layers["lip-scale"], *emotions, layers["blink"], layers["gaze"]]
    return [stage for stage in order if stage is not None]


def _layer(choices: list[tuple[Span, MotionEdit | None]]) -> MotionEdit | None:
    """Spans of one control: each replaces what was there before it, as much as its weight says."""
    if not choices:
        return None

    def stage(block: Motion, seconds: Tensor) -> Motion:
        result = block
        for span, change in choices:
            weight = span.weight(seconds)
            if bool(weight.any()):
                result = result.blend(block if change is None else change(block, seconds), weight)
        return result

    return stage


def _emotion(span: Span, expression: Expression) -> MotionEdit:
    return lambda block, seconds: expression(block, span.weight(seconds))


def _waiting(profile: MotionStats, speech_end: float | None) -> MotionEdit:
    """Less motion, and breath, while nothing is said."""
    speech = None if speech_end is None else Span(control="", value="", start=0, end=speech_end, fade=EASE_SECONDS)

    def stage(block: Motion, seconds: Tensor) -> Motion:
        weight = torch.ones(len(block)) if speech is None else 1 - speech.weight(seconds)
        return block.blend(breathe(scale_pose(block, IDLE_POSE, profile), seconds), weight)

    return stage
