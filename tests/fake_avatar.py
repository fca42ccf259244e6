"""An avatar and a speech network that are instant: the jaw is brightness, loudness is the jaw."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from avatar.geometry.cameras import Camera
from avatar.infer.view_cone import ViewCone
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from tests.person import person_info

SIZE, FPS = 48, 25.0
FRAME = round(16000 / FPS)  # samples


class FakeAvatar:
    """Shows the jaw as brightness; its run folder is real."""

    fps, pivot = FPS, torch.tensor([0.0, 0.0, 50.0])
    camera = view_camera = Camera.source(100.0, SIZE / 2, SIZE / 2, SIZE, SIZE)

    info: ClassVar = {"gaussians": 12}
    device = torch.device("cpu")
    frames_at_once = 1
    cone = ViewCone.unknown()

    def __init__(self, run: Path, *_: object, **__: object) -> None:
        self.run = run
        self.views: list[Camera] = []
        self.person = person_info(fps=FPS, segments=((0, 40), (40, 100)))

    def coverage(self, motion: Motion, index: int) -> float:
        return 1.0

    def view_background(self, camera: Camera) -> None:
        return None

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        self.views.append(camera)
        value = round(float(motion.arkit[index, INDEX["jawOpen"]]) * 200)
        return torch.full((camera.height, camera.width, 3), value, dtype=torch.uint8)


class LoudnessSpeech:
    """Opens the jaw with the loudness of each frame's audio, as soon as it is there; counts what it hears."""

    fps, look_ahead = FPS, 1 / FPS

    def __init__(self) -> None:
        self.heard = self.opened = 0

    def open(self) -> LoudnessStream:
        self.opened += 1
        return LoudnessStream(self)

    def motion(self, level: np.ndarray) -> Motion:
        """Frames of a jaw that is open by ``level`` [n], and things that must never come through."""
        motion = Motion.zeros(len(level), FPS)
        motion.arkit[:, INDEX["jawOpen"]] = torch.from_numpy(level).float()
        motion.arkit[:, INDEX["eyeBlinkLeft"]] = 9
        motion.head_rotation[:] = 9
        return motion


class LoudnessStream:
    """One utterance of a `LoudnessSpeech`."""

    def __init__(self, speech: LoudnessSpeech) -> None:
        self._speech, self._held = speech, np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> Motion:
        self._speech.heard += len(samples)
        self._held = np.concatenate([self._held, samples])
        count = len(self._held) // FRAME
        level = np.abs(self._held[: count * FRAME].reshape(count, FRAME)).max(1, initial=0)
        self._held = self._held[count * FRAME :]
        return self._speech.motion(level)

    def finish(self) -> Motion:
        return self._speech.motion(np.abs(self._held).max(initial=0, keepdims=True)[: len(self._held)])
