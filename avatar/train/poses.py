"""Correct head poses by the gradient of the image loss, while the avatar is trained.

A tracker sees landmarks and patches; the avatar covers the whole head, hair, ears and jaw line included. The gradient
of each frame says how its pose should change. Corrections every few frames, linear in between and pulled towards their
neighbours, follow that and not the noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avatar.motion import Motion

EVERY = 4  # frames between two corrections
PARTS = ("head_rotation", "head_translation")
UNITS = (1e-3, 1e-2)  # radians and centimetres that move the image about equally far
NEIGHBOURS = 0.2  # pull toward the mean of the neighbours in time: usual gradients per unit of distance
ZERO = 0.02  # the same toward the tracker's pose
MEMORY = 0.99  # of the mean squared gradient


class PoseCorrection(nn.Module):
    """Corrections to the head pose of a track.

    They are not optimised by Adam, whose steps are equally long for all frames: the gradient of a frame is divided by
    what is usual over all frames, so that well tracked frames stay where they are.

    Args:
        frames: Length of the track.
        segments: [start, end) of each continuous run of frames; nothing reaches across a cut.

    Attributes:
        knots: [K, 6] corrections in `UNITS`.
        square: [6] running mean of the squared gradient.
    """

    knots: nn.Parameter
    square: Tensor
    index: Tensor
    weight: Tensor
    units: Tensor
    before: Tensor
    after: Tensor

    def __init__(self, frames: int, segments: list[tuple[int, int]]) -> None:
        super().__init__()
        index, weight = torch.zeros(frames, 2, dtype=torch.long), torch.zeros(frames, 2)
        before, after = [0], [0]
        for start, end in segments:
            pieces = max(1, -(-(end - start - 1) // EVERY))
            at = torch.arange(end - start) / max(end - start - 1, 1) * pieces
            low = at.long().clamp(max=pieces - 1)
            first, last = len(before), len(before) + pieces
            index[start:end] = first + torch.stack([low, low + 1], -1)
            weight[start:end] = torch.stack([1 - (at - low), at - low], -1)
            before += [max(first, k - 1) for k in range(first, last + 1)]
            after += [min(last, k + 1) for k in range(first, last + 1)]
        self.knots = nn.Parameter(torch.zeros(len(before), 3 * len(PARTS)))  # the first one belongs to no frame
        self.register_buffer("square", torch.zeros(3 * len(PARTS)))
        units = torch.tensor(UNITS).repeat_interleave(3)
        tables = {"index": index, "weight": weight, "units": units, "before": before, "after": after}
        for name, values in tables.items():
            self.register_buffer(name, torch.as_tensor(values), persistent=False)

    def at(self, motion: Motion, frame: int) -> Motion:
        """One frame of a track, corrected; gradients reach the knots."""
        change = self.weight[frame] @ self.knots[self.index[frame]] * self.units
        return _moved(motion[frame : frame + 1], change[None])

    def corrected(self, motion: Motion) -> Motion:
        """The whole track, corrected."""
        with torch.no_grad():
            return _moved(motion, (self.weight[..., None] * self.knots[self.index]).sum(1) * self.units)

    @torch.no_grad()
    def step(self, frame: int, rate: float, centred: bool = True) -> None:
        """Follow the gradient of one frame.

        Args:
            frame: Whose gradient it is.
            rate: Length of a usual step, in `UNITS`.
            centred: Keep the mean correction at zero. In training the avatar could follow any common motion of all
                poses; one that is finished can not.
        """
        gradient = self.knots.grad
        if gradient is None:
            return
        mine = self.index[frame]
        pull = gradient[mine]
        size = pull.square().sum(0)
        self.square.copy_(torch.where(self.square == 0, size, MEMORY * self.square + (1 - MEMORY) * size))
        here = self.knots[mine]
        between = (self.knots[self.before[mine]] + self.knots[self.after[mine]]) / 2
        change = pull / (self.square.sqrt() + 1e-12) + NEIGHBOURS * (here - between) + ZERO * here
        self.knots[mine] = here - rate * change
        if centred:
            self.knots.sub_(self.knots[1:].mean(0))
        self.knots.grad = None


def _moved(motion: Motion, change: Tensor) -> Motion:
    parts = zip(PARTS, change.split(3, -1), strict=True)
    return motion.map(**{name: getattr(motion, name) + part for name, part in parts})
