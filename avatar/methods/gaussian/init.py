"""First guess of the Gaussians: the tracked face mesh, eyes and mouth, and all around them.

One reference frame near the person's mean pose gives all colours. The face is sampled on the mesh and bound to its
triangles; `avatar.methods.gaussian.surroundings` makes hair, ears, neck and clothes.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from avatar.data import PersonDataset
from avatar.fields.gaussians import REGIONS, Gaussians, Seeds
from avatar.fields.skinning import Skinning
from avatar.geometry.even import candidates, evenly
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.mesh import face_triangles
from avatar.methods.gaussian import photo as generic
from avatar.methods.gaussian.glasses import find_glasses, glasses_seeds, without_glasses
from avatar.methods.gaussian.reference import HEAD, SPREAD, Reference, make_seeds
from avatar.methods.gaussian.surroundings import JAW, surroundings
from avatar.motion.face_channels import CHIN, EYE_RIM, IRIS, LIPS_INNER

_HEAD_VOTES = 15  # nearest neighbours that vote on whether a Gaussian belongs to the head
_OPENINGS = (LIPS_INNER, *EYE_RIM.values())  # of the mesh; what shows in them has parts of its own
_LINING = 0.2  # centimetres behind the skin ...
_WIDEST = 0.8  # ... and of a Gaussian there: few of them must not reach beyond the face
_LEAST_IRIS = 0.3  # centimetres
_IRIS_BEHIND, _WHITE_BEHIND = 0.1, 0.25  # centimetres behind the lids' edges, so that lids close over them


def head_weights(gaussians: Gaussians) -> Tensor:
    """[N, 1] 1 for Gaussians most of whose nearest neighbours began as face, mouth or hair, else 0.

    In training some wander over the jaw line; where they are counts for more than where they came from.
    """
    means = gaussians.means.detach().cpu().numpy()
    began = (gaussians.region < REGIONS.index("neck")).cpu().numpy()
    near = np.asarray(KDTree(means).query(means, k=min(_HEAD_VOTES, len(means)))[1]).reshape(len(means), -1)
    return torch.from_numpy(began[near].mean(1) > 0.5).float()[:, None].to(gaussians.means.device)


def seeds(reference: Reference, count: int, rng: np.random.Generator) -> Seeds:
    """About ``count`` Gaussians that already look like the reference frame."""
    photo, glasses = reference.data.info.photo is not None, find_glasses(reference)
    parts = [
        _face(reference, glasses, int(count * 0.35), rng, photo),
        *(_eye(reference, side, int(count * 0.015), rng) for side in EYE_RIM),
        generic.mouth(reference, rng) if photo else _mouth(reference, int(count * 0.06), rng),
        *surroundings(reference, int(count * 0.56), rng),
        glasses_seeds(reference, glasses, int(count * 0.03), rng),
        _lining(reference, glasses, int(count * (0.08 if photo else 0.04)), rng),
    ]
    return Seeds.cat(parts)


def _lining(reference: Reference, glasses: np.ndarray, count: int, rng: np.random.Generator) -> Seeds:
    """Skin behind the skin: where that has gaps from the side, or stretches, no dark back of the head shines through.

    Cheeks are seen from the front at a grazing angle, where few pixels ask for many Gaussians.
    """
    skin = _face(reference, glasses, count, rng, photo=True)
    # Not at lips and jaw, where it would look out behind the skin.
    edges = np.isin(skin.bind_index.numpy(), (*LIPS_INNER, *JAW)).any(1)
    keep = (skin.region.numpy() == REGIONS.index("face")) & ~edges
    skin = Seeds(*(column[torch.from_numpy(keep)] for column in skin))
    behind = skin.means - _LINING * skin.normal
    wider = (_WIDEST / skin.scales.amax(1, keepdim=True)).clamp(max=1.5)
    return skin._replace(means=behind, scales=wider * skin.scales, opacities=torch.full_like(skin.opacities, 0.98))


def _face(reference: Reference, glasses: np.ndarray, count: int, rng: np.random.Generator, photo: bool) -> Seeds:
    data, skinning = reference.data, reference.skinning
    triangles = face_triangles()
    for opening in _OPENINGS:
        triangles = triangles[~np.isin(triangles, opening).all(1)]
    shape = data.shape
    corners = shape[triangles]
    area = _area(corners)
    # Lips and eyes are small, and what people look at: four times the density.
    centre = corners.mean(1)
    lips = np.linalg.norm(centre - shape[[13, 14]].mean(0), axis=1) < 3.2
    eyes = (
        np.minimum(
            np.linalg.norm(centre - shape[[33, 133]].mean(0), axis=1),
            np.linalg.norm(centre - shape[[263, 362]].mean(0), axis=1),
        )
        < 2.2
    )
    # A lid is several times as large when it is closed, and must still cover the eye.
    shut = generic.shut_eyes(data) if photo else _lifted(reference, blink_frame(data))
    area = np.where(eyes, np.maximum(area, _area(shut[triangles])), area)
    density = area * np.where(lips | eyes, 4.0, 1.0)
    picked = rng.choice(len(triangles), candidates(count), p=density / density.sum())
    weight = rng.dirichlet((1.0, 1.0, 1.0), len(picked)).astype(np.float32)
    chosen = evenly(np.einsum("nk,nkd->nd", weight, shape[triangles[picked]]), count)
    picked, weight = picked[chosen], weight[chosen]
    index = triangles[picked]
    points = np.einsum("nk,nkd->nd", weight, shape[index])
    normals = _face_normals(skinning, corners)[picked]
    looks = generic.better_side(reference, index, normals) if photo else index
    pixels = np.einsum("nk,nkd->nd", weight, np.asarray(data.landmarks[reference.frame])[looks, :2])
    spacing = np.sqrt(area[picked] / (density[picked] / density.sum() * count))
    seeds = make_seeds(
        means=skinning.to_canonical(torch.from_numpy(points).float()),
        sigma=spacing * SPREAD,
        colors=without_glasses(reference, glasses, pixels, reference.colors(pixels, np.full(count, HEAD))),
        opacity=0.8,
        skinning_weight=np.full(count, 0.99),
        region="face",
        bind_index=index,
        bind_weight=weight,
        normals=normals,
    )
    seeds.region[torch.from_numpy(eyes[picked])] = REGIONS.index("lid")
    return seeds


def _area(corners: np.ndarray) -> np.ndarray:
    """Areas [F] of triangles [F, 3, 3]."""
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def _face_normals(skinning: Skinning, corners: np.ndarray) -> np.ndarray:
    """Outward canonical unit normals [F, 3] of triangles [F, 3, 3] of the face mesh, head axes."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normal * (corners.mean(1) - [0, 0, 4.0])).sum(1, keepdims=True)
    normal = normal * np.sign(outward) / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return skinning.directions_to_canonical(torch.from_numpy(normal).float()).numpy()


