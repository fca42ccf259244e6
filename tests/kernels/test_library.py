from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import _abi
from avatar.native.library import Library, _load, library, multiplies_bfloat16
from tests.kernels.scenes import random_scene

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reload(monkeypatch):
    """Load the library anew under other environment variables; undone after the test."""

    def load(**environment: str) -> str:
        for name in ("AVATAR_NATIVE", "AVATAR_ISA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        _load.cache_clear()
        return native.library_status()

    yield load
    monkeypatch.undo()
    _load.cache_clear()


def _means() -> list[float]:
    """The mean of every kernel's output on one scene."""
    s = random_scene(300, 90, 70, dtype=torch.float32)
    radii, means2d, depths, conics = native.project_gaussians(s.means, s.quats, s.scales, s.viewmat, s.K, 90, 70)
    image, alpha = native.rasterize(means2d, conics, s.colors, s.opacities, depths, radii, 90, 70)
    table = torch.linspace(-1, 1, 3 * 2 * 64).reshape(3, 2, 64, 1)
    features = native.triplane_encode(s.means / 20, table, [5, 20])
    code, weights = torch.linspace(-1, 1, 300 * 8).reshape(300, 8).bfloat16(), torch.linspace(-1, 1, 16).reshape(4, 4)
    moved = native.deform_code(code, *(weights[0], weights, weights[1], weights[2:], weights[3, :2], weights[3, :2]))
    outputs = (image, alpha, features, native.ssim(image, image.flip(0)), moved)
    return [x.double().mean().item() for x in outputs]


def test_bindings_match_the_header():
    spec = importlib.util.spec_from_file_location("generate_abi", ROOT / "cuda_ext" / "generate_abi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generated: dict = {}
    exec(module.generate(module.HEADER.read_text()), generated)
    assert generated["ABI_VERSION"] == _abi.ABI_VERSION
    assert generated["FUNCTIONS"].keys() == _abi.FUNCTIONS.keys()
    for name, (result, arguments) in generated["FUNCTIONS"].items():
        known_result, known_arguments = _abi.FUNCTIONS[name]
        assert result == known_result
        assert [a.__name__ for a in arguments] == [a.__name__ for a in known_arguments], name


@pytest.mark.usefixtures("needs_native")
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the system does not describe its processor")
def test_the_best_instruction_set_is_what_the_processor_has():
    """Whatever compiled it: Zig's runtime library answers `__builtin_cpu_supports` with no, always."""
    loaded = library()
    assert loaded is not None
    flags = set(Path("/proc/cpuinfo").read_text().split())
    expected = _abi.ISA_BASELINE
    if flags >= {"avx2", "fma", "bmi1", "bmi2", "abm"}:
        expected = _abi.ISA_AVX2
        if flags >= {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}:
            expected = _abi.ISA_AVX512_BF16 if "avx512_bf16" in flags else _abi.ISA_AVX512
    assert loaded.handle.avatar_best_isa() in (expected, min(expected, _abi.ISA_AVX512))  # old compilers lack bfloat16


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16"])
def test_every_instruction_set_gives_the_same_picture(isa, reload):
    loaded = library()
    assert loaded is not None
    if loaded.handle.avatar_best_isa() < getattr(_abi, f"ISA_{isa.upper()}"):
        pytest.skip(f"this machine has no {isa}")
    assert f"native, {isa}, " in reload(AVATAR_ISA=isa)
    assert multiplies_bfloat16() == (isa == "avx512_bf16")
    *numbers, moved = _means()
    status = reload(AVATAR_NATIVE="reference")
    assert "torch reference" in status and "AVATAR_NATIVE" in status
    *expected, expected_moved = _means()
    assert numbers == pytest.approx(expected, rel=1e-4)
    assert moved == pytest.approx(expected_moved, rel=1e-2 if isa == "avx512_bf16" else 1e-4)


def test_a_missing_library_falls_back_and_says_so(reload):
    status = reload(AVATAR_NATIVE="/nowhere/lib.so")
    assert "torch reference" in status and "/nowhere" in status
    assert all(x == x for x in _means())


def test_a_file_that_is_no_library_falls_back_and_says_so(reload, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    assert "does not load" in reload(AVATAR_NATIVE=str(broken))


@pytest.mark.usefixtures("needs_native")
def test_an_unknown_instruction_set_is_refused(reload):
    assert "AVATAR_ISA=mmx is not one of baseline" in reload(AVATAR_ISA="mmx")


def test_thread_count(any_threads):
    assert native.num_threads() == torch.get_num_threads()
    any_threads(3)
    assert native.num_threads() == 3
    with pytest.raises(AvatarError, match="at least one thread"):
        any_threads(0)


@pytest.mark.usefixtures("needs_native")
def test_a_call_uses_as_many_threads_as_its_scratch_memory_is_for(any_threads, monkeypatch):
    """Another thread sets their number between the two."""
    sized, used = [], []

    def workspace(self, name: str, like: torch.Tensor, *sizes: int) -> torch.Tensor:
        sized.append(sizes[0])
        memory = original(self, name, like, *sizes)
        any_threads(6)
        return memory

    def call(**values: int) -> _abi.Call:
        used.append(values["num_threads"])
        return made(**values)

    original, made = Library.workspace, _abi.Call
    monkeypatch.setattr(Library, "workspace", workspace)
    monkeypatch.setattr(_abi, "Call", call)
    any_threads(2)
    native.ssim(torch.rand(20, 20, 3), torch.rand(20, 20, 3))
    assert sized == used == [2]


@pytest.mark.usefixtures("needs_native")
def test_kernel_refusals_become_errors():
    loaded = library()
    assert loaded is not None
    with pytest.raises(AvatarError, match="adam_step: n, step are -1, 1"):
        loaded.call("adam_step", torch.zeros(1), None, None, None, None, -1, 0.1, 0.9, 0.9, 1e-8, 1)
