"""Tables of free view: what its numbers are called, for the terminal and for the report."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple

from avatar import page
from avatar.eval import terminal

if TYPE_CHECKING:
    from rich.table import Table

Columns = dict[str, dict[str, Any]]  # metrics by the title of their column

FAULTS: dict[str, tuple[str, str, str]] = {  # label, format, meaning
    "holes": ("holes", ".2%", "Share of the silhouette through which the background shines, away from its rim."),
    "largest_hole": ("largest hole", ".2%", "The largest connected one, as a share of the silhouette."),
    "thinness": ("thinness", ".2%", "What coverage lacks inside the silhouette, mean."),
    "edge_roughness": (
        "torn edges", ".1%", "Length of the outline over its length after smoothing, minus 1. Hair has a rough outline "
        "of its own: compare with the frontal view."),
    "edge_width_px": (
        "soft edges (px of 512)", ".2f", "Area of half-transparent pixels at the rim over the outline's length; a "
        "cloud behind the head is many pixels wide."),
    "islands": ("islands", ".2%", "What floats beside the person, as a share of the silhouette."),
    "cut_off": (
        "cut off below", ".2%", "Background below the person as a share of the silhouette: a torso that ends in the "
        "air, or shoulders that overhang."),
    "color_outliers": (
        "colours out of place", ".2%", "Share of the silhouette whose colour, averaged over a centimetre, the frontal "
        "view does not show near the same place in space: halos. A pattern that comes into sight counts as well."),
    "speckles": (
        "speckled face", ".2%", "Share of the face whose colour the frontal view does not show at the same place of "
        "the face mesh."),
    "unseen": ("never seen in training", ".1%", "Share of the silhouette that no training frame showed."),
    "identity": (
        "identity similarity (dlib)", ".3f", "Cosine of face embeddings of this view and the frontal one. Real turned "
        "heads read less than 1 as well."),
    "real_identity": ("the same, real frames", ".3f", "Real held-out frames whose head is turned as far."),
    "no_face": ("no face found", ".0%", "Share of the images in which the tracker finds no face."),
    "landmark_error_px": (
        "landmarks off the mesh (px of 512)", ".2f", "Distance of tracked landmarks from the person's face mesh in "
        "the pose of the head, over the vertices that face the camera."),
    "landmark_error": ("the same / eye distance", ".1%", "Over the distance of the outer corners of the eyes."),
    "depth_error_cm": (
        "depth off the mesh (cm)", ".2f", "Mean distance of the rendered surface from the person's face mesh along "
        "the camera's axis; the mesh is as good as its fit."),
    "depth_bias_cm": ("the same, with sign (cm)", "+.2f", "Median; positive: the rendering is behind."),
    "normal_error_deg": ("normals off the mesh (degrees)", ".1f", "Median angle between both surfaces' normals."),
}  # fmt: skip
SHORT = ("holes", "edge_roughness", "edge_width_px", "cut_off", "color_outliers", "speckles", "unseen", "identity",
         "landmark_error", "depth_error_cm")  # fmt: skip

HELD_OUT: dict[str, tuple[str, str, str]] = {
    "frames": ("frames", "d", "That were measured."),
    "psnr_face": ("PSNR, face (dB)", ".2f", "Pixel error inside the face mask."),
    "psnr": ("PSNR, whole frame (dB)", ".2f", "Pixel error of the whole frame."),
    "lpips": ("LPIPS (Alex)", ".4f", "Perceptual distance of the whole frame. Less is better."),
}

TRUTH: dict[str, tuple[str, str, str]] = {
    "psnr": ("PSNR (dB)", ".2f", "Over the union of both silhouettes, against the subject drawn from the same camera."),
    "lpips": ("LPIPS (Alex)", ".4f", "Of the whole frame. Less is better."),
    "ssim": ("SSIM", ".4f", "Over the union of both silhouettes."),
    "psnr_face": ("PSNR, face (dB)", ".2f", "Where the truth shows the face."),
    "psnr_hair": ("PSNR, hair (dB)", ".2f", "Where the truth shows hair."),
    "psnr_neck": ("PSNR, neck (dB)", ".2f", "Where the truth shows the neck."),
    "psnr_clothes": ("PSNR, clothes (dB)", ".2f", "Where the truth shows clothes."),
    "iou": ("silhouette IoU", ".3f", "Intersection over union of both silhouettes."),
    "halo": ("halo", ".1%", "Drawn where nobody is, as a share of the true silhouette."),
    "missing": ("missing", ".1%", "Not drawn where somebody is, the same."),
    "depth_median": ("depth, median error (cm)", ".2f", "Absolute difference of depths, relative to the pivots."),
    "depth_90": ("depth, 90th percentile (cm)", ".2f", "Of the same."),
}
OF_TRUTH = {"front": "frontal", "yaw": "azimuth", "pitch": "elevation"}


class Named(NamedTuple):
    """A table.

    Attributes:
        title: Above it.
        about: What was compared with what.
        metrics: Metric to its label, format and meaning.
        columns: Numbers, with ``intervals``.
    """

    title: str
    about: str
    metrics: dict[str, tuple[str, str, str]]
    columns: Columns


def tables(views: dict[str, Any]) -> list[Named]:
    """The tables of what stands below ``views`` in the metrics."""
    held_out = views.get("held_out_yaw")
    found = [Named("Free view, faults that need no truth", about(views), FAULTS, fault_columns(views))]
    if held_out is not None:
        right, left, front = held_out["yaw"]
        said = (
            f"real frames that training left out: the {held_out['share']:.0%} of the largest head yaw on either side "
            f"(mean {right:+.1f} and {left:+.1f} degrees), and frontal ones ({front:+.1f} degrees)"
        )
        columns = {name: held_out[name] for name in ("turned", "frontal")}
        columns["turned - frontal"] = held_out["difference"]
        found.append(Named("Turned heads that training never saw", said, HELD_OUT, columns))
    if (truth := views.get("truth")) is not None:
        for name, of in (("as rendered", truth["groups"]), ("aligned", _aligned(truth["groups"]))):
            said = (
                f"{len(truth['frames'])} held-out frames, {name}; focal length of the tracker {truth['focal']:.0f} px, "
                f"true {truth['true_focal']:.0f} px"
            )
            columns = {_truth_title(group): row for group, row in of.items()}
            found.append(Named("Free view against the exact truth", said, TRUTH, columns))
    return found


def about(views: dict[str, Any]) -> str:
    """What was rendered."""
    size = f"{len(views['frames'])} held-out frames at {views['width']}x{views['height']}"
    more = "; few and small, see --views for all" if views["quick"] else ""
    return f"{size}, over grey, tracked motion, camera turned around the head{more}"


def fault_columns(views: dict[str, Any]) -> Columns:
    """Groups of views by title, with the identity of real frames beside."""
    real = views.get("real_identity") or {}
    return {
        group_title(name): row | ({"real_identity": real[name]} if name in real else {})
        for name, row in views["groups"].items()
    }


def group_title(group: str) -> str:
    """Title of a group of views: ``azimuth ±30`` for ``azimuth_30``."""
    axis, _, degrees = group.rpartition("_")
    return f"{axis.replace('_', ' ')} ±{degrees}" if axis else group


def _truth_title(group: str) -> str:
    axis, _, degrees = group.rpartition("_")
    return f"{OF_TRUTH.get(axis, axis)} ±{degrees}" if axis else OF_TRUTH.get(group, group)


def _aligned(groups: Columns) -> Columns:
    return {name: row["aligned"] for name, row in groups.items() if "aligned" in row}


def rows(table: Named) -> list[str]:
    """The metrics that at least one column has."""
    return [key for key in table.metrics if any(column.get(key) is not None for column in table.columns.values())]


def number(table: Named, key: str, value: float | None) -> str:
    """A metric's value as it is shown."""
    return "-" if value is None else format(value, table.metrics[key][1])


