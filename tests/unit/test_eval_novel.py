"""Novel audio as files have it: headers that promise more, a track that begins late, a person without audio."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.eval import settings
from avatar.eval.measure import Measurement, Tools
from avatar.eval.options import EvalOptions
from avatar.geometry.cameras import Camera
from avatar.infer.sources import AudioFile
from avatar.io.audio import SAMPLE_RATE, load_audio, probe_audio
from tests.fake_avatar import FPS, FakeAvatar, LoudnessSpeech
from tests.person import make_person
from tests.sounds import RATE, Sound, voice, write_tracks

LATE, SECONDS = 1.4, 2.0


class NovelAvatar(FakeAvatar):
    """As large as the person."""

    camera = view_camera = Camera.source(100.0, 48, 48, 96, 96)


class Ears:
    """Judges nothing, tracks nothing, and keeps the audio that it is asked about."""

    def __init__(self) -> None:
        self.heard: list[np.ndarray] = []

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.random.default_rng(0).random((478, 2)).astype(np.float32) * 96, np.zeros(52, np.float32)

    def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> SimpleNamespace:
        self.heard.append(audio)
        return SimpleNamespace(confidence=1.0, audio_delay_s=0.0, distance=1.0)


def late_file(folder: Path, seconds: float = SECONDS) -> Path:
    """A file whose track begins at second `LATE`, and whose header counts that in."""
    sound = Sound(voice()[: round(seconds * RATE)])
    return write_tracks(folder / "late.mkv", [sound], stamp=lambda t: t + LATE)


def spoken(person: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Measurement, dict[str, Any], Ears]:
    """What `avatar eval --audio` measures, with stubs for all that is slow."""
    monkeypatch.setattr(settings, "load_speech", lambda *_: LoudnessSpeech())
    monkeypatch.setattr(settings, "record", lambda *_: nullcontext())
    avatar: Any = NovelAvatar(person)
    ears = Ears()
    tools = Tools(tracker=ears, judge=ears)
    data = PersonDataset(person)
    return *settings.speak(person, EvalOptions(audio=audio), avatar, data, [(0.0, 1.0, "m")], tools), ears


def test_a_file_that_begins_late_and_promises_more_is_measured_as_it_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = late_file(tmp_path)
    info = probe_audio(audio)
    assert info.start == pytest.approx(LATE) and AudioFile(audio).frames(FPS) > SECONDS * FPS, "the test itself"
    measured, speed, ears = spoken(make_person(tmp_path / "person"), audio, monkeypatch)
    assert len(measured.series["audio"]["opening"]) == round(SECONDS * FPS)
    assert speed["with_speech"]
    samples = load_audio(audio)
    for heard in ears.heard[1:]:  # after that of the real video
        np.testing.assert_array_equal(heard, samples[: len(heard)])
    assert np.abs(samples[:SAMPLE_RATE]).max() > 0.1, "the test itself"


def test_words_count_from_the_first_sample(tmp_path: Path) -> None:
    audio, words = late_file(tmp_path), [(0.0, 1.0, "m")]
    closures = [settings.clip(audio, start, 50, FPS, words).closures for start in (None, 0.0, 0.5)]
    assert [list(c) for c in closures if c is not None] == [[25.0], [25.0], [12.5]]


def test_a_person_without_audio_speaks_novel_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = make_person(tmp_path / "person")
    (person / "ingest/audio.wav").unlink()
    measured, speed, ears = spoken(person, late_file(tmp_path), monkeypatch)
    assert len(measured.series["audio"]["opening"]) == round(SECONDS * FPS) and len(ears.heard) == 2
    assert not speed["with_speech"] and speed["frames"] > 0


def test_what_is_too_short_when_it_is_decoded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AvatarError, match=r"0\.0. s long.*too short"):
        spoken(make_person(tmp_path / "person"), late_file(tmp_path, 0.06), monkeypatch)
