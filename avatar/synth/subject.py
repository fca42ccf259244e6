"""The synthetic person in front of a camera: pose and coefficients in, image and exact landmarks out."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from avatar.motion.arkit import INDEX
from avatar.synth.body import EYE_RADIUS, IRIS_RADIUS, Body, build_body, hair_grid
from avatar.synth.paint import Look, textures
from avatar.synth.raster import draw_ids, interpolate, vertex_normals
from avatar.synth.shapes import EYE_RING, LIDS

TORSO_PIVOT = np.array([0.0, 30.0, 6.0])  # rest coordinates
_KEY = np.array([-0.45, -0.55, -0.75]) / np.linalg.norm([0.45, 0.55, 0.75])
_FILL = np.array([0.75, -0.10, -0.65]) / np.linalg.norm([0.75, 0.10, 0.65])


@dataclass(frozen=True)
class Shot:
    """One frame: where everything is.

    Attributes:
        arkit: [52].
        head_rotation: [3, 3] head axes to world.
        head_translation: [3] centimetres.
        gaze: [2] yaw to the person's left and pitch up, radians.
        torso_rotation: [3, 3] about the pivot.
        torso_translation: [3].
    """

    arkit: np.ndarray
    head_rotation: np.ndarray
    head_translation: np.ndarray
    gaze: np.ndarray
    torso_rotation: np.ndarray
    torso_translation: np.ndarray


class Subject:
    """A synthetic person.

    Args:
        seed: Which person; 0 is the one of the documentation.
        rest: World position [3] of the head's origin at rest; the torso stands below it.
        detail: Texture size relative to the full one (powers of two down to 1/4); small images need less.
    """

    def __init__(self, seed: int = 0, rest: np.ndarray | None = None, detail: float = 1.0) -> None:
        vertices, faces, uv = canonical_mesh()
        self.look = Look.of(seed)
        self.body: Body = build_body(vertices, faces, uv, seed)
        self.rest = np.array([0.0, 0.0, 90.0]) if rest is None else np.asarray(rest, float)
        self._assemble(_textures(seed), detail)
        rng = np.random.default_rng(seed)
        self._wisps = [_wisps(sign, rng) for sign in (1.0, -1.0)]

    # --- geometry -------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> np.ndarray:
        """[478, 3] float32 neutral landmarks, head axes, centimetres."""
        return self.landmarks(np.zeros(len(INDEX)), np.zeros(2)).astype(np.float32)

    def landmarks(self, arkit: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        """[478, 3] landmarks in head axes, centimetres: the 468 mesh vertices and both irises."""
        face = self.body.neutral + np.einsum("k,kvd->vd", arkit, self.body.fields)
        irises = []
        depth = -np.sqrt(EYE_RADIUS**2 - IRIS_RADIUS**2)
        ring = IRIS_RADIUS * np.array([(0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)])
        local = np.concatenate([ring, np.full((5, 1), depth)], 1)
        for side in ("Right", "Left"):
            irises.append(local @ gaze_matrix(gaze).T + self.body.eyes[side])
        return np.concatenate([face, *irises])

    def _assemble(self, images: dict[str, np.ndarray], detail: float) -> None:
        """Join the parts into single arrays and pack their textures on top of each other."""
        parts = self.body.parts
        names = list(dict.fromkeys(p.name for p in parts))
        width = max(images[n].shape[1] for n in names)
        tops, top = {}, 0
        for name in names:
            tops[name] = top
            top += images[name].shape[0] + 8
        atlas = np.zeros((top, width, 3), np.float32)
        for name in names:
            h, w = images[name].shape[:2]
            atlas[tops[name] : tops[name] + h, :w] = images[name]
            atlas[tops[name] + h : tops[name] + h + 8, :w] = images[name][-1:]
        self._atlas = cv2.resize(atlas, None, fx=detail, fy=detail, interpolation=cv2.INTER_AREA)

        start, corners, faces, part_of, nearer = 0, [], [], [], []
        for number, part in enumerate(parts):
            h, w = images[part.name].shape[:2]
            corners.append((part.uv * (w - 2, h - 2) + (1, tops[part.name] + 1)) * detail - 0.5)
            faces.append(part.faces + start)
            part_of.append(np.full(len(part.vertices), number))
            nearer.append(np.full(len(part.faces), part.nearer))
            start += len(part.vertices)
        self._faces = np.concatenate(faces)
        self._nearer = np.concatenate(nearer)
        self._one_sided = np.concatenate([np.full(len(p.faces), p.name == "skin") for p in parts])
        self._texture_at = np.concatenate(corners)
        self._vertices = np.concatenate([p.vertices for p in parts])
        self._head = np.concatenate([p.head for p in parts])[:, None]
        self._part_of = np.concatenate(part_of)
        fields = np.concatenate([p.fields for p in parts], 1)
        moving = np.flatnonzero(np.abs(fields).max((0, 2)) > 0)
        self._moving, self._fields = moving, fields[:, moving].reshape(len(fields), -1).astype(np.float32)
        names_of = np.array([p.name for p in parts])[self._part_of]
        self._is_skin = np.isin(names_of, ("skin", "neck"))
        self._is_hair = names_of == "hair"
        self._is_wet = np.isin(names_of, ("eye", "upper_teeth", "lower_teeth", "tongue"))
        self._is_cloth = names_of == "shirt"
        eyes = [i for i, p in enumerate(parts) if p.name == "eye"]
        self._eye_vertices = {side: np.flatnonzero(self._part_of == i) for side, i in zip(("Right", "Left"), eyes)}
        self._face_start = int(np.flatnonzero(self._part_of == len(parts) - 1)[0])
        # +1 where the winding of a part faces outwards: hair of the right side is the mirror of the left one
        self._outward = np.where(self._part_of == 1, -1.0, 1.0)
        self._inside_mouth = np.isin(names_of, ("upper_teeth", "lower_teeth", "tongue"))

    def _posed(self, shot: Shot) -> np.ndarray:
        """World positions [V, 3] of all vertices."""
        local = self._vertices.copy()
        local[self._moving] += (shot.arkit.astype(np.float32) @ self._fields).reshape(-1, 3)
        turn = gaze_matrix(shot.gaze)
        for side, index in self._eye_vertices.items():
            centre = self.body.eyes[side]
            local[index] = (local[index] - centre) @ turn.T + centre
        head = local @ shot.head_rotation.T + shot.head_translation
        torso = (
            (self._vertices - TORSO_PIVOT) @ shot.torso_rotation.T + TORSO_PIVOT + self.rest + shot.torso_translation
        )
        return self._head * head + (1 - self._head) * torso

    # --- image --------------------------------------------------------------------------------------------------

    def draw(self, canvas: np.ndarray, shot: Shot, focal: float, cx: float, cy: float) -> None:
        """Draw the person over ``canvas`` (float32 RGB 0 to 1, already supersampled; the camera is in its pixels)."""
        height, width = canvas.shape[:2]
        world = self._posed(shot)
        points = world[:, :2] / world[:, 2:] * focal + (cx, cy)
        corners = points[self._faces]
        visible = (corners.max(1) > 0).all(1) & (corners.min(1) < (width, height)).all(1)
        e, f = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]  # skin seen from behind is never seen
        visible &= np.where(self._one_sided, -area, np.abs(area)) > 0.05
        depth = world[self._faces, 2].mean(1) - self._nearer
        order = np.flatnonzero(visible)
        order = order[np.argsort(-depth[order], kind="stable")]
        ids = draw_ids(points, order, self._faces, width, height)
        attributes = np.concatenate([self._texture_at, self._light(world, shot)], 1)
        covered, values = interpolate(ids, points, self._faces, attributes[self._faces])
        # remap wants images narrower than 32768 pixels: fold the list of pixels into rows
        columns = 8192
        folded = np.zeros((-(-len(covered) // columns) * columns, 2), np.float32)
        folded[: len(covered)] = values[:, :2]
        folded = folded.reshape(-1, columns, 2)
        # no second map; an empty array in its place is not the same and brings in uninitialised memory
        colours = cv2.remap(self._atlas, folded, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore
        colours = colours.reshape(-1, 3)[: len(covered)]
        canvas.reshape(-1, 3)[covered] = colours * values[:, 2:3] + values[:, 3:4]
        self._finish(canvas, world, points, focal, shot)

    def _light(self, world: np.ndarray, shot: Shot) -> np.ndarray:
        """[V, 2] factor on the texture, and white light added: key, fill and ambient on surfaces facing us."""
        normals = vertex_normals(world, self._faces)
        view = -world / np.linalg.norm(world, axis=1, keepdims=True)
        behind = (normals * view).sum(1) * self._outward < 0
        normals *= np.where((normals * view).sum(1, keepdims=True) < 0, -1, 1)
        key = np.clip((normals @ _KEY + 0.30) / 1.30, 0, None)
        fill = np.clip(normals @ _FILL, 0, None)
        facing = (normals * view).sum(1)
        light = 0.36 + 0.62 * key + 0.16 * fill
        half = view + _KEY
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        gloss = np.clip((normals * half).sum(1), 0, 1)
        shine = np.where(self._is_skin, 0.055 * gloss**14 + 0.03 * (1 - facing) ** 3 * key, 0.0)
        # hair: a band of light where the strands lie across the half vector
        shine = np.where(self._is_hair, 0.10 * gloss**10, shine)
        light = np.where(self._is_hair, 0.55 + 0.45 * light + 0.25 * gloss**6, light)
        light = np.where(self._is_hair & behind, 0.38, light)
        shine = np.where(self._is_hair & behind, 0.0, shine)
        light = np.where(self._is_wet, 0.52 + 0.38 * key, light)
        for side, index in self._eye_vertices.items():
            lid = world[self._face_start + LIDS[side]["upper"][4], 1]
            light[index] = 0.62 + 0.36 * np.clip((world[index, 1] - lid) / 0.55, 0, 1)
        opening = world[self._face_start + 14, 1] - world[self._face_start + 13, 1]
        inside = np.flatnonzero(self._inside_mouth)
        light[inside] *= 0.62 + 0.38 * np.clip(opening / 1.2, 0, 1)
        return np.stack([light, shine], 1)

    def _finish(self, canvas: np.ndarray, world: np.ndarray, points: np.ndarray, focal: float, shot: Shot) -> None:
        """Lashes, catch lights and loose hair: lines and dots on top."""
        scale = focal / shot.head_translation[2]  # pixels per centimetre
        start = self._face_start
        for side in ("Right", "Left"):
            lid = points[start + np.array(LIDS[side]["upper"])]
            low = points[start + np.array(LIDS[side]["lower"])]
            _line(canvas, _smooth(lid[:-1]), (0.09, 0.06, 0.05), max(1, round(0.10 * scale)))
            outward = np.sign(lid[0, 0] - lid[-1, 0])
            curve = _smooth(lid[:-1], 26)
            closed = 1 - min(1.0, float(np.abs(lid[4] - low[4]).max()) / (0.9 * scale))
            k = np.arange(22)[:, None]
            root = curve[:22]
            tip = root + (0.42 - 0.012 * k) * scale * np.concatenate(
                [outward * (0.75 - 0.04 * k), np.full((22, 1), -0.55 + 1.1 * closed)], 1
            )
            middle = (root + tip) / 2 + np.array([outward * 0.05, 0.16 * (1 - closed)]) * scale
            for lash in np.stack([root, middle, tip], 1):
                _line(canvas, lash, (0.10, 0.07, 0.06), 1)
            self._catch_light(canvas, side, points, focal, shot, scale)
        for part, (index, offset) in zip((1, 2), self._wisps):
            first = int(np.flatnonzero(self._part_of == part)[0])
            strands = points[first + index] + offset * scale
            tones = np.asarray(self.look.hair)[None] * np.linspace(0.55, 1.5, len(strands))[:, None]
            for strand, tone in zip(_smooth(strands, 40), tones):
                _line(canvas, strand, tone, 1)

    def _catch_light(
        self, canvas: np.ndarray, side: str, points: np.ndarray, focal: float, shot: Shot, scale: float
    ) -> None:
        spot = self.body.eyes[side] + EYE_RADIUS * np.array([0, 0, -1.0]) @ gaze_matrix(shot.gaze * 0.6).T
        world = shot.head_rotation @ spot + shot.head_translation + np.array([-0.22, -0.20, 0])
        at = world[:2] / world[2] * focal + self._principal(points, focal, shot)
        ring = points[self._face_start + np.array(EYE_RING[side])].astype(np.float32)
        if cv2.pointPolygonTest(ring, (float(at[0]), float(at[1])), True) > 0.09 * scale:
            _dot(canvas, at, 0.11 * scale, (0.97, 0.97, 0.98))

    def _principal(self, points: np.ndarray, focal: float, shot: Shot) -> np.ndarray:
        tip = (
            shot.head_rotation @ (self.body.neutral[10] + shot.arkit @ self.body.fields[:, 10]) + shot.head_translation
        )
        return points[self._face_start + 10] - tip[:2] / tip[2] * focal


@functools.lru_cache(maxsize=2)  # painting takes a second
def _textures(seed: int) -> dict[str, np.ndarray]:
    return textures(Look.of(seed), canonical_mesh()[2], seed)


def canonical_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MediaPipe's canonical face in head axes: vertices [468, 3], faces [898, 3], texture coordinates [468, 2]."""
    from avatar.assets.canonical_face import canonical_face

    vertices, uv, faces = canonical_face()
    return vertices.astype(float) * (1, -1, -1), faces, uv.astype(float)


