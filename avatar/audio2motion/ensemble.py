"""Ensemble of speech networks: the weighted mean of their predictions.

The personal network knows the person; the shared one knows voices and languages that the person's minute lacks. Their
errors differ, so the mean follows the lips better than either (docs/notes/audio2motion.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avatar.audio2motion.base import AudioStream, AudioToMotion
from avatar.audio2motion.personal import MOST_SHARE, PersonalSpeech
from avatar.audio2motion.shared import SharedParts, SharedSpeech
from avatar.errors import AvatarError
from avatar.motion import Motion


class Ensemble:
    """The weighted mean of several networks; implements `avatar.audio2motion.base.AudioToMotion`.

    The first `SharedSpeech` among them also brings the lips of the mean together on p, b and m.

    Args:
        members: Of one frame rate.
        shares: Weight of each; they add up to 1. None: all weigh the same.

    Raises:
        AvatarError: There is none, or their frame rates differ.
    """

    def __init__(self, members: Sequence[AudioToMotion], shares: Sequence[float] | None = None) -> None:
        rates = {member.fps for member in members}
        if len(rates) != 1:
            raise AvatarError("The networks of an ensemble must have one frame rate,", why=f"not {sorted(rates)}.")
        self.members = tuple(members)
        self.shares = None if shares is None else tuple(shares)
        self.fps = rates.pop()
        levels = [getattr(member, "voice_db", None) for member in members]
        self.voice_db: float | None = next((level for level in levels if level is not None), None)
        self.shared = next((member for member in members if isinstance(member, SharedSpeech)), None)

    @staticmethod
    def of(personal: PersonalSpeech, shared: SharedSpeech) -> Ensemble:
        """Make the one of a person's two networks, with the share that the personal one stores."""
        # Equal shares are a plain mean: runs whose networks say nothing of it stay the same bit for bit.
        return Ensemble(
            [personal, shared], None if personal.share == MOST_SHARE else (personal.share, 1 - personal.share)
        )

    @property
    def look_ahead(self) -> float:
        """Seconds of audio after a frame that the slowest member waits for, at most."""
        return max(member.look_ahead for member in self.members)

    def open(self) -> EnsembleStream:
        """Begin an utterance; only mouth, jaw and cheeks move."""
        return EnsembleStream(self)


class EnsembleStream:
    """One utterance on its way through an `Ensemble`."""

    def __init__(self, ensemble: Ensemble) -> None:
        shared = self._shared = ensemble.shared
        self._shares = ensemble.shares
        self._streams: list[AudioStream | SharedParts] = [
            member.open() if shared is None or member is not shared else shared.open_parts()
            for member in ensemble.members
        ]
        self._held = [Motion.zeros(0, ensemble.fps) for _ in self._streams]
        self._closure = torch.zeros(0)  # probability, of frames of the shared member that are held

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N]; return the frames [n >= 0] that all members have."""
        return self._mean([stream.push(samples) for stream in self._streams])

    def finish(self) -> Motion:
        """Return the remaining frames."""
        return self._mean([stream.finish() for stream in self._streams])

    def _mean(self, new: list[Motion | tuple[Motion, Tensor]]) -> Motion:
        for i, block in enumerate(new):
            motion, closure = block if isinstance(block, tuple) else (block, None)
            self._held[i] = Motion.cat([self._held[i], motion])
            if closure is not None:
                self._closure = torch.cat([self._closure, closure])
        count = min(map(len, self._held))
        ready = [motion[:count] for motion in self._held]
        self._held = [motion[count:] for motion in self._held]
        face, arkit = (self._weighted([getattr(m, name) for m in ready]) for name in ("face", "arkit"))
        mean = ready[0].map(face=face, arkit=arkit)
        if self._shared is None:
            return mean
        closure, self._closure = self._closure[:count], self._closure[count:]
        return self._shared.close(mean, closure)

    def _weighted(self, blocks: list[Tensor]) -> Tensor:
        """[n, C] of one block [n, C] of each member."""
        stacked = torch.stack(blocks)
        if self._shares is None:
            return stacked.mean(0)
        return torch.tensordot(torch.tensor(self._shares, dtype=stacked.dtype), stacked, 1)
