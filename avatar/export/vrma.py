"""Export what an avatar does as a VRM animation (.vrma), which any VRM model plays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from avatar import log
from avatar.export.base import ExportSource
from avatar.export.gltf import GlbFile
from avatar.export.motion_files import MotionExporter
from avatar.export.sequence import at_rate
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_quat
from avatar.motion import Motion
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.visemes import VRM_VOWELS, mixture

EXTENSION = "VRMC_vrm_animation"
# The bones that a VRM must have, at rest (arms to the sides): parent, and place in it in metres. The model faces z,
# its left is x, and y is up; so are our head axes with y up.
SKELETON: dict[str, tuple[str, tuple[float, float, float]]] = {
    "hips": ("", (0, 0.95, 0)), "spine": ("hips", (0, 0.1, 0)), "neck": ("spine", (0, 0.4, 0)),
    "head": ("neck", (0, 0.1, 0)),
    "leftUpperArm": ("spine", (0.15, 0.35, 0)), "leftLowerArm": ("leftUpperArm", (0.25, 0, 0)),
    "leftHand": ("leftLowerArm", (0.25, 0, 0)),
    "rightUpperArm": ("spine", (-0.15, 0.35, 0)), "rightLowerArm": ("rightUpperArm", (-0.25, 0, 0)),
    "rightHand": ("rightLowerArm", (-0.25, 0, 0)),
    "leftUpperLeg": ("hips", (0.1, -0.05, 0)), "leftLowerLeg": ("leftUpperLeg", (0, -0.4, 0)),
    "leftFoot": ("leftLowerLeg", (0, -0.4, 0)),
    "rightUpperLeg": ("hips", (-0.1, -0.05, 0)), "rightLowerLeg": ("rightUpperLeg", (0, -0.4, 0)),
    "rightFoot": ("rightLowerLeg", (0, -0.4, 0)),
}  # fmt: skip
NECK_SHARE = 0.4  # of the head's rotation that the neck does
TO_UP = torch.tensor([1.0, -1.0, -1.0])  # from head axes to y up and z out of the face


@dataclass(frozen=True, kw_only=True)
class Vrma(MotionExporter):
    """A VRM animation: head, gaze and face for VRM models (three-vrm, UniVRM, VRoid Hub)."""

    suffixes: ClassVar[tuple[str, ...]] = (".vrma",)

    expressions: Literal["presets", "arkit", "both"] = "presets"
    """Which expressions are animated: VRM's presets, Apple's 52 names, or both. Presets (aa, ih, ou, ee, oh, blinks)
    are in every VRM model. Apple's names are for models with "perfect sync"; with both, such a model moves its mouth
    twice."""

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the file."""
        track = at_rate(source, self.fps)
        presets = preset_expressions(track) if self.expressions != "arkit" else {}
        custom = {}
        if self.expressions != "presets":
            custom = {name: track.arkit[:, i].numpy() for i, name in enumerate(ARKIT)}
        animation_file(track, presets, custom).write(path)
        log.info(
            f"{path}: {len(presets) + len(custom)} expressions, {len(track)} frames at {track.fps:g} per second "
            f"({len(track) / track.fps:.1f} s)."
        )


def preset_expressions(track: Motion) -> dict[str, Float32[np.ndarray, " T"]]:
    """Weights [T] of VRM's presets: five vowels, and blinks of both eyes and of what one eye does alone."""
    arkit = track.arkit.numpy()
    vowels = mixture(arkit, list(VRM_VOWELS.values()))
    left, right = (arkit[:, INDEX[f"eyeBlink{side}"]].clip(0, 1) for side in ("Left", "Right"))
    both = np.minimum(left, right)
    blinks = {"blink": both, "blinkLeft": left - both, "blinkRight": right - both}
    return {name: vowels[:, i] for i, name in enumerate(VRM_VOWELS)} | blinks


def animation_file(track: Motion, presets: Mapping[str, np.ndarray], custom: Mapping[str, np.ndarray]) -> GlbFile:
    """Put a motion into a glTF document with VRMC_vrm_animation.

    Args:
        track: Head and gaze.
        presets, custom: Weights [T] of expressions by their names; each is the x coordinate of a node.
    """
    file = GlbFile()
    nodes: list[dict[str, Any]] = [{"name": name, "translation": list(at)} for name, (_, at) in SKELETON.items()]
    number = {name: index for index, name in enumerate(SKELETON)}
    for name, (parent, _) in SKELETON.items():
        if parent:
            nodes[number[parent]].setdefault("children", []).append(number[name])
    times = file.accessor((np.arange(len(track)) / track.fps).astype("<f4"), limits=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def animate(node: int, path: str, values: np.ndarray) -> None:
        samplers.append({"input": times, "output": file.accessor(values.astype("<f4")), "interpolation": "LINEAR"})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    for bone, share in (("neck", NECK_SHARE), ("head", 1 - NECK_SHARE)):
        animate(number[bone], "rotation", up_quaternions(track.head_rotation * share))
    expressions: dict[str, dict[str, dict[str, int]]] = {}
    for kind, weights in (("preset", presets), ("custom", custom)):
        for name, values in weights.items():
            nodes.append({"name": name})
            expressions.setdefault(kind, {})[name] = {"node": len(nodes) - 1}
            animate(len(nodes) - 1, "translation", np.pad(values.clip(0, 1)[:, None], ((0, 0), (0, 2))))
    nodes.append({"name": "lookAt"})
    animate(len(nodes) - 1, "rotation", gaze_quaternions(track.gaze))
    roots = [i for i, node in enumerate(nodes) if not SKELETON.get(node["name"], ("", ()))[0]]
    file.document |= {
        "extensionsUsed": [EXTENSION], "scene": 0, "scenes": [{"nodes": roots}], "nodes": nodes,
        "animations": [{"name": "avatar", "samplers": samplers, "channels": channels}],
        "extensions": {EXTENSION: {
            "specVersion": "1.0", "humanoid": {"humanBones": {name: {"node": i} for name, i in number.items()}},
            "expressions": expressions,
            "lookAt": {"node": len(nodes) - 1, "offsetFromHeadBone": [0.0, 0.06, 0.0]},
        }},
    }  # fmt: skip
    return file


def up_quaternions(rotation: Float[Tensor, "T 3"]) -> Float32[np.ndarray, "T 4"]:
    """Quaternions xyzw with y up of rotations in head axes, axis-angle [T, 3]; neighbours never have opposite signs."""
    quats = matrix_to_quat(axis_angle_to_matrix(rotation.double() * TO_UP.double())).numpy()[:, [1, 2, 3, 0]]
    turns = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1.0, 1.0)
    return (quats * np.concatenate([[1.0], np.cumprod(turns)])[:, None]).astype(np.float32)


def gaze_quaternions(gaze: Float[Tensor, "T 2"]) -> Float32[np.ndarray, "T 4"]:
    """Quaternions xyzw with y up that turn z to where the eyes look: yaw to the left, then pitch up."""
    yaw, pitch = gaze.double().numpy().T / 2
    return np.stack(
        [-np.cos(yaw) * np.sin(pitch), np.sin(yaw) * np.cos(pitch), np.sin(yaw) * np.sin(pitch),
         np.cos(yaw) * np.cos(pitch)], 1,
    ).astype(np.float32)  # fmt: skip
