"""The stages of `avatar prepare`: each one a module, each one a folder that is either whole or absent.

A stage module has ``NAME`` (its folder), ``INPUTS`` (the earlier stages it reads), ``VERSION`` (raise it when the same
options give other files), ``options(ctx)`` (what of the options its result depends on) and ``run(context, out)`` (fill
the folder ``out``; the returned :class:`StageResult` is kept under "result" in stage.json).

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
from typing import Any, Protocol

from avatar.audio.levels import speaking_frames
from avatar.checks import Record
from avatar.data.person import STAGE_FILE, PersonFolder
from avatar.data.results import RESULTS, IngestResult, StageResult
from avatar.errors import AvatarError
from avatar.log import info
from avatar.paths import read_json
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.held_out import first_held_out
from avatar.writing import atomic_dir


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage may look at.

    Attributes:
        person: The PERSON folder, with what earlier stages left in it.
        video: The source: a video, or a dataset folder.
        config: Options of the whole command.
    """

    person: PersonFolder
    video: Path
    config: PrepareConfig

    @cached_property
    def frames(self) -> int:
        """Number of frames of the ingested video."""
        return self.person.result(IngestResult).num_frames

    @cached_property
    def test_start(self) -> int:
        """The first held-out frame: the one that the dataset names, or :func:`first_held_out` of the video.

        Of a photo nothing is held out. It needs the stages ingest and track.
        """
        ingest = self.person.result(IngestResult)
        if ingest.photo is not None:
            return self.frames
        if ingest.test_start is not None:
            return min(self.frames - 1, ingest.test_start)
        useful = self.person.valid(self.frames)
        if ingest.has_audio:
            useful = useful & speaking_frames(self.person.audio_path, self.frames, ingest.fps)
        return first_held_out(useful, ingest.fps, self.config.held_out_s)


class Stage(Protocol):
    """What a stage module offers."""

    NAME: str
    INPUTS: tuple[str, ...]
    VERSION: int

    def options(self, ctx: StageContext) -> dict[str, Any]: ...

    def run(self, ctx: StageContext, out: Path) -> StageResult: ...


def finished_key(person: PersonFolder, name: str) -> str | None:
    """Read the key of a finished stage; None where there is none, or its record cannot be used."""
    try:
        path = person.stage(name) / STAGE_FILE
        record = Record(read_json(path), path)
        result = record.record("result")
        if name in RESULTS:
            RESULTS[name].parse(result)
        return record.text("key")
    except AvatarError:
        return None


def content_hash(data: Any) -> str:
    """Compute the SHA-256 of ``data`` as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def stage_record(stage: Stage, ctx: StageContext) -> dict[str, Any]:
    """Compute the hashes under which ``stage`` would run now.

    Raises:
        AvatarError: An input stage has not run.
    """
    inputs = {}
    for name in stage.INPUTS:
        key = finished_key(ctx.person, name)
        if key is None:
            raise AvatarError(
                f"Stage '{stage.NAME}' needs the stage '{name}', which {ctx.person.path} does not have.",
                fix="Run `avatar prepare` without --stages.",
            )
        inputs[name] = key
    config_hash = content_hash(stage.options(ctx))
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
    key = finished_key(ctx.person, stage.NAME)
    return key is not None and key == stage_record(stage, ctx)["key"]


def run_stage(stage: Stage, ctx: StageContext, *, force: bool = False) -> bool:
    """Run one stage unless its folder is current. The folder appears only when the stage has ended well.

    Args:
        stage: The module.
        ctx: Person folder and options.
        force: Run even if the folder is current.

    Returns:
        Whether it ran.
    """
    record = stage_record(stage, ctx)
    if not force and is_current(stage, ctx):
        info(f"{stage.NAME}: done before", "dim")
        return False
    start = time.perf_counter()
    with atomic_dir(ctx.person.stage(stage.NAME)) as out:
        result = stage.run(ctx, out)
        seconds = round(time.perf_counter() - start, 2)
        record |= {"seconds": seconds, "software": _software(), "result": result.to_json()}
        (out / STAGE_FILE).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        ctx.person.info_path.unlink(missing_ok=True)  # it was put together from the folder that goes now
    return True


def _software() -> dict[str, str]:
    """Versions of what the numbers depend on: a record for people, not part of the key."""
    from importlib.metadata import PackageNotFoundError, version

    from avatar import __version__

    versions = {"avatar": __version__}
    for package in ("numpy", "mediapipe", "av", "onnxruntime", "opencv-contrib-python"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
