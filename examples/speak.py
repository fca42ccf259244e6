"""Let an avatar say an audio file, as it was filmed or from another side.

    python examples/speak.py runs/me speech.wav --out hello.mp4
    python examples/speak.py runs/me speech.wav --out side.mp4 --camera 15,5

The video has the audio of the file, and content credentials that say that a program made it.
"""

from pathlib import Path

import tyro
from tyro.conf import Positional

from avatar import Avatar, render_avatar


def main(run: Positional[Path], audio: Positional[Path], out: Path = Path("hello.mp4"), camera: str = "0,0") -> None:
    """Render a video.

    Args:
        run: RUN folder of `avatar create` or `avatar demo`.
        audio: What is said: any audio file, of any length.
        out: The mp4 to write.
        camera: "azimuth,elevation[,zoom]" in degrees around the head, or "orbit".
    """
    avatar = Avatar.load(run)
    print(f"{avatar.info['method']}, {avatar.info['bytes'] / 1e6:.1f} MB, good from {avatar.cone.limits().text}")
    print(render_avatar(avatar, audio, out, camera=camera))


if __name__ == "__main__":
    tyro.cli(main)
