"""The synthetic person in front of a camera: pose and coefficients in, image and exact landmarks out."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import cv2
import numpy as np

from avatar.geometry.mesh import vertex_normals
from avatar.motion.arkit import INDEX
from avatar.synth.appearance import Appearance
from avatar.synth.body import EYE_RADIUS, IRIS_RADIUS, Body, build_body
from avatar.synth.paint import Look, textures
from avatar.synth.raster import draw_ids, interpolate
from avatar.synth.shapes import EYE_RING, LIDS
from avatar.synth.shot import Shot, gaze_matrix
from avatar.synth.strands import CatchLight, LooseHair, Strand, draw_catch_light, draw_line, lashes, short_strands

REGIONS = ("nobody", "face", "hair", "neck", "clothes")
_REGION_OF = {
    "hair": "hair",
    "back_hair": "hair",
    "neck": "neck",
    "scalp": "neck",
    "shirt": "clothes",
    "collar": "clothes",
}
TORSO_PIVOT = np.array([0.0, 30.0, 6.0])  # rest coordinates
_KEY = np.array([-0.45, -0.55, -0.75]) / np.linalg.norm([0.45, 0.55, 0.75])
_FILL = np.array([0.75, -0.10, -0.65]) / np.linalg.norm([0.75, 0.10, 0.65])


class Subject:
    """A synthetic person.

    Args:
        seed: Which person; 0 is the one of the documentation.
        rest: World position [3] of the head's origin at rest; the torso stands below it.
        detail: Texture size relative to the full one (powers of two down to 1/4); small images need less.
        appearance: Hair, glasses and collar.

    Attributes:
        body: Its surfaces at rest, and how the face moves.
        faces: [F, 3] triangles of all surfaces.
        region: uint8 [F] index into ``REGIONS``.
        one_sided: [F] triangles that are not seen from behind.
        texture_at: [V, 2] places in ``atlas``, RGB float32 [h, w, 3].
        face_start: Vertex that is the first of the face.
    """

    def __init__(
        self, seed: int = 0, rest: np.ndarray | None = None, detail: float = 1.0, appearance: Appearance | None = None
    ) -> None:
        self.seed, self.detail, self.appearance = seed, detail, appearance or Appearance()
        vertices, faces, uv = canonical_mesh()
        self.look = Look.of(seed)
        self.body: Body = build_body(vertices, faces, uv, seed, self.appearance)
        self.rest = np.array([0.0, 0.0, 90.0]) if rest is None else np.asarray(rest, float)
        self._assemble(_textures(seed), detail)
        rng = np.random.default_rng(seed)
        sides = ((2, 1.0), (3, -1.0)) if self.appearance.hair == "long" else ()
        self._loose = {part: LooseHair(sign, rng) for part, sign in sides}

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
        self.atlas = cv2.resize(atlas, None, fx=detail, fy=detail, interpolation=cv2.INTER_AREA)

        start, corners, faces, part_of, nearer = 0, [], [], [], []
        for number, part in enumerate(parts):
            h, w = images[part.name].shape[:2]
            corners.append((part.uv * (w - 2, h - 2) + (1, tops[part.name] + 1)) * detail - 0.5)
            faces.append(part.faces + start)
            part_of.append(np.full(len(part.vertices), number))
            nearer.append(np.full(len(part.faces), part.nearer))
            start += len(part.vertices)
        self.faces = np.concatenate(faces)
        self._nearer = np.concatenate(nearer)
        regions = [REGIONS.index(_REGION_OF.get(p.name, "face")) for p in parts]
        self.region = np.concatenate([np.full(len(p.faces), r, np.uint8) for p, r in zip(parts, regions, strict=True)])
        self.one_sided = np.concatenate([np.full(len(p.faces), p.name == "skin") for p in parts])
        self.texture_at = np.concatenate(corners)
        self._vertices = np.concatenate([p.vertices for p in parts])
        self._head = np.concatenate([p.head for p in parts])[:, None]
        self._part_of = np.concatenate(part_of)
        fields = np.concatenate([p.fields for p in parts], 1)
        moving = np.flatnonzero(np.abs(fields).max((0, 2)) > 0)
        self._moving, self._fields = moving, fields[:, moving].reshape(len(fields), -1).astype(np.float32)
        names_of = np.array([p.name for p in parts])[self._part_of]
        self._is_skin = np.isin(names_of, ("skin", "neck", "scalp", "ear"))
        self._is_face = names_of == "skin"
        self._is_hair = names_of == "hair"
        self._is_wet = np.isin(names_of, ("eye", "socket", "upper_teeth", "lower_teeth", "tongue"))
        eyes = [i for i, p in enumerate(parts) if p.name == "eye"]
        self._eye_vertices = {side: np.flatnonzero(self._part_of == i) for side, i in zip(("Right", "Left"), eyes)}
        self.face_start = int(np.flatnonzero(self._part_of == len(parts) - 1)[0])
        self._outward = np.array([p.outward for p in parts])[self._part_of]
        self._inside_mouth = np.isin(names_of, ("upper_teeth", "lower_teeth", "tongue"))

    def posed(self, shot: Shot) -> np.ndarray:
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
        world = self.posed(shot)
        points = world[:, :2] / world[:, 2:] * focal + (cx, cy)
        corners = points[self.faces]
        visible = (corners.max(1) > 0).all(1) & (corners.min(1) < (width, height)).all(1)
        e, f = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]  # skin seen from behind is never seen
        visible &= np.where(self.one_sided, -area, np.abs(area)) > 0.05
        depth = world[self.faces, 2].mean(1) - self._nearer
        order = np.flatnonzero(visible)
        order = order[np.argsort(-depth[order], kind="stable")]
        ids = draw_ids(points, order, self.faces, width, height)
        attributes = np.concatenate([self.texture_at, self.light(world)], 1)
        covered, values = interpolate(ids, points, self.faces, attributes[self.faces])
        canvas.reshape(-1, 3)[covered] = self.colours(values)
        self._finish(canvas, world, shot, focal, np.array([cx, cy]))

    def colours(self, values: np.ndarray) -> np.ndarray:
        """Shade pixels: RGB float32 [P, 3] from places in the atlas and light, [P, 4] of ``texture_at`` and `light`."""
        # remap wants images narrower than 32768 pixels: fold the list of pixels into rows
        columns = 8192
        folded = np.zeros((-(-len(values) // columns) * columns, 2), np.float32)
        folded[: len(values)] = values[:, :2]
        folded = folded.reshape(-1, columns, 2)
        # no second map; an empty array in its place is not the same and brings in uninitialised memory
        texels = cv2.remap(self.atlas, folded, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore
        return texels.reshape(-1, 3)[: len(values)] * values[:, 2:3] + values[:, 3:4]

    def light(self, world: np.ndarray, camera: np.ndarray | None = None) -> np.ndarray:
        """[V, 2] factor on the texture, and white light added: key, fill and ambient on surfaces facing the camera.

        Args:
            world: [V, 3] from :meth:`posed`. The lights stand still in the world.
            camera: Where the camera is [3]; by default at the origin, as filmed.
        """
        normals = vertex_normals(world, self.faces)
        view = (0 if camera is None else camera) - world
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        behind = (normals * view).sum(1) * self._outward < 0
        # of a sheet both sides are seen; skin ends where it turns away, and must not be lit there as if it did not
        normals *= np.where(((normals * view).sum(1, keepdims=True) < 0) & ~self._is_face[:, None], -1, 1)
        key = np.clip((normals @ _KEY + 0.30) / 1.30, 0, None)
        fill = np.clip(normals @ _FILL, 0, None)
        facing = np.clip((normals * view).sum(1), 0, 1)
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
            lid = world[self.face_start + LIDS[side]["upper"][4], 1]
            light[index] = 0.62 + 0.36 * np.clip((world[index, 1] - lid) / 0.55, 0, 1)
        opening = world[self.face_start + 14, 1] - world[self.face_start + 13, 1]
        inside = np.flatnonzero(self._inside_mouth)
        light[inside] *= 0.62 + 0.38 * np.clip(opening / 1.2, 0, 1)
        return np.stack([light, shine], 1)

    def strands(self, world: np.ndarray, shot: Shot) -> Iterator[Strand]:
        """Lashes and loose hair of a posed subject, in the order in which they are drawn."""
        distance = shot.head_translation[2]
        for side in ("Right", "Left"):
            yield from lashes(world[self.face_start :], side, distance)
        for part, loose in self._loose.items():
            yield from loose.strands(world[self._part_of == part], self.look.hair, distance)
        if self.body.fuzz is not None:
            yield from short_strands(self.body.fuzz @ shot.head_rotation.T + shot.head_translation, self.look.hair)

    def catch_light(self, world: np.ndarray, shot: Shot, side: str) -> CatchLight:
        """The reflection on an eye of a posed subject; it stays where the filming camera sees it."""
        spot = self.body.eyes[side] + EYE_RADIUS * np.array([0, 0, -1.0]) @ gaze_matrix(shot.gaze * 0.6).T
        point = shot.head_rotation @ spot + shot.head_translation + np.array([-0.22, -0.20, 0])
        return CatchLight(point, world[self.face_start + np.array(EYE_RING[side])])

    def _finish(self, canvas: np.ndarray, world: np.ndarray, shot: Shot, focal: float, centre: np.ndarray) -> None:
        """Lashes, loose hair and catch lights: lines and dots on top."""
        scale = focal / shot.head_translation[2]  # pixels per centimetre

        def project(points: np.ndarray) -> np.ndarray:
            return points[..., :2] / points[..., 2:] * focal + centre

        for strand in self.strands(world, shot):
            draw_line(canvas, project(strand.points), strand.colour, max(1, round(strand.width * scale)))
        for side in ("Right", "Left"):
            light = self.catch_light(world, shot, side)
            draw_catch_light(canvas, project(light.point), project(light.opening), scale)


@functools.lru_cache(maxsize=2)  # painting takes a second
def _textures(seed: int) -> dict[str, np.ndarray]:
    return textures(Look.of(seed), canonical_mesh()[2], seed)


def canonical_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MediaPipe's canonical face in head axes: vertices [468, 3], faces [898, 3], texture coordinates [468, 2]."""
    from avatar.assets.canonical_face import canonical_face

    vertices, uv, faces = canonical_face()
    return vertices.astype(float) * (1, -1, -1), faces, uv.astype(float)
