"""The model of method ``nerf``: a radiance field in head axes, composited over the Gaussians of neck and clothes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.backends import marcher
from avatar.errors import AvatarError
from avatar.fields.radiance import RadianceField
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.base import Method, ParamGroup, RenderOutput, Volume
from avatar.methods.batch import Batch, Box
from avatar.methods.nerf.config import NerfConfig
from avatar.methods.nerf.coverage import measure_seen
from avatar.methods.nerf.head_shape import neck_fade
from avatar.methods.nerf.occupancy import Occupancy
from avatar.methods.nerf.torso import DRAWN
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, LIP_CHANNELS, UPPER_CHANNELS
from avatar.native import RaySamples, sample_rays

if TYPE_CHECKING:
    from avatar.fields.radiance import Encoding
    from avatar.methods.gaussian.method import GaussianAvatar

RAYS_AT_ONCE = 32_768  # of an image that is not trained on
WARMUP = 100  # steps of the networks and the encoding
# Channels of the condition (face, gaze, head rotation) by group: mouth, eyes, pose.
_GAZE, _POSE = len(CHANNELS), len(CHANNELS) + 2
GROUPS = (LIP_CHANNELS, (*UPPER_CHANNELS, _GAZE, _GAZE + 1), (_POSE, _POSE + 1, _POSE + 2))
ALPHA, SPREAD = "head_alpha", "spread"  # names in `RenderOutput.aux`


class Rays(NamedTuple):
    """Rays in head axes.

    Attributes:
        origins, directions: [N, 3], the latter of length 1.
        slope: [N] part of a direction along the camera's axis.
        middle: [] distance from the camera to the head's origin, centimetres.
    """

    origins: Tensor
    directions: Tensor
    slope: Tensor
    middle: Tensor


class Drawn(NamedTuple):
    """What the field alone shows on N rays.

    Attributes:
        rgb: [N, 3] premultiplied.
        alpha: [N].
        depth: [N] along the camera's axis, centimetres.
        spread: [N] variance of the depth of what is shown, times alpha, square centimetres; in training only.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    spread: Tensor


