"""Two avatars talk in turns before one background: first the left one, then the right one.

    python examples/two_people.py runs/anna runs/ben anna.wav ben.wav --out talk.mp4

Each avatar is drawn alone, with its alpha, and laid over the background. There is no common light and no depth between
the two: whoever is drawn last is in front.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

from avatar import Avatar, AvatarError, Controls, plan_motion
from avatar.data.disclosed import disclosed
from avatar.data.outputs import check_output
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio, write_wav
from avatar.io.video_writer import VideoWriter


def drawn(avatar: Avatar, samples: np.ndarray, azimuth: float, seed: int) -> Iterator[np.ndarray]:
    """Frames of a person alone: float32 [H, W, 4], RGB times coverage, and coverage."""
    plan = plan_motion(avatar, Controls(seed=seed), frames=int(len(samples) / SAMPLE_RATE * avatar.fps))
    for block in plan.stream(chunked(samples)):
        for i in range(len(block)):
            yield avatar.render_person(avatar.view(azimuth), block, i).cpu().numpy()


def main(
    left: Positional[Path], right: Positional[Path], first: Positional[Path], second: Positional[Path],
    out: Path = Path("talk.mp4"), apart: float = 0.6,
) -> None:  # fmt: skip
    """Render a dialogue; ``apart`` is the distance between the two in widths of an image."""
    one, other = Avatar.load(left), Avatar.load(right)
    if one.fps != other.fps or (one.camera.width, one.camera.height) != (other.camera.width, other.camera.height):
        raise AvatarError("The two avatars differ in frame rate or size.", fix="Prepare both in the same way.")
    a, b = load_audio(first), load_audio(second)
    said = np.concatenate([a, b]), np.concatenate([a, 0 * b]), np.concatenate([0 * a, b])
    sound = out.with_suffix(".talk.wav")
    check_output(out, first, second, sound, suffixes=(".mp4",))
    write_wav(sound, said[0])
    height, width = one.camera.height, one.camera.width
    shift = round(apart * width)
    wall = np.linspace([70, 80, 95], [25, 28, 34], height)[:, None].repeat(width + shift, 1)
    people = zip(drawn(one, said[1], -8.0, 0), drawn(other, said[2], 8.0, 1))
    disclosure = disclosed(left, others=[right])  # signed, with the consent of both
    with VideoWriter(out, width + shift, height, one.fps, sound, disclosure=disclosure) as writer:
        for images in people:
            frame = wall.copy()
            for image, x in zip(images, (0, shift)):
                part = frame[:, x : x + width]
                part[:] = 255 * image[..., :3] + (1 - image[..., 3:]) * part
            writer.write(frame.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    tyro.cli(main)
