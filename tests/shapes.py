"""Check the shapes that annotations state, wherever the tests call a function.

`conftest.py` calls :func:`install`: jaxtyping's import hook with :func:`check`, for the packages whose public functions
are annotated. Functions without an array in their annotations stay as they are: jaxtyping would wrap them all, and
those within functions at every call. Only arrays are checked: what else an argument is, pyright knows, and tests may
give a stand-in.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jaxtyping
from jaxtyping import AbstractArray, config

PACKAGES = tuple(
    f"avatar.{name}"
    for name in (
        "geometry",
        "motion",
        "losses",
        "audio",
        "audio2motion",
        "fields",
        "methods",
        "infer",
        "export",
    )
)


_ARRAY = re.compile(r"\b(Bool|B?Float\d*|U?Int\d*|Complex\d*|Num|Shaped|Real|Inexact|Integer)\[")


def install() -> None:
    """Check what is imported of `PACKAGES` from now on."""
    wrapped = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
        return lambda made: wrapped(made, typechecker=typechecker) if names_array(made) else made

    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]  # which the import hook puts before every function
    jaxtyping.install_import_hook(list(PACKAGES), f"{__name__}.{check.__name__}")


def names_array(made: Any) -> bool:
    """Whether annotations of a function, or the fields of a dataclass, name an array."""
    function = made.__init__ if inspect.isclass(made) else getattr(made, "__func__", made)
    hints = getattr(function, "__annotations__", {}).values()
    return any(_ARRAY.search(hint if isinstance(hint, str) else str(hint)) for hint in hints)


class ShapeError(TypeError):
    """An array has another type or shape than its annotation says."""


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with arrays among its arguments and results compared with their annotations."""
    kinds = inspect.signature(function).parameters.values()
    names = [kind.name for kind in kinds if kind.kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]
    known = functools.cache(functools.partial(_hints, function))  # at the first call: names may be defined below

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not (hints := known()):
            return function(*args, **kwargs)
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):  # quicker than binding a signature
            if name in hints:
                _compare(value, hints[name], f"{function.__qualname__}: {name}")
        result = function(*args, **kwargs)
        if "return" in hints:
            _compare(result, hints["return"], f"{function.__qualname__}: result")
        return result

    return checked


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    names = getattr(inspect.unwrap(function), "__globals__", {})
    hints = {}
    for name, hint in function.__annotations__.items():
        if isinstance(hint, str) and "[" not in hint:  # no shape
            continue
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)  # of this repository, not of a user
            except NameError:  # imported for the type checker alone: no array
                continue
        if _has_array(hint):
            hints[name] = hint
    return hints


def _has_array(hint: Any) -> bool:
    """Whether `_compare` looks for an array in a value of this type."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    parts = typing.get_args(hint)
    return (typing.get_origin(hint) is tuple or type(None) in parts) and any(map(_has_array, parts))


def _compare(value: Any, hint: Any, where: str) -> None:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        if not isinstance(value, hint):
            shape = list(getattr(value, "shape", ()))
            raise ShapeError(f"{where} is {type(value).__name__} {shape}, not {hint.__name__}")
    elif typing.get_origin(hint) is tuple and isinstance(value, tuple):
        for part, inner in zip(value, typing.get_args(hint)):
            _compare(part, inner, where)
    elif value is not None and type(None) in typing.get_args(hint):
        for inner in typing.get_args(hint):
            if inspect.isclass(inner) and issubclass(inner, AbstractArray):
                _compare(value, inner, where)


@contextmanager
def unchecked() -> Generator[None]:
    """Let wrong shapes reach the code inside, for tests of what it says about them itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
