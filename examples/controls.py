"""Say one sentence in four ways: emotion, gaze, blinks, head motion and lips, some of them over time.

    python examples/controls.py runs/me speech.wav --out ways

Every control can have a time: ``happy:0.6@0.5-2`` is from 0.5 to 2 seconds of the audio. What an avatar shows is what
the person showed in the video: an emotion goes no further than that.
"""

from pathlib import Path

import tyro
from tyro.conf import Positional

from avatar import Avatar, Controls, render_avatar

WAYS = {
    "plain": Controls(),
    "friendly": Controls(emotion=("happy:0.7@0.3-",), gaze=("camera",), blink=("20",), idle=0.5),
    "calm": Controls(pose=("still",), lip_scale=("0.8",), blink=("8",)),
    "lively": Controls(pose_scale=("1.5",), lip_scale=("1.2",), emotion=("surprised:0.5@0-0.8", "happy:0.5@1-")),
}


def main(run: Positional[Path], audio: Positional[Path], out: Path = Path("ways")) -> None:
    """Render a video for each way.

    Args:
        run: RUN folder of `avatar create` or `avatar demo`.
        audio: What is said.
        out: Folder for the videos.
    """
    avatar = Avatar.load(run)
    out.mkdir(parents=True, exist_ok=True)
    for name, controls in WAYS.items():
        print(render_avatar(avatar, audio, out / f"{name}.mp4", controls))


if __name__ == "__main__":
    tyro.cli(main)
