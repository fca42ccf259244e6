"""Options of a training: a preset of the method and quality, then a file, then what the command line says."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import tyro

from avatar.checks import number, read_toml, whole
from avatar.data.run import FORMAT
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.methods.options import LossConfig, MethodConfig, OptimConfig, Schedule
from avatar.methods.registry import DEFAULT, preset

MOST_STEPS = 10_000_000
MOST_TURNED = 0.2  # of the training frames, left out on either side: some must be left to train on
_LISTED = 3  # options that an error names
# Options of one call of the command, which a file of options does not keep.
OF_THE_CALL = ("person", "out", "config", "resume", "overwrite", "print_config")
# Options that decide what a training step computes; a resumed run must keep them.
SETTINGS = ("method", "seed", "hold_out_yaw", "model", "loss", "optim", "schedule")
# Options that a student takes from its teacher.
FROM_TEACHER = ("prior", "speech_encoder", "hold_out_yaw")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an avatar."""

    person: Annotated[Path, tyro.conf.Positional]
    """PERSON folder, from `avatar prepare`."""
    out: Path
    """RUN folder to write."""
    quality: Annotated[str, tyro.conf.arg(metavar="{draft,standard,high}")] = "standard"
    """Preset of all options below: draft takes minutes, standard half an hour, high hours; far more with
    --method nerf."""
    method: str = DEFAULT
    """Renderer to train: gaussian, nerf (a radiance field), or a method of an installed package."""
    resume: bool = False
    """Continue from the last checkpoint in the RUN folder."""
    overwrite: bool = False
    """Replace what the RUN folder holds."""
    device: DeviceName = "auto"
    """Where to train: auto takes a GPU where there is one and the CUDA library is built."""
    seed: int = 0
    """Seed of every random choice."""
    threads: int | None = None
    """CPU threads; all cores by default, or as OMP_NUM_THREADS says."""
    prior: Path | None = None
    """Shared audio-to-motion model to adapt to the person, from `avatar prior train`; default: the one that is
    shipped."""
    speech_encoder: str = "auto"
    """Encoder of the person's speech network: names joined by ``+``. Known are ``mel``, ``moonshine``, ``whisper`` and
    those of plug-ins. ``auto``: ``whisper+mel``, or ``mel`` alone where Whisper is not available."""
    hold_out_yaw: float = 0.0
    """Share of the frames to leave out of training on either side for their head yaw, up to 0.2. As many frontal ones
    are left out; `avatar eval --views` measures on both."""
    teacher: Path | None = None
    """RUN folder of another method whose images to train on, in place of the filmed ones; see `avatar bake`."""
    config: Path | None = None
    """TOML file of options, as --print-config prints it; options of the command line override it."""
    print_config: bool = False
    """Print all options as TOML and stop."""
    preview_every: int = 500
    """Steps between preview images."""
    save_every: int = 1000
    """Steps between checkpoints."""
    schedule: Schedule = field(default_factory=Schedule)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    model: MethodConfig = field(default_factory=MethodConfig)


def from_preset(method: str, quality: str, **options: Any) -> TrainConfig:
    """The options of a preset.

    Args:
        method: Name of the method.
        quality: One of its presets.
        options: Other fields of `TrainConfig`; ``person`` and ``out`` are needed.

    Raises:
        AvatarError: There is no such method or quality.
    """
    parts = preset(method, quality)
    given: dict[str, Any] = {
        "model": parts.model,
        "loss": parts.loss,
        "optim": parts.optim,
        "schedule": parts.schedule,
    } | options
    return TrainConfig(method=method, quality=quality, **given)


