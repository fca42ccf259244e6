"""Measure an avatar on the part of the video that it was never trained on.

Two drives: ``tracked`` renders the tracked motion of the held-out frames, so that it measures the picture; ``audio``
takes the lips from the held-out sound alone (head pose, torso and upper face stay real, as papers do it), so that it
measures talking. Rendered and real video are tracked anew with the same settings.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import numpy as np
import tyro

from avatar import log
from avatar.backends import RendererName, require
from avatar.device import DeviceName
from avatar.environment import environment, peak_memory
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.retrack import Tracker
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS
    from avatar.motion import Motion

FORMAT = "avatar-metrics-1"
SPEED_FRAMES = 100


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure an avatar on held-out frames."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    json: Path | None = None
    """Where the numbers go; default: metrics.json in the RUN folder."""
    save_video: Path | None = None
    """Folder for pred.mp4, real.mp4, side_by_side.mp4, a contact sheet and a plot of the mouth."""
    person: Path | None = None
    """The PERSON folder, where it is not the one the avatar was trained from."""
    frames: int | None = None
    """Measure only the first so many held-out frames."""
    drive: Literal["both", "tracked", "audio"] = "both"
    """What moves the face."""
    renderer: RendererName = "native"
    """What draws the Gaussians: gsplat draws the same picture, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render and to compute LPIPS: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Measure, write the JSON and the videos, and print a table."""
    from avatar.eval import report
    from avatar.eval.retrack import FaceTracker
    from avatar.infer.avatar import Avatar
    from avatar.infer.command import open_person
    from avatar.paths import write_json

    if config.frames is not None and config.frames < 3:
        raise AvatarError(f"--frames {config.frames} is too few to measure motion.", "", "Give at least 3.")
    require(config.renderer)
    avatar = Avatar.load(config.run, renderer=config.renderer, device=config.device)
    data = open_person(config.run, config.person)
    first = data.test_start
    last = data.num_frames if config.frames is None else min(data.num_frames, first + config.frames)
    if (data.width, data.height) != (avatar.camera.width, avatar.camera.height):
        raise AvatarError(
            f"The person is {data.width}x{data.height}, the avatar {avatar.camera.width}x{avatar.camera.height}.",
            "It was trained from another one.",
            "Give the right --person.",
        )
    if last - first < 3:
        raise AvatarError(f"{data.folder} has {last - first} held-out frames,", "too few to measure motion.")
    notes: list[str] = []
    drives = choose_drives(config, avatar, data, first, last, notes)
    lpips = load_lpips(notes)
    if lpips is not None:
        lpips.to(avatar.device)
    if avatar.device.type == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False  # a metric is the same number on every device
    speed = measure_speed(avatar, data, config, first, last, "audio" in drives)
    with FaceTracker() as tracker:
        measured = evaluate(avatar, data, drives, first, last, tracker, lpips, config.save_video)
    result = {
        "format": FORMAT,
        "run": config.run.name,
        "person": data.folder.name,
        **environment(),
        "first_frame": first,
        "frames": last - first,
        "fps": data.fps,
        "width": data.width,
        "height": data.height,
        **measured,
        "speed": speed,
        "model": avatar.info,
        "peak_memory_bytes": peak_memory(),
        "notes": notes,
    }
    path = config.json or config.run / "metrics.json"
    write_json(path, result)
    log.console.print(report.table(result))
    for line in report.summary_lines(result):
        log.console.print(line, markup=False)
    log.info(f"Numbers: {path}" + (f"; look at {config.save_video}/contact.jpg" if config.save_video else ""))
    log.next_command(f"avatar render {config.run} --audio SPEECH.wav --out {config.run}/speech.mp4")


def choose_drives(
    config: Config, avatar: Avatar, data: PersonDataset, first: int, last: int, notes: list[str]
) -> dict[str, Iterable[Motion]]:
    """The motion of each drive in blocks. With ``both``, a person without sound is measured on tracked motion only."""
    from avatar.infer.speak import load_speech, speak_held_out

    drives: dict[str, Iterable[Motion]] = {}
    if config.drive in ("both", "audio"):
        try:
            drives["audio"] = speak_held_out(data, load_speech(config.run), first, last)
        except AvatarError as error:
            if config.drive == "audio":
                raise
            notes.append(f"Not measured with audio: {error}")
    if config.drive in ("both", "tracked"):
        drives["tracked"] = [data.motion[first:last]]
    return drives


def load_lpips(notes: list[str]) -> LPIPS | None:
    """The LPIPS network, or None with a note that says why there is none."""
    from avatar.losses.lpips import LPIPS

    try:
        return LPIPS.load()
    except AvatarError as error:
        notes.append(f"LPIPS was not measured: {error}")
        return None


def measure_speed(
    avatar: Avatar, data: PersonDataset, config: Config, first: int, last: int, with_speech: bool
) -> dict[str, Any]:
    """Time the pipeline of `avatar render` on some held-out frames, before anything else of eval is in memory."""
    from avatar.infer.cameras_path import CameraPath
    from avatar.infer.command import Job, render_video
    from avatar.infer.speak import load_speech, sound_time, speak_held_out
    from avatar.io.video_writer import VideoWriter

    last = min(last, first + SPEED_FRAMES)
    avatar.render(avatar.camera, data.motion, first)  # the first frame fills caches
    blocks: Iterable[Motion] = [data.motion[first:last]]
    if with_speech:
        blocks = speak_held_out(data, load_speech(config.run), first, last)
    sound = data.audio_path if data.audio_path.is_file() else None
    with tempfile.TemporaryDirectory(prefix="avatar-eval-") as folder:
        path = Path(folder) / "speed.mp4"
        with VideoWriter(path, data.width, data.height, data.fps, sound, sound_time(data, first)) as writer:
            job = Job(iter(blocks), last - first, None, 0.0)
            timing = render_video(avatar, job, avatar.camera, CameraPath.parse(None), writer)
    return {
        "frames": timing.frames,
        "render_fps": timing.frames / timing.render_seconds,
        "end_to_end_fps": timing.frames / timing.seconds,
        "device": avatar.device.type,
        "with_speech": with_speech,
        "peak_memory_bytes": peak_memory(),
    }


@dataclass
class _Track:
    """One video's landmarks, and its picture quality where it is a rendered one."""

    landmarks: list[np.ndarray] = field(default_factory=list)

    @property
    def array(self) -> np.ndarray:
        return np.stack(self.landmarks)


