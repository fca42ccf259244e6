"""Stage: the video becomes square frames around the head at a constant frame rate, and 16 kHz mono audio.

A dataset folder in the layout of ER-NeRF is read like a video, by :mod:`avatar.data.ernerf`.

A first pass looks for faces in a few dozen frames and chooses one crop for the whole video: the camera of an avatar
stands still, so the crop must too.
"""

from __future__ import annotations

import functools
import wave
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from avatar import log
from avatar.data import ernerf
from avatar.data.results import IngestResult
from avatar.errors import AvatarError
from avatar.io import video
from avatar.io.images import write_jpeg
from avatar.io.video import SAMPLE_RATE, VideoInfo
from avatar.paths import file_sha256
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.landmarker import Face, Landmarker
from avatar.preprocess.stage import StageContext, content_hash

NAME = "ingest"
INPUTS: tuple[str, ...] = ()
VERSION = 1

PROBE_FRAMES = 40
PROBE_SIDE = 1280  # pixels; the frame is reduced to this before faces are looked for
MIN_SECONDS = 5.0
MIN_FACE = 64  # pixels from forehead to chin, in the source
MIN_FACE_SHARE = 0.5
RIVAL_SIZE = 0.8  # a second face of this share of the first one's height competes with it
RIVAL_SHARE = 0.3  # of the probed frames
SILENCE = 10 ** (-60 / 20)  # audio that never gets louder than this is silent
CROP_FACES = 2.5  # side of the crop in face heights (forehead to chin)
WHOLE_FACES = 2.9  # a nearly square frame up to this size is kept whole
HEADROOM = 0.45  # the middle of the face lies this far down the crop
MULTIPLE = 16


