"""An avatar and a speech network that are instant: the jaw is brightness, loudness is the jaw."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from avatar.motion.arkit import INDEX

SIZE, FPS = 48, 25.0


class FakeAvatar:
    """Shows the jaw as brightness; its run folder is real."""

    fps, head_pivot = FPS, torch.tensor([0.0, 0.0, 50.0])
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
    """Opens the jaw with the loudness of each frame's audio."""

    fps, look_ahead = FPS, 1 / FPS

    def open(self) -> LoudnessStream:
        return LoudnessStream(self)

    def motion(self, level: np.ndarray) -> Motion:
        motion = Motion.zeros(len(level), FPS)
        motion.arkit[:, INDEX["jawOpen"]] = torch.tensor(level, dtype=torch.float32)
        motion.arkit[:, INDEX["eyeBlinkLeft"]] = 9  # must never come through
        motion.head_rotation[:] = 9
        return motion


class LoudnessStream:
    """One utterance of a `LoudnessSpeech`."""

    def __init__(self, speech: LoudnessSpeech) -> None:
        self._speech, self._samples, self._done = speech, np.zeros(0, np.float32), 0

    def push(self, samples: np.ndarray) -> Motion:
        self._samples = np.concatenate([self._samples, samples])
        hop = 16000 / FPS
        frames = range(self._done, int(len(self._samples) / hop))
        self._done += len(frames)
        level = [np.abs(self._samples[round(i * hop) : round((i + 1) * hop)]).max() for i in frames]
        return self._speech.motion(np.array(level))

    def finish(self) -> Motion:
        return Motion.zeros(0, FPS)
