"""Decoding an audio track: the samples where their time stamps put them, for the readers and for the muxer alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.errors import AvatarError
from avatar.io.audio_timing import MAX_SILENCE_SECONDS, Stretch, TimedFrame, TimingReport, timed_frames
from avatar.io.clock import steady_packets
from avatar.io.media import ADVICE, decode_packets, ffmpeg_reason, open_media
from avatar.io.tracks import AudioChoice

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer
    from av.filter import Graph

_BROKEN_SHARE = 0.5  # more undecodable packets than this means that the track is damaged
_RUN_UP_SECONDS = 5.0  # decoded before the wanted start: decoders settle, and stamps are averaged
_SILENCE_BLOCK = 160_000  # samples
_NAMED_CHANNELS = 8  # at most, whose usual order FFmpeg knows where a file does not name them


class Downmix:
    """Resamples frames to float32 [C, n] of one rate and layout.

    A mix to mono is the sum of the channels divided by their number, as loud as each where all carry the same.

    Args:
        rate: Hertz, of the result.
        layout: "mono" or "stereo".
        channel: Number of the only channel to take, from 0; None: mix all. For stereo it counts only where nobody
            knows where the channels belong.

    Attributes:
        channels: Of the result.
    """

    def __init__(self, rate: int, layout: str, channel: int | None = None) -> None:
        self.channels = 1 if layout == "mono" else 2
        self._rate, self._layout, self._channel = rate, layout, channel
        self._graph: Graph | None = None
        self._kind: tuple[str, int, str] | None = None

    def push(self, frame: AudioFrame) -> Iterator[np.ndarray]:
        """Take a frame, and give what is ready."""
        kind = frame.format.name, frame.sample_rate, frame.layout.name
        if kind != self._kind:  # some streams change it on the way
            yield from self.flush()
            self._graph, self._kind = self._build(frame), kind
        assert self._graph is not None
        frame.pts = None
        self._graph.push(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[np.ndarray]:
        """Give what the filters still hold; the next frame begins anew."""
        graph, self._graph, self._kind = self._graph, None, None
        if graph is not None:
            graph.push(None)
            yield from self._pull(graph)

    def _pull(self, graph: Graph) -> Iterator[np.ndarray]:
        import av

        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield graph.pull().to_ndarray()  # pyright: ignore[reportAttributeAccessIssue]  # an audio frame

    def _pan(self, mix: str) -> str:
        """Options of FFmpeg's filter that gives each channel the same mix."""
        return "|".join([self._layout, *(f"c{i}={mix}" for i in range(self.channels))])

    def _build(self, frame: AudioFrame) -> Graph:
        import av.filter

        graph = av.filter.Graph()
        # PyAV describes a layout without an order by a name that a filter does not take.
        channels = len(frame.layout.channels) or frame.layout.nb_channels
        unnamed, many = frame.layout.name.endswith(" channels"), channels > _NAMED_CHANNELS
        named = f"{channels}{'C' if many else 'c'}" if unnamed else frame.layout.name
        links = [
            graph.add_abuffer(
                format=frame.format.name, sample_rate=frame.sample_rate, layout=named, time_base=frame.time_base
            )
        ]
        mono = self._layout == "mono"
        if self._channel is not None and (mono or (unnamed and many)):
            links.append(graph.add("pan", self._pan(f"c{self._channel}")))
        elif unnamed and (many or (mono and channels > 2)):
            links.append(graph.add("pan", self._pan("+".join(f"{1 / channels:.6f}*c{i}" for i in range(channels)))))
        options = f"osr={self._rate}:osf=fltp:ochl={self._layout}"
        if mono:
            options += ":rematrix_maxval=1"  # or FFmpeg makes floats louder than integers, by 3 dB for stereo
        links.append(graph.add("aresample", options))
        links.append(graph.add("abuffersink"))
        for before, after in itertools.pairwise(links):
            before.link_to(after)
        graph.configure()
        return graph


