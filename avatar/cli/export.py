"""Write an avatar, what it does, or its person in the format of another program."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from avatar.cli import options
from avatar.cli.speaking import Speaking
from avatar.data.outputs import refuse_to_overwrite
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.export.base import Exporter, ExportSource
from avatar.export.registry import EXPORTERS
from avatar.infer.controls import Controls
from avatar.writing import one_writer

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar


@dataclass(frozen=True, kw_only=True)
class Config:
    """Export a RUN folder, or a PERSON folder. `avatar export --format NAME --help` lists the options of a format."""

    folder: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`, or PERSON folder of `avatar prepare`."""
    format: str
    """arkit-json, baked, dataset, live-link, motion, or that of an installed package."""
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
    """Read the format first: which options there are depends on it."""
    named = _named(argv)
    if named is None and not {"-h", "--help"} & set(argv):
        raise AvatarError("--format is missing.", fix=f"Give one of {', '.join(EXPORTERS.names())}.")
    parts: list[tuple[str, Any, Any]] = []
    if named is not None:
        kind = EXPORTERS.get(named)
        needs = kind().needs()
        shown = {"doing": _Doing if "motion" in needs else None, "place": _Place if "avatar" in needs else None}
        for name, part in (shown | {"exporter": kind}).items():
            if part is not None:
                parts.append((name, tyro.conf.OmitArgPrefixes[part], field(default_factory=part)))
    config = make_dataclass("Config", parts, bases=(Config,), frozen=True, kw_only=True)
    config.__doc__, config.__module__ = Config.__doc__, __name__
    return options.parse(config, argv, prog=prog, description=description)


def _named(argv: Sequence[str]) -> str | None:
    """The value of --format."""
    for i, word in enumerate(argv):
        if word == "--format" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--format="):
            return word.partition("=")[2]
    return None


def main(config: Any) -> None:
    """Write the file or the folder."""
    exporter: Exporter = config.exporter
    needs = exporter.needs()
    out = _target(config, exporter)
    if not config.folder.is_dir():
        raise AvatarError(f"There is no folder {config.folder}.", fix="Make one: avatar create VIDEO --out RUN")
    # What goes into the RUN folder belongs to its model, which must not be trained meanwhile.
    with one_writer(config.folder) if config.out is None else nullcontext():
        source = ExportSource(folder=config.folder)
        if "person" in needs:
            source = _with_person(config)
        if {"avatar", "motion"} & needs:
            source = _with_avatar(config, needs, out)
        exporter.write(source, out)


def _target(config: Config, exporter: Exporter) -> Path:
    if config.out is None:
        if exporter.default is None:
            raise AvatarError("--out is missing.", fix="Name the file or folder to write.")
        return config.folder / exporter.default
    if exporter.suffixes and not config.out.name.lower().endswith(exporter.suffixes):
        raise AvatarError(f"--out {config.out} must end in {' or '.join(exporter.suffixes)}.")
    return config.out


def _with_person(config: Config) -> ExportSource:
    from avatar.data import PersonDataset
    from avatar.data.run import MODEL, open_person

    trained = (config.folder / MODEL).is_file()
    data = open_person(config.folder) if trained else PersonDataset(config.folder)
    return ExportSource(folder=config.folder, person=data)


def _with_avatar(config: Any, needs: Any, out: Path) -> ExportSource:
    from avatar.infer.avatar import Avatar

    if "motion" not in needs:
        avatar = Avatar.load(config.folder, device=config.place.device, precision="float32")
        return ExportSource(folder=config.folder, avatar=avatar)
    speaking, controls = config.doing.speaking, config.doing.controls
    for path in (out, controls.print_timeline):
        if path is not None:
            refuse_to_overwrite(path, speaking.audio, controls.motion, controls.timeline)
    controls.check()
    controls.write_timeline()
    audio = speaking.open(out)
    device = config.place.device if "avatar" in needs else "cpu"
    return _moved(Avatar.load(config.folder, device=device), controls, audio)


def _moved(avatar: Avatar, controls: Controls, audio: Any) -> ExportSource:
    from avatar.infer.planner import plan_motion
    from avatar.motion import Motion

    plan = plan_motion(avatar, controls, frames=0 if audio is None else audio.frames(avatar.fps))
    motion = Motion.cat(list(plan.stream(audio or ())))
    return ExportSource(
        folder=avatar.run, avatar=avatar, motion=motion, audio=None if audio is None else audio.path
    )  # fmt: skip
