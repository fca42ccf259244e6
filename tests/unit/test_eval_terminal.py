"""Tables of `avatar eval` fit a terminal of 80 columns and narrower ones, and nothing in them is cut off."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from avatar.eval import lips, report, terminal, view_tables
from avatar.eval.report import SHOWN
from avatar.eval.terminal import Cell

LARGEST: dict[str, Any] = {"blinks": 1234, "frames_without_face": 12345, "mouth_lag_frames": -12, "closure": 1.0}


def metrics(scale: float) -> dict[str, Any]:
    """Every metric with a long number and an interval."""
    values = {key: LARGEST.get(key, scale) for key in SHOWN}
    whole = {"blinks", "frames_without_face", "mouth_lag_frames"}
    return values | {"intervals": {key: [0.0, scale] for key in SHOWN if key not in whole}}


def result() -> dict[str, Any]:
    """What an evaluation with everything gives; lips of the audio are no better than chance."""
    drives = {name: metrics(12.3456) for name in ("audio", "shuffled", "tracked")}
    verdict = {
        "too_short": False, "better_than_shuffled": dict.fromkeys(lips.OPENING, False), "speaking_seconds": 20.0,
    }  # fmt: skip
    views = {f"azimuth_{degrees}": dict.fromkeys(view_tables.FAULTS, 123.4567) for degrees in (15, 30, 45, 60, 75, 90)}
    return {
        "setting": "self-reconstruction", "full_frame": drives, "head_only": drives, "real": metrics(1.0),
        "ablations": {"audio_torso_at_rest_tracker_poses": metrics(12.3456)}, "lips": verdict, "frames": 675,
        "fps": 25.0, "first_frame": 10, "commit": "0123456789abcdef", "date": "2026-02-03T04:05:06Z", "training": {},
        "views": {"quick": False, "frames": [1], "width": 512, "height": 512, "groups": views},
    }  # fmt: skip


def printed(width: int, tables: list[Any]) -> list[str]:
    console = Console(record=True, width=400, file=io.StringIO())
    for table in tables:
        table.title = None  # rich wraps titles to the width of their table
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width and "…" not in "".join(lines)
    return lines


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_are_as_wide_as_the_terminal_at_most(width: int) -> None:
    found = result()
    console = Console(record=True, width=width, file=io.StringIO())
    for table in [*report.tables(found, width), *view_tables.in_terminal(found["views"], width)]:
        console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("12.3456") > 3 and text.count("±6.1728") > 3 and "123.46" in text
    for table in report.tables(found, width):  # no label loses a word, no number is broken
        for column in table.columns[1:]:
            assert column.no_wrap


def test_intervals_go_below_their_numbers_before_columns_leave_the_table() -> None:
    columns = {name: [Cell("12.3456", "±0.1234", "*"), Cell("too short")] for name in ("audio", "real video")}
    wide, narrow = (terminal.tables("Title", ["PSNR", "LMD"], columns, width) for width in (80, 34))
    assert len(wide) == len(narrow) == 1
    assert any("12.3456* ±0.1234" in line for line in printed(80, wide))
    lines = printed(34, narrow)
    assert not any("12.3456* ±" in line for line in lines) and sum("±0.1234" in line for line in lines) == 1
    parted = terminal.tables("Title", ["PSNR", "LMD"], columns, 20)
    assert [table.title for table in parted] == ["Title", None] and len(printed(20, parted)) > len(lines)


def test_lips_that_chance_explains_are_marked_and_the_mark_is_explained() -> None:
    first = report.tables(result(), 80)[0]
    assert f"{report.MARK} {lips.CHANCE}" in str(first.title)
    assert sum(report.MARK in str(cell) for column in first.columns[1:] for cell in column.cells) >= 1
    without = report.tables(result() | {"lips": None}, 80)[0]
    assert lips.CHANCE not in str(without.title)