def gaze_matrix(gaze: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of an eye in head axes: yaw to the person's left, pitch up, radians."""
    yaw, pitch = float(gaze[0]), float(gaze[1])
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    # the eye looks along -z; +yaw turns that towards +x, +pitch towards -y
    turn_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return turn_y @ turn_x


@functools.cache
def _spline(knots: int, count: int) -> np.ndarray:
    """[count, knots] matrix from points to a smooth curve through them."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.linspace(0, 1, knots), np.eye(knots))(np.linspace(0, 1, count))


def _smooth(points: np.ndarray, count: int = 24) -> np.ndarray:
    """A smooth curve [..., count, 2] through points [..., K, 2]."""
    return _spline(points.shape[-2], count) @ points


def _line(canvas: np.ndarray, points: np.ndarray, colour: Iterable[float], width: int) -> None:
    cv2.polylines(canvas, [np.round((points - 0.5) * 16).astype(np.int32)], False, [float(c) for c in colour], width,
                  cv2.LINE_8, 4)  # fmt: skip


def _dot(canvas: np.ndarray, at: np.ndarray, radius: float, colour: Iterable[float]) -> None:
    centre = (round(float(at[0] - 0.5) * 16), round(float(at[1] - 0.5) * 16))
    cv2.circle(canvas, centre, round(radius * 16), [float(c) for c in colour], -1, cv2.LINE_8, 4)


def _wisps(sign: float, rng: np.random.Generator, count: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """Loose strands: indices into one side's hair grid [count, along], and image offsets in centimetres."""
    along, across = hair_grid(sign).shape[:2]
    column = rng.choice(across, count, p=_wisp_columns(across))
    index = np.arange(along)[None] * across + column[:, None]
    fade = np.linspace(0, 1, along)[None, :, None]
    drift = rng.normal(0, 0.35, (count, 1, 2)) * fade + rng.normal(0, 0.10, (count, 1, 2))
    curl = 0.10 * np.sin(2 * np.pi * (rng.uniform(0.5, 2, (count, 1, 1)) * fade + rng.uniform(0, 1, (count, 1, 1))))
    return index, drift + curl * fade


def _wisp_columns(across: int) -> np.ndarray:
    weight = np.zeros(across)  # only where nothing is in front: the front edge and the outline
    weight[:2] = 4.0
    weight[across * 2 // 5 : across * 3 // 5] = 0.4
    return weight / weight.sum()
