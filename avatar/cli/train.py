"""Train an avatar from a PERSON folder."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from avatar import log
from avatar.backends import require
from avatar.device import choose_device
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json
from avatar.train.config import TrainConfig, check, with_preset
from avatar.writing import WORKING, atomic_file, contents, one_writer, settle

if TYPE_CHECKING:
    from avatar.audio2motion.shared import SharedPrior
    from avatar.data import PersonDataset
    from avatar.train.trainer import Trainer

Config = TrainConfig
FINISHED = "training.json"  # in a RUN folder: the last that is written
BEGUN = "config.toml"  # in a RUN folder: the first that is written, and the last that --overwrite removes
LIVE_SECONDS = 120.0  # of the person, for lips that run live: hearing so is five times the work, and a minute is enough


def main(config: Config) -> None:
    """Train, then fit the person's speech network; the RUN folder is complete afterwards.

    Raises:
        AvatarError: PERSON, an option or RUN is unsuitable, or another process writes to RUN.
    """
    config = with_preset(config)
    check(config)
    if config.print_config:
        print(tomli_w.dumps(_plain(asdict(config))))
        return
    from avatar.data import PersonDataset

    for backend in (config.model.renderer, config.model.encoding):
        require(backend)  # before anything is read, or replaced
    choose_device(config.device)  # before anything is replaced
    prior = load_prior(config.prior)
    data = PersonDataset(config.person)
    with one_writer(Path(config.out)):
        train(data, config, prior)
    log.next_command(f"avatar render {config.out} --audio SPEECH.wav --out {config.out}/speech.mp4")


def train(data: PersonDataset, config: TrainConfig, prior: SharedPrior | None) -> None:
    """Fill a RUN folder that nobody else writes to."""
    import torch

    from avatar.train.trainer import Trainer

    folder = open_run(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    trainer = Trainer(data, config)
    if config.resume and checkpoint(folder).is_file():
        trainer.resume(folder)
        log.info(f"Going on at step {trainer.step} of {trainer.steps}.")
    if (device := choose_device(config.device)).type == "cuda":
        log.info(f"Training on {torch.cuda.get_device_name(device)}.")
    describe(folder, config, data)
    try:
        trainer.run(folder)
    except KeyboardInterrupt:
        log.info(
            f"\nStopped at step {trainer.step} and saved. Go on with: "
            f"avatar train {config.person} --out {folder} --quality {config.quality}{chosen_backends(config)}"
            f"{'' if config.device == 'auto' else f' --device {config.device}'}"
            f"{'' if config.prior is None else f' --prior {config.prior}'} --resume"
        )
        raise
    trainer.align_held_out()
    summary = save_tracking(trainer, folder)
    train_speech(data, config, folder, prior)
    train_generator(data, config, folder)
    write_json(folder / FINISHED, summary)
    log.info(
        f"Trained {trainer.steps} steps in {trainer.seconds / 60:.1f} minutes: training PSNR {trainer.psnr:.2f} dB, "
        f"{len(trainer.model.gaussians)} Gaussians. Head poses were corrected by "
        f"{summary['head_correction_deg']:.2f} degrees and {summary['head_correction_cm']:.2f} cm on average; jitter "
        f"{summary['head_jitter_before_deg']:.3f} degrees before, {summary['head_jitter_after_deg']:.3f} after."
    )


def chosen_backends(config: TrainConfig) -> str:
    """The options of a command line that choose other backends than the native ones."""
    chosen = {name: getattr(config.model, name) for name in ("renderer", "encoding")}
    return "".join(f" --{name} {value}" for name, value in chosen.items() if value != "native")


def open_run(config: TrainConfig) -> Path:
    """Check the RUN folder against the options; nothing that exists is lost without --overwrite.

    A run that was killed before its first checkpoint holds nothing to go on from: with --resume it begins anew.

    Raises:
        AvatarError: There is something else in the folder, or nothing to resume.
    """
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise AvatarError(f"{folder} is a file, not a folder.", fix="Choose another --out.")
    settle(folder)
    begun = (folder / BEGUN).is_file()
    if config.resume and checkpoint(folder).is_file():
        return folder
    if config.resume:
        if not begun:
            raise AvatarError(f"{folder} holds no checkpoint to resume.", fix="Leave out --resume.")
        if kept := trained_files(folder):
            raise AvatarError(
                f"{folder} holds no checkpoint to resume, but {kept[0]}, which training made.",
                fix="Replace all of it with --overwrite, or choose another --out.",
            )  # fmt: skip
        log.info(f"{folder} was stopped before its first checkpoint: training begins anew.")
    elif contents(folder):
        if not config.overwrite:
            raise AvatarError(
                f"{folder} already holds a run or other files.",
                fix="Go on with --resume, replace it with --overwrite, or choose another --out.",
            )  # fmt: skip
        refuse_other_files(folder)
        for name, path in (("The person", config.person), ("The prior", config.prior)):
            if path is not None and Path(path).resolve().is_relative_to(folder.resolve()):
                raise AvatarError(
                    f"{name} {path} lies in {folder},",
                    why="which --overwrite empties.",
                    fix="Move it, or choose another --out.",
                )
        empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def refuse_other_files(folder: Path) -> None:
    """Raise AvatarError if a folder holds files that are not a run."""
    if contents(folder) and not (folder / BEGUN).is_file():
        raise AvatarError(f"{folder} holds files that are not a run.", fix="Choose another --out.")


def checkpoint(folder: Path) -> Path:
    """The file that a resumed run goes on from."""
    return folder / "checkpoints" / "last" / "state.safetensors"


def trained_files(folder: Path) -> list[Path]:
    """What training made in a RUN folder, apart from logs and previews."""
    found = [*folder.glob("*.safetensors"), *filter(Path.is_file, (folder / "checkpoints").rglob("*"))]
    names = sorted(path.relative_to(folder) for path in found)
    return [name for name in names if not any(part.startswith(WORKING) for part in name.parts)]


def empty(folder: Path) -> None:
    """Remove a run, last what tells that it is one, so that the command can be given again after a kill."""
    for entry in sorted(contents(folder), key=lambda entry: entry.name == BEGUN):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def describe(folder: Path, config: TrainConfig, data) -> None:
    """Write what was asked for and where it ran, and copy what rendering needs from PERSON."""
    with atomic_file(folder / BEGUN) as temporary:
        temporary.write_text(tomli_w.dumps(_plain(asdict(config))))
    with atomic_file(folder / "command.txt") as temporary:
        temporary.write_text(" ".join(sys.argv) + "\n")
    place = environment() | {"device": choose_device(config.device).type}
    if earlier := parts_before(folder):
        place["earlier"] = earlier
    write_json(folder / "environment.json", place)
    data.info.write(folder / "person.json")


def parts_before(folder: Path) -> list[dict[str, Any]]:
    """Date and commit of each command that trained a part of this run before, oldest first."""
    path = folder / "environment.json"
    if not path.is_file():
        return []
    try:
        last = read_json(path)
        return [*last.get("earlier", []), {name: last.get(name) for name in ("date", "commit")}]
    except (AvatarError, AttributeError, TypeError):  # damaged: only a record, and nothing that training needs
        return []


def save_tracking(trainer: Trainer, folder: Path) -> dict[str, float]:
    """Write the corrected motion: all of it for `eval`, and the training part as a camera at rest would see it.

    Returns:
        What training came to, and how the head's pose changed: its jitter (see `pose_jitter`, degrees) before and
        after, and the mean correction.
    """
    from avatar.preprocess.refine import pose_jitter

    data = trainer.data
    motion = trainer.poses.cpu().corrected(data.motion)
    motion.save(folder / "tracking.safetensors")
    data.steady_motion(motion)[: data.test_start].save(folder / "motion.safetensors")
    before, after = data.motion.head_rotation, motion.head_rotation
    return {
        "steps": trainer.steps, "seconds": trainer.seconds, "psnr": trainer.psnr,
        "gaussians": len(trainer.model.gaussians),
        "head_jitter_before_deg": pose_jitter(before.numpy(), data.segments),
        "head_jitter_after_deg": pose_jitter(after.numpy(), data.segments),
        "head_correction_deg": float((after - before).norm(dim=-1).mean().rad2deg()),
        "head_correction_cm": float((motion.head_translation - data.motion.head_translation).norm(dim=-1).mean()),
    }  # fmt: skip


def load_prior(path: Path | None) -> SharedPrior | None:
    """The prior to adapt, or the shipped one; None, with a warning, where that cannot be had.

    Raises:
        AvatarError: ``path`` cannot be read or is something else.
    """
    from avatar.audio2motion.shared import SharedPrior

    if path is not None:
        return SharedPrior.load(path)
    try:
        return SharedPrior.load()
    except AvatarError as error:
        log.warn(f"the avatar will speak without the prior shared by all people: {error}")
        return None


def train_speech(data, config: TrainConfig, folder: Path, prior: SharedPrior | None) -> None:
    """Fit what speaks for this person: a network, the prior adapted to them, and the same for live sound.

    Where the video has no sound, a prior that was chosen is kept with the run; the shipped one need not be.
    """
    from avatar.audio2motion.load import ADAPTED, LIVE, OWN
    from avatar.audio2motion.personal import motion_path, train_personal
    from avatar.io.audio import load_audio
    from avatar.motion import Motion

    if not data.info.has_audio:
        log.warn("the video has no sound: the prior shared by all people will speak for this avatar.")
        if config.prior is not None and prior is not None:
            prior.person(Motion.load(folder / "motion.safetensors"), data.fps).save(folder / ADAPTED)
        return
    train_personal(data.folder, seed=config.seed).save(folder / OWN)
    if prior is None:
        return
    motion = Motion.load(motion_path(data.folder))[: data.test_start]
    sound, late = load_audio(data.audio_path), data.info.audio_delay_frames
    prior.person(motion, data.fps).adapt(motion, sound, late).save(folder / ADAPTED)
    part = motion[: round(LIVE_SECONDS * data.fps)]
    prior.live().person(motion, data.fps).adapt(part, sound, late).save(folder / LIVE)


def train_generator(data, config: TrainConfig, folder: Path) -> None:
    """Fit what generates this person's head motion, gaze, brows and blinks (`--pose generated`)."""
    from avatar.headmotion.generator import FILE, MotionGenerator
    from avatar.io.audio import load_audio
    from avatar.motion import Motion

    motion = Motion.load(folder / "motion.safetensors")
    segments = [(a, min(b, len(motion))) for a, b in data.segments if a < len(motion)]
    samples = load_audio(data.audio_path) if data.info.has_audio else None
    try:
        generator = MotionGenerator.fit(motion, segments, samples, data.info.audio_delay_frames, config.seed)
    except AvatarError as error:
        log.warn(f"the avatar will not generate head motion: {error}")
        return
    generator.save(folder / FILE)


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else json.loads(json.dumps(value))
