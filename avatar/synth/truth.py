"""The truth beside a synthetic video: written with it, and read back to draw the same person again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.arrays import save_array
from avatar.motion import Motion
from avatar.paths import read_json, write_json
from avatar.synth.appearance import Appearance
from avatar.synth.shot import Shot
from avatar.synth.subject import TORSO_PIVOT, Subject
from avatar.writing import atomic_file

FILE = "truth.json"
MOTION = "truth.safetensors"
_FIX = "Give the folder that `avatar synth` wrote, or film the subject again."


@dataclass(frozen=True)
class Truth:
    """A synthetic person and what it did in its video.

    Attributes:
        subject: The person.
        motion: Exact, frame by frame.
        camera: The camera that filmed it.
    """

    subject: Subject
    motion: Motion
    camera: Camera

    def shot(self, index: int) -> Shot:
        """Where everything is in a frame of the video."""
        return shot_of(self.motion, index)


def shot_of(motion: Motion, index: int) -> Shot:
    """Pose of a subject by frame ``index`` of a motion: coefficients, gaze, head and torso."""

    def numbers(name: str) -> np.ndarray:
        return getattr(motion, name)[index].double().cpu().numpy()

    head, torso = (
        axis_angle_to_matrix(getattr(motion, f"{n}_rotation")[index].double().cpu()) for n in ("head", "torso")
    )
    return Shot(
        numbers("arkit"), head.numpy(), numbers("head_translation"), numbers("gaze"), torso.numpy(),
        numbers("torso_translation"),
    )  # fmt: skip


def write_truth(folder: Path, truth: Truth, landmarks: np.ndarray, events: dict[str, Any]) -> None:
    """Write ``truth.safetensors``, ``truth.json``, ``shape.npy`` and ``landmarks.npy`` into a folder.

    Args:
        folder: The folder.
        truth: Who was filmed, and what it did.
        landmarks: float32 [T, 478, 2], pixels.
        events: What else truth.json says of the video: phones, blinks, cuts.
    """
    motion, subject, camera = truth.motion, truth.subject, truth.camera
    motion.save(folder / MOTION)
    for name, array in (("shape", subject.shape), ("landmarks", landmarks)):
        with atomic_file(folder / f"{name}.npy") as temporary:
            save_array(temporary, array)
    who = {"seed": subject.seed, **asdict(subject.appearance), "rest": subject.rest.tolist(), "detail": subject.detail}
    write_json(
        folder / FILE,
        {
            "fps": motion.fps,
            "num_frames": len(motion),
            "camera": {k: getattr(camera, k) for k in ("focal", "cx", "cy", "width", "height")},
            "subject": who,
            "torso_pivot": TORSO_PIVOT.tolist(),
            **events,
        },
    )


def read_truth(folder: Path) -> Truth:
    """Read the truth that `avatar synth` wrote.

    Raises:
        AvatarError: The folder holds none, or one that does not say who was filmed.
    """
    path = folder / FILE
    if not path.is_file() or not (folder / MOTION).is_file():
        raise AvatarError(f"{folder} holds no truth of a synthetic subject ({FILE}, {MOTION}).", fix=_FIX)
    values: Any = read_json(path)
    try:
        camera, who = values["camera"], values["subject"]
        look = Appearance(hair=who["hair"], glasses=who["glasses"], collar=who["collar"])
        subject = Subject(int(who["seed"]), np.array(who["rest"], float), float(who["detail"]), look)
        focal, cx, cy = (float(camera[k]) for k in ("focal", "cx", "cy"))
        filmed = Camera.source(focal, cx, cy, int(camera["width"]), int(camera["height"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AvatarError(f"{path} does not say who was filmed:", why=f"{error!r}.", fix=_FIX) from None
    return Truth(subject, Motion.load(folder / MOTION), filmed)
