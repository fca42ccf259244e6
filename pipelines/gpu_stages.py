"""What `pipelines.gpu_check` runs, a step per process: ``python -m pipelines.gpu_stages STEP OUT SECONDS``."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = Path(os.environ.get("AVATAR_GPU_WORK", "/tmp/avatar-gpu"))
COUNTS, SIZES = (10_000, 30_000, 100_000, 300_000), (512, 1024)
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default"]  # other versions warn

Result = dict[str, Any]


class Record:
    """What a step has measured so far; every addition is on disk at once."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.values = path, Result()
        self.until = time.monotonic() + seconds

    def add(self, **values: Any) -> None:
        self.values |= values
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values, default=str) + "\n")
        temporary.replace(self.path)
        print(values, flush=True)

    def row(self, table: str, **values: Any) -> None:
        self.add(**{table: [*self.values.get(table, []), values]})

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


# ---- build and test ------------------------------------------------------------------------------------------------


def device(record: Record) -> None:
    """What the machine is, and whether it computes at all."""
    import torch

    record.add(
        torch=torch.__version__, cuda=torch.version.cuda, gpu=torch.cuda.get_device_name(),
        capability=torch.cuda.get_device_capability(), nvcc=_last_line(["nvcc", "--version"]),
        driver=_last_line(["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]),
        memory=_last_line(["free", "-g"]), cores=os.cpu_count(),
    )  # fmt: skip
    x = torch.arange(1 << 20, device="cuda", dtype=torch.float64)
    record.add(computes=bool(x.sum().item() == (1 << 20) * ((1 << 20) - 1) / 2))


def build(record: Record) -> None:
    """Build the CPU and the CUDA library for this machine into the sources."""
    folder = ROOT / "build" / "gpu"
    options = ["-DAVATAR_CUDA=ON", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    for name, command in {
        "configure": ["cmake", "-G", "Ninja", "-S", ROOT / "cuda_ext", "-B", folder, *options],
        "compile": ["cmake", "--build", folder, "--parallel"],
        "install": ["cmake", "--install", folder, "--prefix", ROOT],
    }.items():
        began = time.monotonic()
        subprocess.run(command, check=True)
        record.add(**{f"{name}_seconds": round(time.monotonic() - began, 1)})
    from avatar.environment import environment
    from avatar.native import library_status
    from avatar.native.cuda import cuda_status

    record.add(environment=environment(), cpu_library=library_status(), cuda_library=cuda_status())


def tests(record: Record) -> None:
    """The CUDA kernels against the references and the CPU's, and what else needs a GPU."""
    files = ["tests/kernels/test_cuda.py", "tests/kernels/test_cuda_radiance.py", "tests/backends/test_marching.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--maxfail=15",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
    ]
    done = subprocess.run([*command, *files, "-k", "gpu"], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    record.add(summary=done.stdout.strip().splitlines()[-1:], failures=failures)
    if done.returncode:
        raise SystemExit(1)


def memory_check(record: Record) -> None:
    """compute-sanitizer over the CUDA tests: accesses out of bounds, then reads of memory that nothing wrote."""
    if shutil.which("compute-sanitizer") is None:
        record.add(skipped="there is no compute-sanitizer")
        return
    for tool in ("memcheck", "racecheck", "initcheck"):
        if record.left < 20:
            record.add(**{tool: "no time was left"})
            continue
        command = ["timeout", f"{record.left - 5:.0f}", "compute-sanitizer", "--tool", tool, "--print-limit", "20"]
        command += ["--kernel-name-exclude", "kernel_substring=at::native", "--error-exitcode", "9"]
        command += [*PYTEST, "-x", "tests/kernels/test_cuda.py", "-k", "gpu and cpus"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("=========")]
        record.add(**{tool: {"exit_code": done.returncode, "lines": lines[-25:]}})


def _last_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [""])[-1]


# ---- pictures: the GPU's beside the CPU's --------------------------------------------------------------------------


def agreement(record: Record) -> None:
    """A trained avatar's frames: from a CUDA graph, drawn kernel by kernel, and from the CPU."""
    import torch

    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

    for run in _runs():
        gpu = Avatar.load(run, device="cuda")
        cpu = Avatar.load(run, device="cpu", precision="float32")
        motion = Motion.load(run / "motion.safetensors")
        views = [gpu.camera, gpu.camera.orbit(gpu.pivot, 20, 5, 1.5)]
        graph_error, cpu_error, cpu_squared, frames = 0, 0, 0.0, 0
        for camera in views:
            for index in range(0, len(motion), max(1, len(motion) // 8)):
                replayed = gpu.render(camera, motion, index).cpu().int()
                drawn = gpu.draw(camera, motion, index).cpu().int()
                ours = cpu.render(camera, motion, index).int()
                graph_error = max(graph_error, int((replayed - drawn).abs().max()))
                cpu_error = max(cpu_error, int((replayed - ours).abs().max()))
                cpu_squared += float((replayed - ours).float().square().mean())
                frames += 1
                if frames == 1 or index == 0:
                    _save(record.path.with_name(f"agreement_{run.name}_{views.index(camera)}.png"), replayed)
        mse = cpu_squared / frames
        psnr = 100.0 if mse == 0 else 10 * math.log10(255**2 / mse)
        record.add(
            **{run.name: {
                "frames": frames, "gaussians": gpu.info["gaussians"],
                "graph_recorded": gpu.playback != gpu.model.draw,
                "largest_difference_graph_to_drawn": graph_error, "largest_difference_to_cpu": cpu_error,
                "psnr_to_cpu": round(psnr, 2),
            }}
        )  # fmt: skip
        torch.cuda.empty_cache()


def _save(path: Path, image: Any) -> None:
    import cv2

    cv2.imwrite(str(path), cv2.cvtColor(image.numpy().astype("uint8"), cv2.COLOR_RGB2BGR))


# ---- speed ---------------------------------------------------------------------------------------------------------


def frames(record: Record) -> None:
    """A frame of an avatar from its motion to grey levels on the GPU, with and without a CUDA graph."""
    import torch

    from avatar.bench.person import make_avatar, motion

    gpu = torch.device("cuda", 0)
    for size in SIZES:
        for n in COUNTS:
            avatar, track = make_avatar(n, size, gpu), motion(50).to(gpu)
            index = iter(range(1 << 30))
            replayed = _milliseconds(lambda a=avatar, t=track, i=index: a.render(a.camera, t, next(i) % 50), 200)
            recorded = avatar.playback != avatar.model.draw
            drawn = _milliseconds(lambda a=avatar, t=track, i=index: a.draw(a.camera, t, next(i) % 50), 100)
            record.row("rows", gaussians=n, size=size, graph=recorded, graph_ms=replayed, drawn_ms=drawn)
            del avatar
            torch.cuda.empty_cache()
    avatar = make_avatar(30_000, 512, gpu)
    track = motion(50).to(gpu)
    avatar.render(avatar.camera, track, 0)
    began = time.perf_counter()
    for index in range(1000):
        avatar.render(avatar.camera, track, index % 50).cpu()
    record.add(frames_per_second_to_host=round(1000 / (time.perf_counter() - began), 1))
    _profile(record, "frame", lambda: avatar.draw(avatar.camera, track, 3))


def train_steps(record: Record) -> None:
    """A training step, as the trainer launches it, by the clock over many steps."""
    import torch

    from avatar.bench.person import make_trainer

    for size, n in ((512, 30_000), (512, 10_000), (512, 100_000), (1024, 30_000)):
        trainer, batch = make_trainer(n, size)
        batch = batch.to(trainer.device)
        for _ in range(5):
            trainer.train_step(batch)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(100):
            trainer.train_step(batch)
        launched = time.perf_counter() - began
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        record.row(
            "rows", gaussians=n, size=size, device=str(trainer.device), step_ms=round(10 * seconds, 3),
            launching_ms=round(10 * launched, 3),
        )  # fmt: skip
        if n == 30_000 and size == 512:
            _profile(record, "step", lambda run=trainer.train_step, b=batch: run(b))
        del trainer


def kernels(record: Record) -> None:
    """Every kernel (`avatar bench`), the native ones alone."""
    _bench(record, "native")


def gsplat(record: Record) -> None:
    """The same beside gsplat in turns, and its tests, once it is compiled."""
    log = record.path.with_name("gsplat_compile.txt")
    while True:
        probe = "import gsplat.cuda._backend as b; raise SystemExit(b._C is None)"
        running = subprocess.run(["pgrep", "-f", "gsplat.cuda._backend"], capture_output=True, text=True).stdout
        if not running.strip():
            break
        if record.left < 60:
            record.add(skipped="gsplat was not compiled in time", log=log.read_text()[-1500:])
            return
        time.sleep(2)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=record.left)
    if done.returncode:
        record.add(skipped="gsplat could not be compiled", log=(log.read_text() + done.stderr)[-3000:])
        return
    _bench(record, "gsplat", ("project_gaussians", "rasterize", "whole frame"))
    tested = subprocess.run([*PYTEST, "tests/backends/test_gsplat.py"], cwd=ROOT, capture_output=True, text=True)
    print(tested.stdout, tested.stderr)
    failures = [line for line in tested.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    record.add(tests=tested.stdout.strip().splitlines()[-1:], failures=failures)


def _bench(record: Record, name: str, cases: tuple[str, ...] | None = None) -> None:
    """Rows of `avatar bench` on the GPU."""
    import torch

    from avatar.bench.cases import CASES, make_scene
    from avatar.bench.measure import interleaved

    gpu = torch.device("cuda", 0)
    for size in SIZES:
        for n in COUNTS:
            scene = make_scene(n, size, gpu)
            for make, depends in CASES.items():
                if size != SIZES[0] and "size" not in depends:
                    continue
                if record.left < 10:
                    record.add(cut="no time was left")
                    return
                try:
                    case = make(scene)
                    if cases is not None and case.name not in cases:
                        continue
                    runs = {key: run for key, run in case.runs.items() if key != "reference"}
                    if cases is None:
                        runs = {key: run for key, run in runs.items() if key in ("native", "CUDA graph")}
                    for run in runs.values():  # kernels are loaded, and memory taken, outside of the times
                        for _ in range(3):
                            run.forward()
                    forward = interleaved({k: lambda r=r: _forward(r) for k, r in runs.items()}, gpu, 30, 2.0)
                    both = interleaved(
                        {k: lambda r=r: _both(r) for k, r in runs.items() if r.leaves}, gpu, 30, 2.0
                    )  # fmt: skip
                    for key in runs:
                        record.row(
                            "rows", case=case.name, implementation=key, gaussians=n, size=size,
                            forward_ms=round(forward[key].ms, 4),
                            both_ms=round(both[key].ms, 4) if key in both else None,
                        )  # fmt: skip
                except Exception as error:  # one that fails must not hide the others
                    record.row("errors", case=make.__name__, gaussians=n, size=size, error=f"{error}"[:300])


def _forward(run: Any) -> Any:
    import torch

    with torch.no_grad():
        return run.forward()


def _both(run: Any) -> Any:
    import torch

    outputs = run.forward()
    return torch.autograd.grad(outputs, run.leaves, [torch.ones_like(x) for x in outputs])


def _milliseconds(step: Callable[[], Any], repeats: int) -> float:
    """Median between two events on the device."""
    import torch

    for _ in range(5):
        step()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return round(sorted(times)[len(times) // 2], 4)


def _profile(record: Record, name: str, step: Callable[[], Any]) -> None:
    """Which kernels the time on the device goes to, and how many are launched, over ten runs."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(10):
            step()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda e: -e.self_device_time_total)
    rows = [[e.key[:90], round(e.count / 10, 1), round(e.self_device_time_total / 1e4, 4)] for e in events]
    kernels, device_ms = (round(sum(row[i] for row in rows), 4) for i in (1, 2))
    record.add(**{f"{name}_profile": {"kernels": kernels, "device_ms": device_ms, "top": rows[:25]}})


# ---- the user's path -----------------------------------------------------------------------------------------------


def train(record: Record) -> None:
    """`avatar train --quality standard` of the longest person of the kit, on the GPU."""
    from avatar.data.run import MODEL, PERSONAL, TRACKING, TRAINING
    from avatar.paths import read_json

    persons = sorted(_folders("persons"), key=lambda p: -read_json(p / "person.json")["num_frames"])
    if not persons:
        record.add(skipped="the kit holds no person")
        return
    run = WORK / "runs" / f"{persons[0].name}-standard-gpu"
    command = [sys.executable, "-m", "avatar", "train", persons[0], "--out", run, "--device", "cuda"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    marks = {"model": run / MODEL, "tracking": run / TRACKING, "speech": run / PERSONAL, "everything": run / TRAINING}
    seen: dict[str, float] = {}
    while process.poll() is None and record.left > 10:
        for name, path in marks.items():
            if name not in seen and path.is_file():
                seen[name] = round(time.monotonic() - began, 1)
                record.add(seconds_until=seen, person=persons[0].name)
        time.sleep(0.2)
    for name, path in marks.items():
        if name not in seen and path.is_file():
            seen[name] = round(time.monotonic() - began, 1)
    if process.poll() is None:
        process.kill()
        record.add(cut="speech networks and generator were not all fitted in the time" if "tracking" in seen else "")
    record.add(seconds_until=seen, exit_code=process.wait(), run=run.name)
    for name in (MODEL, TRACKING, TRAINING):
        if (run / name).is_file():
            shutil.copy(run / name, record.path.with_name(f"{run.name}.{name}"))
    if "tracking" not in seen:
        raise SystemExit(1)


def picture(record: Record) -> None:
    """Picture metrics of what `train` made, on all held-out frames, tracked motion, rendered on the GPU.

    Landmarks are those of the PERSON folder: nothing is tracked anew, so metrics of the face's motion are left out.
    """
    import numpy as np

    from avatar.data import PersonDataset
    from avatar.eval.image_metrics import ImageMeter, RealFrame
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS

    for run in (r for r in _folders("runs") if (r / "tracking.safetensors").is_file() and r.name.endswith("-gpu")):
        data = PersonDataset(WORK / "persons" / run.name.removesuffix("-standard-gpu"), run / "tracking.safetensors")
        avatar = Avatar.load(run, device="cuda")
        lpips, meter = LPIPS.load().to(avatar.device), ImageMeter()
        for index in data.test_frames:
            image = avatar.render(avatar.camera, data.motion, int(index)).cpu().numpy()
            real = RealFrame(data.image(index), data.masks(index), np.asarray(data.landmarks[index])[:, :2], lpips)
            meter.compare(image, real)
        means = {name: round(float(np.nanmean(x)), 4) for name, x in meter.series().items()}
        record.add(**{run.name: means | {"frames": len(data.test_frames), "gaussians": avatar.info["gaussians"]}})


def render(record: Record) -> None:
    """`avatar render` of the kit's sounds to mp4, on the GPU and on the CPU, with the prior shared by all people."""
    for run in _runs():
        for sound in sorted((WORK / "sounds").glob("*")):
            for device in ("cuda", "cpu"):
                out = record.path.with_name(f"{run.name}_{device}.mp4")
                command = [sys.executable, "-m", "avatar", "render", run, "--audio", sound, "--out", out]
                command += ["--device", device, "--speech", "shared", "--json", out.with_suffix(".json")]
                done = subprocess.run(command, cwd=ROOT, timeout=record.left)
                result = json.loads(out.with_suffix(".json").read_text()) if done.returncode == 0 else {}
                record.row("rows", run=run.name, sound=sound.name, device=device, exit_code=done.returncode, **result)


def _folders(kind: str) -> list[Path]:
    return sorted(p for p in (WORK / kind).glob("*") if p.is_dir())


def _runs() -> list[Path]:
    return [run for run in _folders("runs") if (run / "motion.safetensors").is_file()]


STEPS: dict[str, Callable[[Record], None]] = {
    "device": device,
    "build": build,
    "tests": tests,
    "agreement": agreement,
    "frames": frames,
    "train_steps": train_steps,
    "train": train,
    "picture": picture,
    "render": render,
    "kernels": kernels,
    "gsplat": gsplat,
    "memory_check": memory_check,
}


if __name__ == "__main__":
    step, folder, seconds = sys.argv[1:]
    STEPS[step](Record(Path(folder) / f"{step}.json", float(seconds)))
