"""Stage: the video becomes frames around the head or the person at a constant frame rate, and 16 kHz mono audio.

A dataset folder in the layout of ER-NeRF is read like a video, by :mod:`avatar.data.ernerf`.

One crop is chosen for the whole video, around the face that is learned: the camera of an avatar stands still, so the
crop must too.
"""

from __future__ import annotations

import functools
import wave
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar import log
from avatar.data import ernerf
from avatar.data.results import IngestResult
from avatar.errors import AvatarError
from avatar.io import video
from avatar.io.audio import SAMPLE_RATE, load_audio, read_audio
from avatar.io.audio_timing import TimingReport
from avatar.io.images import write_jpeg
from avatar.io.media import Treatment
from avatar.io.video import VideoInfo
from avatar.paths import file_sha256
from avatar.preprocess import framing
from avatar.preprocess.config import SOURCE_OPTIONS, PrepareConfig
from avatar.preprocess.framing import Framing, Rect, frame_person
from avatar.preprocess.learned_face import LearnedFace, learned_face, reader
from avatar.preprocess.stage import StageContext, content_hash

NAME = "ingest"
INPUTS: tuple[str, ...] = ()
VERSION = 5

MIN_SECONDS = 5.0
MIN_RATE = 5  # frames per second: with fewer, no movement of lips is seen
LEAST_COMMON = 3.0  # seconds of video with audio: of less, lips learn nothing
SILENCE = 10 ** (-60 / 20)  # audio that never gets louder than this is silent
OUTSIDE = 0.05  # face heights by which a face may reach out of the user's square
CROP_FACES = 2.5  # side of the crop in face heights (forehead to chin)
WHOLE_FACES = 2.9  # a nearly square frame up to this size is kept whole
HEADROOM = 0.45  # the middle of the face lies this far down the crop
MULTIPLE = 16
WHOLE_FRAMES = 56  # that are stored as rendering shows them, for the background


@dataclass(frozen=True)
class Crop:
    """A square of the upright source frame, in whole pixels."""

    x: int
    y: int
    side: int


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on."""
    config = ctx.config
    chosen = {name: getattr(config, name) for name in SOURCE_OPTIONS}
    if config.frame != "head":
        chosen["framing"] = framing.VERSION
    return {"source": fingerprint(ctx.video), "size": config.size, "audio": config.audio, **chosen}


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
        AvatarError: The file is missing, empty, not a video, cut off, too short, or has no audio; or an option names
            a track or a place that it does not have.
    """
    info = read_source(video, config)
    check_place(info, config)
    if info.duration < MIN_SECONDS:
        raise AvatarError(
            f"{info.path} is {info.duration:.1f} s long;",
            why=f"an avatar needs at least {MIN_SECONDS:.0f} s, and 3 to 5 minutes make a good one.",
            fix="Give a longer video.",
            see="the-video-is-too-short",
        )
    if info.fps < MIN_RATE:
        raise AvatarError(
            f"{info.path} has only {float(info.fps):.3g} frames per second;",
            why=f"an avatar needs at least {MIN_RATE}, and 25 make a good one.",
            fix="Record it again, or give another track with --video-track.",
        )
    if config.audio and not info.has_audio:
        raise AvatarError(
            f"{info.path} has no {ernerf.AUDIO if info.path.is_dir() else 'audio track'};",
            why="without the voice an avatar cannot learn to talk.",
            fix="Give a video with audio, or pass --no-audio to learn the looks and the motion only.",
            see="the-video-has-no-audio",
        )
    check_delay(info, config)
    return info


def check_delay(info: VideoInfo, config: PrepareConfig) -> None:
    """Refuse an audio delay that leaves less than 3 s, and less than half of the video, with audio.

    Raises:
        AvatarError: It does.
    """
    if not config.audio or config.audio_delay_s == "auto":
        return
    left = info.duration - abs(config.audio_delay_s)
    if left < min(LEAST_COMMON, info.duration / 2):
        raise AvatarError(
            f"--audio-delay-s {config.audio_delay_s:g} leaves {max(0.0, left):.1f} s of {info.path} with audio;",
            why=f"the video is {info.duration:.1f} s long, and {LEAST_COMMON:g} s teach a little.",
            fix="Give the delay in seconds, not in milliseconds, or auto to measure it.",
        )


def read_source(path: Path, config: PrepareConfig) -> VideoInfo:
    """Read what a recording says about itself, of the tracks that the user chose.

    Raises:
        AvatarError: It cannot be read, or has no such track.
    """
    if not Path(path).is_dir():
        return _read_video(Path(path), config.video_track, *_state(path))
    for name in ("audio_track", "video_track"):
        if getattr(config, name) is not None:
            raise AvatarError(
                f"--{name.replace('_', '-')} chooses a track of a video;",
                why=f"{path} is a dataset folder, which has one of each kind.",
                fix="Leave the option out.",
            )
    return ernerf.read_info(path)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file, which change when it does; zeros where it cannot be read, as reading it then says."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=1)  # the folder is claimed before the first stage runs: a video is surveyed once for both
