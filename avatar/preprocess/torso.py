"""Stage: the motion of the upper body in every frame, from what the clothes do in the image.

The clothes of one image per segment are aligned with every frame of that segment, and those images with each
other, so nothing drifts and no track crosses a cut. Shift, roll and scale in the image become a rigid motion about
the middle of the clothes, at the depth of the head. What they leave over (shoulders, collar, lapels) becomes a warp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avatar import log
from avatar.data.masks import similarity
from avatar.data.person import MOTION
from avatar.data.results import IngestResult, RefineResult, Segments, TorsoResult, TrackResult
from avatar.geometry.mesh import STEADY
from avatar.geometry.warp import COLUMNS, ROWS, WIDTH
from avatar.io.arrays import check_tensors, save_array
from avatar.io.checkpoint import read_safetensors
from avatar.preprocess.affine import compose, invert, middle_matrix, transform
from avatar.preprocess.align import Aligner, Alignment, mean_difference
from avatar.preprocess.stage import StageContext
from avatar.preprocess.warp import ClothWarp

NAME = "torso"
INPUTS = ("ingest", "track", "refine", "parse")
VERSION = 7

BEHIND = 3.0  # centimetres by which the chest is farther away than the head's origin
CLOTHES = 0.9  # share of clothes from which a pixel counts
LEAST_AREA = 0.02  # of the image, to track at all
LEAST_SUPPORT = 0.35  # share of the points that must agree
LINK_SUPPORT = 0.5  # the same for the images of two segments, which look less alike ...
LINK_ASTRAY = 0.01  # ... and there and back must come out this near, in image sides
ENLARGED = 1.1  # a head this many times as large: the other image is looked for in this one instead
LINK_TRIES = 4  # neighbours that a segment is compared with before it counts as unlinked
LEAST_TEXTURE = 0.2  # see Aligner.definite
AWAY_SECONDS = 0.5  # without a face: the person may have come back to another place
SMOOTH = 1.0  # standard deviation of the smoothing over time, frames
APART = 6  # pixels that the clothes keep from face and hair, which move otherwise, when their warp is measured


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the frames, masks and head poses: nothing."""
    return {}


def head_depth(path: Path) -> float:
    """Median distance of the head in a motion file, centimetres."""
    tensors, _ = read_safetensors(path, "a motion file", ("head_translation",))
    check_tensors(tensors, path, {"head_translation": "T 3"})
    return float(np.median(tensors["head_translation"][:, 2].numpy()))


def run(ctx: StageContext, out: Path) -> TorsoResult:
    """Write torso.npy, float32 [T, 6 + WIDTH]: rotation (axis-angle, radians), translation and warp (centimetres)."""
    camera = ctx.person.result(RefineResult).camera
    depth = head_depth(ctx.person.stage("refine") / MOTION) + BEHIND
    principal = np.array([camera.cx, camera.cy])
    matrices, tracked, main, gain = track_clothes(ctx)
    if not tracked.any():
        log.warn("The clothes show too little to follow the upper body; it will stand still.")
        ingest = ctx.person.result(IngestResult)
        pivot = back_project(np.array([ingest.width / 2, 0.9 * ingest.height]), principal, camera.focal, depth)
        save_array(out / "torso.npy", np.zeros((ctx.frames, 6 + WIDTH), np.float32))
        return TorsoResult(pivot=pivot.tolist(), warp_box=[[-1, -1], [1, 1]])
    rest = middle_matrix(matrices[tracked], main.centre)
    middle = transform(rest, main.centre)  # the pivot's pixel at rest
    from_rest = compose(matrices, invert(rest))
    motion = rigid_motion(from_rest, middle, principal, camera.focal, depth)
    warp, box = measure_warp(ctx, main, rest, from_rest, tracked)
    to_cm = depth / camera.focal
    save_array(out / "torso.npy", np.concatenate([motion, warp * to_cm], 1).astype(np.float32))
    return TorsoResult(
        warp_box=((box - middle) * to_cm).round(4).tolist(),
        pivot=back_project(middle, principal, camera.focal, depth).round(4).tolist(),
        tracked_share=round(float(tracked.mean()), 4),
        alignment_gain=round(gain, 3),
        range_cm=np.ptp(motion[:, 3:], axis=0).round(3).tolist(),
        range_warp_cm=round(float(np.percentile(np.abs(warp), 99)) * to_cm, 3),
        range_roll_deg=round(float(np.degrees(np.ptp(motion[:, 2]))), 3),
    )


