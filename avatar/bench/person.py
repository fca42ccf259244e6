"""A synthetic avatar of any size, with the trainer and the renderer that real ones go through; needs no files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from avatar.data import PersonDataset
from avatar.data.person import PersonInfo
from avatar.data.results import Intrinsics
from avatar.fields.gaussians import Gaussians, Seeds
from avatar.fields.skinning import HeadRig, LandmarkBasis
from avatar.geometry.cameras import Camera
from avatar.infer.avatar import Avatar
from avatar.methods.condition import Conditioner
from avatar.methods.gaussian.model import GaussianAvatar, GaussianConfig, make_encoding
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS
from avatar.train.batches import Batch
from avatar.train.config import LossConfig, TrainConfig
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


def make_model(n: int, size: int, config: GaussianConfig) -> GaussianAvatar:
    """An avatar of ``n`` Gaussians on a head-shaped shell, its network still untrained."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    means = direction * (0.8 + 0.2 * torch.rand(n, 1, generator=g)) * torch.tensor([8.0, 10.0, 8.0])
    spacing = (4 * torch.pi * 80 / n) ** 0.5
    at_rest = torch.tensor([0.0, 0.0, DISTANCE])
    gaussians = Gaussians(
        Seeds(
            means=means + at_rest,
            scales=0.65 * spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g)),
            colors=torch.rand(n, 3, generator=g),
            opacities=0.1 + 0.85 * torch.rand(n, generator=g),
            rig=torch.full((n,), 0.98),
            bind_index=torch.randint(NUM_LANDMARKS, (n, 3), generator=g),
            bind_weight=torch.rand(n, 3, generator=g) / 3,
            region=torch.zeros(n, dtype=torch.uint8),
        )
    )
    basis = LandmarkBasis(0.01 * torch.randn(len(CHANNELS), NUM_LANDMARKS * 3, generator=g), torch.zeros(2))
    clothes = torch.tensor([[-20.0, -10.0], [20.0, 10.0]])
    rig = HeadRig(torch.zeros(3), at_rest, torch.tensor([0.0, 20.0, DISTANCE + 3]), clothes)
    bounds = torch.stack([means.amin(0), means.amax(0)]) + at_rest
    torch.manual_seed(0)
    encoding = make_encoding(config, bounds)
    plate = torch.full((size, size, 3), 0.4)
    return GaussianAvatar(config, gaussians, rig, basis, Conditioner.fit(motion(BLOCK)), encoding, plate)


def make_avatar(n: int, size: int, device: torch.device | None = None) -> Avatar:
    """An avatar to render, as if loaded from a run; on the CPU, if not told otherwise."""
    person = PersonInfo(
        width=size, height=size, fps=FPS, num_frames=BLOCK, test_start=BLOCK, segments=((0, BLOCK),), has_audio=False,
        camera=Intrinsics(focal=2.6 * size, cx=size / 2, cy=size / 2),
    )  # fmt: skip
    model = make_model(n, size, GaussianConfig()).to(device or torch.device("cpu"))
    return Avatar(Path(), model, person, {"method": "gaussian", "gaussians": n, "bytes": 0})


def make_trainer(n: int, size: int, config: GaussianConfig | None = None) -> tuple[Trainer, Batch]:
    """A trainer of such an avatar in the middle of its training, and a frame to train on. No perceptual loss."""
    person = SyntheticPerson(size)
    options = TrainConfig(
        person=Path(), out=Path(), model=config or GaussianConfig(), loss=LossConfig(lpips=0.0), resume=False
    )
    trainer = Trainer(cast(PersonDataset, person), options, make_model(n, size, options.model))
    trainer.step = trainer.steps // 2
    g = torch.Generator().manual_seed(1)
    background = torch.full((size, size, 3), 0.4)
    image = torch.rand(size, size, 3, generator=g)
    coverage = torch.zeros(size, size, 1)
    coverage[size // 8 : -size // 8, size // 4 : -size // 4] = 1
    box = (size // 4, size // 8, 3 * size // 4, 7 * size // 8)
    return trainer, Batch(0, image, torch.ones(size, size, 1), coverage, background, box)
