"""Sample only around what is seen: a few rays with all samples tell neighbouring rays where the head is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from avatar.geometry.cameras import Camera
from avatar.methods.batch import Box
from avatar.methods.nerf.rays import head_rays
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.methods.nerf.model import Face, NerfModel

BLOCK = 4  # pixels along a side of an image part that one ray tells about
AROUND = 0.25  # centimetres before and behind what the rays around a pixel see, ...
SPREADS = 1.5  # ... and so many standard deviations of it
CLEAR = 0.02  # opacity below which a ray sees nothing of the head, ...
SOLID = 0.9  # ... and from which it sees nothing behind
_FAR = 1e4  # centimetres


@torch.no_grad()
def limits(model: NerfModel, face: Face, motion: Motion, index: int, camera: Camera, box: Box) -> Tensor:
    """Nearest and farthest distance [N, 2] of samples on the rays of an image part, row by row; centimetres.

    A pixel takes the range of nine rays around it. Where some of them see past the head, it goes on to the far end.

    Args:
        model: What is drawn.
        face: Of the frame.
        motion, index, camera: As for `NerfModel.forward`.
        box: Part of the image.
    """
    x0, y0, x1, y1 = box
    device = camera.viewmat.device
    x, y = (torch.arange(a, b, BLOCK, device=device) for a, b in ((x0, x1), (y0, y1)))
    shape = len(y), len(x)
    middles = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2) + BLOCK // 2
    rays = head_rays(motion, index, camera, middles)
    samples, densities, _ = model.samples(rays, face)
    along = 0.5 * (samples.starts + samples.ends) - rays.middle
    moments, alpha, _ = model.march(
        samples.offsets, samples.starts, samples.ends, densities, torch.stack([along, along.square()], 1)
    )
    seen, share = alpha > CLEAR, alpha.clamp_min(CLEAR)
    mean = moments[:, 0] / share
    reach = AROUND + SPREADS * (moments[:, 1] / share - mean.square()).clamp_min(0).sqrt()
    away = mean + rays.middle
    near = torch.where(seen, away - reach, _FAR)
    far = torch.where(seen, away + reach, -_FAR)
    past = seen & (alpha < SOLID)
    # A pixel at the border of seeing anything may see what lies farther back than its neighbours do.
    ranges = torch.stack([-near, far, (past | ~seen).float(), seen.float()]).view(1, 4, *shape)
    nearest, farthest, open_, any_ = F.max_pool2d(ranges, 3, 1, 1)[0]
    farthest = torch.where((open_ > 0) & (any_ > 0), _FAR, farthest)
    both = torch.stack([-nearest, farthest], -1)
    whole = both.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: y1 - y0, : x1 - x0]
    return whole.reshape(-1, 2)
