"""Settings of the whole test run."""

import os
import tempfile

import pytest
from jaxtyping import install_import_hook

from tests.shapes import PACKAGES

# Test processes that run side by side share the cores: threads that wait for each other's cores by spinning make small
# tensors a hundred times slower. Torch reads it when it is loaded, and the native kernels follow torch.
_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _processes > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _processes)))

# The key that signs is one of the test run, not of the user.
_config = tempfile.TemporaryDirectory(prefix="avatar-test-config-")
os.environ["AVATAR_CONFIG"] = _config.name

# Shapes that annotations state are checked in every test; the packages have to be imported after this.
install_import_hook(list(PACKAGES), "tests.shapes.check")


@pytest.fixture(autouse=True)
def terminal():
    """Messages are printed, as they are for a person at the command line; as a library the package is silent."""
    from avatar import log

    with log.on_terminal():
        yield
