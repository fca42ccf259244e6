"""Put the image of the field and that of the Gaussians together."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from avatar.geometry.cameras import Camera
from avatar.methods.base import RenderOutput
from avatar.methods.batch import Box
from avatar.methods.nerf.torso import DRAWN

RAYS_AT_ONCE = 131_072  # of a part of an image, without gradients
_EVEN, _STEEP = 0.2, 0.4  # difference of opacity to a neighbour from which on more rays count, and count alone
_IN_PIXEL = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # where they are
ALPHA, SPREAD, HIDDEN = "head_alpha", "spread", "hidden"  # names in `RenderOutput.aux`


def smoothed_outline(
    image: Float[Tensor, "h w C"], box: Box, draw: Callable[[Tensor], Tensor]
) -> Float[Tensor, "h w C"]:
    """Draw four rays in each pixel at which opacity changes steeply.

    The field is solid within a step, so one ray shows all of the head or nothing: the outline would have stairs.

    Args:
        image: Color times opacity, opacity, and what else is multiplied with it, of one ray in each pixel.
        box: The part of an image that it is.
        draw: Gives the same [N, C] at places [N, 2] of the whole image, in pixels from its corner. It is asked for
            `RAYS_AT_ONCE` at most: where an image is fuzzy, most of its pixels are steep.
    """
    if image.numel() == 0:  # the head is outside of the image
        return image
    alpha = image.detach()[..., 3][None, None]
    change = F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(-alpha, 3, 1, 1)
    share = ((change[0, 0] - _EVEN) / (_STEEP - _EVEN)).clamp(0, 1)
    y, x = (share > 0).nonzero(as_tuple=True)
    if len(x) == 0:
        return image
    pixels = torch.stack([x + box[0], y + box[1]], -1).to(image)
    places = (pixels[:, None] + image.new_tensor(_IN_PIXEL)).view(-1, 2)
    rays = torch.cat([draw(part) for part in places.split(RAYS_AT_ONCE)])
    drawn = rays.view(len(x), -1, image.shape[-1]).mean(1)
    return image.index_put((y, x), torch.lerp(image[y, x], drawn, share[y, x, None]))


def sorted_by_depth(
    head: RenderOutput, others: RenderOutput, shown: RenderOutput, background: Tensor | None
) -> RenderOutput:
    """Field and Gaussians as seen from aside or behind, where either may hide the other: the nearer one does.

    All ``others`` hide the field; ``shown`` are those of them that are in the image.
    """
    assert others.depth is not None
    field = (head.rgb, head.alpha, head.aux["depth"], head.alpha)
    gaussians = (shown.rgb, shown.alpha, others.depth, others.alpha)
    hides = (others.alpha > 0.5) & ((others.depth < head.aux["depth"]) | (head.alpha < 0.5))
    near = [torch.where(hides, *pair) for pair in zip(gaussians, field, strict=True)]
    far = [torch.where(hides, *pair) for pair in zip(field, gaussians, strict=True)]
    through = 1 - near[3]
    rgb, alpha = near[0] + through * far[0], near[1] + through * far[1]
    depth = (near[1] * near[2] + through * far[1] * far[2]) / alpha.clamp_min(1e-6)
    if background is not None:
        rgb = rgb + (1 - alpha) * background
    aux = {ALPHA: head.alpha, DRAWN: others} | {name: head.aux[name] for name in (SPREAD, HIDDEN)}
    return RenderOutput(rgb, alpha, depth, aux)


def enlarged(box: Box, head: Tensor, small: Camera, large: Camera) -> tuple[Box, Tensor]:
    """Enlarge part of an image [h, w, 4] to that of a larger image.

    It is more of the image, up to where whole pixels of both meet.
    """
    ends = []
    for low, high, few, many in (
        (box[0], box[2], small.width, large.width),
        (box[1], box[3], small.height, large.height),
    ):
        unit = few // math.gcd(few, many)
        ends.append((max(low - 1, 0) // unit * unit, min(-(-(high + 1) // unit) * unit, few), many / few))
    (x0, x1, across), (y0, y1, down) = ends
    around = (0, 0, box[0] - x0, x1 - box[2], box[1] - y0, y1 - box[3])
    part = F.pad(head, around).permute(2, 0, 1)[None]
    to = tuple(round(at * scale) for at, scale in ((x0, across), (y0, down), (x1, across), (y1, down)))
    size = (to[3] - to[1], to[2] - to[0])
    return to, F.interpolate(part, size, mode="bilinear")[0].permute(1, 2, 0)
