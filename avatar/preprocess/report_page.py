"""The HTML page of the report: frames drawn on, plots over time, tables; everything is in the one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar import page as html_page
from avatar.data.person import PersonFolder
from avatar.data.results import Finding, FlaggedSpan, IngestResult, RefineResult
from avatar.errors import printable
from avatar.io.media import Treatment
from avatar.motion.arkit import INDEX
from avatar.page import Cell
from avatar.preprocess import bundle
from avatar.preprocess.report_findings import Measurements, count_blinks
from avatar.preprocess.stage import StageContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 8
SAMPLE_SIDE = 320  # pixels
TINTS = {
    "hair": (150, 60, 200), "face": (240, 160, 90), "neck": (240, 220, 60), "clothes": (60, 120, 230),
    "mouth": (255, 40, 40), "lips": (255, 90, 160), "eyes": (60, 230, 230),
}  # fmt: skip


def page(ctx: StageContext, data: Measurements, findings: list[Finding], flags: list[FlaggedSpan]) -> str:
    """Make the whole HTML page."""
    sections = {"In words": listed(findings)}
    if done := recording_list(ctx.person.result(IngestResult).recording):
        sections["What was done to the recording"] = done
    said = (
        "Green: landmarks of this frame. Red: the one rigid face in this frame's pose. Lines: the head's axes. "
        "Tints: masks."
    )
    figures = "".join(html_page.image(image, alt, caption) for image, caption, alt in sample_images(ctx, data))
    said_of_plots = "Grey bands are flagged, dotted lines are cuts, the held-out part is shaded blue."
    drawn = "Plots over time: reprojection error, head pose, shake that was removed, lips, eyes, sharpness, loudness"
    sections |= {
        "In numbers": html_page.table("In numbers", ("what", "value"), _facts(ctx, data).items(), sorts=False),
        "Frames": html_page.paragraph(said) + f'<div class="gallery">{figures}</div>\n',
        "Over time": html_page.paragraph(said_of_plots) + html_page.image(plots(data, flags), drawn, plot=True),
        "Spans to look at": spans(flags, data.fps),
    }
    return html_page.page(f"{printable(ctx.person.path.name)}: quality of the video", "", sections)


def listed(findings: Sequence[Finding]) -> str:
    """Findings with a mark each, which is read aloud as a word."""
    said = "".join(
        f'<li class="{f.level}"><span class="hidden">{f.level}: </span>{html.escape(f.text)}</li>\n' for f in findings
    )
    return f'<ul class="findings">{said}</ul>\n'


def recording_list(recording: Sequence[Treatment]) -> str:
    """List what was done to the recording; nothing where nothing was done."""
    return html_page.items(treatment.text for treatment in recording)


def spans(flags: Sequence[FlaggedSpan], fps: float) -> str:
    """The table of spans to look at."""
    if not flags:
        return html_page.paragraph("Nothing stands out.")
    rows = [
        (f"{s.start / fps:.2f}", Cell(f"{s.end / fps:.2f}"), Cell(f"{s.start} to {s.end - 1}"), s.reason) for s in flags
    ]
    return html_page.table("Spans to look at", ("from s", "to s", "frames", "reason"), rows)


def _facts(ctx: StageContext, data: Measurements) -> dict[str, str]:
    """Collect the table of numbers."""
    ingest, refine = ctx.person.result(IngestResult), ctx.person.result(RefineResult)
    return {
        "Video": f"{printable(Path(ingest.source).name)}, {ingest.source_size[0]}x{ingest.source_size[1]}"
        + (", variable frame rate" if ingest.variable_rate else ""),
        "Used": f"{ingest.width}x{ingest.height}, {ingest.fps:.3g} frames/s, {ingest.num_frames} frames, "
        f"{len(data.segments)} segments",
        "Camera": f"focal length {refine.camera.focal:.0f} px, face {refine.distance_cm:.0f} cm away "
        "(a single video shows this only roughly)",
        "Reprojection error": f"{refine.reprojection_px:.2f} px (median over frames of the rigid points' mean)",
        "Pose jitter": f"{refine.jitter_before_deg:.3f} degrees in single frames, "
        f"{refine.jitter_after_deg:.3f} after the joint fit",
        "Blinks": str(count_blinks(data.motion.arkit.numpy())),
    }


def sample_images(ctx: StageContext, data: Measurements) -> list[tuple[str, str, str]]:
    """Draw on frames spread over time and on the extremes; returns data URLs with captions and descriptions."""
    count, valid = len(data.motion), np.flatnonzero(data.valid)
    turn, opening, error = data.turn[valid], data.opening[valid], data.residual[valid]
    wanted = dict.fromkeys(np.linspace(0, count - 1, SAMPLES).astype(int).tolist(), "")
    extremes = {
        "farthest to the left": turn[:, 1].argmin(), "farthest to the right": turn[:, 1].argmax(),
        "widest mouth": opening.argmax(), "largest error": error.argmax(),
    }  # fmt: skip
    wanted |= {int(valid[i]): name for name, i in extremes.items()}
    landmarks = ctx.person.landmarks(ctx.frames, mapped=True)
    shape = ctx.person.shape().astype(np.float64)
    camera = ctx.person.result(RefineResult).camera
    images = []
    for index, name in sorted(wanted.items()):
        image = tint(ctx.person.frame(index), ctx.person, index)
        pose = data.motion[index : index + 1]
        state = bundle.Solution(
            focal=camera.focal, shape=shape, rotation=pose.head_rotation.numpy().astype(np.float64),
            translation=pose.head_translation.numpy().astype(np.float64),
        )  # fmt: skip
        found = bool(data.found[index])  # elsewhere landmarks are only bridged
        points = landmarks[index, :, :2]
        drawn = draw_face(image, points, state, np.array([camera.cx, camera.cy])) if found else reduced(image)
        name = name if found else "no face"
        caption = f"{index / data.fps:.1f} s" + (f", {name}" if name else "")
        alt = f"Frame at {index / data.fps:.1f} s" + (" with landmarks, rigid face and masks" if found else ", no face")
        images.append((data_url(drawn), caption, alt))
    return images


def reduced(image: np.ndarray) -> np.ndarray:
    """Scale an image to a height of `SAMPLE_SIDE` pixels."""
    import cv2

    width = round(SAMPLE_SIDE * image.shape[1] / image.shape[0])
    return cv2.resize(image, (width, SAMPLE_SIDE), interpolation=cv2.INTER_AREA)


def draw_face(image: np.ndarray, landmarks: np.ndarray, state: bundle.Solution, centre: np.ndarray) -> np.ndarray:
    """Draw landmarks green, the posed rigid face red, the head's axes, on an image `SAMPLE_SIDE` pixels high."""
    import cv2

    scale = 2 * SAMPLE_SIDE / image.shape[0]  # drawn at twice the size, so that the dots stay apart
    size = round(scale * image.shape[1]), 2 * SAMPLE_SIDE
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    for points, colour in ((landmarks, (40, 230, 60)), (bundle.project(state, centre)[0], (230, 40, 40))):
        for x, y in points * scale:
            cv2.circle(canvas, (int(x), int(y)), 1, colour, -1, cv2.LINE_AA)
    origin = state.shape[1]  # the tip of the nose
    axes = bundle.Solution(
        focal=state.focal, shape=origin + np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, -5]]),
        rotation=state.rotation, translation=state.translation,
    )  # fmt: skip
    ends = (bundle.project(axes, centre)[0] * scale).astype(int).tolist()
    for end, colour in zip(ends[1:], ((230, 60, 60), (60, 200, 60), (70, 110, 255)), strict=True):
        cv2.line(canvas, ends[0], end, colour, 3, cv2.LINE_AA)
    return reduced(canvas)


