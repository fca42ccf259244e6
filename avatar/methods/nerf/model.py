"""The model of method ``nerf``: a radiance field in head axes, composited over the Gaussians of neck and clothes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.backends import marcher
from avatar.errors import AvatarError
from avatar.fields.mesh_warp import MeshWarp
from avatar.fields.radiance import RadianceField
from avatar.fields.triplane import TriplaneHash
from avatar.geometry.cameras import Camera
from avatar.methods.base import Method, ParamGroup, Playback, RenderOutput
from avatar.methods.batch import Batch, Box
from avatar.methods.nerf.composite import (
    ALPHA,
    HIDDEN,
    RAYS_AT_ONCE,
    SPREAD,
    enlarged,
    smoothed_outline,
    sorted_by_depth,
)
from avatar.methods.nerf.config import NerfConfig
from avatar.methods.nerf.head_shape import FADE, neck_fade
from avatar.methods.nerf.hidden import hidden_error
from avatar.methods.nerf.occupancy import SEEN, Occupancy
from avatar.methods.nerf.rays import Rays, from_aside, head_rays, head_view, pixels_in, shown_in
from avatar.methods.nerf.torso import DRAWN
from avatar.methods.volume import Volume
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, LIP_CHANNELS, UPPER_CHANNELS
from avatar.native import FieldFeatures, FieldSpace, RaySamples, draw_field, sample_rays
from avatar.native.library import multiplies_bfloat16

if TYPE_CHECKING:
    from avatar.device import Precision
    from avatar.fields.radiance import Encoding
    from avatar.methods.gaussian.method import GaussianAvatar

BELOW = "torso."  # what the names of the tensors of the Gaussians begin with
_HALF = tuple(f"{BELOW}gaussians.{name}" for name in ("bind_weight", "colors", "quats", "scales"))  # in a model file
_ENLARGED = 1.25  # times as wide as training frames are images whose head is drawn smaller
WARMUP = 100  # steps of the networks and the encoding
# Channels of the condition (face, gaze, head rotation) by group: mouth, eyes, pose.
_GAZE, _POSE = len(CHANNELS), len(CHANNELS) + 2
GROUPS = (LIP_CHANNELS, (*UPPER_CHANNELS, _GAZE, _GAZE + 1), (_POSE, _POSE + 1, _POSE + 2))
_BEYOND = 1.25  # times their training range in which face channels move the head: farther, no cell holds the chin


@dataclass(frozen=True)
class Filmed:
    """Some training frames, as the tracker saw them.

    Attributes:
        motion: Their motion.
        camera: What filmed them.
    """

    motion: Motion
    camera: Camera


class Face(NamedTuple):
    """What a frame's face does to the field.

    Attributes:
        conditions: [G, H]; see `RadianceField.under`.
        moved: Displacements of the space around the face; see `MeshWarp.displacements`.
    """

    conditions: Tensor
    moved: Tensor


class Drawn(NamedTuple):
    """What the field alone shows on N rays.

    Attributes:
        rgb: [N, 3] premultiplied.
        alpha: [N].
        depth: [N] along the camera's axis, centimetres.
        spread: [N] variance of the depth of what is shown, times alpha, square centimetres; in training only.
        hidden: [N] error of what is not shown; see `hidden_error`; in training only.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    spread: Tensor
    hidden: Tensor


