"""The report: one folder with an HTML page, its video and its images. Nothing comes from the network."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar import page as html_page
from avatar.eval import images, lips, report, view_sheets, view_tables, whole_frame
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
from avatar.page import Cell
from avatar.preprocess.report_page import figure_url
from avatar.writing import atomic_file

if TYPE_CHECKING:
    from avatar.eval.measure import Measurement
    from avatar.eval.views import ViewMeasurement

Text = Callable[[str, float | None], str]  # of a metric's value
PAGE = "report.html"
VIEWS, GEOMETRY, TRUTH = "views.jpg", "views_geometry.jpg", "views_truth.jpg"
SHEETS = {  # and what is said over them
    VIEWS: "The camera turned around the head, in degrees.",
    GEOMETRY: view_sheets.LEGEND,
    TRUTH: "The subject drawn from the same cameras, above the avatar.",
}
HEADINGS = {"full_frame": "Protocol full-frame", "head_only": "Protocol head-only", "ablations": "Ablations"}
ALTS = {
    VIEWS: "The avatar from several sides, a column per camera",
    GEOMETRY: "Coverage, depth and surface normals of the same views",
    TRUTH: "True images of the synthetic subject above those of the avatar, from the same cameras",
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
    about = f"{result['person']}, {result['width']}x{result['height']} at {result['fps']:.3g} frames/s: "
    lead = (
        f"<p>{html.escape(about + scope(result))}. Command: <code>{html.escape(result['command'])}</code>.</p>\n"
        + "".join(html_page.paragraph(warning, "warning") for warning in result["warnings"])
        + html_page.video("side_by_side.mp4", "The real video beside what was rendered", result["fps"])
    )
    framed = "Mouths are cut out at the same place and shown at three times their size."
    framed = framed if result["first_frame"] is None else f"Real above rendered. {framed}"
    sections = {"Driven by": driving(result)}
    sections |= {HEADINGS[name]: section(result, name) for name in TABLES if result.get(name)}
    if (whole := result.get("whole_frame")) is not None:
        sections[whole_frame.TITLE] = whole_frame.in_html(whole)
    if shown := report.differences(result):
        sections["Against another avatar"] = against(result, shown)
    sections |= {
        "Frames": html_page.paragraph(framed)
        + html_page.image("frames.jpg", "Real frames above rendered ones, and their mouths enlarged"),
        "Free view": free_view(result["views"], sheets),
        "Over time": html_page.image(
            plots(result, measured), "Plots over time: opening of the mouth, PSNR, jitter of the pose", plot=True
        ),
        "What the numbers mean": meanings(result),
        "Speed, size, notes": html_page.items(summary_lines(result)),
    }
    return html_page.page(f"{result['run']}: {result['setting']}", lead, sections)


def driving(result: dict[str, Any]) -> str:
    """What the motions are that the columns of the tables are named after, and what the small print is."""
    listed = "".join(
        f"<li><b>{html.escape(name)}</b>: {html.escape(WORDS[name])}</li>\n"
        for name in (*result["full_frame"], "real") if name in WORDS
    )  # fmt: skip
    return f"<ul>{listed}</ul>\n" + html_page.paragraph(
        f"Small print in the tables: {CONFIDENCE:.0%} intervals (bootstrap over blocks of {BLOCK_SECONDS:g} s). They "
        "say how much the number would vary over other seconds of the same video; not over people, nor over training "
        "runs."
    )


def meanings(result: dict[str, Any]) -> str:
    """What each number of the tables is."""
    shown = {key for name in TABLES if result.get(name) for key in rows(columns(result, name))}
    listed = [(metric.label, metric.meaning) for key, metric in SHOWN.items() if key in shown]
    missing = "Not measured: FID and FVMD, whose networks are not part of the toolkit."
    head = ("metric", "meaning")
    return html_page.table("What the numbers mean", head, listed, sorts=False) + html_page.paragraph(missing)


def free_view(views: dict[str, Any], sheets: list[str]) -> str:
    """Images and tables of free view."""
    shown = "".join(html_page.paragraph(SHEETS[name]) + html_page.image(name, ALTS[name]) for name in sheets)
    return shown + view_tables.in_html(views)


def section(result: dict[str, Any], name: str) -> str:
    """A table, after what was measured and when."""
    shown = columns(result, name)
    interval = f"small print: {CONFIDENCE:.0%} intervals" if has_intervals(shown) else NO_INTERVALS
    why = html_page.paragraph(ABLATIONS) if name == "ablations" else ""
    about = f"{TABLES[name][:1].upper() + TABLES[name][1:]}: {scope(result)}; {interval}."
    return html_page.paragraph(about) + why + table(shown, HEADINGS[name])


def table(shown: dict[str, dict[str, Any]], title: str, text: Text = number) -> str:
    """Metrics with their intervals; a column per drive, and one for the real video where it is shown."""
    body = [(SHOWN[key].label, *(cell(key, values, text) for values in shown.values())) for key in rows(shown)]
    return html_page.table(title, ("metric", *shown), body)


def cell(key: str, values: dict[str, Any], text: Text = number) -> Cell:
    """A number with its interval and what is to be said of it."""
    interval, said = values["intervals"].get(key), mark(key, values)
    if said == lips.TOO_SHORT:
        return Cell("", (said,))
    small = [] if interval is None else [" to ".join(text(key, bound) for bound in interval)]
    return Cell(text(key, values.get(key)), (*small, *([said] if said else [])))


def against(result: dict[str, Any], shown: dict[str, dict[str, Any]]) -> str:
    """The table of differences from another avatar."""
    about = f"{report.difference_title(result)}; small print: {CONFIDENCE:.0%} intervals of the difference."
    return html_page.paragraph(about) + table(shown, "Against another avatar", report.signed)


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
