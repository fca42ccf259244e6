"""Stage: soft masks of hair, skin, clothes and background for every n-th frame; see :mod:`avatar.data.masks`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from avatar import log
from avatar.data.masks import SIZE, above_jaw, polygon
from avatar.data.results import NO_EDGES, Edges, IngestResult, ParseResult, Segments, TrackResult
from avatar.errors import AvatarError
from avatar.geometry.mesh import FACE_OVAL
from avatar.io.images import resize, write_png
from avatar.motion.face_channels import LIPS_OUTER
from avatar.preprocess.landmarker import quiet_stderr
from avatar.preprocess.stage import StageContext
from avatar.preprocess.unusable import covered_frames, runs

NAME = "parse"
INPUTS = ("ingest", "track")
VERSION = 5

KEYFRAMES = 600  # aimed at, where the stride is not given
LONGEST_STRIDE = 0.25  # seconds
LEAVES, EDGE = 0.7, 0.02  # share of the person of a pixel, and of such pixels on an edge, that count as leaving
_AT_ONCE = 4  # masks at most; each thread holds the network anew

# (image [S, S, 3], points [478, 2]) -> shares [4, S, S] that sum to 1, and how much of the mouth is seen, 0 to 1
Parser = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the frames."""
    return {"mask_stride": ctx.config.mask_stride}


def run(ctx: StageContext, out: Path) -> ParseResult:
    """Write masks/%06d.png for the key frames."""
    import torch

    segments = ctx.person.result(TrackResult).segments
    stride = ctx.config.mask_stride or choose_stride(ctx.frames, ctx.person.result(IngestResult).fps)
    keyframes = choose_keyframes(segments, stride)
    landmarks = ctx.person.landmarks(ctx.frames)[:, :, :2]
    edges, leaving = inner_edges(ctx.person.result(IngestResult)), list[bool]()
    (out / "masks").mkdir()

    def parse(index: int) -> float:
        image = ctx.person.frame(index)
        part, restore = square(image)
        parser = free.get()
        try:
            shares, seen = parser(part, landmarks[index] * (SIZE / max(image.shape[:2])))
        finally:
            free.put(parser)
        shares = restore(shares)
        leaving.append(bool(leaves(shares, edges)))
        save_mask(out / "masks" / f"{index:06d}.png", shares)
        return seen

    free: SimpleQueue[Parser] = SimpleQueue()
    with open_parsers(min(_AT_ONCE, torch.get_num_threads())) as (parsers, method):
        for parser in parsers:
            free.put(parser)
        with ThreadPoolExecutor(len(parsers), "masks") as pool:
            seen = list(log.track(pool.map(parse, keyframes), "masks", len(keyframes)))
    covered = covered_frames(keyframes, seen, ctx.frames) & ctx.person.valid(ctx.frames)
    return ParseResult(stride=stride, keyframes=keyframes, method=method, covered=runs(covered),
                       leaves=round(float(np.mean(leaving)), 4))  # fmt: skip


