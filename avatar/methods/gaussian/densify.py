"""Density control: where the picture is still wrong, split Gaussians; where they do nothing, drop them.

The count follows a budget over time, so a run's cost is known before it starts (the idea of Taming 3DGS, Mallick
et al. 2024). gsplat's strategies are not used here because each of our Gaussians also carries an integer binding to
the face mesh that must be inherited, and because every random choice must depend on the step alone for exact resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avatar.fields.gaussians import Gaussians
from avatar.geometry.se3 import quat_to_matrix


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """When and how strongly the set of Gaussians changes."""

    start: float = 0.03
    """Share of the training after which splitting starts."""
    stop: float = 0.6
    """Share of the training after which the count stays."""
    interval: int = 100
    """Steps between changes."""
    min_opacity: float = 0.02
    """Gaussians fainter than this are dropped."""
    max_scale: float = 3.0
    """Gaussians larger than this, in centimetres, are dropped."""


class DensityControl:
    """Collects screen-space gradients and rebuilds the Gaussians of a model together with their optimiser state."""

    def __init__(self, config: DensityConfig, count: int, device: torch.device | None = None) -> None:
        self.config = config
        self.gradient = torch.zeros(count, device=device)
        self.seen = torch.zeros(count, device=device)

    def observe(self, gradient2d: Tensor, radii: Tensor, pixels: int) -> None:
        """Add one step's gradients [N, 2] of the projected means."""
        visible = radii > 0
        norm = gradient2d.norm(dim=-1) * pixels  # independent of the training resolution
        self.gradient += torch.where(visible, norm, torch.zeros_like(norm))
        self.seen += visible

    def due(self, step: int, steps: int) -> bool:
        """Whether the set changes after this step."""
        c = self.config
        return step > 0 and step % c.interval == 0 and c.start * steps <= step <= c.stop * steps

    @torch.no_grad()
    def change(self, gaussians: Gaussians, optimizer: torch.optim.Optimizer, step: int, steps: int, limit: int,
               seed: int) -> tuple[int, int]:  # fmt: skip
        """Drop and split; returns how many were dropped and added."""
        c = self.config
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        faint = torch.sigmoid(gaussians.opacities[:, 0]) < c.min_opacity
        large = gaussians.scales.exp().amax(-1) > c.max_scale
        keep = ~(faint | large)
        rounds = max(1, round((c.stop * steps - step) / c.interval) + 1)
        kept = int(keep.sum())
        wanted = max(0, min(int((limit - kept) / rounds) + 1, limit - kept, kept // 4))
        score = torch.where(keep, self.gradient / self.seen.clamp_min(1), -1.0)
        parents = score.topk(min(wanted, kept)).indices.sort().values
        survivors = keep.nonzero()[:, 0]
        index = torch.cat([survivors, parents])
        new = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        new[len(survivors) :] = True
        order = gaussians.region[index].argsort(stable=True)  # leaves the parents in their order, too
        index, new = index[order], new[order]

        # A split moves parent and child to either side along a random draw from the parent, and shrinks both.
        # The draw is the CPU's on every device.
        draw = torch.randn(len(parents), 3, generator=generator).to(index.device)
        offset = draw * gaussians.scales[parents].exp()
        offset = (quat_to_matrix(gaussians.quats[parents]) @ offset[..., None])[..., 0] * 0.7
        gaussians.means[parents] -= offset
        gaussians.scales[parents] -= 0.35
        rebuild(gaussians, optimizer, index, new)
        gaussians.means[new] += 2 * offset
        self.gradient = torch.zeros(len(index), device=index.device)
        self.seen = torch.zeros_like(self.gradient)
        return int((~keep).sum()), len(parents)


def rebuild(gaussians: Gaussians, optimizer: torch.optim.Optimizer, index: Tensor, new: Tensor) -> None:
    """Replace row i of everything by row ``index[i]``; rows marked ``new`` start with fresh optimiser moments."""
    for group in optimizer.param_groups:
        name = group.get("name", "").removeprefix("gaussians.")
        if name not in gaussians.learned:
            continue
        old = group["params"][0]
        fresh = torch.nn.Parameter(old.detach()[index])
        state = optimizer.state.pop(old, None)
        if state:
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.where(new.view(-1, *[1] * (old.dim() - 1)), 0.0, state[key][index])
            optimizer.state[fresh] = state
        group["params"][0] = fresh
        setattr(gaussians, name, fresh)
    for name, rows in list(gaussians.named_buffers()):  # what is not learned has a row per Gaussian as well
        setattr(gaussians, name, rows[index])
