"""Keep the occupancy grid up to date while a field is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.methods.base import TrainCallback, TrainState
from avatar.methods.nerf.occupancy import TRAINING
from avatar.methods.nerf.rays import shown_in

if TYPE_CHECKING:
    from avatar.methods.nerf.model import NerfModel

EVERY = 16  # steps between two refreshes
SHARE = 8  # a refresh looks at one of so many cells
CONDITIONS = 4  # of training frames, in a refresh
LOOKS = 2048  # rays of a frame that are looked along


class OccupancyRefresh(TrainCallback):
    """Keeps the occupancy grid of a model up to date."""

    name = "occupancy"

    def __init__(self, model: NerfModel) -> None:
        self.model = model
        assert model.filmed is not None, "a model that is trained further was made of a person"
        self.filmed = replace(
            model.filmed, motion=model.filmed.motion.to(model.device), camera=model.filmed.camera.to(model.device)
        )

    def due(self, step: int, steps: int) -> bool:
        return step > 0 and step % EVERY == 0

    @torch.no_grad()
    def after_step(self, state: TrainState) -> None:
        grid = self.model.occupancy
        generator = torch.Generator().manual_seed(state.seed * 1_000_003 + state.step)
        cells = grid.candidates()
        cells = cells[torch.randperm(len(cells), generator=generator)[: -(-len(cells) // SHARE)].to(cells.device)]
        jitter = (torch.rand(len(cells), 3, generator=generator) - 0.5).to(grid.box.device)
        points = grid.places(cells, jitter)
        chosen = torch.randint(len(self.filmed.motion), (CONDITIONS,), generator=generator).tolist()
        found = [
            self.model.evaluate(part, self.model.face(self.filmed.motion, frame))[0]
            for part, frame in zip(points.chunk(CONDITIONS), chosen, strict=False)
        ]
        grid.update(cells, torch.cat(found))
        self._look(chosen[0], generator)

    def _look(self, frame: int, generator: torch.Generator) -> None:
        """See what rays of a frame show."""
        motion, camera = self.filmed.motion, self.filmed.camera
        x0, y0, x1, y1 = shown_in(self.model.occupancy.corners, motion, frame, camera)
        if x0 == x1 or y0 == y1:
            return
        draw = torch.rand(LOOKS, 2, generator=generator) * torch.tensor([x1 - x0, y1 - y0])
        pixels = (draw.long() + torch.tensor([x0, y0])).to(self.model.device)
        training = self.model.training
        self.model.training = False  # these rays are not the training's
        points, shares = self.model.shares(motion, frame, camera, pixels)
        self.model.training = training
        self.model.occupancy.look(points, shares)

    def state(self) -> dict[str, Tensor]:
        grid = self.model.occupancy
        return {name: getattr(grid, name) for name in TRAINING}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        grid = self.model.occupancy
        for name in TRAINING:
            setattr(grid, name, tensors[name].to(grid.box.device, copy=True))
