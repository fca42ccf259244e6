"""What a step of method ``nerf`` trains on: rays where the head is, and square parts of the frame.

Rays train the field alone. Parts of the frame train the Gaussians behind it, too, and are compared by SSIM and LPIPS:
parts of the body, ears and sides of the head from the start, parts of the face late.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from avatar.device import cpu_threads
from avatar.methods.batch import Batch
from avatar.methods.nerf.head_shape import AROUND

BODY = 0.15  # share of the steps that train on a part of the body ...
FACE = 0.25  # ... and, from `FACE_FROM` on, on one of the face
BODY_SIDE = 2.5  # times as wide as a part of the face
FACE_FROM = 0.67  # share of the training
# Shares of the rays, the rest goes evenly over the head: by the loss's weight (mouth, eyes, face), and at the outline.
BY_WEIGHT, OUTLINE = 0.35, 0.15
RIM = 0.06  # of the frame's width: as far within the outline of the head, parts are parts of the body
TRAINED = 256  # width of a frame that sizes are given for


def choose(
    frame: Batch, progress: float, rng: np.random.Generator, *, rays: int, patch: int, random_background: float
) -> Batch:
    """Choose rays or a square part of a frame.

    Args:
        frame: A whole frame.
        progress: Share of the training that is done.
        rng: Random numbers of the step.
        rays: Number of rays.
        patch: Side of a part of the face, in pixels of a frame `TRAINED` wide.
        random_background: Share of the rays with a random background color.
    """
    draw = rng.random()
    side = patch * frame.image.shape[1] / TRAINED
    if draw < BODY:
        return _part(frame, rng, (frame.person - _inner(frame.head)).clamp(min=0), BODY_SIDE * side)
    if progress >= FACE_FROM and draw < BODY + FACE:
        return _part(frame, rng, frame.weight * frame.head, side)
    return _random_background(_rays(frame, rng, rays), _surely(frame.person), rng, random_background)


def _inner(head: Tensor) -> Tensor:
    """A mask of the head [H, W, 1] without what lies near its outline, which is left to Gaussians."""
    return 1 - _dilated((1 - head)[..., 0], round(RIM * head.shape[1]))[..., None]


def _part(frame: Batch, rng: np.random.Generator, density: Tensor, side: float) -> Batch:
    """A square around a pixel that is drawn by a density [H, W, 1]."""
    height, width = frame.image.shape[:2]
    across, down = (max(16, min(round(side), size)) for size in (width, height))
    x, y = (int(v) for v in _drawn(density[..., 0], rng, 1)[0])
    x0, y0 = (min(max(at - n // 2, 0), size - n) for at, n, size in ((x, across, width), (y, down, height)))
    return frame.cropped(x0, y0, x0 + across, y0 + down)


def _rays(frame: Batch, rng: np.random.Generator, count: int) -> Batch:
    head = frame.head[..., 0]
    reach = max(1, round(AROUND * head.shape[1]))
    wide, narrow = _dilated(head, reach), 1 - _dilated(1 - head, reach)
    near = (wide > 0.05).float()
    outline = near * (narrow < 0.95)
    weight = near * (frame.weight[..., 0] - frame.weight.min())
    even = near / near.sum().clamp_min(1)
    density = even * (1 - BY_WEIGHT - OUTLINE)
    with cpu_threads(1):  # torch adds one piece per thread: the last bit would depend on how many there are
        totals = weight.sum(), outline.sum()
    for share, part, total in zip((BY_WEIGHT, OUTLINE), (weight, outline), totals, strict=True):
        density = density + share * (part / total if total > 0 else even)
    pixels = _drawn(density, rng, count)
    chosen = frame.at(pixels)
    # What is drawn more often than evenly counts less by as much: the loss is the user's, whatever the rays are.
    x, y = chosen.pixels.unbind(-1) if chosen.pixels is not None else (pixels, pixels)
    often = torch.where(even > 0, density / even.clamp_min(1e-12), 1.0)[y, x].clamp(0.25, 100)  # 1 without a head
    return chosen._replace(weight=chosen.weight / often[:, None])


def _surely(person: Tensor) -> Tensor:
    """Coverage by the person [H, W, 1], less along its outline.

    Masks reach a little into the wall. What they wrongly call the person's would keep the wall's color: a fringe.
    """
    reach = max(1, round(person.shape[1] / TRAINED))
    outside = (1 - person)[..., 0][None, None]
    inner = 1 - nn.functional.max_pool2d(outside, 2 * reach + 1, 1, reach)[0, 0]
    return 0.5 * (person + inner[..., None])


def _random_background(batch: Batch, person: Tensor, rng: np.random.Generator, share: float) -> Batch:
    """Replace the background of some rays, in the image as well: what is not the person's must be transparent.

    Args:
        batch: Single pixels.
        person: [H, W, 1] coverage by the person.
        rng: Random numbers of the step.
        share: Of the rays.
    """
    assert batch.pixels is not None
    x, y = batch.pixels.unbind(-1)
    chosen = torch.from_numpy((rng.random((len(batch.image), 1)) < share).astype(np.float32)).to(batch.image.device)
    color = torch.from_numpy(rng.random((len(batch.image), 3), dtype=np.float32)).to(batch.image.device)
    change = chosen * (color - batch.background)
    return batch._replace(background=batch.background + change, image=batch.image + (1 - person[y, x]) * change)


def _dilated(mask: Tensor, reach: int) -> Tensor:
    """The largest value within a distance, rounded up to blocks of pixels half as wide, [H, W]."""
    height, width = mask.shape
    block = max(reach // 2, 1)  # 16 times as fast as pixels, for a frame 256 wide
    blocks = nn.functional.max_pool2d(mask[None, None], block, ceil_mode=True)
    far = -(-reach // block)
    wide = nn.functional.max_pool2d(blocks, 2 * far + 1, 1, far)[0, 0]
    return wide.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width]


def _drawn(density: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Pixels [count, 2] x, y, drawn by a density [H, W], evenly where it is zero everywhere."""
    cumulative = density.double().flatten().cumsum(0)
    if cumulative[-1] <= 0:
        cumulative = torch.ones_like(cumulative).cumsum(0)
    at = torch.from_numpy(rng.random(count)).to(cumulative.device) * cumulative[-1]
    flat = torch.searchsorted(cumulative, at, right=True).clamp(max=len(cumulative) - 1)
    width = density.shape[1]
    return torch.stack([flat % width, flat // width], -1)
