"""First guess of all that the face mesh does not cover: hair, ears, neck, shoulders, also where no frame shows them.

Pixels of the reference frame are lifted onto the surfaces of `avatar.preprocess.bust`, the head's corrected by
what `avatar.preprocess.parallax` measures. What this frame does not show of the surfaces (sides, back, under the
jaw, below the picture) is there as well, in the colours of the nearest place that is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree

from avatar.fields.gaussians import REGIONS, Seeds
from avatar.geometry.even import candidates, evenly
from avatar.geometry.mesh import FACE_OVAL
from avatar.methods.gaussian.reference import (
    CLOTHES,
    HEAD,
    NECK,
    REGION_OF,
    SPREAD,
    Reference,
    make_seeds,
    nearest_true,
    no_seeds,
)  # fmt: skip
from avatar.preprocess.bust import Bust, fit_bust
from avatar.preprocess.head_depth import head_depth, still_face
from avatar.preprocess.parallax import measure_depth
from avatar.preprocess.sweep import Sweep

_GRAZING = 0.5  # cosine between a surface's normal and the view: below it the reference frame shows too little
_STRETCH = 1.8  # most by which a Gaussian is wider on a surface that falls away, where pixels are far apart on it
_INSET = (0.35, 0.8, 0.35)  # centimetres that hidden head, neck and torso lie inside the outline; necks bend
_EAR_INSET = 0.1  # the same for ears, which are thin
# Radians behind the outline between which this ends: few heads are filmed turned so far, and necks turn less.
_INSET_UNTIL = ((0.25, 0.75), (0.0, 0.4), (0.25, 0.75))
_FALL = 0.7  # most that collars fall behind their ridge, centimetres ...
_FALL_UNTIL = (4.0, 8.0)  # ... and those below the chin between which this ends
_BACKING = 1.0  # centimetres behind the neck and torso that are seen, where there is another layer
_SPREAD = 0.6  # standard deviation of a hidden Gaussian, of the distance to the next
_BEYOND = 0.8  # the same beyond the image's edge, where nothing lies behind the gaps
_WIDEST = 2.3  # centimetres of it, where there are few
_AROUND = (3.2, 2.4, 2.5)  # radians around head, neck and torso up to which there are Gaussians
_SHARES = (0.52, 0.12, 0.36)  # of the hidden Gaussians
_OUTLINE = 1.25  # radians around the head up to which a surface is seen well from the front
_TEMPLE = 1.0  # radians: further in front is the hairline, whose colours are not those of the back
_BEHIND_EAR = 1.6  # radians: from there on it is hair ...
_THROAT = 1.5  # centimetres above the chin: from there on what lies behind the face belongs to the head ...
_CHEEK = 0.7  # ... and ends at these radians around the neck, because it would shine through lips that open
_MOUTH = 3.0  # centimetres to either side of the middle, for the same reason
_EAR, _EARLOBE = -1.5, 4.5  # ... between these heights, and above them from the outline on
_INSIDE = 0.012  # of the image's width: so far from the border of the hair its colours are not mixed with skin
_PATCH = 0.1  # of the hair: smaller patches beside it are not hair
_HAIR = 0.1  # share of the head beside the face that is hair, where a person has some
_RADIUS = 9.0  # of a head, centimetres: from radians to distances on it
JAW = FACE_OVAL[10:27]  # from ear to ear under the chin


@dataclass(frozen=True, eq=False)
class _Part:
    """One surface: its axes in canonical space (rotation and origin), and the kind of pixel that shows it."""

    sweep: Sweep
    rotation: np.ndarray
    origin: np.ndarray
    kind: int

    def canonical(self, points: np.ndarray) -> np.ndarray:
        return points @ self.rotation.T + self.origin

    def local(self, points: np.ndarray) -> np.ndarray:
        return (points - self.origin) @ self.rotation

    def meet(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays from the filming camera meet the front: canonical points and normals, [N, 3]."""
        start, along = -self.origin @ self.rotation, rays @ self.rotation
        at = start + along * self.sweep.meet(start, along, self.origin[2])[:, None]
        return self.canonical(at), self.normals(at[:, 1], self.sweep.angle(at[:, 0], at[:, 1]))

    def normals(self, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
        return self.sweep.normals(y, angle) @ self.rotation.T


def surroundings(reference: Reference, count: int, rng: np.random.Generator) -> list[Seeds]:
    """About ``count`` Gaussians around the face."""
    bust = fit_bust(reference.data, reference.frame)
    parts = _parts(reference, bust)
    deeper = _measured(reference, bust)
    seen = _seen(reference, parts, deeper, int(count * 0.62), rng)
    return [
        seen,
        _under_jaw(reference, seen, int(count * 0.03), rng),
        *(_hidden(reference, bust, part, deeper, seen, int(count * 0.35), rng) for part in parts),
    ]


def _parts(reference: Reference, bust: Bust) -> list[_Part]:
    skinning = reference.skinning
    origin = skinning.to_canonical(torch.zeros(3)).numpy().astype(float)
    turn = skinning.to_canonical(torch.eye(3)).numpy().T.astype(float) - origin[:, None]
    upright = np.eye(3)
    return [
        _Part(bust.head, turn, origin, HEAD), _Part(bust.neck, upright, origin, NECK),
        _Part(bust.torso, upright, origin, CLOTHES),
    ]  # fmt: skip


def _measured(reference: Reference, bust: Bust) -> np.ndarray:
    """Centimetres [H, W] by which the head beside the face is deeper than the surface; further away, the nearest."""
    guess = head_depth(reference.data, bust, reference.frame)
    around = np.isfinite(guess) & ~reference.on_face
    if not around.any():
        return np.zeros(guess.shape)
    change = measure_depth(reference.data, reference.frame, guess, still_face(reference.data, reference.frame))
    row, column = nearest_true(around)
    return change[row, column]


def _seen(reference: Reference, parts: list[_Part], deeper: np.ndarray, count: int, rng: np.random.Generator) -> Seeds:
    """What the reference frame shows beside the face."""
    image, person = reference.image, 1 - reference.masks["background"]
    weight = person * ~reference.on_face * (person > 0.4)
    # Half of the points on strong edges and texture, half evenly: shirts and hair need detail where it is.
    grey = cv2.GaussianBlur(image.mean(-1), (0, 0), 1.5)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    edges = edges / max(float(edges[weight > 0].mean()) if (weight > 0).any() else 1.0, 1e-6)
    density = (weight * (0.5 + 0.5 * np.minimum(edges, 4))).ravel()
    if density.sum() <= 0:
        return no_seeds()
    flat = rng.choice(density.size, candidates(count), p=density / density.sum())
    pixels = np.stack(np.divmod(flat, image.shape[1])[::-1], -1) + rng.uniform(0, 1, (len(flat), 2))
    chosen = evenly(pixels, count)
    flat, pixels = flat[chosen], pixels[chosen]
    rows, columns = np.divmod(flat, image.shape[1])
    kind, rays = reference.kinds[rows, columns], reference.rays(pixels)
    points, normals = np.zeros((count, 3)), np.zeros((count, 3))
    for part in parts:
        chosen = kind == part.kind
        points[chosen], normals[chosen] = part.meet(rays[chosen])
    # The filming camera is the origin: along its ray a place keeps its pixel.
    points *= 1 + (np.where(kind == HEAD, deeper[rows, columns], 0) / points[:, 2])[:, None]
    # Spacing between neighbours in pixels, from the sampling density.
    local = density[flat] / density.sum() * count
    sigma = SPREAD / np.sqrt(np.maximum(local, 1e-3)) * points[:, 2] / reference.data.camera.focal
    sigma *= np.clip(1 / np.sqrt(np.maximum(_facing(points, normals), 1e-3)), 1, _STRETCH)
    return _placed(reference, points, normals, np.clip(sigma, 0.02, 0.8), reference.colors(pixels, kind), 0.8, kind)


def _facing(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Cosine [N] between unit normals and the direction to the filming camera."""
    return -(normals * points).sum(1) / np.linalg.norm(points, axis=1)


def _placed(
    reference: Reference, points: np.ndarray, normals: np.ndarray, sigma: np.ndarray, colors: np.ndarray,
    opacity: float, kind: np.ndarray,
) -> Seeds:  # fmt: skip
    """Seeds on the surfaces at canonical points [N, 3], as the reference frame shows them."""
    skinning, motion, frame = reference.skinning, reference.data.motion, reference.frame
    shown = torch.from_numpy(points).float()
    neck = np.clip((reference.below_chin(points) + 2) / 9.0, 0, 1)  # 0 at the jaw, 1 at the collar
    share = np.select([kind == HEAD, kind == NECK], [0.99, 0.97 - 0.9 * neck], 0.02)
    # The canonical torso is at rest; in the reference frame it was where its own motion had taken it.
    rest = skinning.torso_at_rest(
        shown, motion.torso_rotation[frame], motion.torso_translation[frame], motion.torso_warp[frame]
    )
    result = make_seeds(
        means=torch.lerp(rest, shown, torch.from_numpy(share).float()[:, None]), sigma=sigma, colors=colors,
        opacity=opacity, skinning_weight=share, region="hair", normals=normals,
    )  # fmt: skip
    table = torch.tensor([REGIONS.index(name) for name in REGION_OF], dtype=torch.uint8)
    return result._replace(region=table[torch.from_numpy(kind)])


def _hidden(
    reference: Reference, bust: Bust, part: _Part, deeper: np.ndarray, seen: Seeds, count: int,
    rng: np.random.Generator,
) -> Seeds:  # fmt: skip
    """What the reference frame does not show of a surface, and a layer behind the neck and torso that it shows.

    The sides of the neck have another layer as well: where the head tilts, the first shows beside the real one in a few
    frames, and training takes it away.
    """
    kinds = np.where(reference.masks["background"] > 0.5, -1, reference.kinds)
    # At the outline it would show before the background, and training would take away what it can reach.
    full = part.sweep
    part = replace(part, sweep=full.narrowed(_INSET[part.kind], _EAR_INSET, slopes=part.kind == CLOTHES))

    def keep(y: np.ndarray, angle: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        world, turn = part.canonical(points), np.abs(angle)
        shows, within = reference.shown(kinds, world)
        unseen = ~within & ~reference.beyond_inner_edge(world)  # what it shows of the person ends there: a desk
        covered = unseen | (within & (shows >= 0))
        if part.kind == HEAD:
            grazing = _facing(world, normals @ part.rotation.T) < _GRAZING
            side = np.maximum(np.where(angle > 0, *bust.hair_below), _EARLOBE)
            hangs = (y < side) | ((turn > np.pi / 2) & (y < max(bust.hair_below)))
            return (grazing & hangs & covered & (turn > 0.9)).astype(float)
        if part.kind == CLOTHES:  # where skin shows, no cloth is before it
            covered &= unseen | (shows == CLOTHES) | (turn > np.pi / 2)
        if part.kind == NECK:
            covered &= (reference.below_chin(world) > -_THROAT) | (turn > _CHEEK)
        return (covered & (turn < _AROUND[part.kind])).astype(float)

    y, angle, points, area = part.sweep.sample(int(count * _SHARES[part.kind]), rng, keep)
    same = (seen.region == REGIONS.index(REGION_OF[part.kind])).numpy()
    if part.kind == HEAD:
        same &= ~reference.shown(_worn(reference.masks["hair"]), seen.means.numpy())[0]
    known = np.flatnonzero(same)
    if len(known) == 0 or len(points) == 0:
        return no_seeds()
    behind = np.interp(np.abs(angle) - np.pi / 2, _INSET_UNTIL[part.kind], (0, 1))[:, None]
    world = part.canonical(points + behind * (full.points(y, angle) - points))
    if part.kind == CLOTHES:
        world = _fallen_behind(world, part.origin[2] + part.sweep.middle.mean(), reference.below_chin(world))
    normals = part.normals(y, angle)
    kind, within = np.full(len(y), part.kind), reference.shown(kinds, world)[1]
    if part.kind == HEAD:  # joins the measured front, and is the guess at the back
        world[:, 2] += reference.shown(deeper, world)[0] * np.clip(2.3 - np.abs(angle), 0, 1)
    else:  # behind what is seen, where training leaves gaps that show from the side
        facing = np.clip(_facing(world, normals) / _GRAZING - 1, 0, 1)
        throat = (part.kind == NECK) & (reference.below_chin(world) < -_THROAT)
        world = world - (_BACKING * facing * ~throat)[:, None] * normals
        kind[throat] = HEAD
    sigma = np.minimum(np.where(within, _SPREAD, _BEYOND) * np.sqrt(area), _WIDEST)
    colors = _continued(reference, part, seen, known, y, angle)
    inner = world - _BACKING * normals
    sides = (part.kind == NECK) & (np.abs(_facing(world, normals)) < _GRAZING)
    sides &= (kind == NECK) | (np.abs(part.local(inner)[:, 0]) > _MOUTH)
    return Seeds.cat([
        _placed(reference, world, normals, sigma, colors, 0.97, kind),
        _placed(reference, inner[sides], normals[sides], sigma[sides], colors[sides], 0.97, kind[sides]),
    ])  # fmt: skip


def _fallen_behind(world: np.ndarray, ridge: float, below_chin: np.ndarray) -> np.ndarray:
    """Points [N, 3] of collar and shoulders, lower behind their ridge, which is at a depth.

    Where clothes rise to the chin, they are no higher in the image just behind it than the ridge: what showed above
    it, training would take away. Further down shoulders are level.
    """
    x, y, z = world.T
    fall = np.minimum(np.maximum(z / ridge - 1, 0) * y, _FALL) * np.interp(below_chin, _FALL_UNTIL, (1, 0))
    return np.stack([x, y + fall, z], -1)


def _continued(
    reference: Reference, part: _Part, seen: Seeds, known: np.ndarray, y: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Colours [N, 3] at heights and angles of a surface, from those that are seen of it: ``known`` of ``seen``."""
    means = seen.means[known].numpy()
    local = part.local(means)
    place = np.stack([local[:, 1], _RADIUS * part.sweep.angle(local[:, 0], local[:, 1])], -1)
    # Beyond the outline the surface looks like its mirror image before it.
    turn = np.abs(angle)
    mirrored = np.where(turn > _OUTLINE, np.maximum(2 * _OUTLINE - turn, _TEMPLE), turn) * np.sign(angle)
    wanted = np.stack([y, _RADIUS * mirrored], -1)
    near = max(len(place) // 150, 3) if part.kind == CLOTHES else 3  # clothes go on more plainly than strands
    chosen = _nearest(place, wanted, near)
    if part.kind == HEAD:
        hair, within = reference.shown(_inner(reference.masks["hair"]), means)
        strands = np.flatnonzero(within & (hair > 0.7))
        if len(strands) > _HAIR * len(known):
            behind = (turn > np.where(y < _EAR, _OUTLINE, _BEHIND_EAR)) & (y < _EARLOBE)
            chosen[behind] = strands[_nearest(place[strands], wanted[behind], near)]
    return seen.colors.numpy()[known][chosen].mean(1)


def _worn(mask: np.ndarray) -> np.ndarray:
    """Bool [H, W] of small patches of hair [H, W] on their own: earrings, whose colours the head behind has not."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 0.5).astype(np.uint8))
    if count < 2:
        return np.zeros(mask.shape, bool)
    area = stats[:, cv2.CC_STAT_AREA]
    small = area < _PATCH * area[1:].max()
    small[0] = False
    return small[labels]


def _inner(mask: np.ndarray) -> np.ndarray:
    """A mask [H, W] without its border."""
    reach = max(round(_INSIDE * mask.shape[1]), 1)
    return cv2.erode(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))


def _nearest(places: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """Indices [N, K] of the nearest places to each wanted one."""
    count = min(count, len(places))
    return np.asarray(KDTree(places).query(wanted, k=count)[1]).reshape(len(wanted), count)


def _under_jaw(reference: Reference, seen: Seeds, count: int, rng: np.random.Generator) -> Seeds:
    """The floor of the mouth: from the jaw line back to the neck, coloured like the neck, moved with the jaw."""
    known = np.flatnonzero((seen.region == REGIONS.index("neck")).numpy())
    if len(known) == 0:
        return no_seeds()
    border, shape = np.array(JAW), reference.data.shape.astype(float)
    position, depth = rng.uniform(0, len(border) - 1.001, count), rng.uniform(0, 1, count)
    index = position.astype(int)
    mix = (position - index)[:, None]
    rim = shape[border[index]] * (1 - mix) + shape[border[index + 1]] * mix
    deep = np.stack([rim[:, 0] * 0.7, rim[:, 1] - 1.0, np.full(count, 4.5)], -1)
    points = rim + (deep - rim) * depth[:, None]
    normal = np.cross(shape[border[index + 1]] - shape[border[index]], deep - rim)
    normal *= np.sign((normal * (points - [0, 3.0, 1.0])).sum(1, keepdims=True))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    skinning = reference.skinning
    canonical = skinning.to_canonical(torch.from_numpy(points).float())
    nearest = known[_nearest(seen.means[known].numpy(), canonical.numpy(), 1)[:, 0]]
    return make_seeds(
        means=canonical,
        sigma=np.full(count, 0.35),
        colors=seen.colors.numpy()[nearest],
        opacity=0.9,
        skinning_weight=np.full(count, 0.99),
        region="face",
        bind_index=border[np.stack([index, index + 1, index], -1)],
        bind_weight=((1 - depth)[:, None] * np.concatenate([1 - mix, mix, 0 * mix], 1)).astype(np.float32),
        normals=skinning.directions_to_canonical(torch.from_numpy(normal).float()).numpy(),
    )