@dataclass(frozen=True)
class Crop:
    """A square of the upright source frame, in whole pixels."""

    x: int
    y: int
    side: int


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on."""
    return {"source": fingerprint(ctx.video), "size": ctx.config.size, "audio": ctx.config.audio}


def reader(path: Path) -> ModuleType:
    """Choose what reads the source: both modules have read_info, read_frames, sample_frames and read_audio."""
    return ernerf if Path(path).is_dir() else video


def fingerprint(path: Path) -> str:
    """Compute the SHA-256 of a video file, or of all that is read of a dataset.

    Raises:
        AvatarError: The file does not exist or may not be read, or the folder is not a dataset.
    """
    path = Path(path)
    try:
        files = ernerf.files(path.resolve()) if path.is_dir() else [path.resolve()]
        stats = [file.stat() for file in files]
        return _fingerprint(tuple(files), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))
    except FileNotFoundError:
        raise AvatarError(f"The file {path} does not exist.") from None
    except OSError as error:
        raise AvatarError(f"{path} cannot be read as a video:", why=f"{error.strerror}.") from None


@functools.lru_cache
def _fingerprint(files: tuple[Path, ...], size: int, modified: int) -> str:
    if len(files) == 1:
        return file_sha256(files[0])
    return content_hash([[file.name, file_sha256(file)] for file in files])


def check_source(video: Path, config: PrepareConfig) -> VideoInfo:
    """Refuse all that can be refused without looking for a face.

    Raises:
        AvatarError: The file is missing, empty, not a video, cut off, too short, or has no audio.
    """
    info = reader(video).read_info(video)
    if info.duration < MIN_SECONDS:
        raise AvatarError(
            f"{info.path} is {info.duration:.1f} s long;",
            why=f"an avatar needs at least {MIN_SECONDS:.0f} s, and 3 to 5 minutes make a good one.",
            fix="Give a longer video.",
        )
    if config.audio and not info.has_audio:
        raise AvatarError(
            f"{info.path} has no {ernerf.AUDIO if info.path.is_dir() else 'audio track'};",
            why="without the voice an avatar cannot learn to talk.",
            fix="Give a video with audio, or pass --no-audio to learn the looks and the motion only.",
        )
    return info


def run(ctx: StageContext, out: Path) -> IngestResult:
    """Write frames/ and audio.wav.

    Raises:
        AvatarError: See :func:`check_source` and :func:`choose_crop`; also silent audio.
    """
    info = check_source(ctx.video, ctx.config)
    test_start = split(info)
    if ctx.config.audio:
        write_audio(info, out / "audio.wav")
    faces = probe(info)
    crop = choose_crop(info, faces)
    size, crop = working_size(crop, ctx.config.size)
    (out / "frames").mkdir()
    written = write_frames(info, crop, size, out / "frames")
    heights = [f[0].height for f in faces if f]
    return IngestResult(
        source=str(ctx.video.resolve()), source_size=(info.width, info.height), rotation=info.rotation,
        variable_rate=info.variable_rate, fps=float(info.fps), num_frames=written, crop=(crop.x, crop.y, crop.side),
        size=size, has_audio=ctx.config.audio, face_height=round(float(np.median(heights)), 1), test_start=test_start,
    )  # fmt: skip


def split(info: VideoInfo) -> int | None:
    """Read the first held-out frame, where the source is a dataset that says which one it is."""
    if not info.path.is_dir():
        return None
    start = ernerf.test_start(info.path)
    if start is None:
        log.warn(f"{info.path} does not hold out its last frames; the end of the video is held out instead.")
    return start


def probe(info: VideoInfo) -> list[list[Face]]:
    """Find faces, largest first, in a few dozen frames spread over the video, in pixels of the upright source.

    Faces that are small in the frame escape the detector; where it finds none, overlapping tiles are searched.
    """
    import cv2

    found = []
    scale = min(1.0, PROBE_SIDE / max(info.width, info.height))
    with Landmarker(num_faces=3) as landmarker:
        frames = reader(info.path).sample_frames(info, PROBE_FRAMES)
        for frame in log.track(frames, "looking for the face", PROBE_FRAMES):
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
            faces = landmarker.detect(small) or _detect_tiled(landmarker, small)
            found.append([Face(landmarks=f.landmarks / scale, arkit=f.arkit) for f in faces])
    return found


def _detect_tiled(landmarker: Landmarker, image: np.ndarray) -> list[Face]:
    height, width = image.shape[:2]
    side = min(height, width) // 2
    if side < 2 * MIN_FACE:
        return []
    faces: list[Face] = []
    for y in range(0, height - side + 1, side // 2):
        for x in range(0, width - side + 1, side // 2):
            for face in landmarker.detect(image[y : y + side, x : x + side]):
                moved = Face(landmarks=face.landmarks + np.array([x, y, 0], np.float32), arkit=face.arkit)
                if all(np.linalg.norm(moved.centre - other.centre) > 0.5 * other.height for other in faces):
                    faces.append(moved)
    return sorted(faces, key=lambda face: -face.height)


def choose_crop(info: VideoInfo, samples: list[list[Face]]) -> Crop:
    """Choose one square around the head and the shoulders, wherever the head goes.

    Args:
        info: The video; gives the size of a frame.
        samples: Faces per probed frame, largest first.

    Raises:
        AvatarError: There is no face, too seldom one, too small a one, or two rivals.
    """
    seen = [faces for faces in samples if faces]
    if not seen:
        raise AvatarError(
            f"No face was found in {info.path}",
            why=f"(in {len(samples)} frames).",
            fix="The face must be well visible.",
        )
    if len(seen) < MIN_FACE_SHARE * len(samples):
        raise AvatarError(
            f"A face was found in only {len(seen)} of {len(samples)} probed frames of {info.path};",
            why="an avatar needs it in at least half of them.",
            fix="Cut out the parts without the face.",
        )
    rivals = sum(len(faces) > 1 and faces[1].height >= RIVAL_SIZE * faces[0].height for faces in seen)
    if rivals > RIVAL_SHARE * len(seen):
        raise AvatarError(
            f"{info.path} shows two faces of about equal size",
            why=f"(in {rivals} of {len(seen)} probed frames), and which one to learn is not clear.",
            fix="Crop the video to one person.",
        )
    main = [faces[0] for faces in seen]
    height = float(np.median([face.height for face in main]))
    if height < MIN_FACE:
        raise AvatarError(
            f"The face in {info.path} is only {height:.0f} pixels high;",
            why=f"at least {MIN_FACE} are needed, and 200 make a good avatar.",
            fix="Give a closer or larger video.",
        )
    return frame_head(info.width, info.height, np.stack([face.box for face in main]), height)


def frame_head(width: int, height: int, boxes: np.ndarray, face: float) -> Crop:
    """Choose the crop for face boxes [N, 4] (x0, y0, x1, y1) of the typical height ``face`` in a frame."""
    short = min(width, height)
    if short <= WHOLE_FACES * face and max(width, height) <= 1.1 * short:
        side = short
    else:
        low, high = np.percentile(boxes[:, :2], 2, axis=0), np.percentile(boxes[:, 2:], 98, axis=0)
        # A head that moves needs a larger crop: its whole way, with half a face around it.
        side = max(CROP_FACES * face, float((high - low).max()) + face)
        side = int(min(side, short))
    middle = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    x = int(np.clip(round(middle[0] - side / 2), 0, width - side))
    y = int(np.clip(round(middle[1] - HEADROOM * side), 0, height - side))
    return Crop(x, y, side)


def working_size(crop: Crop, size: int) -> tuple[int, Crop]:
    """Choose the side of the stored frames, and the crop for it.

    The side is a multiple of 16 and never larger than the crop.

    A crop that needs no reduction is trimmed to the multiple, so that its pixels are stored as they are.
    """
    if crop.side > size:
        return size // MULTIPLE * MULTIPLE, crop
    side = crop.side // MULTIPLE * MULTIPLE
    trim = crop.side - side
    return side, Crop(crop.x + trim // 2, crop.y + trim // 2, side)


def write_frames(info: VideoInfo, crop: Crop, size: int, folder: Path) -> int:
    """Write the cropped, resized frames as JPEG; returns how many."""
    pending: list[Future[None]] = []
    count = 0
    frames = reader(info.path).read_frames(info)
    with ThreadPoolExecutor(2) as pool:
        for index, frame in enumerate(log.track(frames, "reading frames", info.num_frames)):
            part = frame[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
            pending.append(pool.submit(_write_frame, folder / f"{index:06d}.jpg", part, size))
            if len(pending) > 8:
                pending.pop(0).result()
            count += 1
        for future in pending:
            future.result()
    return count


def _write_frame(path: Path, image: np.ndarray, size: int) -> None:
    import cv2

    if image.shape[0] != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    write_jpeg(path, image)


def write_audio(info: VideoInfo, path: Path) -> None:
    """Write the audio as 16 kHz mono 16-bit WAV, as long as the video.

    Raises:
        AvatarError: The audio is silent.
    """
    peak = 0
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for chunk in reader(info.path).read_audio(info.path, info.start, info.num_frames / float(info.fps)):
            peak = max(peak, int(np.abs(chunk.astype(np.int32)).max()))
            file.writeframesraw(chunk.tobytes())
    if peak < SILENCE * 32768:
        raise AvatarError(
            f"The audio of {info.path} is silent;",
            why="without the voice an avatar cannot learn to talk.",
            fix="Give a video with the voice, or pass --no-audio to learn the looks and the motion only.",
        )
