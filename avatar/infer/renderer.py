"""`Renderer`: what eval, viewer, serve and export take. `Avatar` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.infer.view_cone import ViewCone
from avatar.motion import Motion


class Renderer(Protocol):
    """Shows a motion from a camera.

    Attributes:
        fps: Frame rate of the person's video.
        camera: The camera that filmed the person.
        pivot: World point [3] inside the head, on the CPU; free view turns around it.
        device: Where it renders.
        info: Facts to print: ``method``, ``bytes`` and what the method counts.
        cone: The directions from which it looks right.
    """

    @property
    def fps(self) -> float: ...

    @property
    def camera(self) -> Camera: ...

    @property
    def pivot(self) -> Float[Tensor, " 3"]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def info(self) -> Mapping[str, Any]: ...

    @property
    def cone(self) -> ViewCone: ...

    def render(
        self, camera: Camera, motion: Motion, index: int, background: UInt8[Tensor, "H W 3"] | None = None
    ) -> UInt8[Tensor, "H W 3"]:
        """Draw frame ``index`` of ``motion`` as uint8 RGB [H, W, 3]; see `Avatar.render`."""
        ...


def counts(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the method counts, such as ``{"gaussians": 30000}``, of a renderer's ``info``."""
    return {name: value for name, value in info.items() if name not in ("method", "bytes")}


def counts_text(info: Mapping[str, Any]) -> str:
    """Format :func:`counts` for people: ``30000 gaussians``."""
    return ", ".join(f"{value} {name}" for name, value in counts(info).items())
