"""Reading video with PyAV: frames upright, with square pixels, SDR, progressive, of one size, and at an even rate.

What had to be done to a recording for that is told in words (:attr:`VideoInfo.treatments`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.checks import frame_rate, image_size
from avatar.errors import AvatarError
from avatar.io import tracks
from avatar.io.audio import SAMPLE_RATE as SAMPLE_RATE
from avatar.io.audio import read_audio as read_audio
from avatar.io.cadence import find_cadence
from avatar.io.clock import Jump, is_joinable, steady_packets, timed_streams
from avatar.io.colour import complete_colours, container_colours, white_of
from avatar.io.frames import Developer, Look, Shot, near_turn, pixel_shape
from avatar.io.media import Treatment, decode_packets, open_media
from avatar.io.survey import SPAN_FRAMES, SPANS, Survey, survey
from avatar.io.treatments import image_treatments, time_treatments

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream

COMMON_RATES = tuple(Fraction(r) for r in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"))
TRUNCATED_SHARE = 0.95  # less of the announced length than this means that the end of the file is missing
MOST_PIXELS = 7680 * 4320  # of a video's frame, 8K; a decoder may hold seventeen of them
THREADED_PIXELS = 4096 * 2160  # every further thread of a decoder holds another frame: larger ones get one thread
MOST_SECONDS_BETWEEN = 60.0  # two frames: a longer gap is a broken time stamp, or no video of somebody who talks
MOST_READ = 300_000  # frames: more than three hours, whose images fill ten gigabytes
MOST_REPEATS = 20  # times that a frame is shown on average where a video has too few for its rate
MOST_JUMPS_SHARE = 0.05  # of the frames: where time stamps jump more often, they say nothing
BROKEN_SHARE = 0.05  # more undecodable packets than this means that the file is damaged
HELD_STEPS = 1.5  # frames that the last one stands for: more is meant so
LARGE_PIXELS = 2048 * 1152  # fewer frames of larger ones are surveyed
SURVEYED_WHOLE = 750  # frames: a shorter video is looked at as a whole


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video says about itself, and what its packets and a few of its frames say.

    Attributes:
        path: The file.
        width, height: Size in pixels of every frame that is read.
        rotation: Clockwise turn in degrees that a player applies: 0, 90, 180 or 270.
        fps: Constant frame rate that the frames are resampled to.
        start: Time of the first frame in seconds on the file's clock.
        duration: Seconds from the first frame to the end of the last one.
        num_frames: Frames at ``fps``.
        variable_rate: Whether the time stamps are not evenly spaced.
        has_audio: Whether there is an audio track.
        track: Number of the video track that was asked for, from 1; None: the default one.
        look: What decoded frames are brought to; None: they are as they should be (images of a dataset).
        pick: Seconds after its own time at which a frame is taken from a file that repeats frames.
        steady: Whether the time stamps of the file never start again or leap.
        treatments: What is done to the recording.
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
    track: int | None = None
    look: Look | None = None
    pick: float = 0.0
    steady: bool = True
    treatments: tuple[Treatment, ...] = ()


@dataclass(frozen=True)
class _Scan:
    """What the packets of a video say.

    Attributes:
        times: [T] seconds at which the frames are shown, in order.
        held: Seconds that the last frame is shown; 0 where nothing says so.
        announced: Seconds of video that the header promises; 0 for none.
        nominal: Rate that the header gives.
        jumps: Places where time stamps started again or leapt.
        declared_pixel: Width of a pixel by its height, as the header says.
        pixel: Shape of a pixel that the container gives; None where it leaves that to the coded stream.
        colours: See :class:`avatar.io.frames.Look`.
        has_audio: Whether there is an audio track.
        treatments: Which track was taken.
    """

    times: np.ndarray
    held: float
    announced: float
    nominal: Fraction | None
    jumps: list[Jump]
    declared_pixel: Fraction | None
    pixel: Fraction | None
    colours: tuple[int, int, int] | None
    has_audio: bool
    treatments: tuple[Treatment, ...]


def read_info(path: Path, video_track: int | None = None) -> VideoInfo:
    """Scan the packets of a video, and decode a few spans of it.

    Args:
        path: The file.
        video_track: Number of the video track from 1; None: the one that players show.

    Raises:
        AvatarError: The file is missing, empty, not a video, cut off, or of a kind that cannot be made right.
    """
    path = Path(path)
    scan = _scan(path, video_track)
    times = scan.times
    _check_times(scan, path)
    span = float(times[-1] - times[0])
    step = span / (len(times) - 1)
    variable = bool(np.abs(np.diff(times) - step).max() > 0.5 * step)
    fps = _nominal_rate(times, scan.nominal, variable)
    variable = variable or not math.isclose(step * fps, 1, rel_tol=0.02)
    seen = _surveyed(path, video_track, scan)
    if (shown := seen.step()) is not None and not variable and 1.9 < shown * fps < 2.1:
        fps = fps / 2  # the two fields of a frame come as packets of their own
    cadence = None if variable else find_cadence(*_slots(seen, float(times[0]), fps), fps)
    start, pick = float(times[0]), 0.0
    last = scan.held if scan.held > HELD_STEPS / float(fps) else 1 / float(fps)
    end = start + span + last
    stored = fps
    if cadence is not None:
        start, pick, fps = start + cadence.begin / float(fps), cadence.pick / float(fps), cadence.rate
    frame_rate(float(fps), f"{path}: the number of frames per second")
    duration = end - start if cadence is not None else span + last
    _check_count(duration, fps, len(times), path)
    look = Look(*seen.size, scan.pixel, seen.interlaced, white_of(seen.peaks), scan.colours, seen.partly)
    turn = seen.orientations.most_common(1)[0][0]
    return VideoInfo(
        path=path, width=look.width, height=look.height, rotation=turn.turn, fps=fps, start=start, duration=duration,
        num_frames=max(1, round(duration * fps)), variable_rate=variable, has_audio=scan.has_audio, track=video_track,
        look=look, pick=pick, steady=not scan.jumps,
        treatments=(
            *scan.treatments,
            *time_treatments(scan.jumps, start, variable, stored, fps, last * float(stored), seen),
            *image_treatments(seen, look, scan.declared_pixel),
        ),
    )  # fmt: skip


def _scan(path: Path, wanted: int | None) -> _Scan:
    with open_media(path) as container:
        stream = _video_stream(container, path, wanted)
        declared, pixel, colours = stream.sample_aspect_ratio, _container_pixel(stream), container_colours(stream)
        times: list[int] = []
        jumps: list[Jump] = []
        newest, held, end = -math.inf, 0, 0.0
        for packet in _packets(container, timed_streams(container), jumps):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None and packet.time_base:
                end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            if stamp is not None and packet.size and not packet.is_discard:
                times.append(stamp)
                if stamp >= newest:
                    newest, held = stamp, packet.duration or 0
        width, height = image_size(*declared_size(stream), f"{path}: its video track")
        if width * height > MOST_PIXELS:
            raise AvatarError(f"{path} has frames of {width}x{height} pixels;", why="at most 7680x4320 (8K) are read.")
        base = float(stream.time_base or 1)
        if len(times) < 2:
            raise AvatarError(
                f"{path} has no moving image:", why=f"{len(times)} video frames were found.", fix="Give a video."
            )
        return _Scan(
            times=np.sort(np.array(times, np.float64)) * base,
            held=min(held * base, MOST_SECONDS_BETWEEN),
            announced=_announced(container, stream, end),
            nominal=stream.average_rate or stream.guessed_rate,
            jumps=jumps,
            declared_pixel=declared,
            pixel=pixel,
            colours=colours,
            has_audio=bool(container.streams.audio),
            treatments=tracks.video_track_treatments(container, stream, wanted),
        )


def _announced(container: InputContainer, stream: av.VideoStream, end: float) -> float:
    """Seconds of video that the header promises; ``end`` is where the last packet of any track ends."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    whole = (container.duration or 0) / 1_000_000 if "matroska" in container.format.name else 0.0
    other = len(timed_streams(container)) < len(container.streams)  # subtitles may be longer than all
    return 0.0 if other or end >= TRUNCATED_SHARE * whole else whole


