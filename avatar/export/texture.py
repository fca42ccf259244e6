"""A texture for a surface: charts that are seen from six sides, packed into a square, and colors baked into it.

A chart is a connected part of the surface that faces one of six directions, seen along it: most of it is hardly
distorted (its normals are less than 55 degrees off), and can be painted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt8
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from avatar.errors import AvatarError

GUTTER = 2  # texels around a chart, so that no neighbour shows where the texture is filtered
SMOOTHINGS = 6  # times that triangles take the direction of most neighbours: charts become fewer
OWN_VOTE = 1.5  # of a triangle that faces a direction exactly, in votes of a neighbour
SMALL, MERGES = 60, 4  # triangles of a chart that joins its neighbours, and how often that is done
DETAIL = (1.0, 1.0, 0.7, 0.7, 0.7, 2.0)  # enlargement of what faces each direction: the face is looked at most
LEAST_FACING = 0.3  # cosine: triangles are not seen from behind, nor nearly from their side
USED = 0.62  # share of the square that charts are first made for; less, until they fit
SHRINK = 0.96
_PAIRS_AT_ONCE, _POINTS_AT_ONCE = 2**19, 2**17  # a triangle and a texel of its box are a pair, of some 200 bytes
# For each direction, the axes of the surface that become u and v; v points down, so that charts stand upright.
_AXES = np.array([[2, 1], [2, 1], [0, 2], [0, 2], [0, 1], [0, 1]])

Color = Callable[[Float32[np.ndarray, "N 3"], Float32[np.ndarray, "N 3"]], Float32[np.ndarray, "N 3"]]


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """A surface whose vertices have places in a texture; those on borders of charts are there more than once.

    Attributes:
        source: [W] index of each vertex among those of the surface.
        texels: [W, 2] x and y in the texture, texels; pixel centres are at +0.5.
        faces: [F, 3] triangles of these vertices.
        size: Side of the texture.
    """

    source: Int[np.ndarray, " W"]
    texels: Float32[np.ndarray, "W 2"]
    faces: Int[np.ndarray, "F 3"]
    size: int


def unwrap(vertices: Float32[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], size: int) -> Unwrapped:
    """Give each triangle of a surface a place of its own in a square texture.

    Args:
        vertices: Of the surface, in any unit.
        faces: Its triangles.
        size: Side of the texture, texels.

    Raises:
        AvatarError: The texture is too small for so many charts.
    """
    direction = _directions(vertices, faces)
    chart, direction = _charts(faces, direction)
    keys, inverse = np.unique(np.stack([np.repeat(chart, 3), faces.ravel()], 1), axis=0, return_inverse=True)
    count = int(chart.max()) + 1
    of_chart = np.zeros(count, int)
    of_chart[chart] = direction
    flat = vertices[keys[:, 1][:, None], _AXES[of_chart[keys[:, 0]]]].astype(np.float64)
    flat *= np.array(DETAIL)[of_chart[keys[:, 0]]][:, None]
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, keys[:, 0], flat)
    np.maximum.at(high, keys[:, 0], flat)
    scale = size * np.sqrt(USED / np.prod(high - low, 1).sum())
    while (corners := _packed((high - low) * scale + 2 * GUTTER, size)) is None:
        scale *= SHRINK
        if scale * (high - low).max() < GUTTER:
            raise AvatarError(f"A texture of {size} pixels is too small.", fix="Give a larger --texture.")
    texels = corners[keys[:, 0]] + GUTTER + (flat - low[keys[:, 0]]) * scale
    return Unwrapped(keys[:, 1], texels.astype(np.float32), inverse.reshape(-1, 3), size)


def bake(
    unwrapped: Unwrapped, vertices: Float32[np.ndarray, "V 3"], outward: Float32[np.ndarray, "V 3"], color: Color
) -> UInt8[np.ndarray, "S S 3"]:
    """Make the texture: the color of the point of the surface that each texel shows.

    Args:
        unwrapped: From :func:`unwrap`.
        vertices, outward: Of the surface, with its normals.
        color: RGB 0..1 of points with their normals.
    """
    texel, points, normals = _texels(unwrapped, vertices, outward)
    # A triangle may be so small that it covers no texel: the texels at its corners then show them.
    at = unwrapped.texels.astype(int)
    corner = at[:, 1] * unwrapped.size + at[:, 0]
    alone = ~np.isin(corner, texel)
    texel, points, normals = (
        np.concatenate(pair)
        for pair in ((texel, corner[alone]), (points, vertices[unwrapped.source[alone]]),
                     (normals, outward[unwrapped.source[alone]]))
    )  # fmt: skip
    image = np.zeros((unwrapped.size**2, 3), np.float32)
    for first in range(0, len(texel), _POINTS_AT_ONCE):
        part = slice(first, first + _POINTS_AT_ONCE)
        image[texel[part]] = color(points[part], normals[part])
    filled = np.zeros(unwrapped.size**2, bool)
    filled[texel] = True
    square = (unwrapped.size, unwrapped.size)
    nearest = ndimage.distance_transform_edt(~filled.reshape(square), return_distances=False, return_indices=True)
    image = image.reshape(*square, 3)[tuple(np.asarray(nearest))]  # so that no gutter shows in smaller copies
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _directions(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which of six directions each triangle faces: 0 and 1 along x, 2 and 3 along y, 4 and 5 along z."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    along = np.stack([normal, -normal], -1).reshape(len(faces), 6)
    beside, direction = _neighbours(faces), along.argmax(1)
    for _ in range(SMOOTHINGS):
        votes = beside @ np.eye(6)[direction] + OWN_VOTE * along
        direction = np.where(along > LEAST_FACING, votes, -1).argmax(1)
    return direction


def _neighbours(faces: np.ndarray) -> sparse.csr_matrix:
    """Which triangles [F, F] share an edge."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    order = np.lexsort(edges.T)
    same = (edges[order][1:] == edges[order][:-1]).all(1)
    one, other = order[:-1][same] // 3, order[1:][same] // 3
    ones = np.ones(2 * len(one))
    pairs = (np.concatenate([one, other]), np.concatenate([other, one]))
    return sparse.csr_matrix((ones, pairs), shape=(len(faces), len(faces)))


