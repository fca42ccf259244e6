"""A run whose person is one photo: what it takes from people in general, how far it may turn, and how it says so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.data.photo import KIND, NOD, TILT, TURN
from avatar.data.run import MOTION
from avatar.errors import AvatarError
from avatar.infer.view_cone import GOOD, HeadLimits, Limits, ViewCone
from avatar.methods.options import PHOTO
from avatar.methods.registry import preset
from avatar.motion.population import stand_in

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.methods.base import Method
    from avatar.train.config import TrainConfig

_REACH = 2.0  # of the limits: where the confidence is 0


def require_kind(data: PersonDataset, config: TrainConfig) -> None:
    """Refuse to train a photo like a video, and a video like a photo.

    Raises:
        AvatarError: The quality belongs to the other kind, or the method or an option needs a video.
    """
    if data.info.photo is None:
        if config.quality == PHOTO:
            raise AvatarError(f"{data.folder} was made from a video.", fix=f"Leave out --quality {PHOTO}.")
        return
    if config.quality != PHOTO:
        preset(config.method, PHOTO)  # which a method may lack
        raise AvatarError(f"{data.folder} was made from one photo.", fix=f"Train it with --quality {PHOTO}.")
    for option, value in (("hold-out-yaw", config.hold_out_yaw), ("teacher", config.teacher)):
        if value:
            raise AvatarError(f"--{option} needs a video; {data.folder} was made from one photo.", fix="Leave it out.")


def finish(data: PersonDataset, folder: Path, seed: int) -> dict[str, Any]:
    """Write the motion that stands in for the person's own; return what training.json says about it."""
    assert data.info.photo is not None
    stand_in(data.shape, data.motion, seed).save(folder / MOTION)
    return {"kind": KIND, "photo": asdict(data.info.photo)}


def photo_cone(model: Method, fps: float) -> ViewCone:
    """The directions in which one photo holds: the same for everybody, about the pose that it shows."""
    reference = model.reference_motion(fps)
    across, along = np.array([-_REACH, -1, 0, 1, _REACH]), np.array([-_REACH, -1, 0, 1, _REACH])
    grid = np.clip(1 - (1 - GOOD) * np.hypot(across, along[:, None]), 0, 1)
    views = Limits(TURN, TURN, NOD, NOD)
    return ViewCone(
        azimuths=tuple(across * TURN), elevations=tuple(along * NOD), grid=grid,
        head_rotation=tuple(reference.head_rotation[0].tolist()),
        head_translation=tuple(reference.head_translation[0].tolist()), head=HeadLimits(views, TILT),
    )  # fmt: skip
