"""Look at an avatar in the browser: orbit, zoom, move its face by hand, let it speak. Rendered on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.infer.controls import Controls

if TYPE_CHECKING:
    from avatar.viewer.server import Viewer
    from avatar.viewer.visitor import Speak


@dataclass(frozen=True, kw_only=True)
class Config:
    """Free view of an avatar in the browser."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only. Whatever it is, only who has the printed
    address with its token is let in."""
    port: int = 8080
    """First port to try."""
    size: int | None = None
    """Longer side of the rendered picture in pixels; smaller is faster. Default: as trained."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


def main(config: Config) -> None:
    """Open the page and render until Ctrl-C."""
    from avatar.viewer.door import is_loopback

    viewer = open_viewer(config)
    log.info(f"Open {viewer.url} in a browser. Ctrl-C stops.")
    if not is_loopback(config.host):
        log.warn(
            f"port {viewer.port} can be reached from other machines. Who has this address can make the avatar speak; "
            "it is sent unencrypted. From there, put the name or address of this machine into it."
        )
    try:
        viewer.serve()
    except KeyboardInterrupt:
        log.info("\nStopped.")
    finally:
        viewer.stop()
    log.next_command(f"avatar render {config.run} --audio SPEECH.wav --camera orbit")


def open_viewer(config: Config) -> Viewer:
    """Check the options, load the avatar and start the page.

    Raises:
        AvatarError: An option is out of range, the run cannot be loaded, or no port can be had.
    """
    if not 1 <= config.port <= 65535:
        raise AvatarError(f"--port {config.port} is out of range.", fix="It goes from 1 to 65535.")
    if config.size is not None and not 32 <= config.size <= 4096:
        raise AvatarError(f"--size {config.size} is out of range.", fix="It goes from 32 to 4096 pixels.")
    config.controls.check()
    for name in ("motion", "idle", "print_timeline"):
        if getattr(config.controls, name):
            raise AvatarError(
                f"--{name.replace('_', '-')} is not for the viewer, which speaks what it is given.",
                fix="Use `avatar render`.",
            )
    from avatar.infer.avatar import Avatar

    avatar = Avatar.load(config.run, device=config.device)
    from avatar.audio2motion.load import choose_speech
    from avatar.infer.planner import plan_motion
    from avatar.motion import Motion
    from avatar.viewer.server import Viewer, rest_frame

    rest = rest_frame(Motion.load(config.run / "motion.safetensors"))
    spoken: Speak | None = None
    try:
        speech = choose_speech(config.run, avatar.fps, config.controls.speech)
        spoken = lambda path, how: plan_motion(avatar, how, path, speech=speech).motions  # noqa: E731
    except AvatarError as error:
        log.warn(str(error))
    try:
        return Viewer(avatar, rest, spoken, config.controls, host=config.host, port=config.port, size=config.size)
    except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
        raise AvatarError(
            f"Cannot listen on {config.host}:{config.port}:", why=f"{error}.", fix="Choose another --host or --port."
        ) from error
