"""Look at an avatar in the browser: orbit, zoom, move its face by hand, let it speak.

An option that ends in a metavariable VALUE[@TIME] can be given again for other times: `1.5@2.0-3.5` in seconds of the
audio, `1.5@4-` until its end, `1.5@please` for a word of --words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.infer.controls import Controls

GROUPS = {
    "move": ("motion", "retarget", "pose", "pose_guidance", "pose_noise", "pose_scale", "idle", "style", "beyond"),
    "expression": ("emotion", "emotion_limit", "lip_scale", "blink", "gaze"),
    "timeline": ("words", "timeline", "print_timeline", "seed"),
    "page": ("host", "port"),
    "hardware": ("size", "device"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Free view of an avatar in the browser."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only. Only the printed address, with its token,
    opens the page."""
    port: int = 8080
    """First port to try."""
    size: int | None = None
    """Longer side of the rendered image in pixels; smaller is faster. Default: as trained."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


def main(config: Config) -> None:
    """Open the page and render until Ctrl-C."""
    from avatar.data.bundle import run_folder
    from avatar.data.consent import require as require_consent
    from avatar.data.run import require_run
    from avatar.io.hosts import is_loopback
    from avatar.viewer.start import open_viewer

    if not is_loopback(config.host):
        run = run_folder(config.run)
        require_run(run)
        require_consent(run, "live", "to be shown beyond this machine")
    viewer = open_viewer(
        config.run, config.controls, host=config.host, port=config.port, size=config.size, device=config.device
    )
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
    log.next_command(f"avatar render {log.word(config.run)} --audio SPEECH.wav --camera orbit")