def evaluate(
    avatar: Avatar,
    data: PersonDataset,
    drives: dict[str, Iterable[Motion]],
    first: int,
    last: int,
    tracker: Tracker,
    lpips: LPIPS | None,
    save: Path | None = None,
) -> dict[str, Any]:
    """Render, compare and track every frame once; frames are never kept, apart from eight for the contact sheet.

    Args:
        avatar: Anything with the `Renderable` protocol and ``camera``.
        data: The person, real frames and masks.
        drives: Name to blocks of motion for the frames ``first`` to ``last`` (exclusive).
        first, last: Frames of the person.
        tracker: Tracks both videos.
        lpips: Metric network, or None.
        save: Folder for videos and pictures.

    Returns:
        ``{"drives": {name: metrics}, "real": metrics}``.
    """
    import torch

    from avatar.eval import metrics, pictures

    segments = [(max(a, first) - first, min(b, last) - first) for a, b in data.segments if a < last and b > first]
    quality = {name: metrics.PictureQuality(lpips) for name in drives}
    tracks = {name: _Track() for name in ("real", *drives)}
    chosen = pictures.pick_frames(metrics.relative_opening(np.asarray(data.landmarks[first:last])))
    columns: list[dict[str, np.ndarray]] = []
    moving = {name: _frames(blocks, name, last - first) for name, blocks in drives.items()}
    with ExitStack() as stack, log.progress() as bar:
        film = stack.enter_context(_Films(save, data, first, list(drives))) if save else None
        task = bar.add_task("Measuring", total=last - first, info="")
        for t in range(first, last):
            real, masks = data.image(t), data.masks(t)
            images = {"real": real}
            behind = torch.from_numpy(data.background(t)) if data.camera_moves else None
            for name, frames in moving.items():
                motion, i = next(frames)
                images[name] = avatar.render(avatar.camera, motion, i, background=behind).cpu().numpy()
                quality[name].add(images[name], real, masks)
            for name, image in images.items():
                tracks[name].landmarks.append(tracker.landmarks(image))
            if film is not None:
                film.write(images)
            if t - first in chosen:
                columns.append(images)
            bar.advance(task)
    real_points = tracks["real"].array
    result: dict[str, Any] = {"drives": {}, "real": {}}
    for name in drives:
        faces = metrics.face_metrics(tracks[name].array, real_points, data.width, data.fps, segments)
        result["drives"][name] = quality[name].summary() | faces
    own = metrics.face_metrics(real_points, real_points, data.width, data.fps, segments)
    result["real"] = {k: own[k] for k in ("pose_jitter", "blinks", "frames_without_face")}
    if save is not None:
        titles = [f"{(first + i) / data.fps:.2f} s" for i in chosen]
        sheet = pictures.contact_sheet(columns, [real_points[i] for i in chosen], titles)
        pictures.save_image(save / "contact.jpg", sheet)
        openings = {name: metrics.relative_opening(track.array) for name, track in tracks.items()}
        pictures.plot_openings(save / "mouth.png", openings, data.fps)
    return result


def _frames(blocks: Iterable[Motion], name: str, wanted: int) -> Iterator[tuple[Motion, int]]:
    """Blocks of motion frame by frame; a drive that ends early is a bug that must not pass as a short video."""
    count = 0
    for block in blocks:
        for i in range(len(block)):
            yield block, i
            count += 1
    raise RuntimeError(f"the drive '{name}' ended after {count} of {wanted} frames")


@final
class _Films:
    """pred.mp4 (audio-driven where possible), pred_tracked.mp4, real.mp4 and side_by_side.mp4, with the sound."""

    def __init__(self, folder: Path, data: PersonDataset, first: int, drives: list[str]) -> None:
        from avatar.infer.speak import sound_time

        self._folder, self._data, self._drives = folder, data, drives
        self._sound = data.audio_path if data.audio_path.is_file() else None
        self._start = sound_time(data, first)
        self._stack = ExitStack()

    def __enter__(self) -> _Films:
        from avatar.eval.pictures import LABEL_HEIGHT
        from avatar.io.video_writer import VideoWriter

        data = self._data
        names = dict(
            zip(self._drives, itertools.chain(["pred"], (f"pred_{n}" for n in self._drives[1:])), strict=False)
        )
        sizes = dict.fromkeys(("real", *names.values()), (data.width, data.height))
        sizes["side_by_side"] = (data.width * (1 + len(names)), data.height + LABEL_HEIGHT)
        self._names = {"real": "real", **names}
        self._writers = {
            file: self._stack.enter_context(
                VideoWriter(self._folder / f"{file}.mp4", *size, data.fps, self._sound, self._start)
            )
            for file, size in sizes.items()
        }
        return self

    def write(self, images: dict[str, np.ndarray]) -> None:
        from avatar.eval.pictures import side_by_side

        for name, image in images.items():
            self._writers[self._names[name]].write(image)
        self._writers["side_by_side"].write(side_by_side(images))

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]
