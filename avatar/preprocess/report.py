"""Last stage: what is good and what is bad about this video, in plain words in the terminal and as an HTML page.

The page is one file with everything in it. Nothing here is needed for training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avatar import log
from avatar.data.results import IngestResult, Level, ParseResult, ReportResult, SyncResult
from avatar.preprocess.report_findings import count_blinks, flag_spans, judge, judge_frame, judge_sync, measure
from avatar.preprocess.report_page import page
from avatar.preprocess.stage import StageContext

NAME = "report"
INPUTS = ("ingest", "track", "refine", "parse", "pose", "sync")
VERSION = 6

PAGE = "report.html"
MARKS: dict[Level, tuple[str, str]] = {"good": ("+", "green"), "note": ("o", "yellow"), "bad": ("-", "red")}


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the other stages: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> ReportResult:
    """Write report.html; returns the findings, which :func:`tell` says in the terminal."""
    data = measure(ctx)
    findings = judge(data) + judge_sync(ctx.person.result(SyncResult), data.fps)
    findings += judge_frame(ctx.person.result(ParseResult).leaves)
    flags = flag_spans(data)
    (out / PAGE).write_text(page(ctx, data, findings, flags), encoding="utf-8")
    return ReportResult(findings=findings, flagged=flags, blinks=count_blinks(data.motion.arkit.numpy()))


def tell(ctx: StageContext, kind: str = "video") -> None:
    """Print what was done to the recording, and the findings of a finished report; ``kind`` is what it is of."""
    result, ingest = ctx.person.result(ReportResult), ctx.person.result(IngestResult)
    fps = ingest.fps
    if ingest.recording:
        log.info("\nWhat was done to the recording:")
        for treatment in ingest.recording:
            log.item(treatment.text, "*", "cyan")
    log.info(f"\nThis {kind}:")
    for level, mark in MARKS.items():
        for finding in result.findings:
            if finding.level == level:
                log.item(finding.text, *mark)
    if result.flagged:
        longest = result.flagged[0]
        log.info(
            f"  {len(result.flagged)} span(s) to look at; the longest is {longest.start / fps:.1f} to "
            f"{longest.end / fps:.1f} s: {longest.reason}."
        )
    log.info(f"Images and plots: {ctx.person.stage(NAME) / PAGE}")
