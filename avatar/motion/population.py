"""How faces move in general: what stands in for the motion of a person of whom only a photo is known.

``population.safetensors`` holds a basis of landmark displacements, and the mouth of somebody who talks; both are
written by `python -m pipelines.photo_population`, which says from whom. Blinks, gaze and head motion are made here.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.geometry.smoothstep import smooth
from avatar.io.arrays import check_tensors
from avatar.io.checkpoint import load_tensors
from avatar.motion.arkit import MOUTH
from avatar.motion.blinks import EYES, LIDS
from avatar.motion.face_channels import CHANNELS, EYE_LOWER, EYE_UPPER, LIP_CHANNELS, NUM_LANDMARKS, UPPER_CHANNELS
from avatar.motion.motion import Motion

FORMAT = "avatar-population-1"
FILE = Path(__file__).with_name("population.safetensors")
SECONDS = 40.0  # of a stand-in motion
SHUT = 0.95  # share of the eye's opening that a blink closes
NECK = (0.0, 9.0, 7.0)  # centimetres, head axes: the head turns about it
TURNS = (2.0, 3.0, 1.2)  # degrees of pitch, yaw and roll that the head wanders over, to either side
SLOW = 1.6  # seconds in which it does
BROWS = 0.06  # centimetres that they rise and fall
GLANCE = (2.5, 1.5)  # degrees of yaw and pitch that the eyes look beside the camera
BLINK_GAPS = (1.8, 5.5)  # seconds between blinks


@functools.cache
def _stored() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = load_tensors(FILE)
    if metadata.get("format") != FORMAT:
        raise AvatarError(f"{FILE} is of another version of the toolkit.", fix="Install the toolkit again.")
    shapes = {"basis": f"{len(CHANNELS)} {NUM_LANDMARKS * 3}", "face": f"T {len(LIP_CHANNELS)}",
              "arkit": f"T {len(MOUTH)}"}  # fmt: skip
    check_tensors(tensors, FILE, shapes)
    return {name: tensor.float() for name, tensor in tensors.items()}, metadata


def about() -> dict[str, Any]:
    """From whom it was made."""
    return _stored()[1].get("about", {})


def landmark_basis() -> Float[Tensor, "C VD"]:
    """Landmark displacements [38, 478 * 3], head axes, centimetres, for each face channel at 1."""
    return _stored()[0]["basis"]


def talking_mouth(fps: float) -> Motion:
    """Somebody who talks: lips, jaw and cheeks; all else is at rest."""
    stored, metadata = _stored()
    base = Motion.zeros(len(stored["face"]), float(metadata["fps"]))
    face, arkit = base.face.clone(), base.arkit.clone()
    face[:, list(LIP_CHANNELS)], arkit[:, list(MOUTH)] = stored["face"], stored["arkit"].clamp(0, 1)
    return base.map(face=face, arkit=arkit).resample(fps)


def stand_in(shape: np.ndarray, photo: Motion, seed: int = 0, seconds: float = SECONDS) -> Motion:
    """Make a motion for a person of whom one frame is known; everything else takes it for the person's own.

    Args:
        shape: [478, 3] neutral face, head axes, centimetres.
        photo: Motion of that frame.
        seed: Another one, another motion.
        seconds: How long.
    """
    fps = photo.fps
    mouth = talking_mouth(fps)
    count = round(seconds * fps)
    rng = np.random.default_rng(seed)
    track = mouth[torch.arange(count) % len(mouth)]
    upper = list(UPPER_CHANNELS)
    brows = [i for i in upper if i not in LIDS]
    face, arkit = track.face.clone(), track.arkit.clone()
    # The mouth rests as in the photo, less what opened it: those channels are zero there. Brows are as in the photo.
    wander = torch.from_numpy(_wander(count, fps, 1.0, rng)).float() * BROWS
    face[:, brows] = photo.face[0, brows] + wander[:, None]
    closing = torch.from_numpy(_blinks(count, fps, rng)).float()
    for lid, eye, opening in zip(LIDS, EYES, eye_openings(shape), strict=True):
        face[:, lid] = photo.face[0, lid] - closing * SHUT * (opening + photo.face[0, lid])
        arkit[:, eye] = closing
    turn = torch.deg2rad(torch.from_numpy(np.stack([most * _wander(count, fps, SLOW, rng) for most in TURNS], -1)))
    first = axis_angle_to_matrix(photo.head_rotation[0])
    rotation = first @ axis_angle_to_matrix(turn.float())
    neck = torch.tensor(NECK)
    translation = photo.head_translation[0] + (first @ neck) - rotation @ neck
    return track.map(
        face=face, arkit=arkit, head_rotation=matrix_to_axis_angle(rotation), head_translation=translation,
        gaze=_gaze(photo, rotation, translation, rng),
    )  # fmt: skip


def eye_openings(shape: np.ndarray) -> tuple[float, float]:
    """Centimetres between the lids of a face [478, 3], of the person's left and right eye: the order of `LIDS`."""
    left, right = (
        float(shape[list(EYE_LOWER[side]), 1].mean() - shape[list(EYE_UPPER[side]), 1].mean())
        for side in ("left", "right")
    )
    return max(left, 0.0), max(right, 0.0)


def _gaze(photo: Motion, rotation: Tensor, translation: Tensor, rng: np.random.Generator) -> Tensor:
    """Eyes [T, 2] that hold where the photo looks while the head turns, and glance beside it now and then."""
    rotations = torch.cat([axis_angle_to_matrix(photo.head_rotation), rotation])
    places = torch.cat([photo.head_translation, translation])
    to_camera = -(rotations.mT @ places[..., None])[..., 0]
    angles = torch.stack([torch.atan2(to_camera[:, 0], -to_camera[:, 2]),
                          torch.atan2(-to_camera[:, 1], -to_camera[:, 2])], -1)  # fmt: skip
    glances, at, count = np.zeros((len(rotation), 2)), 0, len(rotation)
    while at < count:
        lasts = int(rng.uniform(0.4, 2.2) * photo.fps)
        glances[at : at + lasts] = rng.normal(size=2).clip(-1.5, 1.5) * GLANCE * (rng.random() < 0.5)
        at += lasts
    return photo.gaze + angles[1:] - angles[:1] + torch.deg2rad(torch.from_numpy(glances).float())


def _wander(count: int, fps: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """[count] smooth noise within -1 to 1 that wanders over about ``seconds``."""
    sigma = max(seconds * fps / 2.5, 0.5)
    reach = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    noise = np.convolve(rng.standard_normal(count + 2 * reach), kernel, "valid")
    return np.tanh(noise / (1.5 * np.sqrt((kernel**2).sum())))


def _blinks(count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """[count] how far the lids are closed, 0 to 1; they fall in 80 ms and rise in 160."""
    times, closed, at = np.arange(count) / fps, np.zeros(count), rng.uniform(1.0, 2.5)
    while at < count / fps - 0.5:
        since = times - at
        shape = np.minimum(np.clip(1 + since / 0.08, 0, 1), np.clip(1 - (since - 0.05) / 0.16, 0, 1))
        closed = np.maximum(closed, smooth(shape))
        at += rng.uniform(*BLINK_GAPS)
    return closed
