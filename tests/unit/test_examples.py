"""Every program in examples/ runs, with a tiny avatar that was trained on drawn images; so do README's lines."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import re
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import avatar
from avatar.data.consent import consent_hash
from avatar.io import text_to_speech
from avatar.io.audio import SAMPLE_RATE, write_wav
from avatar.io.video import read_info
from avatar.methods import registry as methods
from avatar.motion import arkit_files
from avatar.provenance.credentials import read
from avatar.train import run as training
from pipelines import readme_film
from tests.docs_text import ROOT
from tests.fake_avatar import LoudnessSpeech
from tests.web import small_run

FOLDER = ROOT / "examples"
FILES = sorted(FOLDER.glob("*.py"))
SECONDS = 0.4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an avatar and something to say."""
    place = tmp_path_factory.mktemp("examples")
    small_run(place)
    tone = 0.3 * np.sin(np.arange(round(SECONDS * SAMPLE_RATE), dtype=np.float32) / 5)
    write_wav(place / "speech.wav", tone)
    return place


@pytest.fixture(autouse=True)
def in_place(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that speak are left out, windows are none, and what is written goes into a folder of its own."""
    monkeypatch.setattr("avatar.infer.planner.load_speech", lambda *_, **__: LoudnessSpeech())
    monkeypatch.setattr("avatar.infer.planner._networks", type(avatar.infer.planner._networks)())
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Images of a window."""
    images: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: images.append(image.copy()))
    return images


def example(name: str) -> types.ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frames(path: Path) -> int:
    info = read_info(path)
    return round(info.duration * info.fps)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_program_is_short_and_says_how_it_is_run(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"python examples/{path.name} " in (ast.get_docstring(ast.parse(text)) or "")
    assert f"test_{path.stem}" in globals(), "an example needs a test"


def test_speak(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    example("speak").main(place / "run", place / "speech.wav", Path("a.mp4"), camera="5,0")
    assert frames(tmp_path / "a.mp4") == SECONDS * 25 and "gaussian" in capsys.readouterr().out
    with pytest.raises(avatar.AvatarError, match=r"must end in \.mp4|\.mp4"):
        example("speak").main(place / "run", place / "speech.wav", Path("a.txt"))


def test_controls(place: Path, tmp_path: Path):
    program = example("controls")
    program.main(place / "run", place / "speech.wav", Path("ways"))
    lengths = {path.stem: frames(path) for path in (tmp_path / "ways").iterdir()}
    assert lengths == {name: 10 + 2 * round(25 * way.idle) for name, way in program.WAYS.items()}


def test_motion_only(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    example("motion_only").main(place / "run", place / "speech.wav", Path("a.csv"), fps=50)
    assert "10 frames at 25 per second" in capsys.readouterr().out
    assert len((tmp_path / "a.csv").read_text().splitlines()) - 1 in (19, 20)
    assert arkit_files.__name__


def test_microphone(place: Path, shown: list[np.ndarray], monkeypatch: pytest.MonkeyPatch):
    program = example("microphone")
    program.main(place / "run", place / "speech.wav", size=48)
    assert shown and shown[0].shape == (48, 48, 3)  # a busy machine leaves out images
    raw = np.full(700, 16384, np.int16).tobytes()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(raw)))
    pieces = list(program.pieces(None))
    assert [len(piece) for piece in pieces] == [320, 320, 60] and pieces[0].dtype == np.float32
    assert np.concatenate(pieces).max() == 0.5


def test_voice_agent(place: Path, shown: list[np.ndarray], monkeypatch: pytest.MonkeyPatch):
    class Beeps:
        sample_rate = 8000

        def speak(self, text: str) -> Any:
            yield from (np.full(800, 0.3, np.float32) for _ in text.split()[:3])

    program, said = example("voice_agent"), []
    monkeypatch.setattr(program, "open_tts", lambda name: Beeps())
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello you\n"))
    push = avatar.Session.push_audio
    monkeypatch.setattr(avatar.Session, "push_audio", lambda self, piece: said.append(piece) or push(self, piece))
    program.main(place / "run")
    assert shown and sum(map(len, said)) == 3 * 1600
    assert program.answer("x") == "You said: x" and callable(text_to_speech.open_tts)


def test_a_voice_agent_says_long_answers_to_their_end():
    """A session takes no more than a minute ahead."""

    class Busy:
        pushed = ended = 0

        def push_audio(self, samples: np.ndarray) -> int:
            self.pushed += min(len(samples), 700)
            return min(len(samples), 700)

        def end_utterance(self) -> None:
            self.ended += 1

    class Voice:
        sample_rate = 16000

        def speak(self, text: str) -> Any:
            yield from (np.full(1600, 0.3, np.float32) for _ in range(3))

    program, session, stopped = example("voice_agent"), Busy(), threading.Event()
    program.say(session, Voice(), "", stopped)
    assert (session.pushed, session.ended) == (4800, 1)
    stopped.set()
    program.say(session, Voice(), "", stopped)
    assert (session.pushed, session.ended) == (4800, 1)


def test_two_people(place: Path, tmp_path: Path):
    program, run = example("two_people"), place / "run"
    (tmp_path / "a.wav").write_bytes((place / "speech.wav").read_bytes())
    before = (tmp_path / "a.wav").read_bytes()
    program.main(run, run, place / "speech.wav", place / "speech.wav", Path("a.mp4"), apart=0.5)
    info = read_info(tmp_path / "a.mp4")
    assert (info.width, info.height) == (144, 96) and frames(tmp_path / "a.mp4") == 2 * SECONDS * 25
    assert read(tmp_path / "a.mp4").consent == consent_hash(run)
    assert (tmp_path / "a.wav").read_bytes() == before
    with pytest.raises(avatar.AvatarError, match="one of the inputs"):
        program.main(run, run, place / "speech.wav", Path("a.mp4"), Path("a.mp4"))
    one = avatar.Avatar.load(run)
    alone = next(program.drawn(one, np.zeros(1600, np.float32), 0.0, 0))
    assert alone.shape == (96, 96, 4) and 0 < alone[..., 3].mean() < 1


def test_export_web(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):  # again: what it wrote itself is replaced
        example("export_web").main(place / "run", place / "speech.wav", Path("web"), title="Somebody")
    assert "index.html" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "web/avatar.json").read_text())
    assert manifest["name"] == "Somebody" and manifest["clips"][0]["frames"] == 10