def _charts(faces: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the chart of each triangle, and its direction: connected, and of one direction."""
    beside = _neighbours(faces)
    pairs = beside.tocoo()
    for left in range(MERGES, -1, -1):
        alike = direction[pairs.row] == direction[pairs.col]
        graph = sparse.csr_matrix((pairs.data[alike], (pairs.row[alike], pairs.col[alike])), shape=pairs.shape)
        chart = connected_components(graph, directed=False)[1]
        small = np.bincount(chart)[chart] < SMALL
        if not left:
            return chart, direction
        count = np.zeros((chart.max() + 1, 6))  # edges of each chart to others, by their direction
        np.add.at(count, (chart[pairs.row[~alike]], direction[pairs.col[~alike]]), 1)
        joined = count.argmax(1)[chart]
        direction = np.where(small & (count.sum(1)[chart] > 0), joined, direction)
    raise AssertionError


def _packed(sizes: np.ndarray, side: int) -> np.ndarray | None:
    """Corners [C, 2] of rectangles in rows of a square, the tallest first; None: they do not fit."""
    corners = np.zeros_like(sizes)
    across = along = tall = 0.0
    for index in np.argsort(-sizes[:, 1], kind="stable"):
        width, height = np.ceil(sizes[index])
        if across + width > side:
            across, along, tall = 0.0, along + tall, 0.0
        if across + width > side or along + height > side:
            return None
        corners[index] = across, along
        across, tall = across + width, max(tall, height)
    return corners


def _texels(
    unwrapped: Unwrapped, vertices: np.ndarray, outward: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All texels that triangles cover: their index in the texture, and the points and normals [N, 3] that they show."""
    found: list[tuple[np.ndarray, ...]] = []
    points, normals = vertices[unwrapped.source], outward[unwrapped.source]
    corners = unwrapped.texels.astype(np.float64)[unwrapped.faces]
    low = np.floor(corners.min(1)).astype(int)
    side = np.maximum(np.ceil(corners.max(1)).astype(int) - low, 1).max(1)
    order, first = np.argsort(-side, kind="stable"), 0
    while first < len(order):
        most = side[order[first]]  # the largest box of those that are looked at together
        chosen = order[first : first + max(1, _PAIRS_AT_ONCE // most**2)]
        first += len(chosen)
        a, b, c = (corners[chosen, k, None] for k in range(3))
        steps = np.stack(np.meshgrid(np.arange(most), np.arange(most), indexing="xy"), -1).reshape(-1, 2)
        at = low[chosen, None] + steps  # [F, P, 2]
        area = _cross(b - a, c - a)
        area = np.where(np.abs(area) < 1e-9, 1e-9, area)
        place = at + 0.5
        one, other = _cross(b - place, c - place) / area, _cross(c - place, a - place) / area
        weights = np.stack([one, other, 1 - one - other], -1)
        face, step = np.nonzero((weights > -1e-6).all(-1))
        share, ends = weights[face, step][:, :, None], unwrapped.faces[chosen[face]]
        index = at[face, step, 1] * unwrapped.size + at[face, step, 0]
        shown = [(share * each[ends]).sum(1).astype(np.float32) for each in (points, normals)]
        found.append((chosen[face], index, *shown))
    face, index, where, normal = (np.concatenate(part) for part in zip(*found, strict=True))
    back = np.argsort(face, kind="stable")  # of two triangles with a texel in common, the later one colors it
    return index[back], where[back], normal[back]


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
