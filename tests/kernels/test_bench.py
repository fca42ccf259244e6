from __future__ import annotations

import json

import pytest
import torch

from avatar import bench
from avatar.errors import AvatarError


def test_bench_writes_what_it_measured(tmp_path):
    out = tmp_path / "bench.json"
    threads = torch.get_num_threads()
    bench.main(bench.Config(gaussians=(50,), sizes=(32,), threads=(1,), repeats=1, json=out))
    written = json.loads(out.read_text())
    assert {row["case"] for row in written["results"]} >= {"rasterize", "ssim", "whole frame"}
    assert all(row["forward_ms_1"] > 0 and row["both_ms_1"] > 0 for row in written["results"])
    assert written["hardware"]["cpu"] and written["library"]
    assert torch.get_num_threads() == threads


def test_bench_refuses_nonsense():
    with pytest.raises(AvatarError, match="at least 1"):
        bench.main(bench.Config(repeats=0))