def _lifted(reference: Reference, frame: int) -> np.ndarray:
    """Landmarks [V, 3] of a frame in head axes, centimetres."""
    data, motion = reference.data, reference.data.motion[frame : frame + 1]
    pixels = torch.from_numpy(np.array(data.landmarks[frame, :, :2]))[None]
    shape = torch.from_numpy(data.shape)
    return landmarks_to_head(pixels, shape, motion.head_rotation, motion.head_translation, data.camera)[0].numpy()


def blink_frame(data: PersonDataset) -> int:
    """The training frame in which the eyes are most closed."""
    frames = data.train_frames
    return int(frames[data.motion[frames].arkit[:, [0, 7]].mean(-1).argmax()])


def _eye(reference: Reference, side: str, count: int, rng: np.random.Generator) -> Seeds:
    """An iris that turns with the gaze, before the white of the eye, both behind the lids."""
    data, skinning, frame = reference.data, reference.skinning, reference.frame
    pixels = np.array(data.landmarks[frame, :, :2])
    points = _lifted(reference, frame)
    rim, (centre, *outline) = list(EYE_RIM[side]), IRIS[side]
    radius = max(np.linalg.norm(points[outline, :2] - points[centre, :2], axis=1).mean(), _LEAST_IRIS)
    low, high = points[rim, :2].min(0), points[rim, :2].max(0)
    scale = np.ptp(pixels[rim, 0]) / (high - low)[0]  # pixels per centimetre
    white = rng.uniform(low, high, (count // 2, 2))
    angle, distance = rng.uniform(0, 2 * np.pi, count - len(white)), np.sqrt(rng.uniform(0, 1, count - len(white)))
    iris = points[centre, :2] + 1.05 * radius * distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    opening = np.zeros(reference.image.shape[:2], np.uint8)
    cv2.fillPoly(opening, [np.round(pixels[rim]).astype(np.int32)], 1)
    parts = []
    for where, area, behind, moves in (
        (white, np.prod(high - low), _WHITE_BEHIND, False), (iris, np.pi * radius**2, _IRIS_BEHIND, True)
    ):  # fmt: skip
        at = pixels[centre] + (where - points[centre, :2]) * scale
        colors = reference.sample(at)
        row, column = np.clip(at[:, ::-1].astype(int), 0, np.array(opening.shape) - 1).T
        hidden = opening[row, column] == 0
        if not moves:
            hidden |= np.linalg.norm(where - points[centre, :2], axis=1) < 1.2 * radius
        if hidden.any() and not hidden.all():  # by a lid, or by the iris: like the nearest thing that is seen
            colors[hidden] = colors[~hidden][KDTree(where[~hidden]).query(where[hidden])[1]]
        depth = points[rim, 2].mean() + behind
        parts.append(
            make_seeds(
                means=skinning.to_canonical(torch.from_numpy(np.c_[where, np.full(len(where), depth)]).float()),
                sigma=np.full(len(where), 0.7 * np.sqrt(area / len(where))),
                colors=colors,
                opacity=0.98,  # what is behind the iris must not learn to look like it
                skinning_weight=np.full(len(where), 0.99),
                region="eye",
                bind_index=np.full((len(where), 3), centre),
                bind_weight=np.full((len(where), 3), 1 / 3 if moves else 0.0, np.float32),
            )
        )
    return Seeds.cat(parts)


def _mouth(reference: Reference, count: int, rng: np.random.Generator) -> Seeds:
    """Upper teeth ride the skull, lower teeth and tongue ride the chin, a dark cavity closes the back."""
    data, skinning = reference.data, reference.skinning
    lips = data.shape[list(LIPS_INNER)]
    left, right = lips[:, 0].min(), lips[:, 0].max()
    middle = data.shape[[13, 14]].mean(0)
    parts = []
    for region, share, y_range, depth, color in (
        ("mouth_upper", 0.35, (-0.7, 0.25), (0.5, 1.0), (0.50, 0.40, 0.38)),
        ("mouth_lower", 0.35, (-0.1, 0.9), (0.5, 1.4), (0.45, 0.30, 0.28)),
        ("mouth_upper", 0.30, (-0.9, 1.6), (2.0, 2.6), (0.18, 0.08, 0.08)),
    ):
        n = max(4, int(count * share))
        points = np.stack([rng.uniform(left, right, n), rng.uniform(*y_range, n), rng.uniform(*depth, n)], -1)
        points[:, 1] += middle[1]
        curve = ((points[:, 0] - middle[0]) / max(right - left, 1e-3) * 2) ** 2  # the dental arch recedes sideways
        points[:, 2] += middle[2] + 1.2 * curve
        chin = np.tile(np.array(CHIN[:3]), (n, 1))
        rides = region == "mouth_lower"
        parts.append(
            make_seeds(
                means=skinning.to_canonical(torch.from_numpy(points).float()),
                sigma=np.full(n, 0.16 if depth[0] < 2 else 0.3),
                colors=np.tile(np.array(color, np.float32), (n, 1)),
                opacity=0.6,
                skinning_weight=np.full(n, 0.99),
                region=region,
                bind_index=chin,
                bind_weight=np.full((n, 3), 0.9 / 3 if rides else 0.0, np.float32),
            )
        )
    return Seeds.cat(parts)
