"""Methods side by side: trains each on one prepared person, measures it, and writes a page with numbers and images.

Every step is a command of its own (`avatar train`, `avatar eval --views`) and is kept in OUT, so a comparison that was
interrupted goes on where it was. All methods get the same person, quality, held-out frames, cameras and machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar import page as html_page
from avatar.data import PersonDataset
from avatar.data.run import CONFIG, TRAINING
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.eval.images import contact_sheet, pick_frames, save_image, side_by_side
from avatar.infer.avatar import Avatar
from avatar.methods.registry import method_names
from avatar.motion.face_channels import mouth_opening
from avatar.page import Cell
from avatar.paths import read_json, write_json
from avatar.writing import atomic_file

TURNS = (-30.0, -15.0, 0.0, 15.0, 30.0)  # degrees: cameras of the images of free view
FRAMES = 5
BETTER = {True: "more", False: "less", None: "neither"}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: What it is, with its unit.
        path: Keys into a method's results.
        spec: Number format.
        more: Whether more is better; None where neither is.
        factor: Into the unit of the label.
    """

    label: str
    path: tuple[str, ...]
    spec: str = ".2f"
    more: bool | None = True
    factor: float = 1.0


def _quality(table: str, drive: str, name: str) -> list[Row]:
    at = ("metrics", table, drive)
    return [
        Row(f"{name}: PSNR, dB", (*at, "psnr")),
        Row(f"{name}: PSNR of the face, dB", (*at, "psnr_face")),
        Row(f"{name}: LPIPS", (*at, "lpips"), ".4f", False),
        Row(f"{name}: LMD, pixels of 512", (*at, "lmd"), ".2f", False),
        Row(f"{name}: mouth correlation", (*at, "mouth_correlation"), ".3f"),
        Row(f"{name}: mouth sharpness, share of the real one", (*at, "mouth_sharpness"), ".2f", None),
    ]


def _view(degrees: int) -> list[Row]:
    at, exact = ("metrics", "views", "groups", f"azimuth_{degrees}"), ("metrics", "views", "truth", "groups")
    return [
        Row(f"{degrees} degrees aside: PSNR against the truth, dB", (*exact, f"yaw_{degrees}", "psnr")),
        Row(f"{degrees} degrees aside: LPIPS against the truth", (*exact, f"yaw_{degrees}", "lpips"), ".4f", False),
        Row(f"{degrees} degrees aside: holes, % of the silhouette", (*at, "holes"), ".2f", False, 100),
        Row(f"{degrees} degrees aside: colours out of place, %", (*at, "color_outliers"), ".2f", False, 100),
        Row(f"{degrees} degrees aside: speckled face, %", (*at, "speckles"), ".2f", False, 100),
    ]


