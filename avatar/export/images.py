"""Export what an avatar does as images: a sequence of PNG, an animated GIF or WebP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from avatar import log
from avatar.checks import whole
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.sequence import sequence_folder
from avatar.export.view import OWN, Shots, View
from avatar.io.images import write_png
from avatar.provenance.disclosure import Disclosure
from avatar.writing import atomic_file

MOST_PIXELS = 150_000_000  # of all frames of an animated image, which is made in memory: about a gigabyte
GIF_TICKS = 100.0  # per second: the unit of its delays
GIF_FPS = 25.0  # most by default; browsers slow down what is faster than 50
GIF_RATES = (1.0, 50.0)
GIF_SIZE = 320  # pixels of the longer side by default: files are large
WEBP_TICKS = 1000.0
_PALETTE_FRAMES = 8  # that the colors of a GIF are chosen from
_HALF = 128  # alpha from which a pixel of a GIF is shown


@dataclass(frozen=True, kw_only=True)
class Frames(View):
    """A folder with one PNG per frame of a motion, with alpha (After Effects, Nuke, Blender)."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = None

    overwrite: bool = False
    """Replace a sequence that this command wrote."""

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the folder: 000000.png and so on, and sequence.json with the rate.

        Raises:
            AvatarError: There is nothing to draw, or the folder is not free.
        """
        disclosure = self.disclosed(source)
        shots = self.shots(source)
        facts = {"fps": shots.fps, "frames": shots.frames, "width": shots.width, "height": shots.height}
        with sequence_folder(path, self.overwrite, facts) as folder:
            for index, image in enumerate(log.track(shots.images, "writing frames", total=shots.frames)):
                file = folder / f"{index:06d}.png"
                write_png(file, disclosure.draw(image))
                disclosure.finish(file)
        log.info(f"{path}: {shots.frames} images of {shots.width}x{shots.height} pixels, {shots.fps:g} per second.")


@dataclass(frozen=True, kw_only=True)
class Gif(View):
    """An animated GIF of a motion: 256 colors, no audio, for where nothing else plays."""

    suffixes: ClassVar[tuple[str, ...]] = (".gif",)
    default: ClassVar[str | None] = None

    size: int | None = None
    """Longer side in pixels; default: as prepared, up to 320."""
    fps: float | None = None
    """Frames per second, up to 50; default: the avatar's, up to 25. The nearest rate that GIF can say is taken."""
    background: str = OWN
    """What is behind the person: own (as filmed), a color such as 00b140, or none. Without, edges are hard."""

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the file.

        Raises:
            AvatarError: There is nothing to draw, or it is too long.
        """
        assert source.motion is not None
        low, high = GIF_RATES
        if self.fps is not None and not low <= self.fps <= high:
            raise AvatarError(
                f"--fps {self.fps:g} is out of range for a GIF.", fix=f"It goes from {low:g} to {high:g}."
            )
        disclosure = self.disclosed(source)
        fps = min(source.motion.fps, GIF_FPS) if self.fps is None else self.fps
        assert source.avatar is not None
        prepared = source.avatar.view_camera
        size = self.size or min(GIF_SIZE, max(prepared.width, prepared.height))
        shots = replace(self, size=size).shots(source, GIF_TICKS / max(round(GIF_TICKS / fps), round(GIF_TICKS / high)))
        _write_animation(path, shots, GIF_TICKS, "GIF", disclosure)


@dataclass(frozen=True, kw_only=True)
class WebP(View):
    """An animated WebP of a motion, with alpha, no audio (browsers, chats, slides)."""

    suffixes: ClassVar[tuple[str, ...]] = (".webp",)
    default: ClassVar[str | None] = None

    quality: int = 85
    """Quality of the colors, 0 to 100."""

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the file.

        Raises:
            AvatarError: There is nothing to draw, it is too long, or an option is out of range.
        """
        whole(self.quality, "--quality", 0, 100)
        disclosure = self.disclosed(source)
        _write_animation(path, self.shots(source), WEBP_TICKS, "WebP", disclosure, quality=self.quality, method=4)


def _write_animation(
    path: Path, shots: Shots, ticks: float, kind: str, disclosure: Disclosure, **options: Any
) -> None:  # fmt: skip
    """Write an animated image with imageio.

    Args:
        path: The file; its ending says the format.
        shots: The images.
        ticks: Units per second that the format's delays are counted in.
        kind: What messages call the format.
        disclosure: How it says that a program made it.
        options: Of its encoder.
    """
    import imageio.v3 as iio

    if shots.frames * shots.width * shots.height > MOST_PIXELS:
        raise AvatarError(
            f"{shots.frames} frames of {shots.width}x{shots.height} pixels are too much for a {kind}.",
            fix="Choose a smaller --size, --fps or --frames, or a video: --format webm.",
        )
    images = list(map(disclosure.draw, log.track(shots.images, "rendering", total=shots.frames)))
    if kind == "GIF":
        images = limited_colors(images)
        if images[0].shape[2] == 4:
            options["disposal"] = 2  # each image is cleared before the next, or it would show through its holes
    ends = np.rint(np.arange(1, len(images) + 1) * (ticks / shots.fps))  # of each frame: rounding does not add up
    delays = (np.diff(ends, prepend=0) * (1000 / ticks)).astype(int).tolist()
    with atomic_file(path) as temporary:
        iio.imwrite(
            temporary, images, plugin="pillow", extension=path.suffix.lower(), loop=0, **options,
            duration=delays if len(images) > 1 else delays[0],  # Pillow takes no list for a single image
        )  # fmt: skip
        disclosure.finish(temporary)
        size = temporary.stat().st_size
    log.info(
        f"{path}: {shots.frames} frames of {shots.width}x{shots.height} pixels, {shots.fps:g} per second, "
        f"{size / 2**20:.1f} MB."
    )


def limited_colors(images: list[np.ndarray]) -> list[np.ndarray]:
    """Reduce images [H, W, 3 or 4] to what a GIF can show: 256 colors, and no half transparent pixels.

    All frames share one palette, an octree's: median cut spends its colors on large areas, and lips turn grey.
    """
    from PIL import Image

    if images[0].shape[2] == 4:
        shown = [image[..., 3:] >= _HALF for image in images]
        return [
            np.concatenate([image[..., :3] * there, there * np.uint8(255)], -1).astype(np.uint8)
            for image, there in zip(images, shown, strict=True)
        ]
    some = np.concatenate(images[:: max(1, len(images) // _PALETTE_FRAMES)])
    palette = Image.fromarray(some).quantize(256, method=Image.Quantize.FASTOCTREE)
    dither = Image.Dither.FLOYDSTEINBERG
    return [
        np.asarray(Image.fromarray(image).quantize(palette=palette, dither=dither).convert("RGB")) for image in images
    ]
