"""Imports point one way, and importing the command line stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "avatar"
# A package may import only from its own layer and the layers before it (docs/design.md).
LAYERS = [
    {"checks", "errors", "log", "paths", "writing", "environment", "assets", "protobuf", "__init__"},
    {"geometry", "io", "native", "motion", "backends", "device"},
    {"fields", "losses", "data", "preprocess", "prior"},
    {"methods", "strategy", "configs"},
    {"train", "infer"},
    {"viewer", "eval", "corpus", "synth", "bench", "doctor"},
    {"cli", "__main__", "pipelines"},
]
# Calls back up, made inside functions only: the command line's glue, and stages that reuse a later part.
LAZY = {("methods", "train")}


def _layer(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def _imports(path: Path) -> set[tuple[str, bool]]:
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("avatar"):
            names = [node.module] if node.module != "avatar" else [f"avatar.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("avatar.")]
        for name in names:
            parts = name.split(".")
            if len(parts) > 1:
                found.add((parts[1], node in top))
    return found


def test_imports_point_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] == "pipelines":
            continue
        own = relative.parts[0].removesuffix(".py")
        for target, at_top in _imports(path):
            if not any(target in layer for layer in LAYERS):
                continue  # a name, not a package (avatar.__version__)
            lazy = not at_top and (own, target) in LAZY
            if own != target and _layer(target) > _layer(own) and not lazy:
                wrong.append(f"{relative} imports avatar.{target}")
    assert not wrong, "\n".join(wrong)


def test_help_does_not_import_torch():
    code = (
        "import sys, avatar.cli; avatar.cli.main(['--help']); sys.exit('torch' in sys.modules or 'tyro' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "create" in result.stdout
