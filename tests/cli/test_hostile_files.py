"""Broken and hostile files, at the doors where they come in: one sentence with the file, exit code 2, nothing written.

What thousands of random mutations do is tried by `pipelines/fuzz.py`; here are those that once passed.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.shared import SharedSpeech
from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.data.person import PersonFolder
from avatar.errors import AvatarError
from avatar.headmotion.generator import MotionGenerator
from avatar.infer.avatar import Avatar
from avatar.io.checkpoint import load_tensors, read_safetensors, save_tensors
from avatar.io.images import write_jpeg, write_png
from avatar.motion import Motion, arkit_files, timeline
from avatar.motion.statistics import MotionStats
from avatar.paths import read_json, write_json
from avatar.preprocess.stage import finished_key
from pipelines.fuzz_corpus import build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build(folder)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must refuse its input, and return its one sentence."""
    assert main([*map(str, arguments)]) == 2
    return " ".join(capfd.readouterr().err.split())


def change(path: Path, tensors: dict[str, Any] | None = None, **metadata: Any) -> None:
    """Exchange tensors and fields of the metadata of a file that `save_tensors` wrote."""
    old, about = load_tensors(path, finite=False)
    save_tensors(path, old | (tensors or {}), about | metadata)


def filled(tensor: Tensor, value: float, count: int = 1) -> Tensor:
    """A copy whose first numbers are something else."""
    out = tensor.clone()
    out.view(-1)[:count] = value
    return out


# -- an empty room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_render_no_empty_room(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], value: float
) -> None:
    out = tmp_path / "out.mp4"
    bad = Motion.load(run / "motion.safetensors")
    bad = bad.map(head_rotation=filled(bad.head_rotation, value))
    bad.save(tmp_path / "bad.safetensors")
    given = ["render", run, "--out", out, "--device", "cpu"]
    assert "bad.safetensors: head_rotation holds" in refused(capfd, *given, "--motion", tmp_path / "bad.safetensors")
    plan = {"format": timeline.FORMAT, "spans": [{"control": "lip-scale", "value": 1, "start": value}]}
    (tmp_path / "t.json").write_text(json.dumps(plan))
    assert "t.json, span 0: start is" in refused(capfd, *given, "--idle", 1, "--timeline", tmp_path / "t.json")
    means = load_tensors(run / "model.safetensors")[0]["gaussians.means"]
    change(run / "model.safetensors", {"gaussians.means": filled(means, value)})
    assert "model.safetensors: gaussians.means holds" in refused(capfd, *given, "--idle", 1)
    assert not out.exists()


