"""Kernel tests need the native library; the references are tested by what they agree with."""

from __future__ import annotations

import pytest

from avatar import native
from avatar.native.library import library


@pytest.fixture
def needs_native() -> None:
    if library() is None:
        pytest.skip(native.library_status())


@pytest.fixture
def any_threads():
    """Restore the thread count after a test that changes it."""
    yield native.set_num_threads
    native.set_num_threads(None)
