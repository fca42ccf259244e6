"""An avatar and a speech network that are instant: the jaw is brightness, loudness is the jaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from avatar.motion.arkit import INDEX

SIZE, FPS = 48, 25.0


class FakeAvatar:
    """Shows the jaw as brightness; its run folder is real."""

    fps, pivot = FPS, torch.tensor([0.0, 0.0, 50.0])
    camera = Camera.source(100.0, SIZE / 2, SIZE / 2, SIZE, SIZE)

    info: ClassVar = {"gaussians": 12}
    device = torch.device("cpu")
    frames_at_once = 1

    def __init__(self, run: Path, *_: object, **__: object) -> None:
        self.run, self.person, self.views = run, {"segments": [[0, 40], [40, 100]]}, []

    def coverage(self, motion: Motion, index: int) -> float:
        return 1.0

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        self.views.append(camera)
        value = round(float(motion.arkit[index, INDEX["jawOpen"]]) * 200)
        return torch.full((camera.height, camera.width, 3), value, dtype=torch.uint8)


class LoudnessSpeech:
    """Opens the jaw with the loudness of each frame's sound; in blocks of ten frames."""

    fps = FPS

    def stream(self, chunks: Any) -> Any:
        samples = np.concatenate(list(chunks))
        hop = 16000 / FPS
        level = [np.abs(samples[round(i * hop) : round((i + 1) * hop)]).max() for i in range(int(len(samples) / hop))]
        motion = Motion.zeros(len(level), FPS)
        motion.arkit[:, INDEX["jawOpen"]] = torch.tensor(np.array(level), dtype=torch.float32)
        motion.arkit[:, INDEX["eyeBlinkLeft"]] = 9  # must never come through
        motion.head_rotation[:] = 9
        for i in range(0, len(motion), 10):
            yield motion[i : i + 10]
