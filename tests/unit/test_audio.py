"""Sound in: formats, timing, silence; sound out."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avatar.errors import AvatarError
from avatar.io import audio


def tone(seconds: float, rate: int = 16000, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_encoded(path: Path, samples: np.ndarray, rate: int, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "fltp", "mono")
            frame.rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (22050, 2), (44100, 2), (48000, 6)])
def test_any_rate_and_layout_becomes_16k_mono(tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.repeat(tone(1.0, rate)[:, None], channels, 1), rate)
    samples = audio.load_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32 and abs(len(samples) - 16000) <= 32
    middle = slice(2000, 14000)
    assert np.corrcoef(samples[middle], tone(1.0)[middle])[0, 1] > 0.999


@pytest.mark.parametrize(("suffix", "codec"), [(".m4a", "aac"), (".flac", "flac"), (".mka", "libopus")])
def test_compressed_sound_keeps_its_timing(tmp_path: Path, suffix: str, codec: str) -> None:
    samples = np.zeros(96000, np.float32)
    samples[48000:52800] = tone(0.1, 48000, 1000)
    if codec == "flac":
        soundfile.write(tmp_path / "a.flac", samples, 48000)
        path = tmp_path / "a.flac"
    else:
        path = write_encoded(tmp_path / f"a{suffix}", samples, 48000, codec)
    decoded = audio.load_audio(path, start=0.0)
    onset = int(np.flatnonzero(np.abs(decoded) > 0.2)[0])
    assert abs(onset - 16000) < 80  # 5 ms


def test_chunks_have_the_length_asked_for_and_join_to_the_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2.3, 44100), 44100)
    chunks = list(audio.stream_audio(tmp_path / "a.wav", 0.25))
    assert {len(c) for c in chunks[:-1]} == {4000} and 0 < len(chunks[-1]) <= 4000
    assert np.array_equal(np.concatenate(chunks), audio.load_audio(tmp_path / "a.wav"))


def test_start_shifts_the_origin_both_ways(tmp_path: Path) -> None:
    samples = np.linspace(-0.9, 0.9, 16000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    assert np.allclose(audio.load_audio(tmp_path / "a.wav", start=0.25), samples[4000:])
    early = audio.load_audio(tmp_path / "a.wav", start=-0.5)
    assert np.all(early[:8000] == 0) and np.allclose(early[8000:], samples)


def test_a_gap_in_the_track_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "gap.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in [*range(0, 8000, 1000), *range(16000, 24000, 1000)]:
            frame = av.AudioFrame.from_ndarray(np.full((1, 1000), 8000, np.int16), "s16", "mono")
            frame.rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples = audio.load_audio(path)
    assert abs(len(samples) - 24000) <= 16
    assert np.abs(samples[8200:15800]).max() == 0 and samples[16200:23800].min() > 0.2


def test_streaming_needs_memory_for_no_more_than_a_moment(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        for _ in range(5):
            file.writeframes(b"\x80" * 480000)
    tracemalloc.start()
    count = sum(len(chunk) for chunk in audio.stream_audio(path, 10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(count - 300 * 16000) <= 32 and peak < 6e6  # the whole is 19 MB


def test_a_limit_ends_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "minute.wav", np.zeros(16000 * 60, np.float32) + 0.1, 16000)
    decoded, decode = [0], audio._decode

    def counted(*arguments):
        for block in decode(*arguments):
            decoded[0] += len(block)
            yield block

    monkeypatch.setattr(audio, "_decode", counted)
    with pytest.raises(AvatarError, match=r"minute\.wav is longer than 0\.05 minutes"):
        audio.load_audio(tmp_path / "minute.wav", most_seconds=3)
    assert decoded[0] <= 16000 * 11  # the first piece
    assert len(audio.load_audio(tmp_path / "minute.wav", most_seconds=60)) == 16000 * 60


def test_wav_round_trip_clips_and_counts(tmp_path: Path) -> None:
    samples = np.array([0, 0.5, -0.5, 2.0, -2.0], np.float32)
    assert audio.write_wav(tmp_path / "a.wav", iter([samples[:2], samples[2:]])) == 5
    read, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 16000 and np.allclose(read, [0, 0.5, -0.5, 1, -1], atol=1e-4)


def test_silence_is_told_from_sound() -> None:
    rng = np.random.default_rng(0)
    assert audio.is_silent(np.zeros(16000, np.float32))
    assert audio.is_silent(np.full(16000, 0.1, np.float32))  # an offset is no sound
    assert audio.is_silent((1e-4 * rng.standard_normal(16000)).astype(np.float32))
    quiet_with_word = np.zeros(32000, np.float32)
    quiet_with_word[20000:24000] = tone(0.25)
    assert not audio.is_silent(quiet_with_word)


def test_probe_reports_duration_and_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((44100, 2)), 44100)
    info = audio.probe_audio(tmp_path / "a.wav")
    assert info.duration == pytest.approx(1.0) and (info.channels, info.sample_rate) == (2, 44100)
