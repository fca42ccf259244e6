"""Somebody whose head nods as loud as they speak, who sways, looks about and blinks; made without pictures."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from avatar.motion import Motion
from avatar.motion.arkit import ARKIT
from avatar.motion.blinks import EYES, LIDS
from avatar.synth.acting import smooth_noise

FPS = 25.0
NOD = 0.12  # radians, of the loudest
BLINKS_PER_MINUTE = 20


def swaying(seconds: float = 60.0, seed: int = 0) -> tuple[Motion, np.ndarray]:
    """A track at 25 frames per second, and its sound [N]: phrases of two seconds with pauses of one."""
    rng = np.random.default_rng(seed)
    count = round(seconds * FPS)
    time = np.arange(round(seconds * 16000)) / 16000
    loud = np.clip(np.sin(np.pi * (time % 3) / 2), 0, None) * (time % 3 < 2) * (0.6 + 0.4 * np.sin(0.9 * time))
    sound = (0.3 * loud * np.sin(1500 * time) + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)
    wander = np.stack([smooth_noise(count, FPS, 1.2, rng) for _ in range(9)], 1).astype(np.float32)
    at = (np.arange(count) / FPS * 16000).astype(int)
    rotation = 0.05 * wander[:, :3]
    rotation[:, 0] += NOD * gaussian_filter1d(loud[at], 2) + 0.02
    blink = np.zeros(count)
    for start in rng.choice(count // 20 - 1, round(seconds / 60 * BLINKS_PER_MINUTE), replace=False) * 20 + 8:
        blink[start : start + 5] = [0.5, 0.9, 1, 0.7, 0.3]
    base = Motion.zeros(count, FPS)
    arkit, face = base.arkit.clone(), base.face.clone()
    arkit[:, EYES] = torch.from_numpy(0.05 + 0.8 * blink[:, None]).float()
    arkit[:, ARKIT.index("browInnerUp")] = torch.from_numpy(0.3 + 0.1 * wander[:, 8])
    face[:, LIDS] = torch.from_numpy(-0.8 * blink[:, None] + 0.03 * wander[:, 7:8]).float()
    face[:, 32] = torch.from_numpy(0.1 * wander[:, 8])
    moves = torch.from_numpy(wander)
    track = base.map(
        arkit=arkit, face=face, gaze=0.1 * moves[:, [6, 7]], head_rotation=torch.from_numpy(rotation).float(),
        head_translation=moves[:, 3:6] + torch.tensor([0.0, 2.0, 70.0]), torso_translation=0.5 * moves[:, 3:6],
    )  # fmt: skip
    return track, sound
