"""Video writing with the user's own audio, in constant memory and under a temporary name until it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast, final

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter

from avatar.io.audio import probe_audio
from avatar.io.audio_decoder import decode
from avatar.io.clock import steady_packets
from avatar.io.media import open_media
from avatar.io.video_codings import MP4, Coding
from avatar.writing import NewFile, disk_error

if TYPE_CHECKING:
    from avatar.provenance.disclosure import Disclosure

    _Packet = av.Packet[av.AudioStream]

BT709 = 1  # H.264 code of the primaries, the transfer and the matrix of HD video
LIMITED_RANGE = 1
_EVEN_SECONDS = 0.02  # by which the time stamps of copied packets may differ from the length of their samples


@final
class VideoWriter:
    """Writes a video frame by frame, optionally with the audio of a file; by default H.264 in an mp4.

    Audio is interleaved with the video, so that nothing piles up in memory, and ends with it.
    AAC is copied as it is when it starts at zero and its time stamps are even; everything else becomes AAC (a copied
    MP3 would lose the note of its encoder's delay, which is more than a frame).

    Args:
        path: The file to write. It appears, or replaces an older one, when :meth:`close` succeeds.
        width, height: Frame size in pixels. Odd sizes are padded by one repeated row or column.
        fps: Frames per second.
        audio: Anything FFmpeg reads that has an audio track.
        audio_start: Second of ``audio`` that belongs to the first frame, counted from its first sample.
        crf: x264's quality, 0 (lossless) to 51; 18 looks like the original.
        preset: x264's speed preset.
        threads: Encoder threads; 0 lets x264 choose.
        audio_track: Number of the audio track of ``audio``, from 1; None: the one that all readers choose.
        comment: Metadata of the file; empty: none.
        coding: Container and codecs.
        alpha: Whether frames have a fourth channel, straight (not premultiplied) alpha.
        disclosure: How the file says that a program made it; None: a camera did, or it does not matter.

    Raises:
        AvatarError: The audio cannot be read, or the output cannot be written.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float,
        audio: Path | None = None,
        audio_start: float = 0.0,
        crf: float = 18,
        preset: str = "veryfast",
        threads: int = 1,
        audio_track: int | None = None,
        comment: str = "",
        coding: Coding = MP4,
        alpha: bool = False,
        disclosure: Disclosure | None = None,
    ) -> None:
        if alpha and not coding.alpha:
            raise ValueError(f"{coding.container} has no alpha")
        self._pixels, self._channels = (coding.alpha, 4) if alpha else (coding.pixels, 3)
        self.path = Path(path)
        self.width, self.height = width, height
        self.frames = 0
        # One for the whole file: `VideoFrame.reformat` makes a converter, with its threads, for every frame.
        self._convert = VideoReformatter().reformat
        self._disclosure = disclosure
        self._rate = Fraction(fps).limit_denominator(10_000)
        self._audio = None if audio is None else _AudioTrack(Path(audio), audio_start, audio_track, coding)
        self._output: OutputContainer | None = None
        self._new: NewFile | None = None
        try:
            self._new = NewFile(self.path)
            output = av.open(f"file:{self._new.path}", "w", format=coding.container, options=dict(coding.muxing))
            self._output = output
            if comment:
                output.metadata["comment"] = comment
            if disclosure is not None:
                output.metadata["description"] = disclosure.comment
            self._video = cast(av.VideoStream, output.add_stream(coding.codec, rate=self._rate))
            self._video.width, self._video.height = width + width % 2, height + height % 2
            self._video.pix_fmt = self._pixels
            self._video.options = dict(coding.options) or {"crf": str(crf), "preset": preset}
            if alpha:
                self._video.metadata["alpha_mode"] = "1"  # of WebM: without it, players ignore the alpha
            context = self._video.codec_context
            context.bit_rate = 0  # as many as the quality takes
            context.thread_count = threads
            context.time_base = 1 / self._rate
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
            if self._audio is not None:
                self._audio.attach(output)
        except OSError as error:
            self.abort()
            raise disk_error(error, self.path) from error
        except BaseException:
            self.abort()
            raise

    def write(self, image: np.ndarray) -> None:
        """Append one frame, uint8 [height, width, 3] RGB, or [height, width, 4] with alpha."""
        shape = (self.height, self.width, self._channels)
        if image.shape != shape or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 {shape}, got {image.dtype} {image.shape}")
        if self._output is None:
            raise ValueError(f"{self.path} is closed")
        if self._disclosure is not None:
            image = self._disclosure.draw(image)
        if self.width % 2 or self.height % 2:
            image = np.pad(image, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        kind = "rgb24" if self._channels == 3 else "rgba"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
        frame = self._convert(frame, format=self._pixels, dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        try:
            self._output.mux(self._video.encode(frame))
            self.frames += 1
            if self._audio is not None:
                self._audio.write_until(self.frames / self._rate, self._output)
        except OSError as error:
            self.abort()
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        """Finish the file and give it its name. Without a single frame nothing is left behind."""
        if self._output is None:
            return
        if self.frames == 0:
            self.abort()
            return
        try:
            self._output.mux(self._video.encode(None))
            if self._audio is not None:
                self._audio.finish(self._output)
            self._output.close()
            self._output = None
            if self._new is not None:
                if self._disclosure is not None:
                    self._disclosure.finish(self._new.path)
                self._new.keep()
        except OSError as error:
            raise disk_error(error, self.path) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop without leaving a file."""
        output, self._output = self._output, None
        if output is not None:
            with suppress(OSError):  # the reason for stopping is already being reported
                output.close()
        if self._audio is not None:
            self._audio.close()
        if self._new is not None:
            self._new.drop()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _AudioTrack:
    """The audio track of a file as packets of the output, produced in step with the video.

    It is the track that :mod:`avatar.io.audio` hears, with all of its channels.
    """

    def __init__(self, path: Path, start: float, track: int | None, coding: Coding) -> None:
        self._path, self._coding = path, coding
        info = probe_audio(path, track)  # for its errors
        self._choice = info.choice
        # Times count from the first sample, as in `avatar.io.audio`: an MP3's comes after its encoder's delay.
        self._start = info.start + start
        self._input = open_media(path, "audio")
        self._source = self._input.streams.audio[self._choice.index]
        self._copy = coding.copies_aac and start == 0 and info.start == 0 and _plain_aac(path, self._choice.index)
        self._packets: Iterator[tuple[Fraction, _Packet]] = iter(())
        self._pending: tuple[Fraction, _Packet] | None = None

    def attach(self, output: OutputContainer) -> None:
        if self._copy:
            self._stream = output.add_stream_from_template(self._source)
            self._packets = self._copied()
        else:
            rate = self._source.codec_context.sample_rate
            rate = rate if rate in self._coding.rates else self._coding.rates[-1]
            self._layout = "mono" if self._source.codec_context.channels == 1 else "stereo"
            stream = output.add_stream(self._coding.audio, rate=rate, layout=self._layout)
            self._stream = cast(av.AudioStream, stream)
            if not self._coding.audio.startswith("pcm"):
                self._stream.codec_context.bit_rate = 96_000 if self._layout == "mono" else 160_000
            self._packets = self._encoded(rate)
        self._pending = next(self._packets, None)
        self._end = Fraction(0)

    def write_until(self, end: Fraction, output: OutputContainer) -> None:
        """Mux the packets that begin before second ``end`` of the video."""
        self._end = end
        while self._pending is not None and self._pending[0] < end:
            output.mux(self._pending[1])
            self._pending = next(self._packets, None)

    def finish(self, output: OutputContainer) -> None:
        self.write_until(self._end, output)
        self.close()

    def close(self) -> None:
        self._packets, self._pending = iter(()), None
        self._input.close()

    def _copied(self) -> Iterator[tuple[Fraction, _Packet]]:
        for packet in steady_packets(self._input, [self._source]):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            at = packet.pts * packet.time_base
            packet.stream = self._stream
            yield at, packet

    def _encoded(self, rate: int) -> Iterator[tuple[Fraction, _Packet]]:
        context = self._stream.codec_context
        fifo = av.AudioFifo()
        written = 0
        for samples in decode(self._path, self._choice, start=self._start, rate=rate, layout=self._layout):
            if not samples.shape[1]:
                continue
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = written
            written += samples.shape[1]
            fifo.write(frame)
            # AAC takes exactly 1024 samples at a time; the last frame may be short
            while (whole := fifo.read(context.frame_size or 1024)) is not None:
                yield from self._encode(whole, rate)
        if (rest := fifo.read(0, partial=True)) is not None:
            yield from self._encode(rest, rate)
        yield from self._encode(None, rate)

    def _encode(self, frame: av.AudioFrame | None, rate: int) -> Iterator[tuple[Fraction, _Packet]]:
        for packet in self._stream.codec_context.encode(frame):
            packet.stream = self._stream
            yield Fraction(packet.pts or 0, rate), packet


def _plain_aac(path: Path, index: int) -> bool:
    """Whether a track is AAC in packets that an mp4 takes, with even time stamps: then it can be copied."""
    with open_media(path, "audio") as container:
        stream = container.streams.audio[index]
        context, base = stream.codec_context, stream.time_base
        if context.name != "aac" or not context.extradata or not context.sample_rate or base is None:
            return False  # without a header of its own (ADTS, transport streams) packets have to be rewritten
        lengths = {1024 / context.sample_rate, 2048 / context.sample_rate}  # seconds of a packet; HE-AAC has twice
        first: float | None = None
        count = 0
        for packet in steady_packets(container, [stream]):
            if packet.pts is None or not packet.size:
                continue
            time = float(packet.pts * base)
            first = time if first is None else first
            lengths = {length for length in lengths if abs(time - first - count * length) <= _EVEN_SECONDS}
            if not lengths:
                return False
            count += 1
    return True
