"""The stages of `avatar prepare`: each one a module, each one a folder that is either whole or absent.

A stage module has ``NAME`` (its folder), ``INPUTS`` (the earlier stages it reads), ``VERSION`` (raise it when the same
options give other files), ``options(config)`` (what of the configuration its result depends on) and
``run(context, out)`` (fill the folder ``out``; the returned dictionary is kept under "result" in stage.json).

A stage runs again only if its key differs from the one in its stage.json. The key covers the stage's options and
version and the keys of its inputs, so a change early in the chain reaches everything behind it, and a killed command
goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avatar.checks import Record
from avatar.data.person import Result
from avatar.errors import AvatarError
from avatar.log import info
from avatar.paths import read_json
from avatar.writing import atomic_dir

if TYPE_CHECKING:
    from avatar.cli.prepare import Config

TEST_SHARE = 0.1
PERSON = "person.json"  # in a PERSON folder: written last, and only there while all stages belong together


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage may look at.

    Attributes:
        person: The PERSON folder; earlier stages are its subfolders.
        config: The configuration of the whole command.
    """

    person: Path
    config: Config

    def folder(self, name: str) -> Path:
        """The finished folder of an earlier stage."""
        return self.person / name

    def result(self, name: str) -> dict[str, Any]:
        """What an earlier stage returned.

        Raises:
            AvatarError: The stage has not run.
        """
        record = read_record(self.person, name)
        if record is None:
            raise AvatarError(f"{self.person} has no finished stage '{name}'.", fix="Run `avatar prepare` again.")
        return record["result"]

    @cached_property
    def frames(self) -> int:
        """Number of frames of the ingested video."""
        return int(self.result("ingest")["num_frames"])

    @cached_property
    def test_start(self) -> int:
        """The first held-out frame: the one that the dataset names, else that of the last tenth by time."""
        named = self.result("ingest").get("test_start", round(self.frames * (1 - TEST_SHARE)))
        return min(self.frames - 1, named)

    def frame_path(self, index: int) -> Path:
        """The picture of one frame."""
        return self.person / "ingest" / "frames" / f"{index:06d}.jpg"


class Stage(Protocol):
    """What a stage module offers."""

    NAME: str
    INPUTS: tuple[str, ...]
    VERSION: int

    def options(self, config: Config) -> dict[str, Any]: ...

    def run(self, ctx: StageContext, out: Path) -> dict[str, Any]: ...


def read_record(person: Path, name: str) -> dict[str, Any] | None:
    """The stage.json of a finished stage, or None; one that cannot be read counts as absent."""
    try:
        path = person / name / "stage.json"
        record = Record(read_json(path), path)
        return record.data | {"key": record.text("key"), "result": Result(record.record("result"))}
    except AvatarError:
        return None


def content_hash(data: Any) -> str:
    """SHA-256 of ``data`` as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def stage_record(stage: Stage, ctx: StageContext) -> dict[str, Any]:
    """The hashes under which ``stage`` would run now.

    Raises:
        AvatarError: An input stage has not run.
    """
    inputs = {}
    for name in stage.INPUTS:
        record = read_record(ctx.person, name)
        if record is None:
            raise AvatarError(
                f"Stage '{stage.NAME}' needs the stage '{name}', which {ctx.person} does not have.",
                fix="Run `avatar prepare` without --stages.",
            )
        inputs[name] = record["key"]
    config_hash = content_hash(stage.options(ctx.config))
    key = content_hash([stage.NAME, stage.VERSION, config_hash, inputs])
    return {
        "stage": stage.NAME,
        "version": stage.VERSION,
        "config_hash": config_hash,
        "input_hashes": inputs,
        "key": key,
    }


def is_current(stage: Stage, ctx: StageContext) -> bool:
    """Whether the folder of ``stage`` was made with these options from these inputs."""
    record = read_record(ctx.person, stage.NAME)
    return record is not None and record["key"] == stage_record(stage, ctx)["key"]


def run_stage(stage: Stage, ctx: StageContext, *, force: bool = False) -> bool:
    """Run one stage unless its folder is current. The folder appears only when the stage has ended well.

    Args:
        stage: The module.
        ctx: Person folder and configuration.
        force: Run even if the folder is current.

    Returns:
        Whether it ran.
    """
    record = stage_record(stage, ctx)
    if not force and is_current(stage, ctx):
        info(f"{stage.NAME}: done before", "dim")
        return False
    start = time.perf_counter()
    with atomic_dir(ctx.person / stage.NAME) as out:
        result = stage.run(ctx, out)
        record |= {"seconds": round(time.perf_counter() - start, 2), "software": _software(), "result": result}
        (out / "stage.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        (ctx.person / PERSON).unlink(missing_ok=True)  # it was put together from the folder that goes now
    return True


def _software() -> dict[str, str]:
    """Versions of what the numbers depend on; a record for people, not part of the key."""
    from importlib.metadata import PackageNotFoundError, version

    from avatar import __version__

    versions = {"avatar": __version__}
    for package in ("numpy", "mediapipe", "av", "onnxruntime", "opencv-contrib-python"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
