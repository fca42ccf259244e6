"""Reading video and its audio with PyAV: rotation honoured, variable frame rates resampled to a constant one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.checks import frame_rate, image_size
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE as SAMPLE_RATE
from avatar.io.audio import read_audio as read_audio
from avatar.io.media import open_media

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

COMMON_RATES = tuple(Fraction(r) for r in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"))
TRUNCATED_SHARE = 0.95  # less of the announced length than this means that the end of the file is missing
UNTAGGED = 2  # FFmpeg's number of an unspecified colour matrix
MOST_PIXELS = 7680 * 4320  # of a video's frame, 8K; a decoder may hold seventeen of them
THREADED_PIXELS = 4096 * 2160  # every further thread of a decoder holds another frame: larger ones get one thread
MOST_SECONDS_BETWEEN = 60.0  # two frames: a longer gap is a broken time stamp, or no video of somebody who talks
MOST_READ = 300_000  # frames: more than three hours, whose images fill ten gigabytes
MOST_REPEATS = 20  # times that a frame is shown on average where a video has too few for its rate
BROKEN_SHARE = 0.05  # more undecodable packets than this means that the file is damaged


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video says about itself, and what its packets say.

    Attributes:
        path: The file.
        width, height: Size in pixels as a player shows it, rotation applied.
        rotation: Clockwise turn in degrees that a player applies: 0, 90, 180 or 270.
        fps: Constant frame rate that the frames are resampled to.
        start: Time of the first frame in seconds on the file's clock.
        duration: Seconds from the first frame to the end of the last one.
        num_frames: Frames at ``fps``.
        variable_rate: Whether the time stamps are not evenly spaced.
        has_audio: Whether there is an audio track.
    """

    path: Path
    width: int
    height: int
    rotation: int
    fps: Fraction
    start: float
    duration: float
    num_frames: int
    variable_rate: bool
    has_audio: bool