def test_an_avatar_that_covers_nothing_is_refused(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    away = Motion.load(run / "motion.safetensors")
    far = torch.tensor([1e5, 0.0, 0.0])
    away.map(head_translation=away.head_translation + far, torso_translation=away.torso_translation + far).save(
        tmp_path / "away.safetensors"
    )
    given = ["render", run, "--out", tmp_path / "out.mp4", "--device", "cpu"]
    assert "nothing of the person is in its first frame" in refused(
        capfd, *given, "--motion", tmp_path / "away.safetensors"
    )
    means = load_tensors(run / "model.safetensors")[0]["gaussians.means"]
    change(run / "model.safetensors", {"gaussians.means": means + far})
    assert "model.safetensors shows nothing" in refused(capfd, *given, "--idle", 1)
    assert not (tmp_path / "out.mp4").exists()


def test_motion_that_stops_being_finite_later_stops_the_video(run: Path) -> None:
    from avatar.infer.avatar import checked_motion

    good = Motion.load(run / "motion.safetensors")
    bad = good.map(gaze=filled(good.gaze, math.nan))
    blocks = checked_motion(Avatar.load(run, device="cpu"), [good, bad])
    assert len(next(blocks)) == len(good)
    with pytest.raises(AvatarError, match="its gaze holds NaN"):
        next(blocks)


# -- models ----------------------------------------------------------------------------------------------------------


def test_sizes_of_a_model_are_those_of_its_tensors(run: Path) -> None:
    real = Avatar.load(run, device="cpu")
    change(run / "model.safetensors", count=10**12, width=10**9, height=-1)
    again = Avatar.load(run, device="cpu")
    assert again.info["gaussians"] == real.info["gaussians"] < 1000


_CONFIG: list[tuple[str, Any, str]] = [
    ("hidden", 512, "asks for the tensor field.middle.weight"), ("levels", 30, "asks for the tensor"),
    ("log2_table", 60, "log2_table is 60"), ("finest", 4000, "asks for the tensor field.encoding.table"),
    ("embedding", 64, "asks for the tensor gaussians.embedding"), ("features", math.nan, "features is nan"),
    ("coarsest", 1e400, "coarsest is inf"), ("deforms", ["eyes"], "names 'eyes'"), ("deforms", 5, "deforms is 5"),
    ("deform_torso", "no", "deform_torso is 'no'"), ("encoding", "pickle", "encoding is 'pickle'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "says"), _CONFIG)
def test_no_number_in_a_header_makes_a_model_larger(run: Path, name: str, value: Any, says: str) -> None:
    config = load_tensors(run / "model.safetensors")[1]["config"]
    change(run / "model.safetensors", config=config | {name: value})
    with pytest.raises(AvatarError, match=r"model\.safetensors.*" + says):
        Avatar.load(run, device="cpu")


@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("gaussians.bind_index", lambda t: filled(t, 478), "goes from 0 to 478"),
        ("gaussians.bind_index", lambda t: filled(t, -1), "goes from -1"),
        ("gaussians.region", lambda t: filled(t, 200), "to 200"),
        ("gaussians.scales", lambda t: t[:-1], r"has the shape"),
        ("gaussians.quats", lambda t: t.int(), "has the type int32"),
        ("background", lambda t: t.float(), "has the type float32"),
        ("field.encoding.resolutions", lambda t: filled(t, 10**6), "does not fit"),
        ("field.middle.weight", lambda t: filled(t, 1e20), r"holds 1e\+20"),
    ],
)
def test_tensors_that_no_model_has(run: Path, name: str, how: Callable[[Tensor], Tensor], says: str) -> None:
    tensors, _ = load_tensors(run / "model.safetensors")
    change(run / "model.safetensors", {name: how(tensors[name])})
    with pytest.raises(AvatarError, match=rf"model\.safetensors.*{name}.*{says}"):
        Avatar.load(run, device="cpu")


def test_person_and_model_must_fit(run: Path) -> None:
    write_json(run / "person.json", read_json(run / "person.json") | {"width": 8192, "height": 8192})
    with pytest.raises(AvatarError, match=r"person\.json says 8192x8192 pixels.*do not belong together"):
        Avatar.load(run, device="cpu")


_PERSON: list[tuple[str, Any]] = [
    ("fps", -25), ("fps", 1e12), ("fps", math.nan), ("fps", "25"), ("width", 10**9), ("width", 64.5), ("height", None),
    ("num_frames", "HUGE"), ("num_frames", -1), ("test_start", 1e400), ("segments", [[0, 10**9]]), ("segments", []),
    ("segments", [[5, 2]]), ("segments", [1, 2]), ("camera", []), ("camera", {"focal": 0, "cx": 1, "cy": 1}),
    ("camera", {"focal": 100}), ("has_audio", 1), ("audio_delay_s", "late"), ("source", 5),
    ("crop", [0, 0]), ("crop", [0, 0, 9, -1]), ("view", {"width": 4}), ("quality", {"valid_share": 2}),
    ("format", "avatar-person-1"), ("format", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), _PERSON, ids=[f"{name}{i}" for i, (name, _) in enumerate(_PERSON)])
def test_person_json_is_checked_field_by_field(run: Path, name: str, value: Any) -> None:
    content = read_json(run / "person.json") | {"unknown": [1], name: value}
    (run / "person.json").write_text(json.dumps(content).replace('"HUGE"', "9" * 4000))
    with pytest.raises(
        AvatarError, match=rf"person\.json(: ({name}|camera|width|height)| was written by another version)"
    ):
        Avatar.load(run, device="cpu")


@pytest.mark.parametrize(
    ("file", "tensor", "load"),
    [
        ("personal.safetensors", "members.0.enter.weight", PersonalSpeech.load),
        ("personal.safetensors", "rest", PersonalSpeech.load),
        ("shared.safetensors", "prior.weights", SharedSpeech.load),
        ("shared.safetensors", "normalizer.matrix", SharedSpeech.load),
        ("headmotion.safetensors", "normalizer.follow", MotionGenerator.load),
        ("headmotion.safetensors", "flow.past.weight", MotionGenerator.load),
        ("baked.safetensors", "modes", lambda path: Avatar.load(path.parent, True, device="cpu")),
        ("baked.safetensors", "reading", lambda path: Avatar.load(path.parent, True, device="cpu")),
    ],
)
def test_networks_of_a_run_are_checked(run: Path, file: str, tensor: str, load: Callable[[Path], object]) -> None:
    path = run / file
    load(path)
    tensors, metadata = read_safetensors(path, "a file")
    for broken in (filled(tensors[tensor], math.nan), tensors[tensor][:-1].clone(), torch.zeros(3), None):
        changed = {name: value for name, value in (tensors | {tensor: broken}).items() if value is not None}
        save_file(changed, str(path), metadata)
        with pytest.raises(AvatarError, match=file):
            load(path)


def test_indices_of_a_basis_are_in_its_model(run: Path) -> None:
    probes = load_tensors(run / "baked.safetensors")[0]["probes"]
    for wrong in (-1, 10**6):
        change(run / "baked.safetensors", {"probes": filled(probes, wrong)})
        with pytest.raises(AvatarError, match=r"baked\.safetensors: probes goes"):
            Avatar.load(run, True, device="cpu")


# -- people ----------------------------------------------------------------------------------------------------------


def test_pictures_and_masks_of_a_person_fit(made: Path, tmp_path: Path) -> None:
    person = shutil.copytree(made / "person", tmp_path / "person")
    write_jpeg(person / "ingest/frames/000003.jpg", np.zeros((32, 48, 3), np.uint8))
    write_png(person / "background/background.png", np.zeros((32, 48, 3), np.uint8))
    data = PersonDataset(person)
    for read in (lambda: data.image(3), lambda: data.background_image):
        with pytest.raises(
            AvatarError, match=r"(000003\.jpg|background\.png) has 48x32 pixels, .*person\.json says 64x64"
        ):
            read()
    record = read_json(person / "parse/stage.json")
    for wrong in ([], [5, 3], [0, 10**6]):
        other = shutil.copytree(person, tmp_path / f"masks{len(str(wrong))}")
        write_json(other / "parse/stage.json", record | {"result": record["result"] | {"keyframes": wrong}})
        with pytest.raises(AvatarError, match="does not say which frames have masks"):
            PersonDataset(other).masks(0)
    write_json(person / "track/stage.json", {"key": "x", "result": {"segments": [[0, 1e400]]}})
    with pytest.raises(AvatarError, match=r"track/stage\.json: result: segments is inf"):
        PersonDataset(person).masks(0)
    assert finished_key(PersonFolder(person), "track") is None  # as if it had not run: it is made anew


@pytest.mark.parametrize("name", ["track/landmarks.npy", "refine/shape.npy"])
def test_arrays_of_a_person_are_checked(made: Path, tmp_path: Path, name: str) -> None:
    person = shutil.copytree(made / "person", tmp_path / "person")
    good = np.load(person / name)
    bad = good.copy()
    bad.flat[0] = np.nan
    for array in (bad, good[:-1], good.astype(np.int32), np.array(["a"])):
        np.save(person / name, array)
        with pytest.raises(AvatarError, match=Path(name).name):
            PersonDataset(person)


# -- motion ----------------------------------------------------------------------------------------------------------


def test_motion_files_are_checked(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors, metadata = read_safetensors(made / "tables/motion.safetensors", "a motion file")
    for says, parts, about in (
        ("fps is -25.0", {}, {"fps": "-25"}), ("fps is 1000000000000.0", {}, {"fps": "1e12"}),
        ("fps is nan", {}, {"fps": "nan"}), ("fps is 'x'", {}, {"fps": "x"}),
        ("lacks the tensor gaze", {"gaze": None}, {}),
        ("gaze has the shape", {"gaze": torch.zeros(20, 3)}, {}),
        ("gaze has the type", {"gaze": torch.zeros(20, 2).int()}, {}),
        ("face holds 1e", {"face": torch.full((20, 38), 1e20)}, {}), ("arkit cannot be read", {}, {"arkit": "{"}),
        ("face is 5", {}, {"face": "5"}), ("valid has the type", {"valid": torch.zeros(20)}, {}),
        ("holds no frames", {name: tensor[:0] for name, tensor in tensors.items()}, {}),
    ):  # fmt: skip
        changed = {name: tensor for name, tensor in (tensors | parts).items() if tensor is not None}
        save_file(changed, str(path), metadata | about)
        with pytest.raises(AvatarError, match=rf"m\.safetensors.*{says}"):
            Motion.load(path)
    with pytest.raises(AvatarError, match="hours is too long"):
        Motion.zeros(30_000, 1.0).resample(1000.0)


def test_tables_of_coefficients_are_checked(made: Path, tmp_path: Path) -> None:
    person = MotionStats.of(Motion.load(made / "run/motion.safetensors"))
    good = read_json(made / "tables/arkit.json")
    path = tmp_path / "a.json"
    for says, part in (
        ("fps is -25", {"fps": -25}), ("fps is 1000000000000.0", {"fps": 1e12}), ("fps is inf", {"fps": 1e400}),
        ("frame 0: eyeBlinkLeft is nan", {"frames": [{"arkit": [math.nan] * 52, "angles": [0] * 5}]}),
        (r"frames\[0\] is 5", {"frames": [5]}), ("frame 0 has 1 numbers", {"frames": [{"arkit": [1]}]}),
        ("not a list of different names", {"names": ["jawOpen"] * 52}), ("names is 3", {"names": 3}),
    ):  # fmt: skip
        path.write_text(json.dumps(good | part))
        with pytest.raises(AvatarError, match=rf"a\.json.*{says}"):
            arkit_files.load(path, person)
    table = (made / "tables/arkit.csv").read_text()
    rows = [line.split(",") for line in table.splitlines()]
    path = tmp_path / "a.csv"
    for says, scale in (("frames per second is", 1e-9), ("frames per second is", 1e5), ("all the same", 0.0)):
        changed = [["Time", *rows[0][1:]], *([str(i / 25 * scale), *row[1:]] for i, row in enumerate(rows[1:]))]
        path.write_text("\n".join(map(",".join, changed)))
        with pytest.raises(AvatarError, match=rf"a\.csv.*{says}"):
            arkit_files.load(path, person)
    path.write_text(table.replace("JawOpen", "EyeBlinkLeft", 1))
    with pytest.raises(AvatarError, match=r"a\.csv names the channel 'EyeBlinkLeft' more than once"):
        arkit_files.load(path, person)


_SPANS: list[Any] = [
    {"control": ["blink"], "value": 1}, {"control": "blink", "value": {"a": 1}}, {"control": "blink", "value": 1e400},
    {"control": "blink", "value": 1, "start": 10**400}, {"control": "blink", "value": 1, "end": math.inf},
    {"control": "blink", "value": 1, "fade": math.nan}, {"control": "blink", "value": 1, "start": True},
    {"control": "gaze", "value": "1e400,0"}, {"control": "emotion", "value": "happy:nan"},
    {"control": "\ud800", "value": 1},
]  # fmt: skip


@pytest.mark.parametrize("span", _SPANS, ids=range(len(_SPANS)))
def test_timelines_are_checked(tmp_path: Path, span: Any) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"format": timeline.FORMAT, "spans": [span]}))
    with pytest.raises(AvatarError, match=r"t\.json, span 0") as error:
        timeline.load(tmp_path / "t.json")
    assert str(error.value).encode()


def test_a_long_value_is_no_path() -> None:
    with pytest.raises(AvatarError, match="neither a time nor one of the words"):
        timeline.from_option("blink", f"20@{'x' * 5000}")


# -- fuzzing ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="limits of memory are set as on Linux")
def test_mutated_files_of_every_kind_are_refused_or_read(tmp_path: Path) -> None:
    """Some seconds of `python -m pipelines.fuzz`."""
    command = [sys.executable, "-m", "pipelines.fuzz", "--cases", "160", "--seed", "11", "--seconds", "150",
               "--json", str(tmp_path / "fuzz.json")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    counted = read_json(tmp_path / "fuzz.json")
    assert set(counted["outcomes"]) == {"read", "refused"} and len(counted["kinds"]) > 35
