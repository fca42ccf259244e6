"""Let an avatar speak a sound file, replay the frames of its video, or follow a motion file, from any viewpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from avatar import log
from avatar.backends import RendererName, require
from avatar.checks import read_toml
from avatar.data.person import FILE
from avatar.device import DeviceName, Precision, choose_device, cpu_threads
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.infer.controls import Controls

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from avatar.data import PersonDataset
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.io.video_writer import VideoWriter
    from avatar.motion import Motion


@dataclass(frozen=True, kw_only=True)
class Config:
    """Render an avatar to a video."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    audio: Path | None = None
    """What the avatar says: any sound or video file, of any length. It goes into the video as it is."""
    out: Path | None = None
    """The mp4 to write; default: named after the input, in the RUN folder."""
    split: Literal["test", "train"] | None = None
    """Instead of --audio: the held-out or the training frames of the person's own video, with their real poses."""
    drive: Literal["tracked", "audio"] = "tracked"
    """With --split: whether the lips follow the tracked motion or the sound."""
    text: str | None = None
    """Instead of --audio: what the avatar says, in English; its sound is written beside the video."""
    voice: str = "heart"
    """Voice of --text, a name of hibari-tts."""
    camera: str | None = None
    """orbit, "azimuth,elevation[,zoom]" in degrees around the head, or a .json of keyframes; default: as filmed."""
    size: int | None = None
    """Longer side of the video in pixels; default: as trained."""
    baked: bool = False
    """Play the basis that `avatar bake` wrote instead of the trained field: faster."""
    precision: Precision = "auto"
    """Of the deformation network: auto is bfloat16 where the processor is faster with it."""
    renderer: RendererName = "native"
    """What draws the Gaussians: gsplat draws the same picture, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    frames: int | None = None
    """Stop after this many frames."""
    json: Path | None = None
    """Write frames, seconds and speed, with the hardware and the commit, to this file."""
    person: Path | None = None
    """With --split: the PERSON folder, where it is not the one the avatar was trained from."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


class Job(NamedTuple):
    """What is to be rendered.

    Attributes:
        motions: Blocks of motion.
        total: Frames.
        audio: Sound that goes into the video.
        audio_start: Second of it that belongs to the first frame.
        background: What is behind the person in the n-th frame, uint8 RGB [H, W, 3]; None for the plate.
    """

    motions: Iterator[Motion]
    total: int
    audio: Path | None
    audio_start: float
    background: Callable[[int], np.ndarray] | None = None


class Timing(NamedTuple):
    """Frames rendered, seconds inside the renderer (the mean of its threads), and seconds in all."""

    frames: int
    render_seconds: float
    seconds: float


def main(config: Config) -> None:
    """Render to an mp4."""
    from avatar.infer.camera_path import CameraPath
    from avatar.paths import write_json

    check(config)
    choose_device(config.device)
    path = CameraPath.parse(config.camera)
    out = output_path(config)
    if config.controls.print_timeline is not None:
        from avatar.motion.timeline import to_json

        write_json(config.controls.print_timeline, to_json(config.controls.spans()))
    audio = speech_sound(config.audio, config.text, config.voice, out)
    from avatar.infer.avatar import Avatar
    from avatar.infer.renderer import counts
    from avatar.io.video_writer import VideoWriter

    avatar = Avatar.load(config.run, config.baked, config.renderer, config.device, config.precision)
    camera = resize(avatar.camera, config.size)
    job = plan(config, avatar, audio, path)
    with log.progress() as bar:
        task = bar.add_task("Rendering", total=job.total, info="")
        with VideoWriter(out, camera.width, camera.height, avatar.fps, job.audio, job.audio_start) as writer:
            timing = render_video(avatar, job, camera, path, writer, lambda: bar.advance(task), avatar.frames_at_once)
    if timing.frames == 0:
        raise AvatarError("There is nothing to render:", "the input has no frames.")
    rate = timing.frames / timing.seconds
    log.info(
        f"{out}: {timing.frames} frames ({timing.frames / avatar.fps:.1f} s) in {timing.seconds:.1f} s, "
        f"{rate:.1f} frames/s, {rate / avatar.fps:.2f} times real time."
    )
    if config.json is not None:
        record = environment() | {
            "frames": timing.frames, "seconds": round(timing.seconds, 3), "frames_per_second": round(rate, 2),
            "render_milliseconds": round(1000 * timing.render_seconds / timing.frames, 2), "fps": avatar.fps,
            "width": camera.width, "height": camera.height, **counts(avatar.info),
            "baked": config.baked, "device": avatar.device.type,
        }  # fmt: skip
        write_json(config.json, record)
    log.next_command(f"avatar view {config.run}")


