"""Tables made of the records of `standard` avatars: which bars are met, all numbers, what the sync judge says.

A bar is **met** only where the whole 95 % interval clears it. Where the number clears it and the interval does not, it
is *not shown*, and so it is where there is no interval, or one that covers less than 95 %. Where the number does not
clear it, it is missed, in bold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avatar.eval.lips import TOO_SHORT
from pipelines.judging import interval, is_narrow, is_unsaid
from pipelines.records import Record, shown

QUALITY = "-standard"  # records of avatars trained with this preset end with it
DRIVING = ("tracked", "audio", "shuffled")
OLDER = "†"  # marks what was measured before the code changed
PROTOCOLS = {"full_frame": "full-frame", "head_only": "head-only"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A number that is asked of a metric.

    Attributes:
        what: Metric in words.
        protocol: "full_frame" (everything rendered) or "head_only".
        drive: What drives the face.
        metric: Its name in the JSON.
        bound: What is asked.
        least: Whether the metric must be at least that; at most otherwise.
        spec: Number format.
        paper: Whose number it is; empty where the project asks for it.
    """

    what: str
    protocol: str
    drive: str
    metric: str
    bound: float
    least: bool
    spec: str = ".2f"
    paper: str = ""

    def verdict(self, value: float, interval: list[float] | None) -> str:
        """``met``, ``not shown`` or ``missed``."""

        def clears(x: float) -> bool:
            return x >= self.bound if self.least else x <= self.bound

        if not clears(value):
            return "missed"
        return "met" if interval is not None and all(map(clears, interval)) else "not shown"


def _papers() -> list[Bar]:
    return [
        Bar(
            what=what,
            protocol="head_only",
            drive="audio",
            metric=metric,
            bound=bound,
            least=least,
            spec=spec,
            paper=paper,
        )
        for paper, psnr, lpips in (("TalkingGaussian", 33.6, 0.026), ("EmbedTalk", 35.2, 0.021))
        for what, metric, bound, least, spec in (
            ("PSNR, dB", "psnr", psnr, True, ".2f"),
            ("LPIPS", "lpips", lpips, False, ".4f"),
        )
    ]


def _own() -> list[Bar]:
    likeness = [
        Bar(what=what, protocol="full_frame", drive=drive, metric=metric, bound=bound, least=least, spec=spec)
        for drive in ("tracked", "audio")
        for what, metric, bound, least, spec in (
            ("PSNR, dB", "psnr", 31, True, ".2f"),
            ("LPIPS", "lpips", 0.05, False, ".4f"),
        )
    ]
    kept = [
        Bar(what=what, protocol="full_frame", drive=drive, metric=metric, bound=bound, least=least)
        for what, metric, bound, least in (
            ("jitter of rigid landmarks / real", "pose_jitter_ratio", 1.2, False),
            ("mouth sharpness / real", "mouth_sharpness", 0.8, True),
        )
        for drive in ("tracked", "audio")
    ]
    seam = [
        Bar(what=what, protocol=protocol, drive="audio", metric=metric, bound=1.2, least=False)
        for protocol in PROTOCOLS
        for what, metric in (("seam, flicker / real", "seam_temporal"), ("seam, edges / real", "seam_spatial"))
    ]
    return [*likeness, *kept, *seam]


BARS = [*_papers(), *_own()]
OTHER_BOUNDS = {"anchor_en_71s": {"psnr": 32.0, "lpips": 0.035}}  # of our own bars, for all records of a person

# Columns of the table of all numbers: title, metric, format.
COLUMNS = (
    ("PSNR", "psnr", ".2f"), ("face", "psnr_face", ".2f"), ("SSIM", "ssim", ".3f"), ("LPIPS", "lpips", ".4f"),
    ("LMD px", "lmd", ".2f"), ("mouth corr.", "mouth_correlation", ".3f"), ("sync distance", "sync_distance", ".2f"),
    ("audio delay, s", "sync_audio_delay_s", "+.2f"), ("jitter / real", "pose_jitter_ratio", ".2f"),
    ("sharpness / real", "mouth_sharpness", ".2f"), ("seam: flicker / real", "seam_temporal", ".2f"),
    ("edges / real", "seam_spatial", ".2f"),
)  # fmt: skip


def measured(records: list[Record]) -> dict[str, Record]:
    """The records of `standard` avatars, by person."""
    return {
        record.path.stem.removesuffix(QUALITY): record
        for record in records
        if record.path.stem.endswith(QUALITY) and "full_frame" in record.content
    }


