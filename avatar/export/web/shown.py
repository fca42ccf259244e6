"""Which Gaussians the views of a web page show, so that the others need not be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avatar.export.web.basis import Frame
from avatar.geometry.cameras import Camera
from avatar.methods.animated import AnimatedGaussians, blend_weights, draw_splats, picked

LEAST = 0.02  # pixels of a view that a Gaussian makes at least; without it no byte of any image changes
COMPACT = (1.0, 0.6, 0.4, 0.2, 0.1)  # the same for the small folder: the first that opens no hole
HOLE = 0.02  # of alpha: less is not seen
_SIZE = 384  # pixels that the longer side of the trained images is looked at with


def small(camera: Camera, trained: Camera) -> Camera:
    """A camera at the size of the images that are looked at, by the pixels of a trained image.

    So what makes too little of the image is the same in a whole frame, however little of that the person fills.

    Args:
        camera: Of a view.
        trained: Of the images that the avatar was trained on.
    """
    scale = min(1.0, _SIZE / max(trained.width, trained.height) / camera.enlarged)
    return camera.resized(round(camera.width * scale), round(camera.height * scale))


def shown(
    gaussians: AnimatedGaussians, frames: Sequence[Frame], cameras: Sequence[Camera]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """How much of the images each Gaussian makes, in pixels of the cameras.

    Args:
        gaussians: The avatar.
        frames: What it does.
        cameras: Views; each frame is looked at from one of them, in turn.

    Returns:
        The sum over all images, and the most in one of them.
    """
    total, most = torch.zeros(len(gaussians)), torch.zeros(len(gaussians))
    for number, (motion, index) in enumerate(frames):
        part = blend_weights(gaussians.posed(motion, index), cameras[number % len(cameras)])
        total += part
        most = torch.maximum(most, part)
    return total, most


def kept(
    gaussians: AnimatedGaussians, frames: Sequence[Frame], cameras: Sequence[Camera], most: Float[Tensor, " N"]
) -> Bool[Tensor, " N"]:
    """Choose the Gaussians of a small folder: as few as open no hole.

    Args:
        gaussians, frames, cameras: As for :func:`shown`.
        most: From there.
    """
    for least in COMPACT:
        keep = most >= least
        if hole(gaussians, frames, cameras, keep) <= HOLE:
            return keep
    return most >= LEAST


@torch.no_grad()
def hole(
    gaussians: AnimatedGaussians, frames: Sequence[Frame], cameras: Sequence[Camera], keep: Bool[Tensor, " N"]
) -> float:
    """The largest loss of alpha at any pixel of the images where some Gaussians are left out."""
    worst = 0.0
    for number, (motion, index) in enumerate(frames):
        camera, splats = cameras[number % len(cameras)], gaussians.posed(motion, index)
        splats = replace(splats, colors=splats.colors[:, :1])
        before, after = (draw_splats(part, camera)[1] for part in (splats, picked(splats, keep)))
        worst = max(worst, float((before - after).max()))
    return worst