def test_new_method(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods._REGISTRY, "_known", dict(methods._REGISTRY._known))
    for name in ("train_speech", "train_headmotion", "load_prior"):
        monkeypatch.setattr(training, name, lambda *_, **__: None)
    program = example("new_method")
    preset = program.train_options

    def short(*names: str, **options: Any) -> avatar.TrainConfig:
        config = preset(*names, **options)
        return replace(config, schedule=replace(config.schedule, steps=2), loss=replace(config.loss, lpips=0.0))

    monkeypatch.setattr(program, "train_options", short)
    program.main(place / "person", Path("mixture"))
    one = avatar.Avatar.load(Path("mixture"))
    assert one.info["method"] == "mixture"
    motion = avatar.Motion.load(Path("mixture/motion.safetensors"))
    image = one.render(one.camera, motion, 0)
    assert image.shape == (96, 96, 3) and image.dtype == torch.uint8


def test_the_lines_of_the_readme_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 8
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/me").symlink_to(place / "run")
    (tmp_path / "speech.wav").write_bytes((place / "speech.wav").read_bytes())
    exec(compile(blocks[0], "README.md", "exec"), {})  # this repository's own page
    assert frames(tmp_path / "hello.mp4") >= SECONDS * 25


def test_the_notebook_runs_and_was_executed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = json.loads((FOLDER / "first_avatar.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "it was not executed in one go"
    kinds = [kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})]
    assert kinds.count("image/jpeg") >= 4
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert (FOLDER / "first_avatar.ipynb").stat().st_size < 600_000
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/run").symlink_to(place / "run")
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE, dtype=np.float32) / 5)
    write_wav(tmp_path / "demo/new.wav", tone)
    display = types.ModuleType("IPython.display")
    display.Image = display.Video = lambda *_, **__: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    program = types.ModuleType("IPython")
    program.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks for it
    monkeypatch.setitem(sys.modules, "IPython", program)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "first_avatar.ipynb", "exec"), names)  # this repository's own
    assert (tmp_path / "hello.mp4").is_file()


def test_the_film_of_the_readme_shows_nobody_who_exists(place: Path, tmp_path: Path):
    (place / "run/consent.json").rename(tmp_path / "consent.json")
    try:
        with pytest.raises(avatar.AvatarError, match="not the avatar of a synthetic subject"):
            readme_film.main(readme_film.Config(run=place / "run", playwright=tmp_path))
    finally:
        (tmp_path / "consent.json").rename(place / "run/consent.json")


def test_the_visitor_of_the_film_asks_and_turns_the_avatar_to_both_sides():
    steps, middle = readme_film.visit(), readme_film.MIDDLE
    pulled = [
        step[2] for step in steps[[step[1:] for step in steps].index(["down"]) :] if step[:2] == ["mouse", "move"]
    ]
    assert min(pulled) < middle - 60 and max(pulled) > middle + 60 and pulled[-1] == middle
    assert [step[0] for step in steps].index("type") < [step[1:] for step in steps].index(["#ask"])


def test_the_film_of_the_readme_is_even_in_time_and_small_enough():
    from PIL import Image

    shown = [(1000.0, "a"), (1035.0, "b"), (1070.0, "c"), (1310.0, "d")]
    assert readme_film.even(shown, 10.0) == ["a", "c", "c", "c"]
    assert readme_film.even(shown, 40.0)[:4] == ["a", "a", "b", "c"]
    with pytest.raises(RuntimeError, match="not filmed"):
        readme_film.even([], 10.0)

    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    film, options = [Image.fromarray(image) for image in noise], readme_film.Config(run=Path("run"))
    best = len(readme_film.encoded(film, options.fps, options.quality))
    data, quality = readme_film.small_enough(film, replace(options, megabytes=0.9 * best / 1e6))
    assert len(data) < 0.9 * best and quality < options.quality
    with Image.open(io.BytesIO(data)) as written:
        assert written.n_frames == 3 and written.size == (64, 64)  # type: ignore[attr-defined]
    with pytest.raises(avatar.AvatarError, match="MB"):
        readme_film.small_enough(film, replace(options, megabytes=0.0001))
