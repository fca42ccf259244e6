"""The Gaussians of an avatar in one frame, as files of other programs hold them: metres, about the head at rest."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float32

from avatar.checks import number
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.fields.gaussians import REGIONS
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion

METRES = 0.01  # per centimetre
SH_DC = 0.28209479177387814  # the spherical harmonic of degree 0: color = 0.5 + SH_DC * coefficient
Up = Literal["-y", "+y"]
_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class GaussianCloud:
    """N Gaussians in metres, activated, about the origin of the head axes at rest.

    Attributes:
        means: [N, 3].
        quats: [N, 4] wxyz of length 1, the first one not negative.
        scales: [N, 3] standard deviations.
        opacities: [N] 0..1.
        colors: [N, 3] RGB, displayed as it is; some are a little outside 0..1.
    """

    means: Float32[np.ndarray, "N 3"]
    quats: Float32[np.ndarray, "N 4"]
    scales: Float32[np.ndarray, "N 3"]
    opacities: Float32[np.ndarray, " N"]
    colors: Float32[np.ndarray, "N 3"]

    def __len__(self) -> int:
        return len(self.means)

    @property
    def harmonics(self) -> Float32[np.ndarray, "N 3"]:
        """Coefficients of the spherical harmonic of degree 0."""
        return ((self.colors.astype(np.float64) - 0.5) / SH_DC).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class GaussiansExporter:
    """What exporters of the Gaussians of one moment share."""

    default: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]] = ()

    at: float = 0.0
    """Second of the motion that is written. Without --audio, --text, --motion or --idle it is the neutral head."""
    torso: bool = True
    """Write neck and torso too."""

    def __post_init__(self) -> None:
        number(self.at, "--at", 0.0, _LONGEST_S)

    def needs(self) -> Set[Need]:
        """An avatar, and what it does where that is said."""
        return {"avatar", "optional-motion"}

    def cloud(self, source: ExportSource, up: Up) -> GaussianCloud:
        """The Gaussians of the moment that is asked for.

        Raises:
            AvatarError: The method has no Gaussians, or the motion is over before ``at``.
        """
        if source.motion is None:
            if self.at:
                raise AvatarError("--at belongs to a motion.", fix="Add --audio, --text, --motion or --idle.")
            return posed(source, None, 0, up, self.torso)
        seconds = len(source.motion) / source.motion.fps
        index = int(self.at * source.motion.fps + 1e-6)
        if index >= len(source.motion):
            raise AvatarError(f"--at {self.at:g} is after the end of the motion,", why=f"which lasts {seconds:.2f} s.",
                              fix="Choose an earlier second.")  # fmt: skip
        return posed(source, source.motion, index, up, self.torso)


def check_gaussians(source: ExportSource) -> None:
    """Refuse an avatar whose method has no Gaussians that are the whole person.

    Raises:
        AvatarError: It has none.
    """
    assert source.avatar is not None
    model = source.avatar.model
    if not callable(getattr(model, "splats", None)):
        raise AvatarError(
            f"The method {model.name} does not draw the person as Gaussians, which this format holds.",
            fix="Make Gaussians of the run: avatar bake RUN --out NEW; or export --format mesh, or a video.",
        )


@torch.inference_mode()
def posed(source: ExportSource, motion: Motion | None, index: int, up: Up, torso: bool = True) -> GaussianCloud:
    """Pose the Gaussians for one frame, in one space for all frames.

    The origin is that of the head axes when the head is at rest (between the eyes and the ears), the axes are the
    head's at rest: x to the person's left, and y down with z into the head (as COLMAP and INRIA have it), or y up with
    z out of the face (as glTF, three.js and Blender's importers have it).

    Args:
        source: Gives the avatar.
        motion: What it does; None: the neutral head.
        index: Frame of it.
        up: Where y points.
        torso: Neck and torso too.

    Raises:
        AvatarError: The method has no Gaussians, or a number of them is not finite.
    """
    check_gaussians(source)
    assert source.avatar is not None
    model = source.avatar.model
    rest = model.reference_motion(source.avatar.fps)
    shown = (rest if motion is None else motion[index : index + 1]).to(model.device)
    splats = getattr(model, "splats")(shown, 0)  # noqa: B009  (not part of `Method`)
    flip = torch.tensor([1.0, 1.0, 1.0] if up == "-y" else [1.0, -1.0, -1.0])
    world = torch.eye(4)
    world[:3, :3] = METRES * flip[:, None] * axis_angle_to_matrix(rest.head_rotation[0]).T
    world[:3, 3] = -world[:3, :3] @ rest.head_translation[0]
    moved = splats.transformed(world.to(model.device))
    quats = torch.nn.functional.normalize(moved.quats, dim=-1)
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    parts = [moved.means, quats, moved.scales, moved.opacities, moved.colors[:, :3]]
    kept = torch.ones(len(splats), dtype=torch.bool, device=model.device)
    if not torso:
        kept = moved.region < REGIONS.index("neck")
    if not all(bool(torch.isfinite(part[kept]).all()) for part in parts):
        raise AvatarError(f"{source.folder} cannot be exported: its Gaussians hold NaN or infinite numbers.",
                          fix="Check the motion and the controls, or train it again.")  # fmt: skip
    return GaussianCloud(*(part[kept].float().cpu().numpy() for part in parts))
