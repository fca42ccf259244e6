"""What a method is: the interface between a trainable renderer and the rest of the toolkit (docs/new_methods.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.batch import Batch
from avatar.methods.options import QUALITIES, MethodConfig, TrainPreset
from avatar.motion import Motion

if TYPE_CHECKING:
    from typing_extensions import Self

    from avatar.backends import RendererName
    from avatar.data import PersonDataset
    from avatar.device import Precision
    from avatar.methods.animated import AnimatedGaussians
    from avatar.methods.volume import Volume

_REPORT = "Report it to those who wrote the method."
_BAKE = "Make Gaussians of the run: avatar bake RUN --out NEW"
PIVOT = (0.0, 0.0, 3.0)  # centimetres in head axes: inside the head


@dataclass(frozen=True)
class RenderOutput:
    """One rendered frame, or some of its pixels: ``image`` is then [N] in place of [H, W].

    Attributes:
        rgb: [H, W, 3] RGB 0..1, composited over the background; a new tensor, which the caller may change in place.
        alpha: [H, W, 1] coverage by the person, 0..1.
        depth: [H, W, 1] expected distance along the camera's axis, centimetres; only where it was asked for.
        aux: Tensors for the method's own regularizers and callbacks.
    """

    rgb: Float[Tensor, "*image 3"]
    alpha: Float[Tensor, "*image 1"]
    depth: Float[Tensor, "*image 1"] | None = None
    aux: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: Unique within the method; names the optimiser's state in checkpoints.
        params: The parameters.
        lr: Learning rate at the start of the training.
        final: Share of ``lr`` at the end of the training; by default that of ``--optim.final``.
        warmup: Steps over which the rate rises from zero.
        eps: Adam's; parameters whose gradients are smaller move in shorter steps.
    """

    name: str
    params: Sequence[nn.Parameter]
    lr: float
    final: float | None = None
    warmup: int = 0
    eps: float = 1e-15


@dataclass(frozen=True)
class TrainState:
    """What the trainer tells a callback after a step.

    Attributes:
        step: Steps that are done.
        steps: Steps of the whole training.
        seed: Of the run. Random draws must follow from seed and step alone, so that a resumed run repeats them.
        optimizer: With the method's parameter groups, each with its ``name``.
    """

    step: int
    steps: int
    seed: int
    optimizer: torch.optim.Optimizer


class TrainCallback:
    """Hooks that run during training, such as densification. Subclasses override what they need.

    Attributes:
        name: Unique within the method; names the callback's state in checkpoints.
    """

    name: str = "callback"

    def due(self, step: int, steps: int) -> bool:
        """Whether :meth:`after_step` changes the model after step ``step``; the trainer then reads all losses first."""
        return False

    def after_backward(self, out: RenderOutput) -> None:
        """See a training frame once its gradients are computed."""

    def after_step(self, state: TrainState) -> None:
        """Change the model after a step for which :meth:`due` is true."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed training needs."""
        return {}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned; the model is loaded before."""


@dataclass(frozen=True)
class Checkpoint:
    """A model file that was read, for :meth:`Method.from_checkpoint`.

    Attributes:
        path: The file, for messages.
        tensors: What :meth:`Method.checkpoint` returned; ``background`` is float 0..1 again.
        config: The options that it returned, read field by field with checks.
        width, height: Size of the training frames, pixels.
        renderer: Backend that draws, ``native`` by default.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: Record
    width: int
    height: int
    renderer: RendererName = "native"


