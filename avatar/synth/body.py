"""The synthetic person's surfaces: face, hair, neck, shirt, eyes and mouth interior, in head axes and centimetres.

Everything hangs on MediaPipe's canonical face mesh, made a little more personal; the rest is swept from a few
hand-placed curves. No scan and no photograph is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.geometry.mesh import FACE_OVAL
from avatar.geometry.smoothstep import smoothstep
from avatar.motion.arkit import INDEX
from avatar.synth.accessories import collar, glasses
from avatar.synth.appearance import Appearance
from avatar.synth.hair import long_hair
from avatar.synth.hair_cap import cropped_hair
from avatar.synth.parts import Part, grid_faces, sheet, tube
from avatar.synth.shapes import BROWS, EYE_RING, LIDS, LIP_RINGS, displacement_fields

EYE_RADIUS = 1.28
IRIS_RADIUS = 0.62
TILT = -4.0  # degrees


@dataclass
class Body:
    """All parts, and the numbers that the ground truth needs.

    Attributes:
        parts: The face comes last. Far to near is not implied; they are depth-sorted when drawn.
        neutral: [468, 3] the face's neutral landmarks.
        fields: [52, 468, 3].
        eyes: {"Left": [3], "Right": [3]} centres of the eyeballs.
        fuzz: [N, K, 3] loose short hairs, head axes, or None.
    """

    parts: list[Part]
    neutral: np.ndarray
    fields: np.ndarray
    eyes: dict[str, np.ndarray]
    fuzz: np.ndarray | None


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
    face = _face(neutral, fields, np.asarray(faces), np.asarray(uv, float))
    if look.hair == "long":
        head_parts, fuzz = long_hair(), None
    else:
        head_parts, fuzz = cropped_hair(face, look.hair, seed)
    parts = [
        *head_parts,
        *_shirt(),
        *([collar()] if look.collar else []),
        *_neck(),
        _mouth_lining(neutral, fields),
        *_mouth(neutral, fields),
        *(_socket(neutral, fields, eyes[side], side) for side in ("Right", "Left")),
        *(_eyeball(eyes[side]) for side in ("Right", "Left")),
        *(glasses(neutral, eyes) if look.glasses else []),
        face,
    ]
    return Body(parts, neutral, fields, eyes, fuzz)


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
    from avatar.geometry.mesh import vertex_normals

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
    strip = grid_faces(index, closed=True)
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


_NECK_EDGE, _SHIRT_EDGE = 1.9, 1.95  # radians from the front, where the front part of a ring ends


def _rings(edge: float, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles [columns] of the front and of the back of a closed ring."""
    return np.linspace(-edge, edge, columns), np.linspace(edge, 2 * np.pi - edge, columns)


def _neck() -> list[Part]:
    """Front and back of the neck; it widens towards the skull behind, and towards the shoulders at the sides."""
    parts = []
    for angles in _rings(_NECK_EDGE, 17):
        h, theta = np.meshgrid(np.linspace(0, 1, 14), angles, indexing="ij")
        y = 3.0 + 17.5 * h
        facing = np.cos(theta)
        front, back = np.clip(facing, 0, 1), np.clip(-facing, 0, 1)
        nape = 1.2 * (1 - smoothstep(y, 3.0, 9.0)) * np.clip(0.3 - facing, 0, 1) ** 2
        radius = 5.0 + 0.5 * h + nape
        flare = 4.0 * smoothstep(h, 0.72, 1.1) ** 1.5
        under_collar = 0.5 * front * smoothstep(h, 0.75, 0.95)
        deep = radius + flare * (1 - front - 0.6 * back) - under_collar
        points = np.stack([(radius + flare) * np.sin(theta), y, 4.6 + h - deep * 0.92 * facing], -1)
        parts.append(sheet("neck", points, head=1 - smoothstep(y, 6.0, 17.0), nearer=-5.0))
    return parts


def _shirt() -> list[Part]:
    parts = []
    for angles in _rings(_SHIRT_EDGE, 41):
        h, theta = np.meshgrid(np.linspace(0, 1, 26) ** 1.25, angles, indexing="ij")
        half = 7.0 + 14.5 * smoothstep(h, -0.16, 0.30) ** 1.15 + 2.0 * h
        half = half - half[:1] + 6.8
        deep = 6.3 + 4.2 * smoothstep(h, 0.0, 0.6)
        front = np.cos(theta)
        deep = deep - 1.3 * (1 - smoothstep(h, 0.0, 0.3)) * (front < 0)  # it lies against the nape
        y = 16.6 + 30 * h + 1.9 * front * (1 - smoothstep(h, 0, 0.3))
        x = half * np.sign(np.sin(theta)) * np.abs(np.sin(theta)) ** 0.9
        points = np.stack([x, y, 6.8 - deep * front], -1)
        parts.append(sheet("shirt", points, head=0.0, nearer=-0.2))
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
    return sheet("eye", points, uv, nearer=-4.0)


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
    parts = [follow(sheet("cavity", cavity, nearer=-6.5), y.reshape(-1))]
    upper = sheet("upper_teeth", arch(-1.0, 0.20, 0.95), nearer=-3.2)
    lower = follow(sheet("lower_teeth", arch(1.15, 0.16, 1.2), nearer=-3.4), 1.0)
    v, t = np.meshgrid(np.linspace(0, 1, 8), np.linspace(-1, 1, 11), indexing="ij")
    tongue_x = 1.55 * t * np.sqrt(np.clip(1 - 0.35 * (1 - v) ** 2, 0, 1))
    tongue = middle + np.stack(
        [tongue_x, 1.3 - 1.0 * v**0.7 + 0.28 * t * t + 0.12 * (1 - np.abs(t)), 1.7 + 2.6 * v + 0.5 * t * t], -1
    )
    tongue_part = follow(sheet("tongue", tongue, nearer=-4.0), 0.85 - 0.25 * v.reshape(-1))
    tongue_part.fields[INDEX["tongueOut"]] += np.stack([0 * v, -0.75 * (1 - v), -1.2 * (1 - v)], -1).reshape(-1, 3)
    return [*parts, tongue_part, lower, upper]


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
    return tube("cavity", loops, follow, -6.4)


def _socket(neutral: np.ndarray, fields: np.ndarray, centre: np.ndarray, side: str) -> Part:
    """The inside of the lids, from their edge back around the eyeball."""
    ring = list(EYE_RING[side])
    edge, moves = neutral[ring], fields[:, ring]
    back = centre + (edge - centre) * (0.7, 0.9, 0)
    return tube("socket", [edge, back], [moves, 0 * moves], -4.5)
