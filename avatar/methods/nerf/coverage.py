"""Which cells of the head training frames showed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.methods.gaussian.coverage import WELL, over_yaw
from avatar.methods.nerf.occupancy import SEEN
from avatar.methods.nerf.rays import pixels_in, shown_in
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.methods.nerf.model import NerfModel

_RAYS_AT_ONCE = 32_768
_SIDE = 192  # pixels of the longer side of the images that are looked at: a cell covers several of them


@torch.no_grad()
def measure_seen(model: NerfModel, motion: Motion, camera: Camera) -> Tensor:
    """Measure how much of each cell the frame shows that shows most of it.

    A sample's share of an image is the derivative of the image's sum by its color.

    Args:
        model: The trained model.
        motion: The training frames.
        camera: The filming camera.

    Returns:
        uint8 [SEEN, SEEN, SEEN], 255 for cells that are seen well.
    """
    shrink = min(1.0, _SIDE / max(camera.width, camera.height))
    small = camera.resized(round(camera.width * shrink), round(camera.height * shrink))
    size = (model.occupancy.box[1] - model.occupancy.box[0]).prod().pow(1 / 3) / SEEN
    best = torch.zeros(SEEN**3, device=model.device)
    for index in over_yaw(motion.head_rotation):
        shown = torch.zeros_like(best)
        pixels = pixels_in(shown_in(model.occupancy.corners, motion, index, small), small)
        for part in pixels.split(_RAYS_AT_ONCE):
            places, shares = model.shares(motion, index, small, part)
            shown.index_add_(0, model.occupancy.cells(places, SEEN), shares)
        area = (size * small.focal / motion.head_translation[index, 2]).square()  # of a cell, pixels
        best = torch.maximum(best, shown / area)
    return (best / WELL).clamp(0, 1).mul(255).round().to(torch.uint8).view(SEEN, SEEN, SEEN)
