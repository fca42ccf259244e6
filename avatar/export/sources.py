"""Gather what an exporter writes: a person, an avatar, and what the avatar does."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.data.outputs import check_output, refuse_to_overwrite
from avatar.data.run import MODEL, open_person, require_run
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.export.base import Exporter, ExportSource, write
from avatar.writing import one_writer

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.infer.controls import Controls
    from avatar.infer.speaking import Speaking


def export(
    exporter: Exporter, folder: Path, out: Path | None, speaking: Speaking, controls: Controls, device: DeviceName
) -> None:
    """Write a RUN or PERSON folder in the format of an exporter.

    Args:
        exporter: The format with its options.
        folder: RUN folder, or PERSON folder.
        out: The file or folder to write; None: the format's default in the RUN folder.
        speaking: What the avatar says, for formats of motion.
        controls: How it behaves meanwhile.
        device: Where to compute, for formats of the avatar.

    Raises:
        AvatarError: An option is unsuitable, or something cannot be read or written.
    """
    needs = exporter.needs()
    path = _target(exporter, folder, out)
    # What goes into the RUN folder belongs to its model, which must not be trained meanwhile.
    with one_writer(folder) if out is None and folder.is_dir() else nullcontext():
        source = ExportSource(folder=folder)
        if "motion" in needs:
            source = _motion(exporter, folder, path, speaking, controls, device if "avatar" in needs else "cpu")
        elif "avatar" in needs:
            source = replace(source, avatar=_avatar(folder, device))
        if "person" in needs:
            source = replace(source, person=_person(folder))
        write(exporter, source, path)


def _target(exporter: Exporter, folder: Path, out: Path | None) -> Path:
    if out is None:
        if exporter.default is None:
            raise AvatarError("--out is missing.", fix="Name the file or folder to write.")
        return folder / exporter.default
    if exporter.suffixes:
        check_output(out, suffixes=exporter.suffixes)
    return out


def _person(folder: Path) -> PersonDataset:
    from avatar.data import PersonDataset

    return open_person(folder) if (folder / MODEL).is_file() else PersonDataset(folder)


def _avatar(folder: Path, device: DeviceName) -> Avatar:
    from avatar.infer.avatar import Avatar

    return Avatar.load(folder, device=device, precision="float32")


def _motion(
    exporter: Exporter, folder: Path, out: Path, speaking: Speaking, controls: Controls, device: DeviceName
) -> ExportSource:
    from avatar.infer.planner import plan_motion
    from avatar.motion import Motion

    require_run(folder)
    for path in (out if exporter.suffixes else None, controls.print_timeline):
        if path is not None:
            refuse_to_overwrite(path, speaking.audio, controls.motion, controls.timeline)
    controls.check()
    controls.write_timeline()
    audio = speaking.open(out)
    avatar = _avatar(folder, device)
    plan = plan_motion(avatar, controls, frames=0 if audio is None else audio.frames(avatar.fps))
    motion = Motion.cat(list(plan.stream(audio or ())))
    source = ExportSource(folder=folder, avatar=avatar, motion=motion)
    if audio is None:
        return source
    return replace(source, audio=audio.path, audio_start=plan.audio_start, audio_track=audio.track)