def square(image: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Scale an image [H, W, 3] into a square of the segmenter's size, which knows no stretched people.

    Returns:
        uint8 [S, S, 3], the image at its upper left and edge pixels repeated beside it; and what stretches masks
        [C, S, S] of that square to the image alone.
    """
    height, width = image.shape[:2]
    if height == width:
        return resize(image, (SIZE, SIZE)), lambda masks: masks
    shrink = SIZE / max(height, width)
    inner = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = resize(image, inner)
    padded = np.pad(small, ((0, SIZE - inner[1]), (0, SIZE - inner[0]), (0, 0)), mode="edge")

    def restore(masks: np.ndarray) -> np.ndarray:
        return np.stack([resize(np.ascontiguousarray(mask[: inner[1], : inner[0]]), (SIZE, SIZE)) for mask in masks])

    return padded, restore


def inner_edges(ingest: IngestResult) -> Edges:
    """Which edges of the stored frames (left, top, right, bottom) lie inside of what rendering shows."""
    view = ingest.view()
    return NO_EDGES if view is None else view.inner_edges(ingest.width, ingest.height)


def leaves(shares: np.ndarray, edges: Edges) -> bool:
    """Whether the person of masks [4, S, S] touches one of the edges that lie inside of what rendering shows."""
    person = shares[3] < 1 - LEAVES
    lines = person[:, 0], person[0], person[:, -1], person[-1]
    return any(inner and line.mean() > EDGE for inner, line in zip(edges, lines, strict=True))


def choose_stride(frames: int, fps: float) -> int:
    """Choose a stride for about `KEYFRAMES` masks, at most `LONGEST_STRIDE` seconds apart."""
    return max(1, min(round(frames / KEYFRAMES), int(LONGEST_STRIDE * fps)))


def choose_keyframes(segments: Segments, stride: int) -> list[int]:
    """Take every n-th frame of each segment, and its first and last, so that no mask crosses a cut."""
    return sorted({i for start, end in segments for i in (*range(start, end, stride), end - 1)})


def save_mask(path: Path, shares: np.ndarray) -> None:
    """Write shares [4, S, S] that sum to 1 as bytes that sum to 255."""
    r, g, b, _ = levels = np.round(shares * 255).astype(np.int32)
    levels[3] = np.clip(255 - r - g - b, 0, 255)
    # Three rounded shares can sum to 256 or 257; the largest gives way.
    excess = levels.sum(0) - 255
    np.put_along_axis(levels, levels.argmax(0)[None], levels.max(0)[None] - excess[None], 0)
    write_png(path, levels.astype(np.uint8).transpose(1, 2, 0), compression=3)


# --- two ways to parse an image ----------------------------------------------------------------------------------


@contextmanager
def open_parsers(count: int) -> Generator[tuple[list[Parser], str]]:
    """Open ``count`` parsers for as many threads, or one where only shapes are left; yields them and their method."""
    with ExitStack() as stack:
        parser, method = stack.enter_context(open_parser())
        more = count - 1 if method == "segmenter" else 0
        yield [parser, *(stack.enter_context(open_parser())[0] for _ in range(more))], method


@contextmanager
def open_parser() -> Generator[tuple[Parser, str]]:
    """Open the segmenter or, where its model is not available, shapes from the landmarks; yields it and its name."""
    from avatar.assets.store import fetch

    try:
        model = fetch("selfie_multiclass")
    except AvatarError as error:
        log.warn(
            f"{error} Until then masks are guessed from the landmarks and the colours: coarser hair and shoulders."
        )
        yield parse_by_shape, "shapes"
        return
    with quiet_stderr():
        from mediapipe.tasks.python import BaseOptions, vision

        segmenter = vision.ImageSegmenter.create_from_options(
            vision.ImageSegmenterOptions(
                base_options=BaseOptions(model_asset_path=str(model)), output_confidence_masks=True
            )
        )
        parse_by_network(segmenter, np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((478, 2)))  # says its piece here
    try:
        yield functools.partial(parse_by_network, segmenter), "segmenter"
    finally:
        with quiet_stderr():
            segmenter.close()


def parse_by_network(segmenter: Any, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """Segment hair, skin, clothes and background by a network.

    Args:
        segmenter: MediaPipe's ImageSegmenter with the selfie_multiclass model: background, hair, body skin, face skin,
            clothes, others.
        image: uint8 RGB [S, S, 3].
        points: Landmarks [478, 2] in pixels of ``image``.

    Returns:
        float32 [4, S, S], summing to 1, and how much of the mouth is seen, 0 to 1.
    """
    import mediapipe as mp

    result = segmenter.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image)))
    confidences = np.stack([mask.numpy_view().reshape(SIZE, SIZE) for mask in result.confidence_masks])
    # The network is never surer than 0.92. Squares, made to sum to 1, are; edges, where two are equal, stay in place.
    background, hair, body, face, clothes, others = confidences**2
    # "Others" are things worn: above the chin they move with the head, below it with the body.
    above = (np.arange(SIZE) + 0.5 < points[152, 1])[:, None]
    shares = np.stack([hair + others * above, body + face, clothes + others * ~above, background])
    total = np.maximum(shares.sum(0), 1e-6)
    return shares / total, mouth_seen((face + hair) / total, points)


def mouth_seen(head: np.ndarray, points: np.ndarray) -> float:
    """Measure how much of the mouth and of what surrounds it is seen, 0 to 1.

    The landmarks lie on a mouth even where a hand or a microphone hides it. The segmenter takes the one for skin of
    the body and the other for a thing. A beard may be hair.

    Args:
        head: Share of face skin and hair, [S, S].
        points: Landmarks [478, 2] in pixels.
    """
    size = len(head)
    below_nose = np.arange(size)[:, None] + 0.5 > points[2, 1]
    parts = polygon(points[list(LIPS_OUTER)], size), polygon(points[list(FACE_OVAL)], size) * below_nose
    return float(min((head * part).sum() / part.sum() if part.any() else 1.0 for part in parts))


def parse_by_shape(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """Segment hair, skin, clothes and background without a network: head and shoulders, cut out by colour.

    A prior drawn from the landmarks (ellipse for head and hair, trapezoid for the shoulders) is refined by GrabCut
    (Rother et al. 2004) at half size; skin beside the face is what has its colour.

    Args and returns as :func:`parse_by_network`, without the segmenter; what covers the mouth is not noticed.
    """
    import cv2

    size = SIZE // 2
    small, points = resize(image, (size, size)), points / 2
    oval, above = polygon(points[list(FACE_OVAL)], size) > 0.5, above_jaw(points, size) > 0.5
    top, chin = points[10], points[152]
    centre, height = (top + chin) / 2, max(float(np.linalg.norm(chin - top)), 4.0)
    width = max(float(np.linalg.norm(points[454] - points[234])), 4.0)

    def ellipse(grow: float) -> np.ndarray:
        axes = width * (0.5 + 0.16 * grow), height * (0.5 + 0.2 * grow)
        middle = centre - (chin - top) * 0.14 * grow  # hair reaches up more than it does down
        angle = float(np.degrees(np.arctan2(*(points[454] - points[234])[::-1])))
        canvas = np.zeros((size, size), np.uint8)
        box = ((float(middle[0]), float(middle[1])), (2 * axes[0], 2 * axes[1]), angle)
        return cv2.ellipse(canvas, box, 1, -1) > 0

    def shoulders(half_top: float, half_bottom: float, y: float) -> np.ndarray:
        x, bottom = chin[0], size + 1.0
        corners = [(x - half_top, y), (x + half_top, y), (x + half_bottom, bottom), (x - half_bottom, bottom)]
        return polygon(np.array(corners, np.float32), size) > 0.5

    likely = ellipse(1.0) | shoulders(0.5 * width, 1.7 * width, float(chin[1]))
    possible = ellipse(2.0) | shoulders(0.9 * width, 2.8 * width, float(chin[1] - 0.1 * height))
    sure = oval | shoulders(0.3 * width, 1.1 * width, float(chin[1] + 0.25 * height))
    trimap = np.full((size, size), cv2.GC_BGD, np.uint8)
    trimap[possible], trimap[likely], trimap[sure] = cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD
    if sure.any() and not possible.all():
        models = np.zeros((1, 65)), np.zeros((1, 65))
        trimap = cv2.grabCut(small, trimap, (0, 0, 1, 1), *models, 2, cv2.GC_INIT_WITH_MASK)[0]  # no rectangle
    person = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)

    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    lower_face = oval & (np.arange(size)[:, None] > points[1, 1])
    sample = lab[lower_face] if lower_face.sum() > 20 else lab[oval]
    if len(sample) == 0:  # no face in the image
        return np.stack([np.zeros((SIZE, SIZE), np.float32)] * 3 + [np.ones((SIZE, SIZE), np.float32)]), 1.0
    spread = (lab - np.median(sample, 0)) / (np.array([30.0, 8.0, 8.0]) + sample.std(0))
    unlike = (spread**2).sum(-1)
    skin = oval | (person & np.where(above, ellipse(0.5) & (unlike < 1), unlike < 4))
    hard = np.stack([person & above & ~skin, skin, person & ~above & ~skin, ~(person | skin)]).astype(np.float32)
    soft = np.stack([cv2.resize(cv2.GaussianBlur(m, (0, 0), 1.0), (SIZE, SIZE)) for m in hard])
    return soft / np.maximum(soft.sum(0), 1e-6), 1.0
