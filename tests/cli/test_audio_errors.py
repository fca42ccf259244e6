"""Bad sound: one clear sentence that names the file, at the level where it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avatar.errors import AvatarError
from avatar.io.audio import load_audio, stream_audio


def _missing(path: Path) -> None:
    pass


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is not a sound " * 100)


def _folder(path: Path) -> None:
    path.mkdir()


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), 16000, format="WAV")


def _not_numbers(path: Path) -> None:
    samples = np.zeros(16000, np.float32)
    samples[8000] = np.nan
    soundfile.write(path, samples, 16000, "FLOAT", format="WAV")


def _infinite(path: Path) -> None:
    samples = np.zeros(16000, np.float32)
    samples[8000] = np.inf
    soundfile.write(path, samples, 16000, "FLOAT", format="WAV")


def _header_only(path: Path) -> None:
    soundfile.write(path, np.zeros(16000, np.float32), 16000, format="WAV")
    path.write_bytes(path.read_bytes()[:20])


def _video_without_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_missing, "does not exist"),
        (_empty, "is empty"),
        (_text, "not an audio file|no audio track"),
        (_folder, "is a folder"),
        (_no_samples, "zero length|not an audio file"),
        (_not_numbers, "not numbers"),
        (_infinite, "not numbers"),
        (_header_only, "zero length|not an audio file|cannot be decoded"),
        (_video_without_sound, "no audio track"),
    ],
)
def test_one_sentence_that_names_the_file(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "speech.wav"
    make(path)
    with pytest.raises(AvatarError, match=says) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)


def test_the_error_comes_before_the_first_chunk(tmp_path: Path) -> None:
    with pytest.raises(AvatarError, match="does not exist"):
        stream_audio(tmp_path / "absent.wav")


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, np.full(32000, 0.25, np.float32), 16000)
    path.write_bytes(path.read_bytes()[:32044])
    samples = load_audio(path)
    assert len(samples) == 16000 and np.allclose(samples, 0.25, atol=1e-3)