def check(config: Config) -> None:
    """Refuse options that contradict each other before anything slow happens."""
    run = Path(config.run)
    if not run.is_dir():
        raise AvatarError(f"There is no run folder {run}.", "", f"Make one: avatar create VIDEO --out {run}")
    controls = config.controls
    options = {"audio": config.audio, "text": config.text, "motion": controls.motion, "idle": controls.idle or None}
    given = [name for name, value in options.items() if value is not None]
    if not given and config.split is None:
        raise AvatarError("Nothing to say:", "", "give --audio FILE, --text, --split test, --motion FILE or --idle.")
    if config.split is not None and given:
        raise AvatarError(f"--split and --{given[0]} exclude each other.")
    if config.split is not None and (controls.spans() or controls.style):
        raise AvatarError("--split replays the video as it is.", "", "Controls go with --audio, --text or --motion.")
    if config.audio is not None and config.text is not None:
        raise AvatarError("--audio and --text exclude each other.")
    controls.check()
    require(config.renderer)
    if config.drive == "audio" and config.split is None:
        raise AvatarError("--drive belongs to --split.", "", "With --audio the sound always drives the lips.")
    if config.size is not None and not 32 <= config.size <= 4096:
        raise AvatarError(f"--size {config.size} is out of range.", "", "It goes from 32 to 4096 pixels.")
    if config.frames is not None and config.frames < 1:
        raise AvatarError(f"--frames {config.frames} is out of range.", "", "It must be at least 1.")
    if config.out is not None:
        if config.out.suffix.lower() != ".mp4":
            raise AvatarError(f"--out {config.out} must end in .mp4.")
        if config.out.is_dir():
            raise AvatarError(f"--out {config.out} is a folder.", "", "Name the mp4 file in it.")
    inputs = (config.audio, controls.motion, controls.timeline)
    for out in (output_path(config), config.json, controls.print_timeline):
        if out is not None:
            refuse_to_overwrite(out, *inputs)


PARTS = frozenset(
    (
        "model.safetensors", "tracking.safetensors", "motion.safetensors", "speech.safetensors", "prior.safetensors",
        "live.safetensors", "generator.safetensors", "baked.safetensors", FILE, "config.toml", "environment.json",
        "training.json", "prepare.json", "command.txt",
    )
)  # fmt: skip


def refuse_to_overwrite(out: Path, *inputs: Path | None) -> None:
    """An output that is one of the inputs, a part of an avatar or of a person, or a folder, is a mistake."""
    if out.is_dir():
        raise AvatarError(f"The output {out} is a folder.", "", "Name a file.")
    if out.name in PARTS and out.exists() and (out.parent / FILE).is_file():
        raise AvatarError(f"The output {out} is a part of what is in {out.parent}.", "", "Choose another name.")
    for path in inputs:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise AvatarError(f"The output {out} is one of the inputs.", "", "Choose another --out.")


def output_path(config: Config) -> Path:
    """Where the mp4 goes."""
    if config.out is not None:
        return config.out
    source = config.audio or (None if config.text is not None else config.controls.motion)
    plain = config.split or ("idle" if config.text is None else "text")
    return Path(config.run) / f"{plain if source is None else source.stem}.mp4"


def speech_sound(audio: Path | None, text: str | None, voice: str, out: Path) -> Path | None:
    """The sound file to be spoken, if any; a bad one is told before anything slow happens.

    Args:
        audio: The sound file given, or None.
        text: The text given, or None; it is said into a wav file beside ``out``.
        voice: Who says it.
        out: The file that is written in the end.
    """
    if text is not None:
        from avatar.io.text_to_speech import say

        audio = out.with_suffix(".speech.wav")
        say(text, voice, audio)
    if audio is not None:
        from avatar.io.audio import stream_audio

        next(stream_audio(audio))
    return audio


