"""Stage: the background without the person, and how the camera moved over it.

The background is the median, over frames spread over the training part, of what is seen beside the person. What is
never seen is filled smoothly from around it. "Static" cameras often are not (operators, stabilisers, a new crop after
every cut), so each frame is first aligned to one reference. Where that explains the differences, the background is
built in steady coordinates, wider than the frame, with the motion stored beside it.

Only frames that show the face are looked at: a black screen or a title says nothing about what is behind the person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avatar import log
from avatar.data import background as stored
from avatar.data.background import warp_affine
from avatar.data.masks import read_mask, similarity
from avatar.data.results import BackgroundResult, FrameView, IngestResult, ParseResult, Segments, TrackResult
from avatar.geometry.mesh import STEADY
from avatar.io.arrays import save_array
from avatar.io.images import write_png
from avatar.preprocess.affine import compose, invert, middle_matrix, transform
from avatar.preprocess.align import Aligner, mean_difference
from avatar.preprocess.median_image import median_seen
from avatar.preprocess.stage import StageContext

NAME = "background"
INPUTS = ("ingest", "track", "parse")
VERSION = 8

FRAMES = 64  # looked at for the background
PROBE_FRAMES = 32  # looked at to find out whether the camera moves
CLEAR = 0.95  # share of background from which a pixel counts as background ...
MARGIN = 0.015  # ... this far, in frame sides, from anything that is not
NEAR_MARGIN = 0.01  # ... where rendering shows a whole frame, in which a wide blurred edge would be seen
MOVES_PX = 1.0  # a background whose frames lie farther apart than this ...
MOVES_GAIN = 1.4  # ... and become this many times more alike when aligned, moves
SEARCH = 0.08  # of the frame's side: how far off the places are where a search starts
ZOOM_CUT = 0.1  # a head, or a background, that grows by more (as a logarithm) was enlarged with the image
MOST_ROLL = 0.1  # radians that a zoomed image is turned, at most
FASTEST = 0.75  # of the frame's side in a second: no camera that somebody holds goes faster
WIDEST = 0.25  # of the frame's side: most by which a moving camera makes the stored background larger


# Frame index -> image uint8 RGB [H, W, 3], and where it clearly shows background, bool [H, W].
Look = Callable[[int], tuple[np.ndarray, np.ndarray]]


class CameraMotion(NamedTuple):
    """Largest shift in pixels, largest change of scale, and how many times more alike aligned frames are."""

    largest_shift_px: float = 0.0
    largest_zoom: float = 0.0
    alignment_gain: float | None = None


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the frames and masks."""
    return {"test_start": ctx.test_start}


def run(ctx: StageContext, out: Path) -> BackgroundResult:
    """Write background.png and coverage.png; where the camera moves also wide.png, warp.npy and shift.npy.

    Where rendering shows more than the stored frames, the same of that, with whole_ before the names.
    """
    ingest = ctx.person.result(IngestResult)
    size = ingest.width, ingest.height
    known = max(1, ctx.test_start)  # the rest is held out from everything that is trained
    always = always_background(ctx, size)
    motion, found = measure_motion(ctx, always)
    warps = motion if motion is not None else np.tile(np.eye(2, 3), (ctx.frames, 1, 1))
    warps, wide_size, offset = enlarge(warps, size)
    faces = np.flatnonzero(ctx.person.valid(ctx.frames)[:known])
    frames = spread(faces if len(faces) else np.arange(known), FRAMES)
    look = part_of(ctx, MARGIN if ingest.frame is None else NEAR_MARGIN)
    background, seen = build_background(look, frames, warps, wide_size)
    left, top = offset
    central = slice(top, top + size[1]), slice(left, left + size[0])
    write_png(out / stored.IMAGE, background[central])
    write_png(out / stored.COVERAGE, seen[central].astype(np.uint8) * 255)
    if (view := ingest.view()) is not None:
        write_whole(ctx, view, motion, frames_with_face(ctx, ingest.whole, known), out)
    if motion is not None:
        write_png(out / stored.WIDE, background)
        save_array(out / stored.WARP, warps.astype(np.float32))
        middle = np.array(size) / 2
        # Where the background's middle is in each frame, less where it is at rest: the plain shift, to the frame.
        inverse = np.linalg.inv(warps[:, :, :2])
        there = np.einsum("tij,tj->ti", inverse, middle + offset - warps[:, :, 2])
        save_array(out / "shift.npy", (there - middle).astype(np.float32))
        log.info(
            f"The camera moves: the background shifts by up to {found.largest_shift_px:.1f} pixels "
            f"and changes its scale by up to {found.largest_zoom:.1%}. The stored background follows it."
        )
    return BackgroundResult(
        seen=round(float(seen[central].mean()), 4), moves=motion is not None, num_frames=len(frames),
        offset=offset if motion is not None else None, **found._asdict(),
    )  # fmt: skip


