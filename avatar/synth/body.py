"""The synthetic person's surfaces: face, hair, neck, shirt, eyes and mouth interior, in head axes and centimetres.

Everything hangs on MediaPipe's canonical face mesh, made a little more personal; the rest is swept from a few
hand-placed curves. No scan and no photograph is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.geometry.mesh import FACE_OVAL
from avatar.motion.arkit import ARKIT, INDEX
from avatar.synth.appearance import Appearance
from avatar.synth.shapes import BROWS, EYE_RING, LIDS, LIP_RINGS, displacement_fields, smoothstep

EYE_RADIUS = 1.28
IRIS_RADIUS = 0.62
TILT = -4.0  # degrees


@dataclass
class Part:
    """A patch of surface.

    Attributes:
        name: What it is; also the name of its texture.
        vertices: [V, 3] at rest, head axes.
        faces: [F, 3], outward side counter-clockwise on screen reversed (see `Body.two_sided`).
        uv: [V, 2] in its texture, 0 to 1.
        head: [V] 1 moves with the head, 0 with the torso.
        fields: [52, V, 3] displacement per ARKit coefficient.
        nearer: Centimetres by which it is drawn nearer than it is in the video, which sorts triangles.
        outward: -1 where the winding of its faces is that of a mirrored part.
        two_sided: Drawn from behind too.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    head: np.ndarray
    fields: np.ndarray
    nearer: float = 0.0
    outward: float = 1.0


@dataclass
class Body:
    """All parts, and the numbers that the ground truth needs.

    Attributes:
        parts: Far to near is not implied; they are depth-sorted when drawn.
        neutral: [468, 3] the face's neutral landmarks.
        fields: [52, 468, 3].
        eyes: {"Left": [3], "Right": [3]} centres of the eyeballs.
    """

    parts: list[Part]
    neutral: np.ndarray
    fields: np.ndarray
    eyes: dict[str, np.ndarray]


def build_body(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, seed: int, look: Appearance) -> Body:
    """Build the person.

    Args:
        vertices: [468, 3] canonical face vertices in head axes.
        faces: [898, 3].
        uv: [468, 2].
        seed: 0 is the person of the documentation; others have a different bone structure.
        look: Hair, glasses and collar.
    """
    neutral = _personal(np.asarray(vertices, float), seed)
    fields = displacement_fields(neutral)
    eyes = {side: _eye_centre(neutral, side) for side in ("Left", "Right")}
    parts = [
        *_back_hair(),
        *(_hair(sign) for sign in (1.0, -1.0)),
        *_shirt(),
        *_neck(),
        _mouth_lining(neutral, fields),
        *_mouth(neutral, fields),
        *(_socket(neutral, fields, eyes[side], side) for side in ("Right", "Left")),
        *(_eyeball(eyes[side]) for side in ("Right", "Left")),
        _face(neutral, fields, np.asarray(faces), np.asarray(uv, float)),
    ]
    return Body(parts, neutral, fields, eyes)


