"""Datasets of AD-NeRF, RAD-NeRF, ER-NeRF and TalkingGaussian, read as if they were a video.

The layout (docs/datasets.md): images ``ori_imgs/0.jpg``, ``1.jpg`` ..., their audio ``aud.wav``, and head poses and
the split into training and held-out part in ``transforms_train.json`` and ``transforms_val.json``. Everything else in
such a folder is derived from these and is not read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from avatar.checks import MOST_FRAMES, Record, number
from avatar.errors import AvatarError
from avatar.io import video
from avatar.io.audio import probe_audio
from avatar.io.audio_timing import TimingReport
from avatar.io.images import read_image
from avatar.io.media import Treatment
from avatar.io.video import VideoInfo
from avatar.paths import read_json

IMAGES = "ori_imgs"
AUDIO = "aud.wav"
TRAIN, VAL = "transforms_train.json", "transforms_val.json"
FPS = 25  # of all of these datasets
_FAR = 1e6  # pixels, or units of a pose: what lies beyond is a mistake
_NUMBER = re.compile("[0-9]{1,9}")
LENGTH_SLACK = 1.0, 0.02  # seconds and share by which audio and images may differ in length


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """What a transforms file says.

    Attributes:
        focal: Focal length in pixels.
        cx, cy: Principal point in pixels.
        fps: Frames per second; the files of `avatar export --format dataset` say it, all others mean 25.
        image_ids: [N] int64, numbers of the images.
        poses: [N, 4, 4] float64, camera to head (see :func:`avatar.geometry.cameras.nerf_to_head`).
    """

    focal: float
    cx: float
    cy: float
    fps: float
    image_ids: np.ndarray
    poses: np.ndarray


def read_transforms(path: Path) -> Transforms:
    """Read a transforms_train.json or transforms_val.json.

    Raises:
        AvatarError: It is missing or damaged, or lacks a field.
    """
    data = Record(read_json(path), path)
    frames = data.records("frames")
    return Transforms(
        focal=data.number("focal_len", 1, _FAR), cx=data.number("cx", -_FAR, _FAR), cy=data.number("cy", -_FAR, _FAR),
        fps=data.frame_rate("fps", FPS),
        image_ids=np.array([frame.whole("img_id", 0, MOST_FRAMES) for frame in frames], np.int64),
        poses=np.array([_matrix(frame) for frame in frames], np.float64).reshape(len(frames), 4, 4),
    )  # fmt: skip


def _matrix(frame: Record) -> list[list[float]]:
    place, rows = frame.place("transform_matrix"), frame.list("transform_matrix")
    if [len(row) if isinstance(row, list) else None for row in rows] != [4] * 4:
        raise AvatarError(f"{place} is not a matrix of 4 by 4 numbers.")
    return [[number(value, place, -_FAR, _FAR) for value in row] for row in rows]


def files(folder: Path) -> list[Path]:
    """Everything of a dataset that is read, in order.

    Raises:
        AvatarError: The folder is not a dataset, or an image is missing.
    """
    others = [folder / name for name in (AUDIO, TRAIN, VAL)]
    return [*_images(folder)[1], *(path for path in others if path.is_file())]


def read_info(folder: Path) -> VideoInfo:
    """The dataset as a video that starts at time 0.

    Raises:
        AvatarError: The folder is not a dataset, an image is missing or damaged, images and audio differ in length,
            or see :func:`test_start`.
    """
    folder = Path(folder)
    test_start(folder)  # for its errors
    paths = _images(folder)[1]
    height, width = _read(paths[0]).shape[:2]
    rate = read_transforms(folder / TRAIN).fps if (folder / TRAIN).is_file() else FPS
    fps = Fraction(rate).limit_denominator(1001)
    seconds = len(paths) / float(fps)
    audio = folder / AUDIO
    audio_seconds = probe_audio(audio).duration if audio.is_file() else None
    if audio_seconds is not None and abs(audio_seconds - seconds) > max(LENGTH_SLACK[0], LENGTH_SLACK[1] * seconds):
        raise AvatarError(
            f"{audio} lasts {audio_seconds:.1f} s, but the {len(paths)} images of {folder / IMAGES} last "
            f"{seconds:.1f} s at {float(fps):g} frames per second.",
            fix="Make both from the same part of the video, the images at 25 frames per second.",
        )
    return VideoInfo(
        path=folder, width=width, height=height, rotation=0, fps=fps, start=0.0, duration=seconds,
        num_frames=len(paths), variable_rate=False, has_audio=audio.is_file(),
    )  # fmt: skip


def read_frames(info: VideoInfo) -> Iterator[np.ndarray]:
    """All images in order, uint8 RGB [height, width, 3].

    Raises:
        AvatarError: One is damaged or has another size than the first.
    """
    for path in _images(info.path)[1]:
        yield _read(path, info)


def sample_frames(info: VideoInfo, count: int) -> Iterator[np.ndarray]:
    """About ``count`` images spread evenly over the dataset; otherwise as :func:`read_frames`."""
    paths = _images(info.path)[1]
    for k in range(min(count, len(paths))):
        yield _read(paths[int((k + 0.5) * len(paths) / min(count, len(paths)))], info)


def read_audio(
    folder: Path, start: float, duration: float, track: int | None = None,
    treatments: list[Treatment] | None = None, timing: TimingReport | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """The audio, as :func:`avatar.io.audio.read_audio` gives that of a video."""
    return video.read_audio(folder / AUDIO, start, duration, track, treatments, timing)


def test_start(folder: Path) -> int | None:
    """Index of the first held-out frame, or None if the dataset does not cut off a part at its end.

    Raises:
        AvatarError: A transforms file is damaged, is there without the other, or names an image that does not exist.
    """
    if not any((folder / name).is_file() for name in (TRAIN, VAL)):
        return None
    first, paths = _images(folder)
    train, val = (read_transforms(folder / name).image_ids for name in (TRAIN, VAL))
    for name, ids in ((TRAIN, train), (VAL, val)):
        wrong = ids[(ids < first) | (ids >= first + len(paths))]
        if len(wrong):
            raise AvatarError(
                f"{folder / name} names the image {IMAGES}/{wrong[0]}.jpg, which does not exist.",
                fix="Restore it, or remove both transforms files to have the end of the video held out.",
            )  # fmt: skip
    if len(train) == 0 or len(val) == 0 or train.max() >= val.min():
        return None
    return int(val.min()) - first


def _images(folder: Path) -> tuple[int, list[Path]]:
    """Number of the first image, and all of them in order."""
    if not (folder / IMAGES).is_dir():
        raise AvatarError(
            f"{folder} is a folder, not a video file,",
            why=f"and it has no {IMAGES} as a dataset of AD-NeRF, ER-NeRF or TalkingGaussian has.",
        )
    numbered = {int(path.stem): path for path in (folder / IMAGES).glob("*.jpg") if _NUMBER.fullmatch(path.stem)}
    if not numbered:
        raise AvatarError(f"{folder / IMAGES} holds no images", why="(0.jpg, 1.jpg, ...).")
    first, last = min(numbered), max(numbered)
    if missing := last + 1 - first - len(numbered):
        gap = next(k for k in itertools.count(first) if k not in numbered)  # soon, for those before it are there
        raise AvatarError(
            f"{folder / IMAGES / f'{gap}.jpg'} is missing;",
            why=f"{missing} of the images {first} to {last} are not there, so that the audio does not fit.",
            fix="Make the dataset again from its video.",
        )
    return first, [numbered[k] for k in range(first, last + 1)]


def _read(path: Path, info: VideoInfo | None = None) -> np.ndarray:
    import cv2

    image = read_image(path, cv2.IMREAD_COLOR, "Make it again from the video.")
    height, width = image.shape[:2]
    if info is not None and (width, height) != (info.width, info.height):
        raise AvatarError(
            f"{path} has {width}x{height} pixels, but the first image has {info.width}x{info.height}.",
            fix="All images must have one size.",
        )  # fmt: skip
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
