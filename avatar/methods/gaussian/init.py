"""First guess of the Gaussians: the tracked face mesh, and a coarse 3-D proxy for all that the mesh does not cover.

One reference frame near the person's mean pose gives all colours. The face is sampled on the mesh and bound to its
triangles. Hair, ears, neck and clothes come from the masks, lifted onto the surfaces of `avatar.preprocess.bust`.
What the reference frame does not show of these surfaces (sides, back, under the jaw, below the picture) is there as
well, in the colours of the nearest place that is seen.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree
from torch import Tensor

from avatar.data import PersonDataset
from avatar.fields.gaussians import REGIONS, Gaussians, Seeds
from avatar.fields.skinning import Skinning
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.mesh import FACE_OVAL, face_triangles
from avatar.motion.face_channels import CHIN, EYE_RIM, IRIS, LIPS_INNER, mouth_opening
from avatar.preprocess.bust import Bust, Sweep, fit_bust
from avatar.preprocess.parallax import measure_depth

_HEAD_VOTES = 15  # nearest neighbours that vote on whether a Gaussian belongs to the head
_OPENINGS = (LIPS_INNER, *EYE_RIM.values())  # of the mesh; what shows in them has parts of its own
_LEAST_IRIS = 0.3  # centimetres
_FLAT = 0.3  # thickness of a Gaussian on a surface, of its width
_SURE = 0.97  # share of a part from which a pixel shows nothing else
_EDGE = 0.012  # of the image's width: how far inside the outline colours are the person's alone
_BEHIND_EAR, _EARLOBE = 1.75, 5.0  # radians around the head, and its height: behind and above it is hair
_HAIR = 0.1  # share of the head beside the face that is hair, where a person has some
_OUTLINE = 1.25  # angle around the head, in radians, up to which a surface is seen well from the front
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
    bust = fit_bust(data, frame)
    deeper = _measured(data, skinning, bust, frame, masks)
    outside = _outside(data, skinning, bust, deeper, frame, image, masks, int(count * 0.40), rng)
    parts = [
        _face(data, skinning, frame, image, int(count * 0.35), rng),
        *(_eye(data, skinning, frame, image, side, int(count * 0.015), rng) for side in EYE_RIM),
        _mouth(data, skinning, int(count * 0.06), rng),
        outside,
        _under_jaw(data, skinning, frame, outside, int(count * 0.015), rng),
        _hidden(data, skinning, bust, deeper, frame, outside, masks, int(count * 0.16), rng),
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
        normals=_face_normals(skinning, corners)[picked],
    )


def _face_normals(skinning: Skinning, corners: np.ndarray) -> np.ndarray:
    """Outward canonical unit normals [F, 3] of triangles [F, 3, 3] of the face mesh, head axes."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normal * (corners.mean(1) - [0, 0, 4.0])).sum(1, keepdims=True)
    normal = normal * np.sign(outward) / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    turned = skinning.to_canonical(torch.from_numpy(normal).float()) - skinning.to_canonical(torch.zeros(3))
    return turned.numpy()


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
    data: PersonDataset, skinning: Skinning, bust: Bust, deeper: np.ndarray, frame: int, image: np.ndarray,
    masks: dict[str, np.ndarray], count: int, rng: np.random.Generator,
) -> Seeds:  # fmt: skip
    """What the reference frame shows beside the face: pixels lifted onto the surfaces."""
    inside = _inside_face(data, frame)
    best = _kinds(masks)
    person = 1 - masks["background"]
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
    canonical, normals = np.zeros((count, 3)), np.zeros((count, 3))
    for part, sweep in enumerate((bust.head, bust.neck, bust.torso)):
        chosen = kind == part
        frame_axes = _axes(skinning, part)
        points, normal = _meet(sweep, frame_axes, rays[chosen])
        canonical[chosen], normals[chosen] = points, normal
    # The filming camera is the origin: along its ray a place keeps its pixel.
    canonical *= 1 + (np.where(kind == 0, deeper[rows, columns], 0) / canonical[:, 2])[:, None]
    depth = canonical[:, 2]
    head = skinning.to_head(torch.from_numpy(canonical).float()).numpy()
    chin_y = data.shape[152, 1]
    neck = np.clip((head[:, 1] - (chin_y - 2)) / 9.0, 0, 1)  # 0 at the jaw, 1 at the collar
    share = np.select([kind == 0, kind == 1], [0.99, 0.97 - 0.9 * neck], 0.02)
    # Spacing between neighbours in pixels, from the sampling density.
    local = density[flat] / density.sum() * count
    sigma = 0.6 / np.sqrt(np.maximum(local, 1e-3)) * depth / camera.focal
    return _on_surface(
        data, skinning, frame, means=canonical, normals=normals, sigma=np.clip(sigma, 0.02, 0.8),
        colors=_sure_colors(image, masks, pixels, kind), opacity=0.8, share=share, kind=kind,
    )  # fmt: skip


