"""How OpenMP's threads wait, and how many they are, is settled by ``import avatar``, before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from avatar import device

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


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 3),  # rounded up
        ("0::/a/b", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "250000 100000\n"}, 1),
        ("0::/docker/1", {"cpu.max": "150000 100000\n"}, 2),  # the container's own group is the mount
        ("2:cpuset:/\n1:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4),
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("no group", {}, None),
    ],
)
def test_the_quota_of_a_container_is_found(tmp_path, groups, files, quota):
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **texts}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert device.cpu_quota(tmp_path) == quota
    assert device.cpu_quota(tmp_path / "not Linux") is None


@pytest.mark.parametrize(
    ("given", "quota", "threads"),
    [(None, 2, "2"), (None, None, None), (None, 64, None), (None, 100, None), ("7", 2, "7")],
)
def test_threads_are_no_more_than_the_quota_unless_the_user_says_how_many(monkeypatch, given, quota, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # so that what is set here is undone
    monkeypatch.delenv("OMP_NUM_THREADS") if given is None else monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(device, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    device.wait_passively()
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_torch_follows_the_quota():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    script = (
        "import os, avatar.device as device; device.cpu_quota = lambda: 1; os.sched_getaffinity = lambda _: range(64)\n"
        "device.wait_passively(); import torch; print(torch.get_num_threads())"
    )
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["1"], run.stderr


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
