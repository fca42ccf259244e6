"""`from avatar import NAME`: the list of public names and their signatures, and that they load lazily."""

from __future__ import annotations

import ast
import difflib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import avatar
from tests.api_surface import PATH, documented, written

SOURCE = Path(avatar.__file__)


def test_surface_is_as_it_was_agreed_on():
    change = "\n".join(difflib.unified_diff(PATH.read_text().splitlines(), written().splitlines(), lineterm="", n=1))
    assert not change, f"The public surface changed. Is it meant? Then: python -m tests.api_surface\n{change}"


def test_every_public_name_has_a_docstring():
    lacking = [
        lack for name in avatar.__all__ if name != "__version__" for lack in documented(getattr(avatar, name), name)
    ]
    assert not lacking


def test_type_checkers_see_the_same_names():
    seen: set[str] = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            imports = [inner for inner in node.body if isinstance(inner, ast.ImportFrom)]
            seen = {alias.asname or alias.name for inner in imports for alias in inner.names}
            where = {alias.asname or alias.name: inner.module for inner in imports for alias in inner.names}
            assert where == {name: place.partition(":")[0] for name, place in avatar._PUBLIC.items()}
    assert {*seen, "__version__"} == set(avatar.__all__)
    assert set(avatar.__all__) <= set(dir(avatar))


@pytest.mark.parametrize("name", [name for name in avatar.__all__ if name != "__version__"])
def test_no_folder_of_the_package_has_the_same_name(name: str):
    """Importing that folder would replace what the name means."""
    assert not (SOURCE.parent / name).exists() and not (SOURCE.parent / f"{name}.py").exists()
    assert not inspect.ismodule(getattr(avatar, name))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        avatar.nothing_like_it  # noqa: B018


def test_import_loads_nothing():
    code = (
        "import sys, avatar; heavy = {'torch', 'numpy', 'tyro', 'rich', 'av'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from avatar import AvatarError; assert 'torch' not in sys.modules; "
        "from avatar import Motion; assert Motion.__name__ == 'Motion' and avatar.Motion is Motion"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parent.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