def _measured(
    data: PersonDataset, skinning: Skinning, bust: Bust, frame: int, masks: dict[str, np.ndarray]
) -> np.ndarray:
    """Centimetres [H, W] by which the head beside the face is deeper than the first guess; the nearest beside it."""
    guess = head_depth(data, skinning, bust, frame, masks)
    around = np.isfinite(guess) & (_inside_face(data, frame) == 0)
    if not around.any():
        return np.zeros(guess.shape)
    change = measure_depth(data, frame, guess).change
    row, column = distance_transform_edt(~around, return_distances=False, return_indices=True)
    return change[row, column]


def _inside_face(data: PersonDataset, frame: int) -> np.ndarray:
    """[H, W] 1 within the outline of the face mesh."""
    inside = np.zeros((data.height, data.width), np.uint8)
    outline = np.asarray(data.landmarks[frame])[list(FACE_OVAL), :2]
    cv2.fillPoly(inside, [np.round(outline).astype(np.int32)], 1)
    return inside


def head_depth(
    data: PersonDataset, skinning: Skinning, bust: Bust, frame: int, masks: dict[str, np.ndarray]
) -> np.ndarray:
    """Depth [H, W] of the face mesh and of the head around it in the reference frame; NaN where no head is."""
    height, width = data.height, data.width
    shape = torch.from_numpy(data.shape[:468])
    mesh = skinning.to_canonical(shape).numpy()  # canonical space is the world of this frame
    camera = data.camera
    pixels = mesh[:, :2] / mesh[:, 2:] * camera.focal + (camera.cx, camera.cy)
    y, x = np.mgrid[:height, :width] + 0.5
    depth = np.asarray(LinearNDInterpolator(pixels, mesh[:, 2])(x, y))
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.round(pixels[list(FACE_OVAL)]).astype(np.int32)], 1)
    depth[inside == 0] = np.nan
    around = (inside == 0) & (masks["background"] < 0.5) & (_kinds(masks) == 0)
    row, column = np.nonzero(around)
    pixel = np.stack([column, row], -1) + 0.5
    rays = np.concatenate([(pixel - [camera.cx, camera.cy]) / camera.focal, np.ones((len(pixel), 1))], -1)
    points, _ = _meet(bust.head, _axes(skinning, 0), rays)
    depth[row, column] = points[:, 2]
    return depth


