"""How the clothes bend: what is left of their motion after the rigid one, on the grid of `avatar.geometry.warp`.

The clothes of one image are laid over every frame. Gauss-Newton on the pixels with the largest gradients moves the
grid's nodes until both agree, with Tukey weights against what covers the clothes, and with a membrane between
neighbouring nodes that carries the motion into plain cloth. As in :mod:`avatar.preprocess.align`, the gradients are the
reference's (Baker and Matthews 2004): displacements are small, so they serve for all iterations.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from avatar.geometry.warp import COLUMNS, ROWS, WIDTH, cells
from avatar.preprocess.affine import invert
from avatar.preprocess.align import NOISE, TUKEY

BLUR = 0.8  # pixels at 512
CELL = 8  # pixels; of each such square, the few strongest gradients are followed, so that no part goes unheard
PER_CELL = 6
LEAST_GRADIENT = 1.0  # grey levels per pixel
LEAST_POINTS = 100
OUTLINE = 3  # pixels beyond the mask that still belong to the outline of the clothes
ITERATIONS = 5
MEMBRANE = 0.01  # weight of the differences between neighbouring nodes, relative to the mean weight of a node's pixels
ANCHOR = 0.01  # weight of the displacements themselves, relative to the membrane's


class ClothWarp:
    """Follows the clothes of one reference image.

    Args:
        reference: uint8 grey [H, W].
        clothes: bool [H, W], where the reference shows clothes; their outline counts as well.
        to_rest: [2, 3] similarity, pixels of the reference to pixels at rest.

    Attributes:
        box: [2, 2] corners of the grid, pixels at rest.
        usable: Whether there is enough to follow.
    """

    def __init__(self, reference: np.ndarray, clothes: np.ndarray, to_rest: np.ndarray) -> None:
        image = _blurred(reference)
        rows, columns = _strong_pixels(image, clothes)
        self.usable = len(rows) >= LEAST_POINTS
        self.points = _move(to_rest, np.stack([columns, rows], -1) + 0.5)
        self.values = image[rows, columns].astype(np.float64)
        everything = np.argwhere(clothes)[:, ::-1] + 0.5 if clothes.any() else np.array([[0.0, 0.0], [1.0, 1.0]])
        everything = _move(to_rest, everything)
        self.box = np.stack([everything.min(0), everything.max(0)])
        if not self.usable:
            return
        self.basis = self._basis(self.points)
        gradient = np.stack([cv2.Scharr(image, cv2.CV_32F, i, 1 - i)[rows, columns] / 32 for i in (1, 0)], -1)
        gradient = gradient @ invert(to_rest)[:, :2]
        # Unknowns: x of all nodes, y of all nodes, then a gain and an offset against changing light.
        light = np.stack([self.values - 128, np.ones_like(self.values)], -1)
        parts = [self.basis.multiply(gradient[:, :1]), self.basis.multiply(gradient[:, 1:]), sparse.csr_matrix(light)]
        self.jacobian = sparse.csr_matrix(sparse.hstack(parts))
        squares = self.jacobian.multiply(self.jacobian).sum(0)
        squares = np.asarray(squares)[0]
        stiffness = MEMBRANE * float(squares[:WIDTH].mean()) * _membrane()
        self.stiffness = sparse.csr_matrix(sparse.block_diag([stiffness, stiffness, sparse.diags(1e-6 * squares[-2:])]))

    def _basis(self, points: np.ndarray) -> sparse.csr_matrix:
        index, weight = (x.numpy() for x in cells(torch.from_numpy(points), torch.from_numpy(self.box)))
        row = np.repeat(np.arange(len(points)), 4)
        return sparse.csr_matrix((weight.ravel(), (row, index.ravel())), shape=(len(points), ROWS * COLUMNS))

    def fit(self, image: np.ndarray, from_rest: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        """Measure the displacements of the nodes in one image.

        Args:
            image: uint8 grey [H, W].
            from_rest: [2, 3] similarity, pixels at rest to pixels of the image.
            start: [ROWS * COLUMNS, 2] pixels at rest.

        Returns:
            The displacements [ROWS * COLUMNS, 2] in pixels at rest, and the share of points that fit.
        """
        blurred = _blurred(image)
        height, width = blurred.shape
        nodes, support = start, 0.0
        for _ in range(ITERATIONS):
            at = _move(from_rest, self.points + self.basis @ nodes)
            inside = (at > 1).all(1) & (at[:, 0] < width - 1) & (at[:, 1] < height - 1)
            if inside.sum() < LEAST_POINTS:
                return start, 0.0
            maps = (at - 0.5).astype(np.float32)  # OpenCV's pixel centres are at 0
            seen = cv2.remap(blurred, maps[:, :1], maps[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            difference = seen[:, 0] - self.values
            difference -= np.median(difference[inside])
            spread = max(1.4826 * float(np.median(np.abs(difference[inside]))), NOISE)
            relative = difference / (TUKEY * spread)
            weight = np.where(inside & (np.abs(relative) < 1), (1 - relative**2) ** 2, 0)
            support = float((weight > 0).mean())
            weighted = self.jacobian.multiply(weight[:, None]).tocsr()
            now = np.concatenate([nodes.T.ravel(), [0, 0]])
            wanted = weighted.T @ difference + self.stiffness @ now
            # A sparse solver, because a dense one's threads cost far more than they save at this size.
            step = np.asarray(spsolve((self.jacobian.T @ weighted + self.stiffness).tocsc(), wanted))[:-2]
            nodes = nodes - step.reshape(2, -1).T
            if np.abs(step).max() < 0.03:
                break
        return nodes, support


def _strong_pixels(image: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the strongest gradients of each small square of a part and its outline."""
    near = cv2.dilate(part.astype(np.uint8), _disk(OUTLINE))
    strength = np.hypot(*(cv2.Scharr(image, cv2.CV_32F, i, 1 - i) / 32 for i in (1, 0))) * near
    strength[:2] = strength[-2:] = strength[:, :2] = strength[:, -2:] = 0
    height, width = (n // CELL * CELL for n in strength.shape)
    squares = strength[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL)
    squares = squares.transpose(0, 2, 1, 3).reshape(-1, CELL * CELL)
    best = np.argsort(squares, axis=1)[:, -PER_CELL:]
    square, rank = np.nonzero(np.take_along_axis(squares, best, 1) > LEAST_GRADIENT)
    inner = best[square, rank]
    down, right = np.divmod(square, width // CELL)
    return down * CELL + inner // CELL, right * CELL + inner % CELL


def _membrane() -> sparse.spmatrix:
    """Quadratic form of the differences between neighbouring nodes, and a little of the displacements themselves."""

    def steps(n: int) -> sparse.spmatrix:
        return sparse.eye(n - 1, n, k=1) - sparse.eye(n - 1, n)

    eye = sparse.identity
    across, down = sparse.kron(eye(ROWS), steps(COLUMNS)), sparse.kron(steps(ROWS), eye(COLUMNS))
    return across.T @ across + down.T @ down + ANCHOR * eye(ROWS * COLUMNS)


def _blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), BLUR)


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _move(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]
