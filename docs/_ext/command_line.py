"""Write the reference of the command line from the dataclasses that the commands themselves read."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import tyro

from avatar.cli import options
from avatar.cli.main import COMMANDS, read_options


@dataclass(frozen=True)
class _Read(Exception):
    """What a command passes to the parser of options."""

    config: Any
    description: str
    groups: options.Groups
    default: Any


def _parser(name: str, *argv: str) -> _Read:
    """The dataclass of a command, with the defaults that it has after some options."""

    def parse(config: Any, _: Any, *, prog: str, description: str, groups: Any = None, default: Any = None) -> None:
        raise _Read(config, description, groups or {}, default)

    try:
        with mock.patch.object(options, "parse", parse):
            read_options(importlib.import_module(COMMANDS[name][0]), name, list(argv))
    except _Read as read:
        return read
    raise RuntimeError(f"avatar {name} reads its options in another way.")


def markdown() -> str:
    """One section per command, one table per group of options."""
    return "\n\n".join(part for name in COMMANDS for part in _command(name))


def _command(name: str) -> Iterator[str]:
    yield f"## avatar {name}"
    if name == "export":
        yield from _export()
    elif name == "train":
        read = _parser(name)
        yield read.description.strip()
        yield "Defaults are those of `--quality standard`; `avatar train --quality draft --help` shows others."
        yield from _tables(read)
        yield "### With `--method nerf`"
        yield from _tables(_parser(name, "--method", "nerf"), only="model")
    else:
        read = _parser(name)
        yield options.reflow(read.description)
        yield from _tables(read)


def _export() -> Iterator[str]:
    """The options of all formats, then those of each."""
    from avatar.export.registry import EXPORTERS

    shared = list(_rows(_parser("export", "--format", "motion")))
    yield _parser("export", "--help").description.strip().split("\n\n")[0]
    yield "Formats that hold what the avatar does take all of these. Others take the first three, and `--device`."
    yield _table(shared)
    names = {row[0] for row in shared}
    for format_ in EXPORTERS.names():
        read = _parser("export", "--format", format_)
        yield f"### `--format {format_}`"
        yield options.reflow(EXPORTERS.get(format_).__doc__ or "").split("\n\n")[0]
        own = [row for row in _rows(read) if row[0] not in names]
        yield _table(own) if own else "It has no options of its own."


def _tables(read: _Read, only: str = "") -> Iterator[str]:
    """A table per group; subcommands have a heading each."""
    union = typing.get_origin(read.config) in (typing.Union, types.UnionType)
    for hint in typing.get_args(read.config) if union else (read.config,):
        kind, *marks = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        if union:
            yield f"### {next(mark.name for mark in marks)}"
            yield options.reflow(kind.__doc__ or "")
        yield from _groups(kind, read, only)


def _groups(kind: type, read: _Read, only: str) -> Iterator[str]:
    found = list(options._options(kind, read.default))
    parts = [option for option in found if options._part(option.hint) is not None]
    grouped = {name: title for title, names in read.groups.items() for name in names}
    if not only:
        simple = [option for option in found if option not in parts]
        for title in ("", *read.groups):
            rows = [_row(option, "") for option in simple if grouped.get(option.path[-1], "") == title]
            rows.sort(key=lambda row: (row[1] != "required", row[0].startswith("`-")))  # what must be given comes first
            if rows:
                yield (f"**{title[0].upper()}{title[1:]}**\n\n" if title else "") + _table(rows)
    for option in parts:
        name = option.path[-1]
        if not only or name == only:
            rows = list(_nested(option, ""))
            if rows:
                yield f"**`--{name}.*`**\n\n{_table(rows)}"


def _rows(read: _Read) -> Iterator[tuple[str, str, str]]:
    for option in options._options(read.config, read.default):
        yield from _nested(option, "")


def _nested(option: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Rows of an option, or of the dataclass that it holds."""
    part = options._part(option.hint)
    if part is None:
        yield _row(option, prefix)
        return
    default = None if option.default is MISSING else option.default
    for inner in options._options(part, default):
        yield from _nested(inner, f"{prefix}{option.path[-1].replace('_', '-')}.")


def _row(option: Any, prefix: str) -> tuple[str, str, str]:
    """Name and value, default, and what it does."""
    hint, *marks = typing.get_args(option.hint) if typing.get_origin(option.hint) is Annotated else (option.hint,)
    name = option.path[-1].replace("_", "-")
    text = options.reflow(option.text).replace("\n\n", " ")
    if tyro.conf.Positional in marks:
        return f"`{name.upper()}`", "" if option.default is None else "required", text
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    short = "".join(f", `{'' if alias.startswith('-') else '--'}{alias}`" for alias in aliases)
    if hint is bool:
        return f"`--{'no-' if option.default is True else ''}{prefix}{name}`{short}", "", text
    value = next((m.metavar for m in marks if getattr(m, "metavar", None)), None) or _kind(hint)
    default = "required" if option.default in (MISSING, tyro.MISSING) else _value(option.default)
    return f"`--{prefix}{name} {value}`{short}", default, text


def _value(value: Any) -> str:
    if value in (None, "", ()):
        return ""
    if isinstance(value, tuple | list):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _kind(hint: Any) -> str:
    """What stands for the value of an option."""
    inner = [kind for kind in typing.get_args(hint) if kind not in (type(None), Ellipsis)]
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, inner))
    if typing.get_origin(hint) is tuple:
        return f"{_kind(inner[0])} ..."
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return "|".join(_kind(kind) for kind in inner)
    return {Path: "PATH", str: "TEXT", int: "N", float: "X"}.get(hint, getattr(hint, "__name__", "VALUE").upper())


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| option | default | what it does |", "|---|---|---|"]
    cells = ([cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])
