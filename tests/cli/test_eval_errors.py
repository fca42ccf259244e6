"""`avatar eval`: every mistake is one sentence and exit code 2, before anything slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avatar.audio2motion.load import PERSONAL, SHARED, networks_of
from avatar.cli.main import main
from avatar.data.run import TRAINING, open_person
from avatar.eval import per_frame, settings
from avatar.paths import write_json
from tests.fake_avatar import LoudnessSpeech
from tests.media import write_sound
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("person"))


@pytest.fixture(scope="module")
def run(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(small_config(person, folder, steps=1))
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["eval", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return shown.err.replace("\n", " ")


def test_mistakes_are_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_sound(tmp_path / "said.wav", 1.0)
    assert "too few" in refused(capsys, run, "--frames", 2)
    assert "no run folder" in refused(capsys, tmp_path / "nowhere")
    assert "does not exist" in refused(capsys, run, "--audio", tmp_path / "nothing.wav")
    assert "exclude each other" in refused(capsys, run, "--audio", sound, "--drive", "tracked")
    assert "does not exist" in refused(capsys, run, "--words", tmp_path / "words.json")
    (tmp_path / "words.json").write_text("[]")
    assert "not a file of words" in refused(capsys, run, "--words", tmp_path / "words.json")
    assert "does not exist" in refused(capsys, run, "--against", tmp_path / "other.csv")
    assert "no numbers per frame" in refused(capsys, run, "--against", tmp_path / "words.json")
    per_frame.write(tmp_path / "other.csv", {"real": {"opening": np.ones(5)}}, 7, 25.0)
    assert "of the frames 7 to 11" in refused(capsys, run, "--against", tmp_path / "other.csv")
    assert "one of the inputs" in refused(
        capsys, run, "--against", tmp_path / "other.csv", "--per-frame", tmp_path / "other.csv"
    )
    assert "for held-out frames" in refused(capsys, run, "--audio", sound, "--per-frame", tmp_path / "new.csv")
    assert "Cannot write" in refused(capsys, run, "--per-frame", tmp_path / "words.json" / "new.csv")
    assert "--views only" in refused(capsys, run, "--truth", tmp_path)
    assert "truth.json" in refused(capsys, run, "--views", "--truth", tmp_path)
    write_json(run / TRAINING, {"hold_out_yaw": {"share": 0.1, "turned": [99], "frontal": [1], "yaw": [0, 0, 0]}})
    assert "turned is 99" in refused(capsys, run, "--views")
    (run / TRAINING).unlink()
    # Below a file no folder can be made, whoever runs the tests.
    assert "Cannot write" in refused(capsys, run, "--json", tmp_path / "words.json" / "numbers.json")
    assert "Cannot write" in refused(capsys, run, "--report", sound)
    assert not list(run.glob("metrics*")) and not list(run.glob("report*"))


def test_what_render_shows_is_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a personal network speaks by the shared one, in `avatar render` and here."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(settings, "load_speech", lambda *which: asked.append(which) or LoudnessSpeech())
    data, notes = open_person(run), []
    write_sound(data.audio_path, data.num_frames / data.fps)
    driving = settings.choose_driving(run, "both", data, data.test_start, data.num_frames, notes)
    assert set(driving) == {"audio", "shuffled", "tracked"} and asked == [(run, data.fps)] and not notes
    assert networks_of(run) == "shared"
    (run / PERSONAL).touch()
    assert networks_of(run) == "personal"
    (run / SHARED).touch()
    assert networks_of(run) == "personal+shared"


def test_another_person_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_person(tmp_path / "other", size=64)
    assert "64x64" in refused(capsys, run, "--person", other)
