"""Train an avatar from a PERSON folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from avatar import log
from avatar.cli import options
from avatar.train.config import TrainConfig, check, from_file, from_preset

Config = TrainConfig
GROUPS = {
    "measurement": ("hold_out_yaw",),
    "log and checkpoint": ("preview_every", "save_every"),
    "config file": ("config", "print_config"),
    "speech": ("prior", "speech_encoder"),
    "hardware": ("threads",),
}
FIRST = ("method", "quality", "config")  # read before all others, which take their defaults from them


def parse(argv: Sequence[str], prog: str, description: str) -> TrainConfig:
    """Read the command line; defaults are those of its --method, --quality and --config.

    Raises:
        AvatarError: There is no such method or quality, or the file cannot be used.
    """
    first = {name: options.value_of(argv, name) for name in FIRST}
    needed: dict[str, Any] = {"person": tyro.MISSING, "out": tyro.MISSING}
    names = {name: value for name in ("method", "quality") if (value := first[name]) is not None}
    if first["config"] is not None:
        default = from_file(Path(first["config"]), **names, **needed)
    else:
        default = from_preset(**({"method": Config.method, "quality": Config.quality} | names), **needed)
    # A type whose options of the method are those of this one.
    kind = dataclasses.make_dataclass(
        "TrainConfig", [("model", type(default.model))], bases=(TrainConfig,), frozen=True, kw_only=True
    )
    found = options.parse(
        kind, argv, prog=prog, description=description, groups=GROUPS, default=kind(**_values(default))
    )
    return TrainConfig(**_values(found))


def _values(config: TrainConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}


def main(config: TrainConfig) -> None:
    """Train, or print the options.

    Raises:
        AvatarError: PERSON, an option or RUN is unsuitable, or another process writes to RUN.
    """
    from avatar.train.run import printed, train

    if config.print_config:
        check(config)
        print(printed(config), end="")
        return
    train(config)
    log.next_command(
        f"avatar render {log.word(config.out)} --audio SPEECH.wav --out {log.word(config.out / 'speech.mp4')}"
    )