def _personal(p: np.ndarray, seed: int) -> np.ndarray:
    """Smooth changes of the canonical face: closed fuller lips, larger eyes, a finer jaw and nose."""
    p = p.copy()
    rng = np.random.default_rng(1000 + seed)
    vary = rng.normal(0, 0.02 if seed else 0.0, 6)
    eyes = {side: p[list(EYE_RING[side])].mean(0) for side in EYE_RING}
    # lips meet: half of the gap from either side, fading with the distance from the inner edge
    line = (p[list(LIP_RINGS["upper"][3]), 1] + p[list(LIP_RINGS["lower"][3]), 1]) / 2
    for name in LIP_RINGS:
        shift = line - p[list(LIP_RINGS[name][3]), 1]
        for depth, ring in enumerate(LIP_RINGS[name]):
            p[list(ring[1:-1]), 1] += shift[1:-1] * (0.7, 0.8, 0.9, 1.0)[depth]
    for a, b in zip(LIP_RINGS["upper"][3], LIP_RINGS["lower"][3], strict=True):
        p[[a, b]] = (p[a] + p[b]) / 2
    for name, sign, amount in (("upper", -1, 0.10), ("lower", 1, 0.13)):
        for depth, ring in enumerate(LIP_RINGS[name][:3]):
            fuller = amount * (1, 1, 0.5)[depth] * (1 - (np.linspace(-1, 1, 11)) ** 2)
            p[list(ring), 1] += sign * fuller
            p[list(ring), 2] -= fuller * 1.2
    y = p[:, 1].copy()  # a shorter upper lip and chin
    p[:, 1] -= 0.5 * np.exp(-(((y - 4.4) / 1.5) ** 2) - (p[:, 0] / 3.5) ** 2)
    p[:, 1] -= 0.7 * smoothstep(y, 5.2, 8.5)
    lower_face = smoothstep(p[:, 1], 1.0, 9.5)
    p[:, 0] *= 1 - (0.10 + vary[0]) * lower_face  # a finer jaw
    p[:, 0] *= 0.985 + vary[1]
    p[:, 1] += vary[2] * 10 * smoothstep(p[:, 1], 2.0, 9.0)
    nose = np.exp(-(((p - p[4]) / (1.6, 2.4, 2.5)) ** 2).sum(1))
    p[:, 2] += (0.35 + vary[3] * 5) * nose
    p[:, 0] *= 1 - (0.15 + vary[4]) * nose
    for centre in eyes.values():
        around = np.exp(-(((p - centre) / (2.0, 1.1, 2.5)) ** 2).sum(1))[:, None]
        p += around * (p - centre) * (0.12, 0.52 + vary[5] * 3, 0.0)
    for edges in BROWS.values():
        brow = p[[*edges[0], *edges[1]]].mean(0)
        p[:, 1] += 0.42 * np.exp(-(((p - brow + (0.6 * np.sign(brow[0]), 0, 0)) / (2.2, 1.0, 2.5)) ** 2).sum(1))
    # The reading of a face's pitch depends on its features; turned by this, trackers see this one look straight ahead.
    cos, sin = np.cos(np.deg2rad(TILT)), np.sin(np.deg2rad(TILT))
    p[:, 1:] = p[:, 1:] @ np.array([[cos, sin], [-sin, cos]])
    return p


