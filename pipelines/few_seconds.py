"""What an avatar from few seconds is worth: ``python -m pipelines.few_seconds VIDEO --out OUT --json few.json``.

The first 5, 10 and 20 s of a video, and all of it, are each joined with the same last seconds, which are held out. Each
such video is prepared, trained and measured by `avatar`'s own commands, so nothing is known of what was cut out, apart
from the crop: that of the whole video is taken for all, as frames are compared pixel by pixel. Each length is compared
with the whole video frame by frame, and its lips with those that the shared prior alone gives the same avatar. What is
finished is kept in OUT, so that an interrupted run goes on where it was. OUT takes one video and one way of preparing
and training it; with other --frames it is measured anew. Numbers of lips of less than 10 s of speech are left out.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from avatar.data.person import PersonFolder
from avatar.data.results import IngestResult
from avatar.data.run import CONFIG, PERSONAL, SHARED, TRAINING
from avatar.eval import lips, per_frame
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.io.video import read_frames, read_info
from avatar.io.video_writer import VideoWriter
from avatar.paths import file_sha256, read_json
from pipelines import kept
from pipelines.judging import is_unsaid
from pipelines.kept import command
from pipelines.record import keep

CRF = 0  # no loss: the same held-out frames come out of videos of all lengths
DRIVES = ("tracked", "audio")
METRICS = ("psnr", "psnr_face", "lpips", "mouth_correlation", "mouth_sharpness")
PARTS = {"prepare": ".prepare.cost.json", "train": ".train.cost.json"}  # what each command took


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure avatars from the first seconds of a video."""

    video: Annotated[Path, tyro.conf.Positional]
    """A person who talks."""
    out: Path
    """Folder for videos, persons and runs."""
    seconds: tuple[float, ...] = (5.0, 10.0, 20.0)
    """Of training; all of the video comes as well."""
    held_out_s: float = 15.0
    """Held out at the end."""
    size: int | None = None
    """Pixels of the images; default: the video's."""
    frames: int | None = None
    """Measure only the first so many held-out frames."""
    quality: str = "draft"
    """Preset."""
    json: Path | None = None
    """Write the record here."""


def main(config: Config) -> None:
    """Measure all lengths: the whole video first, which the others take their crop from."""
    info = read_info(config.video)
    whole = float(info.num_frames / info.fps) - config.held_out_s
    lengths = [length for length in (*config.seconds, whole) if length <= whole]
    how = {name: getattr(config, name) for name in ("quality", "held_out_s", "size")}
    kept.require(config.out, {"video": config.video.stem, "sha256": file_sha256(config.video)} | how)
    longest = measured(config, whole, [] if config.size is None else ["--size", config.size])
    framing = framed_as(config.out / f"{whole:g}.person")
    found = {f"{length:g}": measured(config, length, framing) for length in lengths[:-1]}
    for length in lengths[:-1]:
        found[f"{length:g}"]["minus the whole video"] = lost(config, length, whole, float(info.fps))
    found[f"{whole:g}"] = longest
    made = {length: numbers.pop("training") for length, numbers in found.items()}
    asked = {name: getattr(config, name) for name in ("quality", "held_out_s", "frames", "size")}
    keep({"video": config.video.stem, **asked, "seconds": found, "training": made}, config.json)


def framed_as(person: Path) -> list[Any]:
    """Options of `avatar prepare` for the part of the frame that a person shows, at its size."""
    ingest = PersonFolder(person).result(IngestResult)
    return ["--crop", ",".join(map(str, ingest.crop[:3])), "--size", ingest.width]


def trained(config: Config, length: float, framing: list[Any]) -> bool:
    """Prepare and train the first ``length`` seconds; False: it was done. ``framing`` is for `avatar prepare`."""
    video, person, run = (files(config, length, end) for end in (".mp4", ".person", ".run"))
    preparing, training = (files(config, length, end) for end in PARTS.values())
    if not video.is_file():
        cut(config.video, video, length, config.held_out_s)
    if not (person.is_dir() and kept.is_done(preparing)):
        how = ("--held-out-s", config.held_out_s, *framing)
        command("prepare", video, "-o", person, *how, cost=preparing, resumes=person.is_dir())
    if (run / TRAINING).is_file() and kept.is_done(training):
        return False
    begun = (run / CONFIG).is_file()
    if not begun:
        training.unlink(missing_ok=True)  # of a run that was removed
    how = ("--quality", config.quality, "--out", run, *(["--resume"] if begun else []))
    command("train", person, *how, cost=training, resumes=begun)
    return True


