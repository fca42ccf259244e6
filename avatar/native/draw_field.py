"""A radiance field drawn in one pass as a torch operator, for playback on a CPU: no sample reaches memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import float_tensor, image_size, number
from avatar.native.frames import FieldFeatures, FieldSpace
from avatar.native.library import multiplies_bfloat16, runs_native
from avatar.native.operators import Kernels, operator
from avatar.native.radiance_mlp import checked_network
from avatar.native.sample_rays import checked_box, checked_occupancy, checked_steps
from avatar.native.triplane_encode import checked_grid

_ACROSS = 16  # places side by side, where they take the place of pixels: a tile of the kernel is some that follow on
DARKEST = 1 / 1024  # a quarter of a level of an image of 8 bits


def draw_field(
    origin: Sequence[float], matrix: Sequence[Sequence[float]], box: tuple[int, int, int, int] | Tensor,
    space: FieldSpace, features: FieldFeatures, network: Sequence[Tensor], *, darkest: float = DARKEST,
    bfloat16: bool = False,
) -> Tensor:  # fmt: skip
    """Draw part of an image of a radiance field, or places in it; there is no gradient.

    The samples are those of :func:`avatar.native.sample_rays`. Each is taken to where it is at rest, evaluated by
    :func:`avatar.native.triplane_encode` and :func:`avatar.native.radiance_mlp`, and they are added up as by
    :func:`avatar.native.march_rays`.

    Args:
        origin: [3] of all rays, head axes, centimetres.
        matrix: [3, 3] takes (x, y, 1), in pixels, to the direction of a ray, of any length.
        box: x0, y0, x1, y1 of the part of the image, pixels, x1 and y1 excluded; or places [N, 2] x, y in it.
        space: Where the field is.
        features: Its tri-plane.
        network: Its networks: what :func:`avatar.native.radiance_mlp` takes after the features.
        darkest: A ray ends where less of the light behind it shows; 0 to 1.
        bfloat16: As for :func:`avatar.native.radiance_mlp`.

    Returns:
        [y1 - y0, x1 - x0, 4] or [N, 4]: color times opacity, and opacity.

    Raises:
        AvatarError: Wrong shapes, dtypes or numbers, or a gradient is asked for.
    """
    table, sizes = checked_grid(features.table, features.resolutions)
    if isinstance(box, Tensor):
        float_tensor("places", box, ("N", 2), like=table)
    else:
        image_size(box[2] - box[0], box[3] - box[1])
    bounds, corners, held, around = (checked_box(b) for b in (features.bounds, space.box, space.held, space.moved_box))
    occupancy = checked_occupancy(space.occupancy, table)
    checked_steps(corners, space.step, space.max_samples)
    number("rise", space.rise, 1e-6)
    number("darkest", darkest, 0, 1)
    view = [float(v) for row in (origin, *matrix) for v in row]
    neck = [float(v) for v in space.neck]
    if len(view) != 12 or len(neck) != 4 or not all(math.isfinite(v) for v in (*view, *neck)) or neck[3] <= 0:
        raise AvatarError("origin, matrix and neck are", why=f"{view[:3]}, {view[3:]}, {neck}.",
                          fix="Give finite numbers, [3], [3, 3] and [4], the last of them positive.")  # fmt: skip
    front = float_tensor("front", space.front, ("B", "B"), like=table)
    moved = float_tensor("moved", space.moved, (3, "G", "G", "G"), like=table)
    parameters, units = checked_network(table.new_empty(0, 3 * len(sizes) * table.shape[3]), network)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (table, front, moved, *parameters)):
        raise AvatarError("draw_field has no gradient;", why="an argument requires one.",
                          fix="Use sample_rays, triplane_encode, radiance_mlp and march_rays.")  # fmt: skip
    if table.device.type != "cpu" or not runs_native(table):
        return reference.draw_field(origin, matrix, box, space, features, parameters)
    half = bfloat16 and table.dtype == torch.float32 and multiplies_bfloat16()
    flat = torch.cat([x.flatten() for x in parameters])
    lists = (corners, held, neck, around, bounds, sizes, list(units))
    numbers = (space.step, space.max_samples, space.rise, darkest, half)
    if not isinstance(box, Tensor):
        return _draw(occupancy, front, moved, table, flat, None, view, list(box), *lists, *numbers)
    rows = len(box) // _ACROSS + 1
    places = F.pad(box, (0, 0, 0, rows * _ACROSS - len(box)))
    image = _draw(occupancy, front, moved, table, flat, places, view, [0, 0, _ACROSS, rows], *lists, *numbers)
    return image.view(-1, 4)[: len(box)]


def _image(
    occupancy: Tensor, front: Tensor, moved: Tensor, table: Tensor, parameters: Tensor, places: Tensor | None,
    view: Sequence[float], box: Sequence[int], corners: Sequence[float], held: Sequence[float], neck: Sequence[float],
    around: Sequence[float], bounds: Sequence[float], resolutions: Sequence[int], units: Sequence[int], step: float,
    max_samples: int, rise: float, darkest: float, half: bool,
) -> Tensor:  # fmt: skip
    """[h, w, 4]; places: [h * w, 2], or None; units: as `_samples` of `avatar.native.radiance_mlp` takes them."""
    return table.new_empty(box[3] - box[1], box[2] - box[0], 4)


def _compute(native: Kernels, *inputs: Any) -> Tensor:
    occupancy, front, moved, table, parameters, places, view, box, corners, held, neck = inputs[:11]
    around, bounds, resolutions, units, step, max_samples, rise, darkest, half = inputs[11:]
    image = _image(*inputs)
    name = "draw_field_bf16" if half else "draw_field"
    work = native.workspace(f"{name}_workspace", table, *native.threads, *units)
    doubles = [torch.tensor(v, dtype=torch.float64) for v in (view, corners, held, neck, around, bounds)]
    levels, rows, features = table.shape[1:]
    native.call(
        *(name, table, doubles[0], *box[:2], box[2] - box[0], box[3] - box[1], places),
        *(*doubles[1:3], occupancy),
        *(*occupancy.shape, step, darkest, max_samples, front, *front.shape, rise, doubles[3], moved),
        *(*moved.shape[:0:-1], *doubles[4:], table, torch.tensor(resolutions, dtype=torch.int32)),
        *(levels, rows, features, *units, parameters, image, work),
    )
    return image


_draw = operator("draw_field", _image, _compute)