class Playback(Protocol):
    """Draws frames for viewing; see :meth:`Method.draw` for the arguments."""

    def __call__(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor: ...


class Method(nn.Module, ABC):
    """A trainable renderer of one person. Register a subclass with `avatar.methods.registry.register_method`.

    Args:
        config: Its options.
        background: [H, W, 3] RGB 0..1 behind the person, at the size of the training frames.

    Attributes:
        Config: Class of its options.
        parts: What :meth:`forward` can draw alone; ``head`` enables the head-only protocol of `avatar eval`.
        name: The name that it is registered under.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    parts: ClassVar[frozenset[str]] = frozenset()
    name: ClassVar[str] = ""
    background: Tensor

    def __init__(self, config: MethodConfig, background: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("background", background)

    # -- making and storing ------------------------------------------------------------------------------------------

    @classmethod
    def presets(cls) -> Mapping[str, Callable[[], TrainPreset]]:
        """Training options by quality, at least for each of ``QUALITIES``."""
        return {quality: lambda: TrainPreset(model=cls.Config()) for quality in QUALITIES}

    @classmethod
    def check_person(cls, data: PersonDataset, config: Any) -> None:
        """Raise AvatarError if what an option takes from elsewhere does not fit the person; nothing is replaced yet."""

    @classmethod
    @abstractmethod
    def from_person(cls, data: PersonDataset, config: Any, seed: int) -> Self:
        """Initialise a model from the training frames of a prepared person."""

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """Rebuild the model of a file, on the CPU.

        Raises:
            AvatarError: The file's tensors and options do not fit each other.
        """

    @classmethod
    def synthetic(cls, count: int, size: int, motion: Motion) -> Self:
        """Make a model without a person, for benchmarks.

        Args:
            count: How many primitives it has, where it has any.
            size: Width and height of the training frames, pixels.
            motion: Motion of a head, in the first frame at the reference pose.

        Raises:
            AvatarError: The method has no such model.
        """
        raise AvatarError(f"The method {cls.name} has no synthetic model.")

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able options that :meth:`from_checkpoint` needs, packed for a small file."""
        return dict(self.state_dict()), asdict(self.config)

    def train_state(self) -> dict[str, Tensor]:
        """Everything that the next training step depends on, beside optimiser and callbacks."""
        return dict(self.state_dict())

    def load_train_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`train_state` returned; parameters may be replaced by others of other sizes."""
        self.load_state_dict(tensors)

    # -- training ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Learned parameters and their learning rates."""

    @property
    def condition_width(self) -> int:
        """Length of the condition vector that training adds noise to; 0 for none."""
        return 0

    def sample(self, frame: Batch, progress: float, rng: np.random.Generator) -> Batch:
        """Choose what one step trains on.

        SSIM and LPIPS are added where it is an image, L1 and alpha always.

        Args:
            frame: A whole frame, on the model's device.
            progress: Share of the training that is done, 0..1.
            rng: Random numbers that follow from seed and step.

        Returns:
            The frame; a part of at least 16 pixels each way, ``frame.cropped(x0, y0, x1, y1)``, which :meth:`forward`
            draws; or single pixels, ``frame.at(pixels)``, which :meth:`forward_pixels` draws.
        """
        return frame

    def regularizers(self, out: RenderOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Weighted loss terms beside the image losses.

        Args:
            out: The training frame.
            batch: What it is compared with.
            progress: Share of the training that is done, 0..1.
        """
        return {}

    def callbacks(self) -> Sequence[TrainCallback]:
        """New callbacks for one training."""
        return ()

    def finish(self, motion: Motion, camera: Camera) -> None:
        """Look back once training is over, before the model is written for the last time.

        Args:
            motion: The training frames with their corrected head poses, on the model's device.
            camera: The filming camera.
        """

    def stats(self) -> dict[str, int | float]:
        """Numbers to show in logs, viewer and reports, such as ``{"gaussians": 30000}``."""
        return {}

    # -- rendering ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(
        self, motion: Motion, index: int, camera: Camera, *, noise: Tensor | None = None,
        background: Tensor | None = None, with_depth: bool = False, part: str | None = None,
    ) -> RenderOutput:  # fmt: skip
        """Render one frame.

        Args:
            motion: A motion track, on the model's device.
            index: Its frame to show.
            camera: Viewpoint, on the model's device.
            noise: [condition_width] added to the condition (training augmentation).
            background: [H, W, 3] RGB 0..1 behind the person; by default :meth:`background_at` the camera.
            with_depth: Also compute the depth, where the method can.
            part: One of ``parts`` to draw alone, over nothing: ``rgb`` is then premultiplied with ``alpha``, and what
                other parts hide is left out.
        """

    def forward_pixels(
        self, motion: Motion, index: int, camera: Camera, pixels: Tensor, *, noise: Tensor | None = None,
        background: Tensor | None = None,
    ) -> RenderOutput:  # fmt: skip
        """Render single pixels of a frame, for methods whose :meth:`sample` chooses some.

        Args:
            motion, index, camera, noise: As for :meth:`forward`.
            pixels: [N, 2] x, y; see `Camera.rays`.
            background: [N, 3] RGB 0..1 behind the person.

        Returns:
            As from :meth:`forward`, with N in place of H, W.
        """
        raise NotImplementedError(f"{type(self).__name__} samples pixels and has no forward_pixels")

    def seen(self, motion: Motion, index: int, camera: Camera) -> Float[Tensor, "H W"] | None:
        """Say how well training frames showed the surface in each pixel; None where the method does not know.

        Free view shows what no training frame did. `avatar eval --views` measures how much of an image that is.

        Args:
            motion, index, camera: As for :meth:`forward`.

        Returns:
            [H, W]: 1 where training frames showed the surface well, 0 where none did, or where nobody is. Where
            several surfaces blend, their mean weighted as in the image, divided by the coverage.
        """
        return None

    def head_box(self, motion: Motion, index: int) -> Tensor | None:
        """Find what of a frame is the head, of a method whose :meth:`forward` gives depth; else None.

        Args:
            motion, index: As for :meth:`forward`.

        Returns:
            Corners [2, 3] of a box around it, head axes, centimetres.
        """
        return None

    def volume(self, motion: Motion, index: int) -> Volume:
        """Give density and color of the head in one frame.

        Args:
            motion, index: As for :meth:`forward`.

        Raises:
            AvatarError: The method has none.
        """
        raise AvatarError(f"The method {self.name} has no density that a mesh could be made of.",
                          fix="Train the person with --method nerf, and export that run.")  # fmt: skip

    def animated(self) -> AnimatedGaussians:
        """Take the avatar apart into Gaussians at rest and what a motion changes of them, on the CPU.

        Raises:
            AvatarError: The method does not consist of Gaussians.
        """
        raise AvatarError(f"The method {self.name} has no Gaussians to play.", fix=_BAKE)

    @abstractmethod
    def reference_motion(self, fps: float) -> Motion:
        """One frame, on the CPU: the head pose that the model was built around, with a neutral face."""

    @property
    def pivot(self) -> Float[Tensor, " 3"]:
        """World point [3] inside the head at the reference pose, which free view turns around."""
        pose = self.reference_motion(25.0)
        return torch.tensor(PIVOT) @ axis_angle_to_matrix(pose.head_rotation[0]).T + pose.head_translation[0]

    def background_at(self, camera: Camera) -> Float[Tensor, "H W 3"]:
        """The stored background [H, W, 3] at the camera's size."""
        return resized(self.background, camera)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.background.device

    # -- playback ----------------------------------------------------------------------------------------------------

    def playback(self, precision: Precision = "auto") -> Playback:
        """Prepare fast drawing of a model that is no longer trained.

        Args:
            precision: Of networks: ``float32``, ``bfloat16``, or ``auto`` for whatever is fastest at no visible loss.
        """
        return self.draw

    @torch.no_grad()
    def draw(
        self, camera: Camera, motion: Motion, index: int, background: UInt8[Tensor, "H W 3"] | None = None
    ) -> UInt8[Tensor, "H W 3"]:
        """Draw one frame, uint8 RGB [H, W, 3]; on a CPU several threads do so at once.

        Args:
            camera, motion, index: As for :meth:`forward`.
            background: uint8 RGB [h, w, 3] of any size behind the person; by default the stored one.
        """
        behind = None if background is None else resized(background.float() / 255, camera)
        rgb = self(motion, index, camera, background=behind).rgb
        return rgb.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)

    def bake(self, run: Path, motion: Motion, modes: int) -> Path:
        """Write a form of the model into its RUN folder that plays faster.

        Args:
            run: RUN folder of this model.
            motion: The motion it was trained on, on the model's device.
            modes: Dimensions of the approximation.

        Returns:
            The file.

        Raises:
            AvatarError: The method has no such form.
        """
        raise AvatarError(f"The method {self.name} has no baked form.", fix=_BAKE)

    def load_baked(self, run: Path) -> None:
        """Play what :meth:`bake` wrote into a RUN folder.

        Raises:
            AvatarError: There is none, it belongs to another model, or the method has no such form.
        """
        raise AvatarError(f"The method {self.name} has no baked form.", fix=_BAKE)


def check_output(out: RenderOutput, shape: tuple[int, ...], name: str) -> RenderOutput:
    """Pass on what a method drew, and refuse another shape than it was asked for.

    Args:
        out: What its `forward` or `forward_pixels` returned.
        shape: (H, W), or (N,) of single pixels.
        name: Of the method.

    Raises:
        AvatarError: It is no `RenderOutput`, or an image in it has another shape.
    """
    if not isinstance(out, RenderOutput):
        raise AvatarError(f"The method {name!r} returned a {type(out).__name__}, not a RenderOutput.", fix=_REPORT)
    for part, image, channels in (("rgb", out.rgb, 3), ("alpha", out.alpha, 1)):
        if tuple(image.shape) != (*shape, channels):
            raise AvatarError(
                f"The method {name!r} drew {part} {list(image.shape)}, not {[*shape, channels]}.", fix=_REPORT
            )
    return out


def resized(image: Float[Tensor, "h w 3"], camera: Camera) -> Float[Tensor, "H W 3"]:
    """An image [H, W, 3] at the camera's size."""
    size = (camera.height, camera.width)
    if image.shape[:2] == size:
        return image
    return nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0].permute(
        1, 2, 0
    )
