"""A package beside this one adds an exporter and a text-to-speech engine by one file each, used on the command line."""

from __future__ import annotations

import functools
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avatar import registry
from avatar.cli.main import main
from avatar.export import sources
from avatar.export.base import ExportSource
from avatar.export.registry import EXPORTERS
from avatar.infer.controls import Controls
from avatar.infer.speaking import Speaking
from avatar.io.text_to_speech import ENGINES
from avatar.motion import Motion
from tests.fake_avatar import FPS, FakeAvatar, LoudnessSpeech
from tests.talking import talking

POINTS = (
    EntryPoint("jaw", "tests.unit.dummy_exporter:JawExporter", "avatar.exporters"),
    EntryPoint("beep", "tests.unit.dummy_tts:Beep", "avatar.tts"),
    EntryPoint("broken", "tests.unit.no_such_module:Nothing", "avatar.exporters"),
)


@functools.cache
def person() -> Motion:
    """Four seconds of somebody who talks."""
    return talking()[0][:100]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a fake avatar, on a machine with three plug-ins, none of them imported yet."""
    from avatar.infer import avatar, planner

    def entry_points(group, name=None):
        return [point for point in POINTS if point.group == group and name in (None, point.name)]

    for module in ("dummy_exporter", "dummy_tts"):
        monkeypatch.delitem(sys.modules, f"tests.unit.{module}", raising=False)
    for names in (EXPORTERS, ENGINES):
        monkeypatch.setattr(names, "_known", {})
    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(avatar.Avatar, "load", staticmethod(FakeAvatar))
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudnessSpeech())
    folder = tmp_path / "run"
    folder.mkdir()
    person().save(folder / "motion.safetensors")
    return folder


def test_an_exporter_and_an_engine_are_found_by_their_names(run: Path):
    out = run.parent / "jaw.txt"
    options = ["--text", "ab c", "--tts", "beep", "--voice", "tief", "--language", "de", "--digits", "2"]
    assert main(["export", str(run), "--format", "jaw", "--out", str(out), *options]) == 0
    lines = out.read_text().splitlines()
    assert len(lines) == round(0.4 * FPS) and all(len(line) == 4 for line in lines)
    jaw = np.array([float(line) for line in lines])
    assert jaw[1:4].min() > 0.4 > 0.05 > jaw[6]  # quiet between the words
    samples, rate = soundfile.read(out.with_suffix(".speech.wav"))
    assert rate == 8000 and len(samples) == 4 * 800


def test_a_text_is_rendered_by_another_engine(run: Path):
    assert main(["render", str(run), "--text", "abc", "--tts", "beep", "--out", str(run.parent / "o.mp4")]) == 0
    assert (run.parent / "o.mp4").stat().st_size > 0 and (run.parent / "o.speech.wav").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--format", "gltf"],
            "no export format 'gltf'. Known are arkit-json, baked, broken, bundle, dataset, ",
        ),
        (["--format", "broken"], "tests.unit.no_such_module"),
        ([], "--format is missing. Give one of arkit-json, baked"),
        (["--format", "jaw"], "--out is missing"),
        (["--format", "jaw", "--out", "a.csv", "--idle", "1"], "--out a.csv must end in .txt"),
        (["--format", "jaw", "--out", "a.txt", "--modes", "3"], "--modes"),
        (
            ["--format", "jaw", "--out", "a.txt", "--text", "a", "--tts", "sing"],
            "'sing'. Known are beep, hibari",
        ),
        (["--format", "jaw", "--out", "a.txt", "--text", "a", "--tts", "beep", "--voice", "x"], "no voice 'x'"),
        (["--format", "jaw", "--out", "a.txt", "--text", "...", "--tts", "beep"], "nothing to say"),
        (["--format", "live-link", "--out", "a.csv", "--idle", "1", "--fps", "500"], "--fps 500 is out of range"),
        (["--format", "dataset", "--out", "d", "--audio", "a.wav"], "--audio"),
    ],
)
def test_mistakes_are_named(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str):
    assert main(["export", str(run), *options]) == 2
    shown = capsys.readouterr()
    assert words in " ".join((shown.err + shown.out).split()) and "Traceback" not in shown.err


class Everything:
    """An exporter that needs an avatar, its motion and its person."""

    suffixes, default = (), "everything"

    def __init__(self) -> None:
        self.sources: list[ExportSource] = []

    def needs(self) -> set:
        return {"avatar", "motion", "person"}

    def write(self, source: ExportSource, path: Path) -> None:
        self.sources.append(source)
        path.write_text("everything")


def test_an_exporter_gets_all_that_it_needs(run: Path, monkeypatch: pytest.MonkeyPatch):
    filmed = object()
    monkeypatch.setattr(sources, "_person", lambda folder: filmed)
    exporter = Everything()
    sources.export(exporter, run, None, Speaking(), Controls(idle=1.0), "cpu")
    (source,) = exporter.sources
    assert source.person is filmed and source.avatar is not None and len(source.motion) == FPS


def test_the_help_shows_the_options_of_the_format(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "--help"]) == 0
    assert "--digits" not in capsys.readouterr().out
    assert main(["export", "--format", "jaw", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--digits" in out and "Digits after the point" in out and "--emotion" in out and "--modes" not in out


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(800, np.int16), "gave int16 [800]"),
        (np.zeros((800, 2), np.float32), "gave float32 [800, 2]"),
        (np.full(800, np.nan, np.float32), "not numbers"),
        ([0.0] * 800, "gave a list"),
    ],
)
def test_an_engine_that_gives_no_audio_is_named(run: Path, monkeypatch, capsys, samples, words: str):
    monkeypatch.setattr(ENGINES.get("beep"), "speak", lambda *_: iter([samples]))
    options = ["--format", "jaw", "--out", str(run.parent / "a.txt"), "--text", "a", "--tts", "beep"]
    assert main(["export", str(run), *options]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "engine 'beep'" in shown and words in shown


def test_what_a_plug_in_raises_is_said_of_its_package(run: Path, monkeypatch, capsys):
    options = ["export", str(run), "--format", "jaw", "--idle", "1", "--out", str(run.parent / "a.txt")]
    kind = EXPORTERS.get("jaw")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[kind.__module__], "INDEX", {})
        assert main(options) == 1
    assert "a bug in the package tests, not in avatar" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(kind, "write", lambda *_: None)
    assert main(options) == 2
    assert "has written no" in " ".join(capsys.readouterr().err.split())
