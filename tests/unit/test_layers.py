"""Imports point one way, without circles, and importing the command line stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "avatar"
# A module may import only from its own layer and the layers before it (docs/architecture.md). Every part is in one.
LAYERS = (
    {"errors", "log", "paths", "environment", "checks", "writing", "registry", "cluster", "page"},
    {"native", "geometry", "io", "provenance", "assets", "device", "backends"},
    {"audio", "motion", "losses"},
    {"data"},
    {"audio2motion", "headmotion", "fields", "synth", "sync", "preprocess"},
    {"methods"},
    {"train", "infer"},
    {"export", "viewer", "serve", "batch", "integrations", "eval", "bench", "corpus", "record", "doctor"},
    {"create"},
    {"demo"},
    {"cli", "__main__"},
)
PUBLIC = "__init__"  # avatar/__init__.py names what users import, lazily
# A method is found by its name: nothing else names one.
ONLY_BY_NAME = "avatar.methods."
SHARED_BY_METHODS = {
    f"avatar.methods.{name}"
    for name in ("animated", "base", "batch", "condition", "model_file", "options", "registry", "volume")
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file names: import statements anywhere in it, and strings as registries have them.

    Such a string is ``module`` or ``module:Class``.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "avatar":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "avatar"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0])
    return found & known


def layer(module: str) -> int:
    part = module.split(".")[1]
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(path, set(known)) - {"avatar", name} for name, path in known.items() if name != "avatar"}


def test_every_module_is_in_a_layer():
    parts = {name.split(".")[1] for name in modules() if name != "avatar"}
    assert parts == set().union(*LAYERS)


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if layer(target) > layer(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_no_circles():
    left = graph()
    while leaves := [name for name, targets in left.items() if not targets & set(left)]:
        for name in leaves:
            del left[name]
    assert not left, "\n".join(f"{name} -> {', '.join(sorted(targets & set(left)))}" for name, targets in left.items())


def test_nothing_but_the_methods_names_a_method():
    wrong = [
        f"{name} names {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if target.startswith(ONLY_BY_NAME)
        and target not in SHARED_BY_METHODS
        and not name.startswith("avatar.methods")  # the registry names the built-in ones
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_command_line():
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if target.startswith("avatar.cli") and not name.startswith(("avatar.cli", "avatar.__main__"))
    ]
    assert not wrong, "\n".join(wrong)


def test_help_does_not_import_torch():
    code = (
        "import sys; from avatar.cli.main import main; main(['--help']); "
        "sys.exit('torch' in sys.modules or 'tyro' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
