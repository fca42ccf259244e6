"""The built-in voice, with an engine that says its text in ones."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.io.hibari import Hibari
from avatar.io.text_to_speech import say


class Engine:
    """Stands for `hibari.Hibari`; counts how often it is loaded, which takes its time."""

    loaded: ClassVar[list[str]] = []
    broken = False

    def __init__(self, voice: str) -> None:
        time.sleep(0.05)
        if Engine.broken:
            raise RuntimeError("no network")
        self.loaded.append(voice)

    def stream(self, text: str, seed: int) -> Iterator[np.ndarray]:
        if max(map(len, text.split())) > 36:
            raise IndexError("list index out of range")
        yield from (np.ones(len(word), np.float32) for word in text.split() if word.isascii())

    @staticmethod
    def g2p(word: str) -> str:
        return "" if word == "世界" else word

    @staticmethod
    def ids(phonemes: str) -> list[int]:
        return [0, *(ord(c) for c in phonemes if c.isascii() or c == "π"), 0]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package hibari with that engine."""
    package, voices = types.ModuleType("hibari"), types.ModuleType("hibari.voices")
    package.Hibari, voices.VOICES = Engine, {"heart": {"language": "English"}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hibari", package)
    monkeypatch.setitem(sys.modules, "hibari.voices", voices)
    monkeypatch.setattr(Engine, "loaded", [])
    monkeypatch.setattr(Engine, "broken", False)


def test_a_voice_is_loaded_at_its_first_text_and_once_however_many_speak():
    voice = Hibari(None, "en")
    assert not Engine.loaded, "whether a voice is there is asked without loading it"
    said: list[int] = []
    speakers = [threading.Thread(target=lambda: said.extend(map(len, voice.speak("Hello you")))) for _ in range(4)]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    assert Engine.loaded == ["heart"] and sorted(said) == [3] * 4 + [5] * 4


@pytest.mark.parametrize(("text", "says"), [("9" * 60, "number in it may be too long"), ("你好", "It speaks 'en'")])
def test_what_the_voice_cannot_say_is_no_bug(tmp_path: Path, text: str, says: str):
    with pytest.raises(AvatarError, match=says):
        say(text, tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


def test_a_voice_that_cannot_be_had_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    voice = Hibari(None, "en")
    monkeypatch.setattr(Engine, "broken", True)
    with pytest.raises(AvatarError, match="no network"):
        list(voice.speak("Hello"))
    monkeypatch.setattr(Engine, "broken", False)
    assert list(map(len, voice.speak("Hello"))) == [5]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Hello こんにちは 世界 . Good 世界 bye", "こんにちは, 世界."),
        ("Meet Иван at नमस्ते", "Иван, नमस्ते."),
        ("π of a café, naïve", ""),
        ("Hello you", ""),
    ],
)
def test_words_that_are_left_out_are_named_once(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The rest of the text is said; in the engine here, words that are no ASCII yield nothing."""
    say(text, tmp_path / "a.wav")
    warned = " ".join(capsys.readouterr().err.split())
    assert warned.count("leaves out") == bool(named) and named in warned


def test_a_text_of_which_nothing_is_said_is_refused_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(AvatarError, match="can say nothing"):
        say("你好 世界", tmp_path / "a.wav")
    assert not capsys.readouterr().err