def from_file(path: Path, method: str | None = None, quality: str | None = None, **options: Any) -> TrainConfig:
    """The options of a TOML file, on top of the preset that it names.

    Args:
        path: A file as ``avatar train --print-config`` prints it, or the config.toml of a RUN folder.
        method, quality: What the command line says about these, if it does.
        options: As for :func:`from_preset`.

    Raises:
        AvatarError: The file is missing or damaged, holds an option that does not exist or a value of another type, or
            names another method or quality.
    """
    table = read_toml(path)
    if table.pop("format", FORMAT) != FORMAT:
        raise AvatarError(f"{path} was written by another version of the toolkit.", fix="Print a new one: "
                          "avatar train PERSON --out RUN --print-config")  # fmt: skip
    chosen = {"method": method, "quality": quality}
    for name, given in chosen.items():
        stored = table.pop(name, None)
        if stored is not None and not isinstance(stored, str):
            raise AvatarError(f"{path}: {name} is not text.")
        if None not in (stored, given) and stored != given:
            raise AvatarError(f"--{name} {given} contradicts {path}, which says {name} = {stored!r}.",
                              fix=f"Leave out --{name}, or change the file.")  # fmt: skip
        chosen[name] = given or stored or _default(name)
    config = from_preset(str(chosen["method"]), str(chosen["quality"]), **options)
    return with_values(config, table, str(path))


def with_values(config: T, values: Mapping[str, Any], where: str) -> T:
    """Replace fields of a dataclass of options, and of the dataclasses in it, by values that are checked.

    Args:
        config: The options.
        values: New values by name; a table for a dataclass.
        where: What an error names, such as a file.

    Raises:
        AvatarError: A name does not exist, or a value has another type.
    """
    hints = typing.get_type_hints(type(config))
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            parts = [part for part in hints if name in getattr(getattr(config, part), "__dataclass_fields__", ())]
            fix = f"It belongs below [{parts[0]}]." if parts else f"Known are {', '.join(hints)}."
            raise AvatarError(f"{where}: there is no option {name}.", fix=fix)
        current = getattr(config, name)
        place = f"{where}: {name}"
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise AvatarError(f"{place} is not a table of options.")
            changed[name] = with_values(current, value, place)
            continue
        try:
            changed[name] = msgspec.convert(value, hints[name], dec_hook=lambda kind, x: kind(x))
        except (msgspec.ValidationError, TypeError) as error:
            raise AvatarError(f"{place} is {value!r}.", why=f"{error}.") from None
    return replace(config, **changed)  # pyright: ignore[reportArgumentType]


def table(config: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Options as TOML or JSON can hold them, nested as the dataclasses are; what is None is left out."""
    found = {}
    for part in fields(config):
        value = getattr(config, part.name)
        if value is None or part.name in leave_out:
            continue
        if is_dataclass(value):
            value = table(value)
        elif isinstance(value, tuple):
            value = list(value)
        found[part.name] = str(value) if isinstance(value, Path) else value
    return found


def settings(config: TrainConfig) -> dict[str, Any]:
    """The options that a resumed run must share."""
    return {name: value for name, value in table(config).items() if name in SETTINGS}


def options(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names of the command line and values of what :func:`table` returned: ``model.hidden`` and 64."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}".replace("_", "-"), value


def differences(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``values`` that ``others`` do not hold or hold otherwise, by their names on the command line."""
    known = dict(options(others))
    return {name: value for name, value in options(values) if name not in known or known[name] != value}


def check(config: TrainConfig) -> None:
    """Refuse numbers out of range before anything slow happens.

    Raises:
        AvatarError: One is.
    """
    numbers = {
        "threads": (config.threads, 1), "preview-every": (config.preview_every, 1),
        "save-every": (config.save_every, 1), "seed": (config.seed, 0),
    }  # fmt: skip
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise AvatarError(f"--{name} {value} is out of range.", fix=f"It must be at least {least}.")
    number(config.hold_out_yaw, "--hold-out-yaw", 0, MOST_TURNED)
    whole(config.schedule.steps, "--steps (--schedule.steps)", 1, MOST_STEPS)
    config.model.check()
    if config.teacher is not None:
        for name in FROM_TEACHER:
            if getattr(config, name) != _default(name):
                raise AvatarError(f"--{name.replace('_', '-')} cannot be given with --teacher.",
                                  why="That comes from the teacher.", fix="Leave one of them out.")  # fmt: skip


def _default(name: str) -> Any:
    return next(f.default for f in fields(TrainConfig) if f.name == name)


def changes_text(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first few options that differ, as an error lists them."""
    changed = differences(earlier, now) or differences(now, earlier)
    listed = [f"--{name} {dict(options(earlier)).get(name, '(none)')}" for name in list(changed)[:_LISTED]]
    return f": {', '.join(listed)}{' and more' if len(changed) > _LISTED else ''}" if listed else ""
