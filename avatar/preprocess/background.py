"""Stage: the background without the person, and how the camera moved over it.

The plate is the median, over frames spread over the training part, of what is seen beside the person; what is never
seen is filled smoothly from around it. "Static" cameras often are not (operators, stabilisers, a new crop after every
cut), so the background of every frame is first aligned to one reference, and if that explains the differences the
plate is built in steady coordinates, wider than the picture, with the motion stored beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar import log
from avatar.io.arrays import load_array
from avatar.io.images import read_picture
from avatar.preprocess.align import Aligner
from avatar.preprocess.parse import load_masks, read_mask, resize
from avatar.preprocess.stage import StageContext
from avatar.preprocess.track import read_rgb

if TYPE_CHECKING:
    from avatar.cli.prepare import Config

NAME = "background"
INPUTS = ("ingest", "track", "parse")
VERSION = 3

PLATE_FRAMES = 64  # looked at for the plate
PROBE_FRAMES = 32  # looked at to find out whether the background moves
CLEAR = 0.95  # share of background from which a pixel counts as background ...
MARGIN = 0.015  # ... this far, in picture sides, from anything that is not
SEEN = 3  # times that a pixel of the plate must have been seen, at least
MOVES_PX = 1.0  # a background whose pictures lie farther apart than this ...
MOVES_GAIN = 1.4  # ... and become this many times more alike when aligned, moves
SEARCH = 0.08  # of the picture's side: how far off the places are where a search starts
WIDEST = 0.25  # of the picture's side: most by which a moving background makes the plate larger


@dataclass(frozen=True, kw_only=True)
class Background:
    """What is behind the person.

    Attributes:
        plate: uint8 RGB [h, w, 3]; larger than the picture where the background moves.
        warp: float32 [T, 2, 3], pixels of a frame to pixels of the plate (centres at +0.5); None if it does not move.
    """

    plate: np.ndarray
    warp: np.ndarray | None

    def frame(self, index: int, width: int, height: int) -> np.ndarray:
        """The background as frame ``index`` sees it, uint8 RGB [height, width, 3]."""
        if self.warp is None:
            return resize(self.plate, (width, height)) if self.plate.shape[:2] != (height, width) else self.plate
        return warp(self.plate, self.warp[index], (width, height))


def load_background(person: Path) -> Background:
    """The plate of a person and its motion.

    Raises:
        AvatarError: The stage has not run.
    """
    folder = Path(person) / NAME
    moving = (folder / "warp.npy").is_file()
    return Background(
        plate=read_rgb(folder / ("wide.png" if moving else "plate.png")),
        warp=load_array(folder / "warp.npy", "T 2 3") if moving else None,
    )


def options(config: Config) -> dict[str, Any]:
    """What the result depends on, apart from the pictures and masks: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> dict[str, Any]:
    """Write plate.png and coverage.png; where the background moves also wide.png, warp.npy and shift.npy."""
    size = ctx.result("ingest")["size"]
    known = max(1, ctx.test_start)  # the rest is held out from everything that is trained
    always = always_background(ctx, size)
    motion, found = measure_motion(ctx, always)
    warps = motion if motion is not None else np.tile(np.eye(2, 3), (ctx.frames, 1, 1))
    warps, plate_size, offset = enlarge(warps, size)
    frames = np.unique(np.linspace(0, known - 1, PLATE_FRAMES).astype(int))
    plate, seen = build_plate(ctx, frames, warps, plate_size)
    left, top = offset
    central = slice(top, top + size), slice(left, left + size)
    write_rgb(out / "plate.png", plate[central])
    write_grey(out / "coverage.png", seen[central].astype(np.uint8) * 255)
    if motion is not None:
        write_rgb(out / "wide.png", plate)
        np.save(out / "warp.npy", warps.astype(np.float32))
        middle = np.array([size / 2, size / 2])
        # Where the plate's middle is in each frame, less where it is at rest: the plain shift, plate to frame.
        inverse = np.linalg.inv(warps[:, :, :2])
        there = np.einsum("tij,tj->ti", inverse, middle + offset - warps[:, :, 2])
        np.save(out / "shift.npy", (there - middle).astype(np.float32))
        log.info(
            f"The background moves by up to {found['largest_shift_px']:.1f} pixels "
            f"and {found['largest_zoom']:.1%} in scale; the plate follows it."
        )
    return {
        "seen": round(float(seen[central].mean()), 4),
        "moves": motion is not None,
        "plate_frames": len(frames),
    } | found


