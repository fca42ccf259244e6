"""Stage `refine` of a photo: camera, face shape and head pose as of a video, and lips that are brought together.

A photo shows one expression. Where its lips are apart, the neutral face is what is left when people's usual way of
opening the mouth is taken back, so that the avatar can shut it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avatar.data.person import MOTION
from avatar.data.results import RefineResult
from avatar.io.arrays import save_array
from avatar.motion.face_channels import CHANNELS
from avatar.preprocess import refine
from avatar.preprocess.stage import StageContext

NAME = "refine"
INPUTS = ("ingest", "track")
VERSION = 1
TOUCHING = 0.05  # centimetres between the inner lips' landmarks of a closed mouth
APART = 0.12  # centimetres from which lips are apart


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the landmarks: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> RefineResult:
    """Write what :func:`avatar.preprocess.refine.run` writes, the neutral face with closed lips."""
    import torch

    from avatar.motion.face_channels import open_lips
    from avatar.motion.motion import Motion
    from avatar.motion.population import landmark_basis

    result = refine.run(ctx, out)
    shape = np.load(out / "shape.npy")
    gap = lip_gap(shape)
    if gap > APART:
        opened = open_lips(torch.zeros(len(CHANNELS)), torch.tensor(gap - TOUCHING))
        moved = (opened @ landmark_basis()).reshape(-1, 3).numpy()
        save_array(out / "shape.npy", (shape - moved).astype(np.float32))
        motion = Motion.load(out / MOTION)
        motion.map(face=motion.face + opened).save(out / MOTION)
    return replace(result, jitter_before_deg=0.0, jitter_after_deg=0.0)


def lip_gap(shape: np.ndarray) -> float:
    """Gap between the inner lips of a face [478, 3], mean of three columns, centimetres; 0 where they overlap."""
    return max(0.0, float((shape[[14, 87, 317], 1] - shape[[13, 82, 312], 1]).mean()))
