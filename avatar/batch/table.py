"""The table of a batch: a CSV with one job a line."""

from __future__ import annotations

import csv
import functools
import io
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from avatar.batch.task import Task, audio_problem, run_problem, voice_problem
from avatar.checks import read_text
from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.speaking import Speaking

SEPARATOR = ";"  # between several values in a cell
SPEAKING = ("audio", "text", "voice", "language")
REPEATED = ("emotion", "pose", "pose_scale", "lip_scale", "gaze", "blink")
CONTROLS = (*REPEATED, "speech", "seed", "idle", "timeline")
COLUMNS = ("run", "out", *SPEAKING, "camera", "size", *CONTROLS)
_PATHS = ("run", "audio", "timeline")
_FIX = f"Known are {', '.join(name.replace('_', '-') for name in COLUMNS)}; commas separate cells."


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for the jobs whose line does not say otherwise; see `Task`."""

    run: Path | None = None
    speaking: Speaking = field(default_factory=Speaking)
    controls: Controls = field(default_factory=Controls)
    camera: str | None = None
    size: int | None = None
    frames: int | None = None


def read_table(path: Path, folder: Path, defaults: Defaults) -> tuple[list[Task], list[str]]:
    """Read the jobs of a CSV.

    Args:
        path: The CSV. Its first line names the columns.
        folder: Where the videos go.
        defaults: What holds where a line does not say otherwise.

    Returns:
        The jobs, and what is wrong with the lines that are none: a sentence each.

    Raises:
        AvatarError: It cannot be read, holds no jobs, or has an unknown column or none for the video.
    """
    tasks: list[Task] = []
    problems: list[str] = []
    for line, cells in _rows(path):
        try:
            tasks.append(_task(line, cells, folder, defaults))
        except AvatarError as error:
            problems.append(f"Line {line}: {error}")
    if not tasks and not problems:
        raise AvatarError(f"{path} holds no jobs.", fix="Write one a line below the names of the columns.")
    return tasks, problems


def find_problems(tasks: list[Task]) -> list[str]:
    """Say what is wrong with jobs, a sentence each: files that are missing or cannot be read, names used twice."""
    found: list[tuple[int, str]] = []
    first: dict[str, int] = {}
    readers = _readers(tasks)
    of_run, of_audio, of_voice = map(functools.cache, (run_problem, audio_problem, voice_problem))
    for task in tasks:
        said = task.speaking
        wrong = [of_run(task.run)]
        try:
            task.check()
        except AvatarError as error:
            wrong.append(str(error))
        else:
            wrong.append("" if said.audio is None else of_audio(said.audio, said.audio_track))
            wrong.append("" if said.text is None else of_voice(said.tts, said.voice, said.language))
        wrong = [*filter(None, wrong)] or [_replaced(task, readers)]
        found += [(task.line, sentence) for sentence in wrong if sentence]
        earlier = first.setdefault(os.path.realpath(task.out).casefold(), task.line)
        if earlier != task.line:
            found.append((task.line, f'The video "{task.name}" is that of line {earlier} as well.'))
    return [f"Line {line}: {sentence}" for line, sentence in found]


def _readers(tasks: list[Task]) -> dict[str, int]:
    """Every file that a job reads, and the first line that names it."""
    found: dict[str, int] = {}
    for task in tasks:
        with suppress(AvatarError):  # what is wrong with a control is said of its line
            for path in task.inputs():
                found.setdefault(os.path.realpath(path), task.line)
    return found


def _replaced(task: Task, readers: dict[str, int]) -> str:
    """Say which file that is read a job would replace; empty where it is none."""
    for path in task.outputs():
        if (line := readers.get(os.path.realpath(path))) is not None:
            return f"{path} would replace a file that {'this line' if line == task.line else f'line {line}'} reads."
    return ""


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Cells that are not empty of each line, by the names of their columns."""
    text = read_text(path, "a table of jobs", fix := "Give a CSV in UTF-8.")
    if "\0" in text:  # of UTF-16 without its mark, say; no name of a file may hold it
        raise AvatarError(f"{path} is no table of jobs: it holds zero bytes.", fix=fix)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [name.strip().lower().replace("-", "_") for name in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if len(cells) > len(header) and any(values[len(header) :]):
                raise AvatarError(
                    f"{path}, line {reader.line_num}: there are {len(cells)} cells for {len(header)} columns.",
                    fix='Put a cell that holds commas into quotes: "-5,10".',
                )
            if any(values):
                rows.append((reader.line_num, {name: value for name, value in zip(header, values) if value}))
    except csv.Error as error:
        raise AvatarError(f"{path}, line {reader.line_num} is not understood:", why=f"{error}.") from None
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    where = f"{path}, line 1:"
    if unknown := [name for name in header if name not in COLUMNS]:
        raise AvatarError(f'{where} there is no column "{unknown[0]}".', fix=_FIX)
    if twice := [name for name in header if header.count(name) > 1]:
        raise AvatarError(f'{where} the column "{twice[0]}" is there twice.')
    if "out" not in header:
        raise AvatarError(f'{where} the column "out" is missing.', fix="It names the video of each job, such as a.mp4.")


def _task(line: int, cells: dict[str, str], folder: Path, defaults: Defaults) -> Task:
    values: dict[str, Any] = {name: Path(text) if name in _PATHS else text for name, text in cells.items()}
    run = values.get("run", defaults.run)
    if run is None:
        raise AvatarError("The cell of run is empty.", fix="Name a RUN folder, or give one before --batch.")
    if "audio" in values and "text" in values:
        raise AvatarError("There is both an audio and a text.", fix="Leave one of them empty.")
    for name in ("size", "seed"):
        if name in values:
            values[name] = _number(name, cells[name], int)
    if "idle" in values:
        values["idle"] = _number("idle", cells["idle"], float)
    for name in REPEATED:
        if name in values:
            values[name] = tuple(part.strip() for part in cells[name].split(SEPARATOR) if part.strip())
    spoken = {name: values[name] for name in SPEAKING if name in values}
    if "audio" in spoken or "text" in spoken:
        spoken = {"audio": None, "text": None} | spoken
    return Task(
        line=line, name=cells.get("out", ""), run=run, out=folder / _name(cells.get("out", "")),
        speaking=replace(defaults.speaking, **spoken),
        controls=replace(defaults.controls, **{name: values[name] for name in CONTROLS if name in values}),
        camera=values.get("camera", defaults.camera), size=values.get("size", defaults.size), frames=defaults.frames,
    )  # fmt: skip


def _name(text: str) -> PurePosixPath:
    """The name of a video below the folder of all videos."""
    if not text:
        raise AvatarError("The cell of out is empty.", fix="Name the video, such as a.mp4.")
    name = PurePosixPath(text)
    if name.is_absolute() or ".." in name.parts or "\\" in text or "\0" in text or not name.name:
        raise AvatarError(f'The video "{text}" is no name below --out.', fix="Name it like a.mp4 or person/a.mp4.")
    if name.suffix.lower() != ".mp4":
        raise AvatarError(f'The video "{text}" does not end in .mp4.')
    return name


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(text)
        if abs(value) < 2**53:
            return value
    except ValueError:
        pass
    raise AvatarError(f'The {name} "{text}" is no {"whole " if kind is int else ""}number.')
