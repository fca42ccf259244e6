"""The examples of docs/python.md run as they stand, one after the other, with an avatar that is instant."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avatar
from avatar.infer import planner
from avatar.infer.session import Session
from avatar.io.audio import SAMPLE_RATE, write_wav
from tests.docs_text import ROOT
from tests.fake_avatar import FakeAvatar, LoudnessSpeech
from tests.talking import talking

PAGE = ROOT / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class Rounds:
    """True a few times, as the ``serving`` of a server's loop."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left >= 0


class SpeakingAvatar(FakeAvatar):
    """An instant avatar that speaks as the real one does."""

    speak = avatar.Avatar.speak


def imports() -> list[tuple[str, str]]:
    """Module and name of everything that the page imports from the package."""
    nodes = [node for block in BLOCKS for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    return [(node.module, alias.name) for node in nodes if node.module for alias in node.names]


def test_page_imports_public_names():
    named = {name for module, name in imports() if module == "avatar"}
    assert named and named <= set(avatar.__all__)


def test_names_that_the_text_calls_public_are():
    sentence = re.search(r"public names are in `avatar`.*?\.", PAGE.read_text(), re.DOTALL)
    if sentence is not None:
        assert set(re.findall(r"`([A-Za-z_]+)`", sentence[0])) - {"avatar"} <= set(avatar.__all__)


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    talking()[0][:100].save(tmp_path / "motion.safetensors")
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE, dtype=np.float32) / 30).astype(np.float32)
    write_wav(tmp_path / "hello.wav", [tone], SAMPLE_RATE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudnessSpeech())
    monkeypatch.setattr(avatar.Avatar, "load", lambda run, *_, **__: SpeakingAvatar(tmp_path))
    sent: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {
        "microphone": [tone[:6400], tone[6400:]], "samples": tone, "serving": Rounds(3),
        "send": lambda *frame: sent.append(frame),
    }  # fmt: skip
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)  # this repository's own page
    assert isinstance(names["session"], Session) and sent
