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
    """Export a RUN folder, or a PERSON folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`, or PERSON folder of `avatar prepare`."""
    format: str
    """Name of the format; `--format NAME --help` shows its options."""
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
    described = f"{description}\n\nFormats: {', '.join(EXPORTERS.names())}."
    if named is not None:
        kind = EXPORTERS.get(named)
        described = f"{description}\n\n{named}: {kind.__doc__ or ''}"
        if not is_dataclass(kind) or any(MISSING is part.default is part.default_factory for part in fields(kind)):
            raise AvatarError(f"The export format {named!r} is no dataclass whose fields all have a default.",
                              fix="Report it to those who wrote it.")  # fmt: skip
        needs = kind().needs()
        shown = {
            "doing": _Doing if needs & {"motion", "optional-motion"} else None,
            "place": _Place if "avatar" in needs else None,
        }
        for name, part in (shown | {"exporter": kind}).items():
            if part is not None:
                parts.append((name, tyro.conf.OmitArgPrefixes[part], field(default_factory=part)))
    config = make_dataclass("Config", parts, bases=(Config,), frozen=True, kw_only=True)
    config.__doc__, config.__module__ = Config.__doc__, __name__
    return options.parse(config, argv, prog=prog, description=described)


def main(config: Any) -> None:
    """Write the file or the folder.

    Raises:
        AvatarError: See `avatar.export.sources.export`.
    """
    from avatar.export.sources import export

    doing, place = getattr(config, "doing", _Doing()), getattr(config, "place", _Place())
    export(config.exporter, config.folder, config.out, doing.speaking, doing.controls, place.device)
