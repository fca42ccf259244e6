"""Audio of a segment: text that is said, and files that listeners send, decoded in memory and within limits."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import soxr

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.io.media import CONTAINERS, ffmpeg_reason
from avatar.io.text_to_speech import TextToSpeech

if TYPE_CHECKING:
    from av import AudioFrame

MOST_CHARACTERS = 2000  # of a text
MOST_FILE_BYTES = 20 << 20
MOST_FILE_SECONDS = 600.0
MOST_SILENT_PACKETS = 2000  # in a row without audio, before a file counts as broken
# The content decides what a file is; nothing but its bytes is read, so a playlist in it names nothing.
_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": ",".join(CONTAINERS)}


class Voice:
    """Say texts with one engine. Sentences of several listeners take turns, because each takes a whole core.

    Args:
        engine: The engine; None: there is none.
        missing: Why there is none.
    """

    def __init__(self, engine: TextToSpeech | None, missing: str = "") -> None:
        self._engine, self._missing, self._turn = engine, missing, threading.Lock()

    @property
    def available(self) -> bool:
        """Whether texts can be said."""
        return self._engine is not None

    def say(self, text: str) -> Iterator[np.ndarray]:
        """Pieces of float32, 16 kHz mono, of a text; they are made as they are read.

        Raises:
            AvatarError: There is no engine, or the text is too long or has nothing to say.
        """
        if self._engine is None:
            raise AvatarError("This server has no text to speech.", why=self._missing)
        if len(text) > MOST_CHARACTERS:
            raise AvatarError(f"The text is longer than {MOST_CHARACTERS} characters.", fix="Send it in parts.")
        if not any(c.isalnum() for c in text):
            raise AvatarError("The text has nothing to say.", fix="Send at least one word.")
        return self._pieces(self._engine, text)

    def _pieces(self, engine: TextToSpeech, text: str) -> Iterator[np.ndarray]:
        stream = soxr.ResampleStream(engine.sample_rate, SAMPLE_RATE, 1, dtype="float32")
        pieces = iter(engine.speak(text))
        while True:
            with self._turn:
                piece = next(pieces, None)
            if piece is None:
                break
            yield stream.resample_chunk(np.asarray(piece, np.float32))
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def decode(content: bytes, most_seconds: float = MOST_FILE_SECONDS) -> Iterator[np.ndarray]:
    """Decode an audio or video file in memory into pieces of float32, 16 kHz mono, as they are read.

    Args:
        content: The file.
        most_seconds: Where it is longer, it stops there.

    Raises:
        AvatarError: It is no such file, or its first audio cannot be decoded.
    """
    pieces = _decoded(content, most_seconds)
    first = next(pieces, None)  # a broken file is an error here, not later
    if first is None:
        raise AvatarError("The file holds no audio.", fix="Send a wav, flac, mp3, m4a, ogg or opus file.")
    return itertools.chain([first], pieces)


def _decoded(content: bytes, most_seconds: float) -> Iterator[np.ndarray]:
    import av

    left, silent = round(most_seconds * SAMPLE_RATE), 0
    # Not planar: with eight planes and more, PyAV reads beyond FFmpeg's list of them.
    resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE)
    try:
        with av.open(io.BytesIO(content), options=_OPTIONS) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                return
            for packet in container.demux(stream):
                frames = [*packet.decode(), *([None] if packet.dts is None and packet.size == 0 else [])]
                pieces = [_mixed(out) for frame in frames for out in resampler.resample(frame)]
                silent = 0 if pieces else silent + 1
                if silent > MOST_SILENT_PACKETS:
                    return
                for piece in pieces:
                    if left <= 0:
                        return
                    yield np.nan_to_num(piece[:left]).clip(-1, 1).astype(np.float32)
                    left -= len(piece)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise AvatarError(
            "The file cannot be read as audio:", why=f"{ffmpeg_reason(error)}.",
            fix="Send a wav, flac, mp3, m4a, ogg or opus file.",
        ) from None  # fmt: skip


def _mixed(frame: AudioFrame) -> np.ndarray:
    """The mean of the channels of interleaved samples: FFmpeg's own mix is louder than the channels."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1)
