"""The report: one folder with an HTML page, its video and its images. No scripts, nothing from the network."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.eval import images, lips, view_sheets, view_tables
from avatar.eval.bootstrap import BLOCK_SECONDS, CONFIDENCE
from avatar.eval.report import (
    NO_INTERVALS,
    SHOWN,
    TABLES,
    columns,
    has_intervals,
    mark,
    number,
    rows,
    scope,
    summary_lines,
)
from avatar.preprocess.report_page import STYLE, figure_url
from avatar.writing import atomic_file

if TYPE_CHECKING:
    from avatar.eval.measure import Measurement
    from avatar.eval.views import ViewMeasurement

PAGE = "report.html"
VIEWS, GEOMETRY, TRUTH = "views.jpg", "views_geometry.jpg", "views_truth.jpg"
SHEETS = {  # and what is said over them
    VIEWS: "The camera turned around the head, in degrees.",
    GEOMETRY: view_sheets.LEGEND,
    TRUTH: "The subject drawn from the same cameras, above the avatar.",
}
TILE = 450  # pixels: width of a column on the page of frames, so that mouths fit at three times their size
COLORS = {"real": "0.15", "audio": "tab:orange", "tracked": "tab:blue", "shuffled": "0.7"}

WORDS = {
    "tracked": "the tracked motion of these frames: an upper bound. The tracker that drives the lips also measures "
    "them, so that lip distances are a round trip.",
    "audio": "lips from the audio alone, everything else as tracked: how good the talking is, and what papers measure.",
    "shuffled": "lips from audio half of the part's length away: the floor. A number of lips that is no better than "
    "this one says nothing.",
    "real": "the person's own video, with the same tracker: what a perfect avatar would read.",
}

ABLATIONS = (
    "Head poses were corrected through the renderer of this model, and the torso was registered in every held-out "
    "frame. Torso at rest: the median of the training frames instead. Poses of tracker: head poses as they were "
    "before anything was rendered."
)


def write(folder: Path, result: dict[str, Any], measured: Measurement, views: ViewMeasurement) -> Path:
    """Write report.html and its pictures into a folder; side_by_side.mp4 is expected there.

    Args:
        folder: Made where it is missing.
        result: What goes into the JSON file.
        measured: Series and sample frames.
        views: Images of free view.

    Returns:
        The page.
    """
    first = result["first_frame"] or 0
    titles = [f"{(first + t) / result['fps']:.2f} s" for t in measured.samples]
    order = [name for name in measured.series if not name.startswith("shuffled")]
    chosen = [{name: images[name] for name in order if name in images} for images in measured.samples.values()]
    sheet = images.contact_sheet(chosen, [measured.landmarks[t] for t in measured.samples], titles, TILE)
    images.save_image(folder / "frames.jpg", sheet)
    sheets = {
        VIEWS: view_sheets.view_sheet(views), GEOMETRY: view_sheets.geometry_sheet(views),
        TRUTH: view_sheets.truth_sheet(views),
    }  # fmt: skip
    shown = [name for name, image in sheets.items() if image is not None]
    for name in SHEETS:
        if (image := sheets[name]) is not None:
            images.save_image(folder / name, image)
    path = folder / PAGE
    with atomic_file(path) as temporary:
        temporary.write_text(page(result, measured, shown), encoding="utf-8")
    return path


def page(result: dict[str, Any], measured: Measurement, sheets: list[str]) -> str:
    """The HTML page; ``sheets`` are those of `SHEETS` that there are."""
    name = html.escape(f"{result['run']}: {result['setting']}")
    driving = "".join(
        f"<li><b>{html.escape(n)}</b>: {html.escape(WORDS[n])}</li>"
        for n in (*result["full_frame"], "real") if n in WORDS
    )  # fmt: skip
    listed = "".join(section(result, name, title) for name, title in TABLES.items() if result.get(name))
    shown = {key for name in TABLES if result.get(name) for key in rows(columns(result, name))}
    meanings = "".join(
        f"<tr><th>{html.escape(s.label)}</th><td>{html.escape(s.meaning)}</td></tr>"
        for key, s in SHOWN.items() if key in shown
    )  # fmt: skip
    warned = "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in result["warnings"])
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in summary_lines(result))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>
{STYLE} td, th {{ padding-right: 1.4em }} td.n {{ text-align: right; white-space: nowrap }}
td small {{ color: #777; display: block }} video {{ width: 100% }}
.warning {{ border-left: 4px solid #c80; padding: .3em .8em; background: #fff6e0 }}
</style></head><body>
<h1>{name}</h1>
<p>{html.escape(result["person"])}, {result["width"]}x{result["height"]} at {result["fps"]:.3g} frames/s:
{html.escape(scope(result))}. Command: <code>{html.escape(result["command"])}</code>.</p>
{warned}
<video controls preload="metadata" src="side_by_side.mp4"></video>
<p>Driven by</p><ul>{driving}</ul>
<p>Small print in the tables: {CONFIDENCE:.0%} intervals (bootstrap over blocks of {BLOCK_SECONDS:g} s). They say how
much the number would vary over other seconds of the same video; not over people, nor over training runs.</p>
{listed}
<h2>Frames</h2><p>{"" if result["first_frame"] is None else "Real above rendered. "}Mouths are cut out at the same place
and shown at three times their size.</p>
<a href="frames.jpg"><img src="frames.jpg" alt="real and rendered frames"></a>
{free_view(result["views"], sheets)}
<h2>Over time</h2><img src="{plots(result, measured)}" alt="plots over time">
<h2>What the numbers mean</h2><table>{meanings}</table>
<p>Not measured: FID and FVMD, whose networks are not part of the toolkit.</p>
<h2>Speed, size, notes</h2><ul>{lines}</ul>
</body></html>
"""


