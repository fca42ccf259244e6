"""The model of method ``gaussian``: canonical Gaussians, moved by skinning, face mesh and a deformation field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from avatar.errors import AvatarError
from avatar.fields.baked_basis import BakedField
from avatar.fields.deformation import Deformation, DeformationField
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.fields.skinning import LandmarkBasis, Pose, Skinning
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.base import PIVOT, Method, ParamGroup, RenderOutput
from avatar.methods.batch import Batch
from avatar.methods.condition import Conditioner
from avatar.methods.encoding import make_triplane
from avatar.methods.gaussian import coverage, losses
from avatar.methods.gaussian.config import GaussianConfig
from avatar.methods.gaussian.splats import Projected, Splats, project, rasterize
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS

if TYPE_CHECKING:
    from typing_extensions import Self

    from avatar.fields.deformation import Encoding

MEANS_FINAL = 0.01  # share of their learning rate that means end with
NETWORK_WARMUP = 100  # steps
# Gradients below which Gaussians move in shorter steps: a tenth of the usual ones. Adam would else move and stretch
# what no frame shows as fast as what all frames show, and spikes come out of the surface where nobody has looked.
STILL = {"means": 5e-7, "scales": 1.5e-7, "quats": 1.5e-7, "opacities": 2e-8, "colors": 4e-7, "skinning_weight": 5e-9}
_SHOWN, _STRAY = 0.3, 0.002  # opacity from which a Gaussian is part of the head; share of them that may stray out of it
BESIDE = ("color_prior", "anchor", "normal")  # of the Gaussians: what only training needs


class GaussianModel(Method):
    """One person as Gaussians: what is learned, how it is posed and drawn.

    `avatar.methods.gaussian.method.GaussianAvatar` adds what needs it whole: making, densification, playback, baking.
    """

    Config = GaussianConfig
    parts: ClassVar[frozenset[str]] = frozenset({"head", "person"})
    config: GaussianConfig
    held: Tensor
    _code: Tensor | None

    def __init__(
        self, config: GaussianConfig, gaussians: Gaussians, skinning: Skinning, basis: LandmarkBasis,
        conditioner: Conditioner, encoding: Encoding | None, background: Tensor,
    ) -> None:  # fmt: skip
        super().__init__(config, background)
        self.gaussians = gaussians
        self.skinning = skinning
        self.basis = basis
        self.conditioner = conditioner
        self.field = DeformationField(
            encoding, conditioner.width, config.hidden, embedding=config.embedding, deforms=config.deforms
        )
        self.register_buffer("held", torch.tensor([losses.HELD, losses.ALONG]), persistent=False)
        self.baked: BakedField | None = None  # set for playback only
        self.code_dtype = torch.float32  # of the cached spatial code; bfloat16 is for playback
        self._code = None
        self._head: Tensor | None = None
        self._neighbours: Tensor | None = None  # of each Gaussian, since the set last changed

    # -- making and storing ------------------------------------------------------------------------------------------

    @classmethod
    def blank(cls, config: GaussianConfig, *, count: int, width: int, height: int) -> Self:
        """A model of the right shapes with meaningless values, for ``load_state_dict``."""
        zeros = torch.zeros
        encoding = make_encoding(config, torch.tensor([[-1.0] * 3, [1.0] * 3]))
        return cls(
            config, Gaussians.empty(count, config.embedding), Skinning(zeros(3), zeros(3), zeros(3), zeros(2, 2)),
            LandmarkBasis(zeros(len(CHANNELS), NUM_LANDMARKS * 3), zeros(2)), Conditioner.fit(Motion.zeros(2, 25.0)),
            encoding, zeros(height, width, 3),
        )  # fmt: skip

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state = dict(self.state_dict())
        if "field.encoding.table" in state:  # other encodings keep theirs as it is
            state["field.encoding.table"] = state["field.encoding.table"].half()
        state["gaussians.bind_index"] = state["gaussians.bind_index"].to(torch.int16)
        return state, self.config.shape()

    def train_state(self) -> dict[str, Tensor]:
        beside = {name: getattr(self.gaussians, name) for name in BESIDE}
        state = dict(self.state_dict()) | {f"gaussians.{name}": value for name, value in beside.items()}
        return state if self._neighbours is None else state | {"neighbours": self._neighbours}

    def load_train_state(self, tensors: dict[str, Tensor]) -> None:
        count = tensors["gaussians.means"].shape[0]
        if count != len(self.gaussians):
            self.gaussians = Gaussians.empty(count, self.config.embedding).to(self.device)
        beside = (*(f"gaussians.{name}" for name in BESIDE), "neighbours")
        self.load_state_dict({name: value for name, value in tensors.items() if name not in beside})
        for name in BESIDE:
            setattr(self.gaussians, name, tensors[f"gaussians.{name}"].to(self.device, copy=True))
        self._neighbours = tensors["neighbours"].to(self.device) if "neighbours" in tensors else None

    # -- training ----------------------------------------------------------------------------------------------------

    def param_groups(self) -> list[ParamGroup]:
        lr = self.config.lr
        groups = [
            ParamGroup(f"gaussians.{name}", [getattr(self.gaussians, name)], getattr(lr, name),
                       final=MEANS_FINAL if name == "means" else None, eps=STILL.get(name, ParamGroup.eps))
            for name in self.gaussians.learned
        ]  # fmt: skip
        if self.field.encoding is not None:
            encoding = list(self.field.encoding.parameters())
            groups.append(ParamGroup("encoding", encoding, lr.encoding, warmup=NETWORK_WARMUP))
        network = [p for name, p in self.field.named_parameters() if not name.startswith("encoding.")]
        return [*groups, ParamGroup("network", network, lr.network, warmup=NETWORK_WARMUP)]

    @property
    def condition_width(self) -> int:
        return self.conditioner.width

    def sample(self, frame: Batch, progress: float, rng: np.random.Generator) -> Batch:
        if progress >= 1 or rng.random() >= self.config.loss.random_background:
            return frame
        color = torch.from_numpy(rng.random(3, dtype=np.float32))
        return frame.before(color.to(frame.image.device, non_blocking=True))

    def regularizers(self, out: RenderOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        weights, change = self.config.loss, out.aux["deformation"]
        terms = {"deformation": weights.deformation * losses.deformation_size(change)}
        if weights.color_prior:
            terms["color_prior"] = weights.color_prior * losses.color_distance(self.gaussians)
        if weights.scale_reg:
            terms["scale_reg"] = weights.scale_reg * losses.oversize(self.gaussians, weights.max_scale_cm)
        if weights.surface:
            terms["surface"] = weights.surface * losses.surface_distance(
                self.gaussians, self.held, weights.surface_slack_cm
            )
        if weights.thickness:
            terms["thickness"] = weights.thickness * losses.thickness(self.gaussians, weights.max_thickness_cm)
        if weights.smoothness:
            if self._neighbours is None:
                self._neighbours = losses.nearest_neighbours(self.gaussians.means)
            terms["smoothness"] = weights.smoothness * losses.roughness(change.means, self._neighbours)
        return terms

    def forget_neighbours(self) -> None:
        """Look for each Gaussian's neighbours again: the set has changed."""
        self._neighbours = None

    def stats(self) -> dict[str, int | float]:
        return {"gaussians": len(self.gaussians)}

    def train(self, mode: bool = True) -> Self:
        self._code = self._head = None  # training moves what they were computed from
        return super().train(mode)

    # -- rendering ---------------------------------------------------------------------------------------------------

    def forward(
        self, motion: Motion, index: int, camera: Camera, *, noise: Tensor | None = None,
        background: Tensor | None = None, with_depth: bool = False, part: str | None = None,
    ) -> RenderOutput:  # fmt: skip
        splats, change = self._posed(motion, index, noise)
        projected = project(splats, camera, self.config.renderer)
        if self.training and projected.means2d.requires_grad:
            projected.means2d.retain_grad()
        if part == "head":
            return self._draw_head(splats, projected, camera)
        if part is not None and part not in self.parts:
            raise AvatarError(f"There is no part {part!r}.", fix=f"Known are {', '.join(sorted(self.parts))}.")
        if part is None and background is None:
            background = self.background_at(camera)
        rgb, alpha, depth = rasterize(
            splats, projected, camera, background, self.config.renderer, with_depth=with_depth
        )
        aux = {"means2d": projected.means2d, "radii": projected.radii, "deformation": change}
        return RenderOutput(rgb, alpha, depth, aux)

    def seen(self, motion: Motion, index: int, camera: Camera) -> Tensor:
        splats = self.splats(motion, index)
        shown = replace(splats, colors=self.gaussians.seen[:, None].float() / 255)
        image, alpha, _ = rasterize(shown, project(splats, camera, self.config.renderer), camera, None,
                                    self.config.renderer)  # fmt: skip
        return image[..., 0] / alpha[..., 0].clamp_min(1e-6)

    def finish(self, motion: Motion, camera: Camera, before: Callable[[int], Tensor] | None = None) -> None:
        """Look back once training is over; see `Method.finish`.

        Args:
            motion, camera: As there.
            before: Gives [H, W, 1] of a frame, how much of the light what is before the Gaussians lets through.
        """
        visible = coverage.measure(
            lambda index: self.splats(motion, index), motion.head_rotation, camera, self.config.renderer, before
        )
        coverage.settle(self.gaussians, visible)
        self.gaussians.seen = (visible / coverage.WELL).clamp(0, 1).mul(255).round().to(torch.uint8)

    def splats(self, motion: Motion, index: int) -> Splats:
        """All Gaussians posed for one frame of a motion, in world space."""
        return self._posed(motion, index, None)[0]

    @torch.no_grad()
    def head_box(self, motion: Motion, index: int) -> Tensor:
        splats = self.splats(motion, index)
        head = (splats.region < REGIONS.index("neck")) & (splats.opacities > _SHOWN)
        turn = axis_angle_to_matrix(motion.head_rotation[index])
        places = (splats.means[head] - motion.head_translation[index]) @ turn
        return torch.stack([places.quantile(_STRAY, 0), places.quantile(1 - _STRAY, 0)])

    def _posed(self, motion: Motion, index: int, noise: Tensor | None) -> tuple[Splats, Deformation]:
        g = self.gaussians
        change = self.deformation(self.condition(motion, index, noise))
        vertices = self.skinning.rotate_to_canonical(self.basis(motion.face[index], motion.gaze[index]))
        means = g.means + g.displacement(vertices) + change.means
        pose = Pose(
            motion.head_rotation[index], motion.head_translation[index],
            motion.torso_rotation[index], motion.torso_translation[index], motion.torso_warp[index],
        )  # fmt: skip
        means, quats = self.skinning(means, g.quats, torch.sigmoid(g.skinning_weight), pose)
        scales = (g.scales + change.scales).exp()
        colors = g.colors + change.colors
        opacities = torch.sigmoid(g.opacities + change.opacities)[:, 0]
        return Splats(means, quats, scales, opacities, colors, g.region), change

    def _draw_head(self, splats: Splats, projected: Projected, camera: Camera) -> RenderOutput:
        """What the head's Gaussians add to an image that all of them make, and their share of its alpha."""
        weights = self.head()
        colors = torch.cat([splats.colors * weights, weights], 1)
        image, _, _ = rasterize(replace(splats, colors=colors), projected, camera, None, self.config.renderer)
        return RenderOutput(image[..., :3], image[..., 3:])

    def head(self) -> Tensor:
        """[N, 1] 1 for Gaussians of the head, else 0; cached outside training."""
        if self._head is None:
            from avatar.methods.gaussian.init import head_weights

            self._head = head_weights(self.gaussians)
        return self._head

    def spatial_code(self) -> Tensor:
        """The part of the field that depends on canonical positions alone; cached outside training."""
        if self._code is None:
            with torch.no_grad():
                code = self.field.spatial_code(*self._deformed())
            self._code = code.to(self.code_dtype)
        return self._code

    def deformation(self, condition: Tensor) -> Deformation:
        """Evaluate the field, or its baked basis, for all Gaussians under a condition."""
        if self.training or torch.is_grad_enabled():
            change = self.field(*self._deformed(), condition)
        elif self.baked is not None:
            change = self.baked(self.field, self.spatial_code(), condition)
        else:
            change = self.field.from_code(self.spatial_code(), condition)
        deforms = self.gaussians.region[: len(change.means), None] != REGIONS.index("eye")  # eyes turn, as they are
        change = Deformation(*(part * deforms for part in change))
        still = len(self.gaussians) - len(change.means)
        return Deformation(*(nn.functional.pad(part, (0, 0, 0, still)) for part in change)) if still else change

    def changes(self, condition: Tensor) -> Tensor:
        """Changes [M, 10] of the Gaussians that may deform, the first M, as :meth:`deformation` without gradients."""
        code = self.spatial_code()
        changes = (
            self.field.changes(code, condition)
            if self.baked is None
            else self.baked.changes(self.field, code, condition)
        )
        changes[self.gaussians.rows("eye")] = 0
        return changes

    @torch.no_grad()
    def all_changes(self, motion: Motion, index: int) -> Tensor:
        """Changes [N, 10] of all Gaussians before the skinning, face mesh and field together, on the CPU."""
        motion = motion[index : index + 1].to(self.device)
        vertices = self.skinning.rotate_to_canonical(self.basis(motion.face[0], motion.gaze[0]))
        changes = torch.cat(self.deformation(self.condition(motion, 0)), -1)
        changes[:, :3] += self.gaussians.displacement(vertices)
        return changes.cpu()

    def _deformed(self) -> tuple[Tensor, Tensor]:
        """Positions and embeddings of the Gaussians that the field may change: the first ones."""
        g = self.gaussians
        count = len(g) if self.config.deform_torso else g.before_torso
        return g.means[:count], g.embedding[:count]

    def condition(self, motion: Motion, index: int, noise: Tensor | None = None) -> Tensor:
        """Condition vector [condition] of the field in a frame; arguments as in :meth:`forward`."""
        condition = self.conditioner(motion, index)
        return condition if noise is None else condition + noise

    def reference_motion(self, fps: float) -> Motion:
        """One frame, on the CPU: the pose in which the canonical Gaussians are, the face at rest."""
        head = {"head_rotation": self.skinning.head_rotation, "head_translation": self.skinning.head_translation}
        return Motion.zeros(1, fps).map(**{name: value.detach().cpu()[None] for name, value in head.items()})

    @property
    def pivot(self) -> Tensor:
        return self.skinning.to_canonical(torch.tensor(PIVOT).to(self.device))


def make_encoding(config: GaussianConfig, bounds: Tensor) -> Encoding | None:
    """Make the encoding of canonical positions inside ``bounds`` [2, 3]; None without any level.

    Raises:
        AvatarError: Its backend cannot run here, or the field would have no input that differs between Gaussians.
    """
    if config.levels == 0:
        if config.embedding == 0:
            raise AvatarError(
                "Without tri-plane and embedding the deformation field cannot tell Gaussians apart.",
                fix="Give --model.levels or --model.embedding.",
            )
        return None
    return make_triplane(config, bounds)