class NerfModel(Method):
    """One person as a radiance field of the head over Gaussians: what is learned, and how it is drawn.

    `avatar.methods.nerf.method.NerfAvatar` adds what needs it whole: making, sampling, callbacks, files.

    Attributes:
        field: The head.
        occupancy: Where there is something of it.
        warp: Where points of the moving head are when the face is at rest, where the field is evaluated.
        torso: All else of the person.
        filmed: Training frames that the occupancy grid is refreshed with; None in a model that is only drawn.
    """

    Config = NerfConfig
    parts: ClassVar[frozenset[str]] = frozenset({"head", "person"})
    config: NerfConfig

    def __init__(
        self, config: NerfConfig, torso: GaussianAvatar, occupancy: Occupancy, warp: MeshWarp, encoding: Encoding,
        filmed: Filmed | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, torso.background)
        self.torso = torso
        self.occupancy = occupancy
        self.warp = warp
        self.field = RadianceField(encoding, GROUPS, config.hidden, config.geometry)
        self.filmed = filmed
        self.march = marcher(config.marcher)
        self.seed, self.drawn = 0, 0  # of the training; times that rays were drawn in it: what jitter follows from
        self.per_ray = float(config.max_samples) / 2  # samples, a running mean
        self.half_weights = False  # of the networks, in playback only

    # -- training ----------------------------------------------------------------------------------------------------

    def param_groups(self) -> list[ParamGroup]:
        lr = self.config.lr
        encoding = list(self.field.encoding.parameters())
        network = [p for name, p in self.field.named_parameters() if not name.startswith("encoding.")]
        return [
            ParamGroup("field.encoding", encoding, lr.encoding, warmup=WARMUP),
            ParamGroup("field.network", network, lr.network, warmup=WARMUP),
            *self.torso.param_groups(),
        ]

    @property
    def condition_width(self) -> int:
        return self.torso.condition_width

    def regularizers(self, out: RenderOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        weights = self.config.loss
        alpha = out.aux[ALPHA]
        inside = alpha.clamp(1e-5, 1 - 1e-5)
        entropy = -(inside * inside.log() + (1 - inside) * (1 - inside).log())
        sure = ((batch.head - 0.5).abs() * 2).square()
        terms = {
            "entropy": weights.entropy * entropy.mean(),
            "distortion": weights.distortion * out.aux[SPREAD].mean(),
            "hidden": weights.hidden * out.aux[HIDDEN].mean(),
            "head": weights.head * ((alpha - batch.head).abs() * sure).mean(),
        }
        if DRAWN in out.aux:
            terms |= self.torso.regularizers(out.aux[DRAWN], batch, progress)
        return terms

    def stats(self) -> dict[str, int | float]:
        return self.torso.stats()

    def train_state(self) -> dict[str, Tensor]:
        whole = {f"{BELOW}{name}": value for name, value in self.torso.train_state().items()}
        pace = torch.tensor([self.drawn, self.per_ray], dtype=torch.float64)
        state = dict(self.state_dict()) | whole | {"pace": pace}
        del state[f"{BELOW}background"]  # is the model's own
        return state

    def load_train_state(self, tensors: dict[str, Tensor]) -> None:
        behind = {k[len(BELOW) :]: v for k, v in tensors.items() if k.startswith(BELOW)}
        self.torso.load_train_state(behind | {"background": tensors["background"]})
        own = {k: v for k, v in tensors.items() if not k.startswith(BELOW) and k != "pace"}
        missing, unknown = self.load_state_dict(own, strict=False)
        if unknown or any(not name.startswith(BELOW) for name in missing):
            raise KeyError(*unknown, *missing)
        drawn, self.per_ray = tensors["pace"].tolist()
        self.drawn = int(drawn)

    # -- rendering ---------------------------------------------------------------------------------------------------

    def forward(
        self, motion: Motion, index: int, camera: Camera, *, noise: Tensor | None = None,
        background: Tensor | None = None, with_depth: bool = False, part: str | None = None,
    ) -> RenderOutput:  # fmt: skip
        if part is not None and part not in self.parts:
            raise AvatarError(f"There is no part {part!r}.", fix=f"Known are {', '.join(sorted(self.parts))}.")
        motion, index = self._in_range(motion, index)
        head = self.head_image(motion, index, camera, noise)
        rgb, alpha = head.rgb, head.alpha
        if part is None and background is None:
            background = self.background_at(camera)
        if from_aside(motion, index, camera):
            others = shown = self.torso(motion, index, camera, noise=noise, with_depth=True, part="person")
            if part == "head":  # clothes hide it as well
                shown = self.torso(motion, index, camera, noise=noise, part=part)
            return sorted_by_depth(head, others, shown, background)
        behind = self.torso(motion, index, camera, noise=noise, background=background, with_depth=with_depth, part=part)
        through = 1 - alpha
        depth = None
        if with_depth and behind.depth is not None:
            hidden = through * behind.alpha
            depth = (alpha * head.aux["depth"] + hidden * behind.depth) / (alpha + hidden).clamp_min(1e-6)
        aux = {ALPHA: alpha, DRAWN: behind} | {name: head.aux[name] for name in (SPREAD, HIDDEN)}
        return RenderOutput(rgb + through * behind.rgb, alpha + through * behind.alpha, depth, aux)

    def forward_pixels(
        self, motion: Motion, index: int, camera: Camera, pixels: Tensor, *, noise: Tensor | None = None,
        background: Tensor | None = None,
    ) -> RenderOutput:  # fmt: skip
        head = self._draw_head(head_rays(motion, index, camera, pixels), self.face(motion, index, noise))
        with torch.no_grad():  # parts of frames train it
            behind = self.torso(motion, index, camera, noise=noise, part="person")
        x, y = pixels.unbind(-1)
        torso_alpha = behind.alpha[y, x]
        rgb = behind.rgb[y, x]
        if background is not None:
            rgb = rgb + (1 - torso_alpha) * background
        alpha = head.alpha[:, None]
        through = 1 - alpha
        aux = {ALPHA: alpha, SPREAD: head.spread[:, None], HIDDEN: head.hidden[:, None]}
        return RenderOutput(head.rgb + through * rgb, alpha + through * torso_alpha, head.depth[:, None], aux)

    def _in_range(self, motion: Motion, index: int) -> tuple[Motion, int]:
        """The frame with face channels that cells were kept for; training frames have such."""
        if self.training:
            return motion, index
        index %= len(motion)
        frame = motion[index : index + 1]
        return frame.map(face=self.torso.conditioner.in_range(frame.face, _BEYOND)), 0

    def face(self, motion: Motion, index: int, noise: Tensor | None = None) -> Face:
        """What the face of a frame does to the field; arguments as for :meth:`forward`."""
        conditions = self.field.under(self.torso.condition(motion, index, noise))
        return Face(conditions, self.warp.displacements(self.torso.basis, motion.face[index]))

    def evaluate(
        self, points: Float[Tensor, "N 3"], face: Face, *, bfloat16: bool = False
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Densities [N] per centimetre and colors [N, 3] of points [N, 3] in head axes."""
        rest = self.warp.at_rest(points, face.moved)
        density, color, _ = self.field(rest, face.conditions, bfloat16=bfloat16)
        return density * neck_fade(rest, self.occupancy.neck), color

    def seen(self, motion: Motion, index: int, camera: Camera) -> Tensor:
        motion, index = self._in_range(motion, index)
        head = self.head_image(motion, index, camera, draw=self._draw_seen)
        behind = self.torso(motion, index, camera, part="person").alpha[..., 0]
        through = 1 - head.alpha[..., 0]
        total = head.alpha[..., 0] + through * behind
        known = head.rgb[..., 0] + through * behind * self.torso.seen(motion, index, camera)
        return known / total.clamp_min(1e-6)

    def playback(self, precision: Precision = "auto") -> Playback:
        """Prepare fast drawing: that of the Gaussians, and over it the head where it can show.

        A frame larger than those of the training gets a head of their size, enlarged: it has no finer detail.
        """
        behind = self.torso.playback(precision)
        gains = self.device.type == "cpu" and multiplies_bfloat16()
        self.half_weights = precision == "bfloat16" or (precision == "auto" and gains)

        @torch.inference_mode()
        def draw(camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
            if from_aside(motion, index, camera):  # not what it is for
                return self.draw(camera, motion, index, background)
            motion, index = self._in_range(motion, index)
            image = behind(camera, motion, index, background)
            (x0, y0, x1, y1), head = self._head_as_filmed(motion, index, camera)
            part = image[y0:y1, x0:x1]
            mixed = torch.addcmul(head[..., :3] * 255, 1 - head[..., 3:], part.float())
            part.copy_(mixed.add_(0.5).clamp_(0, 255).to(torch.uint8))
            return image

        return draw

    def head_box(self, motion: Motion, index: int) -> Tensor:
        field, around = self.occupancy.box.new_tensor(self.occupancy.held), self.torso.head_box(motion, index)
        return torch.stack([torch.minimum(field[0], around[0]), torch.maximum(field[1], around[1])])

    def volume(self, motion: Motion, index: int) -> Volume:
        face, grid = self.face(*self._in_range(motion, index)), self.occupancy

        def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
            density, color = self.evaluate(points, face)
            return density * grid.holds(points) * grid.behind_front(points), color

        return Volume(grid.box, evaluate)

    def reference_motion(self, fps: float) -> Motion:
        return self.torso.reference_motion(fps)

    @property
    def pivot(self) -> Tensor:
        return self.torso.pivot

    # -- the head ----------------------------------------------------------------------------------------------------

    def samples(self, rays: Rays, face: Face, *, blunt: bool = False) -> tuple[RaySamples, Tensor, Tensor]:
        """Samples of rays, their densities [S] and colors [S, 3]; ``blunt`` as for `Occupancy.behind_front`."""
        config, grid = self.config, self.occupancy
        jitter = None
        if self.training:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.drawn)
            jitter = torch.rand(len(rays.origins), generator=generator).to(rays.origins.device)
            self.drawn += 1
        samples = sample_rays(
            rays.origins, rays.directions, grid.corners, grid.bits, config.step_cm, config.max_samples, jitter=jitter
        )
        if self.training and len(rays.origins):
            self.per_ray += 0.1 * (max(len(samples.starts) / len(rays.origins), 0.1) - self.per_ray)
        half = self.half_weights and not torch.is_grad_enabled()
        density, color = self.evaluate(samples.positions, face, bfloat16=half)
        if not self.training:  # a field that trains against its own front might wear it away
            density = density * grid.behind_front(samples.positions, blunt=blunt)
        return samples, density, color

    def _draw_head(self, rays: Rays, face: Face) -> Drawn:
        samples, densities, colors = self.samples(rays, face)
        values = colors
        if self.training:  # the moments of the depth go along as colors
            along = 0.5 * (samples.starts + samples.ends) - rays.middle
            values = torch.cat([colors, along[:, None], along.square()[:, None]], 1)
        image, alpha, depth = self.march(samples.offsets, samples.starts, samples.ends, densities, values)
        spread = hidden = torch.zeros_like(alpha)
        if self.training:
            first, second = image[:, 3], image[:, 4]
            spread = (second - first.square() / alpha.clamp_min(1e-3)).clamp(min=0)
            hidden = hidden_error(samples, densities, colors, image[:, :3] / alpha.clamp_min(1e-3)[:, None])
        return Drawn(image[:, :3], alpha, depth * rays.slope, spread, hidden)

    def _draw_seen(self, rays: Rays, face: Face) -> Drawn:
        """How well training frames showed what is on rays: in each of the colors."""
        samples, densities, colors = self.samples(rays, face)
        known = self.occupancy.seen.view(-1)[self.occupancy.cells(samples.positions, SEEN)].float() / 255
        values = known[:, None].expand_as(colors).contiguous()
        image, alpha, depth = self.march(samples.offsets, samples.starts, samples.ends, densities, values)
        nothing = torch.zeros_like(alpha)
        return Drawn(image, alpha, depth * rays.slope, nothing, nothing)

    @torch.no_grad()
    def shares(self, motion: Motion, index: int, camera: Camera, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the samples on rays in the image: the derivative of its sum by a sample's color.

        Args:
            motion, index, camera: As for :meth:`forward`.
            pixels: [N, 2] x, y.

        Returns:
            Places [S, 3] in head axes, and shares [S] of a pixel.
        """
        rays = head_rays(motion, index, camera, pixels)
        samples, densities, colors = self.samples(rays, self.face(motion, index), blunt=True)
        with torch.enable_grad():
            values = torch.ones_like(colors[:, :1]).requires_grad_()
            image, _, _ = self.march(samples.offsets, samples.starts, samples.ends, densities, values)
            (shares,) = torch.autograd.grad(image.sum(), values)
        return samples.positions, shares[:, 0]

    def _head_part(
        self, motion: Motion, index: int, camera: Camera, noise: Tensor | None = None,
        draw: Callable[[Rays, Face], Drawn] | None = None,
    ) -> tuple[Box, list[Tensor]]:  # fmt: skip
        """The head alone where it can show: the part of the image; what `Drawn` holds in it, [h, w, C]."""
        draw = draw or self._draw_head
        x0, y0, x1, y1 = box = shown_in(self.occupancy.corners, motion, index, camera)
        pixels = pixels_in(box, camera)
        face = self.face(motion, index, noise)
        step = max(len(pixels), 1) if torch.is_grad_enabled() else RAYS_AT_ONCE
        parts = [draw(head_rays(motion, index, camera, part), face) for part in pixels.split(step)]
        columns = zip((3, 1, 1, 1, 1), zip(*parts, strict=True), strict=True)
        values = [torch.cat(values).view(y1 - y0, x1 - x0, channels) for channels, values in columns]
        if not self.training and draw == self._draw_head:

            def at(places: Tensor) -> Tensor:
                drawn = self._draw_head(head_rays(motion, index, camera, places - 0.5), face)
                return torch.cat([drawn.rgb, drawn.alpha[:, None], (drawn.alpha * drawn.depth)[:, None]], 1)

            rgb, alpha, depth = values[:3]
            image = smoothed_outline(torch.cat([rgb, alpha, alpha * depth], -1), box, at)
            alpha = image[..., 3:4]
            values[:3] = image[..., :3], alpha, image[..., 4:] / alpha.clamp_min(1e-12)
        return box, values

    def _head_as_filmed(self, motion: Motion, index: int, camera: Camera) -> tuple[Box, Tensor]:
        """Part of the image, and the head in it, with no more rays across than a training frame has.

        Returns:
            The part, and color times opacity and opacity in it, [h, w, 4].
        """
        filmed = round(
            camera.width / camera.enlarged
        )  # a view of the whole frame is wider, and as fine as the training
        if camera.width < _ENLARGED * filmed:
            return self._head_drawn(motion, index, camera)
        small = camera.resized(filmed, round(camera.height * filmed / camera.width))
        return enlarged(*self._head_drawn(motion, index, small), small, camera)

    def _head_drawn(self, motion: Motion, index: int, camera: Camera) -> tuple[Box, Tensor]:
        """Part of the image, and the head in it, as :meth:`_head_as_filmed` returns it."""
        encoding = self.field.encoding
        if self.device.type != "cpu" or not isinstance(encoding, TriplaneHash):
            box, (rgb, alpha, *_) = self._head_part(motion, index, camera)
            return box, torch.cat([rgb, alpha], -1)
        box = shown_in(self.occupancy.held, motion, index, camera)
        if box[0] == box[2] or box[1] == box[3]:
            return box, self.background.new_zeros(box[3] - box[1], box[2] - box[0], 4)
        face, grid = self.face(motion, index), self.occupancy
        space = FieldSpace(
            grid.corners, grid.held, grid.bits, self.config.step_cm, self.config.max_samples, grid.front, grid.rise,
            (*grid.neck.tolist(), FADE), face.moved[0], self.warp.corners,
        )  # fmt: skip
        features = FieldFeatures(encoding.bounds, encoding.table, encoding.sizes)
        layers = self.field.layers(face.conditions)
        view = head_view(motion, index, camera)

        def draw(where: Box | Tensor) -> Tensor:
            return draw_field(*view, where, space, features, layers, bfloat16=self.half_weights)

        return box, smoothed_outline(draw(box), box, draw)

    def head_image(
        self, motion: Motion, index: int, camera: Camera, noise: Tensor | None = None,
        draw: Callable[[Rays, Face], Drawn] | None = None,
    ) -> RenderOutput:  # fmt: skip
        """The head alone; ``aux`` holds the rest of `Drawn`."""
        (x0, y0, x1, y1), parts = self._head_part(motion, index, camera, noise, draw)
        around = (0, 0, x0, camera.width - x1, y0, camera.height - y1)
        rgb, alpha, depth, spread, hidden = (torch.nn.functional.pad(part, around) for part in parts)
        return RenderOutput(rgb, alpha, depth, {"depth": depth, SPREAD: spread, HIDDEN: hidden})


def checkpoint_of(model: NerfModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and options of a model file; see `Method.checkpoint`."""
    torso, shape = model.torso.checkpoint()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(BELOW)}
    state |= {f"{BELOW}{name}": value for name, value in torso.items() if name != "background"}
    state |= {name: state[name].half() for name in _HALF}
    if "field.encoding.table" in state:  # other encodings keep theirs as it is
        state["field.encoding.table"] = state["field.encoding.table"].half()
    return state, {"field": model.config.shape(), "torso": shape}