def back_project(pixel: np.ndarray, principal: np.ndarray, focal: float, depth: float) -> np.ndarray:
    """The world point [3] that a pixel shows at a depth, centimetres."""
    return np.append((pixel - principal) / focal * depth, depth)


def rigid_motion(
    matrices: np.ndarray, pixel: np.ndarray, principal: np.ndarray, focal: float, depth: float
) -> np.ndarray:
    """Similarities in the image as rigid motions of a flat body that faces the camera.

    A body at depth Z that appears s times as large is at depth Z / s; what turns it in the image is a rotation about
    the viewing direction.

    Args:
        matrices: [T, 2, 3], pixels at rest to pixels of the frame.
        pixel: [2], where the pivot appears at rest.
        principal: [2], principal point.
        focal: Pixels.
        depth: Of the pivot at rest, centimetres.

    Returns:
        [T, 6] axis-angle rotation about the pivot, radians, and translation, centimetres, world axes.
    """
    scale = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    roll = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    new_depth = depth / scale
    there = (transform(matrices, pixel) - principal) / focal * new_depth[:, None]
    shift = there - (pixel - principal) / focal * depth
    zero = np.zeros_like(roll)
    return np.column_stack([zero, zero, roll, shift, new_depth - depth])


def track_clothes(ctx: StageContext) -> tuple[np.ndarray, np.ndarray, _Reference, float]:
    """Follow the clothes.

    Returns:
        [T, 2, 3] similarities from the pixels of one reference image to those of every frame; bool [T], whether the
        frame was measured (else it takes its neighbours' motion); the reference; and how many times more alike the
        clothes become when aligned.
    """
    segments = ctx.person.result(TrackResult).segments
    matrices = np.tile(np.eye(2, 3), (ctx.frames, 1, 1))
    tracked = np.zeros(ctx.frames, bool)
    valid, away = ctx.person.valid(ctx.frames), most_away(ctx)
    heads = ctx.person.landmarks(ctx.frames, mapped=True)[:, STEADY, :2]
    references = [_Reference(ctx, middle_face(valid, start, end)) for start, end in segments]
    main = longest = max(range(len(segments)), key=lambda s: segments[s][1] - segments[s][0])
    if not references[longest].usable:
        main = next((k for k, reference in enumerate(references) if reference.usable), longest)
    links = link_references(references, main)
    with log.progress() as bar:
        task = bar.add_task("following the shoulders", total=ctx.frames, info="")
        for (start, end), reference, link in zip(segments, references, links, strict=True):
            for half in (range(reference.index, end), range(reference.index - 1, start - 1, -1)):  # outwards
                matrix, anew, back = np.eye(2, 3), False, returns(valid, half, away)
                for index in half:
                    bar.advance(task)
                    anew = anew or index in back
                    if link is None or not valid[index]:  # a title says nothing about clothes
                        continue
                    image = ctx.person.grey_frame(index)
                    found = reference.find(image, matrix, heads[index] if anew else None)
                    if found.support >= LEAST_SUPPORT:
                        matrix, anew = found.matrix, False
                        matrices[index] = compose(matrix, link)
                        tracked[index] = True
    gain = measured_gain(ctx, references[main], matrices, tracked)
    matrices = smooth(fill_untracked(matrices, tracked, segments), segments)
    return matrices, tracked, references[main], gain


def middle_face(valid: np.ndarray, start: int, end: int) -> int:
    """Choose the frame nearest to the middle of a segment that shows the face; the middle where none does."""
    middle, faces = (start + end) // 2, np.flatnonzero(valid[start:end]) + start
    return int(faces[np.abs(faces - middle).argmin()]) if len(faces) else middle


def most_away(ctx: StageContext) -> int:
    """Number of frames without a face after which the person may have come back to another place."""
    return round(AWAY_SECONDS * ctx.person.result(IngestResult).fps)


def returns(valid: np.ndarray, order: Sequence[int], most: int) -> set[int]:
    """Find the frames, of those in ``order``, that show the face again after more than ``most`` that do not."""
    found, missed = set[int](), 0
    for index in order:
        if valid[index] and missed > most:
            found.add(index)
        missed = 0 if valid[index] else missed + 1
    return found


