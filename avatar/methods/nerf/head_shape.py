"""Where the field can be, in head axes: near the face mesh in all its shapes, near hair and forehead, not in the neck.

It has what a camera in front looks at. Ears and the sides of the head are left to Gaussians: a video from the front
shows them at a grazing angle, and a field would put them where the first of its cells on a ray is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avatar.data import PersonDataset
from avatar.fields.skinning import LandmarkBasis
from avatar.geometry.mesh import FACE_OVAL, face_normals, face_triangles
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.geometry.smoothstep import smooth
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER

if TYPE_CHECKING:
    from avatar.preprocess.sweep import Sweep

CELLS = 96  # of the occupancy grid along each axis
NEAR = 1.2  # centimetres from the first surfaces that the field begins in ...
FAR = 2.5  # ... and that it may grow to
FRONT = 0.35  # outside of the face: a video from the front does not tell a flat face that is nearer from a deep one
HAIR = 0.6  # the same outside of hair and skull, which are measured less well
FACING = 0.5  # cosine between the surface's normal and the way to the camera, from which on it is the field's ...
_WITHIN = 0.8  # ... within this share of the head's width without its ears
_LOW = 2.0  # height in head axes, centimetres, below which hair beside the face is left to Gaussians: it hangs
_TAPER = 1.0  # centimetres from its end, over which it comes as far outside of the surface as it may ...
_LEAST = 0.4  # ... and the share of that at the end
CAVITY = 3.0  # depth of the mouth behind the lips, centimetres
AROUND = 0.03  # of the frame's width: how far beyond the mask of face and hair rays are trained
_MASKS = 48  # of the training frames that the field is carved by ...
_MOST = 0.5  # ... and the share of them in which a place must be in the mask
_SHAPES = 24  # of the training frames, from the least to the most open jaw
_MARGIN = 1.0  # centimetres of the box around them
_EARLOBE = (7.5, 5.2)  # depth and height, centimetres: hair and skin below it are the neck's
_BELOW_CHIN = 0.4  # centimetres: a beard is the head's
FADE = 1.6  # centimetres over which the field fades out below that


@dataclass(frozen=True)
class HeadShape:
    """Cells of a grid over the head.

    Attributes:
        box: [2, 3] its corners, head axes, centimetres.
        first: bool [Z, Y, X] cells that the field begins in.
        hull: bool [Z, Y, X] cells that it may ever reach.
        cavity: bool [Z, Y, X] those in the mouth, which few frames show.
        neck: [3] where it ends; see `neck_plane`.
        sides: [N, 3] points of the head's surface that are not the field's: ears, sides and back.
    """

    box: Float[Tensor, "2 3"]
    first: Bool[Tensor, "Z Y X"]
    hull: Bool[Tensor, "Z Y X"]
    cavity: Bool[Tensor, "Z Y X"]
    neck: Float[Tensor, " 3"]
    sides: Float[Tensor, "N 3"]


def measure_head(data: PersonDataset, frame: int, basis: LandmarkBasis) -> HeadShape:
    """Find where the field of a person can be.

    Args:
        data: The person; training frames only.
        frame: The reference frame.
        basis: Face mesh of any motion.
    """
    from scipy.spatial import KDTree

    from avatar.preprocess.bust import fit_bust  # SciPy too

    neck = neck_plane(data.shape)
    head = fit_bust(data, frame).head
    surface = _joined(_face(data, basis, head), _skull(head, data.shape))
    surface = surface.where(_in_head(surface.points, neck))
    own = surface.points[surface.own]
    low, high = own.min(0) - NEAR - _MARGIN, own.max(0) + NEAR + _MARGIN
    centres = cell_centres(torch.from_numpy(np.stack([low, high])).float()).numpy()
    cavity = _in_cavity(centres, data.shape)
    # What costs most is asked about the fewest cells.
    allowed = _in_head(centres, neck) & (centres[:, 2] < high[2] - _MARGIN)
    allowed[allowed] = _in_masks(centres[allowed], data)
    away, tree = np.full(len(centres), np.inf), KDTree(surface.points)
    for cells, reach in ((allowed & ~cavity, FAR), (allowed & cavity, np.inf)):  # nothing is asked of what is farther
        distance, nearest = tree.query(centres[cells], distance_upper_bound=reach)
        found, at = np.isfinite(distance), np.minimum(nearest, len(surface.points) - 1)
        outside = ((centres[cells] - surface.points[at]) * surface.normals[at]).sum(-1)
        away[cells] = np.where(found & surface.own[at] & (outside < surface.outside[at]), distance, np.inf)
    grid = (CELLS,) * 3
    near, far = ((away < reach) | (cavity & np.isfinite(away)) for reach in (NEAR, FAR))
    return HeadShape(
        torch.from_numpy(np.stack([low, high])).float(),
        torch.from_numpy(near).view(grid),
        torch.from_numpy(far).view(grid),
        torch.from_numpy(cavity & far).view(grid),
        neck,
        torch.from_numpy(surface.points[~surface.own]).float(),
    )


@dataclass(frozen=True)
class _Surface:
    """Points of the head's surface.

    Attributes:
        points, normals: [N, 3] places and outward unit normals, head axes, centimetres.
        outside: [N] how far outside of it the field may be; negative where it is not the field's.
    """

    points: np.ndarray
    normals: np.ndarray
    outside: np.ndarray

    def where(self, kept: np.ndarray) -> _Surface:
        return _Surface(self.points[kept], self.normals[kept], self.outside[kept])

    @property
    def own(self) -> np.ndarray:
        """[N] whether it is the field's."""
        return self.outside >= 0


