"""The occupancy grid: which cells of the head's box hold something under some condition of the training.

As in Instant-NGP (Mueller et al. 2022), a decaying maximum of the density decides. Each refresh looks at random cells
under the conditions of random training frames, so what only some frames show, such as an open mouth, stays.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avatar.methods.nerf.head_shape import CELLS, HeadShape, cell_centres
from avatar.native import pack_occupancy

SEEN = 32  # cells along each axis of what training frames showed
DECAY = 0.95
FORGET = 0.92  # a cell that no frame shows is left out after some 55 looks
HIDDEN = 0.01  # share of a pixel below which a cell is not shown
_AROUND = (5, 3, 3)  # cells along z, y and x around one that is shown, which stay: deeper, for views from the side
EMPTY = 0.1  # density per centimetre below which a cell is left out
DENSE = 1.0  # density from which the neighbours of a cell are looked at as well
TRAINING = ("density", "shown", "hull", "cavity")  # tensors that only training needs
_SMOOTH = 1.5  # cells: standard deviation of the Gaussian that evens out the front of the cells ...
_BEFORE = 0.5  # ... how far before what comes out it is put, so that little of what was cells is lost ...
_RISE = 0.5  # ... and within how many cells the density rises behind it
_EDGE = 0.75  # share of cells nearby, half of them at a straight edge, below which the front falls back ...
_FALL = 6.0  # ... by so many centimetres times what is missing: evenly, so that it ends along a line


class Occupancy(nn.Module):
    """Cells of the head's box that hold something.

    Attributes:
        box: [2, 3] corners, head axes, centimetres.
        neck: [3] where the head ends; see `avatar.methods.nerf.head_shape.neck_plane`.
        bits: uint8 [Z, Y, X/8] cells that are sampled, as `avatar.native.sample_rays` takes them.
        front: [Y, X] depth before which cells hold nothing, centimetres; follows from ``bits``, see `measure_front`.
        blunt: [Y, X] the same without the fall at the edge of the cells.
        seen: uint8 [SEEN, SEEN, SEEN] how well training frames showed a cell, 255 for well; known after training.
        density: [Z, Y, X] decaying maximum, per centimetre; training only.
        shown: [Z, Y, X] decaying maximum of a cell's share of a pixel; training only.
        hull: bool [Z, Y, X] cells that may ever be sampled; training only.
        cavity: bool [Z, Y, X] cells in the mouth: so few frames show them that looks would miss them; training only.
    """

    box: Tensor
    neck: Tensor
    bits: Tensor
    front: Tensor
    blunt: Tensor
    seen: Tensor
    density: Tensor
    shown: Tensor
    hull: Tensor
    cavity: Tensor

    def __init__(self, head: HeadShape) -> None:
        super().__init__()
        self.register_buffer("box", head.box)
        self.register_buffer("neck", head.neck)
        self.register_buffer("bits", pack_occupancy(head.first))
        self.register_buffer("seen", torch.full((SEEN,) * 3, 255, dtype=torch.uint8))
        self.register_buffer("density", head.first.float() * DENSE, persistent=False)
        self.register_buffer("hull", head.hull, persistent=False)
        self.register_buffer("cavity", head.cavity, persistent=False)
        self.register_buffer("shown", torch.ones_like(self.density), persistent=False)
        self._corners: list[list[float]] | None = None
        self._held: list[list[float]] | None = None
        self.register_buffer("front", torch.zeros(CELLS, CELLS), persistent=False)
        self.register_buffer("blunt", torch.zeros(CELLS, CELLS), persistent=False)
        self.measure_front()

    @staticmethod
    def empty() -> Occupancy:
        """One of the right shapes, to load a checkpoint into."""
        none = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.bool)
        box = torch.tensor([[-1.0] * 3, [1.0] * 3])
        return Occupancy(HeadShape(box, none, none, none, torch.zeros(3), torch.zeros(0, 3)))

    @property
    def corners(self) -> list[list[float]]:
        """The box on the host: reading it off a GPU would wait for it."""
        if self._corners is None:
            self._corners = self.box.tolist()
        return self._corners

    @property
    def held(self) -> list[list[float]]:
        """Corners of what is sampled, in steps of 8 cells along x, on the host; the box's where nothing is."""
        if self._held is None:
            filled = [(self.bits != 0).any(a).any(b).nonzero()[:, 0] for a, b in ((0, 0), (0, 1), (1, 1))]
            if len(filled[0]) == 0:
                return self.corners
            counts = self.box.new_tensor([CELLS // 8, CELLS, CELLS])
            ends = torch.stack([torch.stack([at[0], at[-1] + 1]) for at in filled], 1)
            self._held = (self.box[0] + ends / counts * (self.box[1] - self.box[0])).tolist()
        return self._held

    @property
    def rise(self) -> float:
        """Depth behind the front within which the density rises, centimetres."""
        low, high = self.corners
        return (high[2] - low[2]) / CELLS * _RISE

    def holds(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """1 for points [N, 3] in cells that are sampled, else 0; head axes."""
        at = self._places(points, CELLS)
        inside = ((at >= 0) & (at < CELLS)).all(-1)
        x, y, z = at.clamp(0, CELLS - 1).unbind(-1)
        return (inside & (self.bits[z, y, x >> 3].long() >> (x & 7) & 1).bool()).float()

    def measure_front(self) -> None:
        """Even out the front of the cells that are sampled; call it when ``bits`` changed.

        The field is often opaque from the first cell on, because a video from the front does not tell how deep it is.
        So its surface has the steps of the cells. A view from the front hides them, and one from aside does not. At
        the edge of the cells the front falls back, so that the outline of the field has no steps either.
        """
        self._held = None
        bits = self.bits
        held = (bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1).flatten(2)
        from_back = torch.arange(CELLS, 0, -1, dtype=torch.uint8, device=bits.device)
        first = (held * from_back[:, None, None]).amax(0).float()  # quicker than argmax; 0 where there is no cell
        there = (first > 0).float()
        depth, near, around = _blurred(torch.stack([(CELLS - first) * there, there, torch.ones_like(there)]))
        low, size = self.box[0, 2], (self.box[1, 2] - self.box[0, 2]) / CELLS
        self.blunt = low + (depth / near.clamp_min(1e-6) - _BEFORE) * size
        self.front = self.blunt + (_EDGE - near / around).clamp_min(0) * _FALL

    @torch.no_grad()
    def behind_front(self, points: Float[Tensor, "N 3"], *, blunt: bool = False) -> Float[Tensor, " N"]:
        """Weight [N] of the density in points [N, 3], head axes: 0 before the front, 1 a little behind it.

        Args:
            points: Where.
            blunt: Whether the front does not fall back at its edge. What is cut there would else be looked at no more
                and left out, and the new edge cut again.
        """
        low, high = self.box
        scale = 2 / (high - low)
        unit = torch.addcmul(-1 - (low * scale)[:2], points[:, :2], scale[:2])
        front = self.blunt if blunt else self.front
        depth = nn.functional.grid_sample(
            front[None, None], unit[None, None], padding_mode="border", align_corners=False
        )
        return ((points[:, 2] - depth[0, 0, 0]) * (CELLS / _RISE / (high[2] - low[2]))).clamp(0, 1)

    def cells(self, points: Float[Tensor, "N 3"], count: int = CELLS) -> Tensor:
        """Flat indices [N] of the cells, ``count`` along each axis, that points [N, 3] in head axes are in."""
        x, y, z = self._places(points, count).clamp(0, count - 1).unbind(-1)
        return (z * count + y) * count + x

    def _places(self, points: Tensor, count: int) -> Tensor:
        return ((points - self.box[0]) / (self.box[1] - self.box[0]) * count).floor().long()

    def candidates(self) -> Tensor:
        """Indices of the cells that a refresh chooses from: those that are sampled, and neighbours of dense ones."""
        near = _largest_near(self.density, (3, 3, 3)) > DENSE
        return ((near | (self.density > EMPTY)) & self.hull).view(-1).nonzero()[:, 0]

    def update(self, cells: Tensor, density: Float[Tensor, " N"]) -> None:
        """Enter the density [N] that was found in cells [N], and mark what holds something."""
        flat = self.density.view(-1)
        flat[cells] = torch.maximum(flat[cells] * DECAY, density)
        self._mark()

    def look(self, points: Float[Tensor, "N 3"], shares: Float[Tensor, " N"]) -> None:
        """Leave out what no frame shows.

        What lies behind a surface is never learnt, so its density would stay, and cost most of the samples.

        Args:
            points: [N, 3] head axes.
            shares: [N] that they have of a pixel.
        """
        self.shown *= FORGET
        self.shown.view(-1).scatter_reduce_(0, self.cells(points), shares, "amax")
        self._mark()

    def _mark(self) -> None:
        near = _largest_near(self.shown, _AROUND) > HIDDEN
        held = (self.density > EMPTY) & self.hull & (near | self.cavity)
        self.bits = pack_occupancy(held | (_walls(held) & self.hull))
        self.measure_front()

    def places(self, cells: Tensor, jitter: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Points in cells, head axes; ``jitter`` [N, 3] is from -0.5 to 0.5."""
        size = (self.box[1] - self.box[0]) / CELLS
        return cell_centres(self.box)[cells] + jitter * size

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self._corners = None
        self.measure_front()


def _walls(held: Bool[Tensor, "Z Y X"]) -> Bool[Tensor, "Z Y X"]:
    """Cells from the front of each column to the deepest front beside it, which close what is a slit from the side."""
    depth = torch.arange(CELLS, device=held.device)
    first = CELLS - (held * (CELLS - depth)[:, None, None]).amax(0)  # quicker than argmax; CELLS where there is none
    fronts = torch.where(first < CELLS, first, -1).float()
    deepest = nn.functional.max_pool2d(fronts[None, None], 3, 1, 1)[0, 0]
    return (depth[:, None, None] >= first) & (depth[:, None, None] <= deepest)


def _largest_near(grid: Float[Tensor, "Z Y X"], around: tuple[int, int, int]) -> Float[Tensor, "Z Y X"]:
    """The largest value within so many cells along z, y and x, an odd number: ten times as fast as `max_pool3d`."""
    for axis, count in enumerate(around):
        largest = grid.clone()
        for away in range(1, count // 2 + 1):
            rest = grid.shape[axis] - away
            for to, of in ((away, 0), (0, away)):
                part = largest.narrow(axis, to, rest)
                torch.maximum(part, grid.narrow(axis, of, rest), out=part)
        grid = largest
    return grid


def _blurred(images: Float[Tensor, "N Y X"]) -> Float[Tensor, "N Y X"]:
    """Images, smoothed by a Gaussian; zero beyond their borders."""
    reach = round(3 * _SMOOTH)
    weights = torch.arange(-reach, reach + 1, device=images.device).div(_SMOOTH).square().mul(-0.5).exp()
    weights = weights / weights.sum()
    along_x = nn.functional.conv2d(images[:, None], weights.view(1, 1, 1, -1), padding=(0, reach))
    return nn.functional.conv2d(along_x, weights.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]
