"""Start the viewer of a run: the page of `avatar serve` for one person, with sliders for the face."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.device import DeviceName
    from avatar.infer.controls import Controls

WINDOWS = 8  # of the page at once
DAY_SECONDS = 86400.0  # in which a window may stay open
BITS_PER_SECOND = 6_000_000  # of video: it stays on this machine
FILE_BYTES = 128 << 20  # of an audio file: ten minutes of stereo without compression
PORTS = 100  # that are tried


def view(
    run: Path,
    controls: Controls,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    size: int | None = None,
    device: DeviceName = "auto",
) -> None:
    """Check the options, load the avatar, and show it until Ctrl-C.

    Args:
        run: The RUN folder, or a bundle.
        controls: To begin with; what is chosen on a page goes on top.
        host: Address to listen on.
        port: First port to try.
        size: Longer side of the rendered image in pixels; None: as trained.
        device: Where to render.

    Raises:
        AvatarError: An option is out of range, the run cannot be loaded, or no port can be had.
    """
    from avatar.data.bundle import run_folder
    from avatar.data.consent import require as require_consent
    from avatar.data.run import RunInfo, require_run
    from avatar.io.hosts import is_loopback
    from avatar.serve.start import Place, load_characters, load_voice, require_packages, serve

    if not 1 <= port <= 65535:
        raise AvatarError(f"--port {port} is out of range.", fix="It goes from 1 to 65535.")
    if size is not None and not 32 <= size <= 4096:
        raise AvatarError(f"--size {size} is out of range.", fix="It goes from 32 to 4096 pixels.")
    if controls.print_timeline is not None:
        raise AvatarError("--print-timeline is not for the viewer.", fix="Use `avatar render`.")
    controls.check()
    folder = run_folder(run)
    require_run(folder)
    RunInfo.read(folder)
    if not is_loopback(host):
        require_consent(folder, "live", "to be shown beyond this machine")
    require_packages("avatar view")
    from avatar.serve.hub import Settings

    characters = load_characters((folder,), controls, size=size, device=device, speechless=True)
    settings = Settings(
        sessions=WINDOWS, session_seconds=DAY_SECONDS, idle_seconds=DAY_SECONDS, bits_per_second=BITS_PER_SECOND,
        token=secrets.token_urlsafe(24), host=host, face=True, file_bytes=FILE_BYTES,
    )  # fmt: skip
    serve(characters, load_voice("hibari", None, "en"), settings, Place(host=host, port=port, tries=PORTS))