# --- motion ------------------------------------------------------------------------------------------------------


def always_background(ctx: StageContext, size: int) -> np.ndarray:
    """bool [size, size]: the pixels that the person never covers."""
    import cv2

    keyframes = ctx.result("parse")["keyframes"]
    some = keyframes[:: max(1, len(keyframes) // 150)]
    least = np.min([read_mask(ctx.folder("parse") / "masks" / f"{k:06d}.png")[..., 3] for k in some], 0)
    return shrink(cv2.resize(least, (size, size)) > CLEAR, MARGIN)


def shrink(mask: np.ndarray, share: float) -> np.ndarray:
    """A boolean mask without what lies within ``share`` of its side from its border (but not the picture's)."""
    import cv2

    reach = max(1, round(share * mask.shape[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.erode(mask.astype(np.uint8), disc, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0


def measure_motion(ctx: StageContext, part: np.ndarray) -> tuple[np.ndarray | None, dict[str, Any]]:
    """How the background moves.

    Args:
        ctx: The person.
        part: bool [H, W], pixels that the person never covers.

    Returns:
        [T, 2, 3] similarities, pixels of each frame to steady coordinates, or None if the background stands still or
        shows too little to tell; and what to report.
    """
    middle = ctx.frames // 2
    reference = read_grey(ctx.frame_path(middle))
    aligner = Aligner(reference, part, "similarity")
    still = {"largest_shift_px": 0.0, "largest_zoom": 0.0}
    if part.mean() < 0.05 or aligner.definite <= 0:
        return None, still

    probes = np.unique(np.linspace(0, ctx.frames - 1, PROBE_FRAMES).astype(int))
    found, before, after, apart = {}, [], [], []
    for index in probes:
        picture = read_grey(ctx.frame_path(index))
        found[int(index)] = search(aligner, reference, picture, part, [np.eye(2, 3)])
        before.append(difference(reference, picture, np.eye(2, 3), part))
        after.append(difference(reference, picture, found[int(index)], part))
        apart.append(float(np.linalg.norm(move(found[int(index)], aligner.centre) - aligner.centre)))
    gain = float(np.mean(before) / max(np.mean(after), 1e-6))
    still |= {"alignment_gain": round(gain, 3)}
    if gain < MOVES_GAIN or np.percentile(apart, 90) < MOVES_PX:
        return None, still

    matrices: dict[int, np.ndarray] = {}
    matrix = found[0]
    starts = {start for start, _ in ctx.result("track")["segments"]}
    for index in log.track(ctx.result("parse")["keyframes"], "background"):
        picture = read_grey(ctx.frame_path(index))
        if index in starts:  # after a cut the camera may be anywhere
            nearest = min(found, key=lambda probe: abs(probe - index))
            matrix = search(aligner, reference, picture, part, [matrix, found[nearest], np.eye(2, 3)])
        else:
            matrix = aligner.align(picture, matrix).matrix
        matrices[index] = matrix
    to_frame = fill_between(matrices, ctx.result("track")["segments"], ctx.frames)
    # Steady coordinates are the camera's middle position, not the accidental reference's.
    to_frame = compose(to_frame, invert(middle_matrix(to_frame, aligner.centre)))
    moved = np.linalg.norm(move(to_frame, aligner.centre) - aligner.centre, axis=-1)
    zoom = np.abs(np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0]) - 1)
    still |= {"largest_shift_px": round(float(moved.max()), 2), "largest_zoom": round(float(zoom.max()), 4)}
    return invert(to_frame), still


def search(
    aligner: Aligner, reference: np.ndarray, picture: np.ndarray, part: np.ndarray, starts: list[np.ndarray]
) -> np.ndarray:
    """The best alignment [2, 3] from ``starts`` and from shifts all around the first of them."""
    step = SEARCH * reference.shape[0]
    around = [starts[0] + np.array([[0, 0, x], [0, 0, y]]) * step for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    found = [aligner.align(picture, start).matrix for start in (*starts, *around)]
    return min(found, key=lambda matrix: difference(reference, picture, matrix, part))


def difference(reference: np.ndarray, picture: np.ndarray, matrix: np.ndarray, part: np.ndarray) -> float:
    """Mean absolute difference over ``part`` of the reference, grey levels, after ``matrix`` and any offset.

    Infinite where less than half of the part remains in the picture.
    """
    seen = part & (warp(np.full_like(picture, 255), matrix, picture.shape[::-1], outside=0) == 255)
    if seen.sum() < 0.5 * part.sum():
        return np.inf
    error = (warp(picture, matrix, picture.shape[::-1]).astype(np.float32) - reference)[seen]
    return float(np.abs(error - np.median(error)).mean())


def fill_between(matrices: dict[int, np.ndarray], segments: list[list[int]], count: int) -> np.ndarray:
    """[T, 2, 3] from those at key frames: a median of three against slips, then linear, within each segment."""
    result = np.tile(np.eye(2, 3), (count, 1, 1))
    for start, end in segments:
        known = np.array(sorted(k for k in matrices if start <= k < end))
        values = np.stack([matrices[k] for k in known]).reshape(len(known), 6)
        padded = np.concatenate([values[:1], values, values[-1:]])
        values = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), 0)
        at = np.arange(start, end)
        result[start:end] = np.stack([np.interp(at, known, v) for v in values.T], -1).reshape(-1, 2, 3)
    return result


def middle_matrix(matrices: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] with the median scale, rotation and displacement (of ``centre``) of [T, 2, 3]."""
    a, b = np.median(matrices[:, 0, 0]), np.median(matrices[:, 1, 0])
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, np.median(move(matrices, centre), 0) - linear @ centre])


def move(matrices: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Apply affine [..., 2, 3] to a point [2]."""
    return matrices[..., :2] @ point + matrices[..., 2]


def invert(matrices: np.ndarray) -> np.ndarray:
    """Inverse of affine [..., 2, 3]."""
    inverse = np.linalg.inv(matrices[..., :2])
    return np.concatenate([inverse, -(inverse @ matrices[..., 2:])], -1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """``outer`` after ``inner``, affine [..., 2, 3]."""
    linear = outer[..., :2] @ inner[..., :2]
    return np.concatenate([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def enlarge(warps: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """Shift steady coordinates so that all frames lie on a plate that starts at 0.

    Args:
        warps: [T, 2, 3], pixels of each frame to steady coordinates.
        size: Side of the frames.

    Returns:
        The shifted warps, (width, height) of the plate, and (x, y) of the frame at rest on it.
    """
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    there = np.einsum("tij,nj->tni", warps[:, :, :2], corners) + warps[:, None, :, 2]
    limit = WIDEST * size
    low = np.floor(there.min((0, 1)).clip(-limit, 0)).astype(int)
    high = np.ceil(there.max((0, 1)).clip(size, size + limit) - 1e-6).astype(int)
    shifted = warps.copy()
    shifted[:, :, 2] -= low
    width, height = (high - low).tolist()
    return shifted, (width, height), (-int(low[0]), -int(low[1]))


# --- plate -------------------------------------------------------------------------------------------------------


def build_plate(
    ctx: StageContext, frames: np.ndarray, warps: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The median of what is seen of the background.

    Args:
        ctx: The person.
        frames: Indices of the frames to look at.
        warps: [T, 2, 3], pixels of a frame to pixels of the plate.
        size: (width, height) of the plate.

    Returns:
        The plate, uint8 RGB [h, w, 3], filled everywhere, and where it was seen, bool [h, w].
    """
    width, height = size
    colours = np.empty((len(frames), height, width, 3), np.uint8)
    visible = np.empty((len(frames), height, width), bool)
    for k, index in enumerate(log.track(frames, "plate")):
        picture = read_rgb(ctx.frame_path(index))
        mask = load_masks(ctx.person, int(index), (picture.shape[1], picture.shape[0]))["background"]
        clear = shrink(mask > CLEAR, MARGIN).astype(np.uint8) * 255
        back = invert(warps[index])
        colours[k] = warp(picture, back, size)
        visible[k] = warp(clear, back, size, outside=0) == 255
    return plate_from(colours, visible)


def plate_from(colours: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel the median colour of the frames that see it.

    Args:
        colours: uint8 [K, h, w, 3].
        visible: bool [K, h, w].

    Returns:
        uint8 [h, w, 3] with unseen pixels filled from around them, and bool [h, w] of the seen ones.
    """
    count = visible.sum(0)
    seen = count >= min(SEEN, len(colours))
    plate = np.zeros(colours.shape[1:], np.float32)
    for row in range(colours.shape[1]):  # row by row keeps the memory small
        values = np.where(visible[:, row, :, None], colours[:, row], np.int16(256))
        values.sort(axis=0)  # unseen ones go to the end
        n = np.maximum(count[row], 1)
        low, high = ((n - 1) // 2)[None, :, None], (n // 2)[None, :, None]
        pair = [np.take_along_axis(values, np.broadcast_to(i, (1, *values.shape[1:])), 0)[0] for i in (low, high)]
        plate[row] = (pair[0] + pair[1]) / 2
    plate = fill_unseen(plate, seen)
    return np.round(plate).clip(0, 255).astype(np.uint8), seen


def fill_unseen(plate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fill the unseen pixels smoothly by push-pull: averages of the seen ones on ever coarser grids.

    Args:
        plate: float32 [h, w, 3].
        seen: bool [h, w].

    Returns:
        float32 [h, w, 3], unchanged where seen; grey if nothing was.
    """
    import cv2

    if not seen.any():
        return np.full_like(plate, 128)
    weight = seen.astype(np.float32)
    height, width = seen.shape
    if seen.all() or min(height, width) < 2:
        return np.where(seen[..., None], plate, (plate * weight[..., None]).sum((0, 1)) / weight.sum())
    half = ((width + 1) // 2, (height + 1) // 2)
    small_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    small = cv2.resize(plate * weight[..., None], half, interpolation=cv2.INTER_AREA)
    small = small / np.maximum(small_weight, 1e-6)[..., None]
    filled = fill_unseen(small, small_weight > 1e-6)
    return np.where(seen[..., None], plate, cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR))


# --- pictures ----------------------------------------------------------------------------------------------------


def warp(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int], outside: int | None = None) -> np.ndarray:
    """Sample a picture at ``matrix`` of each pixel.

    Args:
        picture: uint8 [H, W] or [H, W, 3].
        matrix: [2, 3], pixels of the result to pixels of ``picture`` (centres at +0.5).
        size: (width, height) of the result.
        outside: Value beyond the picture's edge; its edge is prolonged if None.
    """
    import cv2

    shifted = np.array(matrix, np.float64)  # cv2 has pixel centres at whole numbers
    shifted[:, 2] += shifted[:, :2] @ np.array([0.5, 0.5]) - 0.5
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, shifted, size, flags=flags, borderMode=border, borderValue=outside or 0)


def read_grey(path: Path) -> np.ndarray:
    """A picture as uint8 grey [H, W].

    Raises:
        AvatarError: It is missing or damaged.
    """
    import cv2

    return read_picture(path, cv2.IMREAD_GRAYSCALE, "Run `avatar prepare --force`.")


def write_rgb(path: Path, picture: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def write_grey(path: Path, picture: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(path), picture)