def _sure_colors(image: np.ndarray, masks: dict[str, np.ndarray], pixels: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Colours [N, 3] at pixels, or of the nearest pixel that surely shows the same: outlines are mixed with others."""
    colors = _sample(image, pixels)
    column, row = np.clip(pixels.astype(int), 0, np.array(image.shape[1::-1]) - 1).T
    parts = (masks["hair"] + masks["face"], masks["neck"], masks["clothes"])
    inner = distance_transform_edt(masks["background"] < 0.5) > _EDGE * image.shape[1]
    for part, mask in enumerate(parts):
        sure = (mask > _SURE) & inner
        chosen = (kind == part) & ~sure[row, column]
        if sure.any() and chosen.any():
            nearest = distance_transform_edt(~sure, return_distances=False, return_indices=True)
            y, x = nearest[:, row[chosen], column[chosen]]
            colors[chosen] = image[y, x]
    return colors


def _kinds(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Per pixel what it shows: 0 hair or skin of the head, 1 neck, 2 clothes."""
    return np.stack([masks["hair"] + masks["face"], masks["neck"], masks["clothes"]]).argmax(0)


def _axes(skinning: Skinning, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and origin [3] of a part's axes in canonical space: the head's, or upright below it."""
    origin = skinning.to_canonical(torch.zeros(3)).numpy().astype(np.float64)
    if part > 0:
        return np.eye(3), origin
    return (skinning.to_canonical(torch.eye(3)) - torch.from_numpy(origin).float()).numpy().T.astype(float), origin


def _meet(sweep: Sweep, axes: tuple[np.ndarray, np.ndarray], rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays from the filming camera meet the front of a surface: canonical points and normals, [N, 3]."""
    rotation, origin = axes
    start, along = -origin @ rotation, rays @ rotation
    depth = np.full(len(rays), origin[2])
    for _ in range(6):
        local = start + along * depth[:, None]
        gap = sweep.front_depth(local[:, 0], local[:, 1]) - local[:, 2]
        depth = depth + 0.8 * gap / along[:, 2]
    local = start + along * depth[:, None]
    normal = sweep.normals(local[:, 1], sweep.angle(local[:, 0], local[:, 1]))
    return local @ rotation.T + origin, normal @ rotation.T


def _on_surface(
    data: PersonDataset, skinning: Skinning, frame: int, *, means: np.ndarray, normals: np.ndarray, sigma: np.ndarray,
    colors: np.ndarray, opacity: float, share: np.ndarray, kind: np.ndarray,
) -> Seeds:  # fmt: skip
    """Seeds of hair, neck and torso that were placed as the reference frame shows them."""
    # The canonical torso is at rest; in the reference frame it was where its own motion had taken it.
    shown = torch.from_numpy(means).float()
    torso = data.motion.torso_rotation[frame], data.motion.torso_translation[frame], data.motion.torso_warp[frame]
    rest = skinning.torso_at_rest(shown, *torso)
    count = len(means)
    result = _seeds(
        means=torch.lerp(rest, shown, torch.from_numpy(share).float()[:, None]),
        sigma=sigma,
        colors=colors,
        opacity=opacity,
        skinning_weight=share,
        region="hair",
        bind_index=np.zeros((count, 3), np.int64),
        bind_weight=np.zeros((count, 3), np.float32),
        normals=normals,
    )
    table = torch.tensor([REGIONS.index("hair"), REGIONS.index("neck"), REGIONS.index("torso")], dtype=torch.uint8)
    return result._replace(region=table[torch.from_numpy(kind)])


def _hidden(
    data: PersonDataset, skinning: Skinning, bust: Bust, deeper: np.ndarray, frame: int, seen: Seeds,
    masks: dict[str, np.ndarray], count: int, rng: np.random.Generator,
) -> Seeds:  # fmt: skip
    """What the reference frame does not show of the surfaces: sides, back, below the picture."""
    kinds = np.where(masks["background"] > 0.5, -1, _kinds(masks))
    hairy = _is_hair(data, skinning, frame, seen, masks)
    chin_y = float(data.shape[152, 1])
    parts = []
    for part, (sweep, some, around) in enumerate(
        ((bust.head, 0.52, 2.9), (bust.neck, 0.12, 2.4), (bust.torso, 0.36, 2.3))
    ):
        rotation, origin = _axes(skinning, part)

        def keep(y, angle, points, normals, part=part, around=around, rotation=rotation, origin=origin):
            world = points @ rotation.T + origin
            pixel = world[:, :2] / world[:, 2:] * data.camera.focal + (data.camera.cx, data.camera.cy)
            column, row = np.floor(pixel).astype(int).T
            within = (column >= 0) & (column < data.width) & (row >= 0) & (row < data.height)
            shows = np.full(len(y), -2)
            shows[within] = kinds[row[within], column[within]]
            facing = -(normals @ rotation.T * world).sum(1) / np.linalg.norm(world, axis=1)
            grazing = facing < 0.3
            if part == 0:
                side = np.where(angle > 0, *bust.hair_below)
                hangs = (y < np.maximum(side, 6.5)) | ((np.abs(angle) > 1.6) & (y < max(bust.hair_below)))
                return (grazing & hangs & (np.abs(angle) > 0.9)).astype(float)
            hidden = grazing | (~within if part == 2 else shows != 1)
            return (hidden & (np.abs(angle) < around)).astype(float)

        y, angle, points, area = sweep.sample(int(count * some), rng, keep)
        region = REGIONS.index(("hair", "neck", "torso")[part])
        known = np.flatnonzero((seen.region == region).numpy())
        if len(known) == 0 or len(points) == 0:
            continue
        local = (seen.means[known].numpy() - origin) @ rotation
        colors = seen.colors.numpy()[known]
        place = np.stack([local[:, 1], 9 * sweep.angle(local[:, 0], local[:, 1])], -1)
        # Beyond the outline the surface looks like its mirror image before it.
        turn = np.abs(angle)
        mirrored = np.where(turn > _OUTLINE, np.maximum(2 * _OUTLINE - turn, 0.7), turn) * np.sign(angle)
        near = min(max(len(place) // 20, 1) if part == 2 else 3, len(place))  # clothes go on plainly; strands of hair keep their texture
        wanted = np.stack([y, 9 * mirrored], -1)
        nearest = KDTree(place).query(wanted, k=[*range(1, near + 1)])[1]
        strands = np.flatnonzero(hairy[known])
        if part == 0 and len(strands) > _HAIR * len(known):
            behind = (np.abs(angle) > _BEHIND_EAR) & (y < _EARLOBE)
            nearest[behind] = strands[KDTree(place[strands]).query(wanted[behind], k=[*range(1, near + 1)])[1]]
        world = points @ rotation.T + origin
        if part == 0:  # joins the measured front, and is the guess at the back
            world[:, 2] += _nearest(deeper, data, world) * np.clip((2.3 - np.abs(angle)) / 1.0, 0, 1)
        neck = np.clip((y - (chin_y - 2)) / 9.0, 0, 1)
        share = np.full(len(y), 0.99) if part == 0 else 0.97 - 0.9 * neck if part == 1 else np.full(len(y), 0.02)
        parts.append(
            _on_surface(
                data, skinning, frame, means=world, normals=sweep.normals(y, angle) @ rotation.T,
                sigma=np.full(len(y), 0.65 * np.sqrt(area)), colors=colors[nearest].mean(1), opacity=0.97, share=share,
                kind=np.full(len(y), part),
            )  # fmt: skip
        )
    return Seeds.cat(parts) if parts else _empty()


def _nearest(values: np.ndarray, data: PersonDataset, world: np.ndarray) -> np.ndarray:
    """Values [N] of an image at the pixels nearest to canonical points [N, 3]."""
    pixel = world[:, :2] / world[:, 2:] * data.camera.focal + (data.camera.cx, data.camera.cy)
    column, row = np.clip(pixel.astype(int), 0, np.array(values.shape[::-1]) - 1).T
    return values[row, column]


def _is_hair(
    data: PersonDataset, skinning: Skinning, frame: int, seen: Seeds, masks: dict[str, np.ndarray]
) -> np.ndarray:
    """[N] whether the reference frame shows hair where each of ``seen`` is, rather than skin."""
    means = seen.means.numpy()
    column, row = (means[:, :2] / means[:, 2:] * data.camera.focal + (data.camera.cx, data.camera.cy)).T.astype(int)
    within = (column >= 0) & (column < data.width) & (row >= 0) & (row < data.height)
    result = np.zeros(len(means), bool)
    result[within] = masks["hair"][row[within], column[within]] > 0.7
    return result


def _under_jaw(
    data: PersonDataset, skinning: Skinning, frame: int, seen: Seeds, count: int, rng: np.random.Generator
) -> Seeds:
    """The floor of the mouth: from the jaw line back to the neck, coloured like the neck."""
    known = np.flatnonzero((seen.region == REGIONS.index("neck")).numpy())
    if len(known) == 0:
        return _empty()
    border = np.array(FACE_OVAL[10:27])
    position, depth = rng.uniform(0, len(border) - 1.001, count), rng.uniform(0, 1, count)
    index = position.astype(int)
    mix = (position - index)[:, None]
    shape = data.shape.astype(float)
    rim = shape[border[index]] * (1 - mix) + shape[border[index + 1]] * mix
    deep = np.stack([rim[:, 0] * 0.7, rim[:, 1] - 1.0, np.full(count, 4.5)], -1)
    points = rim + (deep - rim) * depth[:, None]
    across = shape[border[index + 1]] - shape[border[index]]
    normal = np.cross(across, deep - rim)
    normal *= np.sign((normal * (points - [0, 3.0, 1.0])).sum(1, keepdims=True))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    canonical = skinning.to_canonical(torch.from_numpy(points).float())
    turned = (skinning.to_canonical(torch.from_numpy(normal).float()) - skinning.to_canonical(torch.zeros(3))).numpy()
    nearest = known[KDTree(seen.means[known].numpy()).query(canonical.numpy())[1]]
    return _seeds(
        means=canonical,
        sigma=np.full(count, 0.35),
        colors=seen.colors.numpy()[nearest],
        opacity=0.9,
        skinning_weight=np.full(count, 0.99),
        region="face",
        bind_index=border[np.stack([index, index + 1, index], -1)],
        bind_weight=((1 - depth)[:, None] * np.concatenate([1 - mix, mix, 0 * mix], 1)).astype(np.float32),
        normals=turned,
    )


def _sample(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear colours [N, 3] at pixels [N, 2] (centres at +0.5)."""
    at = (pixels - 0.5).astype(np.float32)
    return cv2.remap(image, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def _seeds(
    *, means: Tensor, sigma: np.ndarray, colors: np.ndarray, opacity: float, skinning_weight: np.ndarray, region: str,
    bind_index: np.ndarray, bind_weight: np.ndarray, normals: np.ndarray | None = None,
) -> Seeds:  # fmt: skip
    """Round Gaussians, or flat ones along a surface of the given normals."""
    n = means.shape[0]
    scales = torch.from_numpy(np.repeat(sigma[:, None], 3, 1)).float().clamp_min(0.01)
    normal = torch.zeros(n, 3) if normals is None else torch.from_numpy(normals).float()
    if normals is not None:
        scales[:, 2] *= _FLAT
    return Seeds(
        means=means,
        scales=scales,
        quats=_towards(normal),
        colors=torch.from_numpy(np.ascontiguousarray(colors)).float(),
        opacities=torch.full((n,), opacity),
        skinning_weight=torch.from_numpy(skinning_weight).float(),
        bind_index=torch.from_numpy(np.ascontiguousarray(bind_index)).long(),
        bind_weight=torch.from_numpy(np.ascontiguousarray(bind_weight)).float(),
        region=torch.full((n,), REGIONS.index(region), dtype=torch.uint8),
        normal=normal,
    )


def _towards(normal: Tensor) -> Tensor:
    """Quaternions [N, 4] that turn the z axis to unit vectors [N, 3]; none for zero vectors."""
    x, y, z = normal.unbind(-1)
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], -1)
    flipped = torch.tensor([0.0, 1, 0, 0]).expand_as(quats)
    return torch.where((z < -0.9999)[:, None], flipped, quats) / torch.where(z < -0.9999, 1.0, quats.norm(dim=-1))[:, None]


def _empty() -> Seeds:
    zeros = np.zeros
    return _seeds(
        means=torch.zeros(0, 3), sigma=zeros(0), colors=zeros((0, 3)), opacity=0.5, skinning_weight=zeros(0),
        region="hair", bind_index=zeros((0, 3), np.int64), bind_weight=zeros((0, 3), np.float32),
    )  # fmt: skip
