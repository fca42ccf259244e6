"""Other projects' CUDA kernels behind the functions of :mod:`avatar.native`: gsplat, tinycudann and nerfacc.

All are optional and imported when they are chosen. Tensors may live anywhere: they are copied to the GPU, and results
and gradients come back to where the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from avatar.backends.requirements import problem, require

if TYPE_CHECKING:
    from torch import Tensor

RendererName = Literal["native", "gsplat"]
EncodingName = Literal["native", "tinycudann"]
MarcherName = Literal["native", "nerfacc"]

__all__ = ["EncodingName", "MarcherName", "Renderer", "RendererName", "marcher", "problem", "renderer", "require"]


class Renderer(Protocol):
    """What draws Gaussians; the contracts are those of the functions of the same names in :mod:`avatar.native`."""

    @property
    def project_gaussians(self) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]: ...

    @property
    def rasterize(self) -> Callable[..., tuple[Tensor, Tensor]]: ...


def renderer(name: RendererName) -> Renderer:
    """The module that draws Gaussians.

    Raises:
        AvatarError: The backend cannot run here; the sentence says what to do.
    """
    if name == "native":
        from avatar import native

        return native
    require(name)
    from avatar.backends import gsplat

    return gsplat


def marcher(name: MarcherName) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The function that renders samples along rays; see :func:`avatar.native.march_rays`.

    Raises:
        AvatarError: The backend cannot run here; the sentence says what to do.
    """
    if name == "native":
        from avatar.native import march_rays

        return march_rays
    require(name)
    from avatar.backends import nerfacc

    return nerfacc.march_rays