def frames_with_face(ctx: StageContext, some: Sequence[int], known: int) -> np.ndarray:
    """Choose of ``some`` frames those that are not held out and show the face.

    All that are not held out where none shows it, and the first of all where every one is held out.
    """
    allowed = [index for index in some if index < known] or [some[0]]
    valid = ctx.person.valid(ctx.frames)
    return np.array([index for index in allowed if valid[index]] or allowed)


def write_whole(ctx: StageContext, view: FrameView, motion: np.ndarray | None, frames: np.ndarray, out: Path) -> None:
    """Write the background of what rendering shows, as :func:`run` does that of the stored frames.

    Args:
        ctx: The person.
        view: What rendering shows.
        motion: [T, 2, 3] similarities, pixels of each stored frame to steady coordinates; None: a still camera.
        frames: Frames to look at, stored as rendering shows them.
        out: Folder of the stage.
    """
    size = view.width, view.height
    warps = np.tile(np.eye(2, 3), (ctx.frames, 1, 1))
    if motion is not None:
        to_view = np.array([[view.scale, 0, view.x], [0, view.scale, view.y]])
        warps = compose(compose(to_view, motion), invert(to_view))
    warps, wide_size, (left, top) = enlarge(warps, size)
    background, _ = build_background(whole_of(ctx, view), frames, warps, wide_size)
    write_png(out / (stored.WHOLE + stored.IMAGE), background[top : top + size[1], left : left + size[0]])
    if motion is not None:
        write_png(out / (stored.WHOLE + stored.WIDE), background)
        save_array(out / (stored.WHOLE + stored.WARP), warps.astype(np.float32))


def spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose at most ``count`` of ``indices``, evenly."""
    return np.unique(indices[np.linspace(0, len(indices) - 1, count).astype(int)])


def keyframes_with_face(ctx: StageContext) -> list[int]:
    """List the frames that have a mask and show the face; all that have a mask, where none does."""
    valid, keyframes = ctx.person.valid(ctx.frames), ctx.person.result(ParseResult).keyframes
    return [index for index in keyframes if valid[index]] or keyframes


# --- motion ------------------------------------------------------------------------------------------------------


def always_background(ctx: StageContext, size: tuple[int, int]) -> np.ndarray:
    """Find the pixels that the person never covers, bool [height, width] of ``size`` (width, height)."""
    import cv2

    keyframes = keyframes_with_face(ctx)
    some = keyframes[:: max(1, len(keyframes) // 150)]
    least = np.min([read_mask(ctx.person.stage("parse") / "masks" / f"{k:06d}.png")[..., 3] for k in some], 0)
    return shrink(cv2.resize(least, size) > CLEAR, MARGIN)


def shrink(mask: np.ndarray, share: float) -> np.ndarray:
    """Shrink a boolean mask by ``share`` of its side, but not at the image's border."""
    import cv2

    reach = max(1, round(share * max(mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.erode(mask.astype(np.uint8), disc, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0


def measure_motion(ctx: StageContext, part: np.ndarray) -> tuple[np.ndarray | None, CameraMotion]:
    """Measure how the background moves.

    Args:
        ctx: The person.
        part: bool [H, W], pixels that the person never covers.

    Returns:
        [T, 2, 3] similarities, pixels of each frame to steady coordinates, or None if the background stands still or
        shows too little to tell; and what to report.
    """
    faces = np.flatnonzero(ctx.person.valid(ctx.frames))
    probes = spread(faces, PROBE_FRAMES)
    heads = np.asarray(ctx.person.landmarks(ctx.frames, mapped=True)[:, STEADY, :2], np.float64)
    middle = reference_frame(heads, faces, probes)
    reference = ctx.person.grey_frame(middle)
    aligner = Aligner(reference, part, "similarity")
    if part.mean() < 0.05 or aligner.definite <= 0:
        return None, CameraMotion()

    found, before, after, apart = {}, [], [], []
    for index in probes:
        image = ctx.person.grey_frame(index)
        zoom = zoom_start(heads[middle], heads[index])
        matrix = search(aligner, reference, image, part, [np.eye(2, 3), *zoom])
        found[int(index)] = matrix = sensible(matrix, zoom, partial(mean_difference, reference, image, part=part))
        before.append(mean_difference(reference, image, np.eye(2, 3), part))
        after.append(mean_difference(reference, image, matrix, part))
        shift = float(np.linalg.norm(transform(matrix, aligner.centre) - aligner.centre))
        apart.append(len(reference) if zoomed(matrix) else shift)  # the centre of a zoom stays where it is
    told = np.isfinite(after)
    gain = float(np.mean(np.array(before)[told]) / max(np.mean(np.array(after)[told]), 1e-6)) if told.any() else 1.0
    if gain < MOVES_GAIN or np.percentile(apart, 90) < MOVES_PX:
        return None, CameraMotion(alignment_gain=round(gain, 3))

    matrices: dict[int, np.ndarray] = {}
    matrix = found[int(probes[0])]
    segments = ctx.person.result(TrackResult).segments
    keyframes = keyframes_with_face(ctx)
    starts = {next((index for index in keyframes if index >= start), None) for start, _ in segments}
    for index in log.track(keyframes, "background"):
        image, zoom = ctx.person.grey_frame(index), zoom_start(heads[middle], heads[index])
        if index in starts:  # after a cut the camera may be anywhere
            nearest = min(found, key=lambda probe: abs(probe - index))
            matrix = search(aligner, reference, image, part, [matrix, found[nearest], np.eye(2, 3), *zoom])
        else:
            matrix = aligner.align(image, matrix).matrix
        matrices[index] = matrix = sensible(matrix, zoom, partial(mean_difference, reference, image, part=part))
    coarse = fill_between(slips_out(matrices, segments), segments, np.tile(np.eye(2, 3), (ctx.frames, 1, 1)))
    to_frame = fill_between(follow(ctx, aligner, part, coarse, heads, middle), segments, coarse)
    # Steady coordinates are the camera's middle position, not the accidental reference's.
    to_frame = compose(to_frame, invert(middle_matrix(to_frame, aligner.centre)))
    moved = np.linalg.norm(transform(to_frame, aligner.centre) - aligner.centre, axis=-1)
    zoom = np.abs(np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0]) - 1)
    return invert(to_frame), CameraMotion(round(float(moved.max()), 2), round(float(zoom.max()), 4), round(gain, 3))


def head_zoom(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Compute the zoom [2, 3] that takes the head's points [N, 2] of one frame to those of another."""
    matrix = similarity(here, there)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))  # its roll is left out: a head that leans turns no image
    return np.column_stack([scale * np.eye(2), there.mean(0) - scale * here.mean(0)])


def zoomed(matrix: np.ndarray) -> bool:
    """Tell whether a similarity [2, 3] enlarges or reduces more than a camera that drifts."""
    return bool(abs(np.log(np.hypot(matrix[0, 0], matrix[1, 0]))) > ZOOM_CUT)


def zoom_start(here: np.ndarray, there: np.ndarray) -> list[np.ndarray]:
    """Propose the head's zoom to start a search from, where the head is much larger or smaller."""
    zoom = head_zoom(here, there)
    return [zoom] if zoomed(zoom) else []


def sensible(matrix: np.ndarray, zoom: list[np.ndarray], difference: Callable[[np.ndarray], float]) -> np.ndarray:
    """Take the head's zoom, where there is one, for an alignment that slipped on a plain wall.

    A head that leans in or turns is of another size as well, and then nothing was enlarged: what the images show
    decides between its zoom and none.

    Args:
        matrix: [2, 3], the alignment.
        zoom: The head's zoom, where its size differs.
        difference: Tells how much the images differ under a similarity.
    """
    if not zoom:
        return matrix
    scale, roll = np.hypot(matrix[0, 0], matrix[1, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
    turned = abs(roll) > MOST_ROLL
    if not turned and abs(np.log(scale / zoom[0][0, 0])) <= ZOOM_CUT:
        return matrix
    level = np.eye(2, 3) if turned or zoomed(matrix) else matrix
    return zoom[0] if difference(zoom[0]) <= difference(level) else level


def reference_frame(heads: np.ndarray, faces: np.ndarray, probes: np.ndarray) -> int:
    """Choose the frame that others are aligned to: the middle one, or an enlarged one.

    What is seen in an enlarged image is seen in the others as well, but not the other way round.

    Args:
        heads: [T, N, 2] points of the head.
        faces: Frames that show the face.
        probes: Some of them.
    """
    middle = int(faces[np.abs(faces - len(heads) // 2).argmin()])
    zooms = [head_zoom(heads[middle], heads[probe])[0, 0] for probe in probes]
    return int(probes[np.argmax(zooms)]) if np.log(max(zooms)) > ZOOM_CUT else middle


def search(
    aligner: Aligner, reference: np.ndarray, image: np.ndarray, part: np.ndarray, starts: list[np.ndarray]
) -> np.ndarray:
    """Find the best alignment [2, 3] from ``starts`` and from shifts all around the first of them."""
    step = SEARCH * reference.shape[0]
    around = [starts[0] + np.array([[0, 0, x], [0, 0, y]]) * step for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    found = [aligner.align(image, start).matrix for start in (*starts, *around)]
    return min(found, key=lambda matrix: mean_difference(reference, image, matrix, part))


def slips_out(matrices: dict[int, np.ndarray], segments: Segments) -> dict[int, np.ndarray]:
    """Take the median of each key frame and its two neighbours in its segment."""
    result: dict[int, np.ndarray] = {}
    for start, end in segments:
        known = sorted(k for k in matrices if start <= k < end)
        for k, at in enumerate(known):
            near = (known[max(k - 1, 0)], at, known[min(k + 1, len(known) - 1)])
            result[at] = np.median([matrices[other] for other in near], 0)
    return result


def follow(
    ctx: StageContext, aligner: Aligner, part: np.ndarray, coarse: np.ndarray, heads: np.ndarray, middle: int
) -> dict[int, np.ndarray]:
    """Align every frame of the segments in which the camera moves.

    Somebody who holds it sways once or twice a second: between key frames a quarter of a second apart that cannot be
    known. Where key frames say that it stands still, those are enough, and no noise is added to them.

    Args:
        ctx: The person.
        aligner: Of the reference.
        part: bool [H, W], pixels that the person never covers.
        coarse: [T, 2, 3] similarities that key frames gave, pixels of the reference to pixels of each frame.
        heads: [T, N, 2] points of the head.
        middle: Index of the reference.

    Returns:
        The similarity of each frame whose alignment can be believed.
    """
    valid, frames, starts = ctx.person.valid(ctx.frames), list[int](), set[int]()
    for start, end in ctx.person.result(TrackResult).segments:
        faces = start + np.flatnonzero(valid[start:end])
        there = transform(coarse[faces], aligner.centre)
        if len(faces) and np.linalg.norm(there - np.median(there, 0), axis=1).max() > MOVES_PX:
            frames += faces.tolist()
            starts.add(int(faces[0]))
    limit = FASTEST * aligner.shape[0] / ctx.person.result(IngestResult).fps
    reference, found, last = ctx.person.grey_frame(middle), dict[int, np.ndarray](), None
    for index in log.track(frames, "camera") if frames else ():
        image, zoom = ctx.person.grey_frame(index), zoom_start(heads[middle], heads[index])
        last = None if index in starts else last
        before = coarse[index] if last is None else found[last]
        if last is None or last == index - 1:
            matrix = aligner.align(image, before).matrix
        else:  # the frames between show no face, or something else
            matrix = search(aligner, reference, image, part, [before, coarse[index]])
        matrix = sensible(matrix, zoom, partial(mean_difference, reference, image, part=part))
        moved = np.linalg.norm(transform(matrix, aligner.centre) - transform(before, aligner.centre))
        if last is None or moved < limit * (index - last):  # else it slipped: it is interpolated
            found[index], last = matrix, index
    return found


def fill_between(matrices: dict[int, np.ndarray], segments: Segments, others: np.ndarray) -> np.ndarray:
    """Interpolate [T, 2, 3] between the frames that are known, within each segment; ``others`` where it knows none."""
    result = others.copy()
    for start, end in segments:
        known = np.array(sorted(k for k in matrices if start <= k < end))
        if not len(known):  # no face, and so nobody whose background it would be
            continue
        values = np.stack([matrices[k] for k in known]).reshape(len(known), 6)
        at = np.arange(start, end)
        result[start:end] = np.stack([np.interp(at, known, v) for v in values.T], -1).reshape(-1, 2, 3)
    return result


def enlarge(warps: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """Shift steady coordinates so that all frames lie on an image that starts at 0.

    Args:
        warps: [T, 2, 3], pixels of each frame to steady coordinates.
        size: Width and height of the frames.

    Returns:
        The shifted warps, (width, height) of the image, and (x, y) of the frame at rest in it.
    """
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float64)
    there = np.einsum("tij,nj->tni", warps[:, :, :2], corners) + warps[:, None, :, 2]
    limit = WIDEST * np.array(size)
    low = np.floor(there.min((0, 1)).clip(-limit, 0)).astype(int)
    high = np.ceil(there.max((0, 1)).clip(size, size + limit) - 1e-6).astype(int)
    shifted = warps.copy()
    shifted[:, :, 2] -= low
    width, height = (high - low).tolist()
    return shifted, (width, height), (-int(low[0]), -int(low[1]))


# --- image -------------------------------------------------------------------------------------------------------


def part_of(ctx: StageContext, margin: float) -> Look:
    """Read a stored frame, and where it clearly shows background."""

    def look(index: int) -> tuple[np.ndarray, np.ndarray]:
        image = ctx.person.frame(index)
        mask = ctx.person.masks(index, (image.shape[1], image.shape[0]))["background"]
        return image, shrink(mask > CLEAR, margin)

    return look


def whole_of(ctx: StageContext, view: FrameView) -> Look:
    """Read a frame as rendering shows it, and where it clearly shows background: all around the stored frames."""
    ingest = ctx.person.result(IngestResult)
    size = round(ingest.width * view.scale), round(ingest.height * view.scale)
    left, top = round(view.x), round(view.y)

    def look(index: int) -> tuple[np.ndarray, np.ndarray]:
        clear = np.ones((view.height, view.width), bool)
        part = clear[top : top + size[1], left : left + size[0]]
        seen = shrink(ctx.person.masks(index, size)["background"] > CLEAR, NEAR_MARGIN)
        part[:] = seen[: part.shape[0], : part.shape[1]]
        return ctx.person.whole_frame(index), clear

    return look


def build_background(
    look: Look, frames: np.ndarray, warps: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the median of what is seen of the background.

    Args:
        look: Reads a frame, and where it clearly shows background.
        frames: Indices of the frames to look at.
        warps: [T, 2, 3], pixels of a frame to pixels of the result.
        size: Width and height of the result.

    Returns:
        The background, uint8 RGB [h, w, 3], filled everywhere, and where it was seen, bool [h, w].
    """
    width, height = size
    colours = np.empty((len(frames), height, width, 3), np.uint8)
    visible = np.empty((len(frames), height, width), bool)
    for k, index in enumerate(log.track(frames, "background")):
        image, seen = look(int(index))
        clear = seen.astype(np.uint8) * 255
        back = invert(warps[index])
        colours[k] = warp_affine(image, back, size)
        visible[k] = warp_affine(clear, back, size, outside=0) == 255
    return median_seen(colours, visible)
