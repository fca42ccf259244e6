"""A small VRM model to play animations on: the canonical face on a skeleton, with targets for VRM's presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avatar.assets.canonical_face import canonical_face
from avatar.export.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbFile
from avatar.export.vrma import SKELETON
from avatar.motion.arkit import ARKIT

PRESETS = ("aa", "ih", "ou", "ee", "oh", "blink", "blinkLeft", "blinkRight")
LOOKS = ("lookUp", "lookDown", "lookLeft", "lookRight")
METRES = 0.009  # per centimetre; the face is made a little small for the skeleton
UPPER_LID = {"Left": (386, 385, 387, 384, 398, 388, 466), "Right": (159, 158, 160, 161, 173, 157, 246)}
LIPS = [13, 14]


def write_vrm(path: Path) -> None:
    """Write the model, VRM 1.0."""
    vertices, _, triangles = canonical_face()
    vertices = METRES * vertices
    vertices = (vertices - vertices.mean(0) + [0, 0.05, 0.08]).astype("<f4")
    file = GlbFile()
    attributes = {
        "POSITION": file.accessor(vertices, target=ARRAY_BUFFER, limits=True),
        "NORMAL": file.accessor(_normals(vertices, triangles), target=ARRAY_BUFFER),
    }
    targets = [
        {"POSITION": file.accessor(_moved(vertices, name), target=ARRAY_BUFFER, limits=True)} for name in PRESETS
    ]
    indices = file.accessor(triangles.astype("<u4").ravel(), target=ELEMENT_ARRAY_BUFFER)
    nodes, number = _skeleton()
    file.document |= {
        "extensionsUsed": ["VRMC_vrm"], "scene": 0, "scenes": [{"nodes": [0]}], "nodes": nodes,
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.6, 0.5, 1], "metallicFactor": 0},
                       "doubleSided": True}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0, "targets": targets}]}],
        "extensions": {"VRMC_vrm": _description(number, len(nodes) - 1)},
    }  # fmt: skip
    file.write(path)


def _skeleton() -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Nodes of the bones, the face last, and the number of each bone."""
    number = {name: index for index, name in enumerate(SKELETON)}
    nodes: list[dict[str, Any]] = [{"name": name, "translation": list(place)} for name, (_, place) in SKELETON.items()]
    for name, (parent, _) in SKELETON.items():
        if parent:
            nodes[number[parent]].setdefault("children", []).append(number[name])
    nodes[number["head"]].setdefault("children", []).append(len(nodes))
    return [*nodes, {"name": "face", "mesh": 0}], number


def _description(number: dict[str, int], face: int) -> dict[str, Any]:
    preset = {
        name: {"morphTargetBinds": [{"node": face, "index": index, "weight": 1}]} for index, name in enumerate(PRESETS)
    }
    ranges = ("rangeMapHorizontalInner", "rangeMapHorizontalOuter", "rangeMapVerticalDown", "rangeMapVerticalUp")
    return {
        "specVersion": "1.0",
        "meta": {"name": "test", "authors": ["avatar-toolkit"], "licenseUrl": "https://vrm.dev/licenses/1.0/",
                 "avatarPermission": "everyone"},
        "humanoid": {"humanBones": {name: {"node": index} for name, index in number.items()}},
        "lookAt": {"type": "expression", "offsetFromHeadBone": [0, 0.06, 0],
                   **{name: {"inputMaxValue": 90, "outputScale": 1} for name in ranges}},
        "expressions": {"preset": preset | {name: {} for name in LOOKS}, "custom": {name: {} for name in ARKIT}},
    }  # fmt: skip


def _moved(vertices: np.ndarray, name: str) -> np.ndarray:
    """Displacements of an expression: coarse, so that it can be seen which one plays."""
    moved = np.zeros_like(vertices)
    lips = vertices[LIPS].mean(0)
    lower = np.clip((lips[1] - vertices[:, 1]) / 0.03, 0, 1)
    mouth = np.exp(-((vertices[:, :2] - lips[:2]) ** 2).sum(1) / 0.02**2)
    if name in ("aa", "oh"):
        moved[:, 1] -= 0.025 * lower
    if name in ("ou", "oh"):
        moved[:, 0] -= 0.5 * (vertices[:, 0] - lips[0]) * mouth
        moved[:, 2] += 0.01 * mouth
    if name in ("ih", "ee"):
        moved[:, 0] += 0.25 * (vertices[:, 0] - lips[0]) * mouth
        moved[:, 1] -= 0.008 * lower
    for side, lid in UPPER_LID.items():
        if name in ("blink", f"blink{side}"):
            moved[list(lid), 1] -= 0.01
    return moved.astype("<f4")


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], np.cross(b - a, c - a))
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype("<f4")
