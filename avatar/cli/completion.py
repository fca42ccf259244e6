"""Print a script that lets a shell complete the commands, options and choices of `avatar`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from avatar.cli import completion_scripts, options
from avatar.cli.options import Known, Listed
from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Print a completion script for a shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell; docs/quickstart.md says where each looks for the script."""


Commands = Mapping[str, tuple[str, str]]  # module and one line on each, by name
Read = Callable[[Any, str, list[str]], Any]  # reads the options of a command: its module, its name, what is given


def main(config: Config, commands: Commands, read: Read) -> None:
    """Print the script on the standard output.

    Args:
        config: The shell.
        commands: All commands; `avatar.cli.main` gives them, which this module must not import.
        read: Its ``read_options``.
    """
    texts = {name: text for name, (_, text) in commands.items()}
    known = {name: known_options(name, module, read) for name, (module, _) in commands.items()}
    print(completion_scripts.WRITERS[config.shell](texts, known), end="")


def known_options(command: str, module: str, read: Read) -> list[Known]:
    """The options of a command; of `export` those of all its formats, of `train` those of all methods."""
    from avatar.export.registry import EXPORTERS
    from avatar.methods.registry import method_names

    named = {"--format": tuple(EXPORTERS.names()), "--method": tuple(method_names())}
    deciding = {"export": "--format", "train": "--method"}.get(command)
    argvs = [[]] if deciding is None else [[deciding, name] for name in named[deciding]]
    found: dict[tuple[str, ...], Known] = {}
    for argv in argvs:
        for known in _listed(importlib.import_module(module), command, argv, read):
            choices = known.choices or next((named[flag] for flag in known.flags if flag in named), ())
            found.setdefault((known.subcommand, *(known.flags or (known.text,))), known._replace(choices=choices))
    return list(found.values())


def _listed(module: Any, command: str, argv: list[str], read: Read) -> list[Known]:
    try:
        read(module, command, [*argv, options.LIST])
    except Listed as answer:
        return answer.options
    except AvatarError:  # a plug-in that cannot be loaded
        return []
    raise AssertionError(f"{command} reads its options in a way of its own")
