"""`pipelines.audio_level`: what it compares, and that a soft file is not judged by its first frames alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.io.audio import write_wav
from avatar.motion import Motion
from pipelines import audio_level
from tests.person import person_info
from tests.unit.test_personal import FPS, opening_of, track_of, voice_and_mouth


class Loudness:
    """Opens the lips with the loudness of each frame above a thousandth, as far as the tracked ones open."""

    fps, look_ahead, voice_db = FPS, 1 / FPS, None

    def open(self) -> Any:
        held = [np.zeros(0, np.float32)]

        def push(samples: np.ndarray) -> Motion:
            held.append(samples)
            return Motion.zeros(0, FPS)

        def finish() -> Motion:
            samples = np.concatenate(held)
            frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
            return track_of(np.maximum(np.abs(frames).max(1) - 1e-3, 0)).map(arkit=Motion.zeros(len(frames), FPS).arkit)

        return SimpleNamespace(push=push, finish=finish)


def test_soft_audio_is_measured_with_and_without_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voice, opening = voice_and_mouth(frames=500)
    write_wav(tmp_path / "audio.wav", voice)
    info = person_info(num_frames=500, test_start=300, has_audio=True)
    data = SimpleNamespace(
        info=info, fps=FPS, test_start=300, num_frames=500, audio_path=tmp_path / "audio.wav", motion=track_of(opening)
    )
    assert opening_of(data.motion).std() > 0.1
    monkeypatch.setattr(audio_level, "open_person", lambda run: data)
    monkeypatch.setattr(audio_level, "load_speech", lambda *_: Loudness())
    found = audio_level.measure(tmp_path, "auto")
    assert set(found) == set(audio_level.GAINS)
    plain = found[0.0]["as it is"]
    assert plain is not None and plain > 0.5
    softest = found[-40.0]["as it is"]
    assert softest is None or softest < plain, "a voice below the threshold does not open the lips"
    data.info = person_info(num_frames=500, has_audio=False)
    with pytest.raises(AvatarError, match="without audio"):
        audio_level.measure(tmp_path, "auto")