def measured(config: Config, length: float, framing: list[Any]) -> dict[str, Any]:
    """Numbers of an avatar from the first ``length`` seconds; ``framing`` are options of `avatar prepare`."""
    run, metrics, untaught = (files(config, length, end) for end in (".run", ".json", ".prior.json"))
    if trained(config, length, framing):
        kept.forget([metrics, untaught])
    some = [] if config.frames is None else ["--frames", config.frames]
    asked = {"frames": config.frames}
    csv, prior_csv = metrics.with_suffix(".csv"), untaught.with_suffix(".csv")
    if not (kept.stands(metrics, asked) and csv.is_file()):
        with kept.measuring(metrics, asked):
            command("eval", run, "--per-frame", csv, *some, "--json", metrics)
    if not (kept.stands(untaught, asked) and prior_csv.is_file()):
        less = ("--drive", "audio", "--protocol", "full-frame", "--no-ablations")
        with kept.measuring(untaught, asked):
            command("eval", prior_alone(run), "--per-frame", prior_csv, *less, *some, "--json", untaught)
    numbers = read_json(metrics)
    tables = {
        f"{table}, {drive}": {name: said(numbers, drive, name, numbers[table][drive].get(name)) for name in METRICS}
        for table, drive in itertools.product(("full_frame", "head_only"), DRIVES)
        if drive in numbers.get(table, {})
    }
    used = {step: kept.spent(files(config, length, end)) for step, end in PARTS.items()}
    taught, alone = (per_frame.read(path).series for path in (csv, prior_csv))
    gained = per_frame.differences(taught, alone, numbers["fps"])["audio"]
    return tables | {
        "full_frame, audio, minus the prior alone": _chosen(gained, numbers, "audio"),
        "processor_seconds": {step: cost and round(cost["cpu_seconds"], 1) for step, cost in used.items()},
        "steps": read_json(run / TRAINING).get("steps"),
        "measured": [kept.measured_at(found) for found in (numbers, read_json(untaught))],
        "training": [*kept.commits(files(config, length, PARTS["prepare"])), *kept.trained_at(run)],
    }


def files(config: Config, length: float, end: str) -> Path:
    """What OUT keeps of a length: video, person, run, numbers, and what they took."""
    return config.out / f"{length:g}{end}"


def said(numbers: dict[str, Any], drive: str, name: str, value: Any) -> Any:
    """A number, or that too little speech was measured for it."""
    short = value is not None and is_unsaid(numbers, drive.partition(",")[0], name)
    return lips.TOO_SHORT if short else value


def lost(config: Config, length: float, whole: float, fps: float) -> dict[str, Any]:
    """What an avatar of ``length`` seconds has less than that of ``whole``: differences and their intervals.

    Raises:
        AvatarError: They do not show the same: the folder holds persons with other crops.
    """
    own, other = (per_frame.read(files(config, part, ".csv")) for part in (length, whole))
    own.require_video(other.series[per_frame.REAL])  # the frames are the same, though not their numbers
    found = per_frame.differences(own.series, other.series, fps)
    numbers = read_json(files(config, length, ".json"))
    return {video: _chosen(values, numbers, video) for video, values in found.items()}


def prior_alone(run: Path) -> Path:
    """A copy of a run whose speech networks are gone, so that the shared prior drives its lips."""
    copy = run.with_suffix(".prior.run")
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(PERSONAL, SHARED, "checkpoints"), dirs_exist_ok=True)
    return copy


def _chosen(differences: dict[str, Any], numbers: dict[str, Any], video: str) -> dict[str, Any]:
    """Those of `METRICS`, with their intervals; without numbers of lips that say nothing."""
    known = {name: said(numbers, video, name, differences[name]) for name in METRICS if name in differences}
    some = [name for name, value in known.items() if value != lips.TOO_SHORT]
    return known | {"intervals": {name: pair for name, pair in differences["intervals"].items() if name in some}}


def cut(video: Path, to: Path, length: float, held_out: float) -> None:
    """Write the first ``length`` and the last ``held_out`` seconds of a video, with their audio."""
    info = read_info(video)
    first, last = round(length * info.fps), info.num_frames - round(held_out * info.fps)
    audio = load_audio(video)
    ends = [round(at / info.fps * SAMPLE_RATE) for at in (first, last, info.num_frames)]
    joined = to.with_suffix(".wav")
    write_wav(joined, np.concatenate([audio[: ends[0]], audio[ends[1] : ends[2]]]))
    with VideoWriter(to, info.width, info.height, float(info.fps), joined, crf=CRF) as writer:
        for index, image in enumerate(read_frames(info)):
            if index < first or index >= last:
                writer.write(image)


if __name__ == "__main__":
    main(tyro.cli(Config))
