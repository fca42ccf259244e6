"""LPIPS 0.1 with the AlexNet backbone: the distance of two pictures as a network sees them.

Zhang, Isola, Efros, Shechtman, Wang: "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018, equation 1: activations of five layers are scaled to unit length over the channels, their squared
differences weighted per channel, averaged over the picture and summed over the layers.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from avatar.errors import AvatarError

# (out channels, kernel, stride, padding, max pool before it) of AlexNet's convolutions, as in torchvision
LAYERS = (
    (64, 11, 4, 2, False),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, True),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, False),
)
SHIFT = (-0.030, -0.088, -0.188)  # LPIPS' input layer, for pictures in -1..1
SCALE = (0.458, 0.448, 0.450)
MIN_SIZE = 31  # below this the second pooling has nothing left


class LPIPS(nn.Module):
    """Perceptual distance, as a metric or as a loss. The weights are frozen; gradients reach the pictures.

    Args:
        weights: ``features.Conv_{i}.weight`` [out, in, k, k], ``features.Conv_{i}.bias`` [out] and
            ``lin{i}.weight`` [1, out, 1, 1] for the five layers.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        for i in range(len(LAYERS)):
            self.register_buffer(f"weight{i}", weights[f"features.Conv_{i}.weight"].float())
            self.register_buffer(f"bias{i}", weights[f"features.Conv_{i}.bias"].float())
            self.register_buffer(f"head{i}", weights[f"lin{i}.weight"].float())

    @staticmethod
    def load(path: Path | None = None) -> LPIPS:
        """The network from the asset ``lpips_alex``, or from a safetensors file with the same keys.

        Raises:
            AvatarError: The asset is not available, or the file is not what it should be.
        """
        if path is None:
            from avatar.assets.store import fetch

            path = fetch("lpips_alex")
        try:
            return LPIPS(load_file(str(path)))
        except (KeyError, OSError) as error:
            raise AvatarError(f"{path} does not hold the LPIPS network:", why=str(error)) from None

    def forward(self, a: Float[Tensor, "*batch H W 3"], b: Float[Tensor, "*batch H W 3"]) -> Float[Tensor, "*batch"]:
        """Distances [...] of pictures [..., H, W, 3] in 0..1, at least 31 pixels wide and high."""
        if min(a.shape[-3:-1]) < MIN_SIZE:
            raise ValueError(f"LPIPS needs pictures of at least {MIN_SIZE} pixels, got {tuple(a.shape)}")
        return self.distance(self.features(a), self.features(b)).reshape(a.shape[:-3])

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distances [B] from what :meth:`features` gave for two sets of pictures."""
        distance = torch.zeros(len(a[0]), dtype=a[0].dtype, device=a[0].device)
        for i, (fa, fb) in enumerate(zip(a, b, strict=True)):
            difference = (_unit(fa) - _unit(fb)) ** 2
            distance = distance + F.conv2d(difference, getattr(self, f"head{i}")).mean((1, 2, 3))
        return distance

    def features(self, image: Float[Tensor, "*batch H W 3"]) -> list[Float[Tensor, "B C h w"]]:
        """Activations [B, C, h, w] of the five layers for pictures [..., H, W, 3] in 0..1."""
        x = image.reshape(-1, *image.shape[-3:]).permute(0, 3, 1, 2)
        x = (x * 2 - 1 - self.shift) / self.scale
        out = []
        for i, (_, _, stride, padding, pool) in enumerate(LAYERS):
            if pool:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), stride, padding))
            out.append(x)
        return out


def _unit(x: Tensor) -> Tensor:
    # The clamp changes nothing (it is far below the epsilon) but gives dead pixels a zero gradient instead of NaN.
    return x / ((x * x).sum(1, keepdim=True).clamp_min(1e-30).sqrt() + 1e-10)
