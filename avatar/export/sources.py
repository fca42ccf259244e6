"""Gather what an exporter writes: a person, an avatar, and what the avatar does."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.data.bundle import run_folder
from avatar.data.outputs import check_output, refuse_to_overwrite
from avatar.data.run import MODEL, open_person, require_run
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.export.base import NO_FILE, Exporter, ExportSource, write
from avatar.export.view import View
from avatar.writing import one_writer

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.infer.controls import Controls
    from avatar.infer.speaking import Speaking

LONGEST_TITLE = 40  # characters of a text that become the title of what is said


def export(
    exporter: Exporter, folder: Path, out: Path | None, speaking: Speaking, controls: Controls, device: DeviceName
) -> None:
    """Write a RUN or PERSON folder in the format of an exporter.

    Args:
        exporter: The format with its options.
        folder: RUN folder, bundle, or PERSON folder.
        out: The file or folder to write; None: the format's default in the RUN folder.
        speaking: What the avatar says, for formats of motion.
        controls: How it behaves meanwhile.
        device: Where to compute, for formats of the avatar.

    Raises:
        AvatarError: An option is unsuitable, or something cannot be read or written.
    """
    needs = exporter.needs()
    if folder.is_file() and out is None and exporter.default is not None:
        raise AvatarError(f"{folder} is a bundle, and nothing can be written into it.", fix="Name a file with --out.")
    given, folder = folder, run_folder(folder)
    path = _target(exporter, folder, out, given)
    # What goes into the RUN folder belongs to its model, which must not be trained meanwhile.
    inside = out is None and exporter.default != NO_FILE
    with one_writer(folder) if inside and folder.is_dir() else nullcontext():
        source = ExportSource(folder=folder)
        if "motion" in needs or ("optional-motion" in needs and _asked(speaking, controls)):
            source = _motion(exporter, folder, path, speaking, controls, device if "avatar" in needs else "cpu")
        elif "avatar" in needs:
            source = replace(source, avatar=_avatar(folder, device))
        if "person" in needs:
            source = replace(source, person=_person(folder))
        write(exporter, source, path)


def _asked(speaking: Speaking, controls: Controls) -> bool:
    """Whether anything is said about what the avatar does."""
    from avatar.infer.controls import Controls

    return speaking.audio is not None or speaking.text is not None or controls != Controls()


def _target(exporter: Exporter, folder: Path, out: Path | None, given: Path) -> Path:
    """The file or folder to write, which must not be the bundle that was given."""
    if exporter.default == NO_FILE:
        if out is not None:
            raise AvatarError("--out does not belong to this format:", why="it writes no file.", fix="Leave it out.")
        return folder / "sent"  # its name is for the audio of a text
    if out is None:
        if exporter.default is None:
            raise AvatarError("--out is missing.", fix="Name the file or folder to write.")
        return folder / exporter.default
    if exporter.suffixes:
        check_output(out, given if given.is_file() else None, suffixes=exporter.suffixes)
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
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.controls import files_of
    from avatar.infer.planner import plan_motion
    from avatar.motion import Motion

    require_run(folder)
    camera = exporter.camera if isinstance(exporter, View) else None
    inputs = [speaking.audio, *files_of(controls), Path(camera) if camera else None]
    for path in (controls.print_timeline, out if exporter.suffixes else None):
        if path is not None:
            refuse_to_overwrite(path, *inputs)
    controls.check()
    view = CameraPath.parse(camera)
    controls.write_timeline()
    audio = speaking.open(out)
    avatar = _avatar(folder, device)
    if not controls.beyond:  # eyes look at the camera that is shown; that it is another one, `View.shots` says
        view = view.within(avatar.cone)
    plan = plan_motion(
        avatar, controls, frames=0 if audio is None else audio.frames(avatar.fps),
        camera=lambda t: view.camera(avatar.camera, avatar.pivot, t).position,
        voice_db=None if audio is None else audio.voice_db,
    )  # fmt: skip
    motion = Motion.cat(list(plan.stream(audio or ())))
    title = _title(speaking, controls)
    source = ExportSource(folder=folder, avatar=avatar, motion=motion, beyond=controls.beyond, title=title)
    if audio is None:
        return source
    return replace(source, audio=audio.path, audio_start=plan.audio_start, audio_track=audio.track)


def _title(speaking: Speaking, controls: Controls) -> str:
    """The beginning of what is said, or the name of the file that is spoken or moved by."""
    if speaking.text is not None:
        text = " ".join(speaking.text.split())
        return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1].rstrip()}…"
    path = speaking.audio or controls.motion
    return "idle" if path is None else path.stem
