"""Make the moving image of README.md: an avatar talks, turns and smiles, with the audio that drives it below.

``python -m pipelines.readme_film RUN --audio speech.wav``. The avatar has to be that of a synthetic subject: what is
published must show nobody who exists. The audio should last six seconds or more.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro

from avatar.errors import AvatarError
from avatar.writing import atomic_file

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

    from avatar.infer.avatar import Avatar

ROOT = Path(__file__).resolve().parents[1]
BAND = 64  # pixels below the image, for the caption and the audio
PAPER, INK, FAINT, MARK = (247, 247, 245), (34, 36, 40), (176, 178, 182), (28, 110, 214)
LEAST_QUALITY = 30


@dataclass(frozen=True, kw_only=True)
class Config:
    """Film an avatar for README.md."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar demo`, or of another synthetic subject."""
    audio: Path
    """What it says."""
    out: Path = ROOT / "docs" / "images" / "readme.webp"
    """The WebP to write."""
    seconds: float = 8.0
    """Length; the audio is cut there, or begins again."""
    size: int = 400
    """Side of the image in pixels."""
    fps: float = 12.5
    """Images per second; the avatar's own rate is divided to come near."""
    quality: int = 90
    """Quality of WebP to begin with; it is lowered until the file is small enough."""
    megabytes: float = 3.0
    """Largest size of the file."""


class Scene(NamedTuple):
    """A part of the film, and what the avatar does in it."""

    begin: float  # share of the length
    end: float
    caption: str
    azimuth: float = 0.0  # degrees, to one side and to the other
    zoom: float = 1.0  # reached in the middle
    emotion: str = ""


SCENES = (
    Scene(0.0, 0.32, "audio in, a talking person out"),
    Scene(0.32, 0.68, "seen from other sides", azimuth=24.0),
    Scene(0.68, 1.0, "with a smile", zoom=1.5, emotion="happy:1"),
)


def azimuth_at(share: float) -> float:
    """Where the camera is at a share of the film, degrees: to one side, to the other, and back, without a jump."""
    for scene in SCENES:
        if scene.azimuth and scene.begin <= share < scene.end:
            phase = (share - scene.begin) / (scene.end - scene.begin)
            return scene.azimuth * math.sin(2 * math.pi * phase) * math.sin(math.pi * phase) ** 0.5
    return 0.0


def zoom_at(share: float) -> float:
    """Factor on the focal length at a share of the film."""
    for scene in SCENES:
        if scene.zoom != 1 and scene.begin <= share < scene.end:
            phase = (share - scene.begin) / (scene.end - scene.begin)
            return 1 + (scene.zoom - 1) * math.sin(math.pi * phase) ** 2
    return 1.0


def caption_at(share: float) -> str:
    """What stands below the image at a share of the film."""
    return next(scene.caption for scene in reversed(SCENES) if share >= scene.begin)


def emotions(seconds: float) -> tuple[str, ...]:
    """Timed emotions of the scenes, as `Controls` take them."""
    return tuple(f"{scene.emotion}@{scene.begin * seconds:.2f}-{scene.end * seconds:.2f}"
                 for scene in SCENES if scene.emotion)  # fmt: skip


def images(avatar: Avatar, samples: np.ndarray, config: Config) -> Iterator[Image.Image]:
    """Images of the film."""
    from avatar.infer.controls import Controls
    from avatar.infer.planner import plan_motion
    from avatar.io.audio import SAMPLE_RATE, chunked

    frames = int(config.seconds * avatar.fps)
    step = max(1, round(avatar.fps / config.fps))
    controls = Controls(emotion=emotions(config.seconds), gaze=("camera",), blink=("18",))
    plan = plan_motion(avatar, controls, frames=frames)
    font, count = _font(15), 0
    levels = np.abs(samples[: frames * (n := round(SAMPLE_RATE / avatar.fps))]).reshape(frames, n).max(1)
    levels /= max(float(levels.max()), 1e-6)
    for block in plan.stream(chunked(samples[: round(frames / avatar.fps * SAMPLE_RATE)])):
        for index in range(len(block)):
            if count % step == 0:
                share = count / frames
                camera = avatar.view(azimuth_at(share), zoom=zoom_at(share)).resized(config.size, config.size)
                yield framed(avatar.render(camera, block, index).cpu().numpy(), levels, share, font)
            count += 1


def framed(image: np.ndarray, levels: np.ndarray, share: float, font: FreeTypeFont) -> Image.Image:
    """An image with caption, audio and cursor below it.

    Args:
        image: uint8 RGB [H, W, 3].
        levels: Loudness of each frame of the film, 0 to 1.
        share: How much of the film is over.
        font: Of the caption.
    """
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    sheet = Image.new("RGB", (width, height + BAND), PAPER)
    sheet.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(sheet)
    draw.text((12, height + 7), caption_at(share), fill=INK, font=font)
    middle, bars = height + 45, (width - 24) // 4
    for bar in range(bars):
        level = levels[int(bar / bars * len(levels))]
        half = 1 + round(12 * float(level))
        color = MARK if bar / bars <= share else FAINT
        draw.rectangle((12 + 4 * bar, middle - half, 13 + 4 * bar, middle + half), fill=color)
    return sheet


def encoded(film: list[Image.Image], seconds: float, quality: int) -> bytes:
    """The film as an animated WebP that begins again."""
    data = io.BytesIO()
    film[0].save(data, "WEBP", save_all=True, append_images=film[1:], duration=round(1000 * seconds / len(film)),
                 loop=0, quality=quality, method=4)  # fmt: skip
    return data.getvalue()


def _font(size: int) -> FreeTypeFont:
    """A font that every installation has."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def main(config: Config) -> None:
    """Film it.

    Raises:
        AvatarError: The avatar is that of somebody who exists, the audio cannot be read, or the file stays too large.
    """
    from avatar.data.consent import of_folder
    from avatar.infer.avatar import Avatar
    from avatar.io.audio import SAMPLE_RATE, load_audio

    if of_folder(config.run).relation != "synthetic":
        raise AvatarError(f"{config.run} is not the avatar of a synthetic subject.", fix="Make one: avatar demo")
    avatar = Avatar.load(config.run)
    samples = load_audio(config.audio)
    wanted = math.ceil((config.seconds + 1) * SAMPLE_RATE)
    samples = np.tile(samples, -(-wanted // len(samples)))[:wanted]
    film = list(images(avatar, samples, config))
    quality = config.quality
    data = encoded(film, config.seconds, quality)
    while len(data) > 1e6 * config.megabytes and quality - 10 >= LEAST_QUALITY:
        quality -= 10
        data = encoded(film, config.seconds, quality)
    if len(data) > 1e6 * config.megabytes:
        raise AvatarError(f"The film has {len(data) / 1e6:.1f} MB.", fix="Choose a smaller --size or --seconds.")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(config.out) as temporary:
        temporary.write_bytes(data)
    print(f"{config.out}: {len(film)} images, {len(data) / 1e6:.2f} MB, quality {quality}.")


if __name__ == "__main__":
    main(tyro.cli(Config))
