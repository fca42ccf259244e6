"""From where, how large and before what an avatar is shown in exported images and videos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor

from avatar.data.disclosed import disclosed
from avatar.device import cpu_threads
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.export.sequence import at_rate, check_rate
from avatar.geometry.cameras import Camera
from avatar.infer import jobs
from avatar.infer.avatar import checked_motion
from avatar.infer.camera_path import CameraPath
from avatar.infer.pipeline import in_order
from avatar.infer.video import resize
from avatar.provenance.disclosure import Disclosure, DisclosureOptions

NONE, OWN = "none", "own"
_COLOR = re.compile(r"#?[0-9a-fA-F]{6}")
_BLEED = 3.0  # pixels that colors are continued beyond the outline, for readers that blur across it
_COVERED = 1 / 255  # alpha from which a pixel has a color of its own


class Shots(NamedTuple):
    """The images of an export.

    Attributes:
        images: uint8 [H, W, 3] RGB, or [H, W, 4] with straight (not premultiplied) alpha.
        width, height: Of each, pixels.
        frames: How many there are.
        fps: Frames per second.
    """

    images: Iterator[UInt8[np.ndarray, "H W C"]]
    width: int
    height: int
    frames: int
    fps: float


@dataclass(frozen=True, kw_only=True)
class View:
    """Options of images and videos."""

    camera: str | None = None
    """orbit, "azimuth,elevation[,zoom]" in degrees around the head, or a .json of keyframes; default: as filmed."""
    size: int | None = None
    """Longer side in pixels; default: as prepared (see `avatar prepare --frame`)."""
    fps: float | None = None
    """Frames per second; default: the avatar's."""
    frames: int | None = None
    """Stop after this many frames."""
    background: str = NONE
    """What is behind the person: none (transparent), own (as filmed), or a color such as 00b140."""
    disclosure: tyro.conf.OmitArgPrefixes[DisclosureOptions] = field(default_factory=DisclosureOptions)

    def __post_init__(self) -> None:
        check_rate(self.fps)
        jobs.check_extent(self.size, self.frames)
        CameraPath.parse(self.camera)
        if self.background not in (NONE, OWN) and not _COLOR.fullmatch(self.background):
            raise AvatarError(f'--background "{self.background}" is not understood.',
                              fix="Give none, own, or a color as six hexadecimal digits: 00b140.")  # fmt: skip

    def needs(self) -> Set[Need]:
        """An avatar and what it does."""
        return {"avatar", "motion"}

    def disclosed(self, source: ExportSource) -> Disclosure:
        """How the files say that a program made them.

        Raises:
            AvatarError: Options contradict each other, or a key cannot be used.
        """
        found = disclosed(source.folder, self.disclosure)
        found.announce()
        return found

    def shots(self, source: ExportSource, fps: float | None = None) -> Shots:
        """Draw what the avatar does.

        Args:
            source: Gives the avatar and its motion.
            fps: Frames per second; by default those of the options.

        Raises:
            AvatarError: There is nothing to draw, or the method cannot draw the person alone.
        """
        avatar = source.avatar
        assert avatar is not None
        if self.background == NONE and not avatar.can_render_person:
            raise AvatarError(f"The method {avatar.model.name} cannot draw the person without the background.",
                              fix="Pass --background own.")  # fmt: skip
        motion = at_rate(source, fps or self.fps)[: self.frames]
        path = jobs.limited_path(avatar, CameraPath.parse(self.camera), source.beyond, self.camera)
        camera = resize(avatar.view_camera, self.size)
        if self.background == OWN:
            behind = avatar.view_background(camera)
        else:
            behind = None if self.background == NONE else _plain(self.background, camera)
        shown = None if behind is None else torch.from_numpy(behind)

        def draw(index: int) -> np.ndarray:
            view = path.camera(camera, avatar.pivot, index / motion.fps)
            if self.background == NONE:
                return straight_alpha(avatar.render_person(view, motion, index).cpu().numpy())
            return avatar.render(view, motion, index, shown).cpu().numpy()

        def images() -> Iterator[np.ndarray]:
            for _ in checked_motion(avatar, [motion]):
                with cpu_threads(1) if avatar.frames_at_once > 1 else nullcontext():
                    yield from in_order(draw, range(len(motion)), avatar.frames_at_once)

        return Shots(images(), camera.width, camera.height, len(motion), motion.fps)


def _plain(color: str, camera: Camera) -> UInt8[np.ndarray, "H W 3"]:
    """An image of one color, given as six hexadecimal digits."""
    value = np.frombuffer(bytes.fromhex(color[-6:]), np.uint8)
    return np.broadcast_to(value, (camera.height, camera.width, 3)).copy()


def straight_alpha(image: Float[np.ndarray, "H W 4"] | Float[Tensor, "H W 4"]) -> UInt8[np.ndarray, "H W 4"]:
    """Divide colors by their coverage, as files have them.

    Colors are continued a little beyond the outline: codecs and readers that blur color across it would else mix it
    with black.

    Args:
        image: float32 [H, W, 4] RGB times coverage, and coverage, 0..1.

    Returns:
        uint8 [H, W, 4].
    """
    import cv2

    values = np.asarray(image, np.float32).clip(0, None)
    alpha = values[..., 3:].clip(0, 1)
    near = cv2.GaussianBlur(values, (0, 0), _BLEED)
    beyond = near[..., :3] / np.maximum(near[..., 3:], 1e-4)
    color = np.where(alpha >= _COVERED, values[..., :3] / np.maximum(alpha, _COVERED), beyond)
    return np.rint(np.concatenate([color, alpha], -1).clip(0, 1) * 255).astype(np.uint8)