def _read_video(path: Path, track: int | None, _size: int, _modified: int) -> VideoInfo:
    return video.read_info(path, video_track=track)


def check_place(info: VideoInfo, config: PrepareConfig) -> None:
    """Refuse a point or a square that is not in the picture.

    Raises:
        AvatarError: It lies outside.
    """
    size = f"{info.path} is {info.width}x{info.height} pixels as it is shown."
    if (square := config.square) is not None:
        x, y, side = square
        if x + side > info.width or y + side > info.height:
            raise AvatarError(
                f"--crop {config.crop} reaches out of the picture;",
                why=size,
                fix="Give the left and upper edge of a square inside it, and its side.",
            )
    if isinstance(wanted := config.wanted_face, tuple) and not (wanted[0] < info.width and wanted[1] < info.height):
        raise AvatarError(f"--face {config.face} is not in the picture;", why=size, fix="Give a point inside it.")


def run(ctx: StageContext, out: Path) -> IngestResult:
    """Write frames/ and audio.wav.

    Raises:
        AvatarError: See :func:`check_source` and :func:`choose_crop`; also silent audio.
    """
    config = ctx.config
    info = check_source(ctx.video, config)
    test_start = split(info)
    audio = out / "audio.wav"
    timing = TimingReport()
    heard = write_audio(info, audio, timing, config.audio_track) if config.audio else []
    face = learned_face(info, config, lambda: load_audio(audio) if config.audio else np.zeros(0, np.float32))
    head = choose_crop(info, face, config)
    chosen = frame_head_only(head, config) if config.frame == "head" else frame_person(info, face, config)
    written, whole = write_frames(info, chosen, out)
    return IngestResult(
        source=str(ctx.video.resolve()), source_size=(info.width, info.height), rotation=info.rotation,
        variable_rate=info.variable_rate, fps=float(info.fps), num_frames=written, crop=chosen.crop,
        width=chosen.size[0], height=chosen.size[1], head=(head.x, head.y, head.side), has_audio=config.audio,
        frame=chosen.frame, frame_size=chosen.frame_size, whole=whole,
        face_height=round(face.height, 1), test_start=test_start, usual=face.usual, face=face.place,
        audio_span=audio_span(timing, written / float(info.fps)),
        recording=[*info.treatments, *heard, *face.treatments, *chosen.treatments],
    )  # fmt: skip


def frame_head_only(head: Crop, config: PrepareConfig) -> Framing:
    """Train and show the square around the head, and nothing else."""
    size, crop = working_size(head, config.size)
    return Framing(
        crop=Rect(crop.x, crop.y, crop.side, crop.side), size=(size, size),
        treatments=crop_treatments(crop, size, config),
    )  # fmt: skip


def crop_treatments(crop: Crop, size: int, config: PrepareConfig) -> tuple[Treatment, ...]:
    """Say which square was cut out where the user chose it, and by how much it was reduced."""
    told = []
    if config.square is not None:
        told.append(Treatment("crop", f"The square {config.crop} was cut out, as asked for (--crop)."))
    if crop.side > size:
        told.append(Treatment("reduced", f"The square around the head was reduced from {crop.side} to {size} pixels."))
    return tuple(told)


def split(info: VideoInfo) -> int | None:
    """Read the first held-out frame, where the source is a dataset that says which one it is."""
    if not info.path.is_dir():
        return None
    start = ernerf.test_start(info.path)
    if start is None:
        log.warn(f"{info.path} does not hold out its last frames; the end of the video is held out instead.")
    return start


def choose_crop(info: VideoInfo, face: LearnedFace, config: PrepareConfig) -> Crop:
    """Choose one square around the head and the shoulders, wherever the head goes; or take the user's.

    Args:
        info: The video; gives the size of a frame.
        face: The face to learn.
        config: ``crop`` is the user's square.

    Raises:
        AvatarError: The face is not whole in the user's square.
    """
    if (square := config.square) is None:
        return clear_of(face, frame_head(info.width, info.height, face.boxes, face.height), info)
    fits(face.boxes, face.height, config)
    return Crop(*square)


