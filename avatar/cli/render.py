"""Let an avatar speak an audio file or a text, replay its video, or follow a motion, from any viewpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from avatar import log
from avatar.backends import RendererName, require
from avatar.cli.speaking import Speaking
from avatar.data.outputs import refuse_to_overwrite
from avatar.device import DeviceName, Precision, choose_device
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.infer.controls import Controls

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.sources import AudioFile
    from avatar.infer.video import Job

GROUPS = {
    "say it differently": ("tts", "voice", "language", "speech", "words"),
    "move": ("motion", "retarget", "pose", "pose_guidance", "pose_noise", "pose_scale", "idle", "style"),
    "expression": ("emotion", "emotion_limit", "lip_scale", "blink", "gaze"),
    "timeline": ("timeline", "print_timeline", "seed"),
    "replay the person's video": ("split", "drive", "person"),
    "hardware": ("baked", "precision", "renderer", "device", "json"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Render an avatar to a video."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    speaking: tyro.conf.OmitArgPrefixes[Speaking] = field(default_factory=Speaking)
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The mp4 to write; default: named after the input, in the RUN folder."""
    camera: str | None = None
    """orbit, "azimuth,elevation[,zoom]" in degrees around the head, or a .json of keyframes; default: as filmed."""
    size: int | None = None
    """Longer side of the video in pixels; default: as trained."""
    frames: int | None = None
    """Stop after this many frames."""
    split: Literal["test", "train"] | None = None
    """Instead of --audio: the held-out or the training frames of the person's own video, with their real poses."""
    drive: Literal["tracked", "audio"] = "tracked"
    """With --split: whether the lips follow the tracked motion or the audio."""
    person: Path | None = None
    """With --split: the PERSON folder, where it is not the one the avatar was trained from."""
    baked: bool = False
    """Play what `avatar export --format baked` wrote instead of the trained field: faster."""
    precision: Precision = "auto"
    """Of networks: auto is bfloat16 where the processor is faster with it."""
    renderer: RendererName = "native"
    """Backend that draws: gsplat draws the same image, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    json: Path | None = None
    """Write frames, seconds and speed, with the hardware and the commit, to this file."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


def main(config: Config) -> None:
    """Render to an mp4."""
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.video import render_video, resize

    check(config)
    choose_device(config.device)
    path = CameraPath.parse(config.camera)
    out = output_path(config)
    config.controls.write_timeline()
    audio = config.speaking.open(out)
    from avatar.infer.avatar import Avatar
    from avatar.infer.renderer import counts
    from avatar.io.video_writer import VideoWriter

    avatar = Avatar.load(config.run, config.baked, config.renderer, config.device, config.precision)
    camera = resize(avatar.camera, config.size)
    job = replay(config, avatar) if config.split is not None else plan(config, avatar, audio, path)
    job = job.limited(config.frames)
    with log.progress() as bar:
        task = bar.add_task("Rendering", total=job.frames, info="")
        with VideoWriter(out, camera.width, camera.height, avatar.fps, job.audio, job.audio_start) as writer:
            timing = render_video(avatar, job, camera, path, writer, lambda: bar.advance(task), avatar.frames_at_once)
    if timing.frames == 0:
        raise AvatarError("There is nothing to render:", why="the input has no frames.")
    rate = timing.frames / timing.seconds
    log.info(
        f"{out}: {timing.frames} frames ({timing.frames / avatar.fps:.1f} s) in {timing.seconds:.1f} s, "
        f"{rate:.1f} frames/s, {rate / avatar.fps:.2f} times real time."
    )
    if config.json is not None:
        from avatar.paths import write_json

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
    run, controls, speaking = Path(config.run), config.controls, config.speaking
    if not run.is_dir():
        raise AvatarError(f"There is no run folder {run}.", fix=f"Make one: avatar create VIDEO --out {run}")
    options = {
        "audio": speaking.audio, "text": speaking.text, "motion": controls.motion, "idle": controls.idle or None
    }  # fmt: skip
    given = [name for name, value in options.items() if value is not None]
    if not given and config.split is None:
        raise AvatarError("Nothing to say:", fix="give --audio FILE, --text, --split test, --motion FILE or --idle.")
    if config.split is not None and given:
        raise AvatarError(f"--split and --{given[0]} exclude each other.")
    if config.split is not None and (controls.spans() or controls.style):
        raise AvatarError("--split replays the video as it is.", fix="Controls go with --audio, --text or --motion.")
    controls.check()
    require(config.renderer)
    if config.drive == "audio" and config.split is None:
        raise AvatarError("--drive belongs to --split.", fix="With --audio the audio always drives the lips.")
    if config.size is not None and not 32 <= config.size <= 4096:
        raise AvatarError(f"--size {config.size} is out of range.", fix="It goes from 32 to 4096 pixels.")
    if config.frames is not None and config.frames < 1:
        raise AvatarError(f"--frames {config.frames} is out of range.", fix="It must be at least 1.")
    if config.out is not None:
        if config.out.suffix.lower() != ".mp4":
            raise AvatarError(f"--out {config.out} must end in .mp4.")
        if config.out.is_dir():
            raise AvatarError(f"--out {config.out} is a folder.", fix="Name the mp4 file in it.")
    for out in (output_path(config), config.json, controls.print_timeline):
        if out is not None:
            refuse_to_overwrite(out, speaking.audio, controls.motion, controls.timeline)


def output_path(config: Config) -> Path:
    """Where the mp4 goes."""
    if config.out is not None:
        return config.out
    source = config.speaking.audio or (None if config.speaking.text is not None else config.controls.motion)
    plain = config.split or ("idle" if config.speaking.text is None else "text")
    return Path(config.run) / f"{plain if source is None else source.stem}.mp4"


def plan(config: Config, avatar: Avatar, audio: AudioFile | None, path: CameraPath) -> Job:
    """Plan the motion that the options ask for."""
    from avatar.infer.planner import plan_motion
    from avatar.infer.video import Job

    planned = plan_motion(
        avatar, config.controls, frames=0 if audio is None else audio.frames(avatar.fps),
        camera=lambda t: path.camera(avatar.camera, avatar.pivot, t).position,
    )  # fmt: skip
    assert planned.frames is not None
    return Job(
        motions=planned.stream(audio or ()), frames=planned.frames, audio=None if audio is None else audio.path,
        audio_start=planned.audio_start,
    )  # fmt: skip


def replay(config: Config, avatar: Avatar) -> Job:
    """Replay frames of the person's own video."""
    from avatar.audio2motion.load import load_speech
    from avatar.data.run import open_person
    from avatar.eval.driving import audio_second, drive_held_out
    from avatar.infer.video import Job

    data = open_person(config.run, config.person)
    refuse_to_overwrite(output_path(config), Path(data.info.source or os.devnull))
    first, last = (data.test_start, data.num_frames) if config.split == "test" else (0, data.test_start)
    motions = iter([data.motion[first:last]])
    if config.drive == "audio":
        motions = drive_held_out(data, load_speech(config.run, avatar.fps), first, last)
    heard = data.audio_path.is_file()
    return Job(
        motions=motions, frames=last - first, audio=data.audio_path if heard else None,
        audio_start=audio_second(data, first) if heard else 0.0,
        background=(lambda n: data.background(first + n)) if data.camera_moves else None,
    )  # fmt: skip