class NerfModel(Method):
    """One person as a radiance field of the head over Gaussians: what is learned, and how it is drawn.

    `avatar.methods.nerf.method.NerfAvatar` adds what needs it whole: making, sampling, callbacks, files.

    Attributes:
        field: The head.
        occupancy: Where there is something of it.
        torso: All else of the person.
        filmed: [K, condition] conditions of training frames; training only.
    """

    Config = NerfConfig
    parts: ClassVar[frozenset[str]] = frozenset({"head", "person"})
    config: NerfConfig
    filmed: Tensor

    def __init__(
        self, config: NerfConfig, torso: GaussianAvatar, occupancy: Occupancy, encoding: Encoding, filmed: Tensor
    ) -> None:
        super().__init__(config, torso.background)
        self.torso = torso
        self.occupancy = occupancy
        self.field = RadianceField(encoding, GROUPS, config.hidden, config.geometry)
        self.register_buffer("filmed", filmed, persistent=False)
        self.march = marcher(config.marcher)
        self.drawn = 0  # times that rays were drawn in training: what their jitter follows from
        self.per_ray = float(config.max_samples) / 2  # samples, a running mean

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
            "head": weights.head * ((alpha - batch.head).abs() * sure).mean(),
        }
        if DRAWN in out.aux:
            terms |= self.torso.regularizers(out.aux[DRAWN], batch, progress)
        return terms

    def stats(self) -> dict[str, int | float]:
        return self.torso.stats()

    def train_state(self) -> dict[str, Tensor]:
        whole = {f"torso.{name}": value for name, value in self.torso.train_state().items()}
        pace = torch.tensor([self.drawn, self.per_ray], dtype=torch.float64)
        return dict(self.state_dict()) | whole | {"pace": pace}

    def load_train_state(self, tensors: dict[str, Tensor]) -> None:
        below = "torso."
        self.torso.load_train_state({k[len(below) :]: v for k, v in tensors.items() if k.startswith(below)})
        own = {k: v for k, v in tensors.items() if not k.startswith(below) and k != "pace"}
        missing, unknown = self.load_state_dict(own, strict=False)
        if unknown or any(not name.startswith(below) for name in missing):
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
        head = self._head_image(motion, index, camera, noise)
        rgb, alpha = head.rgb, head.alpha
        if part == "head":
            return RenderOutput(rgb, alpha)
        if part is None and background is None:
            background = self.background_at(camera)
        behind = self.torso(
            motion, index, camera, noise=noise, background=background, with_depth=with_depth, part=part
        )
        through = 1 - alpha
        depth = None
        if with_depth and behind.depth is not None:
            hidden = through * behind.alpha
            depth = (alpha * head.aux["depth"] + hidden * behind.depth) / (alpha + hidden).clamp_min(1e-6)
        aux = {ALPHA: alpha, SPREAD: head.aux[SPREAD], DRAWN: behind}
        return RenderOutput(rgb + through * behind.rgb, alpha + through * behind.alpha, depth, aux)

    def forward_pixels(
        self, motion: Motion, index: int, camera: Camera, pixels: Tensor, *, noise: Tensor | None = None,
        background: Tensor | None = None,
    ) -> RenderOutput:  # fmt: skip
        head = self._draw_head(self._rays(motion, index, camera, pixels), self._condition(motion, index, noise))
        with torch.no_grad():  # parts of frames train it
            behind = self.torso(motion, index, camera, noise=noise, part="person")
        x, y = pixels.unbind(-1)
        torso_alpha = behind.alpha[y, x]
        rgb = behind.rgb[y, x]
        if background is not None:
            rgb = rgb + (1 - torso_alpha) * background
        alpha = head.alpha[:, None]
        through = 1 - alpha
        aux = {ALPHA: alpha, SPREAD: head.spread[:, None]}
        return RenderOutput(head.rgb + through * rgb, alpha + through * torso_alpha, head.depth[:, None], aux)

    def density(self, points: Float[Tensor, "N 3"], condition: Float[Tensor, " C"]) -> Float[Tensor, " N"]:
        """Density [N] per centimetre of points [N, 3] in head axes under a condition [C]."""
        found = self.field(points, self.field.under(condition))[0]
        return found * neck_fade(points, self.occupancy.neck)

    def seen(self, motion: Motion, index: int, camera: Camera) -> Tensor:
        head = self._head_image(motion, index, camera, draw=self._draw_seen)
        behind = self.torso(motion, index, camera, part="person").alpha[..., 0]
        through = 1 - head.alpha[..., 0]
        total = head.alpha[..., 0] + through * behind
        known = head.rgb[..., 0] + through * behind * self.torso.seen(motion, index, camera)
        return known / total.clamp_min(1e-6)

    def finish(self, motion: Motion, camera: Camera) -> None:
        with torch.no_grad():
            self.occupancy.seen = measure_seen(self, motion, camera)
        self.torso.finish(motion, camera, lambda index: 1 - self._head_image(motion, index, camera).alpha)

    def volume(self, motion: Motion, index: int) -> Volume:
        conditions = self._condition(motion, index, None)
        grid = self.occupancy

        def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
            density, color, _ = self.field(points, conditions)
            return density * neck_fade(points, grid.neck) * grid.holds(points), color

        return Volume(grid.box, evaluate)

    def reference_motion(self, fps: float) -> Motion:
        return self.torso.reference_motion(fps)

    @property
    def pivot(self) -> Tensor:
        return self.torso.pivot

    # -- the head ----------------------------------------------------------------------------------------------------

    def _condition(self, motion: Motion, index: int, noise: Tensor | None) -> Tensor:
        return self.field.under(self.torso.condition(motion, index, noise))

    def _rays(self, motion: Motion, index: int, camera: Camera, pixels: Tensor) -> Rays:
        """Rays through pixels [N, 2], in head axes; gradients reach the head's pose."""
        origin, directions = camera.rays(pixels)
        turn, place = axis_angle_to_matrix(motion.head_rotation[index]), motion.head_translation[index]
        length = directions.norm(dim=-1)
        origins = ((origin - place) @ turn).expand(len(pixels), 3)
        return Rays(origins, directions @ turn / length[:, None], 1 / length, (place - origin).norm().detach())

    def _samples(self, rays: Rays, conditions: Tensor) -> tuple[RaySamples, Tensor, Tensor]:
        """Samples of rays, their densities [S] and colors [S, 3]."""
        config, grid = self.config, self.occupancy
        jitter = None
        if self.training:
            generator = torch.Generator().manual_seed(self.drawn)
            jitter = torch.rand(len(rays.origins), generator=generator).to(rays.origins.device)
            self.drawn += 1
        samples = sample_rays(
            rays.origins, rays.directions, grid.corners, grid.bits, config.step_cm, config.max_samples, jitter=jitter
        )
        if self.training and len(rays.origins):
            self.per_ray += 0.1 * (max(len(samples.starts) / len(rays.origins), 0.1) - self.per_ray)
        densities, colors, _ = self.field(samples.positions, conditions)
        return samples, densities * neck_fade(samples.positions, grid.neck), colors

    def _draw_head(self, rays: Rays, conditions: Tensor) -> Drawn:
        samples, densities, colors = self._samples(rays, conditions)
        if self.training:  # the moments of the depth go along as colors
            along = 0.5 * (samples.starts + samples.ends) - rays.middle
            colors = torch.cat([colors, along[:, None], along.square()[:, None]], 1)
        image, alpha, depth = self.march(samples.offsets, samples.starts, samples.ends, densities, colors)
        spread = torch.zeros_like(alpha)
        if self.training:
            first, second = image[:, 3], image[:, 4]
            spread = (second - first.square() / alpha.clamp_min(1e-3)).clamp(min=0)
        return Drawn(image[:, :3], alpha, depth * rays.slope, spread)

    def _draw_seen(self, rays: Rays, conditions: Tensor) -> Drawn:
        """How well training frames showed what is on rays: in each of the colors."""
        samples, densities, colors = self._samples(rays, conditions)
        known = self.occupancy.seen.view(-1)[self.occupancy.cells_of_seen(samples.positions)].float() / 255
        values = known[:, None].expand_as(colors).contiguous()
        image, alpha, depth = self.march(samples.offsets, samples.starts, samples.ends, densities, values)
        return Drawn(image, alpha, depth * rays.slope, torch.zeros_like(alpha))

    def shares(self, motion: Motion, index: int, camera: Camera) -> Iterator[tuple[Tensor, Tensor]]:
        """Share [S] of an image, in pixels, that each sample has, and the cell [S] of `Occupancy.seen` that it is in.

        Args:
            motion, index, camera: As for :meth:`forward`.
        """
        pixels = self._pixels(self._reach(motion, index, camera), camera)
        conditions = self._condition(motion, index, None)
        for part in pixels.split(RAYS_AT_ONCE):
            samples, densities, colors = self._samples(self._rays(motion, index, camera, part), conditions)
            with torch.enable_grad():
                values = torch.ones_like(colors[:, :1]).requires_grad_()
                image, _, _ = self.march(samples.offsets, samples.starts, samples.ends, densities, values)
                (weights,) = torch.autograd.grad(image.sum(), values)
            yield self.occupancy.cells_of_seen(samples.positions), weights[:, 0]

    def _head_image(
        self, motion: Motion, index: int, camera: Camera, noise: Tensor | None = None,
        draw: Callable[[Rays, Tensor], Drawn] | None = None,
    ) -> RenderOutput:  # fmt: skip
        """The head alone; ``aux`` holds depth and spread."""
        draw = draw or self._draw_head
        height, width = camera.height, camera.width
        x0, y0, x1, y1 = box = self._reach(motion, index, camera)
        pixels = self._pixels(box, camera)
        conditions = self._condition(motion, index, noise)
        step = len(pixels) if torch.is_grad_enabled() else RAYS_AT_ONCE
        parts = [
            draw(self._rays(motion, index, camera, part), conditions)
            for part in (pixels.split(step) if len(pixels) else [pixels])
        ]
        around = (0, 0, x0, width - x1, y0, height - y1)
        rgb, alpha, depth, spread = (
            torch.nn.functional.pad(torch.cat(values).view(y1 - y0, x1 - x0, channels), around)
            for channels, values in zip((3, 1, 1, 1), zip(*parts, strict=True), strict=True)
        )
        return RenderOutput(rgb, alpha, depth, {"depth": depth, SPREAD: spread})

    def _pixels(self, box: Box, camera: Camera) -> Tensor:
        """Pixels [N, 2] of a part of an image."""
        x0, y0, x1, y1 = box
        device = camera.viewmat.device
        y, x = torch.meshgrid(torch.arange(y0, y1, device=device), torch.arange(x0, x1, device=device), indexing="ij")
        return torch.stack([x, y], -1).view(-1, 2)

    def _reach(self, motion: Motion, index: int, camera: Camera) -> Box:
        """The part of an image that the head's box can show in."""
        whole = (0, 0, camera.width, camera.height)
        with torch.no_grad():
            ends = torch.tensor(self.occupancy.corners)
            corners = torch.stack(torch.meshgrid(*ends.unbind(1), indexing="ij"), -1).view(-1, 3)
            turn = axis_angle_to_matrix(motion.head_rotation[index]).cpu()
            world = corners @ turn.T + motion.head_translation[index].cpu()
            viewmat = camera.viewmat.cpu()
            local = world @ viewmat[:3, :3].T + viewmat[:3, 3]
            if float(local[:, 2].min()) < 1.0 or not bool(torch.isfinite(local).all()):
                return whole
            pixels = local[:, :2] / local[:, 2:] * camera.focal + torch.tensor([camera.cx, camera.cy])
            low, high = pixels.amin(0).floor().tolist(), pixels.amax(0).ceil().tolist()
        x0, y0 = (int(min(max(v, 0), n)) for v, n in zip(low, whole[2:], strict=True))
        x1, y1 = (int(min(max(v, a), n)) for v, a, n in zip(high, (x0, y0), whole[2:], strict=True))
        return x0, y0, x1, y1


def checkpoint_of(model: NerfModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and options of a model file; see `Method.checkpoint`."""
    torso, shape = model.torso.checkpoint()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("torso.")}
    state |= {f"torso.{name}": value for name, value in torso.items() if name != "background"}
    if "field.encoding.table" in state:  # other encodings keep theirs as it is
        state["field.encoding.table"] = state["field.encoding.table"].half()
    return state, {"field": model.config.shape(), "torso": shape}