def fits(boxes: np.ndarray, height: float, config: PrepareConfig) -> None:
    """Refuse a square of the user's that cuts the face off.

    Args:
        boxes: [N, 4] x0, y0, x1, y1 of the face.
        height: Of the face, pixels.
        config: ``crop`` is the square.

    Raises:
        AvatarError: The face is not whole in it.
    """
    square = config.square
    assert square is not None
    x0, y0, x1, y1 = np.median(boxes, axis=0)
    out = max(square.x - x0, square.y - y0, x1 - square.x - square.side, y1 - square.y - square.side)
    if out > OUTSIDE * height:
        raise AvatarError(
            f"The face is not whole in --crop {config.crop}:",
            why=f"it reaches from {x0:.0f},{y0:.0f} to {x1:.0f},{y1:.0f}.",
            fix=f"Give a square around it; a side of {CROP_FACES * height:.0f} shows the shoulders as well.",
        )


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


def clear_of(face: LearnedFace, crop: Crop, info: VideoInfo) -> Crop:
    """Move a crop so that it shows no other face, where the head allows it.

    Args:
        face: The face to learn; its boxes stay inside.
        crop: The crop to move.
        info: The video; gives the size of a frame.
    """
    low, high = np.percentile(face.boxes[:, :2], 2, axis=0), np.percentile(face.boxes[:, 2:], 98, axis=0)
    for x0, y0, x1, y1 in face.others:
        tries = [
            Crop(crop.x, crop.y, crop.side),
            Crop(int(np.ceil(x1)), crop.y, crop.side),
            Crop(int(x0) - crop.side, crop.y, crop.side),
            Crop(crop.x, int(np.ceil(y1)), crop.side),
            Crop(crop.x, int(y0) - crop.side, crop.side),
        ]
        fit = [
            moved
            for moved in tries
            if 0 <= moved.x <= min(low[0], info.width - crop.side)
            and 0 <= moved.y <= min(low[1], info.height - crop.side)
            and moved.x + crop.side >= high[0]
            and moved.y + crop.side >= high[1]
            and not (moved.x < x1 and x0 < moved.x + crop.side and moved.y < y1 and y0 < moved.y + crop.side)
        ]
        crop = min(fit, key=lambda moved: abs(moved.x - crop.x) + abs(moved.y - crop.y), default=crop)
    return crop


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


def write_frames(info: VideoInfo, framing: Framing, out: Path) -> tuple[int, list[int]]:
    """Write frames/ as JPEG, and some of them into whole/ as rendering shows them; returns how many, and which."""
    whole: list[int] = []
    (out / "frames").mkdir()
    if framing.frame is not None:
        whole = np.unique(np.linspace(0, info.num_frames - 1, WHOLE_FRAMES).round().astype(int)).tolist()
        (out / "whole").mkdir()
    wanted = set(whole)
    pending: list[Future[None]] = []
    count = 0
    frames = reader(info.path).read_frames(info)
    with ThreadPoolExecutor(2) as pool:
        for index, frame in enumerate(log.track(frames, "reading frames", info.num_frames)):
            name = f"{index:06d}.jpg"
            pending.append(pool.submit(_write_frame, out / "frames" / name, framing.crop.cut(frame), framing.size))
            if framing.frame is not None and framing.frame_size is not None and index in wanted:
                shown = framing.frame.cut(frame)
                pending.append(pool.submit(_write_frame, out / "whole" / name, shown, framing.frame_size))
            if len(pending) > 8:
                pending.pop(0).result()
            count += 1
        for future in pending:
            future.result()
    return count, [index for index in whole if index < count]


def _write_frame(path: Path, image: np.ndarray, size: tuple[int, int]) -> None:
    import cv2

    if image.shape[1::-1] != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    write_jpeg(path, image)


def audio_span(timing: TimingReport, seconds: float) -> list[float] | None:
    """Tell from when to when a video of ``seconds`` has audio, seconds; None where it nearly always has."""
    if not timing.padded:
        return None
    return [round(timing.before, 3), round(max(timing.before, seconds - timing.after), 3)]


def write_audio(info: VideoInfo, path: Path, timing: TimingReport, track: int | None = None) -> list[Treatment]:
    """Write the audio as 16 kHz mono 16-bit WAV, as long as the video; returns what was done to it.

    Args:
        info: The video.
        path: The WAV file.
        timing: Gets what was done to the time of it.
        track: Number of the audio track from 1; None: the one that players take, if it is heard.

    Raises:
        AvatarError: The audio is silent, or there is no such track.
    """
    peak = 0
    told: list[Treatment] = []
    source = info.path / ernerf.AUDIO if info.path.is_dir() else info.path
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for chunk in read_audio(source, info.start, info.num_frames / float(info.fps), track, told, timing):
            peak = max(peak, int(np.abs(chunk.astype(np.int32)).max(initial=0)))
            file.writeframesraw(chunk.tobytes())
    if peak < SILENCE * 32768:
        raise AvatarError(
            f"The audio of {info.path} is silent;",
            why="without the voice an avatar cannot learn to talk.",
            fix="Give a video with the voice, choose another track with --audio-track N, or pass --no-audio to learn "
            "the looks and the motion only.",
            see="the-video-has-no-audio",
        )
    return told
