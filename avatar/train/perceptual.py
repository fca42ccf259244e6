"""What the perceptual loss looks at: a part of the face, and in half of the steps the mouth as well, enlarged."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from avatar.losses.lpips import MIN_SIZE
from avatar.methods.batch import Batch

SMALLEST, LARGEST = 64, 192  # sides of a part of the face, pixels
MOUTHS = 0.5  # share of the steps with a mouth
MOUTH = 128  # pixels to which a mouth is enlarged: the network sees no detail finer than four
LEAST = 16  # pixels of a mouth that are worth it


def parts(
    image: Float[Tensor, "H W 3"], batch: Batch, mouth: float, draw: np.ndarray
) -> list[tuple[Float[Tensor, "S T 3"], Float[Tensor, "S T 3"], float]]:
    """Choose what to compare of an image and the real one.

    Blurry teeth and lips cost little beside a whole face. Enlarged, they have as many pixels as the network needs.

    Args:
        image: What was drawn.
        batch: The real frame.
        mouth: Weight of the mouth over that of the face; 0: the face alone.
        draw: [3] random numbers, 0..1.

    Returns:
        Parts of the image, the same of the frame, and their weights.
    """
    x0, y0, x1, y1 = batch.face_box
    height, width = image.shape[:2]
    side = min(max(x1 - x0, y1 - y0, SMALLEST), LARGEST, width, height)
    x = int(np.clip(x0 + draw[0] * max(x1 - x0 - side, 1), 0, width - side))
    y = int(np.clip(y0 + draw[1] * max(y1 - y0 - side, 1), 0, height - side))
    chosen = [(image[y : y + side, x : x + side], batch.image[y : y + side, x : x + side], 1.0)]
    if side < MIN_SIZE:  # a method may choose smaller parts, and does of small frames
        chosen = [(_enlarged(drawn, MIN_SIZE), _enlarged(real, MIN_SIZE), weight) for drawn, real, weight in chosen]
    if mouth and draw[2] < MOUTHS:
        x0, y0, x1, y1 = batch.mouth_box
        drawn, real = (x[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] for x in (image, batch.image))
        shorter, longer = sorted(drawn.shape[:2])
        if shorter >= max(LEAST, longer / 2):  # else this part of the frame has little of it
            chosen.append((_enlarged(drawn, MOUTH), _enlarged(real, MOUTH), mouth))
    return chosen


def _enlarged(image: Tensor, shorter: int) -> Tensor:
    """An image [H, W, 3], enlarged so that its shorter side has that many pixels; a larger one as it is."""
    height, width = image.shape[:2]
    scale = shorter / min(height, width)
    if scale <= 1:
        return image
    size = round(height * scale), round(width * scale)
    return interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
