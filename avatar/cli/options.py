"""Parse the options of a command, and lay out its help.

A command's options are fields of its frozen dataclass ``Config``. The text of the help is the docstring under each
field; its lines are joined here, so a docstring may be wrapped as the code is.

Groups: what most people use comes first, in the box "options". A command moves the other fields into boxes of their
own by a table of titles, in the order in which they are to be shown:

    GROUPS = {"output": ("json", "save_video"), "hardware": ("device", "renderer")}

Each title names what a person wants to do; the box is called "TITLE options". Fields of an embedded dataclass without
prefix (``controls: tyro.conf.OmitArgPrefixes[Controls]``) are named like the command's own. An embedded dataclass with
prefix (``loss: LossConfig``) is a box by itself, after the others.

`avatar.cli.main` calls :func:`parse` with the ``Config`` and the ``GROUPS`` of the command's module. A command whose
defaults depend on other options defines ``parse(argv, prog, description)`` and calls :func:`parse` with ``default=``,
an instance in which `tyro.MISSING` stands for what the user has to give.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from avatar.checks import number
from avatar.errors import AvatarError

Groups = Mapping[str, Sequence[str]]
_DASHED = re.compile(r"-[^-\s=][^\s=]*\.[A-Za-z]\w{1,9}")  # a name with an ending, no option and no number
_METAVARS = {Path: "PATH", str: "STR", int: "INT", float: "FLOAT"}
LIST = "--list-options"  # asks parse() which options there are, instead of reading any
_LARGEST = 2.0**53  # of any number that is an option
# Of options that mean the same in every command; a command may allow less.
_RANGES = {
    "fps": (1.0, 1000.0), "size": (2.0, 16_384.0), "seconds": (0.0, 86_400.0), "seed": (0.0, 2.0**32 - 1),
    "threads": (0.0, 1024.0), "workers": (0.0, 1024.0), "steps": (0.0, 1e7),
}  # fmt: skip


class Known(NamedTuple):
    """An option or a positional argument of a command, for what lists them.

    Attributes:
        flags: Its names; none where it is positional.
        choices: Values there are to choose from; empty where they are free.
        takes: What follows: a file, some other value, or nothing.
        text: What it is, without the default.
        subcommand: Where it belongs to one alone.
    """

    flags: tuple[str, ...]
    choices: tuple[str, ...]
    takes: Literal["file", "value", "nothing"]
    text: str
    subcommand: str = ""


class Listed(Exception):
    """What :func:`parse` raises where the command line ends with `LIST`: its options."""

    def __init__(self, options: list[Known]) -> None:
        super().__init__()
        self.options = options


def parse(
    config: Any, argv: Sequence[str], *, prog: str, description: str, groups: Groups | None = None, default: Any = None
) -> Any:
    """Read options from a command line.

    Args:
        config: Dataclass of the options, or a union of subcommands.
        argv: The command line after the name of the command.
        prog: What the command is called in its help.
        description: First lines of the help.
        groups: Titles and the fields in each; see the module.
        default: Instance of ``config`` with the defaults, instead of those of the class.

    Returns:
        An instance of ``config``.

    Raises:
        SystemExit: With 0 after ``--help``, with 2 where an option is wrong.
        Listed: The command line ends with `LIST`.
    """
    if list(argv[-1:]) == [LIST]:
        raise Listed(listed(config, default))
    description = _wrapped(description)
    union = typing.get_origin(config) in (typing.Union, types.UnionType)
    kinds: dict[type, type] = {}
    hints = []
    for hint in typing.get_args(config) if union else (config,):
        kind, *marks = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        view = _view(kind, default, groups or {})
        kinds[view] = kind
        hints.append(Annotated[(view, *marks)] if marks else view)
    found = tyro.cli(functools.reduce(lambda a, b: a | b, hints), args=list(argv), prog=prog, description=description)
    return _original(kinds[type(found)], found)


def listed(config: Any, default: Any = None, prefix: str = "") -> list[Known]:
    """List the options of a command, in the order of its fields; arguments as of :func:`parse`."""
    if typing.get_origin(config) in (typing.Union, types.UnionType):
        found = []
        for hint in typing.get_args(config):
            kind, *marks = typing.get_args(hint)
            name = next(mark.name for mark in marks if getattr(mark, "name", None))
            found += [known._replace(subcommand=name) for known in listed(kind)]
        return found
    found = []
    for option in _options(config, default):
        if (part := _part(option.hint)) is not None:
            value = None if option.default is MISSING else option.default
            found += listed(part, value, f"{prefix}{_dashed(option)}.")
        else:
            found.append(_known(option, prefix))
    return found


def _dashed(option: _Option) -> str:
    return option.path[-1].replace("_", "-")


def _known(option: _Option, prefix: str) -> Known:
    hint, *marks = typing.get_args(option.hint) if typing.get_origin(option.hint) is Annotated else (option.hint,)
    text = reflow(option.text).split("\n")[0]
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    flags = (f"--{prefix}{_dashed(option)}", *aliases)
    if hint is bool and option.default is not MISSING:
        return Known((*flags, f"--{prefix}no-{_dashed(option)}"), (), "nothing", text)
    metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "")
    choices = metavar[1:-1].split(",") if metavar.startswith("{") and metavar.endswith("}") else _choices(hint)
    takes = "file" if Path in _kinds(hint) or "FILE" in metavar else "value"
    return Known(() if tyro.conf.Positional in marks else flags, tuple(choices), takes, text)


def _kinds(hint: Any) -> Iterator[Any]:
    """The types within a type: those of a union, a tuple, an annotated one."""
    inner = () if typing.get_origin(hint) is Literal else typing.get_args(hint)
    if not inner:
        yield hint
    for part in inner:
        yield from _kinds(part)


def _choices(hint: Any) -> list[str]:
    return [
        str(value) for kind in _kinds(hint) if typing.get_origin(kind) is Literal for value in typing.get_args(kind)
    ]


def plain_names(argv: Sequence[str]) -> list[str]:
    """Words of a command line, names of files that begin with a dash marked as such by ./ before them.

    A word is one where such a file exists, or where it has a single dash and ends as files do (``-take.mp4``).
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for i, word in enumerate(words[:end]):
        if word.startswith("-") and len(word) > 2 and (_DASHED.fullmatch(word) or _exists(word)):
            words[i] = f"./{word}"
    return words


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or with a null
        return False