def tint(image: np.ndarray, person: PersonFolder, index: int) -> np.ndarray:
    """Colour the masks of an image."""
    height, width = image.shape[:2]
    masks = person.masks(index, (width, height))
    mixed = image.astype(np.float32)
    for name, colour in TINTS.items():
        share = 0.35 * masks[name][..., None]
        mixed = mixed * (1 - share) + share * np.array(colour, np.float32)
    return mixed.astype(np.uint8)


def data_url(image: np.ndarray) -> str:
    """Encode a uint8 RGB image as a JPEG in a data URL."""
    import cv2

    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def plots(data: Measurements, flags: list[FlaggedSpan]) -> str:
    """Plot error, pose, jitter, mouth and eyes, and loudness over time, as a PNG in a data URL."""
    from matplotlib.figure import Figure

    time = np.arange(len(data.motion)) / data.fps
    arkit = data.motion.arkit.numpy()
    off = np.degrees(data.raw_pose[:, :3] - data.motion.head_rotation.numpy())
    panels: list[tuple[str, dict[str, np.ndarray]]] = [
        ("reprojection error, px", {"": data.residual}),
        ("head, degrees from the median", {n: data.turn[:, k] for k, n in enumerate(("pitch", "yaw", "roll"))}),
        ("shake removed, degrees", {n: off[:, k] for k, n in enumerate(("pitch", "yaw", "roll"))}),
        ("lip gap / face height", {"": data.opening}),
        ("eye closed", {"left": arkit[:, INDEX["eyeBlinkLeft"]], "right": arkit[:, INDEX["eyeBlinkRight"]]}),
        ("sharpness of the face", {"": data.sharpness}),
    ]
    if data.loudness is not None:
        panels.append(("loudness, dB", {"": np.maximum(data.loudness, -80)}))
    figure = Figure(figsize=(11, 1.7 * len(panels)), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (title, lines) in zip(all_axes, panels, strict=True):
        for name, values in lines.items():
            axes.plot(time, values, linewidth=0.7, label=name)
        if len(lines) > 1:
            axes.legend(loc="upper right", fontsize=7, ncols=3)
        axes.set_title(title, fontsize=9, loc="left")
        axes.margins(x=0)
        axes.tick_params(labelsize=8)
        for span in flags:
            axes.axvspan(span.start / data.fps, span.end / data.fps, color="0.5", alpha=0.25, linewidth=0)
        for start, _ in data.segments[1:]:
            axes.axvline(start / data.fps, color="0.4", linewidth=0.4, linestyle=":")
        axes.axvspan(data.test_start / data.fps, len(time) / data.fps, color="tab:blue", alpha=0.07, linewidth=0)
    all_axes[-1].set_xlabel("seconds", fontsize=8)
    return figure_url(figure)


def figure_url(figure: Figure) -> str:
    """Encode a matplotlib figure as a PNG in a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