def decode(
    path: Path | str, choice: AudioChoice, *, start: float, rate: int, layout: str = "mono",
    report: TimingReport | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Decode the chosen track of a file, in constant memory.

    Sample ``n`` belongs to container time ``start + n / rate``: gaps are silence, overlaps are left out, and a sample
    clock that runs apart from the time stamps is followed.

    Args:
        path: The file.
        choice: What :func:`avatar.io.tracks.choose_audio` chose.
        start: Container time of the first sample, seconds.
        rate: Hertz, of the result.
        layout: "mono", of the chosen channels, or "stereo", of all of them.
        report: Takes what was done to the time.

    Yields:
        [C, n] float32, of any length.

    Raises:
        AvatarError: It cannot be decoded, or contains samples that are not numbers.
    """
    import av

    mix = Downmix(rate, layout, choice.channel)
    try:
        with open_media(path, "audio") as container:
            stream = container.streams.audio[choice.index]
            frames = timed_frames(_frames(container, stream, Path(path), start), start, report or TimingReport())
            for block in _placed(frames, mix, start, rate):
                yield _checked(block, Path(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AvatarError(
            f"{path} cannot be decoded as audio:", why=f"{ffmpeg_reason(error)}.", fix=ADVICE["audio"]
        ) from None


def _placed(frames: Iterator[TimedFrame], mix: Downmix, start: float, rate: int) -> Iterator[np.ndarray]:
    """Resampled blocks from ``start`` on, without gaps."""
    given = 0  # samples
    skip = 0
    clock = 0.0  # seconds of samples since the last jump
    stretch = Stretch(rate)

    def cut(block: np.ndarray) -> np.ndarray:
        nonlocal skip, given
        dropped = min(skip, block.shape[1])
        skip -= dropped
        given += block.shape[1] - dropped
        return block[:, dropped:]

    held: TimedFrame | None = None  # where it ends is known from the next one

    def pushed(last: bool) -> Iterator[np.ndarray]:
        nonlocal held
        if held is not None:
            for block in mix.push(held.frame):
                yield cut(stretch.push(block))
            held = None
        if last:
            for block in mix.flush():
                yield cut(stretch.push(block))
            yield cut(stretch.push(np.zeros((mix.channels, 0), np.float32), last=True))

    for timed in frames:
        if timed.jump:
            yield from pushed(last=True)
            stretch, clock = Stretch(rate), 0.0
            place = round((timed.at - start) * rate)
            skip = max(0, given - place)
            if place - given > MAX_SILENCE_SECONDS * rate:
                raise ValueError("it begins more than an hour late")
            while given < place:
                size = min(place - given, _SILENCE_BLOCK)
                yield np.zeros((mix.channels, size), np.float32)
                given += size
        stretch.correct(clock, timed.correction)
        yield from pushed(last=False)
        clock += timed.frame.samples / max(1, timed.frame.sample_rate)
        held = timed
    yield from pushed(last=True)


def _frames(container: InputContainer, stream: AudioStream, path: Path, start: float) -> Iterator[AudioFrame]:
    """Decoded frames from shortly before ``start`` on; damaged packets are passed over."""

    def early(packet: Packet[Any]) -> bool:
        stamp = packet.pts if packet.pts is not None else packet.dts
        time = start if stamp is None or not packet.time_base else float(stamp * packet.time_base)
        return bool(packet.size) and time < start - _RUN_UP_SECONDS

    def damaged(broken: int, count: int) -> AvatarError:
        return AvatarError(
            f"The audio of {path} cannot be decoded:", why=f"{broken} of its {count} packets are damaged.",
            fix="Check that it plays.",
        )  # fmt: skip

    # Other streams of the file are read by `steady_packets`, which knows the time of all of them.
    packets = (packet for packet in steady_packets(container, [stream]) if not early(packet))
    for _, frames in decode_packets(packets, _BROKEN_SHARE, damaged):
        yield from frames


def _checked(block: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(block).all():
        raise AvatarError(
            f"{path} contains samples that are not numbers (NaN or infinite).",
            why="The program that wrote it went wrong.",
            fix="Export it again, for example as 16-bit wav.",
        )
    return block.astype(np.float32, copy=False)
