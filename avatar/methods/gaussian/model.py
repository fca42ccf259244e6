"""Method ``gaussian``: canonical Gaussians, moved by head pose, face mesh and a learned deformation field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from avatar.backends import EncodingName, RendererName, renderer, require
from avatar.checks import Record, picture_size
from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.fields.baked_basis import BakedField
from avatar.fields.deformation import Deformation, DeformationField
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.fields.skinning import HeadRig, LandmarkBasis, Pose
from avatar.fields.triplane import TriplaneHash
from avatar.geometry.cameras import Camera
from avatar.geometry.landmarks import landmarks_to_head
from avatar.io.arrays import check_range, check_tensors, load_state
from avatar.io.checkpoint import load_tensors
from avatar.methods.condition import Conditioner
from avatar.methods.gaussian.init import reference_frame, seeds
from avatar.motion import Motion
from avatar.motion.face_channels import NUM_LANDMARKS

if TYPE_CHECKING:
    from avatar.fields.deformation import Encoding


FORMAT = "avatar-model-4"
# Of the numbers in a configuration, both included.
RANGES = {
    "initial_gaussians": (1, 10**7), "max_gaussians": (1, 10**7), "levels": (0, 32), "features": (1, 16),
    "coarsest": (1, 4096), "finest": (1, 4096), "log2_table": (1, 24), "embedding": (0, 1024), "hidden": (1, 1024),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """Shape of the model."""

    initial_gaussians: int = 16_000
    """Gaussians at the start; density control grows them to max_gaussians."""
    max_gaussians: int = 30_000
    """Most Gaussians the density control may make."""
    levels: int = 8
    """Resolutions of the tri-plane; 0 leaves it out."""
    features: int = 2
    """Features per level and plane."""
    coarsest: int = 8
    """Cells across the scene at the coarsest level."""
    finest: int = 160
    """Cells across the scene at the finest level; coarse grids keep the deformation smooth."""
    log2_table: int = 15
    """Log2 of the entries per level and plane."""
    embedding: int = 0
    """Learned numbers per Gaussian that the deformation network reads beside the tri-plane's features."""
    deforms: tuple[Literal["means", "scales", "opacities", "colors"], ...] = (
        "means", "scales", "opacities", "colors",
    )  # fmt: skip
    """What the deformation network may change."""
    deform_torso: bool = False
    """Whether it changes clothes as well; they follow the torso's rig and warp in any case."""
    hidden: int = 64
    """Width of the deformation network."""
    renderer: RendererName = "native"
    """What draws the Gaussians. gsplat draws the same picture, on a CUDA GPU."""
    encoding: EncodingName = "native"
    """What encodes positions. A model keeps it: tinycudann (on a CUDA GPU) stores other numbers."""


class Rendering(NamedTuple):
    """What one frame's rendering yields.

    Attributes:
        image: [H, W, 3] RGB, background composited.
        alpha: [H, W, 1] coverage by the person.
        means2d: [N, 2] pixels; gradients are retained in training, for the density control.
        radii: [N] int32, 0 where a Gaussian was not drawn.
        deformation: The field's output, for regularisation.
    """

    image: Tensor
    alpha: Tensor
    means2d: Tensor
    radii: Tensor
    deformation: Deformation