ROWS = [
    *_quality("full_frame", "tracked", "tracked lips"),
    *_quality("full_frame", "audio", "lips from audio"),
    *_quality("head_only", "audio", "head-only, lips from audio"),
    *_view(15),
    *_view(30),
    Row("training, minutes on the clock", ("training", "seconds"), ".1f", False, 1 / 60),
    Row("training, speech included, minutes of processor time", ("cost", "cpu_seconds"), ".1f", False, 1 / 60),
    Row("training, peak memory, MB", ("cost", "peak_memory_bytes"), ".0f", False, 1e-6),
    Row("rendering, frames/s", ("metrics", "speed", "render_fps"), ".1f"),
    Row("rendering with speech and encoding, frames/s", ("metrics", "speed", "end_to_end_fps"), ".1f"),
    Row("model, MB", ("metrics", "model", "bytes"), ".1f", False, 1e-6),
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare."""

    person: Annotated[Path, tyro.conf.Positional]
    """PERSON folder of `avatar prepare`."""
    out: Path
    """Folder for the runs, numbers, images and the page."""
    quality: str = "draft"
    """Preset, the same for all."""
    steps: int | None = None
    """Training steps of each, instead of the preset's."""
    methods: tuple[str, ...] = tuple(method_names())
    """Which."""
    truth: Path | None = None
    """Folder of `avatar synth` that the person was prepared from: compares free view with the exact truth."""
    device: str = "auto"
    """Where to train and render."""


def main(config: Config) -> None:
    """Train and measure what is missing, then write the page.

    Raises:
        AvatarError: There is no such method, or a command failed.
    """
    unknown = sorted(set(config.methods) - set(method_names()))
    if unknown:
        raise AvatarError(f"There is no method {unknown[0]!r}.", fix=f"Choose from: {', '.join(method_names())}.")
    data = PersonDataset(config.person)
    results = {method: measured(config, method) for method in config.methods}
    save_image(config.out / "frames.jpg", frames_sheet(config, data))
    save_image(config.out / "views.jpg", views_sheet(config, data))
    write_json(config.out / "compare.json", environment() | {"quality": config.quality, "methods": results})
    for name, text in (("index.html", page(config, results)), ("table.md", markdown(results))):
        with atomic_file(config.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(markdown(results))
    print(f"Open {config.out / 'index.html'}.")


def measured(config: Config, method: str) -> dict[str, Any]:
    """Train and measure one method; finished steps are kept."""
    run, cost, metrics = (config.out / f"{method}{end}" for end in ("", ".cost.json", ".metrics.json"))
    if not (run / TRAINING).is_file() or not cost.is_file():
        how = ["--method", method, "--quality", config.quality, "--device", config.device]
        how += [] if config.steps is None else ["--steps", str(config.steps)]
        how += ["--resume"] if (run / CONFIG).is_file() else []  # which asks for the same options again
        used = command("train", config.person, "--out", run, *how)
        before = read_json(cost) if cost.is_file() else {}
        write_json(cost, used | {"cpu_seconds": used["cpu_seconds"] + before.get("cpu_seconds", 0.0)})
    if not metrics.is_file():
        truth = [] if config.truth is None else ["--truth", config.truth]
        command("eval", run, "--views", *truth, "--json", metrics, "--device", config.device)
    found = {"metrics": read_json(metrics), "training": read_json(run / TRAINING), "cost": read_json(cost)}
    return {row.label: value for row in ROWS if (value := read(found, row)) is not None}


def command(*arguments: Any) -> dict[str, float]:
    """Run a command of `avatar` in a process of its own.

    Returns:
        Its seconds on the clock and of processor time, and its peak memory.

    Raises:
        AvatarError: It failed.
    """
    words = [str(argument) for argument in arguments]
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "avatar.cli.main", *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise AvatarError(f"avatar {words[0]} failed.", why="Its message is above.", fix="Mend it, and run this again.")
    return {
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


def read(found: Any, row: Row) -> float | None:
    """The value of a row in a method's results; None where it was not measured."""
    for key in row.path:
        found = found.get(key) if isinstance(found, dict) else None
    return None if found is None else float(found) * row.factor


def frames_sheet(config: Config, data: PersonDataset) -> np.ndarray:
    """Held-out frames with open and closed mouths, real above each method, and the mouths magnified; uint8 RGB."""
    points = np.asarray(data.landmarks[data.test_frames])
    frames = [int(data.test_frames[i]) for i in pick_frames(mouth_opening(points), FRAMES)]
    columns = [{"real": data.image(frame)} for frame in frames]
    for method in config.methods:
        avatar, motion = trained(config, method)
        for column, frame in zip(columns, frames, strict=True):
            behind = torch.from_numpy(data.background(frame)) if data.camera_moves else None
            column[method] = avatar.render(avatar.camera, motion, frame, background=behind).cpu().numpy()
    titles = [f"{frame / data.fps:.1f} s" for frame in frames]
    return contact_sheet(columns, [np.asarray(data.landmarks[frame]) for frame in frames], titles)


def views_sheet(config: Config, data: PersonDataset) -> np.ndarray:
    """One held-out frame from `TURNS`, a row per method; uint8 RGB."""
    frame = int(data.test_frames[len(data.test_frames) // 2])
    rows = []
    for method in config.methods:
        avatar, motion = trained(config, method)
        cameras = {f"{method} {turn:+g}": avatar.view(turn, beyond=True) for turn in TURNS}
        rows.append(side_by_side({n: avatar.render(c, motion, frame).cpu().numpy() for n, c in cameras.items()}))
    return np.concatenate(rows, axis=0)


def trained(config: Config, method: str) -> tuple[Avatar, Any]:
    """The avatar of a method, and the motion of the person with the head poses that its training corrected."""
    avatar = Avatar.load(config.out / method)
    return avatar, PersonDataset(config.person, avatar.run / "tracking.safetensors").motion


def cells(results: dict[str, dict[str, Any]]) -> list[tuple[Row, list[str]]]:
    """Rows that somebody has a value for, with the values as text."""
    table = [(row, [values.get(row.label) for values in results.values()]) for row in ROWS]
    known = [(row, values) for row, values in table if any(value is not None for value in values)]
    return [(row, ["-" if value is None else format(value, row.spec) for value in values]) for row, values in known]


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The numbers as a Markdown table."""
    lines = [f"| | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    lines += [f"| {row.label} | {' | '.join(values)} |" for row, values in cells(results)]
    return "\n".join(lines) + "\n"


def page(config: Config, results: dict[str, dict[str, Any]]) -> str:
    """The page: numbers, frames with mouths, free view."""
    head = ("metric", *results, "better")
    body = [(row.label, *map(Cell, values), BETTER[row.more]) for row, values in cells(results)]
    where = environment()
    lead = html_page.paragraph(
        f"Quality {config.quality}, the same person, held-out frames, cameras and machine. {where['date']}, commit "
        f"{str(where['commit'])[:10]}, {where['hardware']['cpu']}, {where['hardware']['cores']} cores. "
        '"Tracked lips" is an upper bound; papers\' numbers are "head-only, lips from audio".'
    )
    sections = {
        "Numbers": html_page.table("Methods side by side", head, body),
        "Held-out frames and mouths": html_page.image(
            "frames.jpg", "Real frames above those of each method, then mouths enlarged"
        ),
        "From the side": html_page.image("views.jpg", "A row per method, turned from -30 to 30 degrees"),
    }
    return html_page.page(f"Methods side by side: {config.person.name}", lead, sections)


if __name__ == "__main__":
    main(tyro.cli(Config))
