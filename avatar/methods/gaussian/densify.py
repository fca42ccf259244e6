"""Densification: split Gaussians where the image is still wrong, prune those that do nothing.

The count follows a budget over time, so a run's cost is known before it starts (the idea of Taming 3DGS, Mallick
et al. 2024). gsplat's strategies are not used here because each of our Gaussians also carries an integer binding to
the face mesh that must be inherited, and because every random choice must depend on the step alone for exact resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.fields.gaussians import Gaussians
from avatar.geometry.se3 import quat_to_matrix
from avatar.methods.base import RenderOutput, TrainCallback, TrainState

if TYPE_CHECKING:
    from avatar.methods.gaussian.model import GaussianModel


class Densification(TrainCallback):
    """Collects screen-space gradients and rebuilds the Gaussians of a model together with their optimiser state.

    Attributes:
        gradient: [N] sum of the gradients' lengths since the last change.
        seen: [N] steps in which each Gaussian was drawn since then.
    """

    name = "densify"

    def __init__(self, model: GaussianModel) -> None:
        self.model = model
        self.config = model.config.densify
        self._reset()

    def _reset(self) -> None:
        means = self.model.gaussians.means
        self.gradient = torch.zeros(len(means), device=means.device)
        self.seen = torch.zeros_like(self.gradient)

    def due(self, step: int, steps: int) -> bool:
        c = self.config
        return step > 0 and step % c.refine_every == 0 and c.refine_start * steps <= step <= c.refine_stop * steps

    def after_backward(self, out: RenderOutput) -> None:
        """Add one step's gradients [N, 2] of the projected means."""
        gradient2d, radii = out.aux["means2d"].grad, out.aux["radii"]
        if gradient2d is None:
            return
        pixels = out.rgb.shape[0] * out.rgb.shape[1]
        visible = radii > 0
        norm = gradient2d.norm(dim=-1) * pixels  # independent of the training resolution
        self.gradient += torch.where(visible, norm, torch.zeros_like(norm))
        self.seen += visible

    @torch.no_grad()
    def after_step(self, state: TrainState) -> None:
        """Prune and split."""
        gaussians = self.model.gaussians
        keep = self._keep(gaussians)
        survivors = keep.nonzero()[:, 0]
        parents = self._parents(keep, len(survivors), state)
        index = torch.cat([survivors, parents])
        new = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        new[len(survivors) :] = True
        order = gaussians.region[index].argsort(stable=True)  # leaves the parents in their order, too
        index, new = index[order], new[order]

        # A split moves parent and child to either side along a random draw from the parent, and shrinks both.
        # The draw is the CPU's on every device.
        generator = torch.Generator().manual_seed(state.seed * 1_000_003 + state.step)
        draw = torch.randn(len(parents), 3, generator=generator).to(index.device)
        offset = draw * gaussians.scales[parents].exp()
        offset = (quat_to_matrix(gaussians.quats[parents]) @ offset[..., None])[..., 0] * 0.7
        gaussians.means[parents] -= offset
        gaussians.scales[parents] -= 0.35
        rebuild(gaussians, state.optimizer, index, new)
        gaussians.means[new] += 2 * offset
        self.model.forget_neighbours()
        self._reset()

    def _keep(self, gaussians: Gaussians) -> Tensor:
        """[N] bool: which Gaussians are not pruned."""
        faint = torch.sigmoid(gaussians.opacities[:, 0]) < self.config.prune_opacity
        large = gaussians.scales.exp().amax(-1) > self.config.prune_scale_cm
        return ~(faint | large)

    def _parents(self, keep: Tensor, kept: int, state: TrainState) -> Tensor:
        """Indices of the Gaussians to split, sorted: those with the largest gradients, as many as the budget allows."""
        c, limit = self.config, self.model.config.max_gaussians
        rounds = max(1, round((c.refine_stop * state.steps - state.step) / c.refine_every) + 1)
        wanted = max(0, min(int((limit - kept) / rounds) + 1, limit - kept, kept // 4))
        score = torch.where(keep, self.gradient / self.seen.clamp_min(1), -1.0)
        return score.topk(min(wanted, kept)).indices.sort().values

    def state(self) -> dict[str, Tensor]:
        return {"gradient": self.gradient, "seen": self.seen}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        device = self.model.device
        self.gradient, self.seen = (tensors[name].to(device, copy=True) for name in ("gradient", "seen"))


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
