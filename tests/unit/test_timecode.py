"""Time codes are written in 60ths, and read in whatever they count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from avatar.motion.even_rate import even_rate
from avatar.motion.timecode import read_time_codes, time_code


def unreal(code: str) -> float:
    """Seconds, as Unreal's importer adds them up."""
    hours, minutes, seconds, frames = code.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frames) / 60


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30000 / 1001, 30, 48, 50, 59.94, 60, 12.5, 120, 240])
def test_an_hour_of_codes_has_even_steps(fps: float):
    frames = np.unique(np.concatenate([np.arange(500), np.arange(0, int(3600 * fps), 4999)]))
    seconds = np.array([unreal(time_code(int(i), fps)) for i in frames])
    assert np.abs(seconds - frames / fps).max() < 1e-5  # so they neither drift nor go back
    assert all(float(time_code(int(i), fps).split(":")[3]) < 60 for i in frames)


def rate_of(codes: list[str]) -> tuple[float, int]:
    stamps = read_time_codes(codes)
    even = even_rate(stamps.seconds, stamps.grain)
    return even.fps, even.frames


@pytest.mark.parametrize("fps", [24, 25, 30000 / 1001, 30, 50, 60, 59.905, 12.5, 10, 1, 240])
@pytest.mark.parametrize("count", [3, 40, 400])
def test_our_codes_say_their_rate(fps: float, count: int):
    close = pytest.approx(fps, rel=5e-4 if fps == 59.905 and count == 3 else 1e-6)
    assert rate_of([time_code(i, fps) for i in range(count)]) == (close, count)


def counted(base: int, write: Callable[[int], str] = "{:02d}".format, start: int = 0) -> list[str]:
    """Time codes that count frames, for 2.5 seconds."""
    return [f"01:00:{5 + i // base:02d}:{write(i % base)}" for i in range(start, start + base * 5 // 2)]


@pytest.mark.parametrize("base", [24, 25, 30, 48, 50, 60, 100, 120])
@pytest.mark.parametrize("start", [0, 17])
def test_frames_of_other_programs_are_counted_at_their_rate(base: int, start: int):
    assert rate_of(counted(base, start=start)) == (base, base * 5 // 2)
    assert rate_of(counted(base, "{:02d}.125".format, start)) == (base, base * 5 // 2)


def test_what_stands_behind_the_frame_may_be_a_decoration():
    millis = counted(60, lambda i: f"{i:02d}.{i * 1000 // 60:03d}")  # milliseconds of the second
    assert rate_of(millis) == (60, 150)
    gone = [code for i, code in enumerate(millis) if i % 7]
    assert rate_of(gone[:-1]) == (60, 148)
    assert rate_of(counted(30, lambda i: f"{i:02d}.{i:03d}"))[0] == pytest.approx(30, rel=1e-3)  # the frame again


def test_thousandths_and_decimal_seconds_are_read():
    millis = [f"00:00:{i // 30:02d}:{round(i % 30 * 1000 / 30):03d}" for i in range(90)]
    assert rate_of(millis) == (30, 90)
    assert rate_of([f"00:00:{i / 25:06.3f}" for i in range(60)]) == (25, 60)
    assert rate_of([f"00:00:{i / 25:06.3f}".replace(".", ",") for i in range(60)]) == (25, 60)


def drop_frame(count: int, nominal: int, mark: str) -> list[str]:
    """SMPTE's drop-frame codes, counted by hand: numbers are skipped at each minute but every tenth."""
    codes, clock, frame = [], 3590, 0
    for _ in range(count):
        codes.append(f"{clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}{mark}{frame:02d}")
        frame += 1
        if frame == nominal:
            clock, frame = clock + 1, 0
            if clock % 60 == 0 and clock // 60 % 10:
                frame = nominal // 15
    return codes


@pytest.mark.parametrize("nominal", [30, 60])
@pytest.mark.parametrize("mark", [";", ":"])
def test_drop_frame_codes_have_no_gaps(nominal: int, mark: str):
    codes = drop_frame(nominal * 72, nominal, mark)
    assert codes[-1].startswith("01:01:02") and "01:01:00" + mark + "00" not in codes
    assert rate_of(codes) == (pytest.approx(nominal / 1.001, rel=1e-9), len(codes))


def test_a_semicolon_alone_drops_nothing():
    codes = [code.replace(":", ";") for code in counted(25)]
    assert rate_of(codes) == (25, 62)
    whole = [f"00:{m:02d}:{s:02d};{f:02d}" for m in (0, 1) for s in range(58 * (1 - m), 60 if m == 0 else 2)
             for f in range(30)]  # fmt: skip
    assert rate_of(whole) == (30, 120)  # 00:01:00;00 is there


def test_the_day_ends_at_midnight():
    codes = [*(f"23:59:59:{i:02d}" for i in range(30)), *(f"00:00:00:{i:02d}" for i in range(30)), "00:00:01:00"]
    stamps = read_time_codes(codes)
    np.testing.assert_allclose(np.diff(stamps.seconds), 1 / 30)
    assert time_code(25 * 86_400, 25.0) == "00:00:00:00.000"


def test_less_than_a_second_leaves_the_rate_open():
    assert read_time_codes([f"00:00:00:{i:02d}" for i in range(20)]).guessed
    assert not read_time_codes(counted(30)).guessed
    assert not read_time_codes([time_code(i, 25.0) for i in range(10)]).guessed


@pytest.mark.parametrize(
    "code", ["", "12", "1:2", "aa:00:00:00", "00:60:00:00", "00:00:60:00", "00:00:00:0x", "-1:0:0:0"]
)
def test_what_is_no_code_is_refused(code: str):
    with pytest.raises(ValueError, match="is not HH") as caught:
        read_time_codes(["00:00:00:00", code])
    assert caught.value.args[0] == 1


@pytest.mark.parametrize("digits", [2, 3, 6])
@pytest.mark.parametrize("fps", [25, 30, 60, 30000 / 1001])
def test_rounded_times_are_even(digits: int, fps: float):
    times = np.round(np.arange(300) / fps, digits)
    even = even_rate(times, 10.0**-digits)
    assert even.frames == 300 and even.fps == pytest.approx(fps, rel=2e-3 if digits == 2 else 1e-5)
    assert (even.places == np.arange(300)).all()
    gaps = even_rate(np.delete(times, [10, 11, 50, 200]), 10.0**-digits)
    assert gaps.frames == 300 and gaps.fps == pytest.approx(fps, rel=2e-3)


def test_rows_at_one_time_are_averaged_and_gaps_bridged():
    even = even_rate(np.array([0.0, 0.04, 0.04, 0.08, 0.16, 0.20]), 0.01)
    assert even.fps == 25 and even.frames == 6
    seen = np.array([True, True, True, False, True, True])
    values = even.resample(np.array([0.0, 1, 3, 99, 4, 5]), seen)
    np.testing.assert_allclose(values, [0, 2, 8 / 3, 10 / 3, 4, 5])
    assert even.measured(seen).tolist() == [True, True, False, False, True, True]


def test_times_that_hardly_any_row_has_are_refused():
    times = np.concatenate([np.arange(600) / 1000, 0.6 + 0.9 * np.arange(500)])
    with pytest.raises(ValueError, match="most of its frames are missing"):
        even_rate(times, 1e-3)
    with pytest.raises(ValueError, match="all the same"):
        even_rate(np.ones(3), 1e-3)
