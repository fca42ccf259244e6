"""Stage: head poses aligned with the look of the whole head, and the Motion from them.

Landmarks read a nod as too small, and as a change of distance instead; see :mod:`avatar.preprocess.head_align`.
The distance that is left is steadied: one camera hardly sees it, and from the side its error moves the whole head.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from avatar import log
from avatar.data.footage import Footage, PreparedFootage, pose_at, small_masks
from avatar.data.person import MOTION
from avatar.data.results import PoseResult, RefineResult, Segments, TrackResult
from avatar.preprocess.bundle import Solution
from avatar.preprocess.face_motion import make_motion
from avatar.preprocess.head_align import Reference, knots, make_reference, moved, spread
from avatar.preprocess.refine import pose_jitter
from avatar.preprocess.stage import StageContext

NAME = "pose"
INPUTS = ("ingest", "track", "refine", "parse")
VERSION = 5
STEADY = 0.6  # seconds over which the distance is averaged (chosen on synthetic subjects, whose distance is known)
NOISE = 0.8  # cm: a distance that differs more from the average is a movement, and stays


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the other stages: which frames are held out."""
    return {"test_start": ctx.test_start}


def run(ctx: StageContext, out: Path) -> PoseResult:
    """Write motion.safetensors; returns how far the poses moved."""
    person = ctx.person
    segments, camera = person.result(TrackResult).segments, person.result(RefineResult).camera
    data = PreparedFootage(person, ctx.test_start)
    tracked = data.motion
    rotation, translation = (part.double().numpy() for part in (tracked.head_rotation, tracked.head_translation))
    change, residual, share = measure(data, segments, make_reference)
    new_rotation, new_translation = moved(rotation, translation, change)
    new_translation = steadied(new_rotation, new_translation, segments, tracked.fps)
    poses = Solution(focal=camera.focal, shape=data.shape, rotation=new_rotation, translation=new_translation)
    motion = make_motion(
        person.landmarks(ctx.frames), tracked.arkit.numpy(), tracked.valid.numpy(), segments, poses,
        data.shape.astype(np.float64), np.array([camera.cx, camera.cy]), tracked.fps,
    )  # fmt: skip
    motion.save(out / MOTION)
    pitch = rotation[:, 0] - rotation[:, 0].mean()
    more = float((pitch * (new_rotation - rotation)[:, 0]).sum() / max((pitch**2).sum(), 1e-12))
    return PoseResult(
        aligned_share=round(share, 4),
        residual_before_px=round(residual[0], 3),
        residual_after_px=round(residual[1], 3),
        pitch_gain=round(1 + more, 3),
        change_deg=np.degrees(change[:, :3].std(0)).round(3).tolist(),
        change_cm=change[:, 3:].std(0).round(3).tolist(),
        jitter_deg=round(pose_jitter(new_rotation, segments), 4),
    )


def steadied(rotation: np.ndarray, translation: np.ndarray, segments: Segments, fps: float) -> np.ndarray:
    """Head translations [T, 3] in cm with a steadier distance; each head stays where it is in the image.

    A head nods about its neck, which brings it nearer: what goes with the rotation [T, 3] stays.
    """
    quick = np.zeros((len(translation), 4))
    for start, end in segments:
        if end > start:
            part = np.column_stack([rotation[start:end], translation[start:end, 2]])
            quick[start:end] = part - gaussian_filter1d(part, STEADY * fps, axis=0, mode="nearest")
    turns, distance = quick[:, :3], quick[:, 3]
    noise = distance - turns @ np.linalg.lstsq(turns, distance, rcond=None)[0]
    noise *= np.exp(-((noise / NOISE) ** 2))
    away = translation[:, 2]
    return translation * np.where(away > 0, 1 - noise / np.where(away > 0, away, 1), 1)[:, None]


def measure(
    data: Footage, segments: Segments, reference_of: Callable[[Footage], Reference | None]
) -> tuple[np.ndarray, tuple[float, float], float]:
    """Changes [T, 6] of all poses in the head's axes; flow left before and after, pixels; share of good alignments."""
    frames = knots(segments, data.motion.valid.numpy())
    total = sum(len(at) for at in frames)
    reference = reference_of(data) if total else None
    if reference is None:
        return np.zeros((len(data.motion), 6)), (0.0, 0.0), 0.0
    changes, kept = [np.zeros((0, 6))] * len(frames), [np.zeros(0, int)] * len(frames)
    lengths: list[tuple[float, float]] = []
    start, before = np.zeros(6), -1
    pairs = [(number, int(index)) for number, at in enumerate(frames) for index in at]
    for number, index in log.track(pairs, "aligning the head", total):
        masks = small_masks(data, index)
        start = start if number == before else np.zeros(6)
        found = reference.align(data.image(index), masks["hair"] + masks["face"], pose_at(data, index), start)
        start, before = found.change if found.good else start / 2, number
        if found.good:
            changes[number] = np.concatenate([changes[number], found.change[None]])
            kept[number] = np.append(kept[number], index)
            lengths.append((found.before, found.after))
    if not lengths:
        return np.zeros((len(data.motion), 6)), (0.0, 0.0), 0.0
    # The face's shape was found with the tracker's poses: on average the poses stay what they were.
    mean = np.concatenate(changes).mean(0)
    left = np.median(lengths, 0)
    all_changes = spread([change - mean for change in changes], kept, segments, len(data.motion))
    return all_changes, (float(left[0]), float(left[1])), len(lengths) / total
