"""On a machine with a GPU: build the CUDA library, run its tests, time it (beside gsplat, if installed), write JSON."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).parents[1]
DEVICE = "cuda"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Build, test, time."""

    json: Path = Path("gpu_check.json")
    """Where the results go."""
    build: bool = True
    """Build and install the library for this GPU into the sources first."""
    gaussians: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Numbers of Gaussians to time."""
    sizes: tuple[int, ...] = (512, 1024)
    """Sides of the square picture, pixels."""
    repeats: int = 50
    """Timed runs per number; the median is reported."""


def main(config: Config) -> int:
    """Return 0 when the library builds and its tests pass."""
    import torch

    from avatar.environment import environment
    from avatar.errors import AvatarError
    from avatar.paths import write_json

    if not torch.cuda.is_available():
        raise AvatarError("gpu_check needs a GPU:", "torch.cuda.is_available() is false.")
    if config.build:
        build = ROOT / "build" / "cuda"
        options = ["-DAVATAR_CUDA=ON", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CUDA_ARCHITECTURES=native"]
        for command in (
            ["cmake", "-S", ROOT / "cuda_ext", "-B", build, *options],
            ["cmake", "--build", build, "--parallel"],
            ["cmake", "--install", build, "--prefix", ROOT],
        ):
            subprocess.run(command, check=True)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/kernels/test_cuda.py"], cwd=ROOT, capture_output=True, text=True
    )
    print(tests.stdout, tests.stderr)
    results: dict[str, Any] = environment() | {
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "tests_passed": tests.returncode == 0,
        "tests": tests.stdout.strip().splitlines()[-1:],
        "rows": [],
    }
    for size in config.sizes:
        for n in config.gaussians:
            for name, step in cases(n, size).items():
                row: dict[str, Any] = {"case": name, "gaussians": n, "size": size}
                try:
                    row["ms"] = milliseconds(step, config.repeats)
                except Exception as error:  # one that fails must not hide the others
                    row["error"] = f"{type(error).__name__}: {error}"
                results["rows"].append(row)
                print(row, flush=True)
            for name, compare in (("difference to gsplat", difference), ("graph to drawn frames", graph_difference)):
                results["rows"].append({"case": name, "gaussians": n, "size": size} | compare(n, size))
    write_json(config.json, results)
    return tests.returncode


def scene(n: int, size: int) -> dict[str, Any]:
    """A head-shaped cloud that fills most of the picture, as of ``avatar bench``, on the GPU."""
    import torch

    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    spacing = (4 * torch.pi * 80 / n) ** 0.5
    viewmat = torch.eye(4)
    viewmat[2, 3] = 60.0
    tensors = {
        "means": direction * (0.8 + 0.2 * torch.rand(n, 1, generator=g)) * torch.tensor([8.0, 10.0, 8.0]),
        "quats": torch.randn(n, 4, generator=g),
        "scales": spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g)),
        "colors": torch.rand(n, 3, generator=g),
        "opacities": 0.1 + 0.85 * torch.rand(n, generator=g),
        "viewmat": viewmat,
        "K": torch.tensor([[2.6 * size, 0, size / 2], [0, 2.6 * size, size / 2], [0, 0, 1]]),
        "target": torch.rand(size, size, 3, generator=g),
    }
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


def ours(s: dict[str, Any], size: int) -> Any:
    """The picture by this package."""
    from avatar import native

    radii, means2d, depths, conics = native.project_gaussians(
        s["means"], s["quats"], s["scales"], s["viewmat"], s["K"], size, size
    )
    return native.rasterize(means2d, conics, s["colors"], s["opacities"], depths, radii, size, size)[0]


def pairs(s: dict[str, Any], size: int) -> int:
    """How many (tile, Gaussian) pairs the picture has."""
    import torch

    from avatar import native
    from avatar.native.cuda import bin_gaussians

    with torch.no_grad():
        radii, means2d, depths, conics = native.project_gaussians(
            s["means"], s["quats"], s["scales"], s["viewmat"], s["K"], size, size
        )
        return len(bin_gaussians(means2d, conics, s["opacities"], depths, radii, size, size)[2])


def gsplats(s: dict[str, Any], size: int) -> Any:
    """The picture by gsplat, or None without it."""
    try:
        gsplat = importlib.import_module("gsplat")
    except ImportError:
        return None
    arguments = (s["means"], s["quats"], s["scales"], s["opacities"], s["colors"])
    return gsplat.rasterization(*arguments, s["viewmat"][None], s["K"][None], size, size, packed=False)[0][0]


def cases(n: int, size: int) -> dict[str, Callable[[], Any]]:
    """What is timed."""
    import torch

    from avatar import native

    s = scene(n, size)
    leaves = [s[name].requires_grad_() for name in ("means", "quats", "scales", "colors", "opacities")]
    resolutions = [round(16 * 1.25**level) for level in range(12)]
    table = torch.randn(3, 12, 2**15, 1, device=DEVICE).requires_grad_()
    points = (s["means"].detach() / 10.0).requires_grad_()
    picture = (0.8 * s["target"] + 0.1).requires_grad_()
    state = [torch.randn(n, 16, device=DEVICE) for _ in range(4)]
    shapes = [(n, 128), (64,), (64, 64), (64,), (10, 64), (10,), (10,)]
    network = [torch.randn(shape, device=DEVICE) for shape in shapes]
    for weight in network[1:-1]:
        weight.requires_grad_()
    encoded, bias = torch.randn(n, 36, device=DEVICE), torch.randn(128, device=DEVICE)
    spatial = torch.randn(128, 36, device=DEVICE).requires_grad_()

    def both(make: Callable[[], Any], *inputs: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(make(), inputs)

    def forward(make: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return make()

        return run

    def loss(draw: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: (draw(s, size) - s["target"]).square().mean()

    def in_a_graph() -> Callable[[], Any]:
        """The same step without waiting for the device, captured once and replayed."""
        step, stream = both(loss(ours), *leaves), torch.cuda.Stream()
        with native.pair_capacity(int(1.3 * pairs(s, size)) + 1) as capacity:
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graph.replay()
            if capacity.overflowed():
                raise RuntimeError("more pairs than the capacity")
        return graph.replay

    def graph_replay() -> Any:
        if "replay" not in graphs:
            graphs["replay"] = in_a_graph()
        return graphs["replay"]()

    graphs: dict[str, Callable[[], Any]] = {}
    result = {
        "render": forward(lambda: ours(s, size)),
        "render and backward": both(loss(ours), *leaves),
        "render and backward, CUDA graph": graph_replay,
        "triplane": forward(lambda: native.triplane_encode(points, table, resolutions)),
        "triplane and backward": both(
            lambda: native.triplane_encode(points, table, resolutions).square().sum(), points, table
        ),
        "deformation network and backward": both(
            lambda: native.deform_mlp(encoded, spatial, bias, *network[1:]).square().mean(), spatial, *network[1:-1]
        ),
        "SSIM and backward": both(lambda: native.ssim(picture, s["target"]), picture),
        "L1 + SSIM and backward": both(lambda: native.l1_ssim(picture, s["target"], 0.2).loss, picture),
        "Adam, 16 per Gaussian": lambda: native.adam_step(
            state[0], state[1], state[2], state[3], 1e-3, 0.9, 0.99, 1e-8, 1
        ),
        "deformation network": forward(lambda: native.deform_code(*network)),
    }
    avatar, track = frame_of_an_avatar(n, size)
    result["frame of an avatar"] = lambda: avatar.draw(avatar.camera, track, 3)
    result["frame of an avatar, CUDA graph"] = lambda: avatar.render(avatar.camera, track, 3)
    if gsplats(s, size) is not None:
        result["gsplat: render"] = forward(lambda: gsplats(s, size))
        result["gsplat: render and backward"] = both(loss(gsplats), *leaves)
    return result


def frame_of_an_avatar(n: int, size: int) -> tuple[Any, Any]:
    """A synthetic avatar and a motion, both on the GPU."""
    import torch

    from avatar.bench.person import make_avatar, motion

    return make_avatar(n, size, torch.device(DEVICE, 0)), motion(8).to(torch.device(DEVICE, 0))


def graph_difference(n: int, size: int) -> dict[str, Any]:
    """Largest difference, in grey levels, of frames from a CUDA graph to those drawn kernel by kernel: expected 0."""
    avatar, track = frame_of_an_avatar(n, size)
    views = [avatar.camera, avatar.camera.orbit(avatar.head_pivot, 20, 5, 1.5)]
    frames = [(camera, index) for camera in views for index in (2, 5)]
    largest = 0
    for camera, index in frames:
        error = avatar.render(camera, track, index).int() - avatar.draw(camera, track, index).int()
        largest = max(largest, int(error.abs().max()))
    return {"largest": largest, "graph": avatar._graphs is not None}


def milliseconds(step: Callable[[], Any], repeats: int) -> float:
    """Median time on the device."""
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
    return sorted(times)[len(times) // 2]


def difference(n: int, size: int) -> dict[str, float]:
    """Largest and mean difference of the pictures, 0..1; empty without gsplat."""
    import torch

    s = scene(n, size)
    with torch.no_grad():
        theirs = gsplats(s, size)
        if theirs is None:
            return {}
        error = (ours(s, size) - theirs).abs()
    return {"largest": error.max().item(), "mean": error.mean().item()}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
