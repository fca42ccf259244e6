"""Motion of somebody: from a run, a motion file, ARKit coefficients, or a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avatar import log
from avatar.errors import AvatarError
from avatar.motion import Motion
from avatar.motion.statistics import MotionStats

VIDEO_FRAMES = 30_000  # of landmarks are held in memory
LEAST_SEEN = 0.5  # share of the frames


def is_video(path: Path) -> bool:
    """Whether :func:`read_motion` would track a face to read it."""
    return path.is_file() and path.suffix.lower() not in (".safetensors", ".csv", ".json")


def read_motion(path: Path, person: MotionStats) -> Motion:
    """The motion in a RUN folder, a ``.safetensors``, ``.csv`` or ``.json`` file, or a video, at its own rate.

    Args:
        path: Any of these.
        person: Whose face ARKit coefficients are to move.

    Raises:
        AvatarError: It cannot be read, or shows no face.
    """
    path = Path(path)
    if path.is_dir():
        return Motion.load(path / "motion.safetensors")
    if path.suffix.lower() == ".safetensors":
        return Motion.load(path)
    if path.suffix.lower() in (".csv", ".json"):
        from avatar.motion import arkit_files

        return arkit_files.load(path, person)
    return track_video(path)


def track_video(path: Path) -> Motion:
    """Track the face of a video the short way: landmarks of single pictures, one rigid head, no texture, no torso.

    Raises:
        AvatarError: It is no video, is too long, or shows a face in less than half of its frames.
    """
    from avatar.assets.canonical_face import canonical_face
    from avatar.io.video import read_frames, read_info
    from avatar.preprocess import refine
    from avatar.preprocess.landmarker import Face, Landmarker
    from avatar.preprocess.track import fill_gaps, find_segments, pick_face, picture_change, thumbnail

    info = read_info(path)
    if info.num_frames > VIDEO_FRAMES:
        raise AvatarError(
            f"{path} has {info.num_frames} frames;",
            why=f"at most {VIDEO_FRAMES} can be tracked at once.",
            fix="Cut it into parts.",
        )
    landmarks, arkit, thumbnails = [], [], []
    main: Face | None = None
    with Landmarker() as landmarker:
        for picture in log.track(read_frames(info), f"tracking {path.name}", info.num_frames):
            face = pick_face(main, landmarker.detect(picture))
            if face is not None:
                main = face = landmarker.look_again(picture, face)
            landmarks.append(np.full((478, 3), np.nan, np.float32) if face is None else face.landmarks)
            arkit.append(np.full(52, np.nan, np.float32) if face is None else face.arkit)
            thumbnails.append(thumbnail(picture))
    points, scores = np.stack(landmarks), np.stack(arkit)
    valid = np.isfinite(points[:, 0, 0])
    if valid.mean() < LEAST_SEEN:
        raise AvatarError(f"A face was found in only {valid.mean():.0%} of the frames of {path}.")
    segments = find_segments(picture_change(np.stack(thumbnails)), points)
    points, scores = fill_gaps(points, segments), fill_gaps(scores, segments)
    canonical = refine.canonical_in_head_axes(canonical_face()[0])
    centre = np.array([info.width / 2, info.height / 2])
    fit = refine.fit_head(points, valid, segments, canonical, centre, max(info.width, info.height))
    shape = refine.neutral_shape(points, valid, fit.solution, centre, canonical, fit.points)
    return refine.make_motion(points, scores, valid, segments, fit.solution, shape, centre, float(info.fps))