def _container_pixel(stream: av.VideoStream) -> Fraction | None:
    """Shape of a pixel that the container gives: it wins over that of the coded stream, as in players."""
    declared, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
    return pixel_shape(declared) if declared and declared != coded else None


def _surveyed(path: Path, wanted: int | None, scan: _Scan) -> Survey:
    """Look at a few spans of a video; at all of a short one.

    Of one that cannot be sought in, it is the beginning.
    """
    with open_media(path) as container:
        stream = _video_stream(container, path, wanted)
        _use_threads(container, stream)
        large = math.prod(declared_size(stream)) > LARGE_PIXELS
        most = SPAN_FRAMES // 2 if large else SPAN_FRAMES

        def spans() -> Iterator[Iterator[av.VideoFrame]]:
            if scan.jumps or len(scan.times) <= SURVEYED_WHOLE // (2 if large else 1):
                yield _first(_decoded(container, stream, path, scan.colours), 2 * SURVEYED_WHOLE)
                return
            for k in range(SPANS):
                if k:
                    time = scan.times[0] + k / SPANS * (scan.times[-1] - scan.times[0])
                    container.seek(int(time * 1_000_000), backward=True)
                yield _first(_decoded(container, stream, path, scan.colours), most)

        seen = survey(spans(), stream, scan.pixel, path)
    if not seen.times:
        raise AvatarError(f"No frame of {path} can be decoded.", fix="Check that it plays.")
    for orientation in seen.orientations:
        if not near_turn(orientation):
            raise AvatarError(
                f"{path} is to be shown turned by {orientation.slant:.0f} degrees beyond a quarter turn.",
                fix="Turn it upright in an editor first.",
            )
    return seen


