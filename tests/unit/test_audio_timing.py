"""Time stamps of audio that jump, jitter, or run apart from the samples: the sound stays where they say."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest

from avatar.io.audio import load_audio, read_audio, stream_audio
from avatar.io.audio_timing import Stretch, TimingReport, timed_frames
from avatar.io.media import Treatment
from avatar.io.video_writer import VideoWriter
from tests.sounds import RATE, Sound, write_tracks

SECONDS = 10


def beeps() -> np.ndarray:
    """A short tone at every half second."""
    time = np.arange(SECONDS * RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * 1000 * time) * (time % 0.5 < 0.03)).astype(np.float32)


def onsets(samples: np.ndarray, rate: int = 16_000) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 0.15) / rate
    return loud[np.diff(loud, prepend=-1.0) > 0.2]


def jitter(scale: float) -> Callable[[float], float]:
    rng = np.random.default_rng(3)
    last = -1.0

    def stamp(time: float) -> float:
        nonlocal last
        last = max(last + 0.001, time * scale + rng.uniform(-0.03, 0.03), 0.0)
        return last

    return stamp


@pytest.mark.parametrize(("scale", "shaken"), [(44.1 / 44.0, True), (44.0 / 44.1, False), (1.05, False), (0.9, True)])
def test_a_clock_that_runs_apart_is_followed_by_every_reader(tmp_path: Path, scale: float, shaken: bool):
    path = tmp_path / "a.mkv"
    write_tracks(path, [Sound(beeps())], jitter(scale) if shaken else lambda time: time * scale)
    told: list[Treatment] = []
    read = np.concatenate(list(read_audio(path, 0.0, SECONDS * scale, treatments=told))) / 32768
    with VideoWriter(tmp_path / "out.mp4", 64, 64, 5.0, audio=path) as writer:
        for _ in range(round(SECONDS * scale * 5)):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    for samples in (read, load_audio(path), load_audio(tmp_path / "out.mp4")):
        found = onsets(samples)
        assert len(found) == 2 * SECONDS
        assert np.abs(found - scale * np.arange(2 * SECONDS) / 2).max() < 0.045
    if abs(scale - 1) * SECONDS > 0.04:
        assert [t.kind for t in told] == ["audio-retimed"]
        assert ("stretched" if scale > 1 else "shortened") in told[0].text


def test_aac_is_copied_only_if_its_time_stamps_are_even(tmp_path: Path):
    packets = []
    with av.open(str(tmp_path / "even.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, 6 * RATE, 1024):
            frame = av.AudioFrame.from_ndarray(beeps()[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, start
            packets += stream.encode(frame)
        packets += stream.encode(None)
        with av.open(str(tmp_path / "uneven.mp4"), "w") as other:
            copy = other.add_stream_from_template(stream)
            for packet in packets:
                pts, data = packet.pts, bytes(packet)
                packet.stream = stream
                file.mux(packet)
                again = av.Packet(data)
                again.pts = again.dts = max(0, round(pts * 1.04))
                again.time_base, again.stream = Fraction(1, RATE), copy
                other.mux(again)
    for name, scale in (("even", 1.0), ("uneven", 1.04)):
        with VideoWriter(tmp_path / "out.mp4", 64, 64, 5.0, audio=tmp_path / f"{name}.mp4") as writer:
            for _ in range(30):
                writer.write(np.zeros((64, 64, 3), np.uint8))
        with av.open(str(tmp_path / "out.mp4")) as file:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])  # without its stamps
        found = onsets(samples, RATE)[:11]
        assert np.abs(found - scale * np.arange(11) / 2).max() < 0.05


def test_jitter_and_rounding_change_no_sample(tmp_path: Path):
    plain = load_audio(write_tracks(tmp_path / "plain.mkv", [Sound(beeps())]))
    shaken = load_audio(write_tracks(tmp_path / "shaken.mkv", [Sound(beeps())], jitter(1.0)))
    assert np.array_equal(plain, shaken)


def test_one_late_packet_is_no_gap():
    class Frame(NamedTuple):
        time: float
        samples: int = 320
        sample_rate: int = 16_000

    report = TimingReport()
    frames: list[Any] = [Frame(k / 50 + 0.2 * (k == 100)) for k in range(200)]
    timed = list(timed_frames(frames, 0.0, report))
    assert [t.at for t in timed] == pytest.approx([k / 50 for k in range(200)]) and report == TimingReport()
    assert [t.jump for t in timed] == [True] + [False] * 199


def test_a_drift_is_corrected_without_a_click(tmp_path: Path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE) / RATE)
    path = write_tracks(tmp_path / "a.mkv", [Sound(tone.astype(np.float32))], lambda time: time * 44.1 / 44.0)
    samples = load_audio(path)[200:-200]
    # A sine obeys x[n+1] + x[n-1] = 2 cos(w) x[n]; a click does not.
    rest = samples[2:] + samples[:-2] - 2 * np.cos(2 * np.pi * 440 / 16_000) * samples[1:-1]
    assert np.abs(rest).max() < 0.003


def test_gaps_and_overlaps_are_followed_at_once_and_counted(tmp_path: Path):
    path = tmp_path / "a.mkv"
    write_tracks(path, [Sound(beeps())], lambda time: time + 0.3 * (time >= 3.99) + 0.2 * (time >= 4.09))
    report = TimingReport()
    found = onsets(np.concatenate(list(stream_audio(path, timing=report))))
    times = np.arange(2 * SECONDS) / 2
    wanted = times + 0.3 * (times >= 3.99) + 0.2 * (times >= 4.09)
    assert np.abs(found - wanted).max() < 0.005
    assert report.jumps == 2 and report.filled == pytest.approx(0.5, abs=0.01) and not report.retimed
    assert report.treatments()[0].text.startswith("Jumps of the time stamps of the audio: 2; 0.50 s of silence")


def test_audio_that_begins_in_the_middle_is_the_same(tmp_path: Path):
    path = write_tracks(tmp_path / "a.mkv", [Sound(beeps())])
    assert np.array_equal(load_audio(path, start=8.0), load_audio(path)[128_000:])


def test_stretching_leaves_samples_alone_until_it_is_asked_to():
    samples = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
    stretch = Stretch(16_000)
    stretch.correct(0.0, 0.0)
    assert np.array_equal(
        np.concatenate([stretch.push(samples[:, :1500]), stretch.push(samples[:, 1500:])], 1), samples
    )


def test_stretching_moves_samples_to_their_places():
    time = np.arange(16_000) / 16_000
    stretch, blocks = Stretch(16_000), []
    for k in range(10):
        stretch.correct((k + 1) / 10, 0.01 * (k + 1) / 10)
        blocks.append(stretch.push(np.sin(2 * np.pi * 300 * time[None, k * 1600 : (k + 1) * 1600])))
    blocks.append(stretch.push(np.zeros((1, 0)), last=True))
    moved = np.concatenate(blocks, 1)[0]
    assert len(moved) == pytest.approx(16_160, abs=2)
    assert (
        np.abs(moved[100:-100] - np.sin(2 * np.pi * 300 * np.arange(len(moved))[100:-100] / 16_000 / 1.01)).max() < 0.01
    )
