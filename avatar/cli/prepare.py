"""Track a video of one person into a PERSON folder: pictures, sound, landmarks, head pose, masks, features, report."""

from __future__ import annotations

import importlib
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro

from avatar import log
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json
from avatar.preprocess.stage import PERSON, Stage, StageContext, is_current, read_record, run_stage
from avatar.writing import contents, one_writer

STAGES = ("ingest", "track", "refine", "parse", "background", "torso", "sync", "features", "report")
MARKER = "prepare.json"
FORMAT = "avatar-person-1"
MOST_OFFSET = 10_000  # frames between sound and picture


@dataclass(frozen=True, kw_only=True)
class Config:
    video: tyro.conf.Positional[Path]
    """The video: anything FFmpeg reads, one person talking, 3 to 5 minutes are good. Or a dataset folder of AD-NeRF,
    RAD-NeRF, ER-NeRF or TalkingGaussian: its pictures and sound are read, its split is kept, all else is made anew."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The PERSON folder to write. Run again with the same folder to go on after an interruption."""
    size: int = 512
    """Side of the square pictures in pixels. The crop around the head is never enlarged: the side is the smaller of
    this and the crop's, rounded down to a multiple of 16."""
    audio: bool = True
    """--no-audio: prepare a video without sound; its avatar can be shown and moved, but it cannot talk."""
    av_offset: str = "auto"
    """By how many frames the sound is late: a number, or auto to measure it."""
    audio_features: Literal["auto", "moonshine", "mel"] = "auto"
    """What the voice is described by. auto: the Moonshine speech encoder if it can be had, else mel bands."""
    mask_stride: int = 0
    """Masks are made for every n-th frame; 0 chooses from the length of the video."""
    stages: str = "all"
    """Only these stages, separated by commas (for development)."""
    force: bool = False
    """Make every stage anew, and replace what another video left in the folder."""


def main(config: Config) -> None:
    """Run the stages that are not done yet.

    Raises:
        AvatarError: The video, an option or the output folder is unsuitable, or another process writes to it.
    """
    check_options(config)
    stages = [load_stage(name) for name in (STAGES if config.stages == "all" else config.stages.split(","))]
    with one_writer(config.out):
        prepare(config, stages)
    log.next_command(f"avatar train {config.out} --out runs/{config.out.name}")


def prepare(config: Config, stages: list[Stage]) -> None:
    """Run stages that are not done yet in a folder that nobody else writes to."""
    from avatar.preprocess import report

    claim_folder(config)
    ctx = StageContext(person=config.out, config=config)
    try:
        for stage in stages:
            run_stage(stage, ctx, force=config.force)
        if is_finished("refine", ctx):
            assemble(ctx)
    except AvatarError:
        if [entry.name for entry in contents(config.out)] == [MARKER]:  # refused at once: leave nothing behind
            shutil.rmtree(config.out)
        raise
    if any(stage.NAME == report.NAME for stage in stages):
        report.tell(ctx)


def load_stage(name: str) -> Stage:
    """The module of a stage."""
    if name not in STAGES:
        raise AvatarError(f"There is no stage '{name}'.", fix=f"The stages are {', '.join(STAGES)}.")
    return cast(Stage, importlib.import_module(f"avatar.preprocess.{name}"))


def check_options(config: Config) -> None:
    """Refuse options that cannot work before anything is written."""
    if config.size < 64:
        raise AvatarError(f"--size {config.size} is too small.", fix="At least 64 is needed; 512 is usual.")
    if config.mask_stride < 0:
        raise AvatarError(f"--mask-stride {config.mask_stride} is negative.", fix="Give 1 or more, or 0 to choose.")
    if config.av_offset != "auto":
        try:
            frames = float(config.av_offset)
        except ValueError:
            frames = math.nan
        if not abs(frames) <= MOST_OFFSET:  # false for NaN
            raise AvatarError(f"--av-offset {config.av_offset} is neither a number nor auto.",
                              fix=f"Give frames, from -{MOST_OFFSET} to {MOST_OFFSET}.")  # fmt: skip


def claim_folder(config: Config) -> None:
    """Make the PERSON folder, or check that it belongs to this video.

    Raises:
        AvatarError: The folder holds something else, or another video's person.
    """
    from avatar.preprocess import ingest

    source = ingest.fingerprint(config.video)
    ingest.check_source(config)  # so that a bad video leaves no folder behind
    marker = config.out / MARKER
    if marker.exists():
        kept = Record(read_json(marker), marker)
        if kept.value("source_sha256", None) != source and not config.force:
            raise AvatarError(
                f"{config.out} holds the preparation of another video ({kept.text('source', 'unknown')}).",
                fix="Choose another --out, or pass --force to replace it.",
            )
    elif contents(config.out):
        raise AvatarError(
            f"{config.out} exists and is not a PERSON folder.", why="Nothing was changed.", fix="Choose another --out."
        )
    write_json(marker, {"format": "avatar-prepare-1", "source": str(config.video), "source_sha256": source})


def is_finished(name: str, ctx: StageContext) -> bool:
    """Whether a stage has run, with these options and on what its inputs are now."""
    return read_record(ctx.person, name) is not None and is_current(load_stage(name), ctx)


def assemble(ctx: StageContext) -> None:
    """Write person.json and motion.safetensors from what the stages found so far."""
    import torch

    from avatar.io.arrays import load_array
    from avatar.motion.motion import Motion

    ingest, track, refine = ctx.result("ingest"), ctx.result("track"), ctx.result("refine")
    sync = ctx.result("sync") if is_finished("sync", ctx) else {}
    motion = Motion.load(ctx.folder("refine") / "motion.safetensors")
    if is_finished("torso", ctx):
        torso = torch.from_numpy(load_array(ctx.folder("torso") / "torso.npy", f"{ctx.frames} 138")).float()
        motion = motion.map(torso_rotation=torso[:, :3], torso_translation=torso[:, 3:6], torso_warp=torso[:, 6:])
    motion.save(ctx.person / "motion.safetensors")
    frames = ingest["num_frames"]
    person = {
        "format": FORMAT,
        "source": ingest["source"],
        "width": ingest["size"],
        "height": ingest["size"],
        "fps": ingest["fps"],
        "num_frames": frames,
        "crop": ingest["crop"],
        "camera": refine["camera"],
        "segments": track["segments"],
        "test_start": ctx.test_start,
        "av_offset_frames": sync.get("offset_frames", 0.0),
        "has_audio": ingest["has_audio"],
        "quality": {
            "valid_share": track["valid_share"],
            **{k: v for k, v in refine.items() if k != "camera"},
        },
    }
    write_json(ctx.person / PERSON, person)