def in_terminal(views: dict[str, Any], width: int) -> list[Table]:
    """Tables for a terminal of ``width`` columns; of a small form the main numbers alone."""
    out = []
    for named in tables(views):
        keys = [key for key in rows(named) if not views["quick"] or named.metrics is not FAULTS or key in SHORT]
        cells = {title: [_terminal_cell(named, key, column) for key in keys] for title, column in named.columns.items()}
        labels = [named.metrics[key][0] for key in keys]
        out += terminal.tables(f"{named.title}: {named.about}", labels, cells, width)
    return out


def _terminal_cell(table: Named, key: str, column: dict[str, Any]) -> terminal.Cell:
    """A number for the terminal, with half of its interval where the table has room for it."""
    text, interval = number(table, key, column.get(key)), column.get("intervals", {}).get(key)
    if table.metrics is not HELD_OUT or interval is None:
        return terminal.Cell(text)
    return terminal.Cell(text, f"±{number(table, key, (interval[1] - interval[0]) / 2)}")


def in_html(views: dict[str, Any]) -> str:
    """The tables for the report, each with what its numbers mean."""
    return "".join(_html(table) for table in tables(views))


def _html(table: Named) -> str:
    head = ("metric", *table.columns, "meaning")
    body = [
        (label, *(_cell(table, key, column) for column in table.columns.values()), meaning)
        for key in rows(table)
        for label, _, meaning in (table.metrics[key],)
    ]
    about = f"{table.about[:1].upper() + table.about[1:]}."
    return f"<h3>{html.escape(table.title)}</h3>\n{page.paragraph(about)}{page.table(table.title, head, body)}"


def _cell(table: Named, key: str, column: dict[str, Any]) -> page.Cell:
    interval = column.get("intervals", {}).get(key)
    small = () if interval is None else (f"{number(table, key, interval[0])} to {number(table, key, interval[1])}",)
    return page.Cell(number(table, key, column.get(key)), small)
