"""How an avatar listens and thinks: nods at pauses, raised brows, a slight smile, and where it looks.

    attention = Attention(fps, seed)
    attitude = attention.step(samples, speaking=False)     # one frame; what somebody said to the avatar meanwhile
    motion = reactions(motion, attitude)                   # laid over what the avatar does anyway

A nod follows a pause of the speaker, as back-channels do (N. Ward and W. Tsukahara, Prosodic features which cue
back-channel responses, Journal of Pragmatics 32, 2000). `Attention` has all the state and none of the motion;
`Reactions` has no state. Everything begins and ends without a jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar.audio.turns import PAUSE_SECONDS, PauseDetector
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.geometry.smoothstep import smooth
from avatar.motion import Motion
from avatar.motion.arkit_map import FaceMap
from avatar.motion.edits import ExtraBlink, Gaze, gaze_to
from avatar.motion.emotion import Expression, Mix
from avatar.motion.statistics import MotionStats

NOD_DEGREES, CYCLE_SECONDS = (4.0, 7.0), (0.32, 0.5)  # a larger nod takes longer
SECOND_CYCLE = 0.55  # of the first one's size, where there is one
NOD_AFTER = (0.3, 0.7)  # seconds from the begin of the pause
BETWEEN_NODS = (4.3, 8.0)  # seconds from nod to nod, at least
BROWS_SHARE = 0.3  # of the nods come with raised brows
BROWS, BROWS_SECONDS = 0.35, 0.9
SMILE = 0.12  # of a happy face: 0.1 of mouthSmile
LEAN = 0.5  # centimetres towards the camera
ATTENTIVE_SECONDS, SMILE_SECONDS, LOOK_SECONDS = 0.4, 1.6, 0.16  # from one state to the other
STILL_LISTENS = 2.5  # seconds after the last words
HOLDS, LOOKS_AWAY = (4.0, 8.0), (0.7, 1.4)  # seconds that the eyes hold the listener, and that they do not: 85 %
BLINKS_EVERY, BLINK_SECONDS = (10.0, 30.0), 0.8  # seconds of listening: a fifth more than usual; how long one may last
THINKS_AFTER = 0.25  # seconds: who answers at once does not look aside
ASIDE, ASIDE_SECONDS, ASIDE_PAUSE = ((4.0, 8.0), (5.0, 9.0)), (0.6, 1.5), (0.7, 1.4)  # degrees left and up; seconds
INTERRUPTED_BROWS = 0.2 / 0.8  # of a surprised face
NECK = (0.0, 4.0, 5.0)  # centimetres in head axes, about which a head nods: below and behind its middle


class Attitude(NamedTuple):
    """What listening adds to one frame; all zero: nothing.

    Attributes:
        nod: Degrees that the head is lowered.
        brows: How far they are raised, in multiples of a surprised face.
        smile: In multiples of a happy face.
        lean: Centimetres towards the camera.
        look: How much the eyes hold the camera, 0 to 1.
        aside: Degrees to the person's left and up that they look past it.
        blink: Seconds since one more blink began; 0: none is under way.
    """

    nod: float = 0.0
    brows: float = 0.0
    smile: float = 0.0
    lean: float = 0.0
    look: float = 0.0
    aside: tuple[float, float] = (0.0, 0.0)
    blink: float = 0.0


class Attention:
    """What an avatar does while somebody speaks to it, frame by frame; the same seed and audio do the same.

    Args:
        fps: Frames per second.
        seed: Chooses when and how.
    """

    def __init__(self, fps: float, seed: int = 0) -> None:
        self._fps, self._rng = fps, np.random.default_rng([seed, 7])
        self._pauses = PauseDetector()
        self._frame = 0
        self._since = math.inf  # seconds since somebody spoke
        self._thinking = 0.0  # seconds that it has thought
        self._attentive, self._smile = _Eased(ATTENTIVE_SECONDS, fps), _Eased(SMILE_SECONDS, fps)
        self._away, self._aside = _Eased(LOOK_SECONDS, fps), _Eased(LOOK_SECONDS, fps)
        self._nod: _Nod | None = None
        self._due: int | None = None  # frame at which the next nod begins
        self._rests_until = 0  # frame before which none begins
        self._turned, self._side = 0, (0.0, 0.0)  # frame at which the eyes change, and where they look meanwhile
        self._startled = -math.inf  # frame of the last interruption
        self._blinks = np.random.default_rng([seed, 8])
        self._until_blink = float(self._blinks.uniform(*BLINKS_EVERY))  # seconds of listening

    def step(self, samples: np.ndarray, speaking: bool, thinking: bool = False, interrupted: bool = False) -> Attitude:
        """One frame on.

        Args:
            samples: float32 [n], 16 kHz mono, of whoever speaks to the avatar, since the last frame.
            speaking: Whether the avatar speaks.
            thinking: Whether it is to answer, and has nothing to say yet.
            interrupted: Whether it was interrupted in this frame.
        """
        self._frame += 1
        pauses = self._pauses.push(samples)
        self._since = 0.0 if self._pauses.speaking else self._since + 1 / self._fps
        self._thinking = self._thinking + 1 / self._fps if thinking and not speaking else 0.0
        if interrupted:
            self._startled = self._frame
        if speaking:
            self._since, self._due = math.inf, None
        elif pauses and self._due is None:
            after = max(0.0, self._uniform(NOD_AFTER) - PAUSE_SECONDS)
            if self._frame >= self._rests_until:
                self._due = self._frame + round(after * self._fps)
        listens = self._since < STILL_LISTENS
        looks = self._look(listens)
        startled = (self._frame - self._startled) / self._fps
        attentive = self._attentive.step(listens or thinking or startled < 1.0)
        nod = self._nodding()
        brows = max(nod[1], INTERRUPTED_BROWS * _bump(startled / BROWS_SECONDS))
        smile = SMILE * self._smile.step(listens) * (0.85 + 0.15 * math.sin(0.7 * self._frame / self._fps))
        blink = self._blink(listens)
        return Attitude(nod[0], brows, smile, LEAN * attentive, attentive * looks[0], looks[1], blink)

    def _blink(self, listens: bool) -> float:
        """Seconds since one more blink began; 0: none is under way."""
        if listens or self._until_blink <= 0:
            self._until_blink -= 1 / self._fps
        if self._until_blink < -BLINK_SECONDS:
            self._until_blink = float(self._blinks.uniform(*BLINKS_EVERY))
        return max(0.0, -self._until_blink)

    def _nodding(self) -> tuple[float, float]:
        """Degrees of the nod that is under way, and how far the brows are raised with it."""
        if self._due is not None and self._frame >= self._due and self._nod is None:
            self._nod, self._due = _Nod.draw(self._frame, self._rng), None
            self._rests_until = self._frame + round(self._uniform(BETWEEN_NODS) * self._fps)
        if self._nod is None:
            return 0.0, 0.0
        seconds = (self._frame - self._nod.start) / self._fps
        if seconds > max(self._nod.seconds, BROWS_SECONDS):
            self._nod = None
            return 0.0, 0.0
        return self._nod.degrees(seconds), self._nod.brows * _bump(seconds / BROWS_SECONDS)

    def _look(self, listens: bool) -> tuple[float, tuple[float, float]]:
        """How much the eyes hold the listener, and how far they look aside while the avatar thinks."""
        thinks = self._thinking > THINKS_AFTER
        if self._frame >= self._turned or (thinks and not self._aside.wanted and self._thinking < THINKS_AFTER + 0.1):
            if thinks:
                aside = not self._aside.wanted
                self._side = (self._uniform(ASIDE[0]), self._uniform(ASIDE[1])) if aside else self._side
                self._aside.wanted, self._away.wanted = aside, False
                seconds = self._uniform(ASIDE_SECONDS if aside else ASIDE_PAUSE)
            else:
                self._away.wanted = listens and not self._away.wanted
                seconds = self._uniform(LOOKS_AWAY if self._away.wanted else HOLDS)
            self._turned = self._frame + round(seconds * self._fps)
        if not thinks:
            self._aside.wanted = False
        aside = self._aside.step(self._aside.wanted)
        return 1 - self._away.step(self._away.wanted), (aside * self._side[0], aside * self._side[1])

    def _uniform(self, bounds: tuple[float, float]) -> float:
        return float(self._rng.uniform(*bounds))


@dataclass(frozen=True)
class _Nod:
    """A nod: one or two raised cosines, which begin and end at rest."""

    start: int  # frame
    size: float  # degrees
    cycle: float  # seconds
    cycles: int
    brows: float

    @staticmethod
    def draw(frame: int, rng: np.random.Generator) -> _Nod:
        share = float(rng.uniform())
        low, high = NOD_DEGREES
        cycle = CYCLE_SECONDS[0] + share * (CYCLE_SECONDS[1] - CYCLE_SECONDS[0])
        brows = BROWS if rng.uniform() < BROWS_SHARE else 0.0
        return _Nod(frame, low + share * (high - low), cycle, int(rng.integers(1, 3)), brows)

    @property
    def seconds(self) -> float:
        return self.cycles * self.cycle

    def degrees(self, seconds: float) -> float:
        cycle, phase = divmod(seconds / self.cycle, 1.0)
        if not 0 <= cycle < self.cycles:
            return 0.0
        return self.size * SECOND_CYCLE**cycle * _bump(phase)


class _Eased:
    """A value that goes smoothly to 0 or 1."""

    def __init__(self, seconds: float, fps: float) -> None:
        self.wanted = False
        self._at, self._change = 0.0, 1 / max(1.0, seconds * fps)

    def step(self, wanted: bool) -> float:
        self.wanted = wanted
        self._at = min(1.0, max(0.0, self._at + (self._change if wanted else -self._change)))
        return smooth(self._at)


class Reactions:
    """Lays an `Attitude` over motion.

    Args:
        stats: Of the person.
        place: Position of the camera in the world [3].
    """

    def __init__(self, stats: MotionStats, place: Callable[[], Tensor]) -> None:
        face_map = FaceMap.fit(stats.track)
        self._smile = Expression(Mix(strengths={"happy": 1.0}), stats, face_map)
        self._brows = Expression(Mix(strengths={"surprised": 1.0}, region="upper"), stats, face_map)
        self._blink = ExtraBlink(stats)
        self._gaze = Gaze(stats, None, lambda _: place())
        self._place = place

    def __call__(self, block: Motion, attitude: Attitude) -> Motion:
        """The block [1] with what listening adds; lips that are closed stay so."""
        if attitude == Attitude():
            return block
        if attitude.nod:
            block = nodded(block, attitude.nod)
        if attitude.lean:
            towards = torch.tensor([0.0, 0.0, -attitude.lean])  # the camera that filmed is at the origin
            block = block.map(
                head_translation=block.head_translation + towards,
                torso_translation=block.torso_translation + 0.6 * towards,
            )
        for expression, strength in ((self._smile, attitude.smile), (self._brows, attitude.brows)):
            if strength:
                block = expression(block, torch.full((len(block),), strength))
        if attitude.blink:
            block = self._blink(block, attitude.blink)
        if attitude.look:
            wanted = gaze_to(block, self._place().expand(len(block), 3)) + torch.tensor(attitude.aside).deg2rad()
            block = self._gaze.look(block, torch.lerp(block.gaze, wanted, attitude.look))
        return block


def nodded(block: Motion, degrees: float) -> Motion:
    """Motion with the head lowered by some degrees, about the neck."""
    turn = axis_angle_to_matrix(torch.tensor([[math.radians(degrees), 0.0, 0.0]]))  # a positive turn about x lowers it
    rotation = axis_angle_to_matrix(block.head_rotation)
    neck = torch.tensor(NECK)
    moved = (rotation @ (neck - turn @ neck)[..., None])[..., 0]
    return block.map(
        head_rotation=matrix_to_axis_angle(rotation @ turn), head_translation=block.head_translation + moved
    )


def _bump(phase: float) -> float:
    """A raised cosine over 0 to 1, at rest at both ends and beyond."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * phase) if 0 < phase < 1 else 0.0
