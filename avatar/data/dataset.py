"""`PersonDataset`: what training and evaluation read from a PERSON folder. Frames are decoded on demand."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar.data.person import FILE, read_person, read_result
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.io.arrays import check_shape, load_array
from avatar.motion import Motion
from avatar.writing import settle

if TYPE_CHECKING:
    from avatar.preprocess.background import Background


class PersonDataset:
    """A prepared video of one person.

    Args:
        folder: PERSON folder, as `avatar prepare` writes it (layout in docs/design.md).
        motion: Motion file to use instead of the folder's.

    Raises:
        AvatarError: The folder is missing, `avatar prepare` did not finish in it, or the motion is not this person's.
    """

    def __init__(self, folder: Path, motion: Path | None = None) -> None:
        self.folder = Path(folder)
        settle(self.folder)  # a prepare that was killed may have left a stage's folder without its name
        if not (self.folder / FILE).is_file():
            raise AvatarError(
                f"{self.folder} is not a prepared person.", why="It has no person.json.",
                fix=f"Run `avatar prepare VIDEO --out {self.folder}` first.",
            )  # fmt: skip
        self.info = read_person(self.folder / FILE)
        self.width: int = self.info["width"]
        self.height: int = self.info["height"]
        self.fps: float = self.info["fps"]
        self.num_frames: int = self.info["num_frames"]
        self.test_start: int = self.info["test_start"]
        self.segments: list[tuple[int, int]] = [tuple(s) for s in self.info["segments"]]
        self.audio_path = self.folder / "ingest" / "audio.wav"
        self.motion = Motion.load(motion or self._need("motion.safetensors"))
        if len(self.motion) != self.num_frames:
            raise AvatarError(
                f"{motion or self.folder} has {len(self.motion)} frames of motion, {self.folder} {self.num_frames}.",
                why="They do not belong together.",
            )
        path = self._need("track/landmarks.npy")
        self.landmarks: np.ndarray = load_array(path, f"{self.num_frames} 478 3", mapped=True)
        self.shape: np.ndarray = load_array(self._need("refine/shape.npy"), "478 3")
        camera = self.info["camera"]
        self.camera = Camera.source(camera["focal"], camera["cx"], camera["cy"], self.width, self.height)
        self._features: np.ndarray | None = None

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise AvatarError(
                f"{self.folder} is incomplete: {name} is missing.",
                fix=f"Run `avatar prepare VIDEO --out {self.folder}` again; finished stages are kept.",
            )  # fmt: skip
        return path

    def image_path(self, index: int) -> Path:
        """The JPEG file of frame ``index``."""
        return self.folder / "ingest" / "frames" / f"{index:06d}.jpg"

    def image(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 RGB [H, W, 3]."""
        return self._picture(self.image_path(index))

    def _picture(self, path: Path) -> np.ndarray:
        from avatar.preprocess.track import read_rgb

        picture = read_rgb(path)
        if picture.shape[:2] != (self.height, self.width):
            raise AvatarError(
                f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels, {self.folder / FILE} says "
                f"{self.width}x{self.height}.", fix="Run `avatar prepare --force`.",
            )  # fmt: skip
        return picture

    def masks(self, index: int) -> dict[str, np.ndarray]:
        """Soft masks, float32 0..1 [H, W]: hair, face, lips, mouth, eyes, neck, clothes, background."""
        from avatar.preprocess.parse import load_masks

        return load_masks(self.folder, index, (self.width, self.height))

    @functools.cached_property
    def plate(self) -> np.ndarray:
        """The background without the person, as the camera sees it at rest, uint8 RGB [H, W, 3]."""
        return self._picture(self._need("background/plate.png"))

    @functools.cached_property
    def _background(self) -> Background:
        from avatar.preprocess.background import load_background

        background = load_background(self.folder)
        if background.warp is not None:
            check_shape(background.warp, self.folder / "background" / "warp.npy", f"{self.num_frames} 2 3")
        return background

    @property
    def camera_moves(self) -> bool:
        """Whether the background moves in the picture (an operator, a stabiliser, a new crop after a cut)."""
        return self._background.warp is not None

    def background(self, index: int) -> np.ndarray:
        """What is behind the person in frame ``index``, uint8 RGB [H, W, 3]."""
        return self._background.frame(index, self.width, self.height)

    def steady_motion(self, motion: Motion) -> Motion:
        """A motion of this person as a camera at rest would have seen it: what the filming camera did is taken out."""
        warp = self._background.warp
        if warp is None:
            return motion
        # Pixels of a frame to pixels of the camera at rest. The plate is the picture at rest with a border around it.
        border = (np.array(self._background.plate.shape[1::-1]) - [self.width, self.height]) // 2
        affine = warp.astype(np.float64)
        affine[:, :, 2] -= border
        scale = np.sqrt(np.abs(np.linalg.det(affine[:, :, :2])))
        turn = np.arctan2(affine[:, 1, 0] - affine[:, 0, 1], affine[:, 0, 0] + affine[:, 1, 1])
        roll = torch.zeros(len(turn), 3)
        roll[:, 2] = torch.from_numpy(turn).float()
        roll_matrix = axis_angle_to_matrix(roll)
        focal, centre = self.camera.focal, np.array([self.camera.cx, self.camera.cy])

        def moved(points: np.ndarray) -> torch.Tensor:
            pixels = points[:, :2] / points[:, 2:] * focal + centre
            pixels = np.einsum("tij,tj->ti", affine[:, :, :2], pixels) + affine[:, :, 2]
            depth = points[:, 2:] / scale[:, None]
            return torch.from_numpy(np.concatenate([(pixels - centre) / focal * depth, depth], -1)).float()

        pivot = self.torso_pivot.astype(np.float64)
        torso = pivot + motion.torso_translation.double().numpy()
        return motion.map(
            head_translation=moved(motion.head_translation.double().numpy()),
            head_rotation=matrix_to_axis_angle(roll_matrix @ axis_angle_to_matrix(motion.head_rotation)),
            torso_translation=moved(torso) - torch.from_numpy(pivot).float(),
            torso_rotation=matrix_to_axis_angle(roll_matrix @ axis_angle_to_matrix(motion.torso_rotation)),
        )

    @functools.cached_property
    def _torso(self) -> dict[str, Any]:
        return read_result(self.folder, "torso") if (self.folder / "torso" / "stage.json").is_file() else {}

    @property
    def torso_pivot(self) -> np.ndarray:
        """World point [3], centimetres, about which Motion's torso rotation turns."""
        if "pivot" in self._torso:
            return np.asarray(self._torso["pivot"], np.float32)
        return self.motion.head_translation.median(0).values.numpy() + np.array([0, 20, 3], np.float32)

    @property
    def warp_box(self) -> np.ndarray:
        """Corners [2, 2] of the grid of Motion's torso warp: centimetres from the pivot, in its plane."""
        return np.asarray(self._torso.get("warp_box", [[-1, -1], [1, 1]]), np.float32)

    @property
    def audio_features(self) -> np.ndarray | None:
        """Audio features at frame times, float32 [T, F], or None for a person without sound."""
        path = self.folder / "features" / "audio.npy"
        if self._features is None and path.is_file():
            self._features = load_array(path, f"{self.num_frames} F")
        return self._features

    @property
    def train_frames(self) -> np.ndarray:
        """Indices of the frames that may be trained on: measured ones before ``test_start``."""
        return np.flatnonzero(self.motion.valid.numpy()[: self.test_start])

    @property
    def test_frames(self) -> np.ndarray:
        """The held-out part, every frame of it."""
        return np.arange(self.test_start, self.num_frames)
