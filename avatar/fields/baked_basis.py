"""A trained deformation field as a linear basis, for fast playback.

The deformations of one person lie close to a linear space of few dimensions. So they are stored as a mean and a few
modes (principal components over the training motion), and a frame is one product of a matrix with a short vector of
coefficients. The coefficients come from the field itself, evaluated at a few well-chosen Gaussians only (discrete
empirical interpolation with pivoted QR, Drmac and Gugercin 2016). So the response to the condition is kept, at a
hundredth of its cost.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from avatar.errors import AvatarError
from avatar.fields.deformation import Deformation, DeformationField, attribute_widths

_WIDTHS = attribute_widths()
_ROW = sum(_WIDTHS)
# One over the change of an attribute that one just sees: centimetres, log scale, opacity logit, colour.
_VISIBLE = torch.cat([torch.full((w,), 1 / u) for w, u in zip(_WIDTHS, (0.02, 0.1, 0.2, 0.02), strict=True)])
_ROUNDS = 8  # of pivoting: how many times more probes than modes


class BakedField(nn.Module):
    """Mean and modes of the deformations of N Gaussians, and the Gaussians that the field is evaluated at.

    Args:
        mean: [N, 10] changes at rest, attributes as in :class:`Deformation`.
        modes: [N, 10, M].
        probes: [P] indices of the Gaussians that the field is evaluated at.
        reading: [M, P * 10] from the probes' changes less their mean to the modes' coefficients.
    """

    mean: Tensor
    modes: Tensor
    probes: Tensor
    reading: Tensor

    def __init__(self, mean: Tensor, modes: Tensor, probes: Tensor, reading: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("modes", modes)
        self.register_buffer("probes", probes)
        self.register_buffer("reading", reading)
        self._asked: tuple[Tensor, Tensor, Tensor] | None = None  # code, and of the probes: code, mean

    def forward(
        self, field: DeformationField, code: Float[Tensor, "N H"], condition: Float[Tensor, " C"]
    ) -> Deformation:
        """Deformation of all Gaussians under a condition [condition]; ``field`` and ``code`` as they were baked."""
        return Deformation(*self.changes(field, code, condition).split(_WIDTHS, -1))

    def changes(
        self, field: DeformationField, code: Float[Tensor, "N H"], condition: Float[Tensor, " C"]
    ) -> Float[Tensor, "N 10"]:
        """The same as one tensor [N, 10], attributes side by side."""
        if self._asked is None or self._asked[0] is not code:
            self._asked = code, code[self.probes], self.mean[self.probes]
        _, probed, mean = self._asked
        answers = field.changes(probed, condition)
        coefficients = self.reading @ (answers - mean).reshape(-1)
        change = torch.addmv(self.mean.view(-1), self.modes.view(-1, self.modes.shape[-1]), coefficients)
        return change.view(-1, _ROW)

    @staticmethod
    @torch.no_grad()
    def fit(field: DeformationField, code: Tensor, conditions: Tensor, opacities: Tensor, modes: int) -> BakedField:
        """Bake a field.

        Args:
            field, code: The trained field and its code of the canonical Gaussians.
            conditions: [K, condition] that span what will be played.
            opacities: [N] 0..1; what cannot be seen need not be exact.
            modes: Components kept at most; fewer where K conditions do not span as many.

        Raises:
            AvatarError: The field is the same under all of them.
        """
        count, total = len(opacities), len(conditions)
        weight = opacities.clamp_min(0.05)[:, None] * _VISIBLE.to(opacities.device)
        samples = torch.empty(total, count * _ROW, device=code.device)
        for row, condition in zip(samples, conditions, strict=True):
            row.copy_((torch.cat(field.from_code(code, condition), -1) * weight).view(-1))
        mean = samples.mean(0)
        samples -= mean
        # The modes by way of the small [K, K] matrix: K is hundreds, the row length hundreds of thousands.
        values, vectors = torch.linalg.eigh((samples @ samples.T).double())
        modes = min(modes, int((values > 1e-8 * values[-1]).sum()))
        if modes == 0:
            raise AvatarError(
                "The avatar's deformation field is the same in all frames: there is nothing to bake.",
                why="That of a photo is: one image says nothing about how a face deforms.",
                fix="Play it without baking.",
            )  # fmt: skip
        basis = samples.T @ (vectors[:, total - modes :] / values[total - modes :].sqrt()).float()
        found = _probes(basis.cpu().numpy())
        probes, reading = (torch.from_numpy(x).to(code.device) for x in found)
        weight_row = weight.view(-1)
        return BakedField(
            (mean / weight_row).view(count, _ROW),
            (basis / weight_row[:, None]).view(count, _ROW, modes).contiguous(),
            probes,
            reading * weight[probes].view(-1),
        )


def _probes(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose Gaussians that determine the coefficients of an orthonormal basis [N * 10, M]; with the reading matrix."""
    from scipy.linalg import qr

    left = np.arange(len(basis))
    # Rows that hardly move carry no information and make the pivoting slow.
    left = left[np.argsort(-(basis**2).sum(1), kind="stable")[: max(20_000, basis.shape[1])]]
    rows: list[int] = []
    for _ in range(_ROUNDS):
        _, order = qr(basis[left].T, mode="r", pivoting=True)  # pyright: ignore[reportAssignmentType]
        pivots = order[: basis.shape[1]]
        rows.extend(left[pivots])
        left = np.delete(left, pivots)
        if len(left) == 0:
            break
    probes = np.unique(np.asarray(rows) // _ROW)
    read = basis[(probes[:, None] * _ROW + np.arange(_ROW)).reshape(-1)]
    return probes, np.linalg.pinv(read, rcond=1e-4).astype(np.float32)
