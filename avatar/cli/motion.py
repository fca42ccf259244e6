"""Write what an avatar would do as a file: ARKit coefficients for Blender, Unreal and Unity, or a motion file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.errors import AvatarError
from avatar.infer.controls import Controls

SUFFIXES = (".csv", ".json", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write the motion for a sound, a text, or somebody's video."""

    audio: Annotated[Path | None, tyro.conf.Positional] = None
    """What is said: any sound or video file."""
    run: Path
    """RUN folder of `avatar create` or `avatar train`."""
    out: Path
    """.csv (as Live Link Face writes it), .json, or .safetensors (everything, for --motion and --pose)."""
    fps: float | None = None
    """Frames per second of the file; default: the avatar's."""
    text: str | None = None
    """Instead of a sound: what is said, in English; its sound is written beside the file."""
    voice: str = "heart"
    """Voice of --text, a name of hibari-tts."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


def main(config: Config) -> None:
    """Write the file."""
    from avatar.cli.render import refuse_to_overwrite, speech_sound
    from avatar.infer.avatar import Avatar
    from avatar.infer.planner import plan_motion
    from avatar.motion import Motion, arkit_files
    from avatar.motion.timeline import to_json
    from avatar.paths import write_json

    controls = config.controls
    if config.out.suffix.lower() not in SUFFIXES:
        raise AvatarError(f"--out {config.out} must end in one of {', '.join(SUFFIXES)}.")
    if config.fps is not None and not 1 <= config.fps <= 240:
        raise AvatarError(f"--fps {config.fps:g} is out of range.", fix="It goes from 1 to 240.")
    if config.audio is not None and config.text is not None:
        raise AvatarError("A sound and --text exclude each other.")
    for out in (config.out, controls.print_timeline):
        if out is not None:
            refuse_to_overwrite(out, config.audio, controls.motion, controls.timeline)
    controls.check()
    if controls.print_timeline is not None:
        write_json(controls.print_timeline, to_json(controls.spans()))
    audio = speech_sound(config.audio, config.text, config.voice, config.out)
    avatar = Avatar.load(config.run, device="cpu")
    track = Motion.cat(list(plan_motion(avatar, controls, audio).motions))
    if config.fps is not None:
        track = track.resample(config.fps)
    if config.out.suffix.lower() == ".safetensors":
        track.save(config.out)
    else:
        arkit_files.save(track, config.out)
    log.info(f"{config.out}: {len(track)} frames at {track.fps:g} per second ({len(track) / track.fps:.1f} s).")
