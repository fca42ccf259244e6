"""Train an avatar into a RUN folder: what may be there before, the training, and what is written beside the model."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from avatar import log
from avatar.data import yaw
from avatar.data.consent import FILE as CONSENT
from avatar.data.consent import hand_on
from avatar.data.run import (
    BACKGROUND,
    CHECKPOINT,
    COMMAND,
    CONFIG,
    ENVIRONMENT,
    FORMAT,
    MOTION,
    PERSON,
    TRACKING,
    TRAINING,
    VIEW_CONE,
    RunInfo,
)  # fmt: skip
from avatar.device import choose_device, cpu_threads, training_threads
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.methods.registry import DEFAULT, method
from avatar.paths import read_json, write_json
from avatar.train.config import OF_THE_CALL, TrainConfig, check, differences, from_preset, table
from avatar.train.same_person import refuse_other_person
from avatar.train.speech import load_prior, train_headmotion, train_speech
from avatar.writing import WORKING, atomic_file, contents, one_writer, settle

if TYPE_CHECKING:
    from avatar.audio2motion.shared import SharedPrior
    from avatar.data import PersonDataset
    from avatar.data.yaw import HeldOutYaw
    from avatar.train.teacher import Teacher
    from avatar.train.trainer import Trainer


def train(config: TrainConfig) -> None:
    """Train an avatar and what speaks for it; the RUN folder is complete afterwards.

    Args:
        config: All options.

    Raises:
        AvatarError: PERSON, an option or RUN is unsuitable, or another process writes to RUN.
    """
    from avatar.audio.encoders.registry import check_encoder
    from avatar.data import PersonDataset
    from avatar.train import photo
    from avatar.train.teacher import Teacher

    check(config)
    config.model.require()  # before anything is read, or replaced
    choose_device(config.device)
    check_encoder(config.speech_encoder)
    if config.teacher is None:
        teacher, prior = None, load_prior(config.prior)
        data = PersonDataset(config.person)
    else:
        teacher = Teacher.load(config.teacher, config.method, config.device)
        data, prior = teacher.person(config.person, config.out), None
        config = replace(config, optim=replace(config.optim, poses=0.0))  # its images are drawn at these poses
    photo.require_kind(data, config)
    method(config.method).check_person(data, config.model)
    with one_writer(Path(config.out)), cpu_threads(config.threads, new_too=True):
        _train(data, config, prior, teacher)


def _train(data: PersonDataset, config: TrainConfig, prior: SharedPrior | None, teacher: Teacher | None) -> None:
    """Fill a RUN folder that nobody else writes to."""
    import torch

    from avatar.infer.view_measure import measure_cone
    from avatar.motion import Motion
    from avatar.train import photo
    from avatar.train.teacher import IMAGES, TaughtPerson, check_same, remember
    from avatar.train.trainer import Trainer

    folder = open_run(config)
    check_same(folder, teacher)
    refuse_other_person(folder, data)
    if teacher is not None:  # whose images are drawn from now on: without it the folder would be no run, nor empty
        describe(folder, config, data)
        remember(folder, teacher)
    held_out = leave_out(data, config.hold_out_yaw) if teacher is None else teacher.held_out(data)
    trainer = Trainer(data, config)
    _go_on(trainer, folder, config)
    if (device := choose_device(config.device)).type == "cuda":
        log.info(f"Training on {torch.cuda.get_device_name(device)}.")
    if teacher is None:
        describe(folder, config, data)
    with training_threads():
        try:
            if isinstance(data, TaughtPerson):
                data.draw(map(trainer.sampler, range(trainer.step, trainer.steps)))
            trainer.run(folder)
        except KeyboardInterrupt:
            log.info(f"\n{stopped(trainer)} Go on with: {command(config)} --resume")
            raise
        if teacher is None:  # else they are known
            trainer.align_held_out()
    summary = save_tracking(trainer, folder)
    if data.info.photo is not None:
        summary |= photo.finish(data, folder, config.seed)
    if teacher is None:
        keep = config.prior is not None
        train_speech(data, folder, prior, encoder=config.speech_encoder, seed=config.seed, keep=keep)
        train_headmotion(data, folder, seed=config.seed)
    else:
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        teacher.hand_over(folder)
        summary["teacher"] = teacher.about()
    if data.info.photo is not None:
        cone = photo.photo_cone(trainer.model, data.fps)
    else:
        cone = measure_cone(trainer.model, data.camera, Motion.load(folder / MOTION))
    cone.write(folder / VIEW_CONE)
    write_json(folder / TRAINING, summary | ({} if held_out is None else {yaw.KEY: held_out.to_json()}))
    counts = "".join(f", {value:g} {name}" for name, value in trainer.model.stats().items())
    poses = "Head poses are those of the teacher." if teacher is not None else (
        f"Head poses were corrected by "
        f"{summary['head_correction_deg']:.2f} degrees and {summary['head_correction_cm']:.2f} cm on average; jitter "
        f"{summary['head_jitter_before_deg']:.3f} degrees before, {summary['head_jitter_after_deg']:.3f} after."
    )  # fmt: skip
    log.info(
        f"Trained {trainer.steps} steps in {trainer.seconds / 60:.1f} minutes: training PSNR {trainer.psnr:.2f} dB"
        f"{counts}. {poses} Views are good from {cone.limits().text}."
    )


def _go_on(trainer: Trainer, folder: Path, config: TrainConfig) -> None:
    if config.resume and (folder / CHECKPOINT).is_file():
        trainer.resume(folder)
        log.info(f"Going on at step {trainer.step} of {trainer.steps}.")


def stopped(trainer: Trainer) -> str:
    """Say where Ctrl-C stopped a training, and what of it is in the RUN folder."""
    if trainer.saved is None:
        return f"Stopped at step {trainer.step}, before the first checkpoint."
    if trainer.saved != trainer.step:
        return f"Stopped at step {trainer.step}. The last checkpoint is of step {trainer.saved}."
    return f"Stopped at step {trainer.step} and saved."


def leave_out(data: PersonDataset, share: float) -> HeldOutYaw | None:
    """Leave frames of the largest head yaw out of a training, and some frontal ones; None if ``share`` is 0.

    Raises:
        AvatarError: There are too few frames.
    """
    if not share:
        return None
    held_out = yaw.hold_out_yaw(yaw.head_yaw(data.motion), data.train_frames, share, data.fps)
    data.left_out = held_out.frames
    right, left, front = held_out.yaw
    log.info(
        f"{len(held_out.frames)} frames are left out of the training: {len(held_out.turned)} with a head yaw of "
        f"{right:.1f} and {left:.1f} degrees on average, and {len(held_out.frontal)} of {front:.1f} degrees."
    )
    return held_out


def command(config: TrainConfig) -> str:
    """The command line of a training: PERSON, --out, --method, --quality, and what differs from the preset."""
    preset = from_preset(config.method, config.quality, person=config.person, out=config.out)
    given: dict[str, Any] = {} if config.method == DEFAULT else {"method": config.method}
    given |= {"quality": config.quality}
    given |= differences(table(config, ("person", "out", "config", "resume", "overwrite")), table(preset))
    words = ["avatar", "train", str(config.person), "--out", str(config.out)]
    for name, value in given.items():
        if isinstance(value, bool):
            section, _, last = name.rpartition(".")
            words.append(f"--{section}{'.' if section else ''}{'' if value else 'no-'}{last}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def open_run(config: TrainConfig) -> Path:
    """Check the RUN folder against the options; nothing that exists is lost without --overwrite.

    A run that was killed before its first checkpoint holds nothing to go on from: with --resume it begins anew.

    Raises:
        AvatarError: There is something else in the folder, nothing to resume, or a run of another version.
    """
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise AvatarError(f"{folder} is a file, not a folder.", fix="Choose another --out.")
    settle(folder)
    begun = (folder / CONFIG).is_file()
    if config.resume:
        earlier = RunInfo.read(folder).method
        if earlier not in (None, config.method):
            raise AvatarError(
                f"{folder} is a run of the method {earlier}, not {config.method}.",
                why="One method cannot go on with what another has learnt.",
                fix=f"Give --method {earlier}, or choose another --out.",
            )
        if (folder / CHECKPOINT).is_file():
            return folder
        if not begun:
            raise AvatarError(f"{folder} holds no checkpoint to resume.", fix="Leave out --resume.")
        if kept := trained_files(folder):
            raise AvatarError(
                f"{folder} holds no checkpoint to resume, but {kept[0]}, which training made.",
                fix="Replace all of it with --overwrite, or choose another --out.",
            )
        (folder / CONSENT).unlink(missing_ok=True)  # it may be of somebody else
        log.info(f"{folder} was stopped before its first checkpoint: training begins anew.")
    elif contents(folder):
        if not config.overwrite:
            raise AvatarError(
                f"{folder} already holds a run or other files.",
                fix="Go on with --resume, replace it with --overwrite, or choose another --out.",
                see="the-folder-holds-something-else",
            )
        refuse_other_files(folder)
        inputs = {"The person": config.person, "The prior": config.prior, "The file": config.config,
                  "The teacher": config.teacher, "The torso": getattr(config.model, "torso", None)}  # fmt: skip
        for name, path in inputs.items():
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
    if contents(folder) and not (folder / CONFIG).is_file():
        raise AvatarError(f"{folder} holds files that are not a run.", fix="Choose another --out.")


def trained_files(folder: Path) -> list[Path]:
    """List what training made in a RUN folder, apart from logs and previews."""
    found = [*folder.glob("*.safetensors"), *filter(Path.is_file, (folder / CHECKPOINT.parts[0]).rglob("*"))]
    names = sorted(path.relative_to(folder) for path in found)
    return [name for name in names if not any(part.startswith(WORKING) for part in name.parts)]


def empty(folder: Path) -> None:
    """Remove a run, and last what tells that it is one: a killed command can be given again."""
    for entry in sorted(contents(folder), key=lambda entry: entry.name == CONFIG):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def printed(config: TrainConfig) -> str:
    """The options as a TOML file that can be kept and given to `avatar train --config`."""
    return tomli_w.dumps(table(config, OF_THE_CALL))


def describe(folder: Path, config: TrainConfig, data: PersonDataset) -> None:
    """Write what was asked for and where it ran, and copy what rendering needs from PERSON."""
    kept = {"format": FORMAT, "person": str(config.person)} | table(config, OF_THE_CALL)
    with atomic_file(folder / CONFIG) as temporary:
        temporary.write_text(tomli_w.dumps(kept), encoding="utf-8")
    with atomic_file(folder / COMMAND) as temporary:
        temporary.write_text(shlex.join(sys.argv) + "\n", encoding="utf-8", errors="backslashreplace")
    place = environment() | {"device": choose_device(config.device).type}
    if earlier := parts_before(folder):
        place["earlier"] = earlier
    write_json(folder / ENVIRONMENT, place)
    if (background := data.whole_background_path) is not None:
        with atomic_file(folder / BACKGROUND) as temporary:
            shutil.copyfile(background, temporary)
    data.info.write(folder / PERSON)
    hand_on(config.person, folder)


def parts_before(folder: Path) -> list[dict[str, Any]]:
    """Date and commit of each command that trained a part of this run before, oldest first."""
    path = folder / ENVIRONMENT
    if not path.is_file():
        return []
    try:
        last = read_json(path)
        return [*last.get("earlier", []), {name: last.get(name) for name in ("date", "commit")}]
    except (AvatarError, AttributeError, TypeError):  # damaged: only a record, and nothing that training needs
        return []


def save_tracking(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Write the corrected motion: all of it, and the training part as a camera at rest sees it.

    Returns:
        The numbers of the training, and how the head's pose changed: its jitter (see `pose_jitter`, degrees) before and
        after, and the mean correction.
    """
    from avatar.preprocess.refine import pose_jitter

    data = trainer.data
    motion = trainer.poses.cpu().corrected(data.motion)
    motion.save(folder / TRACKING)
    data.steady_motion(motion)[: data.test_start].save(folder / MOTION)
    before, after = data.motion.head_rotation, motion.head_rotation
    return {
        "steps": trainer.steps, "seconds": trainer.seconds, "psnr": trainer.psnr, **trainer.model.stats(),
        "head_jitter_before_deg": pose_jitter(before.numpy(), data.segments),
        "head_jitter_after_deg": pose_jitter(after.numpy(), data.segments),
        "head_correction_deg": float((after - before).norm(dim=-1).mean().rad2deg()),
        "head_correction_cm": float((motion.head_translation - data.motion.head_translation).norm(dim=-1).mean()),
    }  # fmt: skip
