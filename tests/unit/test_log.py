"""Messages go through Python's logging; long work says how far it is where the output is no terminal."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from avatar import log


@pytest.fixture(autouse=True)
def terminal():
    """Nothing: here the package is a library, until a test says otherwise."""


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="avatar")
    return lambda: [record.getMessage() for record in caplog.records]


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_as_a_library_it_is_an_ordinary_logger(lines, caplog, capfd):
    log.info("heard [bold]a[/bold] file\x1b")
    log.warn("seen")
    log.next_command("avatar view")
    assert lines() == ["heard [bold]a[/bold] file\\x1b", "seen", "Next: avatar view"]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert caplog.records[0].funcName == "test_as_a_library_it_is_an_ordinary_logger"
    assert [type(handler) for handler in logging.getLogger("avatar").handlers] == [logging.NullHandler]
    caplog.clear()
    caplog.set_level(logging.ERROR, logger="avatar")
    log.warn("seen")
    assert not lines() and capfd.readouterr().err == ""


def test_a_message_is_named_after_its_module(caplog):
    from avatar import paths

    caplog.set_level(logging.INFO, logger="avatar")
    exec("from avatar import log; log.info('here')", vars(paths))
    assert caplog.records[0].name == "avatar.paths"


def test_the_command_line_prints_and_leaves_no_trace(capfd):
    with log.on_terminal():
        log.info("heard [bold]a[/bold] file")
        log.warn("seen")
        log.item("of a list", "*", "green")
        with log.on_terminal(), log.part_of("create"):
            log.next_command("avatar view")
        log.next_command("avatar render")
    assert capfd.readouterr().err.splitlines() == [
        "heard [bold]a[/bold] file", "warning: seen", "  * of a list", "", "Next: avatar render"
    ]  # fmt: skip
    log.info("not heard")
    assert capfd.readouterr().err == ""
    assert logging.getLogger("avatar").level == logging.NOTSET


def test_a_level_that_was_set_is_kept(capfd):
    logger = logging.getLogger("avatar")
    logger.setLevel(logging.ERROR)
    try:
        with log.on_terminal():
            log.warn("seen")
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)
    assert capfd.readouterr().err == ""


def test_long_work_says_how_far_it_is(lines):
    clock = Clock()
    with log.LineProgress(clock) as bar:
        task = bar.add_task("Training", total=400, info="")
        for step in range(1, 401):
            clock.now += 0.25
            bar.update(task, completed=step, info=f"loss {1 / step:.2f}")
    assert lines() == [
        "Training: 20 of 400 (5%), 4 /s, 1:35 left, loss 0.05",
        "Training: 140 of 400 (35%), 4 /s, 1:05 left, loss 0.01",
        "Training: 260 of 400 (65%), 4 /s, 0:35 left, loss 0.00",
        "Training: 380 of 400 (95%), 4 /s, 0:05 left, loss 0.00",
        "Training: 400 of 400 (100%), 4 /s, done after 1:40, loss 0.00",
    ]


def test_short_work_says_nothing_and_work_that_goes_on_is_not_counted_as_fast(lines):
    clock = Clock()
    with log.LineProgress(clock) as bar:
        short = bar.add_task("Reading", total=3)
        for _ in range(3):
            clock.now += 1.0
            bar.advance(short)
        assert not lines()
        resumed = bar.add_task("Training", total=1000, completed=900)
        clock.now += 10.0
        bar.advance(resumed, 10)
        endless = bar.add_task("Listening")
        clock.now += 7200.0
        bar.advance(endless, 72)
    assert lines() == ["Training: 910 of 1000 (91%), 1 /s, 1:30 left", "Listening: 72, 0.01 /s"]


def test_where_the_output_is_no_terminal_work_is_told_by_lines(capfd, monkeypatch):
    monkeypatch.setattr(log, "FIRST_LINE_SECONDS", 0.0)
    with log.on_terminal():
        assert list(log.track(range(3), "Counting")) == [0, 1, 2]
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("Counting: 1 of 3 (33%)") and told[-1].startswith("Counting: 3 of 3 (100%)")


def test_a_terminal_gets_bars(monkeypatch):
    from rich.progress import Progress

    monkeypatch.setattr(log.console, "_force_terminal", True)
    assert isinstance(log.progress(), log.LineProgress)  # as a library it does not draw
    with log.on_terminal():
        assert isinstance(log.progress(), Progress)


def test_a_program_without_logging_sees_nothing():
    script = "from avatar import log; log.warn('seen'); log.info('heard')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
