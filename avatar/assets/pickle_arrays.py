"""Read nested dictionaries of arrays from a pickle without running anything in it."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np


def read_array_pickle(data: bytes) -> Any:
    """Read nested dictionaries of float arrays from a pickle by interpreting its opcodes as data.

    Python's own unpickler imports and calls whatever a pickle names. Here the only names with a meaning are the three
    by which numpy describes an array; any other name, and any opcode that such a file does not need, is an error.

    Raises:
        ValueError: The pickle holds anything else.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return _plain(stack.pop())
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT" | "BININT1" | "BININT2" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[opcode.name]
                stack.append(tuple(stack.pop() for _ in range(count))[::-1])
            case "TUPLE":
                stack.append(tuple(_since(marks.pop(), stack)))
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                _fill(stack[-1], items)
            case "SETITEMS":
                items = _since(marks.pop(), stack)
                _fill(stack[-1], items)
            case "GLOBAL" if argument in _ARRAY_GLOBALS:
                stack.append(_ARRAY_GLOBALS[argument])
            case "REDUCE":  # the two calls of an array's description: dtype(code, ...) and _reconstruct(ndarray, ...)
                arguments, function = stack.pop(), stack.pop()
                stack.append(_called(function, arguments))
            case "BUILD":  # the states of both: (version, byte order, ...) and (version, shape, dtype, order, bytes)
                state, target = stack.pop(), stack[-1]
                _set_state(target, state)
            case _:
                raise ValueError(f"the pickle holds {opcode.name} {argument!r}, which no dictionary of arrays needs")
    raise ValueError("the pickle ends early")


def _since(mark: int, stack: list[Any]) -> list[Any]:
    """Take off the stack what was put there since a mark."""
    items = stack[mark:]
    del stack[mark:]
    return items


def _fill(container: Any, items: list[Any]) -> None:
    """Put keys and values, which take turns in ``items``, into a dictionary."""
    if not isinstance(container, dict) or len(items) % 2:
        raise ValueError("the pickle puts items into something that is not a dictionary")
    container.update(zip(items[::2], items[1::2], strict=True))


def _called(function: Any, arguments: Any) -> _Dtype | _Array:
    """What the two functions give by which numpy describes an array."""
    if function == "dtype":
        return _Dtype(arguments[0])
    if function == "reconstruct":
        return _Array()
    raise ValueError(f"the pickle calls {function!r}")


def _set_state(target: Any, state: Any) -> None:
    """Fill what :func:`_called` gave."""
    if isinstance(target, _Dtype):
        target.code = state[1] + target.code
    elif isinstance(target, _Array):
        _, shape, dtype, fortran, content = state
        target.value = np.frombuffer(content, np.dtype(dtype.code)).reshape(shape, order="F" if fortran else "C")
    else:
        raise ValueError("the pickle sets a state that no array has")


_ARRAY_GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
}


@dataclass
class _Dtype:
    code: str


@dataclass
class _Array:
    value: Any = None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, _Array) else value
