"""Posed Gaussians as plain tensors, and drawing them: projection, then rasterization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.backends import RendererName, renderer
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import matrix_to_quat, quat_multiply


@dataclass(frozen=True)
class Splats:
    """N Gaussians in world space, ready to be drawn or exported: posed, and with activations applied.

    Attributes:
        means: [N, 3] centimetres.
        quats: [N, 4] wxyz, of any length.
        scales: [N, 3] standard deviations, centimetres.
        opacities: [N] 0..1.
        colors: [N, C] RGB, or other channels to blend.
        region: [N] uint8 index into `avatar.fields.gaussians.REGIONS`.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N C"]
    region: Tensor

    def __len__(self) -> int:
        return self.means.shape[0]

    def transformed(self, world: Float[Tensor, "4 4"]) -> Splats:
        """Move, turn and scale all Gaussians.

        Args:
            world: [4, 4] similarity transform: rotation times one positive scale, and translation in centimetres.
        """
        scale = torch.linalg.det(world[:3, :3]).pow(1 / 3)
        turn = matrix_to_quat(world[:3, :3] / scale)
        return replace(
            self,
            means=self.means @ world[:3, :3].T + world[:3, 3],
            quats=quat_multiply(turn.expand_as(self.quats), self.quats),
            scales=self.scales * scale,
        )

    @staticmethod
    def cat(parts: list[Splats]) -> Splats:
        """Join sets of Gaussians into one, in order; all must have the same number of color channels."""
        names = Splats.__dataclass_fields__
        return Splats(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


class Projected(NamedTuple):
    """Gaussians in the image plane of a camera.

    Attributes:
        radii: [N] int32 pixels; 0 for those that are not drawn.
        means2d: [N, 2] pixels.
        depths: [N] centimetres along the camera's axis.
        conics: [N, 3] inverse 2D covariances.
    """

    radii: Tensor
    means2d: Tensor
    depths: Tensor
    conics: Tensor


def project(splats: Splats, camera: Camera, backend: RendererName = "native") -> Projected:
    """Project Gaussians into the image plane of a camera."""
    gaussians = splats.means, splats.quats, splats.scales
    return Projected(
        *renderer(backend).project_gaussians(
            *gaussians, camera.viewmat, camera.K, camera.width, camera.height, camera.eps2d
        )
    )


def rasterize(
    splats: Splats, projected: Projected, camera: Camera, background: Tensor | None = None,
    backend: RendererName = "native", *, with_depth: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Blend projected Gaussians front to back.

    Args:
        splats, projected: From :func:`project` with the same camera.
        camera: Gives the size of the image.
        background: [H, W, C] behind them; None for nothing (zeros).
        backend: What computes it.
        with_depth: Blend the depth as a further channel.

    Returns:
        Image [H, W, C], alpha [H, W, 1], and the expected depth [H, W, 1] in centimetres (0 where alpha is 0) or None.
    """
    colors = splats.colors
    if with_depth:
        colors = torch.cat([colors, projected.depths[:, None]], 1)
        if background is not None:
            background = torch.cat([background, torch.zeros_like(background[..., :1])], -1)
    image, alpha = renderer(backend).rasterize(
        projected.means2d, projected.conics, colors, splats.opacities, projected.depths, projected.radii,
        camera.width, camera.height, background=background,
    )  # fmt: skip
    if not with_depth:
        return image, alpha, None
    return image[..., :-1].contiguous(), alpha, image[..., -1:] / alpha.clamp_min(1e-6)
