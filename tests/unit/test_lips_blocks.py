"""Words of a person whose audio is late or early: their times are those of the video."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avatar.io.audio import SAMPLE_RATE, write_wav
from avatar.motion import Motion
from avatar.motion.face_channels import open_lips
from avatar.paths import write_json
from pipelines import lips_blocks
from tests.person import person_info

FPS, FRAMES = 25.0, 300


def _person(folder: Path, delay: float) -> Path:
    """Somebody who says "ma" every 0.8 s, with lips that meet at its beginning; words are of the audio."""
    motion = Motion.zeros(FRAMES, FPS)
    since = (torch.arange(FRAMES) - 4) % 20
    gap = torch.minimum(since, 20 - since).clamp(max=8) / 8
    motion = motion.map(face=open_lips(motion.face, gap))
    (folder / "pose").mkdir(parents=True)
    (folder / "ingest").mkdir()
    motion.save(folder / "pose" / "motion.safetensors")
    write_wav(folder / "ingest" / "audio.wav", np.zeros(round(FRAMES / FPS * SAMPLE_RATE)))
    person_info(fps=FPS, num_frames=FRAMES, audio_delay_s=delay).write(folder / "person.json")
    said = [[0.16 + 0.8 * k + delay, 0.56 + 0.8 * k + delay, "ma"] for k in range(15)]
    write_json(folder / "words.json", {"unit": "seconds", "words": said})
    return folder


@pytest.mark.parametrize("delay", [0.2, -0.12])
def test_words_are_heard_when_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    monkeypatch.setattr(lips_blocks, "features_at", lambda *_: None)
    prior: Any = SimpleNamespace(encoder=None)

    def rows(name: str, delay: float) -> dict[str, Any]:
        folder = _person(tmp_path / name, delay)
        config = lips_blocks.Config(persons=(folder,), only=())
        (found,) = lips_blocks.measure(folder, prior, config, folder / "words.json")["voices"].values()
        return found["mean"]

    late, in_step = rows("late", delay), rows("in step", 0.0)
    assert in_step["closed_at_p_b_m"] == 1.0 and in_step["opening"] == pytest.approx(1, abs=1e-3)
    assert late == pytest.approx(in_step, abs=0.02)