def value_of(argv: Sequence[str], name: str) -> str | None:
    """Read one option before all others, which may depend on it: its last value in a command line, or None."""
    found = None
    for word, after in itertools.zip_longest(argv, argv[1:]):
        if word == f"--{name}" and after is not None:
            found = after
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def check_numbers(config: Any, prefix: str = "") -> None:
    """Refuse options that no command can mean: numbers that are not finite or of absurd size.

    Args:
        config: The configuration of a command, a dataclass of options and of parts like itself.
        prefix: What the names of its options begin with.

    Raises:
        AvatarError: There is one.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            check_numbers(value, prefix if "OmitArgPrefixes" in str(field.type) else f"{name}.")
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, bool) or not isinstance(item, int | float):
                continue
            if not abs(item) <= _LARGEST:  # false for NaN
                raise AvatarError(f"--{name} {item} is no number of possible size.")
            if not prefix and field.name in _RANGES:
                number(item, f"--{name}", *_RANGES[field.name])


def reflow(text: str) -> str:
    """Join the lines of each paragraph; blank lines and the items of lists still end one. Code is in single quotes."""
    text = re.sub(r"\n(?=[-*] )", "\n\n", inspect.cleandoc(text).replace("``", "`"))
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _wrapped(text: str) -> str:
    """A description in lines of the terminal's width. The indent keeps tyro from joining them again."""
    wrap = textwrap.TextWrapper(max(shutil.get_terminal_size().columns - 1, 40), break_on_hyphens=False)
    wrap.initial_indent = wrap.subsequent_indent = " "
    return "\n".join(wrap.fill(part) for part in reflow(text).split("\n\n"))


class _Option(NamedTuple):
    """One option: where its field is, its type with tyro's marks, its default (or MISSING), its text."""

    path: tuple[str, ...]
    hint: Any
    default: Any
    text: str


def _options(kind: type, default: Any, path: tuple[str, ...] = ()) -> Iterator[_Option]:
    """The fields of a dataclass, and those of its parts that have no prefix."""
    hints = typing.get_type_hints(kind, include_extras=True)
    texts = _texts(kind)
    for field in dataclasses.fields(kind):
        place, hint = (*path, field.name), hints[field.name]
        value = getattr(default, field.name) if default is not None else _class_default(field)
        part = _part(hint)
        if part is not None and tyro.conf.OmitArgPrefixes in getattr(hint, "__metadata__", ()):
            yield from _options(part, None if value is MISSING else value, place)
        else:
            yield _Option(place, hint, MISSING if value is tyro.MISSING else value, texts.get(field.name, ""))