def _first(frames: Iterator[av.VideoFrame], count: int) -> Iterator[av.VideoFrame]:
    for _, frame in zip(range(count), frames, strict=False):
        yield frame


def _slots(seen: Survey, start: float, fps: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """Number [N] of every surveyed frame, counted from the first of the video, and its change [N]."""
    times, changes = np.array(seen.times), np.array(seen.changes)
    known = np.isfinite(times) & np.isfinite(changes)
    return np.rint((times[known] - start) * float(fps)), changes[known]


def _check_times(scan: _Scan, path: Path) -> None:
    """Refuse time stamps that cannot be right, a long gap between frames, or an end before the header says."""
    times, steps = scan.times, np.diff(scan.times)
    span = float(times[-1] - times[0])
    if len(scan.jumps) > max(20, MOST_JUMPS_SHARE * len(times)):
        raise AvatarError(
            f"The time stamps of {path} jump {len(scan.jumps)} times in {len(times)} frames.",
            fix="Convert it with an editor, so that its frames come in order.",
        )
    if not steps.max() <= MOST_SECONDS_BETWEEN:
        gap = int(steps.argmax())
        raise AvatarError(
            f"{path} shows nothing new for {steps[gap]:.0f} s, from second {times[gap]:.1f} on;",
            why=f"at most {MOST_SECONDS_BETWEEN:.0f} s are bridged.", fix="Cut that part out.",
        )  # fmt: skip
    if scan.jumps or not scan.announced:
        return
    if span + max(scan.held, float(np.median(steps))) < TRUNCATED_SHARE * scan.announced:
        raise AvatarError(
            f"{path} is cut off:",
            why=f"it announces {scan.announced:.1f} s of video and ends after {span:.1f} s.",
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
        stream = _video_stream(container, info.path, info.track)
        _use_threads(container, stream)
        developer = Developer(_look(info), stream)
        count = 0
        held: Shot | None = None
        held_time = 0.0
        for shot in developer.shots(_decoded(container, stream, info.path, _look(info).colours)):
            time = shot.time - info.start if shot.time is not None else held_time + 1 / float(info.fps)
            if held is not None:
                if time <= held_time:
                    continue  # left over from before a joint
                middle = (held_time + time) / 2 - info.pick
                image = None
                while count / info.fps < middle and count < info.num_frames:
                    image = developer.image(held) if image is None else image
                    yield image
                    count += 1
            held, held_time = shot, time
        if held is not None:
            image = developer.image(held)
            while count < info.num_frames:
                yield image
                count += 1


def sample_frames(info: VideoInfo, count: int) -> Iterator[np.ndarray]:
    """About ``count`` frames spread evenly over the video, as :func:`read_frames` gives them, in order.

    A long video is sought through, a short one is decoded in one go, which is cheaper than seeking.
    """
    wanted = [info.start + (k + 0.5) * info.duration / count for k in range(count)]
    seeking = info.steady and info.num_frames > 125 * count  # half of x264's default distance between key frames
    with open_media(info.path) as container:
        stream = _video_stream(container, info.path, info.track)
        _use_threads(container, stream)
        developer = Developer(_look(info), stream)
        shots = developer.shots(_decoded(container, stream, info.path, _look(info).colours))
        newest: Shot | None = None
        for time in wanted:
            if seeking:
                container.seek(int(time * 1_000_000), backward=True)
                shots = developer.shots(_decoded(container, stream, info.path, _look(info).colours))
            for shot in shots:
                newest = shot
                if shot.time is None or shot.time >= time:
                    break
            if newest is not None:  # behind the last frame: it stands still
                yield developer.image(newest)


def _look(info: VideoInfo) -> Look:
    return info.look or Look(info.width, info.height)


def _video_stream(container: InputContainer, path: Path, wanted: int | None = None) -> av.VideoStream:
    stream = tracks.video_track(container, path, wanted)
    with suppress(RuntimeError):  # decoding has begun, with this limit
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # of any frame, whatever its header says
    return stream


def _use_threads(container: InputContainer, stream: av.VideoStream) -> None:
    """Let a video be decoded by several threads, where their memory allows it."""
    width, height = declared_size(stream)
    if is_joinable(container):
        stream.thread_type = "SLICE"  # so that a frame and what the decoder says of its pixels belong together
    elif width * height <= THREADED_PIXELS:
        stream.thread_type = "AUTO"
    else:
        stream.codec_context.thread_count = 1


def declared_size(stream: av.VideoStream) -> tuple[int, int]:
    """Width and height in pixels that the header of a video announces."""
    return stream.codec_context.width, stream.codec_context.height


def _packets(
    container: InputContainer, streams: Sequence[Stream], jumps: list[Jump] | None = None
) -> Iterator[av.Packet[Any]]:
    """Demux to the end; an error in the container ends the stream, as a player does it."""
    import av

    try:
        yield from steady_packets(container, streams, jumps)
    except av.FFmpegError:
        return


def _decoded(
    container: InputContainer, stream: av.VideoStream, path: Path, colours: tuple[int, int, int] | None
) -> Iterator[av.VideoFrame]:
    def damaged(broken: int, count: int) -> AvatarError:
        return AvatarError(
            f"{path} is damaged:", why=f"{broken} of its {count} video packets cannot be decoded.", fix="Copy it again."
        )

    stamps: list[int] = []  # of an AVI: they count packets, which frames leave in another order
    for packet, frames in decode_packets(_packets(container, [stream]), BROKEN_SHARE, damaged):
        if packet.size and packet.pts is not None and container.format.name == "avi":
            heapq.heappush(stamps, packet.pts)
        for frame in frames:
            if stamps:
                frame.pts = heapq.heappop(stamps)
            complete_colours(frame, colours)
            yield frame


def _nominal_rate(times: np.ndarray, nominal: Fraction | None, variable: bool) -> Fraction:
    """Frame rate to use: what the file says if its time stamps [T] agree, else a common rate, or the average.

    The common rate is that of the average; where frames were dropped, or one was held, that of more than half of the
    steps.
    """
    span = float(times[-1] - times[0])
    measured = (len(times) - 1) / span if span > 0 else 25.0
    if nominal and not variable and math.isclose(float(nominal), measured, rel_tol=0.01):
        return Fraction(nominal)
    steps = np.diff(times)
    steps = steps[steps > 0]
    usual = 1 / float(np.median(steps)) if len(steps) else measured
    if nominal and math.isclose(float(nominal), usual, rel_tol=1e-4) and abs(measured / usual - 1) < 0.02:
        return Fraction(nominal)
    nearest = min(COMMON_RATES, key=lambda rate: abs(float(rate) - measured))
    if math.isclose(float(nearest), measured, rel_tol=0.02):
        return nearest
    nearest = min(COMMON_RATES, key=lambda rate: abs(float(rate) - usual))
    if np.isclose(steps, 1 / float(nearest), rtol=0.1, atol=0.0015).mean() > 0.5:
        return nearest
    return Fraction(measured).limit_denominator(100)
