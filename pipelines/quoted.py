"""Numbers that pages quote from records: what each should say.

A record that is renewed leaves the sentences that quote it behind. Here each such sentence is written once more, with a
place for its numbers, and the record that they come from. A test names the pages that say something else.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avatar.paths import read_json

BETWEEN = "|"  # keys of a record


@dataclass(frozen=True)
class Quote:
    """A piece of text in a page, with numbers of a record.

    Attributes:
        page: The page, from the top of the project.
        text: The piece, with a format field for each number. Line breaks of the page count as spaces.
        record: The record, from the top of the project.
        keys: Where each number is in it, keys with `BETWEEN` between them. An interval fills two fields. A number
            after ``*`` at the end is a factor into the unit of the page.
    """

    page: str
    text: str
    record: str
    keys: tuple[str, ...]

    def filled(self, root: Path) -> str:
        """The piece as the record has it."""
        numbers: list[float] = []
        for key in self.keys:
            key, _, factor = key.partition("*")
            found = _found(root / self.record, key)
            numbers += [x * float(factor or 1) for x in (found if isinstance(found, list) else [found])]
        return self.text.format(*numbers)


def wrong(quotes: list[Quote], root: Path) -> list[str]:
    """A line for each quote that its page does not have."""
    return [
        f"{quote.page} should say {text!r}, of {quote.record}"
        for quote in quotes
        if (text := quote.filled(root)) not in _page(root / quote.page)
    ]


@functools.cache
def _page(path: Path) -> str:
    return re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))


@functools.cache
def _record(path: Path) -> Any:
    return read_json(path)


def _found(path: Path, key: str) -> Any:
    found = _record(path)
    for name in key.split(BETWEEN):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def _of(page: str, record: str, *quotes: tuple[str, tuple[str, ...]]) -> list[Quote]:
    return [Quote(page, text, record, keys) for text, keys in quotes]


def _with_interval(at: str, metric: str) -> tuple[str, ...]:
    return f"{at}|{metric}", f"{at}|intervals|{metric}"


def _both(label: str) -> tuple[str, ...]:
    return tuple(f"methods|{method}|{label}" for method in ("gaussian", "nerf"))


def _row(label: str) -> tuple[str, ...]:
    """Of the field, of the Gaussians, and the difference with its interval."""
    difference = f"minus gaussian|nerf|{label}"
    return (*_both(label)[::-1], f"{difference}|value", f"{difference}|interval")


ANCHOR = "benchmarks/epyc-2core/anchor_en_71s-standard.json"
ADDRESS = "benchmarks/epyc-2core/address_en_47s-standard.json"
GRID = "benchmarks/epyc-2core/grid_s1_270s-standard.json"
RENDER = "benchmarks/epyc-2core/anchor_en_71s-standard-render.json"
LIVE = "benchmarks/epyc-2core/live-512-timing.json"
WEB = "benchmarks/epyc-2core/web-21.json"
COMPARED = "benchmarks/xeon-2core/compare-anchor_en_71s-256-draft.json"
SECONDS = "benchmarks/xeon-2core/few-seconds-anchor_en_71s.json"
KERNELS = "docs/benchmarks/amd-epyc-2core.json"
AUDIO, TRACKED = "full_frame|audio", "full_frame|tracked"

QUOTES = [
    *_of(
        "README.md", ANCHOR,
        ("{:.1f} dB PSNR and LPIPS {:.3f}", ("head_only|audio|psnr", "head_only|audio|lpips")),
        ("correlation of {:.2f}", (f"{AUDIO}|mouth_correlation",)),
        ("{:.1f} MB for the model", ("model|bytes*1e-6",)),
    ),
    *_of("README.md", GRID, ("and {:.2f} on a speaker", (f"{AUDIO}|mouth_correlation",))),
    *_of("README.md", RENDER, ("{:.1f} frames/s at 512x512", ("frames_per_second",))),
    *_of(
        "README.md", LIVE,
        ("{:.0f} ms from a piece of audio", ("steps|talk-webrtc|latency_ms|p50",)),
        ("{:.0f} ms at the 95th", ("steps|talk-webrtc|latency_ms|p95",)),
    ),
    *_of(
        "docs/concepts/kernels.md", KERNELS, ("| one whole training step | {:.0f} ms |", ("model|2|step_ms",)),
    ),
    *_of("README.md", WEB, ("{:.1f} MB with a clip", ("folders|full|bytes*1e-6",))),
    *_of(
        "docs/questions.md", ANCHOR,
        ("**{:.2f}** times the jitter of the real video ({:.2f} to {:.2f})",
         _with_interval(AUDIO, "pose_jitter_ratio")),
        ("**{:.2f}** ({:.2f} to {:.2f}) is the sharpness", _with_interval(AUDIO, "mouth_sharpness")),
        ("**{:.2f}** ({:.2f} to {:.2f}) is the flicker", _with_interval(AUDIO, "seam_temporal")),
    ),
    *_of(
        "docs/questions.md", ADDRESS,
        ("has less: {:.2f} ({:.2f} to {:.2f})", _with_interval(AUDIO, "mouth_sharpness")),
    ),
    *_of(
        "docs/concepts/methods.md", COMPARED,
        ("speech included | {:.1f} | {:.1f} |", _both("training, speech included, minutes of processor time")),
        ("pixels of 512 | {:.2f} | {:.2f} |", _both("tracked lips: LMD, pixels of 512")),
        ("PSNR; LPIPS | {:.1f} dB; {:.4f} | {:.1f} dB; {:.4f} |",
         tuple(f"methods|{m}|tracked lips: {what}" for m in ("gaussian", "nerf") for what in ("PSNR, dB", "LPIPS"))),
    ),
    *_of(
        "docs/nerf.md", COMPARED,
        ("PSNR of the frame, dB | {:.1f} | {:.1f} | {:+.2f} ({:.2f} to {:.2f}) |", _row("tracked lips: PSNR, dB")),
        ("PSNR of the face, dB | {:.1f} | {:.1f} | {:+.2f} ({:.2f} to {:.2f}) |",
         _row("tracked lips: PSNR of the face, dB")),
        ("| LPIPS | {:.4f} | {:.4f} | {:+.4f} ({:.4f} to {:.4f}) |", _row("tracked lips: LPIPS")),
        ("pixels of 512 | {:.2f} | {:.2f} | {:+.2f} ({:.2f} to {:.2f}) |", _row("tracked lips: LMD, pixels of 512")),
        ("share of the real one | {:.2f} | {:.2f} | {:+.2f} ({:.2f} to {:.2f}) |",
         _row("tracked lips: mouth sharpness, share of the real one")),
        ("mouth correlation | {:.3f} | {:.3f} | {:+.3f} ({:.3f} to {:.3f}) |",
         _row("lips from audio: mouth correlation")),
        ("| model, MB | {:.1f} | {:.1f} |", _both("model, MB")[::-1]),
    ),
    *_of(
        "docs/create.md", SECONDS,
        ("| face alone, dB | {:.1f} | {:.1f} | {:.1f} |",
         tuple(f"seconds|{n}|head_only, tracked|psnr_face" for n in (5, 10, 20))),
        ("| whole frame, dB | {:.1f} | {:.1f} | {:.1f} |",
         tuple(f"seconds|{n}|full_frame, tracked|psnr" for n in (5, 10, 20))),
    ),
]  # fmt: skip
