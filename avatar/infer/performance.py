"""What an avatar does, from all the controls: the lips of a speech or the motion of somebody, and what is laid over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.sources import is_video, read_motion
from avatar.infer.speak import choose_speech, count_frames, onto, with_lips
from avatar.io.audio import stream_audio
from avatar.motion import Motion
from avatar.motion.arkit_map import FaceMap
from avatar.motion.controls import Blinks, Gaze, Stage, breathe, scale_lips, scale_pose
from avatar.motion.emotion import Expression, Mix
from avatar.motion.motion import POSE_TRACKS
from avatar.motion.profile import Profile
from avatar.motion.retarget import back_and_forth, follow_pose, restyle, retarget
from avatar.motion.timeline import READERS, Span
from avatar.prior.pose import LOOPS, POSES, Unrolled, pose_track

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar
    from avatar.prior.generator import MotionGenerator
    from avatar.prior.protocol import AudioToMotion

EASE_SECONDS = 0.4  # from rest to the first sound, and from the last one to rest
IDLE_POSE = 0.6  # somebody who waits moves less than somebody who talks


class Performance(NamedTuple):
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


def perform(
    avatar: Avatar,
    controls: Controls,
    audio: Path | None,
    camera: CameraAt | None = None,
    speech: AudioToMotion | None = None,
) -> Performance:
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
    train = Motion.load(avatar.run / "motion.safetensors")
    segments = [(a, min(b, len(train))) for a, b in avatar.person["segments"] if a < len(train)]
    profile = Profile.of(train, segments)
    spans = controls.spans()
    base_pose = next((s.value for s in reversed(spans) if s.control == "pose" and s.always), None)
    pause = round(controls.idle * fps)

    def loop(mode: str, frames: int) -> Motion:
        return pose_track(train, segments, frames, fps, mode, controls.seed)

    def generated(lead: int) -> Unrolled:
        sound = iter(()) if audio is None else stream_audio(audio)
        numbers = controls.seed, controls.pose_guidance, controls.pose_noise
        return Unrolled(load_generator(avatar.run).stream(sound, fps, lead / fps, *numbers))

    if controls.motion is not None:
        track = _driven(controls.motion, controls.retarget, profile, fps)
        lead, total, waiting = 0, len(track), None
        blocks = iter([track])
    else:
        if audio is None and not pause:
            raise AvatarError("Nothing to say:", "", "give a sound, --motion or --idle.")
        spoken = 0 if audio is None else count_frames(audio, fps)
        lead = 0 if audio is None else pause
        total = pause if audio is None else 2 * pause + spoken
        lips: Iterator[Motion] = iter(())
        if audio is not None:
            speech = speech or choose_speech(avatar.run, fps, controls.speech)
            lips = speech.stream(stream_audio(audio))
        lips = with_pauses(lips, profile.rest, lead, total - lead, fps) if pause else lips
        if base_pose == "generated":
            blocks = laid_over(generated(lead), lips)
        else:
            blocks = onto(loop(base_pose if base_pose in LOOPS else LOOPS[0], total), lips, hold=True)
        waiting = _waiting(profile, None if audio is None else spoken / fps) if pause else None
    own = base_pose if controls.motion is None else None
    poses = _poses(spans, profile, loop, lambda: generated(lead), total, fps, own)
    place = camera or (lambda _: torch.zeros(3))  # the world is the frame of the camera that filmed
    stages = _stages(spans, controls, profile, poses, lead / fps, place, fps, waiting)
    return Performance(staged(blocks, stages, lead, fps), total, audio, -lead / fps)


def load_generator(run: Path) -> MotionGenerator:
    """What generates a run's motion.

    Raises:
        AvatarError: The run has none, or it cannot be read.
    """
    from avatar.prior.generator import FILE, MotionGenerator

    path = Path(run) / FILE
    if not path.is_file():
        raise AvatarError(
            f"{run} cannot generate head motion: it holds no {FILE}.",
            "An older version trained it, its training has not finished, or its video is too short.",
            "Finish training with `avatar train PERSON --out RUN --resume`, or choose --pose own.",
        )
    return MotionGenerator.load(path)


def laid_over(track: Unrolled, lips: Iterable[Motion]) -> Iterator[Motion]:
    """The track, as long as the lips move, with these lips."""
    done = 0
    for block in lips:
        if len(block):
            yield with_lips(track.read(done, len(block)), block)
            done += len(block)


def staged(blocks: Iterable[Motion], stages: Sequence[Stage], lead: int, fps: float) -> Iterator[Motion]:
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


def _driven(path: Path, fit: str, profile: Profile, fps: float) -> Motion:
    track = read_motion(path, profile).resample(fps)
    if fit == "yes" or (fit == "auto" and is_video(path)):
        return retarget(track, Profile.of(track), profile)
    return track


def _poses(
    spans: list[Span], profile: Profile, loop: Callable[[str, int], Motion], generated: Callable[[], Unrolled],
    total: int, fps: float, base: str | None,
) -> dict[str, PoseAt]:  # fmt: skip
    """Every pose that is asked for, but the one that the base has already."""

    def track_of(name: str) -> PoseAt:
        if name == "generated":
            source = generated()
            return lambda at: source.read(int(at[0]), len(at))
        if name in LOOPS:
            track = loop(name, total)
        else:
            track = read_motion(Path(name), profile).resample(fps)
            track = back_and_forth(follow_pose(track, Profile.of(track), profile), total)
        return lambda at: track[at.clamp(0, len(track) - 1)]

    return {name: track_of(name) for name in {s.value for s in spans if s.control == "pose"} - ({base} & {*POSES})}


def _stages(
    spans: list[Span], controls: Controls, profile: Profile, poses: dict[str, PoseAt], lead: float, camera: CameraAt,
    fps: float, waiting: Stage | None,
) -> list[Stage]:  # fmt: skip
    """The controls in their order: pose, its scale, waiting, style, lips, emotion, blinks, gaze."""

    def pose(name: str) -> Stage | None:
        if name not in poses:
            return None
        track = poses[name]

        def follow(block: Motion, seconds: Tensor) -> Motion:
            there = track(((seconds + lead) * fps).round().long())
            return block.map(**{n: getattr(there, n) for n in POSE_TRACKS})

        return follow

    def gaze(value: tuple[float, float] | str) -> Stage | None:
        if value == "free":
            return None
        if value == "camera":
            return Gaze(profile, None, lambda second: camera(second + lead))
        assert not isinstance(value, str)
        return Gaze(profile, value)

    makers: dict[str, Callable[..., Stage | None]] = {
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
        style = Profile.of(read_motion(controls.style, profile))
        order.append(lambda block, _: restyle(block, profile, style))
    order += [layers["lip-scale"], *emotions, layers["blink"], layers["gaze"]]
    return [stage for stage in order if stage is not None]


def _layer(choices: list[tuple[Span, Stage | None]]) -> Stage | None:
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


def _emotion(span: Span, expression: Expression) -> Stage:
    return lambda block, seconds: expression(block, span.weight(seconds))


def _waiting(profile: Profile, speech_end: float | None) -> Stage:
    """Less motion, and breath, while nothing is said."""
    speech = None if speech_end is None else Span(control="", value="", start=0, end=speech_end, fade=EASE_SECONDS)

    def stage(block: Motion, seconds: Tensor) -> Motion:
        weight = torch.ones(len(block)) if speech is None else 1 - speech.weight(seconds)
        return block.blend(breathe(scale_pose(block, IDLE_POSE, profile), seconds), weight)

    return stage
