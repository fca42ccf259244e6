"""The face in any video, the short way: frame by frame, or as a Motion; with the landmarker of `avatar prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, final

import numpy as np

from avatar import log
from avatar.assets.canonical_face import canonical_face
from avatar.checks import frame_rate, reading
from avatar.data.results import IngestResult
from avatar.errors import AvatarError
from avatar.io.arrays import check_shape
from avatar.io.audio import load_audio
from avatar.io.video import VideoInfo, read_frames, read_info
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import NUM_LANDMARKS
from avatar.motion.motion import Motion
from avatar.paths import file_sha256
from avatar.preprocess.face_motion import make_motion, neutral_shape
from avatar.preprocess.faces import moved_face
from avatar.preprocess.head_fit import canonical_in_head_axes, fit_head
from avatar.preprocess.landmarker import Landmarker
from avatar.preprocess.track import ImageChange, MainFace, fill_gaps, find_segments, head_window
from avatar.writing import atomic_file

MOST_FRAMES = 30_000  # whose landmarks are held in memory
LEAST_SEEN = 0.5  # share of the frames

Window = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of an image's sides
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


class Tracker(Protocol):
    """Finds the largest face of an image."""

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find landmarks [478, 2] in pixels and ARKit coefficients [52] in a uint8 RGB image [H, W, 3].

        Both are NaN where there is no face.
        """
        ...


@final
class FaceTracker:
    """MediaPipe on single images: no state, so rendered and real video are treated alike and nothing is delayed.

    Args:
        window: Where to look: a face that is small in an image escapes elsewhere. Images of any size have the same.
    """

    def __init__(self, window: Window = WHOLE) -> None:
        self._landmarker, self._window = Landmarker(), window

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Tracker`."""
        sides = image.shape[1::-1] * 2
        left, top, right, bottom = (round(share * side) for share, side in zip(self._window, sides, strict=True))
        faces = self._landmarker.detect(image[top:bottom, left:right])
        if not faces:
            return np.full((NUM_LANDMARKS, 2), np.nan, np.float32), np.full(len(ARKIT), np.nan, np.float32)
        face = moved_face(faces[0], left, top)
        return face.landmarks[:, :2], face.arkit

    def close(self) -> None:
        """Let go of the network."""
        self._landmarker.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def face_window(ingest: IngestResult) -> Window:
    """Where `avatar prepare` looked for the face, if it stored more than the square around the head; else `WHOLE`."""
    if ingest.frame is None:
        return WHOLE
    left, top, right, bottom = head_window(ingest)
    return left / ingest.width, top / ingest.height, right / ingest.width, bottom / ingest.height


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
    """Track a video frame by frame, each on its own, as `avatar eval` does.

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


def track_motion(path: Path) -> Motion:
    """Track a video into a Motion the short way: landmarks of single frames, one rigid head, no texture, no torso.

    Raises:
        AvatarError: It is no video, is too long, or shows a face in less than half of its frames.
    """
    info = read_info(path)
    if info.num_frames > MOST_FRAMES:
        raise AvatarError(
            f"{path} has {info.num_frames} frames;", why=f"at most {MOST_FRAMES} can be tracked at once.",
            fix="Cut it into parts.",
        )  # fmt: skip
    points, scores, change = _follow_face(info)
    valid = np.isfinite(points[:, 0, 0])
    if valid.mean() < LEAST_SEEN:
        raise AvatarError(f"A face was found in only {valid.mean():.0%} of the frames of {path}.")
    segments = find_segments(change, points)
    points, scores = fill_gaps(points, segments), fill_gaps(scores, segments)
    canonical = canonical_in_head_axes(canonical_face()[0])
    centre = np.array([info.width / 2, info.height / 2])
    fit = fit_head(points, valid, segments, canonical, centre, max(info.width, info.height))
    shape = neutral_shape(points, valid, fit.solution, centre, canonical, fit.points)
    return make_motion(points, scores, valid, segments, fit.solution, shape, centre, float(info.fps))


def _follow_face(info: VideoInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the main face: landmarks [T, 478, 3] and coefficients [T, 52], NaN without it, and changes [T - 1]."""
    landmarks, arkit, change = [], [], ImageChange()
    main = MainFace(None, alone=True, fps=float(info.fps))
    with Landmarker() as landmarker:
        for frame in log.track(read_frames(info), f"tracking {info.path.name}", info.num_frames):
            if (face := main.among(landmarker.detect(frame))) is not None:
                face = landmarker.look_again(frame, face)
            main.go_on(face)
            landmarks.append(np.full((NUM_LANDMARKS, 3), np.nan, np.float32) if face is None else face.landmarks)
            arkit.append(np.full(len(ARKIT), np.nan, np.float32) if face is None else face.arkit)
            change.add(frame)
    return np.stack(landmarks), np.stack(arkit), change.values
