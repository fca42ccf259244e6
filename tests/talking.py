"""The motion of somebody who speaks, blinks and nods, with everything about it known; made without pictures."""

from __future__ import annotations

import functools

import numpy as np
import torch

from avatar.io.checkpoint import load_tensors
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.arkit_map import FaceMap
from avatar.sync.judge import WEIGHTS
from avatar.synth import acting as performance
from avatar.synth import speech
from avatar.synth.shapes import displacement_fields

FPS = 25.0
TEXT = "Mama may bake a big pie. Papa moves the blue boat. We saw you open a map by the bay. Bob had a lot of jam."


@functools.cache
def _said(text: str) -> speech.Speech:
    """The text in the voice that needs no package: half of what a track costs."""
    return speech.speak(text, "buzz")


def talking(seed: int = 0, text: str = TEXT, scale: float = 1.0) -> tuple[Motion, np.ndarray]:
    """A track, and [T] whether the lips must touch (p, b or m).

    Args:
        seed: Of head motion, blinks and gaze.
        text: What is said, in the voice that needs no package.
        scale: Of the mouth.
    """
    said = _said(text)
    count = int(said.seconds * FPS)
    times = (np.arange(count) + 0.5) / FPS
    rng = np.random.default_rng(seed)
    arkit = scale * performance.lips(said, times)
    closed = np.zeros(count, bool)
    for phone in said.phones:
        if phone.symbol in speech.BILABIAL:
            closed |= (times >= phone.start) & (times <= min(phone.end, phone.start + 0.06))
    blink, _ = performance.blinks(count, FPS, rng)
    arkit[:, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 0.05 + 0.85 * blink[:, None]
    wander = np.stack([performance.smooth_noise(count, FPS, 1.5, rng) for _ in range(8)], 1)
    arkit[:, INDEX["browInnerUp"]] = 0.3 + 0.3 * wander[:, 0]
    arkit = torch.from_numpy(arkit.astype(np.float32)).clamp(0, 1)
    moves = torch.from_numpy(wander.astype(np.float32))
    motion = Motion.zeros(count, FPS).map(
        arkit=arkit,
        face=FaceMap.generic()(arkit),
        head_rotation=0.08 * moves[:, 1:4] + torch.tensor([0.05, -0.04, 0.01]),
        head_translation=moves[:, 4:7] + torch.tensor([0.0, 2.0, 70.0]),
        torso_translation=0.5 * moves[:, 4:7],
        gaze=0.05 * moves[:, [7, 0]],
    )
    return motion, closed


def seen_speaking(text: str, fps: float = 25.0, late: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks [T, 478, 2] of a face that says a text in the picture, tracked with noise, and its voice [S], 16 kHz.

    Args:
        text: What is said, in the voice of hibari-tts.
        fps: Frames per second.
        late: Frames by which the picture comes after the voice.
        seed: Of voice and noise.
    """
    import soxr

    said = speech.speak(text, "neural", seed)
    frames = int(said.seconds * fps)
    shape = load_tensors(WEIGHTS)[0]["shape"].numpy()
    face = np.repeat(shape[None, :, :2], frames, 0)
    coefficients = performance.lips(said, (np.arange(frames) + 0.5 - late) / fps)
    face[:, :468] += np.einsum("tk,kvd->tvd", coefficients, displacement_fields(shape[:468])[..., :2])
    noise = np.random.default_rng(seed).normal(0, 0.3, face.shape)
    return (face * 10 + 200 + noise).astype(np.float32), soxr.resample(said.samples, speech.RATE, 16000)
