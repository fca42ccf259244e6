"""Store the Gaussians of an avatar in bytes: attributes at rest, and the modes of their changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.export.web.basis import VISIBLE, Basis
from avatar.export.web.format import Arrays, from_levels, to_levels
from avatar.fields.deformation import attribute_widths
from avatar.methods.animated import ROW, AnimatedGaussians
from avatar.motion import Motion

SCALES = (-6.0, 2.0)  # log centimetres: less is far below a pixel
_TAIL = 1e-4  # share of the colors that may be clipped at each end of their range
GAIN = 16  # steps of a gain per factor of two
_LOGIT = 6.2  # of an opacity of 511 / 512, the largest that is stored
_CELLS = 10  # bits of each axis of the order in space


def stored(gaussians: AnimatedGaussians, basis: Basis, keep: Tensor, step: float) -> tuple[Arrays, Tensor]:
    """Quantise what a web folder holds.

    Args:
        gaussians: The avatar.
        basis: Of its changes.
        keep: [N] which Gaussians are drawn.
        step: Least step of a mode, in units of a change that one just sees of a Gaussian that shows as most do.

    Returns:
        The arrays of avatar.bin (see `avatar.export.web.format`), and the Gaussians in their order, [n] indices.
    """
    gain = np.rint(basis.shown.log2().numpy() * GAIN) + 128
    modes, steps = quantised_modes(basis.modes * gains(gain), step)
    alive = torch.from_numpy(modes.any((0, 1)))
    moves = torch.zeros(len(gaussians), dtype=torch.bool)
    moves[basis.moved[alive]] = True
    order = storage_order(gaussians.means, moves, keep)
    rows = torch.searchsorted(basis.moved, order[moves[order]]).numpy()
    rest = basis.rest[order]
    position = (gaussians.means[order] + rest[:, :3]).numpy()
    scale, color = gaussians.scales[order] + rest[:, 3:6], (gaussians.colors[order] + rest[:, 7:]).numpy()
    opacity = torch.sigmoid(gaussians.opacities[order] + rest[:, 6]).numpy()
    turn = torch.nn.functional.normalize(gaussians.quats[order], dim=-1)
    low, high = position.min(0), position.max(0)
    color_range = np.quantile(color, [_TAIL, 1 - _TAIL])
    arrays: Arrays = {
        "position": np.stack([to_levels(position[:, i], low[i], high[i], 65535) for i in range(3)]).astype(np.uint16),
        "position_range": np.stack([low, high]).astype(np.float32),
        "scale": to_levels(scale.numpy().T, SCALES[0], SCALES[1], 255).astype(np.uint8),
        "scale_range": np.array(SCALES, np.float32),
        "color": to_levels(color.T, color_range[0], color_range[1], 255).astype(np.uint8),
        "color_range": color_range.astype(np.float32),
        "opacity": np.clip(np.floor(opacity * 256), 0, 255).astype(np.uint8),
        "weight": np.rint(gaussians.weights[order].numpy() * 255).astype(np.uint8),
        "rotation": np.rint(turn.numpy().T * 127).astype(np.int8),
        "mode": modes[..., rows], "mode_step": steps, "gain": gain[rows].astype(np.uint8),
    }  # fmt: skip
    return arrays, order


def storage_order(means: Tensor, moves: Tensor, keep: Tensor) -> Tensor:
    """Indices of the Gaussians that are kept: those that move first, each group along a curve through space.

    Neighbours look alike and move alike, so that their bytes compress well (Morton 1966).
    """
    low, high = means.amin(0), means.amax(0)
    cells = ((means - low) / (high - low).clamp_min(1e-6) * (2**_CELLS - 1)).long()
    code = torch.zeros(len(means), dtype=torch.long)
    for bit in range(_CELLS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    code[~moves] += 1 << (3 * _CELLS)
    order = code.argsort(stable=True)
    return order[keep[order]]


def gains(stored_gain: np.ndarray) -> Tensor:
    """Factors [K, 1, 1] by which modes were multiplied before they were stored."""
    return torch.from_numpy(2 ** ((stored_gain.astype(np.float32) - 128) / GAIN))[:, None, None]


def quantised_modes(modes: Float[Tensor, "K 10 M"], step: float) -> tuple[np.ndarray, np.ndarray]:
    """Quantise modes to i8 [M, 10, K] with a step f32 [M, 10] per plane."""
    planes = modes.permute(2, 1, 0).numpy()
    steps = np.maximum(np.abs(planes).max(-1, initial=0) / 127, step / VISIBLE.numpy())
    whole = np.rint(planes / np.where(steps > 0, steps, 1)[..., None])
    return whole.astype(np.int8), steps.astype(np.float32)


class StoredGaussians:
    """What a player reads from avatar.bin, and the coefficients that make it do what the avatar does.

    Args:
        arrays: Those of avatar.bin.
        order: [n] the Gaussians of the avatar that they hold.
        gaussians: The avatar.

    Attributes:
        rest: The Gaussians at rest.
        modes: [K, 10, M] of the first K.
    """

    def __init__(self, arrays: Arrays, order: Tensor, gaussians: AnimatedGaussians) -> None:
        self._from, self._order = gaussians, order
        self.rest = _restored(arrays, gaussians)
        gain = gains(arrays["gain"])
        stored_modes = arrays["mode"].astype(np.float32) * arrays["mode_step"][..., None]
        self.modes = torch.from_numpy(stored_modes).permute(2, 1, 0) / gain
        self._moved = order[: len(gain)]
        self._weight = gain[:, :, 0] * VISIBLE
        weighted = (self.modes * self._weight[..., None]).reshape(-1, self.modes.shape[-1])
        gram = (weighted.T @ weighted).double()
        gram += 1e-9 * gram.diagonal().mean().clamp_min(1e-9) * torch.eye(len(gram), dtype=gram.dtype)
        self._read = torch.linalg.solve(gram, weighted.T.double()).float()

    @torch.no_grad()
    def coefficients(self, motion: Motion, index: int) -> Float[Tensor, " M"]:
        """Coefficients [M] of a frame, by least squares in what shows."""
        g, rest, rows, count = self._from, self.rest, self._moved, len(self._moved)
        change = g.changes(motion, index)[rows].split(attribute_widths(), -1)
        parts = (
            g.means[rows] + change[0] - rest.means[:count],
            (g.scales[rows] + change[1]).clamp(*SCALES) - rest.scales[:count],
            (g.opacities[rows, None] + change[2]).clamp(-_LOGIT, _LOGIT) - rest.opacities[:count, None],
            g.colors[rows] + change[3] - rest.colors[:count],
        )
        return self._read @ (torch.cat(parts, -1) * self._weight).reshape(-1)

    def changes(self, coefficients: Float[Tensor, " M"]) -> Float[Tensor, "n 10"]:
        """What coefficients change of the Gaussians at rest."""
        moved = self.modes @ coefficients
        return torch.nn.functional.pad(moved, (0, 0, 0, len(self.rest) - len(moved)))


def _restored(arrays: Arrays, gaussians: AnimatedGaussians) -> AnimatedGaussians:
    """Gaussians at rest as a player reads them, with the skinning of those that they were made of."""
    low, high = arrays["position_range"]
    position = np.stack([from_levels(arrays["position"][i], low[i], high[i], 65535) for i in range(3)], 1)
    opacity = (arrays["opacity"].astype(np.float32) + 0.5) / 256
    none = torch.zeros(len(opacity), ROW)
    return replace(
        gaussians, means=torch.from_numpy(position), opacities=torch.logit(torch.from_numpy(opacity)),
        quats=torch.from_numpy(arrays["rotation"].T.astype(np.float32)),
        scales=torch.from_numpy(_spread(arrays, "scale")),
        colors=torch.from_numpy(_spread(arrays, "color")),
        weights=torch.from_numpy(arrays["weight"].astype(np.float32) / 255),
        region=torch.zeros(len(opacity), dtype=torch.uint8), changes=lambda motion, index: none,
    )  # fmt: skip


def _spread(arrays: Arrays, name: str) -> np.ndarray:
    low, high = arrays[f"{name}_range"].tolist()
    return from_levels(arrays[name].T, low, high, 255)
