"""Methods side by side: trains each on one prepared person, measures it, and writes a page with numbers and images.

Every step is a command of its own (`avatar train`, `avatar eval --views`) and is kept in OUT, so a comparison that was
interrupted goes on where it was. OUT takes one person and one way of training: for others, another OUT. Where free view
is to be compared with a truth later, it is measured anew. The record names the commits of all trainings and
measurements that it is made of. All methods get the same person, quality, held-out frames, cameras and machine. What
is measured of every frame is also compared with the first method frame by frame, so that a small difference has a
narrow interval.
"""

from __future__ import annotations

from collections.abc import Callable
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
from avatar.eval import lips
from avatar.eval.images import contact_sheet, pick_frames, save_image, side_by_side
from avatar.eval.measure import head_only_name
from avatar.infer.avatar import Avatar
from avatar.methods.registry import method_names
from avatar.motion.face_channels import mouth_opening
from avatar.page import Cell
from avatar.paths import read_json, write_json
from avatar.writing import atomic_file
from pipelines import kept
from pipelines.judging import is_unsaid
from pipelines.kept import command
from pipelines.records import Record, shown

TURNS = (-30.0, -15.0, 0.0, 15.0, 30.0)  # degrees: cameras of the images of free view
FRAMES = 5
FRAME_BY_FRAME = (("metrics", "full_frame"), ("metrics", "head_only"))  # beginnings of rows that frames have numbers of
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
        AvatarError: There is no such method, OUT holds steps of other options, or a command failed.
    """
    unknown = sorted(set(config.methods) - set(method_names()))
    if unknown:
        raise AvatarError(f"There is no method {unknown[0]!r}.", fix=f"Choose from: {', '.join(method_names())}.")
    data = PersonDataset(config.person)
    kept.require(config.out, kept.person(config.person) | how_trained(config))
    results = {method: measured(config, method) for method in config.methods}
    save_image(config.out / "frames.jpg", frames_sheet(config, data))
    save_image(config.out / "views.jpg", views_sheet(config, data))
    table = Table(results)
    record = environment() | how_trained(config) | table.record() | table.made()
    write_json(config.out / "compare.json", record)
    for name, text in (("index.html", page(config, table, record)), ("table.md", markdown(table))):
        with atomic_file(config.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(markdown(table))
    if unknown := table.unknown_cost():
        print(unknown)
    print(f"Open {config.out / 'index.html'}.")


def how_trained(config: Config) -> dict[str, Any]:
    """Options that another training would be needed for."""
    return {name: getattr(config, name) for name in ("quality", "steps", "device")}


def measured(config: Config, method: str) -> dict[str, Any]:
    """Train and measure one method; finished steps are kept.

    Returns:
        ``metrics`` of `avatar eval`, ``training`` of the run, ``trained``, the commits of it, and ``cost``, what it
        took, empty where that is not known.
    """
    run, cost, metrics = (config.out / f"{method}{end}" for end in ("", ".cost.json", ".metrics.json"))
    if not ((run / TRAINING).is_file() and kept.is_done(cost)):
        begun = (run / CONFIG).is_file()
        how = ["--method", method, "--quality", config.quality, "--device", config.device]
        how += [] if config.steps is None else ["--steps", str(config.steps)]
        how += ["--resume"] if begun else []  # which asks for the same options again
        if not begun:
            cost.unlink(missing_ok=True)  # of a run that was removed
        command("train", config.person, "--out", run, *how, cost=cost, resumes=begun)
        kept.forget([metrics])
    own, other = (config.out / f"{name}.frames.csv" for name in (method, config.methods[0]))
    against = [] if own == other else ["--against", other]
    asked = {"truth": None if config.truth is None else str(config.truth.resolve())}
    if not (kept.stands(metrics, asked) and _is_current(metrics, own, other)):
        truth = [] if config.truth is None else ["--truth", config.truth]
        with kept.measuring(metrics, asked):
            command("eval", run, "--views", *truth, "--json", metrics, "--per-frame", own, *against,
                    "--device", config.device)  # fmt: skip
    return {"metrics": read_json(metrics), "training": read_json(run / TRAINING), "trained": kept.trained_at(run),
            "cost": kept.spent(cost) or {}}  # fmt: skip


def _is_current(metrics: Path, own: Path, other: Path) -> bool:
    """Whether a method was measured, and against the numbers per frame that the first method has now."""
    if not (metrics.is_file() and own.is_file()):
        return False
    against = (read_json(metrics).get("against") or {}).get("file")
    return own == other or (against == other.name and metrics.stat().st_mtime_ns >= other.stat().st_mtime_ns)


class Table:
    """Rows that somebody has a number for.

    Args:
        results: By method, what `measured` gives; the others are compared with the first.

    Attributes:
        methods: Their names.
        rows: The rows.
    """

    def __init__(self, results: dict[str, dict[str, Any]]) -> None:
        self.methods, self._results = list(results), results
        self.rows = [row for row in ROWS if any(self._measured(method, row) is not None for method in results)]

    def value(self, method: str, row: Row) -> float | None:
        """The number in a row; None where it was not measured, or too little speech was."""
        return None if self.is_short(method, row) else self._measured(method, row)

    def is_short(self, method: str, row: Row) -> bool:
        """Whether it is one of lips, measured on so little speech that it says nothing."""
        if row.path[:2] not in FRAME_BY_FRAME or self._measured(method, row) is None:
            return False
        return is_unsaid(self._results[method]["metrics"], *row.path[2:])

    def interval(self, method: str, row: Row) -> list[float] | None:
        """Its 95 % interval."""
        at = (*row.path[:-1], "intervals", row.path[-1])
        return None if self.is_short(method, row) else self._bounds(method, at, row.factor)

    def difference(self, method: str, row: Row) -> tuple[float, list[float] | None] | None:
        """This method minus the first, on the same frames, and its interval; None where frames have no number."""
        against = self._found(method, ("metrics", "against", "file"))
        other = against != f"{self.methods[0]}.frames.csv"
        if row.path[:2] not in FRAME_BY_FRAME or other or self.is_short(method, row):
            return None
        _, table, drive, name = row.path
        at = ("metrics", "against", "videos", head_only_name(drive) if table == "head_only" else drive)
        value = self._number(method, (*at, name), row.factor)
        return None if value is None else (value, self._bounds(method, (*at, "intervals", name), row.factor))

    def record(self) -> dict[str, Any]:
        """Everything, as it is written to JSON: by method and the label of the row."""
        differences = {
            method: {row.label: dict(zip(("value", "interval"), pair)) for row in self.rows
                     if (pair := self.difference(method, row)) is not None}
            for method in self.methods[1:]
        }  # fmt: skip
        short = {method: [row.label for row in self.rows if self.is_short(method, row)] for method in self.methods}
        return {
            "methods": self._by_label(self.value),
            "intervals": self._by_label(self.interval),
            f"minus {self.methods[0]}": differences,
            lips.TOO_SHORT: short,
        }

    def made(self) -> dict[str, Any]:
        """When and from which commits all of it was trained and measured, by method, as records keep it."""
        return {
            "training": {method: found["trained"] for method, found in self._results.items()},
            "measured": {method: kept.measured_at(found["metrics"]) for method, found in self._results.items()},
        }

    def unknown_cost(self) -> str:
        """A sentence about trainings of which nobody knows what they took; empty where there is none."""
        unknown = " and ".join(method for method, found in self._results.items() if not found["cost"])
        why = "a part of it was killed together with this comparison"
        return f"What the training of {unknown} took is not known: {why}." if unknown else ""

    def _by_label(self, look: Callable[[str, Row], Any]) -> dict[str, dict[str, Any]]:
        return {
            method: {row.label: found for row in self.rows if (found := look(method, row)) is not None}
            for method in self.methods
        }

    def _measured(self, method: str, row: Row) -> float | None:
        return self._number(method, row.path, row.factor)

    def _number(self, method: str, path: tuple[str, ...], factor: float) -> float | None:
        found = self._found(method, path)
        return None if found is None else float(found) * factor

    def _bounds(self, method: str, path: tuple[str, ...], factor: float) -> list[float] | None:
        found = self._found(method, path)
        return None if found is None else [float(bound) * factor for bound in found]

    def _found(self, method: str, path: tuple[str, ...]) -> Any:
        found: Any = self._results[method]
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found


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


def cells(table: Table, row: Row) -> list[tuple[str, str]]:
    """Number and interval of each method as text, then the difference of each but the first from the first."""

    def words(value: float | None, interval: list[float] | None, none: str, sign: str = "") -> tuple[str, str]:
        spec = sign + row.spec
        number = none if value is None else format(value, spec)
        return number, "" if interval is None else " to ".join(format(bound, spec) for bound in interval)

    none = {method: lips.TOO_SHORT if table.is_short(method, row) else "-" for method in table.methods}
    shown = [words(table.value(method, row), table.interval(method, row), none[method]) for method in table.methods]
    differences = {method: table.difference(method, row) or (None, None) for method in table.methods[1:]}
    return shown + [words(*difference, none[method], "+") for method, difference in differences.items()]


def heads(table: Table) -> list[str]:
    """Titles of the columns of `cells`."""
    return [*table.methods, *(f"{method} minus {table.methods[0]}" for method in table.methods[1:])]


def markdown(table: Table) -> str:
    """The numbers as a Markdown table, with 95 % intervals."""
    columns = heads(table)
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in table.rows:
        words = (f"{number} ({interval})" if interval else number for number, interval in cells(table, row))
        lines.append(f"| {row.label} | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def page(config: Config, table: Table, record: dict[str, Any]) -> str:
    """The page: numbers, frames with mouths, free view."""
    head = ("metric", *heads(table), "better")
    body = [
        (row.label, *(Cell(number, (interval,) if interval else ()) for number, interval in cells(table, row)),
         BETTER[row.more])
        for row in table.rows
    ]  # fmt: skip
    where, made = record["hardware"], Record(path=config.out / "compare.json", content=record)
    trained, measured = (shown(commits).replace("`", "") for commits in (made.trained, made.measured))
    lead = html_page.paragraph(
        f"Quality {config.quality}, the same person, held-out frames, cameras and machine. Trained at commit "
        f"{trained}, measured and drawn at {measured}, {record['date']}, {where['cpu']}, "
        f"{where['cores']} cores. "
        '"Tracked lips" is an upper bound; papers\' numbers are "head-only, lips from audio". Small print: 95 % '
        "intervals, over other seconds of the same video. Those of the differences are of the same frames."
        + f" {table.unknown_cost()}".rstrip()
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
