"""A small avatar whose face does something, and small ears for it, for tests of what plays it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avatar.audio.encoders import whisper
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio2motion.shared import SharedPrior, SharedSpeech
from avatar.data.consent import SYNTHETIC
from avatar.motion import Motion
from avatar.motion.mouth import ARTICULATION, CHANNELS
from tests.person import make_person, small_config, train


def small_run(folder: Path) -> Path:
    """Make a RUN folder in a folder."""
    trainer = train(small_config(make_person(folder / "person"), folder / "run"))
    with torch.no_grad():  # a few steps hardly deform anything: so that there is something to play
        torch.nn.init.normal_(trainer.model.field.head.weight, std=0.05)
    trainer.save_model(folder / "run" / "model.safetensors")
    SYNTHETIC.write(folder / "run")
    return folder / "run"


def small_ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Whisper's front be a small one of random numbers, stored as the real one is."""
    width, rng = 64, torch.Generator().manual_seed(3)
    stem = whisper.WhisperStem(width, 2, 80)
    stored: dict[str, Tensor] = {}
    for name, tensor in stem.state_dict().items():
        values = tensor + 0.05 * torch.randn(tensor.shape, generator=rng)
        if values.ndim == 1:
            stored[name] = values.half()
            continue
        scale = values.flatten(1).abs().amax(1) / 127
        stored[name] = (values / scale.view(-1, *[1] * (values.ndim - 1))).round().to(torch.int8)
        stored[f"{name}:scale"] = scale
    loaded = _loaded(monkeypatch, stored)
    monkeypatch.setattr(whisper, "_stem", lambda: loaded)


def _loaded(monkeypatch: pytest.MonkeyPatch, stored: dict[str, Tensor]) -> whisper.WhisperStem:
    monkeypatch.setattr(whisper, "stored_stem", lambda: stored)
    return whisper.WhisperStem.load()


def small_speech(motion: Motion, fps: float) -> SharedSpeech:
    """A streaming network of random numbers with the mouth of a motion; needs :func:`small_ears`."""
    rng = torch.Generator().manual_seed(4)
    encoder = whisper.WhisperEncoder(hop=0.08, ahead=0.04)

    def some(*shape: int, size: float = 1.0) -> Tensor:
        return size * torch.randn(*shape, generator=rng)

    directions, behind, ahead = 12, 5, 2
    inputs = (behind + 1 + ahead) * directions + 1
    prior = SharedPrior(
        encoder=SpeechEncoder([encoder]), input_mean=some(encoder.dim, size=0.1), input_std=1 + some(encoder.dim).abs(),
        basis=some(encoder.dim, directions, size=0.1), weights=some(inputs, len(ARTICULATION), size=0.3),
        behind=behind, ahead=ahead, gain=1.2, closure_weights=some(inputs, size=0.3),
    )  # fmt: skip
    speech = prior.person(motion, fps)
    return replace(speech, correction=some(inputs, CHANNELS, size=0.01))


def babble(seconds: float) -> np.ndarray:
    """Samples of something like speech, with pauses of silence and of a quiet room."""
    rng = np.random.default_rng(5)
    time = np.arange(round(16000 * seconds)) / 16000
    voice = np.sin(2 * np.pi * (140 + 30 * np.sin(2.3 * time)) * time) + 0.5 * np.sin(2 * np.pi * 900 * time)
    loud = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, 1) * (np.sin(2 * np.pi * time / 1.9 + 0.4) > -0.3)
    room = 2e-4 * rng.standard_normal(len(time)) * (time > 0.4)
    return (0.3 * voice * loud + room).astype(np.float32)
