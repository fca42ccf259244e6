"""Time stamps that start again or leap: the tracks go on together, and what only pauses keeps its time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avatar.io.clock import Jump, steady_packets, timed_streams

RATE = 16_000


def part(
    path: Path, start: float = 0.0, seconds: float = 2.0, fps: int = 25, shown: list[float] | None = None,
    heard: list[float] | None = None, audio: bool = True, b_frames: int = 0,
) -> Path:  # fmt: skip
    """A recording whose stamps begin at ``start``: frames at ``shown``, audio of 0.1 s each at ``heard``."""
    shown = [k / fps for k in range(round(seconds * fps))] if shown is None else shown
    heard = [k / 10 for k in range(round(seconds * 10))] if heard is None else heard
    with av.open(str(path), "w", options={"output_ts_offset": str(start)}) as out:
        video = out.add_stream("mpeg2video" if path.suffix == ".ts" else "libx264", rate=fps)
        video.width = video.height = 32
        video.pix_fmt, video.codec_context.max_b_frames = "yuv420p", b_frames
        base = Fraction(1, fps if path.suffix == ".ts" else 1000)
        video.codec_context.time_base = base
        sound = out.add_stream("ac3" if path.suffix == ".ts" else "pcm_s16le", rate=RATE) if audio else None
        if sound is not None and path.suffix == ".ts":
            sound.codec_context.sample_rate = 48_000
        due = [(t, "v") for t in shown] + [(t, "a") for t in heard if sound is not None]
        for t, kind in sorted(due):
            if kind == "v":
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), round(50 * t) % 255, np.uint8), "rgb24")
                frame.pts, frame.time_base = round(t / base), base
                out.mux(video.encode(frame))
            else:
                assert sound is not None
                rate = sound.codec_context.sample_rate
                form = "fltp" if path.suffix == ".ts" else "s16"
                frame = av.AudioFrame(format=form, layout="mono", samples=rate // 10)
                frame.planes[0].update(bytes(frame.planes[0].buffer_size))
                frame.sample_rate, frame.pts, frame.time_base = rate, round(t * rate), Fraction(1, rate)
                out.mux(sound.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def joined(path: Path, *parts: Path) -> Path:
    """The bytes of the parts, one after another."""
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    return path


def stamps(path: Path, only: str | None = None) -> tuple[dict[str, np.ndarray], list[Jump]]:
    """Seconds at which the packets of each kind are shown or heard, and the jumps."""
    jumps: list[Jump] = []
    times: dict[str, list[float]] = {}
    with av.open(str(path)) as container:
        streams = [s for s in timed_streams(container) if only in (None, s.type)]
        for packet in steady_packets(container, streams, jumps):
            if packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                assert stamp is not None
                times.setdefault(packet.stream.type, []).append(float(stamp * packet.time_base))
    return {kind: np.sort(values) for kind, values in times.items()}, jumps


@pytest.mark.parametrize("starts", [(0, 0), (0, 7200), (7200, 0), (0, 1.5), (0, 7200, 0, 300), (95_440, 20)])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_joined_parts_go_on_without_a_seam(tmp_path: Path, starts: tuple[float, ...], b_frames: int) -> None:
    parts = [part(tmp_path / f"{k}.ts", start, b_frames=b_frames) for k, start in enumerate(starts)]
    times, jumps = stamps(joined(tmp_path / "j.ts", *parts))
    assert len(times["video"]) == 50 * len(starts)
    assert np.diff(times["video"]) == pytest.approx(np.full(50 * len(starts) - 1, 0.04), abs=1e-4)
    assert len(jumps) == len(starts) - 1 and all(jump.index is None for jump in jumps)
    alone = [stamps(p)[0] for p in parts]
    count = len(times["audio"]) // len(starts)
    for k, of_part in enumerate(alone):  # audio and video of every part are as far apart as before
        apart = of_part["audio"][0] - of_part["video"][0]
        assert times["audio"][k * count] - times["video"][50 * k] == pytest.approx(apart, abs=1e-4)


def test_audio_is_mended_the_same_whether_or_not_video_is_asked_for(tmp_path: Path) -> None:
    path = joined(tmp_path / "j.ts", part(tmp_path / "a.ts", 0, 3), part(tmp_path / "b.ts", 50, fps=30))
    both = stamps(path)[0]
    assert np.array_equal(stamps(path, "audio")[0]["audio"], both["audio"])
    assert np.array_equal(stamps(path, "video")[0]["video"], both["video"])


def test_parts_of_other_rates_and_without_audio_go_on(tmp_path: Path) -> None:
    first, second = part(tmp_path / "a.ts"), part(tmp_path / "b.ts", fps=50)
    times, _ = stamps(joined(tmp_path / "j.ts", first, second))
    assert np.allclose(np.diff(times["video"]), [0.04] * 50 + [0.02] * 99, atol=1e-4)
    silent = part(tmp_path / "s.ts", seconds=3, audio=False)
    times, _ = stamps(joined(tmp_path / "j.ts", silent, silent, silent))
    assert np.allclose(np.diff(times["video"]), 0.04, atol=1e-4)
    times, _ = stamps(joined(tmp_path / "j.ts", first, silent, first))
    assert np.allclose(np.diff(times["video"]), 0.04, atol=1e-4)
    assert times["audio"][-1] - times["video"][-1] == pytest.approx(
        stamps(first)[0]["audio"][-1] - stamps(first)[0]["video"][-1], abs=1e-3
    )


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_recorder_that_leaps_by_hours_goes_on(tmp_path: Path, suffix: str, b_frames: int) -> None:
    shown = [k / 25 for k in range(50)]
    heard = [k / 10 for k in range(20)]
    path = part(
        tmp_path / f"v{suffix}", shown=shown + [9000 + t for t in shown], heard=heard + [9000 + t for t in heard],
        b_frames=b_frames,
    )  # fmt: skip
    times, jumps = stamps(path)
    assert len(jumps) == 1 and jumps[0].leap == pytest.approx(8998, abs=1)
    assert np.diff(times["video"]).max() < 0.05
    assert len(times["video"]) == 100 and times["audio"][-1] < 4.1


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_a_pause_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    """One frame that stands for 20 s while the audio goes on, and without any; audio that is lost for 15 s."""
    shown = [k / 25 for k in range(50)] + [22 + k / 25 for k in range(50)]
    times, jumps = stamps(part(tmp_path / f"a{suffix}", shown=shown, heard=[k / 10 for k in range(240)]))
    assert not jumps and np.diff(times["video"]).max() == pytest.approx(20.04, abs=0.01)
    times, jumps = stamps(part(tmp_path / f"b{suffix}", shown=shown, audio=False))
    assert not jumps and times["video"][-1] - times["video"][0] == pytest.approx(23.96, abs=0.01)
    heard = [k / 10 for k in range(20)] + [17 + k / 10 for k in range(20)]
    times, jumps = stamps(part(tmp_path / "c.mkv", seconds=20, heard=heard))
    assert not jumps and times["audio"][-1] > 18.8


def test_audio_whose_stamps_alone_leap_by_hours_goes_on(tmp_path: Path) -> None:
    heard = [k / 10 for k in range(20)] + [9000 + k / 10 for k in range(30)]
    times, jumps = stamps(part(tmp_path / "v.mkv", seconds=5, heard=heard))
    assert [jump.index for jump in jumps] == [1]
    assert times["audio"][-1] < 5.1 and times["video"][-1] == pytest.approx(4.96, abs=0.01)


@pytest.mark.parametrize("name", ["v.mov", "v.mkv", "v.ts"])
def test_ordinary_stamps_stay_as_they_are(tmp_path: Path, name: str) -> None:
    path = part(tmp_path / name, b_frames=2)
    with av.open(str(path)) as one, av.open(str(path)) as other:
        plain = [(p.stream.index, p.pts, p.dts) for p in one.demux(*timed_streams(one))]
        steady = [(p.stream.index, p.pts, p.dts) for p in steady_packets(other, timed_streams(other))]
    assert steady == plain
