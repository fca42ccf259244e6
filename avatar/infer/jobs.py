"""What `avatar render` renders: options are checked here before anything slow happens, and become a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avatar import log
from avatar.data.outputs import check_output
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.infer.controls import files_of
from avatar.infer.planner import plan_motion
from avatar.infer.renderer import counts
from avatar.infer.video import Job

if TYPE_CHECKING:
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.controls import Controls
    from avatar.infer.sources import AudioFile
    from avatar.infer.speaking import Speaking
    from avatar.infer.video import Timing

SIZES = (32, 4096)  # pixels of the longer side of a video


def check_source(
    speaking: Speaking, controls: Controls, split: str | None, drive: Literal["tracked", "audio"], dub: bool = False
) -> None:  # fmt: skip
    """Refuse options that do not say what is to be rendered, or that contradict each other.

    Raises:
        AvatarError: There is nothing to render, or two options exclude each other.
    """
    options = {
        "audio": speaking.audio, "text": speaking.text, "motion": controls.motion, "idle": controls.idle or None
    }  # fmt: skip
    given = [name for name, value in options.items() if value is not None]
    if not given and split is None:
        raise AvatarError("Nothing to say:", fix="give --audio FILE, --text, --split test, --motion FILE or --idle.")
    if split is not None and given:
        raise AvatarError(f"--split and --{given[0]} exclude each other.")
    if dub and (split is not None or given not in (["audio"], ["text"])):
        raise AvatarError("--dub goes with --audio or --text, and with nothing else that moves the avatar.")
    if dub and (controls.spans() or controls.style):
        raise AvatarError("--dub plays the video as it was filmed.", fix="Leave out --dub, or the controls.")
    if split is not None and (controls.spans() or controls.style):
        raise AvatarError("--split replays the video as it is.", fix="Controls go with --audio, --text or --motion.")
    if drive == "audio" and split is None:
        raise AvatarError("--drive belongs to --split.", fix="With --audio the audio always drives the lips.")
    controls.check()


def check_extent(size: int | None, frames: int | None) -> None:
    """Refuse a size or a number of frames that is out of range.

    Raises:
        AvatarError: One is.
    """
    smallest, largest = SIZES
    if size is not None and not smallest <= size <= largest:
        raise AvatarError(f"--size {size} is out of range.", fix=f"It goes from {smallest} to {largest} pixels.")
    if frames is not None and frames < 1:
        raise AvatarError(f"--frames {frames} is out of range.", fix="It must be at least 1.")


def video_path(run: Path, out: Path | None, speaking: Speaking, controls: Controls, split: str | None) -> Path:
    """The mp4 to write: ``out``, or a name after the input in the RUN folder.

    Raises:
        AvatarError: It has another ending, is a folder, or would replace an input or a part of the avatar.
    """
    if out is None:
        source = speaking.audio or (None if speaking.text is not None else controls.motion)
        plain = split or ("idle" if speaking.text is None else "text")
        out = run / f"{plain if source is None else source.stem}.mp4"
    check_output(out, speaking.audio, *files_of(controls), suffixes=(".mp4",))
    return out


def speech_job(avatar: Avatar, controls: Controls, audio: AudioFile | None, path: CameraPath) -> Job:
    """Plan what an avatar does with audio, a motion file, or nothing but waiting.

    Raises:
        AvatarError: Something cannot be read.
    """
    planned = plan_motion(
        avatar, controls, frames=0 if audio is None else audio.frames(avatar.fps),
        camera=lambda t: path.camera(avatar.camera, avatar.pivot, t).position,
        voice_db=None if audio is None else audio.voice_db,
    )  # fmt: skip
    assert planned.frames is not None
    return Job(
        motions=planned.stream(audio or ()), frames=planned.frames, audio=None if audio is None else audio.path,
        audio_start=planned.audio_start, audio_track=None if audio is None else audio.track,
    )  # fmt: skip


def render_avatar(
    avatar: Avatar, audio: Path | str, out: Path | str, controls: Controls | None = None, camera: str | None = None
) -> Path:  # fmt: skip
    """Write an mp4 of an avatar that says an audio file, with that audio, as `avatar render` does.

    The file says that a program made it (content credentials). Its size is that of the whole frame.

    Args:
        avatar: The avatar.
        audio: Any file with audio that FFmpeg reads, of any length.
        out: The mp4 to write.
        controls: How the avatar says it: ``Controls(emotion=("happy:0.7",))``.
        camera: As for ``--camera``: ``"orbit"``, ``"azimuth,elevation[,zoom]"`` in degrees, or a .json of keyframes;
            by default as filmed.

    Returns:
        ``out``.

    Raises:
        AvatarError: The audio cannot be read, the video cannot be written, or a control is not understood.
    """
    from avatar.data.disclosed import disclosed
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.controls import Controls
    from avatar.infer.sources import AudioFile
    from avatar.infer.video import render_file

    source, target, how = Path(audio), Path(out), controls or Controls()
    how.check()
    check_output(target, source, *files_of(how), suffixes=(".mp4",))
    path = limited_path(avatar, CameraPath.parse(camera), how.beyond, camera)
    job = speech_job(avatar, how, AudioFile(source), path)
    render_file(avatar, job, avatar.view_camera, path, target, disclosed(avatar.run))
    return target


def limited_path(avatar: Avatar, path: CameraPath, beyond: bool, asked: str | None) -> CameraPath:
    """Keep a camera path within the views of an avatar that are good, and say so where that changes it.

    Args:
        avatar: The avatar.
        path: The path as asked for.
        beyond: Leave it as it is.
        asked: The text of ``--camera``.
    """
    limited = path if beyond else path.within(avatar.cone)
    if limited is not path and path.period is None:
        good = f"this avatar is good from {avatar.cone.limits().text}"
        if not avatar.cone.measured:
            good = "how far this avatar can be turned was not measured"
        if path.zooms_out:
            good += ", and nothing beyond the edge of the frame was filmed"
        if len(path.times) == 1:
            azimuth, elevation, zoom = limited.at(0.0)
            place = f"{azimuth:.0f},{elevation:.0f}" + (f",{zoom:g}" if path.zooms_out else "")
            said = f"The view {asked} was limited to {place}: {good}."
        else:
            said = f"The camera path {asked} was limited: {good}."
        log.warn(f"{said} --beyond renders it all the same.")
    return limited


def record(avatar: Avatar, camera: Camera, timing: Timing, baked: bool) -> dict[str, Any]:
    """What is written to --json of a rendering."""
    return environment() | {
        "frames": timing.frames, "seconds": round(timing.seconds, 3),
        "frames_per_second": round(timing.frames / timing.seconds, 2),
        "render_milliseconds": round(1000 * timing.render_seconds / timing.frames, 2), "fps": avatar.fps,
        "width": camera.width, "height": camera.height, **counts(avatar.info),
        "baked": baked, "device": avatar.device.type,
    }  # fmt: skip
