"""First guess of the Gaussians: the tracked face mesh, and a coarse 3-D proxy for all that the mesh does not cover.

One reference frame near the person's mean pose gives all colours. The face is sampled on the mesh and bound to its
triangles. Hair, ears, neck and clothes come from the masks, lifted onto an ellipsoid (head), a cylinder (neck) and a
rounded slab (torso). Training then moves all of it; the proxy only has to be right enough that free view holds.
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
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.mesh import FACE_OVAL, face_triangles
from avatar.motion.face_channels import CHIN, EYE_RIM, IRIS, LIPS_INNER, mouth_opening

# A head in head axes, centimetres: centre and half-axes. The canonical face spans 15.5 x 17.7 cm at its front.
_HEAD_CENTRE = np.array([0.0, -2.5, 4.0])
_HEAD_RADII = np.array([8.6, 12.5, 10.0])
_HEAD_VOTES = 15  # nearest neighbours that vote on whether a Gaussian belongs to the head
_OPENINGS = (LIPS_INNER, *EYE_RIM.values())  # of the mesh; what shows in them has parts of its own
_LEAST_IRIS = 0.3  # centimetres
_IRIS_BEHIND, _WHITE_BEHIND = 0.1, 0.25  # centimetres behind the lids' edges, so that lids close over them


def reference_frame(data: PersonDataset) -> int:
    """The training frame that best shows the person: near the median pose, eyes open, mouth nearly closed."""
    frames = data.train_frames
    motion = data.motion[frames]
    rotation = motion.head_rotation - motion.head_rotation.median(0).values
    translation = motion.head_translation - motion.head_translation.median(0).values
    opening = torch.from_numpy(mouth_opening(np.asarray(data.landmarks[frames])))
    opening = opening / opening.quantile(0.95).clamp_min(1e-3)
    blink = motion.arkit[:, [0, 7]].mean(-1)
    still = torch.cat([torch.zeros(1), (motion.head_rotation[1:] - motion.head_rotation[:-1]).norm(dim=-1)])
    cost = rotation.norm(dim=-1) * 10 + translation.norm(dim=-1) / 3 + opening.abs() + 3 * blink + 20 * still
    return int(frames[cost.argmin()])


def head_weights(gaussians: Gaussians) -> Tensor:
    """[N, 1] 1 for Gaussians most of whose nearest neighbours began as face, mouth or hair, else 0.

    In training some wander over the jaw line; where they are counts for more than where they came from.
    """
    means = gaussians.means.detach().cpu().numpy()
    began = (gaussians.region < REGIONS.index("neck")).cpu().numpy()
    near = np.asarray(KDTree(means).query(means, k=min(_HEAD_VOTES, len(means)))[1]).reshape(len(means), -1)
    return torch.from_numpy(began[near].mean(1) > 0.5).float()[:, None].to(gaussians.means.device)


def seeds(data: PersonDataset, skinning: Skinning, frame: int, count: int, rng: np.random.Generator) -> Seeds:
    """About ``count`` Gaussians that already look like reference frame ``frame``."""
    image = data.image(frame).astype(np.float32) / 255
    masks = data.masks(frame)
    outside = _outside(data, skinning, frame, image, masks, int(count * 0.45), rng)
    parts = [
        _face(data, skinning, frame, image, int(count * 0.37), rng),
        *(_eye(data, skinning, frame, image, side, int(count * 0.015), rng) for side in EYE_RIM),
        _mouth(data, skinning, int(count * 0.06), rng),
        outside,
        _filling(skinning, outside, data.shape[152, 1], int(count * 0.09), rng),
    ]
    return Seeds.cat(parts)


def _face(
    data: PersonDataset, skinning: Skinning, frame: int, image: np.ndarray, count: int, rng: np.random.Generator
) -> Seeds:
    triangles = face_triangles()
    for opening in _OPENINGS:
        triangles = triangles[~np.isin(triangles, opening).all(1)]
    shape = data.shape
    corners = shape[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
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
    density = area * np.where(lips | eyes, 4.0, 1.0)
    picked = rng.choice(len(triangles), count, p=density / density.sum())
    weight = rng.dirichlet((1.0, 1.0, 1.0), count).astype(np.float32)
    index = triangles[picked]
    points = np.einsum("nk,nkd->nd", weight, shape[index])
    pixels = np.einsum("nk,nkd->nd", weight, np.asarray(data.landmarks[frame])[index, :2])
    spacing = np.sqrt(area[picked] / (density[picked] / density.sum() * count))
    return _seeds(
        means=skinning.to_canonical(torch.from_numpy(points).float()),
        sigma=spacing * 0.6,
        colors=_sample(image, pixels),
        opacity=0.8,
        skinning_weight=np.full(count, 0.99),
        region="face",
        bind_index=index,
        bind_weight=weight,
    )


def _eye(
    data: PersonDataset,
    skinning: Skinning,
    frame: int,
    image: np.ndarray,
    side: str,
    count: int,
    rng: np.random.Generator,
) -> Seeds:
    """An iris that turns with the gaze, before the white of the eye, both behind the lids."""
    pixels = np.array(data.landmarks[frame, :, :2])
    points = landmarks_to_head(
        torch.from_numpy(pixels)[None], torch.from_numpy(data.shape), data.motion.head_rotation[frame][None],
        data.motion.head_translation[frame][None], data.camera,
    )[0].numpy()  # fmt: skip
    rim, (centre, *outline) = list(EYE_RIM[side]), IRIS[side]
    radius = max(np.linalg.norm(points[outline, :2] - points[centre, :2], axis=1).mean(), _LEAST_IRIS)
    low, high = points[rim, :2].min(0), points[rim, :2].max(0)
    scale = np.ptp(pixels[rim, 0]) / (high - low)[0]  # pixels per centimetre
    white = rng.uniform(low, high, (count // 2, 2))
    angle, distance = rng.uniform(0, 2 * np.pi, count - len(white)), np.sqrt(rng.uniform(0, 1, count - len(white)))
    iris = points[centre, :2] + 1.05 * radius * distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    opening = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(opening, [np.round(pixels[rim]).astype(np.int32)], 1)
    parts = []
    for where, area, behind, moves in (
        (white, np.prod(high - low), _WHITE_BEHIND, False), (iris, np.pi * radius**2, _IRIS_BEHIND, True)
    ):  # fmt: skip
        at = pixels[centre] + (where - points[centre, :2]) * scale
        colors = _sample(image, at)
        row, column = np.clip(at[:, ::-1].astype(int), 0, np.array(image.shape[:2]) - 1).T
        hidden = opening[row, column] == 0
        if not moves:
            hidden |= np.linalg.norm(where - points[centre, :2], axis=1) < 1.2 * radius
        if hidden.any() and not hidden.all():  # by a lid, or by the iris: like the nearest thing that is seen
            colors[hidden] = colors[~hidden][KDTree(where[~hidden]).query(where[hidden])[1]]
        depth = points[rim, 2].mean() + behind
        parts.append(
            _seeds(
                means=skinning.to_canonical(torch.from_numpy(np.c_[where, np.full(len(where), depth)]).float()),
                sigma=np.full(len(where), 0.7 * np.sqrt(area / len(where))),
                colors=colors,
                opacity=0.98,  # what is behind the iris must not learn to look like it
                skinning_weight=np.full(len(where), 0.99),
                region="face",
                bind_index=np.full((len(where), 3), centre),
                bind_weight=np.full((len(where), 3), 1 / 3 if moves else 0.0, np.float32),
            )
        )
    return Seeds.cat(parts)


def _mouth(data: PersonDataset, skinning: Skinning, count: int, rng: np.random.Generator) -> Seeds:
    """Upper teeth ride the skull, lower teeth and tongue ride the chin, a dark cavity closes the back."""
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
            _seeds(
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


def _outside(
    data: PersonDataset, skinning: Skinning, frame: int, image: np.ndarray, masks: dict[str, np.ndarray], count: int,
    rng: np.random.Generator,
) -> Seeds:  # fmt: skip
    landmarks = np.asarray(data.landmarks[frame])[:, :2]
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(landmarks[list(FACE_OVAL)]).astype(np.int32)], 1)
    labels = {
        "hair": masks["hair"] + masks["face"],
        "neck": masks["neck"],
        "torso": masks["clothes"],
    }
    person = 1 - masks["background"]
    stack = np.stack(list(labels.values()))
    best = stack.argmax(0)
    weight = person * (inside == 0) * (person > 0.4)
    # Half of the points on strong edges and texture, half evenly: shirts and hair need detail where it is.
    grey = cv2.GaussianBlur(image.mean(-1), (0, 0), 1.5)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    edges = edges / max(float(edges[weight > 0].mean()) if (weight > 0).any() else 1.0, 1e-6)
    density = (weight * (0.5 + 0.5 * np.minimum(edges, 4))).ravel()
    if density.sum() <= 0:
        return _empty()
    flat = rng.choice(density.size, count, p=density / density.sum())
    rows, columns = np.divmod(flat, image.shape[1])
    pixels = np.stack([columns, rows], -1) + rng.uniform(0, 1, (count, 2))
    kind = best[rows, columns]

    camera = data.camera
    rays = np.concatenate([(pixels - [camera.cx, camera.cy]) / camera.focal, np.ones((count, 1))], -1)
    rotation = skinning.to_head(torch.zeros(3)), skinning.to_head(torch.eye(3))
    origin = rotation[0].numpy().astype(np.float64)
    directions = rays @ (rotation[1] - rotation[0]).numpy().astype(np.float64)
    chin_y = data.shape[152, 1]
    on_head = _ellipsoid_depth(origin, directions, _HEAD_CENTRE, _HEAD_RADII)
    on_torso = _torso_depth(origin, directions, chin_y)
    depth = np.where(kind == 0, on_head, on_torso)
    points = origin + directions * depth[:, None]
    neck = np.clip((points[:, 1] - (chin_y - 2)) / 9.0, 0, 1)  # 0 at the jaw, 1 at the collar
    share = np.select([kind == 0, kind == 1], [0.99, 0.97 - 0.9 * neck], 0.02)
    # Spacing between neighbours in pixels, from the sampling density.
    local = density[flat] / density.sum() * count
    sigma = 0.6 / np.sqrt(np.maximum(local, 1e-3)) * depth / camera.focal
    # The canonical torso is at rest; in the reference frame it was where its own motion had taken it.
    shown = skinning.to_canonical(torch.from_numpy(points).float())
    torso = data.motion.torso_rotation[frame], data.motion.torso_translation[frame], data.motion.torso_warp[frame]
    rest = skinning.torso_at_rest(shown, *torso)
    result = _seeds(
        means=torch.lerp(rest, shown, torch.from_numpy(share).float()[:, None]),
        sigma=np.clip(sigma, 0.02, 0.8),
        colors=_sample(image, pixels),
        opacity=0.8,
        skinning_weight=share,
        region="hair",
        bind_index=np.zeros((count, 3), np.int64),
        bind_weight=np.zeros((count, 3), np.float32),
    )
    table = torch.tensor([REGIONS.index("hair"), REGIONS.index("neck"), REGIONS.index("torso")], dtype=torch.uint8)
    return result._replace(region=table[torch.from_numpy(kind)])


def _filling(skinning: Skinning, outside: Seeds, chin_y: float, count: int, rng: np.random.Generator) -> Seeds:
    """What the filming camera hardly sees, and free view does: the sides of the head, and the neck under the chin.

    A shell slightly inside the head's proxy and a cylinder inside the neck, coloured like the nearest thing that was
    seen. From the front both stay hidden.
    """
    parts = []
    seen = skinning.to_head(outside.means).numpy()
    region = outside.region.numpy()
    head = rng.normal(size=(4 * count, 3))
    head /= np.linalg.norm(head, axis=1, keepdims=True)
    head = head[(head[:, 2] > -0.45) & (head[:, 1] < 0.35)][: int(count * 0.7)]
    angle, height = rng.uniform(-1.9, 1.9, count - len(head)), rng.uniform(-3, 9, count - len(head))
    neck = np.stack([5.2 * np.sin(angle), chin_y + height, 4.5 - 5.2 * np.cos(angle)], -1)
    for name, points, spacing, pull in (
        ("hair", _HEAD_CENTRE + 0.92 * _HEAD_RADII * head, 0.75, _HEAD_CENTRE),
        ("neck", neck, 0.5, np.array([0.0, chin_y, 4.5])),
    ):
        known = np.flatnonzero(region == REGIONS.index(name))
        if len(known) == 0 or len(points) == 0:
            continue
        toward = lambda x, pull=pull: (x - pull) / np.linalg.norm(x - pull, axis=1, keepdims=True)  # noqa: E731
        nearest = known[KDTree(toward(seen[known])).query(toward(points))[1]]
        share = outside.skinning_weight.numpy()[nearest] if name == "neck" else np.full(len(points), 0.99)
        parts.append(
            _seeds(
                means=skinning.to_canonical(torch.from_numpy(points).float()),
                sigma=np.full(len(points), spacing),
                colors=outside.colors.numpy()[nearest],
                opacity=0.9,
                skinning_weight=share,
                region=name,
                bind_index=np.zeros((len(points), 3), np.int64),
                bind_weight=np.zeros((len(points), 3), np.float32),
            )
        )
    return Seeds.cat(parts) if parts else _empty()


def _ellipsoid_depth(origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Ray parameter of the front hit, or of the closest approach for rays that pass by (the silhouette)."""
    o, d = (origin - centre) / radii, rays / radii
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
    discriminant = np.maximum(b * b - a * c, 0)
    return (-b - np.sqrt(discriminant)) / a


