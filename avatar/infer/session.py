"""A live avatar for one listener: audio in from any thread, frames with their audio out at the pace of a clock.

    session = Session(Avatar.load("runs/me"))       # loads and warms up everything
    session.push_audio(samples)                     # 16 kHz mono float32; never blocks
    session.end_utterance()                         # or let a pause say so
    while serving:
        for frame in session.step(time.monotonic()):
            send(frame.image, frame.audio, frame.pts)
        time.sleep(0.005)
    played = session.interrupt()                    # utterance, and the seconds of it that were shown

Without audio the avatar idles: head motion goes on, it breathes and blinks, the lips are at rest. Several sessions may
share one `Avatar`; each has its own state.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from avatar.errors import AvatarError
from avatar.geometry.smoothstep import smooth
from avatar.infer.controls import Controls
from avatar.infer.fades import Fades
from avatar.infer.layers import MotionLayers, PersonMotion, PoseSource, build_layers
from avatar.infer.listening import Attention, Attitude, Reactions
from avatar.infer.live_pose import AHEAD_SECONDS, LiveAudio
from avatar.infer.planner import refuse_driven, speech_of
from avatar.infer.sources import checked_samples
from avatar.infer.utterances import FLUSH_SECONDS, Played, Taken, Utterances, frame_samples, needed_samples
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.mouth import with_lips

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar

LIMIT_SECONDS = 60.0  # of audio may wait
LATE_FRAMES = 1  # more than that, and only the newest frame is drawn
PAUSE_SECONDS = 1.0  # without a step: the time line jumps, and what waits is said afterwards
BEGIN_SECONDS, END_SECONDS = 0.12, 0.2  # the lips take from where they are to an utterance, and back to rest
INTERRUPTED_SECONDS = 0.12  # the lips take back to rest where an utterance was interrupted
IDLE_SECONDS = 0.4  # from talking to waiting, and back
HEARD_PIECES = 200  # of what is said to the avatar wait for the next frame: 4 s of pieces of 20 ms
CHANGE_SECONDS = 0.4  # from old controls to new ones


@dataclass(frozen=True)
class Frame:
    """One image and the audio that belongs to it.

    Attributes:
        image: uint8 RGB [H, W, 3].
        pts: Seconds of the session at which the image is shown; its audio is that of ``pts`` to ``pts + 1 / fps``.
        audio: float32 [N], 16 kHz mono, silence where nothing is said. Where late frames were not drawn, theirs comes
            first.
        speaking: Whether the lips speak.
        utterance: Number of the utterance that the audio belongs to, from 1 on; 0: none.
        ended: Utterances whose audio is over with this frame. Each comes once, unless it was interrupted.
    """

    image: UInt8[np.ndarray, "H W 3"]
    pts: float
    audio: Float32[np.ndarray, " N"]
    speaking: bool
    utterance: int
    ended: tuple[int, ...] = ()


class _Due(NamedTuple):
    """A frame whose time has come: what was taken for it, its lips, how much it waits and listens, and its number."""

    taken: Taken
    lips: Motion
    waiting: float
    attitude: Attitude
    pts: float  # second of the session
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple's


@dataclass(frozen=True, eq=False)
class Undrawn:
    """A frame whose audio is out, and whose image was not drawn yet: a `Frame` without it.

    Attributes:
        start: Second of the session to which its first sample belongs.
        longer: Seconds that it lasts beyond its share of the clock; less than 0: that it is shorter.
        pushed: How many of its samples were pushed; the others are silence or a fade, and come after them in a frame
            that stands for itself alone.
    """

    pts: float
    start: float
    longer: float
    audio: Float32[np.ndarray, " N"]
    speaking: bool
    utterance: int
    ended: tuple[int, ...]
    pushed: int
    due: _Due


class Session:
    """A live avatar for one listener.

    `push_audio`, `end_utterance`, `interrupt`, `hear`, `think` and `set` may be called from any thread, also while
    `step` runs.

    Args:
        avatar: The avatar; several sessions may share it.
        controls: How it behaves. Times of timed controls count from the begin of the session.
        camera: Where from; by default as filmed.
        speech: What turns audio into lips; by default as ``controls`` say, ``auto`` being ``streaming``.
        limit_seconds: Seconds of audio that may wait.
        flush_seconds: Seconds without new audio that end an utterance. None: only `end_utterance` does, for a source
            that says so and may be slow.

    Attributes:
        adjust: Changes the motion of each frame last, where it is set.
        needed_seconds: Audio that an utterance has when its first frame can be taken.

    Raises:
        AvatarError: The avatar cannot speak, or does not do what a control asks for.
    """

    def __init__(
        self,
        avatar: Avatar,
        controls: Controls | None = None,
        camera: Camera | None = None,
        *,
        speech: AudioToMotion | None = None,
        limit_seconds: float = LIMIT_SECONDS,
        flush_seconds: float | None = FLUSH_SECONDS,
    ) -> None:
        self.avatar, self.fps = avatar, avatar.fps
        self._camera = self._view = camera or avatar.camera
        controls = controls or Controls()
        speech = speech or speech_of(avatar, controls.speech, live=True)
        self._rest = PersonMotion.of(avatar).stats.rest
        self.adjust: Callable[[Motion], Motion] | None = None
        self._poses: dict[str, PoseSource] = {}
        self._audio = LiveAudio()
        self._setting, self._stepping, self._drawing = threading.Lock(), threading.Lock(), threading.Lock()
        self._layers = self._wanted = self._build(controls, self._poses)
        self._old: MotionLayers | None = None
        self._changing = 0  # frames that old controls still have a share in
        limit = round(limit_seconds * SAMPLE_RATE)
        self._utterances = Utterances(speech, self.fps, self._rest, limit, flush_seconds)
        self._fades = Fades()
        self._mouth = _Mouth(self._rest, self.fps)
        self._attention = Attention(self.fps, controls.seed)
        self._reactions = Reactions(PersonMotion.of(avatar).stats, lambda: self._view.position)
        self._heard: deque[np.ndarray] = deque(maxlen=HEARD_PIECES)
        self._thinking = False
        self._began: float | None = None
        self._count = self._skipped = 0  # frames of motion, and frames that the time line jumped over
        self._longer = 0  # samples by which frames of silence were longer
        self._posed = 0  # newest frame whose motion was composed
        # What is slow at the first frame happens now; nobody waits for it yet.
        avatar.render(self._camera, self._layers.compose(self._rest, 0, torch.ones(1)), 0).cpu()
        self.needed_seconds = needed_samples(speech) / SAMPLE_RATE

    def push_audio(self, samples: np.ndarray) -> int:
        """Queue samples [N], 16 kHz mono float32 in -1 to 1; return how many there was room for. Never blocks.

        Raises:
            AvatarError: They are no mono float samples.
        """
        return self._utterances.push(checked_samples(samples))

    def end_utterance(self) -> int:
        """End the utterance: its last frames come at once. Return its number; 0: none was pushed yet.

        A second call changes nothing. Audio that is pushed afterwards begins another utterance.
        """
        return self._utterances.end()

    def interrupt(self) -> Played:
        """Drop all audio that was not shown; the lips close. Return what was shown of the current utterance."""
        return self._utterances.interrupt()

    def hear(self, samples: np.ndarray) -> None:
        """Let the avatar listen to somebody: samples [N], 16 kHz mono float32, as they come. It nods at pauses.

        It says nothing of it, and does not listen while it speaks. Never blocks; of many pieces at once the newest
        count.

        Raises:
            AvatarError: They are no mono float samples.
        """
        self._heard.append(checked_samples(samples)[-SAMPLE_RATE:])

    def think(self, on: bool) -> None:
        """Let the avatar look as if it thinks, until it speaks or this is called with False."""
        self._thinking = on

    def set(self, controls: Controls | None = None, camera: Camera | None = None) -> None:
        """Change controls or camera while the session runs. New controls fade in; None leaves a thing as it is.

        The speech network stays. A style or a pose from a video is tracked here, which takes its time.

        Raises:
            AvatarError: A control is not understood, or the avatar does not do it. Nothing changes then.
        """
        if controls is not None:
            with self._setting:
                playing = [*self._layers.sources, *self._wanted.sources]
                poses = {name: pose for name, pose in self._poses.items() if pose in playing}
                self._wanted = self._build(controls, poses)
                self._poses = poses
        if camera is not None:
            self._camera = camera

    @property
    def camera(self) -> Camera:
        """Where from: that of the next frame."""
        return self._camera

    @property
    def seconds(self) -> float:
        """Second from which times of timed controls count as from now on."""
        return self._count / self.fps

    @property
    def waiting_seconds(self) -> float:
        """Seconds of audio that were pushed and not shown yet."""
        return self._utterances.waiting / SAMPLE_RATE

    def step(self, now: float) -> list[Frame]:
        """Draw the frames that are due.

        Args:
            now: Seconds on any clock that does not go backwards; the first call is second 0 of the session.

        Returns:
            No frame, one, or two. When more are late, the newest alone with the audio of all of them.

        Raises:
            AvatarError: ``now`` is infinite or no number.
        """
        return self._step(_checked_second(now))

    def take(self, now: float, longer: float = 0.0) -> list[Undrawn]:
        """Take the audio of the frames that are due, for a sender whose audio must not wait for rendering.

        Another thread draws them with :meth:`draw`, and may leave out any image. Audio that was taken counts as shown.

        Args:
            now: Seconds, as for :meth:`step`; a session is either stepped or taken from.
            longer: Seconds by which the last of them may last longer, or shorter, where it is silent and nothing is
                said. All later frames are due so much later.

        Returns:
            No frame, one, or two. When more are late, the newest alone with the audio of all of them.

        Raises:
            AvatarError: ``now`` is infinite or no number.
        """
        with self._stepping:
            groups = self._due(_checked_second(now), False)
            if groups and longer:
                groups[-1][-1] = self._lengthened(groups[-1][-1], longer)
            return [self._without_image(due) for due in groups]

    def ahead(self, seconds: float) -> Float32[np.ndarray, " N"]:
        """Samples [N] that wait, so many seconds at most; in the thread that takes. They follow if nothing happens."""
        with self._stepping:
            return self._utterances.ahead(round(seconds * SAMPLE_RATE))[0]

    def prepare(self) -> bool:
        """Encode audio that came since the last :meth:`take`, so that the next one has less to do; in its thread.

        Returns:
            Whether the next frame of an utterance lacks audio, where the one before did not.
        """
        with self._stepping:
            return self._utterances.prepare()

    def pose(self, frame: Undrawn) -> Motion:
        """Compose the motion [1] of a frame, for whoever animates another face with it. Frames are posed in order."""
        with self._drawing:
            return self._pose(frame.due)

    def draw(self, frame: Undrawn, motion: Motion | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Draw the image of a frame, uint8 RGB [H, W, 3]. Frames are drawn in order, from one thread at a time.

        Args:
            frame: The frame.
            motion: What :meth:`pose` gave for it, where it was called.
        """
        return self._image(frame.due, motion)

    def frames(self) -> Iterator[Frame]:
        """Frames until all audio that was pushed is over, as fast as they can be drawn. For use without a clock."""
        self.end_utterance()
        began = 0.0 if self._began is None else self._began
        while self._utterances.waiting:
            # The middle of a frame, which is due however coarse the numbers of a clock such as `time.time` are.
            yield from self._step(began + (self._count + self._skipped + 0.5) / self.fps, at_once=True)

    def _step(self, now: float, at_once: bool = False) -> list[Frame]:
        with self._stepping:
            return [self._frame(due) for due in self._due(now, at_once)]

    def _due(self, now: float, at_once: bool) -> list[list[_Due]]:
        """The frames that are due, in groups of which only the last one is drawn."""
        self._began = now if self._began is None else self._began
        count = int((now - self._began) * self.fps + 1e-6) + 1 - self._count - self._skipped
        if count > PAUSE_SECONDS * self.fps:
            self._skipped += count - 1
            count = 1
        frames = [self._take(now, at_once) for _ in range(count)]
        return [frames] if count > 1 + LATE_FRAMES else [[frame] for frame in frames]

    def _build(self, controls: Controls, poses: dict[str, PoseSource]) -> MotionLayers:
        controls.check()
        refuse_driven(controls)
        place = lambda _: self._view.position  # noqa: E731
        return build_layers(self.avatar, controls, place, origin=None, playing=poses, live=self._audio)

    def _take(self, now: float, at_once: bool) -> _Due:
        index, self._count = self._count, self._count + 1
        taken = self._utterances.take(frame_samples(index + self._skipped, self.fps), now, at_once)
        interrupted = self._mouth.said > 0 and self._mouth.epoch != taken.epoch
        lips, waiting = self._mouth.move(taken)
        if self._audio.wanted:
            first = round(index * SAMPLE_RATE / self.fps)  # as `LivePose` counts: jumps of the time line left out
            self._audio.note(first, taken.audio, *self._utterances.ahead(round(AHEAD_SECONDS * SAMPLE_RATE)))
        pts = (index + self._skipped) / self.fps + self._longer / SAMPLE_RATE
        return _Due(taken, lips, waiting, self._attend(taken, interrupted), pts, index)

    def _lengthened(self, due: _Due, seconds: float) -> _Due:
        """A frame that is so much longer, and the time line with it; one in which something is said stays as it is."""
        if due.taken.real or self._began is None:
            return due
        samples = max(0, len(due.taken.audio) + round(seconds * SAMPLE_RATE))
        more = samples - len(due.taken.audio)
        self._longer += more
        self._began += more / SAMPLE_RATE
        return due._replace(taken=replace(due.taken, audio=np.zeros(samples, np.float32)))

    def _attend(self, taken: Taken, interrupted: bool) -> Attitude:
        """Listen to what was heard since the last frame."""
        pieces = [self._heard.popleft() for _ in range(len(self._heard))]
        samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        return self._attention.step(samples, taken.utterance > 0, self._thinking, interrupted)

    def _frame(self, due: list[_Due]) -> Frame:
        image = self._image(due[-1])
        frame = self._without_image(due)  # after that: what was interrupted meanwhile is silent
        return Frame(image, frame.pts, frame.audio, frame.speaking, frame.utterance, frame.ended)

    def _pose(self, due: _Due) -> Motion:
        self._view = self._camera
        self._posed = max(self._posed, due.index)  # motion is read forwards only
        motion = self._compose(due, self._posed)
        return motion if self.adjust is None else self.adjust(motion)

    def _image(self, due: _Due, motion: Motion | None = None) -> np.ndarray:
        with self._drawing:
            motion = self._pose(due) if motion is None else motion
            return self.avatar.render(self._view, motion, 0).cpu().numpy()

    def _without_image(self, due: list[_Due]) -> Undrawn:
        """The last of some frames; it has the audio of all of them."""
        newest, shown, audio = due[-1], [], []
        for taken in (frame.taken for frame in due):
            if not self._utterances.shown(taken):  # interrupted meanwhile
                taken = Taken(None, np.zeros_like(taken.audio), 0, 0, taken.epoch)
            audio.append(self._fades.apply(taken.audio, taken.utterance if taken.real else 0, taken.ended))
            shown.append(taken)
        said = [taken for taken in shown if taken.real]
        samples = np.concatenate(audio)
        whole = frame_samples(newest.index + self._skipped, self.fps)
        return Undrawn(
            pts=newest.pts, start=due[0].pts, longer=(len(newest.taken.audio) - whole) / SAMPLE_RATE, audio=samples,
            speaking=any(taken.lips is not None for taken in said), utterance=said[-1].utterance if said else 0,
            ended=tuple(number for taken in shown for number in taken.ended),
            pushed=sum(taken.real for taken in shown), due=newest,
        )  # fmt: skip

    def _compose(self, due: _Due, index: int) -> Motion:
        """Lay the lips over what the controls say; new controls fade in."""
        frames = max(1, round(CHANGE_SECONDS * self.fps))
        if self._wanted is not self._layers and not self._changing:
            self._old, self._layers, self._changing = self._layers, self._wanted, frames
        motion = self._laid(self._layers, due, index)
        if self._changing and self._old is not None:
            old = self._laid(self._old, due, index)
            motion = motion.blend(old, torch.tensor([smooth(self._changing / (frames + 1))]))
            self._changing -= 1
        else:
            self._old = None
        return motion

    def _laid(self, layers: MotionLayers, due: _Due, index: int) -> Motion:
        attitude = due.attitude._replace(nod=0.0) if layers.still else due.attitude
        return layers.compose(
            due.lips, index, torch.tensor([due.waiting]), lambda block: self._reactions(block, attitude)
        )


