"""The public surface as JSON: every public name with its signature. ``python -m tests.api_surface`` writes it anew."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from pathlib import Path
from typing import Any

import avatar

PATH = Path(__file__).with_suffix(".json")
# Special methods that callers use by their syntax.
_DUNDERS = {"__call__", "__enter__", "__exit__", "__getitem__", "__init__", "__iter__", "__len__"}


def surface() -> dict[str, Any]:
    """Every public name, and what it is."""
    return {name: described(getattr(avatar, name)) for name in sorted(avatar.__all__) if name != "__version__"}


def described(thing: Any) -> Any:
    """A function's signature, or a class's fields, methods and properties."""
    if not inspect.isclass(thing):
        return signature(thing)
    found: dict[str, Any] = {}
    if bases := [base.__name__ for base in thing.__bases__ if base not in (object, typing.Protocol)]:
        found["bases"] = bases
    if dataclasses.is_dataclass(thing) or issubclass(thing, tuple):
        found["fields"] = fields(thing)
    for name, member in sorted(members(thing).items()):
        if isinstance(member, property) or hasattr(member, "func"):  # or functools.cached_property
            getter = member.fget if isinstance(member, property) else member.func
            found.setdefault("properties", {})[name] = str(getter.__annotations__.get("return", ""))
        elif callable(member):
            found.setdefault("methods", {})[name] = kind(thing, name) + signature(member)
    return found


def fields(thing: Any) -> dict[str, str]:
    """Annotation and default of each field."""
    if not dataclasses.is_dataclass(thing):
        return {name: getattr(hint, "__forward_arg__", str(hint)) for name, hint in thing.__annotations__.items()}
    found = {}
    for field in dataclasses.fields(thing):
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        default = f" = {field.default!r}" if field.default is not dataclasses.MISSING else " = ..." if optional else ""
        found[field.name] = f"{field.type}{default}"
    return found


def members(thing: Any) -> dict[str, Any]:
    """Public methods and properties that the class itself or a base of this package defines."""
    found: dict[str, Any] = {}
    for base in reversed(thing.__mro__):
        if not base.__module__.startswith("avatar"):
            continue
        for name, member in vars(base).items():
            generated = dataclasses.is_dataclass(thing) or issubclass(thing, tuple | BaseException)
            own = getattr(member, "__qualname__", base.__qualname__).startswith(base.__qualname__)  # not a protocol's
            public = not name.startswith("_") or (name in _DUNDERS and own and not (name == "__init__" and generated))
            if public and not inspect.isclass(member):
                found[name] = member.__func__ if isinstance(member, staticmethod | classmethod) else member
    return found


def kind(thing: Any, name: str) -> str:
    """How a method is called."""
    member = inspect.getattr_static(thing, name)
    return {staticmethod: "static ", classmethod: "class "}.get(type(member), "")


def signature(function: Any) -> str:
    """A signature as it is written."""
    return str(inspect.signature(inspect.unwrap(function)))


def documented(thing: Any, name: str) -> list[str]:
    """Public names at and in a thing that have no docstring of their own."""
    lacking = [] if (thing.__doc__ or "").strip() else [name]
    if inspect.isclass(thing):
        for inner, member in members(thing).items():
            function = member.fget if isinstance(member, property) else member
            generated = inner in _DUNDERS or (typing.Protocol in thing.__bases__ and isinstance(member, property))
            if callable(member) and not generated and not (inspect.unwrap(function).__doc__ or "").strip():
                lacking.append(f"{name}.{inner}")
    return lacking


def written() -> str:
    """The file's text."""
    return json.dumps(surface(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(written())
