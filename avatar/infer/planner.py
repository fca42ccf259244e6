"""From audio to the motion of an avatar: one push-based path for files, whose end is known, and for live audio.

plan = plan_motion(avatar, Controls(emotion=("happy:0.7",)), frames=None)
for samples in microphone:              # 16 kHz mono float32
    show(plan.push(samples))            # Motion of zero or more frames
show(plan.finish())
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from avatar.audio2motion.base import gain_for, levelled
from avatar.audio2motion.load import load_speech
from avatar.errors import AvatarError
from avatar.geometry.smoothstep import smooth
from avatar.infer.controls import Controls
from avatar.infer.layers import CameraAt, MotionLayers, Person, PersonMotion, build_layers, joined
from avatar.infer.sources import is_video, mono_floats, read_motion
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.retarget import retarget
from avatar.motion.statistics import MotionStats
from avatar.motion.timeline import Span

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioStream, AudioToMotion

EASE_SECONDS = 0.4  # from rest to the begin of the audio of a file, and from its end to rest


class MotionPlan:
    """What an avatar does with one stream of audio.

    Attributes:
        fps: Frames per second.
        frames: Frames in all; None: the end of the audio is not known.
        audio_start: Second of the audio that belongs to the first frame; negative where the avatar waits first.
    """

    def __init__(
        self, lips: _Lips, layers: MotionLayers, frames: int | None, waiting: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.fps, self.frames = layers.fps, frames
        self.audio_start = -layers.lead / layers.fps
        self._lips, self._layers, self._waiting = lips, layers, waiting
        self._held = lips.before
        self._done = 0  # frames that came out
        self._spent = False

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N], 16 kHz mono float32; return the frames [n >= 0] that they complete.

        Raises:
            AvatarError: They are no mono float samples within -1 and 1, or the plan is finished.
        """
        self._refuse_spent()
        samples = mono_floats(samples)
        self._layers.push(samples)
        self._held = joined(self._held, self._lips.push(samples))
        return self._ready()

    def finish(self) -> Motion:
        """End the audio; return the remaining frames. The plan is then spent.

        Raises:
            AvatarError: The plan is finished already.
        """
        self._refuse_spent()
        self._spent = True
        self._layers.finish()
        self._held = joined(self._held, self._lips.finish())
        return self._ready()

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Push chunks of audio, as many as are needed; yield blocks of motion as soon as they are known."""
        yield from _nonempty(self._ready())
        for chunk in chunks:
            if self._lips.complete and not len(self._held):
                return
            yield from _nonempty(self.push(chunk))
        yield from _nonempty(self.finish())

    def _refuse_spent(self) -> None:
        if self._spent:
            raise AvatarError("This motion plan is finished.", fix="Call plan_motion once for each piece of audio.")

    def _ready(self) -> Motion:
        """The frames for which both lips and head motion are ready."""
        count = int(max(0, min(len(self._held), self._layers.ready - self._done)))
        lips, self._held = self._held[:count], self._held[count:]
        if not count:
            return lips
        start, self._done = self._done, self._done + count
        at = torch.arange(start - self._layers.lead, self._done - self._layers.lead, dtype=torch.float64) / self.fps
        return self._layers.compose(lips, start, None if self._waiting is None else self._waiting(at))


def plan_motion(
    avatar: Person,
    controls: Controls,
    *,
    frames: int | None,
    speech: AudioToMotion | None = None,
    camera: CameraAt | None = None,
    voice_db: float | None = None,
) -> MotionPlan:
    """Plan what an avatar does.

    Args:
        avatar: The avatar.
        controls: All that is asked for. Without knowing the end, ``speech="auto"`` is ``streaming``.
        frames: Frames that the audio lasts; 0: nothing is said; None: not known, because it is still being spoken.
        speech: What turns the audio into lips, where it is loaded already; by default as ``controls`` say.
        camera: Where the camera is, for eyes that hold it; by default as filmed.
        voice_db: Level of the voice in the audio, dBFS, which is brought to that of the person's recording for the
            lips (`AudioFile.voice_db`); by default it is taken as it is.

    Raises:
        AvatarError: There is nothing to do, a control needs to know the audio beforehand, or a file cannot be read.
    """
    controls.check()
    if frames is None:
        refuse_beforehand(controls)
    fps, stats = avatar.fps, PersonMotion.of(avatar).stats
    if controls.motion is not None:
        layers = build_layers(avatar, controls, camera, driven=True)
        track = _driven(controls, stats, fps)
        return MotionPlan(_Track(track), layers, len(track))
    pause = round(controls.idle * fps)
    if frames == 0 and not pause:
        raise AvatarError("Nothing to say:", fix="give --audio FILE, --text, --motion FILE or --idle.")
    lead = pause if frames else 0
    layers = build_layers(avatar, controls, camera, lead=lead)
    stream = None
    if frames != 0:
        model = speech or speech_of(avatar, controls.speech, live=frames is None)
        stream = _Levelled(model.open(), gain_for(model, voice_db))
    if not pause:
        return MotionPlan(_Speech(stream, stats.rest), layers, frames)
    assert frames is not None
    total = pause + lead + frames
    lips = PausedSpeech(stream, stats.rest, lead, total - lead, fps)
    return MotionPlan(lips, layers, total, _waiting(frames / fps if frames else None))


def refuse_beforehand(controls: Controls) -> None:
    """Refuse controls that need to know the audio beforehand.

    Raises:
        AvatarError: There are some; they are named.
    """
    generated = any(s.control == "pose" and s.value == "generated" for s in controls.spans())
    options = {"--motion": controls.motion is not None, "--idle": controls.idle > 0, "--pose generated": generated}
    if named := [name for name, given in options.items() if given]:
        raise AvatarError(
            f"{' and '.join(named)} cannot be had for audio that is still being spoken.", fix="Give an audio file."
        )


def refuse_driven(controls: Controls) -> None:
    """Refuse a whole motion where a session is to say what it is told.

    Raises:
        AvatarError: There is one.
    """
    if controls.motion is not None:
        raise AvatarError(
            "--motion gives the lips a motion of their own, and a live avatar says what it is told.",
            fix=f"Give its head motion with --pose {controls.motion}.",
        )


def speech_of(avatar: Person, which: str, live: bool) -> AudioToMotion:
    """The speech network of an avatar, loaded once.

    Args:
        avatar: The avatar.
        which: ``auto``, ``personal``, ``shared`` or ``streaming``.
        live: The audio is still being spoken: ``auto`` is then ``streaming``, and the network is warmed up.

    Raises:
        AvatarError: See `avatar.audio2motion.load.load_speech`.
    """
    name = "streaming" if live and which == "auto" else which
    loaded = _networks.setdefault(avatar, {})
    if name not in loaded:
        loaded[name] = load_speech(avatar.run, avatar.fps, name)
        if live:  # its encoder loads now, not while somebody speaks
            stream = loaded[name].open()
            stream.push(np.zeros(SAMPLE_RATE // 2, np.float32))
            stream.finish()
    return loaded[name]


_networks: weakref.WeakKeyDictionary[Person, dict[str, AudioToMotion]] = weakref.WeakKeyDictionary()


class _Lips(Protocol):
    """Lips, or a whole motion, on their way through a plan.

    Attributes:
        before: Frames that need no audio.
        complete: Whether no more audio is needed.
    """

    @property
    def before(self) -> Motion: ...

    @property
    def complete(self) -> bool: ...

    def push(self, samples: np.ndarray) -> Motion: ...

    def finish(self) -> Motion: ...


class _Track:
    """A whole motion that is there already; audio only accompanies it."""

    complete = True

    def __init__(self, track: Motion) -> None:
        self.before = track

    def push(self, samples: np.ndarray) -> Motion:
        return self.before[:0]

    def finish(self) -> Motion:
        return self.before[:0]


class _Levelled:
    """A stream that gets its samples with a gain."""

    def __init__(self, stream: AudioStream, gain: float) -> None:
        self._stream, self._gain = stream, gain

    def push(self, samples: np.ndarray) -> Motion:
        return self._stream.push(levelled(samples, self._gain))

    def finish(self) -> Motion:
        return self._stream.finish()


class _Speech:
    """The lips of a speech, from its first frame to its last."""

    complete = False

    def __init__(self, stream: AudioStream | None, rest: Motion) -> None:
        self._stream, self.before = stream, rest[:0]

    def push(self, samples: np.ndarray) -> Motion:
        return self.before if self._stream is None else self._stream.push(samples)

    def finish(self) -> Motion:
        return self.before if self._stream is None else self._stream.finish()


class PausedSpeech(_Speech):
    """Lips at rest for ``lead`` frames, the lips of a speech, then rest until there are ``most`` frames.

    The speech begins and ends where its lips do: the mouth eases there from rest and back.
    """

    def __init__(self, stream: AudioStream | None, rest: Motion, lead: int, most: int, fps: float) -> None:
        super().__init__(stream, rest)
        self._rest, self._lead, self._left = rest, lead, most
        self._ease = max(1, round(EASE_SECONDS * fps))
        self._last: Motion | None = None  # frame that was shown last

    @property
    def complete(self) -> bool:
        return self._left == 0

    def push(self, samples: np.ndarray) -> Motion:
        return self._lasting(super().push(samples))

    def finish(self) -> Motion:
        spoken = self._lasting(super().finish())
        last = self._rest if self._last is None else self._last
        count, self._left = self._left, 0
        return Motion.cat([spoken, eased(last, self._rest, count, 0, self._ease)])

    def _lasting(self, lips: Motion) -> Motion:
        """Lips with the pause before them, as far as there is room."""
        if not len(lips):
            return lips
        parts = []
        if self._last is None:
            parts = [eased(self._rest, lips[:1], self._lead, self._lead - self._ease, self._ease)]
        lips = lips[: self._left]
        self._left -= len(lips)
        if len(lips):
            self._last = lips[-1:]
        return Motion.cat([*parts, lips])


def eased(a: Motion, b: Motion, frames: int, start: int, length: int) -> Motion:
    """``frames`` frames that go smoothly from frame ``a`` to ``b``: in ``length`` frames, from index ``start`` on."""
    at = torch.arange(frames)
    t = ((at - start + 1) / (length + 1)).clamp(0, 1)
    zeros = torch.zeros(frames, dtype=torch.long)
    return a[zeros].blend(b[zeros], smooth(t))


def _driven(controls: Controls, stats: MotionStats, fps: float) -> Motion:
    """The motion of --motion, fitted to the person where that is asked for."""
    assert controls.motion is not None
    track = read_motion(controls.motion, stats).resample(fps)
    if controls.retarget == "yes" or (controls.retarget == "auto" and is_video(controls.motion)):
        return retarget(track, MotionStats.of(track), stats)
    return track


def _waiting(speech_end: float | None) -> Callable[[Tensor], Tensor]:
    """How much the avatar waits at seconds [T]: not while something is said."""
    if speech_end is None:
        return lambda seconds: torch.ones(len(seconds))
    speech = Span(control="", value="", start=0, end=speech_end, fade=EASE_SECONDS)
    return lambda seconds: 1 - speech.weight(seconds)


def _nonempty(block: Motion) -> Iterator[Motion]:
    if len(block):
        yield block
