"""A speech encoder in one file: found by its entry point, chosen on the command line, named by what was trained."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from avatar import registry
from avatar.audio.encoders.base import encode
from avatar.audio.encoders.registry import ENCODERS, build_encoder, speech_encoder
from avatar.audio2motion import personal_training
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.load import PERSONAL, load_personal
from avatar.cli.main import main
from avatar.errors import AvatarError
from tests.person import make_person
from tests.unit.test_prior import some_prior, voice


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings the dummy encoder."""
    point = EntryPoint("dummy", "tests.unit.dummy_encoder:DummyEncoder", "avatar.encoders")

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point] if group == point.group and name in (None, point.name) else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(ENCODERS, "_known", dict(ENCODERS._known))


def test_it_is_made_by_its_name_and_again_from_a_checkpoint(installed: None) -> None:
    both = speech_encoder("dummy+mel")
    assert both.name == "dummy+mel" and both.dim == 82
    again = build_encoder({"parts": [{"name": "dummy", "gain": 3.0}]})
    assert again.config == {"parts": [{"name": "dummy", "gain": 3.0}]}
    with pytest.raises(AvatarError, match="gain"):
        build_encoder({"parts": [{"name": "dummy", "gain": 1000.0}]})


def test_its_rows_do_not_depend_on_the_chunks(installed: None) -> None:
    (dummy,) = speech_encoder("dummy").parts
    samples, stream = voice(1.23), dummy.open()
    pieces = [stream.push(piece) for piece in np.array_split(samples, 17)]
    assert np.array_equal(np.concatenate([*pieces, stream.finish()]), encode(dummy, samples))


def test_avatar_train_uses_it_and_the_run_names_it(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = functools.partial(personal_training.train_personal, steps=2, progress=lambda done, total: None)
    monkeypatch.setattr(personal_training, "train_personal", quick)
    some_prior().save(tmp_path / "prior.safetensors")
    person, run = make_person(tmp_path / "person", frames=90, size=64), tmp_path / "run"
    command = ["train", str(person), "--out", str(run), "--prior", str(tmp_path / "prior.safetensors")]
    options = ["--quality", "draft", "--schedule.steps", "2", "--model.initial-gaussians", "300", "--device", "cpu"]

    assert main([*command, *options, "--speech-encoder", "nobody"]) == 2
    assert "no speech encoder 'nobody'" in (shown := " ".join(capsys.readouterr().err.split()))
    assert "dummy, mel, moonshine, whisper" in shown and not run.exists()

    monkeypatch.setattr(personal_training, "share_of", lambda correlation: 0.5)  # lips of noise follow nothing
    assert main([*command, *options, "--speech-encoder", "dummy"]) == 0
    speech = load_personal(run)
    assert speech.encoder.name == "dummy" and len(motion_of(speech, voice(2.0))) == 50
    monkeypatch.setattr(ENCODERS, "_known", {})  # where the package is not installed
    monkeypatch.setattr(registry, "entry_points", lambda group, name=None: [])
    with pytest.raises(AvatarError, match=rf"{PERSONAL}: encoder: there is no speech encoder 'dummy'"):
        load_personal(run)