def _joined(*parts: _Surface) -> _Surface:
    columns = zip(*((p.points, p.normals, p.outside) for p in parts), strict=True)
    return _Surface(*map(np.concatenate, columns))


def _reach(head: Sweep, points: np.ndarray, most: float) -> np.ndarray:
    """How far outside of the surface in points [N, 3] the field may be, -1 where it may not.

    Less towards its end, so that no edge stands out.
    """
    left, right, centre = (np.interp(points[:, 1], head.y, side) for side in (*head.bare_sides(), head.centre))
    across = np.abs(points[:, 0] - centre)
    within = _WITHIN * np.where(points[:, 0] > centre, left, right) - across
    return np.where(within > 0, most * np.clip(within / _TAPER, _LEAST, 1), -1.0)


def neck_plane(shape: np.ndarray) -> Float[Tensor, " 3"]:
    """Where the neck begins, below the chin and the earlobes of a neutral face [478, 3].

    Returns:
        [3] height at the chin, the chin's depth, and the slope of the height over the depth behind it; head axes,
        centimetres.
    """
    chin = shape[152]
    depth, height = _EARLOBE
    low = float(chin[1]) + _BELOW_CHIN
    return torch.tensor([low, float(chin[2]), (height - low) / (depth - float(chin[2]))])


def below_neck(points: Float[Tensor, "N 3"], neck: Float[Tensor, " 3"]) -> Float[Tensor, " N"]:
    """How far points lie below where the neck begins, along the height, centimetres; ``neck`` as from `neck_plane`."""
    return points[:, 1] - neck[0] - neck[2] * (points[:, 2] - neck[1]).clamp(min=0)


def neck_fade(points: Float[Tensor, "N 3"], neck: Float[Tensor, " 3"]) -> Float[Tensor, " N"]:
    """Share of the head in points: 1 above the neck, 0 where the neck moves on its own."""
    return 1 - smooth((below_neck(points, neck) / FADE).clamp(0, 1))


def cell_centres(box: Float[Tensor, "2 3"]) -> Float[Tensor, "N 3"]:
    """Centres of the grid's cells, x fastest."""
    axes = [torch.linspace(0.5 / CELLS, 1 - 0.5 / CELLS, CELLS, device=box.device)] * 3
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return box[0] + torch.stack([x, y, z], -1).view(-1, 3) * (box[1] - box[0])


