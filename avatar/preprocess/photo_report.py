"""Stage `report` of a photo: what is good and bad about it, and what its avatar invents."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np

from avatar.data.photo import INVENTED, NOD, TURN
from avatar.data.results import Finding, IngestResult, ParseResult, ReportResult
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import opening_change
from avatar.preprocess.photo_refine import APART
from avatar.preprocess.report import PAGE
from avatar.preprocess.stage import StageContext

NAME = "report"
INPUTS = ("ingest", "track", "refine", "parse", "background")
VERSION = 1
SHUT = 0.5  # eyeBlink from which the eyes count as closed
TURNED = 12.0  # degrees from which the far side of the face is worth a word
SHARP = 6.0  # spread of the Laplacian over a face below which it is blurred


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the other stages: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> ReportResult:
    """Write report.html; returns the findings."""
    findings = judge(ctx)
    (out / PAGE).write_text(page(ctx, findings), encoding="utf-8")
    return ReportResult(findings=findings, flagged=[], blinks=0)


def judge(ctx: StageContext) -> list[Finding]:
    """Say what is worth saying about the photo, and what is invented."""
    person = ctx.person
    height = float(np.ptp(person.landmarks(1)[0, :, 1]))
    found = [
        Finding(level="good" if height >= 190 else "note", text=f"The face is {height:.0f} pixels high as stored."),
    ]
    motion = person.tracked_motion()
    turned = abs(float(motion.head_rotation[0, 1].rad2deg()))
    if turned > TURNED:
        found.append(
            Finding(level="note", text=f"The head is turned by {turned:.0f} degrees: its far side is mirrored.")
        )
    if float(motion.arkit[0, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]].mean()) > SHUT:
        found.append(Finding(level="bad", text="The eyes are closed, so that they cannot be shown open."))
    if float(opening_change(motion.face)[0]) > APART:
        found.append(Finding(level="note", text="The lips are apart; a photo with closed lips makes a better mouth."))
    if person.sharpness(1)[0] < SHARP:
        found.append(Finding(level="note", text="The photo is blurred."))
    if person.result(ParseResult).covered:
        found.append(
            Finding(level="bad", text="Something is before the mouth or the chin, and will move with the face.")
        )
    found += [Finding(level="note", text=text) for text in INVENTED]
    limits = f"The head turns by up to {TURN:.0f} degrees to the side and {NOD:.0f} up and down; more is not shown."
    return [*found, Finding(level="note", text=limits)]


def page(ctx: StageContext, findings: list[Finding]) -> str:
    """Make the whole HTML page."""
    listed = "".join(f'<li class="{f.level}">{html.escape(f.text)}</li>' for f in findings)
    image = base64.b64encode(ctx.person.frame_path(0).read_bytes()).decode()
    name, width = html.escape(ctx.person.path.name), ctx.person.result(IngestResult).width
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: quality of the photo</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 900px; padding: 0 1em }}
.bad {{ color: #b3261e }} .good {{ color: #197a33 }}
</style></head><body>
<h1>{name}: made from one photo</h1>
<ul>{listed}</ul>
<img src="data:image/jpeg;base64,{image}" width="{width}" alt="the photo as stored">
</body></html>
"""
