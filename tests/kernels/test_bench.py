"""`avatar bench`: what it measures ends up in the JSON, and the pages say what the JSON says. No timing is judged."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avatar import native
from avatar.bench import cases, curves, measure, report
from avatar.bench.measure import Timing, interleaved
from avatar.bench.person import make_avatar, make_trainer, motion, motion_blocks
from avatar.bench.run import FORMAT
from avatar.cli import bench
from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.motion import Motion

CPU = torch.device("cpu")


@pytest.fixture
def uncollected(monkeypatch):
    """Garbage stays before each gauge of memory: to collect it takes longer than all that is gauged here."""
    monkeypatch.setattr(measure, "gc", SimpleNamespace(collect=int, freeze=int, unfreeze=int))


@pytest.fixture
def collected():
    """Garbage is collected as usual; afterwards, `tests/conftest.py` has its way again."""
    yield
    gc.freeze()


def test_a_tiny_run_writes_all_that_the_pages_need(tmp_path, needs_native, uncollected):
    threads = torch.get_num_threads()
    config = bench.Config(
        gaussians=(40, 80), sizes=(32,), frames=(3, 12), threads=(1,), device="cpu", repeats=1, docs=tmp_path
    )
    bench.main(config)
    assert torch.get_num_threads() == threads
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert path.stem == report.hardware_name(result) and result["commit"] is not None
    ops = {(r["case"], r["implementation"], r["threads"]) for r in result["ops"]}
    for case in ("triplane_encode", "project_gaussians", "rasterize", "ssim", "whole frame"):
        assert {(case, "native", 1), (case, "reference", 1)} <= ops
    assert all(r["forward_ms"] > 0 and (r["both_ms"] or 1) > 0 and r["extra_bytes"] >= 0 for r in result["ops"])
    # An op is timed once per thing that its time depends on.
    rasterized = [r for r in result["ops"] if r["case"] == "rasterize" and r["implementation"] == "native"]
    assert len(rasterized) == 2
    assert len([r for r in result["ops"] if r["case"] == "ssim" and r["implementation"] == "native"]) == 1
    assert [(r["gaussians"], r["size"]) for r in result["model"]] == [(40, 32), (80, 32)]
    assert all(r["frame_ms"] > 0 and r["step_ms"] > 0 and r["frame_peak_bytes"] > 1e6 for r in result["model"])
    assert [r["frames"] for r in result["length"]] == [3, 12]
    page = (tmp_path / "README.md").read_text()
    assert "| rasterize | 80 | 32 |" in page and path.stem in page
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


RESULT: dict[str, Any] = {
    "format": FORMAT, "date": "2026-01-02T03:04:05Z", "commit": "0123456789abcdef+changes", "load_before": 0.5,
    "hardware": {"cpu": "Example(R) Chip CPU @ 3.0GHz", "cores": 4, "memory_bytes": 8 * 2**30, "gpu": None},
    "versions": {"torch": "2.9"}, "library": "native, avx2, 4 threads", "threads": [1, 4], "repeats": 3,
    "scenes": [{"gaussians": 1000, "size": 64, "pairs_per_tile": 119.6}],
    "skipped": [{"case": "rasterize", "implementation": "gsplat", "why": "It needs a GPU."}],
    "ops": [
        {"case": "rasterize", "implementation": name, "device": "cpu", "threads": threads, "gaussians": 1000,
         "size": 64, "forward_ms": forward, "both_ms": both, "runs": 3, "extra_bytes": 3 * 2**20}
        for name, threads, forward, both in (
            ("native", 1, 2.0, 9.0), ("native", 4, 0.8, 3.0), ("reference", 1, 400.0, 900.0),
            ("reference", 4, 100.0, 450.0),
        )
    ],
    "model": [
        {"gaussians": 1000, "size": 64, "frame_ms": 20.0, "frame_runs": 3, "frame_peak_bytes": 300 * 2**20,
         "step_ms": 50.0, "step_runs": 3, "step_peak_bytes": 400 * 2**20},
    ],
    "length": [
        {"frames": 10, "gaussians": 1000, "size": 64, "seconds": 0.5, "peak_bytes": 310 * 2**20},
        {"frames": 40, "gaussians": 1000, "size": 64, "seconds": 1.6, "peak_bytes": 311 * 2**20},
    ],
}  # fmt: skip


def test_kernels_are_timed_with_each_number_of_threads(tmp_path, needs_native, uncollected):
    out, before = tmp_path / "out.json", torch.get_num_threads()
    options = bench.Config(
        gaussians=(40,), sizes=(32,), threads=(1, 2), repeats=1, device="cpu", reference=False, model=False, json=out
    )
    bench.main(options)
    rows = [r for r in json.loads(out.read_text())["ops"] if r["case"] == "rasterize"]
    assert [(r["implementation"], r["threads"]) for r in rows] == [("native", 1), ("native", 2)]
    assert torch.get_num_threads() == before


def test_the_page_says_what_the_json_says(tmp_path):
    (tmp_path / "example-chip-4core.json").write_text(json.dumps(RESULT))
    assert main(["bench", "--no-run", "--docs", str(tmp_path)]) == 0
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "## example-chip-4core" in lines
    header = lines.index("### Kernels on the CPU, ms") + 2
    assert lines[header] == (
        "| op | Gaussians | image | forward, 1 thr | f+b, 1 thr | forward, 4 thr | f+b, 4 thr | f+b, 1 → 4 thr "
        "| reference f+b | reference / native | memory |"
    )
    assert lines[header + 2] == ("| rasterize | 1000 | 64 | 2.00 | 9.00 | 0.80 | 3.00 | 3.00 | 450 | 150 | 3 MB |")
    assert "| 1000 | 64 | 20.0 | 50.0 | 300 MB | 50.0 | 400 MB |" in lines
    assert "| 40 | 1.60 | 25.0 | 311 MB |" in lines
    assert "- Scene of 1000 Gaussians, 64 pixels: 120 Gaussians per 16x16 tile." in lines
    assert "- Left out: rasterize by gsplat. It needs a GPU." in lines
    assert any("commit 0123456789ab+changes" in line and "8 GB" in line for line in lines)
    assert (tmp_path / "example-chip-4core.png").is_file()
    assert not any("GPU, ms" in line for line in lines)


def test_results_of_a_gpu_are_compared_with_native(tmp_path):
    def row(name: str, both: float) -> dict[str, Any]:
        return RESULT["ops"][0] | {"implementation": name, "device": "cuda", "threads": None, "both_ms": both}

    result = RESULT | {"ops": [row("native", 2.0), row("reference", 90.0), row("gsplat", 3.0)]}
    (table,) = (t for t in report.tables(result) if t.title == "Kernels on the GPU, ms")
    assert [cells[3:7] for cells in table.rows] == [
        ["native", "2.00", "2.00", "1.00"], ["reference", "2.00", "90.00", "45"], ["gsplat", "2.00", "3.00", "1.50"],
    ]  # fmt: skip


def test_results_of_several_machines_share_a_page(tmp_path):
    other = RESULT | {"hardware": RESULT["hardware"] | {"cores": 8, "gpu": "NVIDIA Big One"}, "model": [], "length": []}
    for result in (RESULT, other):
        (tmp_path / f"{report.hardware_name(result)}.json").write_text(json.dumps(result))
    page = report.write_pages(tmp_path).read_text()
    assert "## example-chip-4core\n" in page and "## example-chip-8core-nvidia-big-one\n" in page


def test_nonsense_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for config, sentence in (
        (bench.Config(repeats=0), "at least 1"),
        (bench.Config(sizes=()), "at least one number"),
        (bench.Config(device="cuda"), "needs a CUDA GPU"),
        (bench.Config(run=False), "--docs"),
        (bench.Config(run=False, docs=tmp_path), "holds no results"),
    ):
        with pytest.raises(AvatarError, match=sentence):
            bench.main(config)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(AvatarError, match=r"other\.json is not a result"):
        bench.main(bench.Config(run=False, docs=tmp_path))


def test_tasks_take_turns_and_slow_ones_run_once(uncollected):
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    timings = interleaved(tasks, CPU, repeats=3, seconds=60)
    assert order == ["a", "b"] + ["a", "b"] * 3  # the first of each warms up
    assert timings["a"].runs == 3 and timings["a"].ms >= 0
    order.clear()
    assert interleaved(tasks, CPU, repeats=3, seconds=0)["b"].runs == 1
    assert order == ["a", "b"] * 2


def test_memory_of_a_task_is_seen():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's account of memory")
    taken = interleaved({"big": lambda: torch.ones(16 * 2**20).sum()}, CPU, 1, 1)["big"].extra_bytes
    assert 60 * 2**20 < taken < 200 * 2**20


def test_the_usual_scene_is_as_dense_as_an_avatar(needs_native):
    density = cases.make_scene(30_000, 512, CPU).pairs_per_tile
    assert density is not None and 100 < density < 140


def test_every_op_agrees_with_its_reference(needs_native):
    """What is compared in time computes the same."""
    scene = cases.make_scene(60, 32, CPU)
    for make in cases.CASES:
        case = make(scene)
        if {"native", "reference"} <= case.runs.keys():
            pairs = zip(case.runs["native"].forward(), case.runs["reference"].forward(), strict=True)
            for ours, theirs in pairs:
                tolerance = 1e-2 if "bfloat16" in case.name else 1e-3
                torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_an_op_is_added_by_a_function_and_one_that_cannot_run_is_noted(tmp_path, monkeypatch, needs_native, collected):
    def broken() -> tuple[torch.Tensor, ...]:
        raise AvatarError("No library here.")

    def shiny_op(scene: cases.Scene) -> cases.Case:
        def run() -> tuple[torch.Tensor, ...]:
            return (scene.colors * 2,)

        runs = {name: cases.Run(run, (scene.colors,)) for name in ("native", "reference")}
        return cases.Case("shiny_op", runs)

    def broken_op(scene: cases.Scene) -> cases.Case:
        return cases.Case("broken_op", {"native": cases.Run(broken, ())})

    monkeypatch.setattr(cases, "CASES", {shiny_op: ("gaussians",), broken_op: ()})
    out = tmp_path / "out.json"
    bench.main(bench.Config(gaussians=(20,), sizes=(16,), repeats=1, device="cpu", model=False, json=out))
    result = json.loads(out.read_text())
    assert {r["case"] for r in result["ops"]} == {"shiny_op"}
    assert result["skipped"] == [{"case": "broken_op", "implementation": "native", "why": "No library here."}]
    assert result["model"] == result["length"] == []


def test_without_the_native_library_the_reference_is_timed(tmp_path, monkeypatch, uncollected):
    monkeypatch.setattr("avatar.native.library._load", lambda: (None, "taken away"))
    out = tmp_path / "out.json"
    bench.main(bench.Config(gaussians=(10,), sizes=(16,), repeats=1, device="cpu", model=False, json=out))
    result = json.loads(out.read_text())
    assert {r["implementation"] for r in result["ops"]} == {"reference"}
    assert result["scenes"][0]["pairs_per_tile"] is None


def test_the_synthetic_avatar_moves_and_learns():
    avatar = make_avatar(300, 48)
    first, later = (avatar.render(avatar.camera, motion(20), i).float() for i in (0, 15))
    assert first.shape == (48, 48, 3) and (first - 102).abs().mean() > 5  # not only the plate
    assert (first - later).abs().mean() > 1
    trainer, batch = make_trainer(300, 48)
    losses = [trainer.train_step(batch) for _ in range(12)]
    assert losses[0] is not None and losses[-1] is not None and losses[-1]["mse"] < losses[0]["mse"]


def test_caches_are_filled_before_a_frame_is_timed(monkeypatch):
    """With a million Gaussians the first frame takes seconds that no later one takes."""
    calls, make = [], curves.make_avatar

    def spied(n: int, size: int) -> Any:
        avatar = make(n, size)
        render = avatar.render
        monkeypatch.setattr(avatar, "render", lambda *a: (calls.append("frame"), render(*a))[1])
        return avatar

    def timed(tasks: dict[str, Any], *_: Any) -> dict[str, Timing]:
        calls.append("timed")
        return {name: Timing(1.0, 1, 0) for name in tasks}

    monkeypatch.setattr(curves, "make_avatar", spied)
    monkeypatch.setattr(curves, "interleaved", timed)
    curves.model_rows([(50, 32)], 1, 0.0)
    assert calls[:2] == ["frame", "timed"]


def test_motion_comes_in_blocks_of_one_track():
    blocks = list(motion_blocks(120))
    assert [len(block) for block in blocks] == [50, 50, 20]
    torch.testing.assert_close(Motion.cat(blocks).face, motion(120).face)
    assert native.library_status()
