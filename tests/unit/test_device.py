"""``--device``: training and rendering on a GPU, which is pretended here (tests/pretend_cuda.py)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from avatar import device, log
from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.device import OnDevice, choose_device
from avatar.doctor.checks import NOTE, check_gpu
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.infer.avatar import Avatar
from avatar.losses.lpips import LAYERS, LPIPS
from avatar.methods.gaussian.bake import bake
from avatar.methods.options import LossConfig
from avatar.motion import Motion
from avatar.native import _abi, cuda
from avatar.train.config import TrainConfig
from avatar.train.run import open_run
from avatar.train.trainer import Trainer
from tests.person import QuickTrainer, make_person, small_config, train
from tests.pretend_cuda import GPU, GpuTensor, pretended

STEPS = 9


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return make_person(tmp_path_factory.mktemp("person"))


@pytest.fixture(scope="module")
def on_cpu(person, tmp_path_factory) -> Trainer:
    return train(small_config(person, tmp_path_factory.mktemp("runs") / "cpu", steps=STEPS))


@pytest.fixture(scope="module")
def on_gpu(person, tmp_path_factory) -> Path:
    """A run of the same training on a GPU."""
    folder = tmp_path_factory.mktemp("runs") / "gpu"
    with pytest.MonkeyPatch.context() as monkeypatch, pretended(monkeypatch):
        train(gpu_config(person, folder))
    return folder


def rarely_densified(config: TrainConfig) -> TrainConfig:
    """The same training without a change of the set of Gaussians in its few steps."""
    model: Any = config.model
    return replace(config, model=replace(model, densify=replace(model.densify, refine_every=100)))


def gpu_config(person: Path, out: Path):
    return replace(small_config(person, out, steps=STEPS), device="cuda")


def different(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def some_lpips() -> LPIPS:
    """The network with random weights."""
    generator, weights, inputs = torch.Generator().manual_seed(0), {}, 3
    for i, (outputs, kernel, *_) in enumerate(LAYERS):
        weights[f"features.Conv_{i}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * 0.05
        weights[f"features.Conv_{i}.bias"] = torch.zeros(outputs)
        weights[f"lin{i}.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
        inputs = outputs
    return LPIPS(weights)


# ---- the pretended GPU ---------------------------------------------------------------------------------------------


def test_the_pretended_gpu_is_strict(monkeypatch):
    with pretended(monkeypatch) as gpu:
        x = torch.arange(4.0).to(GPU, non_blocking=True).requires_grad_()
        assert x.device == GPU and not gpu.waits
        with pytest.raises(RuntimeError, match="CPU"):
            x + torch.ones(4)
        with pytest.raises(RuntimeError, match="CPU"):
            x.detach()[[0, 1]]
        (x * 2).sum().backward()
        assert isinstance(x.grad, GpuTensor) and not gpu.waits
        assert x.grad.cpu().tolist() == [2, 2, 2, 2] and gpu.waits == ["_to_copy"]
        for wait in (lambda: float(x.detach()[0]), lambda: x.detach()[x.detach() > 1], lambda: x.grad.nonzero()):
            gpu.waits.clear()
            wait()
            assert gpu.waits


# ---- training and rendering ----------------------------------------------------------------------------------------


def test_training_makes_the_same_choices_and_checkpoint(on_cpu, on_gpu, person):
    loaded = QuickTrainer(PersonDataset(person), small_config(person, on_gpu, steps=STEPS))
    loaded.resume(on_gpu)
    assert len(loaded.model.gaussians) > 600  # density control has worked
    assert not different(on_cpu.state(), loaded.state())
    assert loaded.psnr == on_cpu.psnr


def test_a_step_never_waits(person, tmp_path, monkeypatch):
    config = gpu_config(person, tmp_path / "run")
    config = replace(rarely_densified(config), loss=LossConfig(lpips=0.05, lpips_start=0))
    monkeypatch.setattr(LPIPS, "load", lambda: some_lpips())
    with pretended(monkeypatch) as gpu:
        trainer = QuickTrainer(PersonDataset(person), config)
        original, waits = trainer.train_step, []

        def step(batch):
            gpu.waits.clear()
            parts = original(batch)
            waits.append(list(gpu.waits))
            return parts

        monkeypatch.setattr(trainer, "train_step", step)
        trainer.run(open_run(config))
        assert all(isinstance(p, GpuTensor) for p in trainer.model.parameters())
        assert all(isinstance(v, GpuTensor) for v in trainer.state().values())
        assert trainer._lpips is not None
    # The first step reads the field's resolutions and places the camera and the network.
    assert len(waits) == STEPS and not any(waits[1:]), waits


def test_a_run_goes_on_on_another_device(on_cpu, person, tmp_path, monkeypatch):
    config = gpu_config(person, tmp_path / "run")
    data = PersonDataset(person)

    def stop_at(trainer: Trainer, step: int, folder: Path) -> None:
        maintain = trainer._maintain

        def stop():
            maintain()
            if trainer.step == step:
                raise KeyboardInterrupt

        trainer._maintain = stop
        with pytest.raises(KeyboardInterrupt):
            trainer.run(folder)

    folder = open_run(config)
    with pretended(monkeypatch):
        stop_at(QuickTrainer(data, config), 3, folder)
    second = QuickTrainer(data, replace(config, device="cpu"))
    second.resume(folder)
    stop_at(second, 6, folder)
    with pretended(monkeypatch):
        third = QuickTrainer(data, config)
        third.resume(folder)
        third.run(folder)
    last = QuickTrainer(data, replace(config, device="cpu"))
    last.resume(folder)
    assert last.step == STEPS
    assert not different(on_cpu.state(), last.state())


@pytest.mark.parametrize("broken", ["loss", "means", "poses"])
def test_not_a_number_takes_the_unseen_steps_back(person, tmp_path, monkeypatch, broken):
    config = gpu_config(person, tmp_path / "run")
    config = rarely_densified(config)
    with pretended(monkeypatch):
        trainer = QuickTrainer(PersonDataset(person), config)
        original, poisoned = trainer._loss, []

        def loss(out, batch):
            value, parts = original(out, batch)
            if trainer.step == 4 and not poisoned:
                poisoned.append(batch.index)
                if broken == "loss":
                    value = value * float("nan")
                else:  # adds 0, and its slope is 0 / 0
                    x = trainer.model.gaussians.means if broken == "means" else trainer.poses.knots
                    value = value + (x - x.detach()).square().sum().sqrt()
            return value, parts

        monkeypatch.setattr(trainer, "_loss", loss)
        trainer.run(open_run(config))
        assert trainer.step == STEPS and trainer._banned == set(poisoned)
        assert all(torch.isfinite(value.inner).all() for value in trainer.state().values())


def test_a_run_renders_alike_on_both_devices(on_gpu, person, monkeypatch):
    data = PersonDataset(person)
    avatar = Avatar.load(on_gpu, device="cpu", precision="float32")
    behind = torch.from_numpy(data.background(5))
    turned = avatar.camera.orbit(avatar.pivot, 10, 5)
    views = [
        (avatar.camera, 5, None),
        (avatar.camera, 6, behind),
        (turned, 5, None),
        (avatar.camera.resized(64, 64), 7, None),
    ]
    expected = [avatar.draw(camera, data.motion, i, background) for camera, i, background in views]
    for (camera, i, background), image in zip(views, expected, strict=True):  # a CPU's playback rounds otherwise
        off = (avatar.render(camera, data.motion, i, background).float() - image).abs()
        assert off.max() <= 1 and off.mean() <= 0.001
    with pretended(monkeypatch) as gpu:
        avatar = Avatar.load(on_gpu, device="cuda")
        assert avatar.device == GPU and not isinstance(avatar.pivot, GpuTensor)
        for (camera, i, background), image in zip(views, expected, strict=True):
            ours = avatar.render(camera, data.motion, i, background)
            assert isinstance(ours, GpuTensor) and ours.dtype == torch.uint8
            assert torch.equal(ours.cpu(), image)
        avatar.draw(avatar.camera, data.motion, 0)
        gpu.waits.clear()
        for i in range(3):
            avatar.draw(avatar.camera, data.motion, i)
        assert not gpu.waits


def test_a_video_is_rendered_and_measured(on_gpu, person, tmp_path, monkeypatch):
    from avatar.eval.measure import Tools, measure_held_out

    data, results = PersonDataset(person), []

    class Tracker:
        def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            assert image.dtype == np.uint8
            return np.asarray(data.landmarks[38])[:, :2] + image.mean() / 100, np.zeros(52, np.float32)

    def measure(device: str):
        avatar, lpips = Avatar.load(on_gpu, device=device, precision="float32"), some_lpips()
        lpips.to(avatar.device)
        avatar.playback = avatar.model.draw  # a CPU's own playback rounds otherwise
        tools = Tools(tracker=Tracker(), lpips=lpips)
        results.append(measure_held_out(avatar, data, {"tracked": data.motion[36:40]}, 36, 40, tools).result)

    measure("cpu")
    out = tmp_path / "out.mp4"
    with pretended(monkeypatch):
        measure("cuda")
        words = ["render", on_gpu, "--split", "test", "--person", person, "--out", out, "--device", "cuda"]
        assert main([*map(str, words), "--json", str(tmp_path / "speed.json")]) == 0
    assert out.stat().st_size > 500
    assert '"device": "cuda"' in (tmp_path / "speed.json").read_text()
    assert results[0] == results[1] and results[0]["head_only"]["tracked"]["psnr"] > 0
    assert results[0]["full_frame"]["tracked"]["lpips"] > 0


def test_baking(on_gpu, monkeypatch):
    motion = Motion.load(on_gpu / "motion.safetensors")
    expected = bake(Avatar.load(on_gpu, device="cpu", precision="float32").model, motion, 4)
    with pretended(monkeypatch):
        avatar = Avatar.load(on_gpu, device="cuda")
        baked = bake(avatar.model, motion.to(GPU), 4)
        avatar.model.baked = baked
        assert avatar.render(avatar.camera, motion, 3).cpu().shape == (96, 96, 3)
        state = {name: tensor.cpu() for name, tensor in baked.state_dict().items()}
    assert not different(expected.state_dict(), state)


def test_intrinsics_made_in_playback_serve_training():
    camera = Camera.source(100.0, 48.0, 48.0, 96, 96)
    with torch.inference_mode():
        assert camera.K[0, 0] == 100
    assert not camera.K.is_inference()


def test_what_is_used_again_is_copied_once(monkeypatch):
    copies = []

    class Thing:
        def to(self, device):
            copies.append(self)
            return device, self

    place, things = OnDevice(GPU, keep=2), [Thing() for _ in range(3)]
    for thing in (things[0], things[1], things[0], things[1]):
        assert place(thing) == (GPU, thing)
    assert copies == things[:2]
    place(things[2])  # the third pushes the first out
    place(things[1])
    assert copies == things
    place(things[0])
    assert copies == [*things, things[0]]
    motion = Motion.zeros(2, 25.0)
    assert OnDevice(torch.device("cpu"))(motion) is motion


# ---- the option ----------------------------------------------------------------------------------------------------


def launched(call: _abi.Call) -> int:
    return _abi.OK


def refused(call: _abi.Call) -> int:
    """What the first kernel says where the driver is too old."""
    call.message = b"CUDA driver version is insufficient for CUDA runtime version"
    return _abi.UNSUPPORTED


def without(monkeypatch, *, gpu: bool, library: bool, launch: Callable[[_abi.Call], int] = launched) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    handle: Any = Mock(avatar_cuda_probe=lambda call, stream: launch(call._obj))
    loaded = cuda.CudaLibrary(handle, Path("library.so")) if library else None
    monkeypatch.setattr(cuda, "_load", lambda: (loaded, "" if library else "there is none."))
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("library", [False, True])
def test_auto_needs_the_gpu_and_the_library(monkeypatch, gpu, library):
    monkeypatch.delenv("AVATAR_NATIVE", raising=False)
    without(monkeypatch, gpu=gpu, library=library)
    assert choose_device("auto").type == ("cuda" if gpu and library else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    if gpu and library:
        assert choose_device("cuda") == GPU
    else:
        with pytest.raises(AvatarError, match="CPU" if not gpu else "AVATAR_CUDA=1") as error:
            choose_device("cuda")
        assert error.value.why and error.value.fix
    with pytest.raises(AvatarError, match="auto, cpu or cuda"):
        choose_device("tpu")


def test_a_library_that_cannot_run_is_left_alone(monkeypatch, capsys):
    """As with a driver that is older than the library, or a GPU that it has no code for."""
    monkeypatch.delenv("AVATAR_NATIVE", raising=False)
    tries = []

    def launch(call: _abi.Call) -> int:
        tries.append(call)
        return refused(call)

    without(monkeypatch, gpu=True, library=True, launch=launch)
    monkeypatch.setattr(device, "_warn_of_gpu", device._warn_of_gpu.__wrapped__)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with log.on_terminal():
        assert choose_device("auto") == torch.device("cpu")
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: the GPU is not used" in said and "driver version is insufficient" in said
    with pytest.raises(AvatarError, match="driver version is insufficient") as error:
        choose_device("cuda")
    assert "driver" in error.value.fix and error.value.see
    finding = {finding.part: finding for finding in check_gpu()}["CUDA library"]
    assert finding.state == NOTE and "driver version is insufficient" in finding.detail and finding.fix
    assert len(tries) == 1
    monkeypatch.setenv("AVATAR_NATIVE", "reference")
    assert choose_device("cuda") == GPU


@pytest.mark.parametrize(
    "command",
    [
        "train {person} --out {run} --overwrite",
        "create {video} --out {run}",
        "render {run} --split test --person {person}",
        "export {run} --format baked",
        "eval {run} --person {person}",
        "view {run}",
    ],
)
def test_cuda_without_a_gpu_is_a_sentence_and_nothing_is_lost(on_gpu, person, tmp_path, monkeypatch, capsys, command):
    without(monkeypatch, gpu=False, library=False)
    video = tmp_path / "me.mp4"
    video.write_bytes(b"never read")
    before = {path: path.read_bytes() for path in on_gpu.rglob("*") if path.is_file()}
    words = command.format(person=person, run=on_gpu, video=video).split()
    assert main([*words, "--device", "cuda"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--device cuda" in said and "avatar doctor" in said and "Traceback" not in said
    assert {path: path.read_bytes() for path in on_gpu.rglob("*") if path.is_file()} == before
    assert not on_gpu.with_name(on_gpu.name + ".person").exists()
