"""What one training step compares with: a frame, a part of it, or single pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; the last column and row are excluded


class Batch(NamedTuple):
    """One frame, or what a method chose of it. With ``pixels``, H, W in the shapes below is N.

    Attributes:
        index: Frame number.
        image: [H, W, 3] RGB 0..1.
        weight: [H, W, 1] weight of L1, mean 1 over the frame.
        person: [H, W, 1] coverage by the person, 0..1.
        head: [H, W, 1] coverage by the head with its hair, 0..1.
        background: [H, W, 3] RGB behind the person.
        face_box, mouth_box: Around the face and the lips, in pixels of ``image``.
        box: Part of the frame that this is; None: all of it.
        pixels: [N, 2] x, y of single pixels of the frame; None: this is an image.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple's
    image: Tensor
    weight: Tensor
    person: Tensor
    head: Tensor
    background: Tensor
    face_box: Box
    mouth_box: Box
    box: Box | None = None
    pixels: Tensor | None = None

    def cropped(self, x0: int, y0: int, x1: int, y1: int) -> Batch:
        """The part of a whole frame from pixel (x0, y0) up to (x1, y1), which is excluded."""
        face, mouth = (
            (max(a, x0) - x0, max(b, y0) - y0, max(min(c, x1), x0) - x0, max(min(d, y1), y0) - y0)
            for a, b, c, d in (self.face_box, self.mouth_box)
        )
        parts = {name: getattr(self, name)[y0:y1, x0:x1] for name in _IMAGES}
        return self._replace(face_box=face, mouth_box=mouth, box=(x0, y0, x1, y1), **parts)

    def at(self, pixels: Tensor) -> Batch:
        """Single pixels of a whole frame.

        Args:
            pixels: [N, 2] int64 x, y.
        """
        pixels = pixels.to(self.image.device, non_blocking=True)
        x, y = pixels.unbind(-1)
        return self._replace(pixels=pixels, **{name: getattr(self, name)[y, x] for name in _IMAGES})

    def before(self, color: Tensor) -> Batch:
        """The frame as it would look before a color [3]: what is not the person's goes with its background."""
        # The person's share of each pixel's color is neither negative nor brighter than white.
        own = torch.minimum((self.image - (1 - self.person) * self.background).clamp(min=0), self.person)
        background = color.expand_as(self.background).contiguous()
        return self._replace(image=own + (1 - self.person) * background, background=background)

    def pinned(self) -> Batch:
        """Copy it to page-locked memory, which a GPU reads by itself."""
        return self._replace(**{name: getattr(self, name).pin_memory() for name in _IMAGES})

    def to(self, device: torch.device) -> Batch:
        """Move it to a device; does not wait for the copy of a :meth:`pinned` batch."""
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in _IMAGES})


_IMAGES = ("image", "weight", "person", "head", "background")
