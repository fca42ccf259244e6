"""Settings of the whole test run."""

import functools
import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests import shapes

# Test processes that run side by side share the cores: threads that wait for each other's cores by spinning make small
# tensors a hundred times slower. Torch reads it when it is loaded, and the native kernels follow torch.
_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _processes > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _processes)))

# The key that signs is one of the test run, not of the user.
_config = tempfile.TemporaryDirectory(prefix="avatar-test-config-")
os.environ["AVATAR_CONFIG"] = _config.name

# Files that take longest. Begun first, they do not leave one process alone at the end.
_LONG = (
    "integration/test_create.py",
    "unit/test_nerf.py",
    "kernels/test_cuda.py",
    "unit/test_gaussian.py",
    "unit/test_corpus.py",
    "unit/test_prior.py",
    "cli/test_prepare_errors.py",
    "unit/test_killed_training.py",
    "cli/test_hostile_files.py",
    "unit/test_synth.py",
    "kernels/test_bench.py",
    "unit/test_teacher.py",
)

# Shapes that annotations state are checked in every test; the packages have to be imported after this.
shapes.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first."""

    @functools.cache
    def place(path: Path) -> int:
        return next((i for i, name in enumerate(_LONG) if path.match(name)), len(_LONG))

    items.sort(key=lambda item: place(item.path))


def pytest_collection_finish() -> None:
    """Keep what was imported until now out of garbage collections, which go through all of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file to one process as a whole: what its tests share is made once. ``--dist`` chooses otherwise."""
    if config.getoption("dist") != "load":
        return None
    from tests.scheduling import FileScheduling

    config.option.loadscopereorder = False  # keep the order of `pytest_collection_modifyitems`
    return FileScheduling(config, log)


@pytest.fixture(autouse=True)
def terminal():
    """Messages are printed, as they are for a person at the command line; as a library the package is silent."""
    from avatar import log

    with log.on_terminal():
        yield
