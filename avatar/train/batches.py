"""Training frames: which one at which step; its image, weights and masks, decoded ahead in a thread; its loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from avatar.data import PersonDataset
from avatar.methods.batch import Batch, Box
from avatar.methods.options import LossConfig
from avatar.motion.face_channels import EYE_CORNERS, LIPS_OUTER, mouth_opening
from avatar.native import l1_ssim
from avatar.train.matte import refined

MOUTH = 0.75  # half the side of the square around the lips, of their width


class FrameSampler:
    """Frame of each step, a pure function of seed and step, so that a resumed run sees the same frames.

    Half of the draws are uniform, half balance the mouth opening: wide-open mouths are rare in speech, and without
    balance their teeth and tongue stay blurred.
    """

    def __init__(self, data: PersonDataset, seed: int) -> None:
        self.frames = data.train_frames
        self.seed = seed
        opening = mouth_opening(np.asarray(data.landmarks[self.frames]))
        histogram, edges = np.histogram(opening, bins=12)
        rarity = 1 / np.maximum(histogram, len(opening) / 100)[np.clip(np.digitize(opening, edges[1:-1]), 0, 11)]
        self.probability = 0.5 / len(self.frames) + 0.5 * rarity / rarity.sum()
        self.cumulative = np.cumsum(self.probability / self.probability.sum())

    def __call__(self, step: int) -> int:
        draw = np.random.default_rng((self.seed, step)).random()
        return int(self.frames[min(np.searchsorted(self.cumulative, draw), len(self.frames) - 1)])


def load(data: PersonDataset, index: int, size: tuple[int, int], loss: LossConfig) -> Batch:
    """Frame ``index`` at ``size`` (width, height), with its loss weights."""
    image = data.image(index)
    masks = data.masks(index)
    background = data.background(index)
    scale = size[0] / data.width
    points = np.asarray(data.landmarks[index])[:, :2] * scale
    if size != (data.width, data.height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        background = cv2.resize(background, size, interpolation=cv2.INTER_AREA)
        masks = {k: cv2.resize(masks[k], size, interpolation=cv2.INTER_AREA) for k in ("background", "face", "hair")}
    image, background = image.astype(np.float32) / 255, background.astype(np.float32) / 255
    person = 1 - masks["background"].astype(np.float32)
    if data.info.photo is None:  # what is behind the person of a photo is a guess
        person = refined(image, background, person)
    weight = 1 + loss.face * masks["face"]
    width = np.ptp(points[:, 0])
    lips = points[list(LIPS_OUTER)]
    weight += loss.mouth * _blob(size, lips.mean(0), np.ptp(lips, axis=0) / 2 + 0.05 * width)
    for corner_a, corner_b in EYE_CORNERS.values():
        a, b = points[corner_a], points[corner_b]
        half = np.linalg.norm(a - b) / 2
        weight += loss.eyes * _blob(size, (a + b) / 2, np.array([1.3 * half, 1.0 * half]))
    around_lips = lips.mean(0) + MOUTH * np.ptp(lips, axis=0).max() * np.array([[-1], [1]])
    return Batch(
        index,
        torch.from_numpy(image),
        torch.from_numpy(weight / weight.mean()).float()[..., None],
        torch.from_numpy(person)[..., None],
        torch.from_numpy(masks["face"] + masks["hair"]).float()[..., None].clamp(max=1),
        torch.from_numpy(background),
        _box(points[:468]),
        _box(around_lips),
    )


def _box(points: np.ndarray) -> Box:
    """Whole pixels around points [N, 2]."""
    low, high = points.min(0), points.max(0)
    return int(low[0]), int(low[1]), int(np.ceil(high[0])), int(np.ceil(high[1]))


def _blob(size: tuple[int, int], centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """A soft-edged ellipse, 1 inside, [H, W]."""
    x = (np.arange(size[0], dtype=np.float32) + 0.5 - centre[0]) / max(float(radius[0]), 1)
    y = (np.arange(size[1], dtype=np.float32) + 0.5 - centre[1]) / max(float(radius[1]), 1)
    return np.clip(3 - 2 * np.sqrt(y[:, None] ** 2 + x[None] ** 2), 0, 1)


def prefetch(data: PersonDataset, sampler: Callable[[int], int], sizes: list[tuple[int, int]], start: int,
             loss: LossConfig, device: torch.device) -> Iterator[Batch]:  # fmt: skip
    """Batches of steps ``start`` to ``len(sizes)``, on the device; ``sizes[step]`` is the training resolution."""
    gpu = device.type == "cuda"
    # One thread keeps up with training on the CPU, which needs the other cores; a GPU leaves them to the frames.
    threads = min(8, os.cpu_count() or 1) if gpu else 1
    ahead = 4 * threads

    kept: dict[tuple[int, int], Batch] = {}  # of a photo: by size, the only frame

    def get(step: int) -> Batch:
        if sizes[step] in kept:
            return kept[sizes[step]]
        batch = load(data, sampler(step), sizes[step], loss)
        batch = batch.pinned() if gpu else batch
        if data.num_frames == 1:
            kept[sizes[step]] = batch
        return batch

    with ThreadPoolExecutor(threads, "frames") as pool:
        steps = range(start, len(sizes))
        waiting = [pool.submit(get, s) for s in steps[:ahead]]
        try:
            for s in steps:
                batch = waiting.pop(0).result()
                if s + ahead < len(sizes):
                    waiting.append(pool.submit(get, s + ahead))
                yield batch.to(device)
        finally:
            for future in waiting:
                future.cancel()


def image_loss(rgb: Tensor, batch: Batch, ssim: float) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and SSIM of an image, or L1 of single pixels; the loss, and what it consists of."""
    if batch.pixels is None:
        image = l1_ssim(rgb, batch.image, ssim, batch.weight)
        return image.loss, {"l1": image.l1, "ssim": image.ssim, "mse": image.mse}
    difference = rgb - batch.image
    l1 = (difference.abs() * batch.weight).mean()
    return l1, {"l1": l1.detach(), "mse": difference.detach().square().mean()}
