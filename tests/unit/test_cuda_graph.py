"""Frames replayed from a CUDA graph are the frames that are drawn kernel by kernel, on a pretended GPU."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.methods.gaussian import cuda_graph
from avatar.methods.gaussian.bake import bake
from avatar.motion import Motion
from avatar.native import pair_capacity
from avatar.native.cuda import CudaLibrary
from pipelines import gpu_stages
from tests.person import make_person, small_config, train
from tests.pretend_cuda import GPU, pretended


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    train(small_config(make_person(folder / "person"), folder / "run", steps=6))
    return folder / "run"


@pytest.fixture
def motion(run) -> Motion:
    return Motion.load(run / "motion.safetensors")


def views(avatar: Avatar):
    """Cameras, frames and backgrounds: three picture sizes, one also with backgrounds."""
    behind = torch.randint(256, (96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = avatar.camera.resized(64, 64)
    return [
        (avatar.camera, 3, None),
        (avatar.camera, 4, None),
        (avatar.camera.orbit(avatar.pivot, 10, 5, 1.2), 4, None),
        (avatar.camera, 5, behind),
        (avatar.camera, 5, behind.flip(0)),
        (small, 5, None),
        (avatar.camera, -1, None),
        (small, 6, None),
    ]


def drawn(run: Path, motion: Motion) -> list[torch.Tensor]:
    avatar = Avatar.load(run, device="cpu", precision="float32")
    return [avatar.draw(camera, motion, i, background) for camera, i, background in views(avatar)]


@pytest.fixture
def recorded(monkeypatch):
    """The graphs that are recorded in the test, in order."""
    graphs, record = [], cuda_graph.FrameGraph._record

    def recording(self, pairs):
        record(self, pairs)
        graphs.append(self._graph)

    monkeypatch.setattr(cuda_graph.FrameGraph, "_record", recording)
    return graphs


def test_replayed_frames_are_the_drawn_ones(run, motion, recorded, monkeypatch):
    expected = drawn(run, motion)
    with pretended(monkeypatch) as gpu:
        avatar = Avatar.load(run, device="cuda")
        pictures = [avatar.render(camera, motion, i, behind) for camera, i, behind in views(avatar)]
        # Compared only now: a replay must not write into pictures that were handed out.
        assert all(torch.equal(a.cpu(), b) for a, b in zip(pictures, expected, strict=True))
        assert [graph.replays for graph in recorded] == [3, 3, 2]  # with a background, also where it is zoomed in on
        assert "rasterize" in recorded[0].names and "triplane_encode" not in recorded[0].names
        gpu.waits.clear()
        avatar.render(avatar.camera, motion, 7)
        assert gpu.waits == ["_local_scalar_dense"]  # for the flag of lists that were too short


def test_longer_lists_are_recorded_where_a_picture_needs_them(run, motion, recorded, monkeypatch):
    plain = Avatar.load(run, device="cpu", precision="float32")
    cameras = [plain.camera.orbit(plain.pivot, 0, 0, zoom) for zoom in (8.0, 1.5, 8.0)]  # under 2 pairs each, over 2
    expected = [plain.draw(camera, motion, 4) for camera in cameras]
    monkeypatch.setattr(cuda_graph, "PAIRS_PER_GAUSSIAN", 1)
    with pretended(monkeypatch):
        avatar = Avatar.load(run, device="cuda")
        ours = [avatar.render(camera, motion, 4).cpu() for camera in cameras]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert len(recorded) == 2  # with lists for 2 pairs at once, for 4 with the second camera


def test_frames_are_recorded_and_replayed_on_the_device_of_the_model(run, motion, monkeypatch):
    """A new thread begins on the first GPU, wherever the model is."""
    found = []
    with pretended(monkeypatch) as gpu:
        for name in ("_record", "render"):
            method = getattr(cuda_graph.FrameGraph, name)

            def at(*arguments, method=method):
                found.append(list(gpu.current))
                return method(*arguments)

            monkeypatch.setattr(cuda_graph.FrameGraph, name, at)
        avatar = Avatar.load(run, device="cuda")
        avatar.render(avatar.camera, motion, 4)
    assert found == [[GPU], [GPU]] and gpu.current == []


def test_the_library_is_asked_for_sizes_on_the_device_of_the_tensor(monkeypatch):
    found = []

    def asked(dtype, *sizes):
        found.append(list(gpu.current))
        return 8 * sizes[0]

    with pretended(monkeypatch) as gpu:
        library = CudaLibrary(SimpleNamespace(avatar_cuda_some_workspace=asked), Path())  # pyright: ignore[reportArgumentType]
        scratch = library.workspace("some_workspace", torch.zeros(3, device="cuda"), 5)
        assert scratch.shape == (40,) and scratch.device == GPU and found == [[GPU]]


def test_threads_record_with_lists_of_their_own():
    """Two avatars at once: what one leaves does not become what the other, or the main thread, fills."""
    both, found = threading.Barrier(2, timeout=20), {}

    def record(count: int) -> None:
        with pair_capacity(count) as outer:
            both.wait()
            seen = [pair_capacity.current() is outer]
            with pair_capacity(count + 1) as inner:
                both.wait()
                seen.append(pair_capacity.current() is inner)
            both.wait()
            seen.append(pair_capacity.current() is outer)
            both.wait()
        found[count] = [*seen, pair_capacity.current() is None]

    threads = [threading.Thread(target=record, args=(count,)) for count in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {10: [True] * 4, 20: [True] * 4} and pair_capacity.current() is None


def test_graphs_of_what_was_replaced_are_forgotten(run, motion, recorded, monkeypatch):
    plain = Avatar.load(run, device="cpu", precision="float32")
    baked = bake(plain.model, motion, 4)
    baked.mean += 0.1  # so that it shows
    expected = [plain.draw(plain.camera, motion, 4)]
    plain.model.baked = baked
    expected += [plain.draw(plain.camera, motion, 4), expected[0]]
    with pretended(monkeypatch):
        avatar = Avatar.load(run, device="cuda")
        for basis, image in zip((None, baked.to(avatar.device), None), expected, strict=True):
            avatar.model.baked = basis
            assert torch.equal(avatar.render(avatar.camera, motion, 4).cpu(), image)
    assert len(recorded) == 3 and not torch.equal(expected[0], expected[1])


def test_few_graphs_are_kept(run, motion, recorded, monkeypatch):
    with pretended(monkeypatch):
        avatar = Avatar.load(run, device="cuda")
        for size in (32, 40, 48, 56, 64, 32, 64):
            avatar.render(avatar.camera.resized(size, size), motion, 4)
        assert isinstance(avatar.playback, cuda_graph.FrameGraphs) and len(avatar.playback._graphs) == cuda_graph.KEPT
    assert len(recorded) == 6  # the first size again, the last not


@pytest.mark.parametrize("failure", ["of torch", "of a kernel"])
def test_without_a_graph_frames_are_drawn(run, motion, capsys, monkeypatch, failure):
    expected = drawn(run, motion)[0]
    with pretended(monkeypatch) as gpu:
        avatar = Avatar.load(run, device="cuda")
        draw = waiting(avatar.model.draw) if failure == "of torch" else refusing(avatar.model.draw, gpu)
        monkeypatch.setattr(avatar.playback, "_draw", draw)
        for _ in range(2):
            assert torch.equal(avatar.render(avatar.camera, motion, 3).cpu(), expected)
        assert gpu.stream is gpu.default
    assert capsys.readouterr().err.count("No CUDA graph could be made") == 1


def waiting(draw):
    """``draw``, but it looks at the picture, which no captured stream may."""

    def drawing(*arguments):
        image = draw(*arguments)
        assert int(image.sum()) > 0
        return image

    return drawing


def refusing(draw, gpu):
    """``draw``, but a kernel cannot be launched in a capture."""

    def drawing(*arguments):
        if gpu.graph is not None:
            raise AvatarError("cuda_animate: an invalid capture.")
        return draw(*arguments)

    return drawing


def test_two_avatars_are_recorded_at_once(run, motion, recorded, capsys, monkeypatch):
    """The second one wants to record while the first one does: torch permits one capture at a time."""
    expected = drawn(run, motion)[:2]
    capturing, found = threading.Event(), {}
    with pretended(monkeypatch) as gpu:
        first, second = (Avatar.load(run, device="cuda") for _ in range(2))
        draw = first.model.draw

        def slowly(*arguments):
            if gpu.graph is not None:
                capturing.set()
                follower.join(0.5)  # does it record meanwhile?
            return draw(*arguments)

        def render(avatar, index):
            with gpu, torch.no_grad():
                found[index] = avatar.render(avatar.camera, motion, index).cpu()

        def follow():
            assert capturing.wait(20)
            render(second, 4)

        monkeypatch.setattr(first.playback, "_draw", slowly)
        follower = threading.Thread(target=follow)
        follower.start()
        render(first, 3)
        follower.join()
        assert len(recorded) == 2 and gpu.stream is gpu.default
    assert "No CUDA graph" not in capsys.readouterr().err
    assert all(torch.equal(found[3 + i], image) for i, image in enumerate(expected))


def test_an_avatar_on_the_second_gpu_is_recorded_there(run, motion, recorded, monkeypatch):
    """The stream on which torch captures by default belongs to the GPU of the first capture."""
    expected = drawn(run, motion)[0]
    with pretended(monkeypatch):
        first, second = (Avatar.load(run, device="cuda") for _ in range(2))
        where = property(lambda model: torch.device("cuda", 1) if model is second.model else GPU)
        monkeypatch.setattr(type(first.model), "device", where)
        for avatar in (first, second):
            assert torch.equal(avatar.render(avatar.camera, motion, 3).cpu(), expected)
    assert recorded[0].names == recorded[1].names != []


def test_only_the_native_renderer_is_recorded(run, monkeypatch):
    def recorded() -> bool:
        return isinstance(Avatar.load(run, device="cuda").playback, cuda_graph.FrameGraphs)

    assert not isinstance(Avatar.load(run, device="cpu").playback, cuda_graph.FrameGraphs)
    with pretended(monkeypatch):
        assert recorded()
        monkeypatch.setenv("AVATAR_NATIVE", "reference")
        monkeypatch.setattr(Avatar, "coverage", lambda *_: 1.0)  # the reference keeps small tables on the CPU
        assert not recorded()


def test_the_gpu_check_compares_graph_drawn_frames_and_the_cpu(run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mia").symlink_to(run)
    monkeypatch.setattr(gpu_stages, "WORK", tmp_path)
    record = gpu_stages.Record(tmp_path / "agreement.json", 60.0)
    with pretended(monkeypatch):
        gpu_stages.agreement(record)
    found = json.loads((tmp_path / "agreement.json").read_text())["mia"]
    assert found["graph_recorded"] and found["largest_difference_graph_to_drawn"] == 0
    assert found["largest_difference_to_cpu"] <= 1 and found["frames"] >= 16
    assert cv2.imread(str(tmp_path / "agreement_mia_0.png")).std() > 5  # somebody to look at