def free_view(views: dict[str, Any], sheets: list[str]) -> str:
    """Pictures and tables of free view."""
    shown = "".join(
        f'<p>{html.escape(SHEETS[name])}</p><a href="{name}"><img src="{name}" alt="turned views"></a>'
        for name in sheets
    )
    return f"<h2>Free view</h2>{shown}{view_tables.in_html(views)}"


def section(result: dict[str, Any], name: str, title: str) -> str:
    """A table under its title, with what was measured and when."""
    shown = columns(result, name)
    interval = f"small print: {CONFIDENCE:.0%} intervals" if has_intervals(shown) else NO_INTERVALS
    why = f"<p>{html.escape(ABLATIONS)}</p>" if name == "ablations" else ""
    return (
        f"<h2>{html.escape(title[:1].upper() + title[1:])}</h2>"
        f"<p>{html.escape(scope(result))}; {interval}.</p>{why}{table(shown)}"
    )


def table(shown: dict[str, dict[str, Any]]) -> str:
    """Metrics with their intervals; a column per drive, and one for the real video."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in shown)
    body = []
    for key in rows(shown):
        cells = []
        for values in shown.values():
            cells.append(f'<td class="n">{cell(key, values)}</td>')
        body.append(f"<tr><th>{html.escape(SHOWN[key].label)}</th>{''.join(cells)}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(body)}</table>"


def cell(key: str, values: dict[str, Any]) -> str:
    """A number with its interval and what is to be said of it."""
    interval, said = values["intervals"].get(key), mark(key, values)
    if said == lips.TOO_SHORT:
        return f"<small>{said}</small>"
    small = "" if interval is None else f"<small>{number(key, interval[0])} to {number(key, interval[1])}</small>"
    return number(key, values.get(key)) + small + (f"<small>{said}</small>" if said else "")


def plots(result: dict[str, Any], measured: Measurement) -> str:
    """Mouth opening, PSNR and jitter over time, as a PNG in a data URL."""
    from matplotlib.figure import Figure

    panels = {"opening": "mouth opening / eye distance", "psnr": "PSNR, dB", "jitter": "jitter of the pose, px at 512"}
    per_frame = measured.series.items()
    found = {key: {n: s[key] for n, s in per_frame if key in s} for key in panels}
    if result["first_frame"] is None:  # the real video shows other seconds
        found = {key: {n: v for n, v in lines.items() if n != "real"} for key, lines in found.items()}
    found = {key: lines for key, lines in found.items() if lines}
    figure = Figure(figsize=(11, 2.4 * len(found)), layout="constrained")
    for axes, (key, lines) in zip(np.atleast_1d(figure.subplots(len(found), 1, sharex=True)), found.items()):
        for name, values in lines.items():
            drive, _, head_only = name.partition(", ")
            if key != "psnr" and head_only:
                continue  # the same face as without
            drawn = np.sqrt(values) if key == "jitter" else values
            axes.plot(
                np.arange(len(values)) / result["fps"], drawn, linewidth=0.9, label=name, color=COLORS.get(drive),
                linestyle="--" if head_only else "-",
            )  # fmt: skip
        axes.set_title(panels[key], fontsize=9, loc="left")
        axes.legend(loc="upper right", fontsize=7, ncols=len(lines))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.set_xlabel("seconds of the measured part" if key == list(found)[-1] else "", fontsize=8)
    return figure_url(figure)
