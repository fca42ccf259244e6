"""`avatar doctor`: passes here, and names what is broken where something is."""

import builtins
import sys

import pytest

from avatar.cli import doctor as command
from avatar.doctor import checks as doctor
from avatar.doctor import operators
from avatar.errors import AvatarError


def parts(findings):
    return {f.part.strip(): f for f in findings}


def test_this_installation_is_sound(capsys):
    command.main(command.Config())
    text = capsys.readouterr().out
    for word in ("python", "torch", "processor", "native library", "rasterize", "ssim", "face_landmarker"):
        assert word in text


def test_kernels_are_really_compared(monkeypatch):
    from avatar import native

    assert all(error <= doctor.TOLERANCE for error in operators.operator_errors().values())
    original = native.ssim
    monkeypatch.setattr(native, "ssim", lambda a, b: original(a, b) * 1.01)
    found = parts(doctor.check_native())
    assert found["ssim"].state == doctor.BROKEN and "differs" in found["ssim"].detail
    assert found["rasterize"].state == doctor.GOOD


def test_a_wrong_gradient_is_noticed(monkeypatch):
    from avatar import native

    original = native.triplane_encode
    monkeypatch.setattr(native, "triplane_encode", lambda p, t, r: original(p.detach(), t, r) + 0 * p.sum())
    assert operators.operator_errors()["triplane_encode"] > 0.1


def test_a_kernel_that_raises_is_a_line(monkeypatch):
    from avatar import native

    def boom(*_, **__):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(native, "rasterize", boom)
    assert operators.operator_errors()["rasterize"] == "RuntimeError: illegal instruction"


def test_broken_package_exits_with_the_remedy(monkeypatch, capsys):
    def failing(original):  # each its own: what __import__ returns for a.b is a, and others are imported meanwhile
        def fail(name, *args, **kwargs):
            if name == "soxr":
                raise ImportError("libsoxr.so.0: cannot open shared object file")
            return original(name, *args, **kwargs)

        return fail

    monkeypatch.delitem(sys.modules, "soxr", raising=False)
    monkeypatch.setattr(builtins, "__import__", failing(builtins.__import__))
    monkeypatch.setattr(doctor.importlib, "import_module", failing(doctor.importlib.import_module))
    with pytest.raises(AvatarError) as caught:
        command.main(command.Config())
    assert "soxr" in str(caught.value) and "pip install soxr" in str(caught.value)
    assert "libsoxr" in capsys.readouterr().out.replace("\n", "")


def test_a_missing_library_of_the_system_is_named(monkeypatch):
    original = doctor.importlib.import_module

    def fail(name, package=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return original(name, package)

    monkeypatch.setattr(doctor, "PACKAGES", {"opencv-contrib-python": ("cv2", "prepare"), "numpy": ("numpy", "all")})
    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    broken, fine = doctor.check_packages()
    assert broken.state == "broken" and "apt install libgl1" in broken.fix and "pip install" not in broken.fix
    assert fine.state == "ok" and not fine.fix


def test_every_kernel_is_compared():
    from avatar import native
    from avatar.native import reference

    named = {name for name in native.__all__ if hasattr(reference, name)}
    assert set(operators.operator_errors()) == named - {"deform_code", "draw"}  # parts of deform_mlp and rasterize


def test_backends_are_a_line_each(monkeypatch):
    from avatar.backends import requirements

    why = AvatarError(
        "--renderer gsplat needs the package gsplat,", why="which is not installed.", fix="pip install gsplat"
    )
    monkeypatch.setattr(requirements, "problem", lambda name: why if name == "gsplat" else None)
    found = parts(doctor.check_backends())
    assert set(found) == set(requirements.BACKENDS)
    assert all(f.state == doctor.GOOD for f in found.values())  # none is needed
    assert (
        found["gsplat"].detail == "not available: --renderer gsplat needs the package gsplat, which is not installed."
    )
    assert found["nerfacc"].detail == "available: --marcher nerfacc"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"avx2", "fma", "avx512f", "avx512_bf16"}, "avx2 fma avx512f; bfloat16: avx512_bf16 "),
        ({"asimd", "bf16"}, "asimd; bfloat16: bf16 "),
        (set(), "-; bfloat16: no "),
    ],
)
def test_the_processor_line_says_what_kernels_can_use(monkeypatch, flags, words):
    monkeypatch.setattr(doctor, "cpu", lambda: ("Example chip", flags))
    assert words in parts(doctor.check_machine())["processor"].detail


ALL_FLAGS = doctor.RUNS_WITH["avx512_bf16"]


@pytest.mark.parametrize(
    ("used", "flags", "best"),
    [
        ("baseline", ALL_FLAGS, "avx512_bf16"),
        ("baseline", ALL_FLAGS - {"avx512vl"}, "avx2"),
        ("avx2", ALL_FLAGS - {"avx512_bf16"}, "avx512"),
        ("avx512", ALL_FLAGS, "avx512_bf16"),
        ("avx2", ALL_FLAGS - {"avx512f"}, ""),
        ("avx512_bf16", ALL_FLAGS, ""),
        ("baseline", ALL_FLAGS - {"bmi2"}, ""),
        ("baseline", {"asimd", "bf16"}, ""),
        ("avx2", set(), ""),  # a system that does not say
    ],
)
def test_kernels_slower_than_the_processor_are_a_note(monkeypatch, used, flags, best):
    from avatar.native import library

    class Loaded:
        instruction_set = used

    monkeypatch.delenv("AVATAR_ISA", raising=False)
    monkeypatch.setattr(library, "library", Loaded)
    monkeypatch.setattr(doctor, "operator_errors", dict)
    monkeypatch.setattr(doctor, "cpu", lambda: ("Example chip", flags))
    (found,) = doctor.check_native()
    assert found.state == (doctor.NOTE if best else doctor.GOOD) and bool(found.fix) == bool(best)
    if best:
        assert f"has {best}." in found.fix and "pip install" in found.fix
        monkeypatch.setenv("AVATAR_ISA", used)
        (asked,) = doctor.check_native()
        assert "Unset AVATAR_ISA" in asked.fix and "pip" not in asked.fix


def test_kernels_here_run_with_what_the_processor_has(monkeypatch):
    from avatar.native.library import library

    if (loaded := library()) is None:
        pytest.skip("no native library")
    assert set(doctor.RUNS_WITH) >= {loaded.instruction_set}
    if "AVATAR_ISA" not in doctor.os.environ:
        assert doctor.faster(loaded.instruction_set, doctor.cpu()[1]) == ""


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def check_gpu():
        raise RuntimeError("driver mismatch")

    monkeypatch.setattr(doctor, "check_gpu", check_gpu)
    finding = parts(doctor.examine())["gpu"]
    assert finding.state == doctor.BROKEN and "driver mismatch" in finding.detail


def test_absent_assets_are_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("AVATAR_CACHE", str(tmp_path))
    monkeypatch.delenv("AVATAR_ASSETS", raising=False)
    found = parts(doctor.check_assets())
    assert found["face_landmarker"].state == doctor.NOTE
    assert "avatar assets --fetch face_landmarker" in found["face_landmarker"].fix