def _class_default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _part(hint: Any) -> type | None:
    """The dataclass that a field holds, if it is one."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def _view(kind: type, default: Any, groups: Groups) -> type:
    """A dataclass for tyro: flat, each option with its text in one line, grouped."""
    options = {option.path[-1]: option for option in _options(kind, default)}
    fields = {name: _field(option) for name, option in options.items()}
    boxes = []
    for place, (title, names) in enumerate(groups.items()):
        inside = [fields.pop(name) for name in names if name in fields]
        if inside:
            box = _make(f"Group{place}", inside, "")
            hint = Annotated[box, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=title)]
            boxes.append((f"group_{place}", hint, box if _free(box) else MISSING))
    parts = [fields.pop(name) for name in list(fields) if _part(options[name].hint) is not None]
    return _make(kind.__name__, [*fields.values(), *boxes, *parts], reflow(kind.__doc__ or ""))


def _field(option: _Option) -> tuple[str, Any, Any]:
    """Name, type and default of an option in a view."""
    part = _part(option.hint)
    if part is not None:
        view = _view(part, None if option.default is MISSING else option.default, {})
        return option.path[-1], view, view if _free(view) else MISSING
    marks: dict[str, Any] = {"help": reflow(option.text)} if option.text else {}
    repeated = tyro.conf.UseAppendAction in getattr(option.hint, "__metadata__", ())
    if option.default in (None, "") or (option.default == () and not repeated):  # the text says what happens without it
        marks["help_behavior_hint"] = ""
    if (metavar := _metavar(option)) is not None:
        marks["metavar"] = metavar
    hint = Annotated[option.hint, tyro.conf.arg(**marks)] if marks else option.hint
    default = option.default
    return option.path[-1], hint, default if default is MISSING else lambda: default


def _metavar(option: _Option) -> str | None:
    """What stands for the value of a positional file or of an option that may be None; None: tyro's own word."""
    hint, *marks = typing.get_args(option.hint) if typing.get_origin(option.hint) is Annotated else (option.hint,)
    if any(getattr(mark, "metavar", None) for mark in marks):
        return None
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    if tyro.conf.Positional in marks and kinds == [Path]:
        return option.path[-1].upper()
    if option.default is not None or len(kinds) != 1:
        return None
    if typing.get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kinds[0]))) + "}"
    return _METAVARS.get(kinds[0])


def _free(view: type) -> bool:
    """Whether every option of a view has a default."""
    return all(f.default is not MISSING or f.default_factory is not MISSING for f in dataclasses.fields(view))


def _make(name: str, fields: Sequence[tuple[str, Any, Any]], text: str) -> type:
    """A dataclass of fields: name, type, what makes the default (or MISSING)."""
    listed = [
        (field, hint, dataclasses.field(default_factory=make, metadata=_said(field, hint)))
        for field, hint, make in fields
    ]
    return dataclasses.make_dataclass(name, listed, kw_only=True, namespace={"__doc__": text})


def _said(name: str, hint: Any) -> dict[str, str]:
    """The text of a field, where it has one already: for others tyro looks through the source of classes."""
    if is_dataclass(hint):
        return {"help": hint.__doc__ or ""}
    marked = any(getattr(mark, "help", None) for mark in getattr(hint, "__metadata__", ()))
    return {"help": ""} if marked or name.startswith("group_") else {}


def _original(kind: type, view: Any) -> Any:
    """The instance of ``kind`` that holds what was read into a view."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(view):
        value = getattr(view, field.name)
        if field.name.startswith("group_") and is_dataclass(value):
            values |= {inner.name: getattr(value, inner.name) for inner in dataclasses.fields(value)}
        else:
            values[field.name] = value

    def build(part: type) -> Any:
        hints = typing.get_type_hints(part, include_extras=True)
        filled = {}
        for field in dataclasses.fields(part):
            inner = _part(hints[field.name])
            if inner is None:
                filled[field.name] = values[field.name]
            elif field.name in values:
                filled[field.name] = _original(inner, values[field.name])
            else:
                filled[field.name] = build(inner)
        return part(**filled)

    return build(kind)


def _texts(kind: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass and of what it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        body = _classes(base.__module__).get(base.__name__, [])
        for statement, after in itertools.pairwise(body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[statement.target.id] = str(after.value.value)
    return texts


@functools.lru_cache
def _classes(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of each class of a module; none where its source is not there."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return {}
    return {node.name: node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