def measure_warp(
    ctx: StageContext, main: _Reference, rest: np.ndarray, from_rest: np.ndarray, tracked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the clothes do beyond their rigid motion, relative to what they usually do.

    Args:
        ctx: The person.
        main: The reference image, whose clothes are followed through all segments.
        rest: [2, 3] similarity, pixels of the reference to pixels at rest.
        from_rest: [T, 2, 3] similarities, pixels at rest to pixels of each frame.
        tracked: bool [T]; other frames take their neighbours' warp.

    Returns:
        [T, WIDTH] displacements of the grid's nodes and the grid's box [2, 2], both in pixels at rest.
    """
    height, width = main.image.shape
    masks = ctx.person.masks(main.index, (width, height))
    head = (masks["face"] + masks["hair"] > 0.5).astype(np.uint8)
    near = cv2.dilate(head, np.ones((2 * APART + 1, 2 * APART + 1), np.uint8))
    cloth = ClothWarp(main.image, (masks["clothes"] > 0.5) & (near == 0), rest)
    nodes = np.zeros((ctx.frames, ROWS * COLUMNS, 2))
    if not cloth.usable:
        return nodes.reshape(ctx.frames, WIDTH), cloth.box
    segments = ctx.person.result(TrackResult).segments
    found, valid, away = np.zeros(ctx.frames, bool), ctx.person.valid(ctx.frames), most_away(ctx)
    with log.progress() as bar:
        task = bar.add_task("following the clothes", total=ctx.frames, info="")
        for start, end in segments:
            middle = (start + end) // 2  # where the torso's own references are
            for half in (range(middle, end), range(middle - 1, start - 1, -1)):  # outwards
                before, back = np.zeros((ROWS * COLUMNS, 2)), returns(valid, half, away)
                for index in half:
                    bar.advance(task)
                    if index in back:
                        before = np.zeros((ROWS * COLUMNS, 2))
                    if not tracked[index]:
                        continue
                    there, support = cloth.fit(ctx.person.grey_frame(index), from_rest[index], before)
                    if support >= LEAST_SUPPORT:
                        nodes[index] = before = there
                        found[index] = True
    nodes = nodes.reshape(ctx.frames, WIDTH)
    if found.any():
        nodes -= np.median(nodes[found], 0)
    return smooth(fill_untracked(nodes, found, segments), segments), cloth.box


def link_references(references: list[_Reference], main: int) -> list[np.ndarray | None]:
    """Similarities [2, 3] from the pixels of the main reference to those of each; None where none can be trusted.

    The next one to be linked is always the one whose head is nearest to where a linked one has it, since its body is
    then likely to be near as well (Prim's tree).
    """
    links: list[np.ndarray | None] = [None] * len(references)
    if not references[main].usable:
        return links
    links[main] = np.eye(2, 3)
    linked, waiting = [main], [k for k, reference in enumerate(references) if reference.usable and k != main]
    heads = np.stack([reference.head for reference in references])
    apart = np.linalg.norm(heads[:, None] - heads[None], axis=-1).mean(-1)
    while waiting:
        here = min(waiting, key=lambda k: apart[k, linked].min())
        waiting.remove(here)
        for there in sorted(linked, key=lambda k: apart[here, k])[:LINK_TRIES]:
            base = links[there]
            step = best(references[there], references[here])
            if base is None or step is None:
                continue
            link = compose(step, base)
            if plausible(link, references[main], references[here]):
                links[here] = link
                linked.append(here)
                break
    return links


def plausible(matrix: np.ndarray, reference: _Reference, other: _Reference) -> bool:
    """Whether a sitting or standing person's chest could have moved so from one reference to the other.

    Where the head is larger after a cut, so may the chest be: the image was enlarged, or the person came nearer.
    """
    head = similarity(reference.head, other.head)
    scale, roll = np.hypot(matrix[0, 0], matrix[1, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
    zoom = np.hypot(head[0, 0], head[1, 0])
    shift = np.linalg.norm(transform(matrix, reference.centre) - reference.centre) / reference.image.shape[0]
    likely = min(abs(np.log(scale)), abs(np.log(scale / zoom))) < 0.25
    return bool(likely and abs(np.degrees(roll)) < 15 and shift < 0.35)


class _Reference:
    """An image whose clothes are looked for in others."""

    def __init__(self, ctx: StageContext, index: int) -> None:
        self.index = index
        self.image = ctx.person.grey_frame(index)
        height, width = self.image.shape
        self.part = ctx.person.masks(index, (width, height))["clothes"] > CLOTHES
        self.aligner = Aligner(self.image, self.part, "similarity")
        self.centre = self.aligner.centre
        self.usable = bool(self.part.mean() > LEAST_AREA and self.aligner.definite > LEAST_TEXTURE)
        landmarks = ctx.person.landmarks(ctx.frames, mapped=True)
        self.head = np.asarray(landmarks[index, STEADY, :2], np.float64)

    def find(self, image: np.ndarray, before: np.ndarray, head: np.ndarray | None = None) -> Alignment:
        """Find the clothes in an image, from where they were in the frame before.

        Args:
            image: uint8 grey [H, W].
            before: [2, 3], the similarity of the frame before.
            head: [N, 2], where the head is now; given, they may be anywhere: the search also starts from where they
                are in the reference, and from there as far on as the head went.
        """
        if head is None:
            return self.aligner.align(image, before)
        there = transform(similarity(self.head, np.asarray(head, np.float64)), self.centre)
        starts = before, np.eye(2, 3), np.column_stack([np.eye(2), there - self.centre])
        found = [self.aligner.align(image, start) for start in starts]
        good = [alignment for alignment in found if alignment.support >= LEAST_SUPPORT] or found
        return min(good, key=lambda a: mean_difference(self.image, image, a.matrix, self.part))


def best(reference: _Reference, other: _Reference) -> np.ndarray | None:
    """The similarity [2, 3] that makes the clothes of two references most alike, of those found from several starts.

    The head tells roughly where the body went. The result must not turn far, and must make the clothes clearly more
    alike than other places would, which their support and a check in the opposite direction tell.
    """
    head = similarity(reference.head, other.head)
    if np.hypot(head[0, 0], head[1, 0]) > ENLARGED:  # most of these clothes may be outside of the other image
        matrix = best(other, reference)
        return None if matrix is None else invert(matrix)
    shift = np.column_stack([np.eye(2), transform(head, reference.centre) - reference.centre])
    found = [reference.aligner.align(other.image, start) for start in (np.eye(2, 3), shift, head)]
    good = [a.matrix for a in found if a.support >= LINK_SUPPORT and plausible(a.matrix, reference, other)]
    if not good:
        return None
    matrix = min(good, key=lambda m: mean_difference(reference.image, other.image, m, reference.part))
    back = other.aligner.align(reference.image, invert(matrix)).matrix
    astray = np.linalg.norm(transform(compose(back, matrix), reference.centre) - reference.centre)
    return matrix if astray < LINK_ASTRAY * len(reference.image) else None


def measured_gain(ctx: StageContext, reference: _Reference, matrices: np.ndarray, tracked: np.ndarray) -> float:
    """Mean difference of the clothes from the reference before over after alignment, on a few frames."""
    known = np.flatnonzero(tracked)
    some = known[np.linspace(0, len(known) - 1, 24).astype(int)] if len(known) else []
    before, after = [], []
    for index in some:
        image = ctx.person.grey_frame(index)
        before.append(mean_difference(reference.image, image, np.eye(2, 3), reference.part))
        after.append(mean_difference(reference.image, image, matrices[index], reference.part))
    told = np.isfinite(before) & np.isfinite(after)
    return float(np.array(before)[told].mean() / max(np.array(after)[told].mean(), 1e-6)) if told.any() else 1.0


def fill_untracked(matrices: np.ndarray, tracked: np.ndarray, segments: Segments) -> np.ndarray:
    """Interpolate inside segments; a segment without any measurement takes the median motion of the others."""
    result = matrices.copy()
    for start, end in segments:
        known = np.flatnonzero(tracked[start:end]) + start
        if len(known) == 0:
            if tracked.any():
                result[start:end] = np.median(matrices[tracked], 0)
            continue
        flat = matrices[known].reshape(len(known), -1)
        at = np.arange(start, end)
        span = np.stack([np.interp(at, known, v) for v in flat.T], -1)
        result[start:end] = span.reshape(end - start, *matrices.shape[1:])
    return result


def smooth(matrices: np.ndarray, segments: Segments) -> np.ndarray:
    """A light Gaussian over time inside each segment; at half a pixel of noise it costs the motion nothing."""
    from scipy.ndimage import gaussian_filter1d

    result = matrices.copy()
    for start, end in segments:
        result[start:end] = gaussian_filter1d(matrices[start:end], SMOOTH, axis=0, mode="nearest")
    return result
