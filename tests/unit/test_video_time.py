"""Time of the frames: joined parts, held frames, dropped and repeated ones; every frame once, at the true rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from avatar.errors import AvatarError
from avatar.io.cadence import find_cadence
from avatar.io.video import VideoInfo, read_frames, read_info, sample_frames
from tests.films import film, moving, number_of


def kinds(info: VideoInfo) -> list[str]:
    return [treatment.kind for treatment in info.treatments]


def numbers(info: VideoInfo) -> list[int]:
    return [number_of(frame) for frame in read_frames(info)]


# -- joined ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [(0, 0, 0), (0, 7200, 10), (50_000, 0, 1)])
def test_joined_parts_are_read_as_one_recording(tmp_path: Path, offsets: tuple[int, ...]) -> None:
    data = b""
    for k, offset in enumerate(offsets):
        options = {"qp": "2", "preset": "veryfast", "bf": "2"}
        part = film(
            tmp_path / "part.ts",
            moving(90)[30 * k : 30 * k + 30],
            options=options,
            container={"output_ts_offset": str(offset)},
        )
        data += part.read_bytes()
    (tmp_path / "v.ts").write_bytes(data)
    info = read_info(tmp_path / "v.ts")
    assert (info.fps, info.num_frames, info.duration) == (25, 90, pytest.approx(3.6, abs=0.01))
    assert numbers(info) == list(range(90))
    assert kinds(info)[0] == "joined" and "at 2 places, the first at second 1.2;" in info.treatments[0].text
    sampled = [number_of(frame) for frame in sample_frames(info, 9)]
    assert len(sampled) == 9 and sampled == sorted(sampled) and sampled[0] < 10 and sampled[-1] > 80


def test_a_second_part_of_another_rate_keeps_its_time(tmp_path: Path) -> None:
    first, second = (
        film(tmp_path / f"{fps}.ts", moving(2 * fps), fps, options={"qp": "2", "preset": "ultrafast"})
        for fps in (30, 25)
    )
    (tmp_path / "v.ts").write_bytes(first.read_bytes() + second.read_bytes())
    info = read_info(tmp_path / "v.ts")
    assert info.fps == 30 and info.duration == pytest.approx(4, abs=0.05)
    assert len(list(read_frames(info))) == info.num_frames == pytest.approx(120, abs=2)
    assert kinds(info) == ["joined", "even-rate"]


def test_time_stamps_that_jump_all_the_time_are_refused(tmp_path: Path) -> None:
    one = film(tmp_path / "one.ts", moving(6)).read_bytes()
    (tmp_path / "v.ts").write_bytes(one * 40)
    with pytest.raises(AvatarError, match=r"v\.ts jump \d+ times"):
        read_info(tmp_path / "v.ts")


# -- held, dropped and lost ------------------------------------------------------------------------------------------


def test_a_last_frame_that_is_held_is_whole(tmp_path: Path) -> None:
    info = read_info(film(tmp_path / "v.mp4", moving(75), last=2.0))
    assert (info.fps, info.num_frames) == (25, 74 + 50)
    assert numbers(info) == [*range(74), *[74] * 50]
    assert [number_of(frame) for frame in sample_frames(info, 10)][-4:] == [74] * 4
    assert kinds(info) == ["held-frame"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_first_frame_that_is_held_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    options = {"qp": "2", "preset": "veryfast", "bf": "2"}
    times = [0, *(2 + k / 25 for k in range(74))]
    info = read_info(film(tmp_path / f"v{suffix}", moving(75), times=times, options=options))
    shown = numbers(info)
    assert (info.fps, len(shown)) == (25, 124) and info.duration == pytest.approx(4.96, abs=0.01)
    assert shown[-73:] == list(range(2, 75)) and set(shown[:-73]) == {0, 1}
    assert kinds(info) == ["even-rate"]


def test_frames_of_an_avi_come_in_order(tmp_path: Path) -> None:
    options = {"qp": "2", "preset": "veryfast", "bf": "2"}  # frames are stored in another order than shown
    info = read_info(film(tmp_path / "v.avi", moving(60), options=options))
    assert numbers(info) == list(range(60))


@pytest.mark.parametrize(("suffix", "options"), [(".mp4", {"movflags": "faststart"}), (".mkv", {})])
def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    path = film(tmp_path / f"v{suffix}", moving(100, noise=20), last=0.1, container=options)
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    with pytest.raises(AvatarError, match="is cut off"):
        read_info(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_dropped_frames_do_not_change_the_rate(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    kept = [k for k in range(120) if k in (0, 119) or rng.random() > 0.15]
    frames = moving(120)
    info = read_info(film(tmp_path / f"v{suffix}", [frames[k] for k in kept], 30, times=[k / 30 for k in kept]))
    assert info.fps == 30 and info.num_frames == 120 and info.variable_rate
    assert all(abs(number - k) <= 1 for k, number in enumerate(numbers(info)))
    assert kinds(info) == ["even-rate"]


# -- repeated --------------------------------------------------------------------------------------------------------


def stored(frames: list[np.ndarray], true: Fraction, fps: Fraction, phase: float = 0.5) -> list[np.ndarray]:
    """The frames of a conversion from a rate to a higher one, which repeats some."""
    count = int((len(frames) - phase) * fps / true)
    return [frames[int(k * true / fps + phase)] for k in range(count)]


@pytest.mark.parametrize(
    ("true", "fps"),
    [("25", "30"), ("24", "30"), ("15", "30"), ("30", "60"), ("24", "60"), ("24000/1001", "30000/1001"), ("20", "25"),
     ("12.5", "25"), ("25", "50"), ("10", "30"), ("25", "60000/1001")],
)  # fmt: skip
@pytest.mark.parametrize("phase", [0.0, 0.5, 0.98])
def test_repeated_frames_are_left_out(tmp_path: Path, true: str, fps: str, phase: float) -> None:
    frames = moving(50)
    path = film(tmp_path / "v.mp4", stored(frames, Fraction(true), Fraction(fps), phase), Fraction(fps))
    info = read_info(path)
    assert float(info.fps) == pytest.approx(float(Fraction(true)), rel=1e-3)
    shown = numbers(info)
    assert shown == list(range(shown[0], shown[0] + len(shown))) and len(shown) >= 48
    # frame k is shown when it was taken, within half a stored frame: sound and lips stay together
    for k, number in enumerate(shown):
        taken = (number - phase) / float(Fraction(true)) + 0.5 / float(Fraction(fps))
        assert abs(info.start + k / float(info.fps) - taken) <= 0.6 / float(Fraction(fps))
    assert kinds(info) == ["repeats-removed"]


def test_repeats_that_were_coded_again_are_found(tmp_path: Path) -> None:
    frames = moving(75, noise=4)
    options = {"crf": "26", "preset": "veryfast", "g": "17", "bf": "2"}
    path = film(tmp_path / "v.mp4", stored(frames, Fraction(25), Fraction(30)), 30, options=options)
    info = read_info(path)
    assert info.fps == 25
    shown = numbers(info)
    assert shown == list(range(len(shown))) and len(shown) >= 74


def test_true_frames_stay(tmp_path: Path) -> None:
    """Motion, a person who sits still before a noisy sensor, a still, and a screen that moves now and then."""
    still = moving(1, noise=0)[0]
    rng = np.random.default_rng(0)
    noisy = [(still + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8) for _ in range(120)]
    films = {
        "motion": (moving(90), []),
        "still person": (noisy, []),
        "still": ([still] * 90, []),
        "black intro": ([np.zeros_like(still)] * 40 + moving(60), []),
        "screen": ([np.roll(still, k // 7 * 5 if k % 40 < 25 else 0, 1) for k in range(120)], ["repeats-kept"]),
    }
    for name, (frames, said) in films.items():
        info = read_info(film(tmp_path / "v.mp4", frames, 30))
        assert (info.fps, info.num_frames, kinds(info)) == (30, len(frames), said), name


def test_irregular_repeats_stay_and_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    numbers_shown = np.cumsum(rng.random(120) > 0.3)
    frames = moving(121)
    info = read_info(film(tmp_path / "v.mp4", [frames[n] for n in numbers_shown], 30))
    assert info.fps == 30 and kinds(info) == ["repeats-kept"]


def test_changes_without_a_pattern_have_no_cadence() -> None:
    for seed in range(20):
        changes = np.random.default_rng(seed).lognormal(1, 1, 240)
        assert find_cadence(np.arange(240.0), changes, Fraction(25)) is None


# -- tracks ----------------------------------------------------------------------------------------------------------


def two_tracks(path: Path, default: int) -> Path:
    """Two video tracks, the first dark, the second bright."""
    with av.open(str(path), "w") as out:
        streams = []
        for k in range(2):
            stream = out.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.disposition = Disposition.default if k == default else Disposition(0)
            streams.append(stream)
        for k in range(30):
            for stream, level in zip(streams, (60, 180), strict=True):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level + k % 9, np.uint8), "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_video_track_is_read_and_another_one_on_request(tmp_path: Path, default: int) -> None:
    path = two_tracks(tmp_path / "v.mkv", default)
    for wanted in (None, 1, 2):
        info = read_info(path, video_track=wanted)
        bright = (default if wanted is None else wanted - 1) == 1
        assert (next(read_frames(info)).mean() > 120) == bright
        assert (next(sample_frames(info, 3)).mean() > 120) == bright
        assert kinds(info)[0] == "video-track"
    with pytest.raises(AvatarError, match=r"no video track 3.*--video-track"):
        read_info(path, video_track=3)


@pytest.mark.parametrize("wanted", [None, 1])
def test_a_track_of_previews_comes_last(tmp_path: Path, wanted: int | None) -> None:
    with av.open(str(tmp_path / "v.mkv"), "w") as out:
        for rate in (2, 25):
            stream = out.add_stream("mpeg4", rate=rate)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.disposition = Disposition.default if rate == 2 else Disposition(0)
        for stream, rate, level in zip(out.streams.video, (2, 25), (60, 180), strict=True):
            for k in range(2 * rate):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level + k % 9, np.uint8), "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, rate)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    info = read_info(tmp_path / "v.mkv", video_track=wanted)
    assert (next(read_frames(info)).mean() > 120) == (wanted is None)
    assert "fewer than 5 frames" in info.treatments[0].text or wanted == 1
