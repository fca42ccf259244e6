"""Motion of somebody: from a run, a motion file, ARKit coefficients, or a video."""

from __future__ import annotations

from pathlib import Path

from avatar.motion import Motion
from avatar.motion.statistics import MotionStats


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
    from avatar.preprocess.face_tracker import track_motion

    return track_motion(path)