def _checked_second(now: float) -> float:
    if not math.isfinite(now):
        raise AvatarError(f"A session cannot step to second {now}.", fix="Give the seconds of a clock.")
    return now


class _Mouth:
    """The lips from frame to frame: they ease wherever an utterance begins, ends, or is interrupted."""

    def __init__(self, rest: Motion, fps: float) -> None:
        self._rest, self._fps = rest, fps
        self._shown = self._from = rest
        self.said = self.epoch = 0  # utterance of the last frame, and interruptions before it
        self._step, self._length = 0, 0
        self._waiting = 1.0

    def move(self, taken: Taken) -> tuple[Motion, float]:
        """One frame of lips [1], and how much the avatar waits, 0 to 1."""
        lips = taken.lips
        said = 0 if lips is None else taken.utterance
        if said != self.said:
            end = END_SECONDS if taken.epoch == self.epoch else INTERRUPTED_SECONDS
            seconds = BEGIN_SECONDS if said else end
            self.said, self._from, self._step, self._length = said, self._shown, 0, max(1, round(seconds * self._fps))
        self.epoch = taken.epoch
        target = self._rest if lips is None else with_lips(self._rest, lips)
        if self._step < self._length:
            self._step += 1
            target = self._from.blend(target, torch.tensor([smooth(self._step / (self._length + 1))]))
        self._shown = target
        change = 1 / max(1.0, IDLE_SECONDS * self._fps)
        self._waiting = min(1.0, max(0.0, self._waiting + (-change if said else change)))
        return target, smooth(self._waiting)