def plan(config: Config, avatar: Avatar, audio: Path | None, path: CameraPath) -> Job:
    """Find the motion for the options."""
    from avatar.audio2motion.load import drive_held_out, load_speech, sound_time
    from avatar.infer.planner import plan_motion

    start, background = 0.0, None
    if config.split is not None:
        data = open_person(config.run, config.person)
        refuse_to_overwrite(output_path(config), Path(data.info.get("source") or os.devnull))
        first, last = (data.test_start, data.num_frames) if config.split == "test" else (0, data.test_start)
        total = last - first
        if data.camera_moves:
            background = lambda n: data.background(first + n)  # noqa: E731
        if config.drive == "audio":
            motions = drive_held_out(data, load_speech(config.run), first, last)
        else:
            motions = iter([data.motion[first:last]])
        if data.audio_path.is_file():
            audio, start = data.audio_path, sound_time(data, first)
    else:
        motions, total, audio, start = plan_motion(
            avatar, config.controls, audio, lambda t: path.camera(avatar.camera, avatar.pivot, t).position
        )
    if config.frames is not None:
        motions, total = limited(motions, config.frames), min(total, config.frames)
    return Job(motions, total, audio, start, background)


def render_video(
    avatar: Avatar, job: Job, camera: Camera, path: CameraPath, writer: VideoWriter, done=lambda: None,
    at_once: int = 1,
) -> Timing:  # fmt: skip
    """Render a job into a video; speech, frames and encoding overlap.

    Args:
        avatar: Anything with the `Renderer` protocol, ``fps``, ``pivot`` and `Avatar.coverage`.
        job: Blocks of motion, and what is behind the person.
        camera: The camera that ``path`` moves.
        path: Camera path over time.
        writer: Takes the frames.
        done: Called after each frame.
        at_once: How many frames are drawn at the same time, each in one thread: see `Avatar.frames_at_once`.
    """
    import torch

    from avatar.infer.avatar import shown
    from avatar.infer.pipeline import Worker, in_order, prefetch

    def frames() -> Iterator[tuple[Camera, Motion, int, Tensor | None]]:
        count = 0
        for block in shown(avatar, prefetch(job.motions)):
            for i in range(len(block)):
                behind = None if job.background is None else torch.from_numpy(job.background(count))
                yield path.camera(camera, avatar.pivot, count / avatar.fps), block, i, behind
                count += 1

    def draw(frame: tuple[Camera, Motion, int, Tensor | None]) -> tuple[np.ndarray, float]:
        view, block, i, behind = frame
        start = time.perf_counter()
        image = avatar.render(view, block, i, background=behind).cpu()  # waits for a GPU: timed too
        return image.numpy(), time.perf_counter() - start

    began = time.perf_counter()
    rendering, count = 0.0, 0
    with cpu_threads(1) if at_once > 1 else nullcontext(), Worker(writer.write) as encoder:
        for image, seconds in in_order(draw, frames(), at_once):
            encoder.put(image)
            rendering += seconds
            count += 1
            done()
    return Timing(count, rendering / at_once, time.perf_counter() - began)


def limited(motions: Iterable[Motion], frames: int) -> Iterator[Motion]:
    """The first ``frames`` frames of blocks of motion."""
    for block in motions:
        block = block[:frames]
        frames -= len(block)
        yield block
        if frames <= 0:
            return


def resize(camera: Camera, size: int | None) -> Camera:
    """The camera at a size given by its longer side."""
    if size is None:
        return camera
    scale = size / max(camera.width, camera.height)
    return camera.resized(max(2, round(camera.width * scale)), max(2, round(camera.height * scale)))


def open_person(run: Path, person: Path | None) -> PersonDataset:
    """The person a run was trained from, with the poses that training corrected: as given, as the run remembers it, or
    beside the run.

    Raises:
        AvatarError: It is not found.
    """
    from avatar.data import PersonDataset

    run = Path(os.path.abspath(run))
    tracking = run / "tracking.safetensors"
    motion = tracking if tracking.is_file() else None
    if person is not None:
        return PersonDataset(person, motion)
    candidates = [run.with_name(run.name + ".person")]
    remembered = _remembered_person(run)
    if remembered is not None:
        candidates = [remembered, run.parent / remembered.name, *candidates]
    for candidate in candidates:
        if (candidate / "person.json").is_file():
            return PersonDataset(candidate, motion)
    raise AvatarError(
        f"The person that {run} was trained from is not at {candidates[0]} any more.", "", "Give --person PERSON."
    )


def _remembered_person(run: Path) -> Path | None:
    path = run / "config.toml"
    person = read_toml(path).get("person") if path.is_file() else None
    return Path(person) if isinstance(person, str) else None
