"""What the deformation field is told about a frame: normalised motion, and a small code of the sound around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avatar.motion import Motion
from avatar.motion.arkit import UPPER

AUDIO_WINDOW = 8  # frames of audio features around the picture, as in RAD-NeRF and its descendants


class Conditioner(nn.Module):
    """Motion to a condition vector: each channel in units of the person's own spread, kept to the range it was seen in.

    What the network is shown beyond that range it answers with noise (dark smears on the collar, in one video); the
    rig and the face mesh, which extrapolate well, still get the motion as it is.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @property
    def width(self) -> int:
        return self.mean.shape[0]

    @staticmethod
    def fit(motion: Motion) -> Conditioner:
        """Mean and spread of the channels over a training track."""
        raw = _raw(motion, slice(None))
        spread = raw.std(0)
        # A channel that never moved must not amplify its noise: floors in the channels' own units.
        floor = torch.full_like(spread, 0.02)
        mean, scale = raw.mean(0), 1 / torch.maximum(spread, floor)
        unit = (raw - mean) * scale
        return Conditioner(mean, scale, unit.quantile(0.005, 0).clamp(-4, 4), unit.quantile(0.995, 0).clamp(-4, 4))

    def forward(self, motion: Motion, index: int) -> Tensor:
        """Condition [width] of one frame."""
        return ((_raw(motion, index) - self.mean) * self.scale).clamp(self.low, self.high)


def _raw(motion: Motion, index: int | slice) -> Tensor:
    upper = motion.arkit[index][..., list(UPPER)]
    parts = [motion.face[index], upper, motion.gaze[index], motion.head_rotation[index], motion.shoulders[index]]
    return torch.cat(parts, -1)


class AudioCode(nn.Module):
    """A few numbers from the audio features around a frame; zeros when there is no audio.

    Args:
        features: Width of the audio features.
        width: Width of the code.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(features)
        self.first = nn.Conv1d(features, 32, 3, padding=1)
        self.second = nn.Conv1d(32, 32, 3, padding=1)
        self.attention = nn.Linear(32, 1)
        self.out = nn.Linear(32, width)

    def forward(self, audio: Tensor | None) -> Tensor:
        """Code [width] of features [W, F] around the frame."""
        if audio is None:
            return self.out.bias.new_zeros(self.width)
        x = self.norm(audio).T[None]
        x = F.leaky_relu(self.first(x), 0.02)
        x = F.leaky_relu(self.second(x), 0.02)[0].T
        x = (x * torch.softmax(self.attention(x), 0)).sum(0)
        return torch.tanh(self.out(x))


def audio_window(features: Tensor, index: int) -> Tensor:
    """Rows [AUDIO_WINDOW, F] of features [T, F] centred on a frame; the ends repeat."""
    at = torch.arange(index - AUDIO_WINDOW // 2, index + AUDIO_WINDOW // 2).clamp(0, features.shape[0] - 1)
    return features[at]
