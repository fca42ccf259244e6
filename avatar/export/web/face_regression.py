"""Regression from motion to the coefficients of a web folder, for motion that is not known beforehand.

Frames of a clip have their coefficients by least squares, from what the avatar itself does. A page that speaks has the
motion alone. The coefficients are a smooth, not quite linear function of it: a linear regression and kernel ridge
regression with a Gaussian kernel on what that misses (Saunders et al., 1998), fitted to examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.export.web.format import Arrays
from avatar.motion import Motion

WIDTH = 1.0  # of the kernel, in median distances between examples
_RIDGE, _NOISE = 1e-3, 1e-3  # of the linear part, per example; of the other
_ENDS = (0.005, 0.995)  # quantiles of the examples: what is beyond them is not extrapolated by the kernel


def face_inputs(motion: Motion) -> Float[Tensor, "T I"]:
    """What changes a face, frame by frame: face channels, gaze and head rotation."""
    return torch.cat([motion.face, motion.gaze, motion.head_rotation], 1)


@dataclass(frozen=True, eq=False)
class FaceRegression:
    """Coefficients [M] from inputs [I].

    Attributes:
        mean, scale: [I] from inputs to units.
        low, high: [I] ends of the units for the kernel.
        linear: [I + 1, M]; the last row is the constant.
        examples: [S, I] units, within their ends.
        weights: [S, M] of the examples.
        width: Of the kernel.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    linear: Tensor
    examples: Tensor
    weights: Tensor
    width: float

    @staticmethod
    def fit(inputs: Float[Tensor, "S I"], coefficients: Float[Tensor, "S M"]) -> FaceRegression:
        """Fit it to examples."""
        spread = inputs.std(0).clamp_min(0.005)
        mean, scale = inputs.mean(0), 1 / spread
        units = (inputs - mean) * scale
        low, high = units.quantile(torch.tensor(_ENDS), 0)
        x, y = _with_one(units).double(), coefficients.double()
        ridge = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        linear = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
        examples = units.clamp(low, high)
        distances = torch.cdist(examples, examples)
        width = WIDTH * float(distances.median())
        kernel = torch.exp(-0.5 * (distances.double() / width).square())
        weights = torch.linalg.solve(kernel + _NOISE * torch.eye(len(x), dtype=x.dtype), y - x @ linear)
        return FaceRegression(mean, scale, low, high, linear.float(), examples, weights.float(), width)

    def __call__(self, inputs: Float[Tensor, "T I"]) -> Float[Tensor, "T M"]:
        """Coefficients of frames."""
        units = (inputs - self.mean) * self.scale
        distances = torch.cdist(units.clamp(self.low, self.high), self.examples)
        return _with_one(units) @ self.linear + torch.exp(-0.5 * (distances / self.width).square()) @ self.weights

    def arrays(self) -> Arrays:
        """For a file; `avatar.export.web.format` says how a player reads them."""
        return {
            "face_unit": torch.stack([self.mean, self.scale, self.low, self.high]).numpy(),
            "face_linear": self.linear.numpy(), "face_example": self.examples.numpy(),
            "face_weight": self.weights.numpy(),
        }  # fmt: skip


def fit_face(
    coefficients: Callable[[Motion, int], Tensor], base: Motion, lips: Float[Tensor, "S C"], channels: list[int]
) -> FaceRegression:
    """Fit the regression to a face that does all combinations of what a base and lips do.

    Args:
        coefficients: Gives those of a motion's frame.
        base: What the rest of the face does; its frames are taken again and again.
        lips: [S, C] lip channels, an example each.
        channels: [C] indices of the lip channels in ``base.face``.
    """
    rows = torch.randperm(len(lips), generator=torch.Generator().manual_seed(0)) % len(base)
    motion = with_channels(base[rows], lips, channels)
    found = torch.stack([coefficients(motion, index) for index in range(len(motion))])
    return FaceRegression.fit(face_inputs(motion), found)


def with_channels(base: Motion, lips: Float[Tensor, "T C"], channels: list[int]) -> Motion:
    """``base`` with some of its face channels replaced."""
    face = base.face.clone()
    face[:, channels] = lips
    return base.map(face=face)


def _with_one(units: Tensor) -> Tensor:
    return torch.nn.functional.pad(units, (0, 1), value=1.0)
