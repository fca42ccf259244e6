"""From landmarks in the image to landmarks in the head's own frame."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix


def landmarks_to_head(
    landmarks: Float[Tensor, "T V 2"],
    shape: Float[Tensor, "V 3"],
    head_rotation: Float[Tensor, "T 3"],
    head_translation: Float[Tensor, "T 3"],
    camera: Camera,
) -> Float[Tensor, "T V 3"]:
    """Lift pixels to 3-D in head axes, at the depth that the posed neutral face has there.

    One view says nothing about the displacement along its ray, so that component stays the neutral face's.

    Args:
        landmarks: [T, V, 2] pixels.
        shape: [V, 3] neutral face, head axes, centimetres.
        head_rotation: [T, 3] axis-angle, head to world.
        head_translation: [T, 3] centimetres.
        camera: The filming camera (identity view matrix).

    Returns:
        [T, V, 3] head axes, centimetres.
    """
    rotation = axis_angle_to_matrix(head_rotation)
    posed = shape @ rotation.mT + head_translation[:, None]
    centre = torch.tensor([camera.cx, camera.cy], dtype=landmarks.dtype)
    xy = (landmarks - centre) / camera.focal * posed[..., 2:]
    lifted = torch.cat([xy, posed[..., 2:]], -1)
    return (lifted - head_translation[:, None]) @ rotation
