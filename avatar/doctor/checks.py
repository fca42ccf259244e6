"""Check the installation: what is here, whether it works, and what to do where it does not."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from torch import Tensor

# distribution: (module, needed for)
PACKAGES = {
    "torch": ("torch", "everything"),
    "numpy": ("numpy", "everything"),
    "scipy": ("scipy", "prepare"),
    "mediapipe": ("mediapipe", "prepare, eval"),
    "opencv-contrib-python": ("cv2", "prepare, train"),
    "av": ("av", "reading and writing video"),
    "onnxruntime": ("onnxruntime", "speech features"),
    "soundfile": ("soundfile", "reading sound"),
    "soxr": ("soxr", "reading sound"),
    "safetensors": ("safetensors", "models"),
    "matplotlib": ("matplotlib", "reports"),
    "tensorboard": ("tensorboard", "training logs"),
    "viser": ("viser", "avatar view"),
    "hibari-tts": ("hibari", "the voice of avatar demo"),
}
OPTIONAL = {
    "tensorboard",
    "viser",
    "hibari-tts",
    "scikit-image",
}  # without them one command is missing, not the product
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "asimd")  # that the kernels can use
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
TOLERANCE = 2e-4  # relative error of a kernel in float32
GOOD, NOTE, BROKEN = "ok", "note", "broken"
_STYLES = {GOOD: "green", NOTE: "yellow", BROKEN: "red"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Check the installation."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        part: What was looked at.
        state: "ok", "note" (works, but could be better) or "broken".
        detail: What was found.
        fix: What to do, empty if nothing.
    """

    part: str
    state: str
    detail: str
    fix: str = ""


def main(config: Config) -> None:
    """Print the findings.

    Raises:
        AvatarError: Something that is needed is broken.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from avatar.log import next_command

    findings = examine()
    table = Table("part", "state", "found", "what to do", show_lines=False)
    for f in findings:
        table.add_row(f.part, f"[{_STYLES[f.state]}]{f.state}[/]", escape(f.detail), escape(f.fix))
    Console().print(table)
    if broken := [f for f in findings if f.state == BROKEN]:
        raise AvatarError(
            f"Broken: {', '.join(f.part for f in broken)}.", "", " ".join(f"{f.part}: {f.fix}" for f in broken if f.fix)
        )
    next_command("avatar demo")


def examine() -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Never raises."""
    findings: list[Finding] = []
    for check in (check_machine, check_packages, check_gpu, check_native, check_backends, check_video, check_assets):
        try:
            findings += check()
        except Exception as error:  # a broken installation fails in ways that nobody listed; each must be a line
            name = check.__name__.removeprefix("check_")
            findings.append(Finding(part=name, state=BROKEN, detail=_sentence(error), fix="Reinstall the package."))
    return findings


def check_machine() -> Iterator[Finding]:
    """Python, processor, memory, free disk."""
    import shutil

    from avatar import __version__, paths

    state = GOOD if sys.version_info >= (3, 10) else BROKEN
    yield Finding(part="avatar", state=GOOD, detail=f"{__version__}, {os.path.dirname(os.path.dirname(__file__))}")
    python = f"{platform.python_version()}, {sys.executable}"
    yield Finding(part="python", state=state, detail=python, fix="" if state == GOOD else "Install Python 3.10.")
    model, flags = cpu()
    features = " ".join(name for name in INSTRUCTION_SETS if name in flags) or "-"
    bfloat16 = ", ".join(name for name in BFLOAT16 if name in flags)
    use = "rendering uses it" if "avx512_bf16" in flags else "no kernel uses it"
    detail = f"{model}, {os.cpu_count()} cores, {features}; bfloat16: {bfloat16 or 'no'} ({use})"
    yield Finding(part="processor", state=GOOD, detail=detail)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        enough = memory >= 3.5
        fix = "" if enough else "Preparing a long video needs 3 GB: close other programs."
        yield Finding(part="memory", state=GOOD if enough else NOTE, detail=f"{memory:.1f} GB", fix=fix)
    folder = paths.cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    fix = "" if free > 2 else "Free some space, or set AVATAR_CACHE to another disk."
    yield Finding(part="disk", state=GOOD if free > 2 else NOTE, detail=f"{free:.1f} GB free in {folder}", fix=fix)


