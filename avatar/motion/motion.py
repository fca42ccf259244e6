"""`Motion`: what a face and a head do over time. The interface between hearing and seeing."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avatar.checks import FRAME_RATES, Record, parse_json, written_number
from avatar.errors import AvatarError
from avatar.geometry.warp import WIDTH
from avatar.io.arrays import check_numbers, check_shape
from avatar.io.checkpoint import read_safetensors, write_safetensors
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import CHANNELS

FORMAT = "avatar-motion-2"
MOST_FRAMES = 1_000_000  # held at once: one gigabyte, eleven hours at 25 frames per second
POSE_TRACKS = ("head_rotation", "head_translation", "torso_rotation", "torso_translation", "torso_warp")


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A motion track of T frames. All tensors are float32, ``valid`` is bool; on the CPU, if not moved.

    Attributes:
        fps: Frames per second.
        arkit: [T, 52] ARKit coefficients in Apple's order, 0 to 1.
        face: [T, 38] displacements from the person's neutral face in the fixed basis of
            `avatar.motion.face_channels`, canonical centimetres.
        head_rotation: [T, 3] axis-angle, radians; head axes to world. Zero looks straight into the filming camera.
        head_translation: [T, 3] centimetres, canonical head origin in the world.
        gaze: [T, 2] yaw and pitch of the eyes in the head, radians; positive is the person's left, and up.
        torso_rotation: [T, 3] axis-angle, radians, of the upper body relative to its rest position, in world axes
            about `torso_pivot` of the person.
        torso_translation: [T, 3] centimetres, the same.
        torso_warp: [T, 132] centimetres: what the clothes do beyond that, on the grid of `avatar.geometry.warp`.
        valid: [T] whether the frame was measured (False: interpolated).
    """

    fps: float
    arkit: Float[Tensor, "T 52"]
    face: Float[Tensor, "T 38"]
    head_rotation: Float[Tensor, "T 3"]
    head_translation: Float[Tensor, "T 3"]
    gaze: Float[Tensor, "T 2"]
    torso_rotation: Float[Tensor, "T 3"]
    torso_translation: Float[Tensor, "T 3"]
    torso_warp: Float[Tensor, "T 132"]
    valid: Bool[Tensor, " T"]

    def __post_init__(self) -> None:
        t = self.arkit.shape[0]
        for name, width in _WIDTHS.items():
            shape = tuple(getattr(self, name).shape)
            if shape != ((t, width) if width else (t,)):
                raise AvatarError(f"Motion.{name} has shape {shape}, expected {(t, width) if width else (t,)}.")

    def __len__(self) -> int:
        return self.arkit.shape[0]

    def __getitem__(self, index: slice | np.ndarray | Tensor) -> Motion:
        """A sub-track; an integer array picks frames in that order."""
        return replace(self, **{name: getattr(self, name)[index] for name in _WIDTHS})

    def map(self, **tensors: Tensor) -> Motion:
        """A copy with some of the tensors replaced."""
        return replace(self, **tensors)

    def check_finite(self, what: str = "The motion") -> Motion:
        """The same track, if all of its numbers are finite: from others no image can be drawn.

        Raises:
            AvatarError: They are not.
        """
        for name, width in _WIDTHS.items():
            if width and not bool(torch.isfinite(getattr(self, name)).all()):
                raise AvatarError(f"{what} cannot be shown: its {name} holds NaN or infinite numbers.",
                                  fix="Check the motion and the controls that were given.")  # fmt: skip
        return self

    def to(self, device: torch.device) -> Motion:
        """The same track on a device."""
        if self.arkit.device == device:
            return self
        return replace(self, **{name: getattr(self, name).to(device) for name in _WIDTHS})

    @staticmethod
    def zeros(frames: int, fps: float) -> Motion:
        """The neutral face at the world origin."""
        tensors = {n: torch.zeros(frames, w) if w else torch.ones(frames, dtype=torch.bool) for n, w in _WIDTHS.items()}
        return Motion(fps=fps, **tensors)

    @staticmethod
    def cat(tracks: list[Motion]) -> Motion:
        """Tracks of one frame rate, one after the other."""
        return replace(tracks[0], **{n: torch.cat([getattr(t, n) for t in tracks]) for n in _WIDTHS})

    def blend(self, other: Motion, weight: Float[Tensor, " T"]) -> Motion:
        """A linear mix with a track of the same length; ``weight`` [T] is 0 for this one and 1 for the other."""
        mix = weight[:, None]
        mixed = {n: torch.lerp(getattr(self, n), getattr(other, n), mix) for n, width in _WIDTHS.items() if width}
        return replace(self, valid=self.valid & other.valid, **mixed)

    def resample(self, fps: float) -> Motion:
        """The same motion at another frame rate, linearly interpolated."""
        if fps == self.fps or len(self) == 0:
            return replace(self, fps=fps)
        count = max(1, round(len(self) * fps / self.fps))
        if count > MOST_FRAMES:
            raise AvatarError(
                f"A motion of {len(self) / self.fps / 3600:.1f} hours is too long: at {fps:g} frames per second it has "
                f"{count} frames, and at most {MOST_FRAMES} are held.", fix="Cut it into parts.",
            )  # fmt: skip
        at = (torch.arange(count) * self.fps / fps).clamp(max=len(self) - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=len(self) - 1)
        mix = (at - low)[:, None]
        mixed = {
            n: getattr(self, n)[low] * (1 - mix) + getattr(self, n)[high] * mix for n, width in _WIDTHS.items() if width
        }
        return replace(self, fps=fps, valid=self.valid[low] & self.valid[high], **mixed)

    def save(self, path: Path) -> None:
        """Write a safetensors file; its metadata names the channels."""
        metadata = {"format": FORMAT, "fps": repr(self.fps), "arkit": json.dumps(ARKIT), "face": json.dumps(CHANNELS)}
        write_safetensors(path, {n: getattr(self, n).contiguous() for n in _WIDTHS}, metadata)

    @staticmethod
    def load(path: Path) -> Motion:
        """Read a track; channels are matched by name.

        Raises:
            AvatarError: The file is missing, not a motion file, lacks channels, or holds no frames, numbers that no
                motion has, or a frame rate outside 1 to 1000.
        """
        path = Path(path)
        if not path.is_file():
            raise AvatarError(f"The motion file {path} does not exist.")
        stored, metadata = read_safetensors(path, "a motion file", _WIDTHS)
        if metadata.get("format") != FORMAT:
            raise AvatarError(
                f"{path} is not a motion file of this version.", why=f"Its format is {metadata.get('format')}.",
                fix="Prepare the video again.",
            )  # fmt: skip
        tensors, sizes = {}, {}
        for name, names in (("arkit", ARKIT), ("face", CHANNELS)):
            found = Record({name: parse_json(metadata.get(name, ""), f"{path}: {name}")}, path).names(name)
            if missing := [n for n in names if n not in found]:
                raise AvatarError(f"{path} lacks the channels {', '.join(missing[:5])}.")
            if name in stored:
                check_shape(stored[name], f"{path}: {name}", f"T {len(found)}", sizes)
                stored[name] = stored[name][:, [found.index(n) for n in names]]
        for name, width in _WIDTHS.items():
            if name not in stored:
                raise AvatarError(f"{path} lacks the tensor {name}.")
            where = f"{path}: {name}"
            check_shape(stored[name], where, f"T {width}" if width else "T", sizes)
            check_numbers(stored[name], where, "float" if width else "bool", _LARGEST.get(name, 1e6))
            tensors[name] = stored[name].float() if width else stored[name]
        if sizes["T"] == 0:
            raise AvatarError(f"{path} holds no frames.")
        return Motion(fps=written_number(metadata.get("fps", ""), f"{path}: fps", *FRAME_RATES), **tensors)


_WIDTHS = {
    "arkit": len(ARKIT), "face": len(CHANNELS), "head_rotation": 3, "head_translation": 3, "gaze": 2,
    "torso_rotation": 3, "torso_translation": 3, "torso_warp": WIDTH, "valid": 0,
}  # fmt: skip
# Of what is read, in the track's units: no face or head does what is beyond.
_LARGEST = {"arkit": 100.0, "face": 1000.0, "head_rotation": 1000.0, "gaze": 1000.0, "torso_rotation": 1000.0}
assert {f.name for f in fields(Motion)} == {"fps", *_WIDTHS}