def bars(people: dict[str, Record], older: Mapping[Path, list[str]]) -> str:
    """Markdown: what was measured, then a row per bar and a column per person."""
    heads = " | ".join(_marked(person, record, older) for person, record in people.items())
    lines = [*_scopes(people, older), "", f"| what | driven by, protocol | asked | {heads} |"]
    lines.append("|---" * (3 + len(people)) + "|")
    for bar in BARS:
        asked = {person: _bound(bar, person) for person in people}
        text = f"{'at least' if bar.least else 'at most'} {bar.bound:g}"
        other = {_person(name): bound for name, bound in asked.items() if bound != bar.bound}
        text += "".join(f"; {person} {bound:g}" for person, bound in other.items())
        text += f" ({bar.paper})" if bar.paper else ""
        cells = [
            _judged(bar, asked[person], record.content) if not bar.paper or _comparable(person, record) else "-"
            for person, record in people.items()
        ]
        if any(cell != "-" for cell in cells):
            bound = " (upper bound)" if bar.drive == "tracked" else ""
            where = f"{bar.drive}{bound}, `{PROTOCOLS[bar.protocol]}`"
            lines.append(f"| {bar.what} | {where} | {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def numbers(people: dict[str, Record], older: Mapping[Path, list[str]]) -> str:
    """Markdown: everything that `eval` measured, ± half of the 95 % interval."""
    titles = " | ".join(title for title, _, _ in COLUMNS)
    lines = [f"| person, protocol, driven by | {titles} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for person, record in people.items():
        rows: list[tuple[str, str, dict[str, Any]]] = []  # title, what drives it, numbers
        for key, protocol in PROTOCOLS.items():
            found = record.content.get(key) or {}
            rows += [(f"{protocol}, {drive}", drive, found[drive]) for drive in DRIVING if drive in found]
            if key == "full_frame":
                less = record.content.get("ablations") or {}
                rows += [(f"{protocol}, {_spaced(name)}", "", values) for name, values in less.items()]
        rows.append(("real video", "real", record.content.get("real", {})))
        for name, drive, values in rows:
            cells = " | ".join(_number(record.content, drive, values, *column) for _, *column in COLUMNS)
            lines.append(f"| {_marked(person, record, older)}, {name} | {cells} |")
    return "\n".join(lines)


def judged(people: dict[str, Record], older: Mapping[Path, list[str]]) -> str:
    """Markdown: what the sync judge says of each person's own video and of the rendered ones."""
    lines = [
        "| person, held out | record | own video | tracked lips | lips from the audio | lips from the wrong audio |",
        "|---|---|---|---|---|---|",
    ]
    for person, record in people.items():
        videos = {"real": record.content.get("real", {})} | (record.content.get("full_frame") or {})
        cells = [_sync(record.content, drive, videos.get(drive, {})) for drive in ("real", *DRIVING)]
        stamp = f"{record.content['date'][:10]}, {shown(record.measured)}"
        lines.append(f"| {_marked(person, record, older)}, {record.frames} | {stamp} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scopes(people: dict[str, Record], older: Mapping[Path, list[str]]) -> list[str]:
    """A line per person: how much was measured, when, from which commits, and whether the code has changed since."""
    lines = []
    for person, record in people.items():
        content = record.content
        trained = content.get("training") or {}
        made = f"{content['model']['gaussians']} Gaussians, {content['model']['bytes'] / 1e6:.1f} MB"
        if "seconds" in trained:
            made += f", {trained['steps']} steps in {trained['seconds'] / 60:.1f} min on the clock"
        if threads := trained.get("hardware", {}).get("threads"):
            made += f" with {threads} thread{'s' if threads > 1 else ''}"
        when = f"trained {str(trained.get('date', 'unknown'))[:10]} at {shown(record.trained)}"
        when += f", evaluated {content['date'][:10]} at {shown(record.measured)}"
        mark = f" {OLDER} **Older than the code**: {', '.join(older[record.path])}." if record.path in older else ""
        size = f"{content['width']}x{content['height']}"
        lines.append(
            f"- [{person}](../../{record.path.as_posix()}), {size}: {record.frames} held out; {made}; {when}.{mark}"
        )
    return lines


def _marked(person: str, record: Record, older: Mapping[Path, list[str]]) -> str:
    return f"{person} {OLDER}" if record.path in older else person


def _comparable(person: str, record: Record) -> bool:
    """Whether a paper's bar means anything: they measure filmed people at 512x512."""
    return (record.content["width"], record.content["height"]) == (512, 512) and not person.startswith("synthetic")


def _person(name: str) -> str:
    """Whose record it is, of those with bars of their own: the name of another recipe follows that of the person."""
    return next((person for person in OTHER_BOUNDS if name == person or name.startswith(f"{person}-")), name)


def _bound(bar: Bar, name: str) -> float:
    other = OTHER_BOUNDS.get(_person(name), {})
    return other.get(bar.metric, bar.bound) if bar.protocol == "full_frame" else bar.bound


def _judged(bar: Bar, bound: float, content: dict[str, Any]) -> str:
    values = (content.get(bar.protocol) or {}).get(bar.drive, {})
    value = values.get(bar.metric)
    if value is None:
        return "-"
    spread, narrow = interval(content, values, bar.metric), is_narrow(content)
    text = "no interval" if spread is None else " to ".join(format(x, bar.spec) for x in spread)
    text += ", too narrow" if spread is not None and narrow else ""
    verdict = replace(bar, bound=bound).verdict(value, None if narrow else spread)
    cell = f"{format(value, bar.spec)} ({text}): {verdict}"
    if verdict != "missed":
        return cell
    short = format(abs(value - bound), bar.spec)
    return f"**{cell} by {short if float(short) else 'less than the last digit'}**"


def _number(content: dict[str, Any], drive: str, values: dict[str, Any], metric: str, spec: str) -> str:
    value, spread = values.get(metric), interval(content, values, metric)
    if value is None:
        return "-"
    if is_unsaid(content, drive, metric):
        return TOO_SHORT  # a number would be read
    half = "" if spread is None else f" ±{format((spread[1] - spread[0]) / 2, spec.lstrip('+'))}"
    return format(value, spec) + half


def _sync(content: dict[str, Any], drive: str, values: dict[str, Any]) -> str:
    """Confidence and distance that the sync judge gives a video."""
    cells = [_number(content, drive, values, f"sync_{key}", ".2f") for key in ("confidence", "distance")]
    return TOO_SHORT if TOO_SHORT in cells else ", ".join(cells)


def _spaced(name: str) -> str:
    return name.replace("tracker_poses", "tracker's poses").replace("_", " ")