def _torso_depth(origin: np.ndarray, rays: np.ndarray, chin_y: float) -> np.ndarray:
    """Ray parameter on a slab behind the chin that comes forward to the chest and recedes at the shoulders."""
    depth = (1.5 - origin[2]) / rays[:, 2]
    for _ in range(3):
        points = origin + rays * depth[:, None]
        below = np.clip(points[:, 1] - chin_y, 0, 20)
        z = 1.5 - 0.12 * below + 6.0 * np.clip(np.abs(points[:, 0]) / 22, 0, 1.5) ** 2
        depth = (z - origin[2]) / rays[:, 2]
    return depth


def _sample(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear colours [N, 3] at pixels [N, 2] (centres at +0.5)."""
    at = (pixels - 0.5).astype(np.float32)
    return cv2.remap(image, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def _seeds(
    *, means: Tensor, sigma: np.ndarray, colors: np.ndarray, opacity: float, skinning_weight: np.ndarray, region: str,
    bind_index: np.ndarray, bind_weight: np.ndarray,
) -> Seeds:  # fmt: skip
    n = means.shape[0]
    return Seeds(
        means=means,
        scales=torch.from_numpy(np.repeat(sigma[:, None], 3, 1)).float().clamp_min(0.01),
        colors=torch.from_numpy(np.ascontiguousarray(colors)).float(),
        opacities=torch.full((n,), opacity),
        skinning_weight=torch.from_numpy(skinning_weight).float(),
        bind_index=torch.from_numpy(np.ascontiguousarray(bind_index)).long(),
        bind_weight=torch.from_numpy(np.ascontiguousarray(bind_weight)).float(),
        region=torch.full((n,), REGIONS.index(region), dtype=torch.uint8),
    )


def _empty() -> Seeds:
    zeros = np.zeros
    return _seeds(
        means=torch.zeros(0, 3), sigma=zeros(0), colors=zeros((0, 3)), opacity=0.5, skinning_weight=zeros(0),
        region="hair", bind_index=zeros((0, 3), np.int64), bind_weight=zeros((0, 3), np.float32),
    )  # fmt: skip
