"""Write a folder that plays the talking avatar in a browser, without any server.

    python examples/export_web.py runs/me hello.wav --out me-web     # then open me-web/index.html

`avatar export --format web` does the same. The person has to have agreed to it: `avatar consent runs/me --help`.
"""

from pathlib import Path

import tyro
from tyro.conf import Positional

from avatar import Avatar, Controls, ExportSource, Motion, export_avatar, plan_motion
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio


def main(
    run: Positional[Path], audio: Positional[Path], out: Path = Path("me-web"), title: str = "Me", compact: bool = False
) -> None:
    """Write the folder.

    Args:
        run: RUN folder of `avatar create` or `avatar demo`.
        audio: What is said in the page.
        out: The folder to write.
        title: Name of the avatar on the page.
        compact: Make it half as large.
    """
    avatar = Avatar.load(run)
    samples = load_audio(audio)
    plan = plan_motion(avatar, Controls(gaze=("camera",)), frames=int(len(samples) / SAMPLE_RATE * avatar.fps))
    motion = Motion.cat(list(plan.stream(chunked(samples))))
    source = ExportSource(folder=run, avatar=avatar, motion=motion, audio=audio, audio_start=plan.audio_start)
    export_avatar(source, "web", out, title=title, compact=compact, overwrite=out.exists())
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out / 'index.html'}, {size / 1e6:.1f} MB in all")


if __name__ == "__main__":
    tyro.cli(main)
