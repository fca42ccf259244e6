"""Start the viewer of a run: check what is asked for, load the avatar, open the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.data.run import MOTION
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.device import DeviceName
    from avatar.infer.controls import Controls
    from avatar.viewer.server import Viewer
    from avatar.viewer.visitor import Speak


def open_viewer(
    run: Path,
    controls: Controls,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    size: int | None = None,
    device: DeviceName = "auto",
) -> Viewer:
    """Check the options, load the avatar and start the page.

    Args:
        run: The RUN folder.
        controls: To begin with; what is chosen on a page goes on top.
        host: Address to listen on.
        port: First port to try.
        size: Longer side of the rendered image in pixels; None: as trained.
        device: Where to render.

    Raises:
        AvatarError: An option is out of range, the run cannot be loaded, or no port can be had.
    """
    if not 1 <= port <= 65535:
        raise AvatarError(f"--port {port} is out of range.", fix="It goes from 1 to 65535.")
    if size is not None and not 32 <= size <= 4096:
        raise AvatarError(f"--size {size} is out of range.", fix="It goes from 32 to 4096 pixels.")
    controls.check()
    for name in ("motion", "idle", "print_timeline"):
        if getattr(controls, name):
            raise AvatarError(
                f"--{name.replace('_', '-')} is not for the viewer, which speaks what it is given.",
                fix="Use `avatar render`.",
            )
    from avatar.infer.avatar import Avatar

    avatar = Avatar.load(run, device=device)
    from avatar.motion import Motion
    from avatar.viewer.server import Viewer, rest_frame
    from avatar.viewer.visitor import speaker

    rest = rest_frame(Motion.load(avatar.run / MOTION))
    spoken: Speak | None = None
    try:
        spoken = speaker(avatar, controls)
    except AvatarError as error:
        log.warn(str(error))
    try:
        return Viewer(avatar, rest, spoken, controls, host=host, port=port, size=size)
    except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
        raise AvatarError(
            f"Cannot listen on {host}:{port}:", why=f"{error}.", fix="Choose another --host or --port."
        ) from error
