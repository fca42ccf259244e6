"""The face in a video as it comes, frame by frame, with the tracker and the settings of `avatar prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, final

import numpy as np

from avatar.checks import frame_rate, reading
from avatar.io.arrays import check_shape
from avatar.io.audio import load_audio
from avatar.io.video import read_frames, read_info
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import NUM_LANDMARKS
from avatar.paths import file_sha256
from avatar.writing import atomic_file


class Tracker(Protocol):
    """Finds the largest face of an image."""

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks [478, 2] in pixels and ARKit coefficients [52] for a uint8 RGB image [H, W, 3]; NaN when there
        is no face."""
        ...


@final
class FaceTracker:
    """MediaPipe on single images: no state, so rendered and real video are treated alike and nothing is delayed."""

    def __init__(self) -> None:
        from avatar.preprocess.landmarker import Landmarker

        self._landmarker = Landmarker()

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Tracker`."""
        faces = self._landmarker.detect(image)
        if not faces:
            return np.full((NUM_LANDMARKS, 2), np.nan, np.float32), np.full(len(ARKIT), np.nan, np.float32)
        return faces[0].landmarks[:, :2], faces[0].arkit

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._landmarker.close()


@dataclass(frozen=True, kw_only=True)
class Track:
    """A tracked video.

    Attributes:
        landmarks: [T, 478, 2] pixels, NaN without a face.
        arkit: [T, 52] coefficients, NaN without a face.
        audio: [S] 16 kHz mono, from the time of the first frame on.
        fps: Frames per second.
    """

    landmarks: np.ndarray
    arkit: np.ndarray
    audio: np.ndarray
    fps: float


def track_video(path: Path, tracker: Tracker, kept: Path | None = None) -> Track:
    """Track a video frame by frame, as `avatar eval` does.

    Args:
        path: The video.
        tracker: Finds the face.
        kept: Folder of tracks from earlier times; this one is added.

    Raises:
        AvatarError: It cannot be read, or has no audio.
    """
    file = kept / f"{file_sha256(path)}.npz" if kept else None
    if file is not None and file.is_file():
        with reading(file, "a kept track", "Delete it."), np.load(file, allow_pickle=False) as saved:
            kept_track = Track(
                **{name: saved[name] for name in ("landmarks", "arkit", "audio")}, fps=float(saved["fps"])
            )
        sizes: dict[str, int] = {}
        for name, shape in {"landmarks": "T 478 C", "arkit": "T 52", "audio": "S"}.items():
            check_shape(getattr(kept_track, name), f"{file}: {name}", shape, sizes)
        frame_rate(kept_track.fps, f"{file}: fps")
        return kept_track
    info = read_info(path)
    audio = load_audio(path, start=info.start)
    landmarks, arkit = (np.stack(part) for part in zip(*map(tracker.track, read_frames(info)), strict=True))
    track = Track(landmarks=landmarks, arkit=arkit, audio=audio, fps=float(info.fps))
    if file is not None:
        with atomic_file(file) as temporary:
            np.savez(temporary, **vars(track))
    return track
