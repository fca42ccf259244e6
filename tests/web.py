"""A small avatar whose face does something, for tests of what plays it."""

from __future__ import annotations

from pathlib import Path

import torch

from avatar.data.consent import SYNTHETIC
from tests.person import make_person, small_config, train


def small_run(folder: Path) -> Path:
    """Make a RUN folder in a folder."""
    trainer = train(small_config(make_person(folder / "person"), folder / "run"))
    with torch.no_grad():  # a few steps hardly deform anything: so that there is something to play
        torch.nn.init.normal_(trainer.model.field.head.weight, std=0.05)
    trainer.save_model(folder / "run" / "model.safetensors")
    SYNTHETIC.write(folder / "run")
    return folder / "run"
