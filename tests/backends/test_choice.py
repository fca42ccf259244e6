"""Choosing a backend: one sentence and exit code 2 where it cannot run, and a record of the choice where it can."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from avatar import backends
from avatar.backends import requirements
from avatar.cli.main import main
from avatar.cli.train import parse
from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.fields.triplane import TriplaneHash
from avatar.infer.avatar import Avatar
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.train.config import TrainConfig
from avatar.train.trainer import Trainer
from tests.backends.conftest import WITHOUT_CUDA
from tests.backends.fake_tinycudann import Encoding
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return make_person(tmp_path_factory.mktemp("person"), frames=12)


@pytest.fixture(scope="module")
def run(person, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(small_config(person, folder, steps=2))
    return folder


def refused(capsys, *arguments: object) -> str:
    """Run a command that must end with one sentence and exit code 2."""
    assert main([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return " ".join(err.split())


@WITHOUT_CUDA
def test_without_a_gpu_every_command_says_so(person, run, tmp_path, capsys):
    video = tmp_path / "me.mp4"
    video.write_bytes(b"never read")
    new = tmp_path / "new"
    for arguments in (
        ("train", person, "--out", new, "--renderer", "gsplat"),
        ("train", person, "--out", new, "--model.renderer", "gsplat"),
        ("train", person, "--out", new, "--encoding", "tinycudann"),
        ("create", video, "--out", new, "--renderer", "gsplat"),
        ("render", run, "--split", "test", "--renderer", "gsplat"),
        ("eval", run, "--renderer", "gsplat"),
    ):
        said = refused(capsys, *arguments)
        name = "tinycudann" if "tinycudann" in arguments else "gsplat"
        assert f"{name} needs a CUDA GPU" in said and "native" in said
        assert not new.exists() and not (tmp_path / "new.person").exists()


@WITHOUT_CUDA
def test_nothing_is_lost_when_a_backend_is_missing(person, run, capsys):
    before = (run / "model.safetensors").read_bytes()
    assert "CUDA" in refused(capsys, "train", person, "--out", run, "--overwrite", "--renderer", "gsplat")
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("gsplat", "pip install 'gsplat>=1.5,<2'"),
        ("nerfacc", "pip install 'nerfacc>=0.5.3,<0.6'"),
        ("tinycudann", "pip install 'git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch'"),
    ],
)
def test_a_missing_package_comes_with_its_install_command(gpu, monkeypatch, name, command):
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(AvatarError) as caught:
        backends.require(name)
    assert f"needs the package {name}" in str(caught.value) and "not installed" in str(caught.value)
    assert command in caught.value.fix


def test_an_old_or_broken_package_is_told_apart_from_a_missing_one(install, monkeypatch):
    install("gsplat", kernels=None)
    with pytest.raises(AvatarError, match="without its CUDA kernels"):
        backends.require("gsplat")
    requirements.problem.cache_clear()
    monkeypatch.setattr(requirements, "version", lambda _: "1.4.0")
    monkeypatch.setattr(requirements, "_version", lambda name: requirements._numbers(requirements.version(name)))
    with pytest.raises(AvatarError, match=r"needs gsplat 1\.5 or newer"):
        backends.require("gsplat")
    requirements.problem.cache_clear()

    def fail(name):
        raise OSError("libcudart.so.12: cannot open\nlong tail")

    monkeypatch.setattr(requirements, "_version", lambda _: (9,))
    monkeypatch.setattr(requirements.importlib, "import_module", fail)
    with pytest.raises(AvatarError, match=r"does not load: libcudart.so.12: cannot open. Install it again"):
        backends.require("gsplat")


def test_version_numbers():
    assert requirements._numbers("1.5.3+pt24cu124") == (1, 5)
    assert requirements._numbers("0.5.3") == (0, 5, 3)


def test_unknown_names_are_refused_by_the_command_line(person, tmp_path, capsys):
    assert main(["train", str(person), "--out", str(tmp_path / "r"), "--renderer", "opengl"]) == 2
    assert "gsplat" in capsys.readouterr().err


def test_the_short_options_reach_the_model_and_leave_the_preset_alone(tmp_path):
    def read(*options: str) -> TrainConfig:
        return parse([str(tmp_path), "--out", str(tmp_path), *options], "avatar train", "")

    plain = read("--quality", "draft")
    short, long = (read("--quality", "draft", name, "gsplat") for name in ("--renderer", "--model.renderer"))
    assert short.model == long.model == replace(plain.model, renderer="gsplat") != read().model


def test_the_run_records_what_it_was_trained_with(run):
    recorded = (run / "config.toml").read_text()
    assert 'renderer = "native"' in recorded and 'encoding = "native"' in recorded
    assert load_tensors(run / "model.safetensors")[1]["config"]["encoding"] == "native"


def test_native_renderer_and_marcher_need_nothing():
    from avatar import native
    from avatar.native import march_rays

    assert backends.renderer("native") is native
    assert backends.marcher("native") is march_rays


def test_a_model_drawn_by_gsplat_in_training_is_drawn_natively_anywhere(run, tmp_path, person):
    copy = tmp_path / "run"
    copy.mkdir()
    tensors, meta = load_tensors(run / "model.safetensors")
    meta["config"]["renderer"] = "gsplat"
    save_tensors(copy / "model.safetensors", tensors, meta)
    (copy / "person.json").write_bytes((run / "person.json").read_bytes())
    motion = PersonDataset(person).motion
    image = Avatar.load(copy).render(Avatar.load(copy).camera, motion, 3)
    assert torch.equal(image, Avatar.load(run).render(Avatar.load(run).camera, motion, 3))


@WITHOUT_CUDA
def test_a_model_with_the_other_encoding_says_what_it_was_trained_with(run, tmp_path, capsys):
    copy = tmp_path / "run"
    copy.mkdir()
    tensors, meta = load_tensors(run / "model.safetensors")
    meta["config"]["encoding"] = "tinycudann"
    save_tensors(copy / "model.safetensors", tensors, meta)
    (copy / "person.json").write_bytes((run / "person.json").read_bytes())
    said = refused(capsys, "render", copy, "--motion", run / "motion.safetensors")
    assert "was trained with --encoding tinycudann" in said and "CUDA GPU" in said


@pytest.fixture
def tinycudann(install, monkeypatch):
    """A stand-in for tinycudann on the CPU."""
    from avatar.backends import tinycudann

    install("tinycudann", Encoding=Encoding)
    monkeypatch.setattr(tinycudann, "_DEVICE", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return tinycudann.TinyCudaTriplane


def test_tinycudann_has_the_interface_of_the_native_encoding(tinycudann):
    bounds = torch.tensor([[-2.0, -3.0, -4.0], [2.0, 5.0, 4.0]])
    shape = {"levels": 4, "features": 2, "coarsest": 8, "finest": 64, "log2_table": 12}
    ours, theirs = TriplaneHash(bounds, **shape), tinycudann(bounds, **shape)
    points = torch.tensor([[-2.0, -3.0, -4.0], [2.0, 5.0, 4.0], [0.0, 1.0, 0.0]], requires_grad=True)
    assert theirs.width == ours.width == theirs(points).shape[1] == 24
    grids = [plane.grid for plane in theirs.planes]
    assert grids[0]["base_resolution"] == 9  # vertices: one more than cells
    assert grids[0]["base_resolution"] * grids[0]["per_level_scale"] ** 3 == pytest.approx(65)
    # The box is mapped to the unit square, and each plane sees its own two axes.
    seen = [plane.seen for plane in theirs.planes]
    for axes, unit in zip(([0, 1], [1, 2], [0, 2]), seen, strict=True):
        expected = torch.tensor([[0.0] * 3, [1.0] * 3, [0.5] * 3])[:, axes]
        torch.testing.assert_close(unit.detach(), expected)
    theirs(points).sum().backward()
    assert points.grad is not None and all(p.grad is not None for p in theirs.parameters())
    with pytest.raises(AvatarError, match="3 features"):
        tinycudann(bounds, **(shape | {"features": 3}))


def test_train_render_and_resume_with_tinycudann_and_no_mixing(tinycudann, person, run, tmp_path):
    config = small_config(person, tmp_path / "run", steps=4, encoding="tinycudann")
    trainer = train(config)
    assert isinstance(trainer.model.field.encoding, tinycudann)
    avatar = Avatar.load(tmp_path / "run")
    image = avatar.render(avatar.camera, trainer.data.motion, 3)
    with torch.no_grad():
        direct = trainer.model.eval()(trainer.data.motion, 3, trainer.data.camera).rgb
    assert (image.float() / 255 - direct.clamp(0, 1)).abs().max() < 0.01
    again = Trainer(PersonDataset(person), config)
    again.resume(tmp_path / "run")
    expected, got = trainer.state(), again.state()
    assert expected.keys() == got.keys() and all(torch.equal(expected[k], got[k]) for k in expected)
    for trained, trained_with, wanted in ((tmp_path / "run", "tinycudann", "native"), (run, "native", "tinycudann")):
        other = small_config(person, trained, steps=4, encoding=wanted)
        with pytest.raises(AvatarError, match=f"was trained with other settings: .*--model.encoding {trained_with}"):
            Trainer(PersonDataset(person), other).resume(trained)
    assert asdict(config.model)["encoding"] == "tinycudann"