def _subdivide(
    vertices: np.ndarray, faces: np.ndarray, *others: np.ndarray, bulge: bool = True
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Each triangle into four; new vertices are lifted onto the surface's curvature (Phong tessellation,
    Boubekeur and Alexa 2008). ``others`` carry the vertex axis second to last and are averaged."""
    from avatar.synth.raster import vertex_normals

    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, inverse = np.unique(edges, axis=0, return_inverse=True)
    a, b = vertices[edges[:, 0]], vertices[edges[:, 1]]
    middle = (a + b) / 2
    if bulge:
        normals = vertex_normals(vertices, faces)
        na, nb = normals[edges[:, 0]], normals[edges[:, 1]]
        onto_a = middle - ((middle - a) * na).sum(1, keepdims=True) * na
        onto_b = middle - ((middle - b) * nb).sum(1, keepdims=True) * nb
        middle = middle + 0.75 * ((onto_a + onto_b) / 2 - middle)
    m = len(vertices) + inverse.reshape(-1, 3)
    v = faces
    fine = np.concatenate(
        [
            np.stack([v[:, 0], m[:, 0], m[:, 2]], 1),
            np.stack([m[:, 0], v[:, 1], m[:, 1]], 1),
            np.stack([m[:, 2], m[:, 1], v[:, 2]], 1),
            m,
        ]
    )
    averaged = [np.concatenate([o, (o[..., edges[:, 0], :] + o[..., edges[:, 1], :]) / 2], axis=-2) for o in others]
    return np.concatenate([vertices, middle]), fine, averaged


def _face(neutral: np.ndarray, fields: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> Part:
    holes = [set(ring) for ring in EYE_RING.values()]
    holes.append({*LIP_RINGS["upper"][3], *LIP_RINGS["lower"][3]})
    keep = [not any(set(face) <= hole for hole in holes) for face in faces.tolist()]
    vertices, faces, (uv, fields) = _subdivide(neutral, faces[keep], uv, fields)
    # The rim goes on backwards, under the hair and under the jaw.
    rim = _boundary(faces, FACE_OVAL)
    levels = 4
    base = len(vertices)
    edge = vertices[rim]
    target = np.stack([edge[:, 0] * 0.72, edge[:, 1] * 0.62 - 0.6, np.full(len(rim), 6.0)], 1)
    rings, ring_uv, ring_fields = [], [], []
    for k in range(1, levels + 1):
        t = k / levels
        ring = edge * (1 - t) + target * t
        ring[:, 1] -= 4.0 * np.sin(np.pi * t) * smoothstep(-edge[:, 1], 0.0, 8.0)  # the skull is round on top
        rings.append(ring)
        ring_uv.append(uv[rim] * (1 - 0.01) + 0.005)
        ring_fields.append(fields[:, rim] * (1 - t) ** 1.5)
    count = len(rim)
    index = np.concatenate([rim, base + np.arange(levels * count)]).reshape(levels + 1, count)
    strip = _grid_faces(index, closed=True)
    return Part(
        "skin",
        np.concatenate([vertices, *rings]),
        np.concatenate([faces, strip]),
        np.concatenate([uv, *ring_uv]),
        np.ones(base + levels * count),
        np.concatenate([fields, *ring_fields], 1),
    )


def _boundary(faces: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
    """Vertex numbers around the open edge of a mesh that begins with ``start[0]``, ``...``, towards ``start[1]``."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    neighbours: dict[int, list[int]] = {}
    for a, b in edges[count == 1].tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    # between two neighbouring landmarks lies exactly the one vertex that subdivision put there
    between = next(v for v in neighbours[start[0]] if start[1] in neighbours[v])
    loop = [start[0], between]
    while True:
        following = next(v for v in neighbours[loop[-1]] if v != loop[-2])
        if following == start[0]:
            return np.array(loop)
        loop.append(following)