def _in_head(points: np.ndarray, neck: Tensor) -> np.ndarray:
    """Whether points lie above where the field has faded out."""
    return (below_neck(torch.from_numpy(points).float(), neck) < FADE).numpy()


def _face(data: PersonDataset, basis: LandmarkBasis, head: Sweep) -> _Surface:
    """Vertices and centres of triangles of the face mesh in training frames, head axes."""
    motion, train = data.motion, data.train_frames
    jaw = motion.face[train, CHANNEL_INDEX["jaw_y"]].numpy()
    order = train[np.argsort(jaw)]
    chosen = order[np.linspace(0, len(order) - 1, min(_SHAPES, len(order))).astype(int)]
    triangles = face_triangles()
    points, normals = [], []
    for index in chosen.tolist():
        mesh = (data.shape + basis(motion.face[index], motion.gaze[index]).numpy())[:468]
        points += [mesh, mesh[triangles].mean(1)]
        outward = face_normals(mesh)
        normals += [outward, _unit(outward[triangles].sum(1))]
    # What is the field's follows from the neutral face: it is the same whatever the mouth does.
    neutral = data.shape[:468]
    reach = _reach(head, np.concatenate([neutral, neutral[triangles].mean(1)]), FRONT)
    return _Surface(np.concatenate(points), np.concatenate(normals), np.tile(reach, len(chosen)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _skull(head: Sweep, shape: np.ndarray) -> _Surface:
    """Points on hair, ears and skull, without what would lie before the face."""
    y, angle = np.meshgrid(
        np.arange(head.y[0], head.y[-1], 0.4), np.linspace(-np.pi, np.pi, 120, endpoint=False), indexing="ij"
    )
    y, angle = y.ravel(), angle.ravel()
    points, normals = head.points(y, angle), head.normals(y, angle)
    kept = ~((np.abs(angle) < np.pi / 2) & _in_oval(points, shape))
    outside = np.where((-normals[:, 2] > FACING) & (points[:, 1] < _LOW), _reach(head, points, HAIR), -1.0)
    return _Surface(points, normals, outside).where(kept)


def _in_oval(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Whether points lie behind or before the face, seen from the front."""
    import cv2

    oval = shape[list(FACE_OVAL), :2].astype(np.float32)
    return np.array([cv2.pointPolygonTest(oval, (float(x), float(y)), False) >= 0 for x, y in points[:, :2]])


def _in_masks(points: np.ndarray, data: PersonDataset) -> np.ndarray:
    """Whether points [N, 3] show in or near the mask of face and hair in most training frames.

    No ray is trained farther away, so what the field held there would stay.
    """
    import cv2

    train, camera = data.train_frames, data.camera
    frames = train[np.linspace(0, len(train) - 1, min(_MASKS, len(train))).astype(int)]
    reach = 2 * round(AROUND * data.width) + 1
    inside, shown = np.zeros(len(points)), np.zeros(len(points))
    places = torch.from_numpy(points).float()
    for index in frames.tolist():
        masks = data.masks(index)
        head = cv2.dilate((masks["face"] + masks["hair"] > 0.5).astype(np.uint8), np.ones((reach, reach), np.uint8))
        turn = axis_angle_to_matrix(data.motion.head_rotation[index])
        x, y, z = (places @ turn.T + data.motion.head_translation[index]).unbind(-1)
        column = (x / z * camera.focal + camera.cx).floor().long().numpy()
        row = (y / z * camera.focal + camera.cy).floor().long().numpy()
        there = (column >= 0) & (column < data.width) & (row >= 0) & (row < data.height)
        shown += there
        inside[there] += head[row[there], column[there]]
    return inside >= _MOST * shown


def _in_cavity(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Whether points lie in the mouth, behind the lips."""
    lips = shape[list(LIPS_INNER)]
    middle, half = lips.mean(0), np.ptp(lips[:, 0]) / 2
    x, y, z = (points - middle).T
    return (np.abs(x) < half) & (y > -1.2) & (y < 2.2) & (z > -NEAR) & (z < CAVITY + 1.2 * (x / half) ** 2)