def cpu() -> tuple[str, set[str]]:
    """Name of the processor and its instruction sets, as Linux calls them; none where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            pairs = [line.split(":", 1) for line in file if ":" in line]
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {key.strip(): value.strip() for key, value in pairs}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name") or platform.machine(), set(flags)


def check_packages() -> Iterator[Finding]:
    """Whether every package that is needed is installed and can be imported."""
    try:
        from avatar.preprocess.landmarker import quiet_stderr
    except ImportError:  # then some of the packages below are at fault
        quiet_stderr = contextlib.nullcontext
    for distribution, (module, use) in PACKAGES.items():
        failure = ""
        try:
            found = version(distribution)
        except PackageNotFoundError:
            found = "version unknown"
        try:
            with quiet_stderr():
                importlib.import_module(module)
        except Exception as error:  # a damaged package can raise anything
            failure = _sentence(error)
        state = GOOD if not failure else NOTE if distribution in OPTIONAL else BROKEN
        fix = f"Needed for {use}: pip install {distribution}" if failure else ""
        yield Finding(part=distribution, state=state, detail=failure or found, fix=fix)


def check_gpu() -> Iterator[Finding]:
    """The graphics card, which nothing needs, and the library that uses it."""
    import torch

    from avatar.native import cuda_status

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding(part="gpu", state=GOOD, detail=f"{', '.join(names)} (CUDA {torch.version.cuda})")
    else:
        build = f"this torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build of torch"
        yield Finding(part="gpu", state=GOOD, detail=f"none, {build}; everything runs on the CPU")
    status = cuda_status()
    idle = torch.cuda.is_available() and status.startswith("not built")
    fix = "With nvcc on PATH: AVATAR_CUDA=1 pip install . in the sources." if idle else ""
    yield Finding(part="CUDA library", state=NOTE if idle else GOOD, detail=status, fix=fix)


def check_native() -> Iterator[Finding]:
    """The native library, and each of its operators against its reference on a tiny input."""
    from avatar.native import library_status

    status = library_status()
    missing = status.startswith("torch reference")
    fix = "Everything works, but several times slower. Follow the reason on the left." if missing else ""
    yield Finding(part="native library", state=NOTE if missing else GOOD, detail=status, fix=fix)
    for name, error in operator_errors().items():
        good = not isinstance(error, str) and error <= TOLERANCE
        detail = error if isinstance(error, str) else f"differs from the reference by {error:.1e}"
        fix = "" if good else "Set AVATAR_NATIVE=reference for now, reinstall, and report this table."
        yield Finding(part=f"  {name}", state=GOOD if good else BROKEN, detail=detail, fix=fix)


def check_backends() -> Iterator[Finding]:
    """The optional backends, none of which is needed: available, or why not. May compile one that is installed."""
    from avatar.backends.requirements import BACKENDS, problem

    for name, backend in BACKENDS.items():
        found = problem(name)
        detail = f"available: {backend.option}" if found is None else f"not available: {found.what} {found.why}"
        yield Finding(part=name, state=GOOD, detail=detail)


def operator_errors() -> dict[str, float | str]:
    """For each native operator the largest relative error of its results and gradients, or why it failed."""
    results: dict[str, float | str] = {}
    for name, (native, reference, inputs) in operator_cases().items():
        try:
            results[name] = compare(native, reference, inputs)
        except Exception as error:  # any failure of a kernel is this check's result
            results[name] = _sentence(error)
    return results


Function = Callable[..., "tuple[Tensor, ...]"]


def operator_cases() -> dict[str, tuple[Function, Function, list[Tensor]]]:
    """Operator, reference and small inputs, of which all are differentiated."""
    import torch

    from avatar import native
    from avatar.native import reference

    random = torch.Generator().manual_seed(0)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=random) * (high - low) + low

    def encode(module: Any) -> Function:
        return lambda points, table: (module.triplane_encode(points, table, [4, 8, 16]),)

    def project(module: Any) -> Function:
        intrinsics = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
        # The radii are whole numbers, decided by rounding: they are left out.
        return lambda *g: module.project_gaussians(*g, torch.eye(4), intrinsics, 32, 24)[1:]

    def skin(module: Any) -> Function:
        return lambda *inputs: module.skin_gaussians(*inputs)

    def animate(module: Any) -> Function:
        intrinsics = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
        index = torch.arange(60, dtype=torch.int32).reshape(20, 3) % 7
        frame = torch.tensor([0.0, 0, 3, -1, -1, 1, 1])

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:  # for playback, so without gradients
            given = [x.detach() for x in tensors]
            gaussians = native.CanonicalGaussians._make([*given[:6], index, given[6]])
            still = torch.eye(3, 4).repeat(2, 1, 1)
            motion = native.FrameMotion(given[7], given[8], still, given[9], given[10], frame)
            return module.animate_gaussians(gaussians, motion, torch.eye(4), intrinsics, 32, 24)[1:]

        return run

    def draw(module: Any) -> Function:
        depths, radii = torch.arange(12.0) + 1, torch.full((12,), 12, dtype=torch.int32)
        background = torch.tensor([0.2, 0.4, 0.6])
        return lambda *g: module.rasterize(*g, depths, radii, 32, 24, background)

    def similarity(module: Any) -> Function:
        return lambda a, b: (module.ssim(a, b),)

    def loss(module: Any) -> Function:
        target = torch.linspace(0, 1, 16 * 20 * 3).view(16, 20, 3)
        return lambda image: module.l1_ssim(image, target, 0.2)[:1]

    def network(module: Any) -> Function:
        scale = torch.linspace(0.5, 1, 10)
        return lambda *layers: (module.deform_mlp(*layers, scale),)

    def march(module: Any) -> Function:
        offsets, edges = torch.tensor([0, 5, 5, 20], dtype=torch.int32), torch.linspace(0, 2, 21)
        return lambda densities, colors: module.march_rays(offsets, edges[:-1], edges[1:], densities, colors)

    def adam(module: Any) -> Function:
        def step(param: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
            state = [param.detach().clone(), grad.detach(), torch.zeros(50), torch.zeros(50)]
            for number in (1, 2):
                module.adam_step(*state, 0.01, 0.9, 0.999, 1e-8, number)
            return tuple(state)

        return step

    bones = [(20, 3), (20, 4), (20,), (20, 3), (2, 3, 4), (2, 4)]
    layers = [(20, 12), (32, 12), (32,), (16,), (16, 16), (16,), (10, 16), (10,)]
    conics = torch.tensor([0.05, 0.0, 0.08]).repeat(12, 1) + uniform(12, 3, low=-0.01, high=0.01)
    cases = {
        "triplane_encode": (encode, [uniform(20, 3, low=-0.95, high=0.95), uniform(3, 3, 64, 2)]),
        "project_gaussians": (
            project,
            [
                uniform(20, 3, low=-0.5, high=0.5) + torch.tensor([0, 0, 3.0]),
                uniform(20, 4, low=-1) + torch.tensor([2.0, 0, 0, 0]),
                uniform(20, 3, low=0.05, high=0.2),
            ],
        ),
        "skin_gaussians": (skin, [uniform(*shape, low=-1) for shape in bones]),
        "animate_gaussians": (
            animate,
            [
                uniform(20, 3, low=-0.5, high=0.5) + torch.tensor([0, 0, 3.0]),
                *(uniform(20, width, low=-1) for width in (4, 3, 1, 3)),
                uniform(20, 1),
                0.1 * uniform(20, 3),
                0.1 * uniform(12, 10),
                0.1 * uniform(7, 3),
                uniform(2, 4, low=0.5),
                0.1 * uniform(3, 4, 2),
            ],
        ),
        "rasterize": (
            draw,
            [uniform(12, 2, high=1) * torch.tensor([32.0, 24]), conics, uniform(12, 3), uniform(12, low=0.3, high=0.8)],
        ),
        "ssim": (similarity, [uniform(16, 20, 3), uniform(16, 20, 3)]),
        "l1_ssim": (loss, [uniform(16, 20, 3)]),
        "deform_mlp": (network, [uniform(*shape, low=-0.5, high=0.5) for shape in layers]),
        "march_rays": (march, [5 * uniform(20), uniform(20, 3)]),
        "adam_step": (adam, [uniform(50), uniform(50)]),
    }
    return {name: (make(native), make(reference), inputs) for name, (make, inputs) in cases.items()}


def compare(native: Function, reference: Function, inputs: list[Tensor]) -> float:
    """Largest error of results and gradients, relative to the largest value of the tensor it is in."""
    import torch

    def evaluate(function: Function) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = function(*leaves)
        gradients: tuple[Tensor, ...] = ()
        if any(o.requires_grad for o in outputs):
            total = sum((o * torch.linspace(0.5, 1.5, o.numel()).reshape(o.shape)).sum() for o in outputs)
            gradients = torch.autograd.grad(total, leaves)  # type: ignore[arg-type]
        return [o.detach() for o in (*outputs, *gradients)]

    worst = 0.0
    for ours, theirs in zip(evaluate(native), evaluate(reference), strict=True):
        worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6)))
    return worst if worst == worst else float("inf")  # NaN


def check_video() -> Iterator[Finding]:
    """Whether H.264 and AAC, in which results are written, can be encoded."""
    import av

    for name, kind in (("libx264", "video"), ("aac", "sound")):
        try:
            av.Codec(name, "w")
            yield Finding(part=f"{kind} encoder", state=GOOD, detail=name)
        except Exception as error:  # av's own class for an unknown codec changed its name between versions
            fix = "pip install --force-reinstall --only-binary av av"
            yield Finding(part=f"{kind} encoder", state=BROKEN, detail=f"{name}: {_sentence(error)}", fix=fix)


def check_assets() -> Iterator[Finding]:
    """Which pretrained parts are on this machine."""
    from avatar.assets.store import ASSETS, states

    for name, found in states().items():
        here = found not in ("absent", "damaged")
        fix = "" if here else f"Fetched when it is needed, or now: avatar assets --fetch {name}"
        detail = f"{found} ({ASSETS[name].purpose})"
        yield Finding(part=name, state=GOOD if here else NOTE, detail=detail, fix=fix)


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