def _grid_faces(index: np.ndarray, closed: bool = False) -> np.ndarray:
    """Triangles of a grid of vertex numbers [rows, columns]."""
    if closed:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def _sheet(
    name: str,
    points: np.ndarray,
    uv: np.ndarray | None = None,
    head: float | np.ndarray = 1.0,
    nearer: float = 0.0,
) -> Part:
    """A part from a grid of points [rows, columns, 3]; texture coordinates run along the grid."""
    rows, columns = points.shape[:2]
    if uv is None:
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        uv = np.stack([u, v], -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    return Part(
        name,
        points.reshape(-1, 3).astype(float),
        _grid_faces(index),
        uv.reshape(-1, 2),
        np.broadcast_to(np.asarray(head, float), (rows, columns)).reshape(-1).copy(),
        np.zeros((len(ARKIT), rows * columns, 3)),
        nearer,
    )


# Strands of the person's left side, front to back; each from the parting to the tip.
_STRANDS = np.array(
    [
        [(1.3, -8.7, -4.7), (4.6, -8.0, -3.8), (7.1, -5.4, -1.2), (8.0, -1.2, 1.0), (8.1, 3.5, 1.5), (7.7, 8.5, 1.2),
         (8.2, 13.5, -0.4), (7.4, 18.5, -2.6)],
        [(1.2, -11.4, -2.8), (5.3, -10.6, -1.8), (8.5, -7, 1.0), (9.4, -1, 2.6), (9.6, 4, 3.0), (9.3, 9, 2.8),
         (10.0, 14, 1.8), (8.8, 19.5, 0.2)],
        [(0.9, -13.3, 2), (5.4, -12.4, 2.4), (9, -8.2, 3.6), (10.1, -1, 5), (10.5, 5, 5.4), (10.2, 10, 5.2),
         (10.9, 14.5, 4.6), (10.0, 20, 3.6)],
        [(0.5, -13.2, 7), (5.0, -12.2, 8), (8.4, -8, 9.2), (9.6, -1, 9.8), (9.8, 5, 9.8), (9.4, 10, 9.2),
         (9.8, 14.5, 9), (9, 19.5, 8)],
        [(0, -11.5, 11), (3, -10.5, 12), (5, -7, 13.2), (5.5, -1, 13.8), (5, 5, 13), (4.5, 10, 12), (4, 15, 11),
         (3, 19, 10.5)],
    ]
)  # fmt: skip


def hair_grid(sign: float, across: int = 22, along: int = 26) -> np.ndarray:
    """Points [along, across, 3] of one side's hair, front strand first."""
    from scipy.interpolate import CubicSpline

    strands = _STRANDS.astype(float).copy()
    strands[:, 0, 0] -= 0.15  # both sides overlap at the parting
    if sign < 0:
        strands[..., 0] *= -1
        strands[:, 0, 0] = _STRANDS[:, 0, 0] + 0.15  # the parting is on the left
        strands[:2, 1, 0] += 1.2
    grid = CubicSpline(np.linspace(0, 1, strands.shape[1]), strands, axis=1)(np.linspace(0, 1, along) ** 1.15)
    grid = CubicSpline(np.linspace(0, 1, len(strands)), grid, axis=0)(np.linspace(0, 1, across))
    grid = grid.transpose(1, 0, 2)
    # locks: gentle waves that grow towards the tips
    s, a = np.meshgrid(np.linspace(0, 1, along), np.linspace(0, 1, across), indexing="ij")
    wave = 0.28 * np.sin(2 * np.pi * (5.0 * a + 1.1 * s * s)) * s + 0.12 * np.sin(2 * np.pi * (11 * a - 0.7 * s)) * s
    grid[..., 2] += wave
    grid[..., 0] += sign * 0.8 * wave
    return grid


def _hair(sign: float) -> Part:
    grid = hair_grid(sign)
    part = _sheet("hair", grid, head=_hair_follows(grid), nearer=1.2)
    part.outward = -sign
    return part


def _hair_follows(grid: np.ndarray) -> np.ndarray:
    """Share with which hair moves with the head: less at the tips, which lie on the shoulders."""
    return 1 - 0.75 * smoothstep(grid[..., 1], 9.0, 20.0)


def _back_hair(across: int = 12) -> list[Part]:
    """Hair between the rearmost strands of both sides: its dark inside, and its outside."""
    left, right = hair_grid(1.0)[:, -1], hair_grid(-1.0)[:, -1]
    t = np.linspace(0, 1, across)[:, None]
    grid = left[:, None] * (1 - t) + right[:, None] * t
    width = np.abs(left[:, 0] - right[:, 0])[:, None]
    grid[..., 2] += 0.12 * width * np.sin(np.pi * t.T)
    inside = _sheet("back_hair", grid - (0, 0, 0.3), head=_hair_follows(grid), nearer=-12.0)
    outside = _sheet("hair", grid, head=_hair_follows(grid), nearer=-14.0)
    return [inside, outside]


_NECK_EDGE, _SHIRT_EDGE = 1.9, 1.95  # radians from the front, where the front part of a ring ends


def _rings(edge: float, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles [columns] of the front and of the back of a closed ring."""
    return np.linspace(-edge, edge, columns), np.linspace(edge, 2 * np.pi - edge, columns)


def _neck() -> list[Part]:
    parts = []
    for name, angles in zip(("neck", "neck"), _rings(_NECK_EDGE, 17), strict=True):
        h, theta = np.meshgrid(np.linspace(0, 1, 14), angles, indexing="ij")
        y = 3.0 + 17.5 * h
        front = np.clip(np.cos(theta), 0, 1)
        radius = 5.0 + 0.5 * h - 0.9 * (1 - smoothstep(y, 3.0, 7.5))
        flare = 4.0 * smoothstep(h, 0.72, 1.1) ** 1.5
        z = (
            4.6
            + 1.0 * h
            - (radius + flare * (1 - front) - 0.5 * front * smoothstep(h, 0.75, 0.95)) * 0.92 * np.cos(theta)
        )
        points = np.stack([(radius + flare) * np.sin(theta), y, z], -1)
        parts.append(_sheet(name, points, head=1 - smoothstep(y, 6.0, 17.0), nearer=-3.0))
    return parts


def _shirt() -> list[Part]:
    parts = []
    for angles in _rings(_SHIRT_EDGE, 41):
        h, theta = np.meshgrid(np.linspace(0, 1, 26) ** 1.25, angles, indexing="ij")
        half = 7.0 + 14.5 * smoothstep(h, -0.16, 0.30) ** 1.15 + 2.0 * h
        half = half - half[:1] + 6.8
        deep = 6.3 + 4.2 * smoothstep(h, 0.0, 0.6)
        front = np.cos(theta)
        y = 16.6 + 30 * h + 1.9 * front * (1 - smoothstep(h, 0, 0.3))
        x = half * np.sign(np.sin(theta)) * np.abs(np.sin(theta)) ** 0.9
        points = np.stack([x, y, 6.8 - deep * front], -1)
        parts.append(_sheet("shirt", points, head=0.0, nearer=-0.2))
    return parts


def _eye_centre(neutral: np.ndarray, side: str) -> np.ndarray:
    ring = neutral[list(EYE_RING[side])]
    front = neutral[list(LIDS[side]["upper"][3:6]) + list(LIDS[side]["lower"][3:6]), 2].mean()
    centre = (ring.max(0) + ring.min(0)) / 2
    return np.array([centre[0], centre[1] - 0.05, front + 0.12 + EYE_RADIUS])


def _eyeball(centre: np.ndarray) -> Part:
    """The front of a sphere, looking straight ahead; texture is its view from the front."""
    r, phi = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 2 * np.pi, 25), indexing="ij")
    polar = r * 1.35
    x, y = np.sin(polar) * np.cos(phi), np.sin(polar) * np.sin(phi)
    points = centre + EYE_RADIUS * np.stack([x, y, -np.cos(polar)], -1)
    # the whites are wider than the iris: stretch the ball sideways so that it fills the corners
    uv = np.stack([0.5 + 0.5 * x, 0.5 + 0.5 * y], -1)
    return _sheet("eye", points, uv, nearer=-4.0)


def _mouth(neutral: np.ndarray, fields: np.ndarray) -> list[Part]:
    """Cavity, teeth and tongue. The upper teeth are fixed to the skull, the rest follows the jaw."""
    middle = neutral[13]
    jaw = fields[[INDEX[n] for n in ("jawOpen", "jawForward", "jawLeft", "jawRight")], 17]  # [4, 3]
    jaw_names = [INDEX[n] for n in ("jawOpen", "jawForward", "jawLeft", "jawRight")]

    def follow(part: Part, share: np.ndarray | float) -> Part:
        share = np.broadcast_to(np.asarray(share, float), (len(part.vertices),))
        part.fields[jaw_names] += jaw[:, None] * share[:, None]
        return part

    def arch(top: float, bottom: float, out: float, rows: int = 4) -> np.ndarray:
        v, t = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, 19), indexing="ij")
        angle = t * 1.25
        x, z = 2.35 * np.sin(angle), 2.3 * (1 - np.cos(angle))
        edge = 0.18 * np.abs(t) ** 2  # canines and molars are shorter
        y = top + (bottom - edge - top) * v if bottom > top else top + (bottom + edge - top) * v
        return middle + np.stack([x, y, z + out - 0.10 * np.sin(np.pi * v)], -1)

    y, t = np.meshgrid(np.linspace(0, 1, 7), np.linspace(-1, 1, 9), indexing="ij")
    cavity = middle + np.stack([3.0 * t, -2.2 + 4.6 * y, 2.6 + 0.6 * np.abs(t)], -1)
    parts = [follow(_sheet("cavity", cavity, nearer=-6.5), y.reshape(-1))]
    upper = _sheet("upper_teeth", arch(-1.0, 0.20, 0.95), nearer=-3.2)
    lower = follow(_sheet("lower_teeth", arch(1.15, 0.16, 1.2), nearer=-3.4), 1.0)
    v, t = np.meshgrid(np.linspace(0, 1, 8), np.linspace(-1, 1, 11), indexing="ij")
    tongue_x = 1.55 * t * np.sqrt(np.clip(1 - 0.35 * (1 - v) ** 2, 0, 1))
    tongue = middle + np.stack(
        [tongue_x, 1.3 - 1.0 * v**0.7 + 0.28 * t * t + 0.12 * (1 - np.abs(t)), 1.7 + 2.6 * v + 0.5 * t * t], -1
    )
    tongue_part = follow(_sheet("tongue", tongue, nearer=-4.0), 0.85 - 0.25 * v.reshape(-1))
    tongue_part.fields[INDEX["tongueOut"]] += np.stack([0 * v, -0.75 * (1 - v), -1.2 * (1 - v)], -1).reshape(-1, 3)
    return [*parts, tongue_part, lower, upper]


def _tube(name: str, loops: list[np.ndarray], fields: list[np.ndarray], nearer: float) -> Part:
    """A part from closed loops [N, 3], each with displacements [52, N, 3]."""
    count = len(loops[0])
    index = np.arange(len(loops) * count).reshape(len(loops), count)
    uv = np.full((index.size, 2), 0.5)
    return Part(name, np.concatenate(loops), _grid_faces(index, closed=True), uv, np.ones(index.size),
                np.concatenate(fields, 1), nearer)  # fmt: skip


def _mouth_lining(neutral: np.ndarray, fields: np.ndarray) -> Part:
    """The inside of lips and cheeks, from the lips' inner edge back to the cavity."""
    ring = [*LIP_RINGS["upper"][3], *LIP_RINGS["lower"][3][-2:0:-1]]
    edge, moves, middle = neutral[ring], fields[:, ring], neutral[13]
    around = edge - middle
    angle = np.linspace(np.pi, 3 * np.pi, len(ring), endpoint=False)  # from the right corner over the upper lip
    wide = middle + np.stack([3.1 * np.cos(angle), 0.3 + 2.3 * np.sin(angle), np.full(len(ring), 2.7)], 1)
    near = middle + around * (1.12, 1.0, 1.0) + np.stack([0 * angle, 0.7 * np.sin(angle), 0 * angle + 0.6], 1)
    jaw = fields[:, [17]] * smoothstep(wide[:, 1] - middle[1], -1.0, 2.0)[None, :, None]
    end = middle + np.stack([0 * angle, 0 * angle + 0.3, 0 * angle + 3.6], 1)
    loops, follow = [edge, near, (near + wide) / 2, wide, end], [moves, moves, (moves + jaw) / 2, jaw, jaw]
    return _tube("cavity", loops, follow, -6.4)


def _socket(neutral: np.ndarray, fields: np.ndarray, centre: np.ndarray, side: str) -> Part:
    """The inside of the lids, from their edge back around the eyeball."""
    ring = list(EYE_RING[side])
    edge, moves = neutral[ring], fields[:, ring]
    back = centre + (edge - centre) * (0.7, 0.9, 0)
    return _tube("socket", [edge, back], [moves, 0 * moves], -4.5)
