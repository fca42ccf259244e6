"""Density and color in space, of a method that has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """Density and color of the head in one frame, of a method that has them. Call it with points.

    Attributes:
        box: [2, 3] corners of what it covers, head axes, centimetres.
        evaluate: From points [N, 3] in head axes to densities [N] per centimetre and colors [N, 3] RGB 0..1.
    """

    box: Float[Tensor, "2 3"]
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]

    def __call__(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Densities [N] and colors [N, 3] at points [N, 3], moved to the device of ``box``."""
        return self.evaluate(points.to(self.box.device))
