"""How OpenMP's threads wait is settled by ``import avatar``, before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = "import os, sys, avatar; print(os.environ.get('OMP_WAIT_POLICY', ''), 'torch' in sys.modules)"


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"GOMP_SPINCOUNT": "5"}, ""),
        ({"KMP_BLOCKTIME": "0"}, ""),
    ],
)
def test_threads_sleep_unless_the_user_says_otherwise(given: dict[str, str], policy: str):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment | given, capture_output=True, text=True)
    assert run.stdout.split() == ([policy] if policy else []) + ["False"], run.stderr


def test_training_leaves_the_threads_as_they_were():
    import torch

    from avatar.device import training_threads
    from avatar.native import num_threads

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError), training_threads():
            assert (torch.get_num_threads(), num_threads()) == (1, 3)
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        with training_threads():
            assert (torch.get_num_threads(), num_threads()) == (1, 1)
        assert num_threads() == 1  # it follows torch again
    finally:
        torch.set_num_threads(before)
