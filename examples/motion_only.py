"""Turn speech into face and head motion, and draw nothing: ARKit coefficients for Blender, Unreal or Unity.

    python examples/motion_only.py runs/me speech.wav --out speech.csv

``Motion`` is the one interface between audio and rendering, so what moves this avatar can move any other rig. The CSV
is the one of Apple's Live Link Face: 52 coefficients, head and eyes for each frame.
"""

from pathlib import Path

import tyro
from tyro.conf import Positional

from avatar import Avatar, Controls, ExportSource, Motion, export_avatar, plan_motion
from avatar.io.audio import stream_audio
from avatar.motion.arkit import INDEX


def main(run: Positional[Path], audio: Positional[Path], out: Path = Path("speech.csv"), fps: float = 60.0) -> None:
    """Write the motion of an audio file.

    Args:
        run: RUN folder of `avatar create` or `avatar demo`.
        audio: What is said.
        out: The CSV to write.
        fps: Frames per second of the CSV.
    """
    avatar = Avatar.load(run)
    plan = plan_motion(avatar, Controls(gaze=("camera",)), frames=None)  # None: the end of the audio is not known
    motion = Motion.cat(list(plan.stream(stream_audio(audio))))  # blocks come as soon as the audio is there
    jaw = motion.arkit[:, INDEX["jawOpen"]]
    print(f"{len(motion)} frames at {motion.fps:g} per second; the jaw is widest at {jaw.argmax() / motion.fps:.2f} s")
    print(export_avatar(ExportSource(folder=run, motion=motion), "live-link", out, fps=fps))


if __name__ == "__main__":
    tyro.cli(main)