class GaussianAvatar(nn.Module):
    """One person as Gaussians. Build with :meth:`from_person`, or empty with :meth:`blank` to load weights into."""

    plate: Tensor
    _cache: Tensor | None

    def __init__(
        self, config: GaussianConfig, gaussians: Gaussians, rig: HeadRig, basis: LandmarkBasis,
        conditioner: Conditioner, encoding: Encoding | None, plate: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.gaussians = gaussians
        self.rig = rig
        self.basis = basis
        self.conditioner = conditioner
        self.field = DeformationField(
            encoding, conditioner.width, config.hidden, embedding=config.embedding, deforms=config.deforms
        )
        self.register_buffer("plate", plate)
        self.baked: BakedField | None = None  # set for playback only
        self.code_dtype = torch.float32  # of the cached spatial code; bfloat16 is for playback, see `Avatar`
        self._cache = None

    @staticmethod
    def from_person(data: PersonDataset, config: GaussianConfig, seed: int) -> GaussianAvatar:
        """A model initialised from a prepared person; only training frames are looked at."""
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        frame = reference_frame(data)
        motion, train = data.motion, data.train_frames
        rig = HeadRig(
            motion.head_rotation[frame], motion.head_translation[frame], torch.from_numpy(data.torso_pivot),
            torch.from_numpy(data.warp_box),
        )  # fmt: skip
        lifted = landmarks_to_head(
            torch.from_numpy(np.asarray(data.landmarks[train])[..., :2]),
            torch.from_numpy(data.shape),
            motion.head_rotation[train],
            motion.head_translation[train],
            data.camera,
        )
        basis = LandmarkBasis.fit(motion.face[train], lifted - torch.from_numpy(data.shape), motion.gaze[frame])
        gaussians = Gaussians(seeds(data, rig, frame, config.initial_gaussians, rng), config.embedding)
        means = gaussians.means.detach()
        margin = 2.0
        bounds = torch.stack([means.quantile(0.002, 0) - margin, means.quantile(0.998, 0) + margin])
        encoding = make_encoding(config, bounds)
        plate = torch.from_numpy(data.background_image).float() / 255
        conditioner = Conditioner.fit(motion[train])
        return GaussianAvatar(config, gaussians, rig, basis, conditioner, encoding, plate)

    @staticmethod
    def read(path: Path, renderer: RendererName) -> tuple[GaussianAvatar, dict[str, Any]]:
        """The model of a file that training wrote.

        Args:
            path: The file.
            renderer: What draws it.

        Returns:
            The model, on the CPU, and what else the file says.

        Raises:
            AvatarError: It is missing, damaged or of another version; a tensor has another shape than the others ask
                for, or numbers that no model has; or its encoding is not available.
        """
        tensors, meta = load_tensors(path)
        if meta.get("format") != FORMAT:
            raise AvatarError(f"{path} was written by another version of the toolkit.", fix="Train it again.")
        about = Record(meta, path)
        about.text("method")
        config = read_config(about.record("config"), tensors, renderer)
        require(config.encoding, path.parent)
        sizes = check_tensors(tensors, path, {"gaussians.means": "N 3", "plate": "H W 3"}, {"plate": 256})
        picture_size(sizes["W"], sizes["H"], f"{path}: plate")
        if sizes["N"] < 1:
            raise AvatarError(f"{path} holds no Gaussians.", fix="Train it again.")
        model = GaussianAvatar.blank(config, count=sizes["N"], width=sizes["W"], height=sizes["H"])
        state = model.state_dict()
        for name, end in {"gaussians.bind_index": NUM_LANDMARKS, "gaussians.region": len(REGIONS)}.items():
            if name in tensors:
                check_range(tensors[name], f"{path}: {name}", end)
        tensors["plate"] = tensors["plate"].float() / 255
        name = "field.encoding.resolutions"
        if name in state and not torch.equal(state[name], tensors.get(name, torch.zeros(0))):
            raise AvatarError(f"{path}: {name} does not fit its configuration.", fix="Train it again.")
        load_state(model, tensors, path)
        return model, meta | {"count": sizes["N"], "width": sizes["W"], "height": sizes["H"]}

    @staticmethod
    def blank(config: GaussianConfig, *, count: int, width: int, height: int) -> GaussianAvatar:
        """A model of the right shapes with meaningless values, for ``load_state_dict``."""
        from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS

        zeros = torch.zeros
        encoding = make_encoding(config, torch.tensor([[-1.0] * 3, [1.0] * 3]))
        return GaussianAvatar(
            config, Gaussians.empty(count, config.embedding), HeadRig(zeros(3), zeros(3), zeros(3), zeros(2, 2)),
            LandmarkBasis(zeros(len(CHANNELS), NUM_LANDMARKS * 3), zeros(2)), Conditioner.fit(Motion.zeros(2, 25.0)),
            encoding, zeros(height, width, 3),
        )  # fmt: skip

    def packed(self) -> dict[str, Tensor]:
        """The state as it is stored: half of the size, and no grey level lost."""
        state = dict(self.state_dict())
        if "field.encoding.table" in state:  # other encodings keep theirs as it is
            state["field.encoding.table"] = state["field.encoding.table"].half()
        state["gaussians.bind_index"] = state["gaussians.bind_index"].to(torch.int16)
        state["plate"] = (state["plate"] * 255).round().to(torch.uint8)
        return state

    def train(self, mode: bool = True) -> GaussianAvatar:
        self._cache = None  # training moves what the cache was computed from
        return super().train(mode)

    def spatial_code(self) -> Tensor:
        """The part of the field that depends on canonical positions alone; cached outside training."""
        if self._cache is None:
            with torch.no_grad():
                code = self.field.spatial_code(*self._deformed())
            self._cache = code.to(self.code_dtype)
        return self._cache

    def deformation(self, condition: Tensor) -> Deformation:
        """What the field, or its baked basis, does to all Gaussians under a condition."""
        if self.training or torch.is_grad_enabled():
            change = self.field(*self._deformed(), condition)
        elif self.baked is not None:
            change = self.baked(self.field, self.spatial_code(), condition)
        else:
            change = self.field.from_code(self.spatial_code(), condition)
        still = len(self.gaussians) - len(change.means)
        return Deformation(*(nn.functional.pad(part, (0, 0, 0, still)) for part in change)) if still else change

    def _deformed(self) -> tuple[Tensor, Tensor]:
        """Positions and embeddings of the Gaussians that the field may change: the first ones."""
        g = self.gaussians
        count = len(g) if self.config.deform_torso else g.before_torso
        return g.means[:count], g.embedding[:count]

    def forward(
        self, motion: Motion, index: int, camera: Camera, *, noise: Tensor | None = None,
        background: Tensor | None = None, layer: Tensor | None = None,
    ) -> Rendering:  # fmt: skip
        """Render one frame.

        Args:
            motion: A motion track.
            index: Its frame to show.
            camera: Where from; like the motion, on the device of the model.
            noise: [condition] added to the condition (training augmentation).
            background: [H, W, 3] RGB behind the person; by default the plate.
            layer: [N, 1] 0..1. The image is then [H, W, 4], what these shares of the Gaussians add to the picture and
                their coverage, hidden by all Gaussians, over nothing.
        """
        g = self.gaussians
        change = self.deformation(self.condition(motion, index, noise))
        vertices = self.rig.rotate_to_canonical(self.basis(motion.face[index], motion.gaze[index]))
        means = g.means + g.displacement(vertices) + change.means
        pose = Pose(
            motion.head_rotation[index], motion.head_translation[index],
            motion.torso_rotation[index], motion.torso_translation[index], motion.torso_warp[index],
        )  # fmt: skip
        means, quats = self.rig(means, g.quats, torch.sigmoid(g.rig), pose)
        draw = renderer(self.config.renderer)
        radii, means2d, depths, conics = draw.project_gaussians(
            means, quats, (g.scales + change.scales).exp(), camera.viewmat, camera.K, camera.width, camera.height
        )
        if self.training and means2d.requires_grad:
            means2d.retain_grad()
        colors = g.colors + change.colors
        opacities = torch.sigmoid(g.opacities + change.opacities)[:, 0]
        if layer is not None:
            colors = torch.cat([colors * layer, layer], 1)
        elif background is None:
            background = self.background(camera)
        image, alpha = draw.rasterize(
            means2d, conics, colors, opacities, depths, radii, camera.width, camera.height, background=background
        )
        return Rendering(image, alpha, means2d, radii, change)

    def condition(self, motion: Motion, index: int, noise: Tensor | None = None) -> Tensor:
        """What the field is told about a frame, [condition]; arguments as in :meth:`forward`."""
        condition = self.conditioner(motion, index)
        return condition if noise is None else condition + noise

    def background(self, camera: Camera) -> Tensor:
        """The plate [H, W, 3] at the camera's size."""
        return resized(self.plate, camera)

    def reference_motion(self, fps: float) -> Motion:
        """One frame, on the CPU: the pose in which the canonical Gaussians are, the face at rest."""
        head = {"head_rotation": self.rig.head_rotation, "head_translation": self.rig.head_translation}
        return Motion.zeros(1, fps).map(**{name: value.detach().cpu()[None] for name, value in head.items()})

    @property
    def pivot(self) -> Tensor:
        """World point [3] inside the head at the reference pose: what free view turns around."""
        return self.rig.to_canonical(torch.tensor([0.0, 0.0, 3.0]).to(self.plate.device))


def make_encoding(config: GaussianConfig, bounds: Tensor) -> Encoding | None:
    """The encoding of canonical positions inside ``bounds`` [2, 3], as configured; None without any level.

    Raises:
        AvatarError: Its backend cannot run here, or the field would be told nothing about a Gaussian.
    """
    if config.levels == 0:
        if config.embedding == 0:
            raise AvatarError(
                "Without tri-plane and embedding the deformation field cannot tell Gaussians apart.",
                fix="Give --model.levels or --model.embedding.",
            )  # fmt: skip
        return None
    kind = TriplaneHash
    if config.encoding == "tinycudann":
        require(config.encoding)
        from avatar.backends.tinycudann import TinyCudaTriplane as kind
    return kind(
        bounds, levels=config.levels, features=config.features, coarsest=config.coarsest, finest=config.finest,
        log2_table=config.log2_table,
    )  # fmt: skip


def read_config(about: Record, tensors: dict[str, Tensor], renderer: RendererName) -> GaussianConfig:
    """The configuration of a model file, as far as its tensors bear it out: no number in it makes a model larger.

    Raises:
        AvatarError: A number is out of range, or the tensors have other sizes.
    """
    usual = GaussianConfig()  # of what older files do not say
    config = GaussianConfig(
        **{name: about.whole(name, *ends, getattr(usual, name)) for name, ends in RANGES.items()},
        deforms=tuple(about.names("deforms", list(usual.deforms))),  # pyright: ignore[reportArgumentType]
        deform_torso=about.flag("deform_torso", usual.deform_torso),
        encoding=about.text("encoding", usual.encoding),  # pyright: ignore[reportArgumentType]
        renderer=renderer,
    )
    if unknown := set(config.deforms) - set(Deformation._fields):
        raise AvatarError(f"{about.place('deforms')} names {min(unknown)!r}, which no model has.")
    if config.encoding not in get_args(EncodingName):
        raise AvatarError(f"{about.place('encoding')} is {config.encoding!r}, which is not known.")
    if config.coarsest > config.finest:
        raise AvatarError(f"{about.place('coarsest')} is larger than finest.")
    wanted: dict[str, tuple[int, ...]] = {"field.middle.weight": (config.hidden, config.hidden)}
    if config.embedding:
        wanted["gaussians.embedding"] = tuple(tensors.get("gaussians.means", torch.zeros(0)).shape[:1]) + (
            config.embedding,
        )
    if config.levels and config.encoding == "native":
        cells = config.finest if config.levels > 1 else config.coarsest
        entries = min(2**config.log2_table, (cells + 1) ** 2)
        wanted["field.encoding.table"] = (3, config.levels, entries, config.features)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise AvatarError(f"{about.where} asks for the tensor {name} of the shape {list(shape)}, "
                              f"and the file has {'none' if found is None else list(found)}.")  # fmt: skip
    return config


def resized(image: Tensor, camera: Camera) -> Tensor:
    """An image [H, W, 3] at the camera's size."""
    size = (camera.height, camera.width)
    if image.shape[:2] == size:
        return image
    return nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0].permute(
        1, 2, 0
    )
