"""`PersonDataset`: what training and evaluation read from a PERSON folder; frames are decoded on demand."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from avatar.data import background as stored
from avatar.data.background import Background
from avatar.data.person import FILE, MOTION, PersonFolder
from avatar.data.results import REDO, BackgroundResult, TorsoResult
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.io.images import read_rgb
from avatar.motion import Motion
from avatar.writing import settle


class PersonDataset:
    """A prepared video of one person.

    Args:
        folder: PERSON folder, as `avatar prepare` writes it (layout in docs/architecture.md).
        motion: Motion file to use instead of the folder's.

    Attributes:
        left_out: Frames before ``test_start`` that are not trained on either, in order; none, if nobody sets them.

    Raises:
        AvatarError: The folder is missing, `avatar prepare` did not finish in it, or the motion is not this person's.
    """

    def __init__(self, folder: Path, motion: Path | None = None) -> None:
        self.folder = Path(folder)
        self._files = PersonFolder(self.folder)
        settle(self.folder)  # a prepare that was killed may have left a stage's folder without its name
        if not (self.folder / FILE).is_file():
            raise AvatarError(
                f"{self.folder} is not a prepared person.", why=f"It has no {FILE}.",
                fix=f"Run `avatar prepare VIDEO --out {self.folder}` first.",
            )  # fmt: skip
        if (self.folder / "config.toml").is_file():  # a RUN folder has a copy of person.json
            raise AvatarError(
                f"{self.folder} is a RUN folder, not a prepared person.", fix="Give the PERSON folder of its training."
            )
        self.info = self._files.info()
        self.width: int = self.info.width
        self.height: int = self.info.height
        self.fps: float = self.info.fps
        self.num_frames: int = self.info.num_frames
        self.test_start: int = self.info.test_start
        self.segments: list[tuple[int, int]] = list(self.info.segments)
        self.camera = self.info.source_camera()
        self.audio_path = self._files.audio_path
        self.motion = Motion.load(motion or self._need(MOTION))
        if len(self.motion) != self.num_frames:
            raise AvatarError(
                f"{motion or self.folder} has {len(self.motion)} frames of motion, {self.folder} {self.num_frames}.",
                why="They do not belong together.",
            )
        self._need("track/landmarks.npy")
        self.landmarks: np.ndarray = self._files.landmarks(self.num_frames, mapped=True)
        self._need("refine/shape.npy")
        self.shape: np.ndarray = self._files.shape()
        self.left_out = np.zeros(0, np.int64)

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise AvatarError(
                f"{self.folder} is incomplete: {name} is missing.",
                fix=f"Run `avatar prepare VIDEO --out {self.folder}` again; finished stages are kept.",
            )
        return path

    def image_path(self, index: int) -> Path:
        """The JPEG file of frame ``index``."""
        return self._files.frame_path(index)

    def image(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 RGB [H, W, 3]."""
        return self._sized(self.image_path(index))

    def _sized(self, path: Path) -> np.ndarray:
        image = read_rgb(path, REDO)
        if image.shape[:2] != (self.height, self.width):
            raise AvatarError(
                f"{path} has {image.shape[1]}x{image.shape[0]} pixels, {self.folder / FILE} says "
                f"{self.width}x{self.height}.", fix=REDO,
            )  # fmt: skip
        return image

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Soft masks, float32 0..1 [H, W]: hair, face, lips, mouth, eyes, neck, clothes, background.

        With ``size`` they have that width and height.
        """
        return self._files.masks(index, (self.width, self.height) if size is None else size)

    @functools.cached_property
    def background_image(self) -> np.ndarray:
        """The background without the person, as the camera sees it at rest, uint8 RGB [H, W, 3]."""
        return self._sized(self._need(f"background/{stored.IMAGE}"))

    @functools.cached_property
    def _background(self) -> Background:
        return self._files.background(self.num_frames)

    @property
    def camera_moves(self) -> bool:
        """Whether the camera moves (an operator, a stabiliser, a new crop after a cut)."""
        return self._background.warp is not None

    def background(self, index: int) -> np.ndarray:
        """The background behind the person in frame ``index``, uint8 RGB [H, W, 3]."""
        return self._background.frame(index, self.width, self.height)

    @functools.cached_property
    def _whole_background(self) -> Background:
        return self._files.background(self.num_frames, whole=True)

    @functools.cached_property
    def whole_background_path(self) -> Path | None:
        """File of the background that rendering shows, as a camera at rest sees it; None where frames are enough."""
        return None if self.info.view is None else self._need(f"background/{stored.WHOLE}{stored.IMAGE}")

    def whole_background(self, index: int) -> np.ndarray:
        """The background of frame ``index`` as rendering shows it, uint8 RGB [h, w, 3]: see `PersonInfo.view`."""
        view = self.info.view
        if view is None:
            return self.background(index)
        return self._whole_background.frame(index, view.width, view.height)

    @property
    def _rest(self) -> np.ndarray:
        """Where the frame of the camera at rest lies in the background of a moving one, pixels [2]."""
        kind = BackgroundResult
        found = self._files.result(kind).offset if self._files.is_finished(kind.STAGE) else None
        if found is None:  # an older folder does not say: about the middle
            return (np.array(self._background.image.shape[1::-1]) - [self.width, self.height]) // 2
        return np.array(found)

    def steady_motion(self, motion: Motion) -> Motion:
        """Convert a motion of this person to what a camera at rest would have seen.

        What the filming camera did is taken out.
        """
        warp = self._background.warp
        if warp is None:
            return motion
        affine = warp.astype(np.float64)  # pixels of a frame to pixels of the camera at rest
        affine[:, :, 2] -= self._rest
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
    def _torso(self) -> TorsoResult | None:
        return self._files.result(TorsoResult) if self._files.is_finished(TorsoResult.STAGE) else None

    @property
    def torso_pivot(self) -> np.ndarray:
        """World point [3], centimetres, about which Motion's torso rotation turns."""
        if self._torso is not None:
            return np.asarray(self._torso.pivot, np.float32)
        return self.motion.head_translation.median(0).values.numpy() + np.array([0, 20, 3], np.float32)

    @property
    def warp_box(self) -> np.ndarray:
        """Corners [2, 2] of the grid of Motion's torso warp: centimetres from the pivot, in its plane."""
        return np.asarray([[-1, -1], [1, 1]] if self._torso is None else self._torso.warp_box, np.float32)

    @property
    def train_frames(self) -> np.ndarray:
        """Indices of the frames that may be trained on: measured ones before ``test_start`` that are not left out."""
        return np.setdiff1d(np.flatnonzero(self.motion.valid.numpy()[: self.test_start]), self.left_out)

    @property
    def test_frames(self) -> np.ndarray:
        """The held-out part, every frame of it."""
        return np.arange(self.test_start, self.num_frames)
