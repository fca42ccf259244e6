"""A synthetic avatar of any size, with the trainer and the renderer that real ones go through; needs no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from avatar.data import PersonDataset
from avatar.data.person import PersonInfo
from avatar.data.results import Intrinsics
from avatar.geometry.cameras import Camera
from avatar.infer.avatar import Avatar
from avatar.methods.batch import Batch
from avatar.methods.registry import DEFAULT, method
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS
from avatar.train.config import from_preset
from avatar.train.trainer import Trainer

FPS = 25.0
BLOCK = 50  # frames of motion that are in memory at a time
DISTANCE = 60.0  # of the head from the camera, centimetres


class SyntheticPerson:
    """What the trainer asks of a `PersonDataset`, made up."""

    def __init__(self, size: int) -> None:
        self.width = self.height = size
        self.camera = Camera.source(2.6 * size, size / 2, size / 2, size, size)
        self.motion = motion(BLOCK)
        self.num_frames, self.segments = BLOCK, [(0, BLOCK)]
        self.train_frames = np.arange(BLOCK)
        self.landmarks = np.random.default_rng(0).normal(size=(BLOCK, NUM_LANDMARKS, 3)).astype(np.float32)


def motion(frames: int, start: int = 0) -> Motion:
    """Frames of a head that turns and talks."""
    t = torch.arange(start, start + frames)[:, None] / FPS
    phase = torch.arange(len(CHANNELS))
    face = 0.3 * torch.sin(7 * t + phase)
    rotation = torch.cat([0.05 * torch.sin(3 * t), 0.2 * torch.sin(2 * t), 0 * t], -1)
    translation = torch.tensor([0.0, 0.0, DISTANCE]).repeat(frames, 1)
    return Motion.zeros(frames, FPS).map(face=face, head_rotation=rotation, head_translation=translation)


def motion_blocks(frames: int) -> Iterator[Motion]:
    """The same in blocks, so that a video of any length needs the memory of one block."""
    for start in range(0, frames, BLOCK):
        yield motion(min(BLOCK, frames - start), start)


def make_avatar(n: int, size: int, device: torch.device | None = None) -> Avatar:
    """An avatar to render, as if loaded from a run; on the CPU by default."""
    person = PersonInfo(
        width=size, height=size, fps=FPS, num_frames=BLOCK, test_start=BLOCK, segments=((0, BLOCK),), has_audio=False,
        camera=Intrinsics(focal=2.6 * size, cx=size / 2, cy=size / 2),
    )  # fmt: skip
    model = method(DEFAULT).synthetic(n, size, motion(BLOCK)).to(device or torch.device("cpu"))
    return Avatar(Path(), model, person, {"method": model.name, **model.stats(), "bytes": 0})


def make_trainer(n: int, size: int) -> tuple[Trainer, Batch]:
    """A trainer of such an avatar in the middle of its training, and a frame to train on. No perceptual loss."""
    person = SyntheticPerson(size)
    config = from_preset(DEFAULT, "standard", person=Path(), out=Path())
    config = replace(config, loss=replace(config.loss, lpips=0.0))
    model = method(DEFAULT).synthetic(n, size, person.motion)
    trainer = Trainer(cast(PersonDataset, person), config, model)
    trainer.step = trainer.steps // 2
    g = torch.Generator().manual_seed(1)
    background = torch.full((size, size, 3), 0.4)
    image = torch.rand(size, size, 3, generator=g)
    coverage = torch.zeros(size, size, 1)
    coverage[size // 8 : -size // 8, size // 4 : -size // 4] = 1
    box = (size // 4, size // 8, 3 * size // 4, 7 * size // 8)
    return trainer, Batch(0, image, torch.ones(size, size, 1), coverage, coverage, background, box, box)
