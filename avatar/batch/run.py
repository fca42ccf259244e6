"""Render a batch: all jobs of a table, each avatar loaded once; it goes on where it was stopped."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from avatar import log
from avatar.batch.report import REPORT, Report, Result
from avatar.batch.table import Defaults, find_problems, read_table
from avatar.batch.task import Loading, Task, content_of, mark_of
from avatar.batch.worker import Worker
from avatar.errors import AvatarError
from avatar.writing import one_writer

MOST_PROBLEMS = 50  # that are named


def render_batch(
    table: Path, out: Path, defaults: Defaults, loading: Loading, *, ray: str | None = None, workers: int | None = None
) -> None:
    """Render the jobs of a CSV into a folder.

    A job whose video is there already is not rendered again, unless something that goes into it has changed.

    Args:
        table: The CSV; see `avatar.batch.table`.
        out: Folder of the videos and of their report, jobs.json.
        defaults: What holds where a line does not say otherwise.
        loading: How avatars are loaded.
        ray: Address of a Ray cluster to render on; None: this process does it.
        workers: How many render at once on Ray; None: one per processor.

    Raises:
        AvatarError: A line is wrong, and nothing was rendered; or jobs failed, and the others were.
    """
    tasks, problems = read_table(table, out, defaults)
    problems = sorted([*problems, *find_problems(tasks)], key=_line)
    if problems:
        for problem in problems[:MOST_PROBLEMS]:
            log.item(problem, "x", "red")
        more = "" if len(problems) <= MOST_PROBLEMS else f", of which {MOST_PROBLEMS} are named here"
        raise AvatarError(
            f"{_count(len(problems), 'mistake')} in {table}{more}; nothing was rendered:", why=problems[0],
            fix="Correct the table and run the same command again.",
        )  # fmt: skip
    with one_writer(out):
        content = functools.cache(content_of)
        marks = {task.line: task.mark(loading, content) for task in tasks}
        done = {task.line for task in tasks if mark_of(task.out) == marks[task.line]}
        left = by_run([task for task in tasks if task.line not in done])
        report = Report(out, tasks, marks, done)
        if done:
            log.info(f"{_count(len(done), 'job')} of {len(tasks)} done before.")
        try:
            results = _here(left, marks, loading)
            if ray is not None and left:
                from avatar.batch.on_ray import render_on_ray

                results = render_on_ray(left, marks, loading, ray, workers)
            for task, result in results:
                report.add(task, result)
                if result.error:
                    log.warn(f"{task.name} (line {task.line}) failed: {result.error}")
        except KeyboardInterrupt:
            log.warn("What is done is kept: run the same command again to go on.")
            raise
        finally:
            report.write()
    failed = report.count("failed")
    log.info(f"{report.count('done')} of {len(tasks)} jobs done, {failed} failed: {out / REPORT}")
    if failed:
        raise AvatarError(
            f"{_count(failed, 'job')} of {len(tasks)} failed;", why=f"{out / REPORT} says why.",
            fix="The same command renders only these again.",
        )  # fmt: skip


def by_run(tasks: list[Task]) -> list[Task]:
    """Jobs of the same RUN together, otherwise in their order."""
    first: dict[Path, int] = {}
    for task in tasks:
        first.setdefault(task.run, task.line)
    return sorted(tasks, key=lambda task: (first[task.run], task.line))


def _here(tasks: list[Task], marks: dict[int, str], loading: Loading) -> Iterator[tuple[Task, Result]]:
    worker = Worker(loading)
    for task in tasks:
        yield task, worker.render(task, marks[task.line])


def _line(problem: str) -> int:
    return int(problem.removeprefix("Line ").partition(":")[0])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
