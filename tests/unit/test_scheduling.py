"""A test process that dies: the run names the test, runs all others, and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist")

CONFTEST = """
def pytest_xdist_make_scheduler(config, log):
    from tests.scheduling import FileScheduling
    config.option.loadscopereorder = False
    return FileScheduling(config, log)
"""


@pytest.mark.parametrize("last", [True, False], ids=["in its last test", "in its first test"])
def test_a_process_that_dies_ends_one_test_and_not_the_run(last: bool, tmp_path: Path) -> None:
    """Two processes that have finished files die, one after the other, the second where hardly anything is left."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for number in range(8):
        kills = number in (3, 7)
        tests = ["def test_one(): pass", "def test_two(): pass"]
        if kills:
            tests[last] = f"def test_{'two' if last else 'one'}(): import os; os._exit(3)"
        (tmp_path / f"test_{number}.py").write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    command += ["-c", "/dev/null"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": "", "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=60
    )
    assert "2 failed, 14 passed" in done.stdout, done.stdout + done.stderr
    for number in (3, 7):
        assert f"crashed while running 'test_{number}.py::test_{'two' if last else 'one'}'" in done.stdout