def read_info(path: Path) -> VideoInfo:
    """Scan the packets of a video without decoding them (one frame is decoded for its rotation).

    Raises:
        AvatarError: The file is missing, empty, not a video, or cut off.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = _video_stream(container, path)
        times = []
        for packet in _packets(container, stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None and packet.size and not packet.is_discard:
                times.append(stamp)
        width, height = image_size(*declared_size(stream), f"{path}: its video track")
        if width * height > MOST_PIXELS:
            raise AvatarError(f"{path} has frames of {width}x{height} pixels;", why="at most 7680x4320 (8K) are read.")
        times = np.sort(np.array(times, np.float64)) * float(stream.time_base or 1)
        announced = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        nominal = stream.average_rate or stream.guessed_rate
        has_audio = bool(container.streams.audio)
    if len(times) < 2:
        raise AvatarError(
            f"{path} has no moving image:", why=f"{len(times)} video frames were found.", fix="Give a video."
        )
    _check_times(times, announced, path)
    span = float(times[-1] - times[0])
    variable = bool(np.abs(np.diff(times) - span / (len(times) - 1)).max() > 0.5 * span / (len(times) - 1))
    fps = _nominal_rate(len(times), span, nominal, variable)
    with open_media(path) as container:
        first = next(_decoded(container, _video_stream(container, path), path), None)
    if first is None:
        raise AvatarError(f"No frame of {path} can be decoded.", fix="Check that it plays.")
    rotation = -first.rotation % 360
    width, height = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
    frame_rate(float(fps), f"{path}: the number of frames per second")
    duration = span + 1 / float(fps)
    _check_count(duration, fps, len(times), path)
    return VideoInfo(
        path=path, width=width, height=height, rotation=rotation, fps=fps, start=float(times[0]), duration=duration,
        num_frames=max(1, round(duration * fps)), variable_rate=variable, has_audio=has_audio,
    )  # fmt: skip


def _check_times(times: np.ndarray, announced: float, path: Path) -> None:
    """Refuse a video with a long gap between its frames (seconds [T]), or one that ends before its header says."""
    steps = np.diff(times)
    step = float(np.median(steps))
    span = float(times[-1] - times[0])
    if not steps.max() <= MOST_SECONDS_BETWEEN:
        gap = int(steps.argmax())
        raise AvatarError(
            f"{path} shows nothing new for {steps[gap]:.0f} s, from second {times[gap]:.1f} on;",
            why=f"at most {MOST_SECONDS_BETWEEN:.0f} s are bridged.", fix="Cut that part out.",
        )  # fmt: skip
    if announced and span + step < TRUNCATED_SHARE * announced:
        raise AvatarError(
            f"{path} is cut off:",
            why=f"it announces {announced:.1f} s of video and ends after {span:.1f} s.",
            fix="Copy or download it again.",
        )


def _check_count(duration: float, fps: Fraction, shown: int, path: Path) -> None:
    """Refuse a video of too many frames, or one that shows too few different ones for its length."""
    if duration * fps > MOST_READ:
        raise AvatarError(
            f"{path} has {duration * fps:.0f} frames in {duration / 3600:.1f} hours;",
            why=f"at most {MOST_READ} are read.",
            fix="Cut out the minutes that show the person best.",
        )
    if duration * fps > MOST_REPEATS * shown:
        raise AvatarError(f"{path} has only {shown} frames in {duration:.0f} s.", fix="Give a video that moves.")


def read_frames(info: VideoInfo) -> Iterator[np.ndarray]:
    """All frames at the constant rate ``info.fps``: for each output time the decoded frame nearest to it.

    Yields:
        uint8 RGB [height, width, 3], upright; the same array again where the source repeats. Never more than two
        frames are held.

    Raises:
        AvatarError: More than 5 % of the file cannot be decoded.
    """
    with open_media(info.path) as container:
        stream = _video_stream(container, info.path)
        _use_threads(stream)
        count = 0
        held: av.VideoFrame | None = None
        held_time = 0.0
        for frame in _decoded(container, stream, info.path):
            time = frame.time - info.start if frame.time is not None else held_time + 1 / float(info.fps)
            if held is not None:
                middle = (held_time + time) / 2
                image = None
                while count / info.fps < middle and count < info.num_frames:
                    image = to_rgb(held, info) if image is None else image
                    yield image
                    count += 1
            held, held_time = frame, time
        if held is not None:
            image = to_rgb(held, info)
            while count < info.num_frames:
                yield image
                count += 1


def sample_frames(info: VideoInfo, count: int) -> Iterator[np.ndarray]:
    """About ``count`` frames spread evenly over the video, as :func:`read_frames` gives them, in order.

    A long video is sought through, a short one is decoded in one go, which is cheaper than seeking.
    """
    wanted = [info.start + (k + 0.5) * info.duration / count for k in range(count)]
    seeking = info.num_frames > 125 * count  # half of x264's default distance between key frames
    with open_media(info.path) as container:
        stream = _video_stream(container, info.path)
        _use_threads(stream)
        frames = _decoded(container, stream, info.path)
        for time in wanted:
            if seeking:
                container.seek(int(time * 1_000_000), backward=True)
                frames = _decoded(container, stream, info.path)
            frame = next((f for f in frames if f.time is None or f.time >= time), None)
            if frame is not None:
                yield to_rgb(frame, info)


def to_rgb(frame: av.VideoFrame, info: VideoInfo) -> np.ndarray:
    """A decoded frame as upright uint8 RGB [height, width, 3]."""
    from av.video.reformatter import Colorspace

    # Untagged video: players take the HD matrix from 720 lines on, and the SD one below.
    untagged = frame.colorspace == UNTAGGED
    matrix = (Colorspace.ITU709 if min(info.width, info.height) >= 720 else Colorspace.ITU601) if untagged else None
    width, height = (info.width, info.height) if info.rotation % 180 == 0 else (info.height, info.width)
    # Where the size changes within a video, players scale to that of the first frame.
    scaled = {} if (frame.width, frame.height) == (width, height) else {"width": width, "height": height}
    image = frame.reformat(format="rgb24", src_colorspace=matrix, **scaled).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, -info.rotation // 90)) if info.rotation else image


def _video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    # A cover image in an audio file is a video stream too; ask for one that moves.
    streams = [s for s in container.streams.video if not (s.disposition & s.disposition.attached_pic)]
    if not streams:
        raise AvatarError(f"{path} has no video track.", fix="Give a video of the person talking.")
    if streams[0].codec_context is None:  # PyAV: FFmpeg has no decoder
        raise AvatarError(f"{path} is coded in a way that FFmpeg does not know.", fix="Convert it to mp4 (H.264).")
    with suppress(RuntimeError):  # decoding has begun, with this limit
        streams[0].codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # of any frame, whatever its header says
    return streams[0]


def _use_threads(stream: av.VideoStream) -> None:
    """Let a video be decoded by several threads, where their memory allows it."""
    width, height = declared_size(stream)
    if width * height <= THREADED_PIXELS:
        stream.thread_type = "AUTO"
    else:
        stream.codec_context.thread_count = 1


def declared_size(stream: av.VideoStream) -> tuple[int, int]:
    """Width and height in pixels that the header of a video announces."""
    return stream.codec_context.width, stream.codec_context.height


def _packets(container: InputContainer, stream: Any) -> Iterator[av.Packet[Any]]:
    """Demux to the end; an error in the container ends the stream, as a player does it."""
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _decoded(container: InputContainer, stream: av.VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    import av

    packets = broken = 0
    for packet in _packets(container, stream):
        packets += 1
        try:
            frames = packet.decode()
        except av.FFmpegError:
            broken += 1
            continue
        yield from frames
    if broken > max(3, BROKEN_SHARE * packets):
        raise AvatarError(
            f"{path} is damaged:",
            why=f"{broken} of its {packets} video packets cannot be decoded.",
            fix="Copy it again.",
        )


def _nominal_rate(count: int, span: float, nominal: Fraction | None, variable: bool) -> Fraction:
    """Frame rate to use: what the file says if its time stamps agree, else their average, snapped to a common rate."""
    measured = (count - 1) / span if span > 0 else 25.0
    if nominal and not variable and math.isclose(float(nominal), measured, rel_tol=0.01):
        return Fraction(nominal)
    nearest = min(COMMON_RATES, key=lambda rate: abs(float(rate) - measured))
    if math.isclose(float(nearest), measured, rel_tol=0.02):
        return nearest
    return Fraction(measured).limit_denominator(100)
