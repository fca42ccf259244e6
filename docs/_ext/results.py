"""Write the tables of results from the records: JSON files under ``benchmarks/``, as the commands wrote them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from avatar.eval.lips import TOO_SHORT
from docs._ext.pages import DOCS, ROOT
from pipelines import judging, records
from pipelines.records import Record

WHEN = "date, commit, hardware"
METRICS = (
    ("PSNR, dB", "psnr", ".2f"), ("LPIPS", "lpips", ".4f"), ("mouth correlation", "mouth_correlation", ".3f"),
    ("mouth sharpness / real", "mouth_sharpness", ".2f"), ("jitter / real", "pose_jitter_ratio", ".2f"),
)  # fmt: skip
VIEWS = (("PSNR, dB", "psnr", ".2f"), ("LPIPS", "lpips", ".4f"), ("silhouette IoU", "iou", ".3f"))
SPEECH = (("opening", "opening"), ("lip width", "width"), ("pucker", "pucker"), ("jaw", "jaw"))
PEOPLE = (
    ("prior", "test", "people it was never trained on"), ("prior", "development", "people by whom it was chosen"),
    ("prior", "familiar", "the speaker that it was trained on, new sentences"),
    ("prior-live", "test", "streaming, people it was never trained on"),
)  # fmt: skip


@functools.cache
def found() -> dict[str, Record]:
    """All records by name."""
    return {record.path.stem: record for record in records.find(ROOT)}


@functools.cache
def _older(name: str) -> list[str]:
    return records.changed(found()[name], ROOT)


def table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def link(name: str) -> str:
    """A link to a record, with a mark where the code has changed since."""
    path = os.path.relpath(ROOT / found()[name].path, DOCS)
    return f"[{name}]({path}){' †' if _older(name) else ''}"


def stamp(name: str) -> str:
    """Date, commit and hardware of a record."""
    record = found()[name]
    machine = record.content.get("hardware") or {}
    threads = f", {machine['threads']} thread{'s' * (machine['threads'] > 1)}" if machine.get("threads") else ""
    where = f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores{threads}" if machine else "no hardware"
    return f"{str(record.content.get('date', 'unknown'))[:10]}, {records.shown(record.measured)}, {where}"


def number(values: dict[str, Any], metric: str, spec: str) -> str:
    """A number with its 95 % interval, where there is one."""
    value, interval = values.get(metric), (values.get("intervals") or {}).get(metric)
    if value is None:
        return "-"
    spread = "" if interval is None else f" ({' to '.join(format(x, spec) for x in interval)})"
    return f"{value:{spec}}{spread}"


def likeness() -> str:
    """How near rendered frames come to held-out ones: a row per avatar and driver."""

    def rows() -> Iterator[Sequence[str]]:
        names = [name for name, record in found().items() if "full_frame" in record.content]
        for name in sorted(names, key=lambda n: (not n.endswith("-standard"), n)):
            record = found()[name]
            size = f"{record.content['width']}x{record.content['height']}, {record.frames}"
            for drive in ("audio", "tracked"):
                if record.content["full_frame"].get(drive):
                    cells = (_shown(record.content, drive, metric, spec) for _, metric, spec in METRICS)
                    yield [link(name), size, drive, *cells, stamp(name)]

    heads = ["record", "measured on", "lips from", *(title for title, _, _ in METRICS), WHEN]
    return table(heads, rows())


def _shown(content: dict[str, Any], drive: str, metric: str, spec: str) -> str:
    """A number as `avatar eval` would show it today."""
    values = content["full_frame"][drive]
    if values.get(metric) is not None and judging.is_unsaid(content, drive, metric):
        return TOO_SHORT
    return number(values | {"intervals": {metric: judging.interval(content, values, metric)}}, metric, spec)


def views() -> str:
    """How near turned views come to the exact truth of synthetic subjects."""

    def rows() -> Iterator[Sequence[str]]:
        for name in [name for name in found() if name.startswith("free-view-")]:
            seen = found()[name].content["views"]["truth"]["views"]
            for angle in sorted(seen, key=lambda a: float(a.split(",")[0])):
                if angle.endswith("+0"):
                    yield [
                        link(name),
                        angle.split(",")[0],
                        *(number(seen[angle], m, s) for _, m, s in VIEWS),
                        stamp(name),
                    ]

    heads = ["record", "degrees aside", *(title for title, _, _ in VIEWS), WHEN]
    return table(heads, rows())


def methods() -> str:
    """Both methods on one person: a row per metric, a column per person and method."""
    compared = {name: found()[name].content["methods"] for name in found() if name.startswith("compare-")}
    columns = [(name, method) for name, of in compared.items() for method in of]
    metrics = dict.fromkeys(metric for of in compared.values() for values in of.values() for metric in values)
    metrics = [metric for metric in metrics if not metric.startswith("rendering")]  # other work was on the cores

    def rows() -> Iterator[Sequence[str]]:
        for metric in metrics:
            cells = [compared[name][method].get(metric) for name, method in columns]
            numbers = [cell for cell in cells if isinstance(cell, int | float)]
            if numbers:
                yield [metric, *(f"{c:.4g}" if isinstance(c, int | float) else "-" for c in cells)]
        yield [WHEN, *(stamp(name) for name, _ in columns)]

    return table(["what", *(f"{link(name)}: {method}" for name, method in columns)], rows())


def speed() -> str:
    """How fast avatars are trained and drawn."""

    def rows() -> Iterator[Sequence[str]]:
        for name, record in found().items():
            content = record.content
            trained, drawn = content.get("training") or {}, content.get("speed") or {}
            size = f"{content.get('width')}x{content.get('height')}"
            if "frames_per_second" in content:
                what = f"audio to mp4, {content['frames']} frames{', baked' if content['baked'] else ''}"
                yield [link(name), size, what, f"{content['frames_per_second']:.1f} frames/s", stamp(name)]
            if "seconds" in trained:
                minutes = f"{trained['seconds'] / 60:.1f} min"
                yield [link(name), size, f"{trained['steps']} steps of training", minutes, stamp(name)]
            if "end_to_end_fps" in drawn:
                what = f"{drawn['frames']} frames in `eval`, speech and encoding included"
                yield [link(name), size, what, f"{drawn['end_to_end_fps']:.1f} frames/s", stamp(name)]
        yield from _medians("busy-machine")

    return table(["record", "size", "what", "measured", WHEN], rows())


def _medians(name: str) -> Iterator[Sequence[str]]:
    content = found()[name].content
    size = f"{content['size']}x{content['size']}"
    for what, values in content.items():
        if isinstance(values, dict) and "median_ms" in values:
            spread = f"{values['median_ms']} ms ({values['least_ms']} to {values['most_ms']}, {values['turns']} turns)"
            yield [link(name), size, what.replace("_", " "), spread, stamp(name)]


def asked() -> str:
    """What was asked of the live service, the web page and other readers, and what was measured."""

    def rows() -> Iterator[Sequence[str]]:
        for name, record in found().items():
            for row in record.content.get("table") or ():
                value = row["measured"]
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                kept = "met" if row["kept"] else "**missed**"
                wanted = f"{row['asked']:g}" if isinstance(row["asked"], int | float) else str(row["asked"])
                yield [link(name), row["what"].replace("sound", "audio"), wanted, shown, kept, stamp(name)]

    return table(["record", "what", "asked", "measured", "verdict", WHEN], rows())


def speech() -> str:
    """How well the shared audio-to-motion model follows the lips of people."""

    def rows() -> Iterator[Sequence[str]]:
        for name, part, who in PEOPLE:
            values = found()[name].content.get(part)
            if values is None:  # a record of some people only
                continue
            cells = [f"{values['mean'][key]:.2f}" for _, key in SPEECH]
            yield [link(name), f"{who} ({len(values['videos'])})", *cells, stamp(name)]

    return table(["record", "people (videos)", *(t for t, _ in SPEECH), WHEN], rows())


def all_records() -> str:
    """Every record: when, where and how it was made, and what has changed since."""

    def rows() -> Iterator[Sequence[str]]:
        for name, record in found().items():
            since = ", ".join(f"`{reason}`" if "/" in reason else reason for reason in _older(name)) or "nothing"
            yield [link(name), record.frames, stamp(name), since]

    return table(["record", "measured on", WHEN, "changed since"], rows())


TABLES: dict[str, Callable[[], str]] = {
    "likeness": likeness, "views": views, "methods": methods, "speed": speed, "asked": asked, "speech": speech,
    "records": all_records,
}  # fmt: skip
