"""Python in pages: it compiles, its imports are there, and it calls what there is by the arguments that there are.

The examples of docs/python.md are run as well (`test_python_page`).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import textwrap
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avatar.errors import AvatarError
from tests import docs_text
from tests.docs_text import ROOT

ALL = [*docs_text.pages(), *docs_text.notes()]


@dataclass(frozen=True)
class Instance:
    """Some object of a class."""

    kind: type


@dataclass(frozen=True)
class Many:
    """Several objects of a class, to go through."""

    kind: type


class Reader(ast.NodeVisitor):
    """Follows what is known of the names in a page's blocks; what is not known is not checked."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.wrong: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.names[alias.asname or alias.name.partition(".")[0]] = self._module(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module(node.module or "")
        for alias in node.names:
            found = None
            if module is not None:
                try:
                    found = getattr(module, alias.name)
                except AttributeError:
                    self.wrong.append(f"{node.module} has no {alias.name}")
            self.names[alias.asname or alias.name] = found

    def _module(self, name: str) -> Any:
        """A module; None where it belongs to a package that is not installed, or to an example's own."""
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            return None
        try:
            return importlib.import_module(name)
        except (ImportError, AvatarError) as error:
            if not name.startswith("avatar.integrations"):  # these need other people's packages
                self.wrong.append(str(error))
            return None

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.look(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.names[target.id] = value
            else:
                self.generic_visit(target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.names[node.target.id] = self.look(node.value)

    def visit_For(self, node: ast.For) -> None:
        value = self.look(node.iter)
        for name in [found for found in ast.walk(node.target) if isinstance(found, ast.Name)]:
            self.names[name.id] = None
        if isinstance(value, Many) and isinstance(node.target, ast.Name):
            self.names[node.target.id] = Instance(value.kind)
        for statement in node.body:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer = dict(self.names)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            self.names[argument.arg] = None
        self.names[node.name] = None
        for statement in node.body:
            self.visit(statement)
        self.names = {**outer, node.name: None}

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self.look(base)
        self.names[node.name] = None

    def visit_Expr(self, node: ast.Expr) -> None:
        self.look(node.value)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.look(node)
        else:
            super().generic_visit(node)

    def look(self, node: ast.AST) -> Any:
        """What an expression is, None if that is not known; notes what cannot be."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Await):
            return self.look(node.value)
        if isinstance(node, ast.Attribute):
            return self._member(self.look(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._called(self.look(node.func), node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr | ast.comprehension | ast.keyword):
                self.look(child)
        return None

    def _member(self, of: Any, name: str) -> Any:
        if of is None:
            return None
        if isinstance(of, Many):
            return None
        if not isinstance(of, Instance):
            if not hasattr(of, name):
                self.wrong.append(f"{getattr(of, '__name__', of)} has no {name}")
            return getattr(of, name, None)
        if not of.kind.__module__.startswith("avatar"):
            return None
        member = inspect.getattr_static(of.kind, name, None)
        if isinstance(member, property):
            return _returned(member.fget)
        if member is not None:
            return getattr(of.kind, name)
        if name not in _fields(of.kind):
            self.wrong.append(f"{of.kind.__name__} has no {name}")
        return None

    def _called(self, function: Any, node: ast.Call) -> Any:
        for part in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.look(part)
        if not getattr(function, "__module__", "").startswith("avatar"):
            return None
        bound = (
            inspect.isfunction(function)
            and "." in function.__qualname__
            and "self" in inspect.signature(function).parameters
        )
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        try:
            if not starred:
                given = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*[None] * (len(node.args) + bound), **given)
        except TypeError as error:
            self.wrong.append(f"{function.__qualname__}: {error}")
        return Instance(function) if inspect.isclass(function) else _returned(function)


def _returned(function: Any) -> Instance | Many | None:
    try:
        kind = typing.get_type_hints(inspect.unwrap(function)).get("return")
    except Exception:  # names that exist for the type checker alone
        return None
    of = typing.get_args(kind)
    if of and inspect.isclass(of[0]) and typing.get_origin(kind) in (list, tuple, Iterator, Iterable):
        return Many(of[0])
    return Instance(kind) if inspect.isclass(kind) else None


def _fields(kind: type) -> set[str]:
    """Names of a class's fields, and of what its methods set on ``self``."""
    found: set[str] = set()
    for base in kind.__mro__:
        found |= set(getattr(base, "__annotations__", ()))
        if base.__module__.startswith("avatar"):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            nodes = (
                node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            )
            found |= {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "self"}
    return found


def mistakes(page: str) -> list[str]:
    """What is wrong with the Python of a page, its blocks one after the other."""
    reader, wrong = Reader(), []
    for line, code in docs_text.code_blocks(page, "python"):
        try:
            compile(code, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            reader.visit(ast.parse(code))
        except SyntaxError as error:
            wrong.append(f"line {line}: {error}")
    return wrong + reader.wrong


PAGES = [page for page in ALL if list(docs_text.code_blocks(page.read_text(encoding="utf-8"), "python"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_of_a_page_fits_the_package(page: Path):
    wrong = mistakes(page.read_text(encoding="utf-8"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from avatar import Avatr", "has no Avatr"),
        ("from avatar import Avatar\nAvatar.open('x')", "Avatar has no open"),
        ("from avatar import Avatar\na = Avatar.load('x')\na.talk('y')", "Avatar has no talk"),
        ("from avatar import Avatar, Session\ns = Session(Avatar.load('x'), nonsense=1)", "nonsense"),
        ("from avatar import Session\nasync def f():\n    s = Session(a)\n    await g(s.nothing)", "has no nothing"),
        ("from avatar import Session\ns = Session(a)\nfor f in s.step():\n    pass", "missing a required argument"),
        ("from avatar import Session\ns = Session(a)\nfor f in s.step(0):\n    f.picture", "Frame has no picture"),
        ("a = = 1", "invalid syntax"),
    ],
)  # fmt: skip
def test_a_mistake_is_found(code: str, said: str):
    assert any(said in reason for reason in mistakes(f"```python\n{code}\n```\n"))


def test_what_is_not_known_is_not_judged():
    assert not mistakes("```python\nx = unknown.thing(1)\nfor y in x:\n    print(y.z)\nawait x\n```\n")
