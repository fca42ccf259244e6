"""Measure what `avatar render` shows of avatars prepared with --frame bust or full: more than the trained part.

`avatar prepare` keeps some frames as rendering shows them. Those that are held out are rendered with the tracked motion
and compared with the real ones: the whole frame, and a band along the edges of the trained part that lie inside of it.
There a body that ends too early or goes on too far, and shoulders baked into the background, are seen first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from avatar import log
from avatar.data.person import PersonFolder
from avatar.data.results import FrameView, IngestResult
from avatar.errors import AvatarError
from avatar.eval import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar

FRAMES = 20  # at most
BAND = 16  # pixels of what rendering shows, to either side of an edge
TITLE = "Whole frame"
SHOWN: dict[str, tuple[str, str]] = {  # label and meaning
    "psnr_whole": ("PSNR, whole frame as rendered (dB)", "Pixel error of all that `avatar render` shows, with what is "
                   "around the trained part. More is better."),
    "psnr_edge": ("PSNR, edge of the trained part (dB)", f"The same within {BAND} pixels of those edges of the trained "
                  "part that lie inside of the frame."),
}  # fmt: skip


def measure(
    avatar: Avatar, data: PersonDataset, first: int, last: int, notes: list[str]
) -> dict[str, Any] | None:  # fmt: skip
    """Compare whole held-out frames with the real ones.

    Args:
        avatar: The avatar.
        data: The person.
        first, last: Held-out frames to take from, [first, last).
        notes: Gets a sentence where nothing could be measured.

    Returns:
        What goes into the JSON; None where rendering shows no more than was trained, or nothing could be measured.
    """
    if data.info.view is None:
        return None
    folder = PersonFolder(data.folder)
    try:
        stored = [index for index in folder.result(IngestResult).whole if first <= index < last]
        if not stored:
            raise AvatarError(f"{data.folder} keeps none of the measured frames as rendering shows them.")
        chosen = sorted({stored[round(k)] for k in np.linspace(0, len(stored) - 1, FRAMES)})
        rows = [_compare(avatar, data, index, folder.whole_frame(index)) for index in log.track(chosen, "whole frames")]
    except AvatarError as error:
        notes.append(f"The whole frame was not measured: {error}")
        return None
    edge = [row["psnr_edge"] for row in rows if "psnr_edge" in row]
    return {
        "drive": "tracked",
        "frames": chosen,
        "width": data.info.view.width,
        "height": data.info.view.height,
        "psnr_whole": round(float(np.mean([row["psnr_whole"] for row in rows])), 4),
        "psnr_edge": round(float(np.mean(edge)), 4) if edge else None,
    }


def _compare(avatar: Avatar, data: PersonDataset, index: int, real: np.ndarray) -> dict[str, float]:
    """Render one frame as `avatar render` does, and compare it with the real one, uint8 RGB [h, w, 3]."""
    import torch

    from avatar.eval.image_metrics import psnr

    view, camera = data.info.view, avatar.view_camera
    assert view is not None
    if real.shape[:2] != (view.height, view.width):
        raise AvatarError(f"Frame {index} of {data.folder} has another size than its person.json says.")
    behind = data.whole_background(index) if data.camera_moves else avatar.view_background(camera)
    background = None if behind is None else torch.from_numpy(behind)
    rendered = avatar.render(camera, data.motion, index, background).cpu().numpy()
    a, b = (image.astype(np.float32) / 255 for image in (rendered, real))
    band = edge_band(view, data.width, data.height)
    return {"psnr_whole": psnr(a, b)} | ({"psnr_edge": psnr(a, b, band)} if band.any() else {})


def edge_band(view: FrameView, width: int, height: int) -> np.ndarray:
    """Mark what is near an edge of the trained part that lies inside of the whole frame.

    Args:
        view: What rendering shows.
        width, height: Size of the trained part.

    Returns:
        bool [h, w] of what rendering shows; all False where every edge is on that of the frame.
    """
    ends = np.array([view.x, view.y, view.x + width * view.scale, view.y + height * view.scale])
    inner = np.array(view.inner_edges(width, height))
    outward = np.array([-1, -1, 1, 1]) * BAND * inner
    y, x = np.mgrid[: view.height, : view.width] + 0.5

    def inside(box: np.ndarray) -> np.ndarray:
        # An edge on that of the frame may lie a fraction of a pixel beside it.
        left, top, right, bottom = np.where(inner, box, [-np.inf, -np.inf, np.inf, np.inf])
        return (x > left) & (y > top) & (x < right) & (y < bottom)

    return inside(ends + outward) & ~inside(ends - outward)


def about(found: dict[str, Any]) -> str:
    """What was compared with what."""
    size = f"{len(found['frames'])} held-out frames at {found['width']}x{found['height']}"
    return f"{size}, rendered as `avatar render` does, tracked motion"


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Label, number and meaning of what was measured."""
    return [
        (label, format(found[key], ".2f"), meaning)
        for key, (label, meaning) in SHOWN.items()
        if found[key] is not None
    ]  # fmt: skip


def in_terminal(found: dict[str, Any] | None, width: int) -> list[Table]:
    """The table for a terminal of ``width`` columns; none where nothing was measured."""
    if found is None:
        return []
    labels, numbers, _ = zip(*rows(found), strict=True)
    cells = {found["drive"]: [terminal.Cell(number) for number in numbers]}
    return terminal.tables(f"{TITLE}: {about(found)}", labels, cells, width)


def in_html(found: dict[str, Any]) -> str:
    """The table for the report, with what its numbers mean."""
    from avatar import page

    text = about(found)
    return page.paragraph(f"{text[:1].upper()}{text[1:]}.") + page.table(
        TITLE, ("metric", found["drive"], "meaning"), rows(found)
    )
