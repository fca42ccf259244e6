"""Write an avatar, what it does, or its person in the format of another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avatar.cli import options
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.export.registry import EXPORTERS
from avatar.infer.controls import Controls
from avatar.infer.speaking import Speaking


@dataclass(frozen=True, kw_only=True)
class Config:
    """Export a RUN folder, or a PERSON folder. `avatar export --format NAME --help` lists the options of a format."""

    folder: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`, or PERSON folder of `avatar prepare`."""
    format: str
    """arkit-json, baked, dataset, live-link, mesh, motion, web, or that of an installed package."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The file or folder to write."""


@dataclass(frozen=True, kw_only=True)
class _Doing:
    speaking: tyro.conf.OmitArgPrefixes[Speaking] = field(default_factory=Speaking)
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


@dataclass(frozen=True, kw_only=True)
class _Place:
    device: DeviceName = "auto"
    """Where to compute: auto takes a GPU where there is one and the CUDA library is built."""


def parse(argv: Sequence[str], prog: str, description: str) -> Any:
    """Read the command line; its --format is read first, because it decides which options there are.

    Raises:
        AvatarError: There is no --format, or none of this name.
    """
    named = options.value_of(argv, "format")
    if named is None and not {"-h", "--help"} & set(argv):
        raise AvatarError("--format is missing.", fix=f"Give one of {', '.join(EXPORTERS.names())}.")
    parts: list[tuple[str, Any, Any]] = []
    if named is not None:
        kind = EXPORTERS.get(named)
        if not is_dataclass(kind) or any(MISSING is part.default is part.default_factory for part in fields(kind)):
            raise AvatarError(f"The export format {named!r} is no dataclass whose fields all have a default.",
                              fix="Report it to those who wrote it.")  # fmt: skip
        needs = kind().needs()
        shown = {"doing": _Doing if "motion" in needs else None, "place": _Place if "avatar" in needs else None}
        for name, part in (shown | {"exporter": kind}).items():
            if part is not None:
                parts.append((name, tyro.conf.OmitArgPrefixes[part], field(default_factory=part)))
    config = make_dataclass("Config", parts, bases=(Config,), frozen=True, kw_only=True)
    config.__doc__, config.__module__ = Config.__doc__, __name__
    return options.parse(config, argv, prog=prog, description=description)


def main(config: Any) -> None:
    """Write the file or the folder.

    Raises:
        AvatarError: See `avatar.export.sources.export`.
    """
    from avatar.export.sources import export

    doing, place = getattr(config, "doing", _Doing()), getattr(config, "place", _Place())
    export(config.exporter, config.folder, config.out, doing.speaking, doing.controls, place.device)
