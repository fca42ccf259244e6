"""Tracks from strangers, and folders as they lie on disks: what is wrong is left out, and stops nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.audio2motion.shared import RATE
from avatar.corpus import prepare
from avatar.corpus.cache import Cache
from avatar.corpus.find import Item, find
from avatar.corpus.mouth import Mouth
from avatar.corpus.prepared import write_prepared
from avatar.corpus.recordings import Entry, decide
from avatar.corpus.tracks import ABOUT, BASIS, FORMAT, LICENCE, SUFFIX
from avatar.io.checkpoint import save_tensors
from avatar.motion.mouth import ARTICULATION
from avatar.paths import file_sha256, write_json
from avatar.sync.judge import REACH
from tests.closed import close_folder

FEATURES, KEPT = 128, 6


class Named:
    """An encoder that is only named."""

    dim, config = FEATURES, {"name": "none"}


class Tools(prepare.Tools):
    """Reads numbers alone."""

    def __init__(self) -> None:
        self._encoder = Named()  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_tools", lambda encoder: Tools())


def give(
    folder: Path, frames: int = 500, rows: int = 500, fps: float = RATE, spread: float = 1.0, **about: Any
) -> Path:
    """A folder with a take, as a stranger may have made it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(frames)
    curve = 1 - 0.4 * np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / 1.5) ** 2)
    values = rng.random((frames, len(ARTICULATION))).astype(np.float32)
    mouth = Mouth(values=values, seen=np.ones(frames, bool), fps=fps, rows=rows, curve=curve)
    path = folder / f"001{SUFFIX}"
    more = {"arkit": np.zeros((frames, 52), np.float32), "head": np.zeros((frames, 3), np.float32)}
    write_prepared(path, mouth, np.full((rows, KEPT), 2, np.float16), more, format=FORMAT)
    mean, std = torch.zeros(FEATURES), torch.full((FEATURES,), spread)
    tensors = {"input_mean": mean, "input_std": std, "basis": torch.full((FEATURES, KEPT), spread)}
    save_tensors(folder / BASIS, tensors, {"format": FORMAT})
    speech = {"file": BASIS, "sha256": file_sha256(folder / BASIS), "encoder": Named.config}
    takes = [{"file": path.name, "sha256": file_sha256(path)}]
    head = {"format": FORMAT, "licence": LICENCE, "name": "A Giver", "statement": ["I give them."]}
    write_json(folder / ABOUT, head | {"speech": speech, "takes": takes} | about)
    return folder


def prepared(folder: Path, cache: Cache) -> list[Entry]:
    """What `avatar prior train` decides about a folder."""
    items = find(folder)
    keys = {name: key for name, key, _ in (prepare.prepare(item, cache) for item in items)}
    return decide(items, keys, cache)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"frames": 0, "rows": 0}, "only 0.0 s long"),
        ({"rows": 0}, "only 0.0 s long"),
        ({"frames": 20, "rows": 20}, "only 0.8 s long"),
        ({"frames": 2}, "do not last as long"),
        ({"frames": 25, "fps": 1.0}, "do not last as long"),  # hardly a frame for each of many rows
        ({"spread": 1e9}, "beyond the largest"),
        ({"licence": "CC-BY-NC-4.0"}, "no statement"),
        ({"statement": []}, "no statement"),
    ],
)
def test_hostile_tracks_are_left_out_and_stop_nothing(tmp_path: Path, made: dict[str, Any], reason: str) -> None:
    give(tmp_path / "c/good", frames=600, rows=600)
    give(tmp_path / "c/evil", **made)
    cache = Cache.open(tmp_path / "cache", Named.config)
    evil, good = prepared(tmp_path / "c", cache)
    assert reason in evil.refused and evil.seconds == 0
    assert not good.refused and good.seconds == 24 and cache.features(good.key).shape == (600, FEATURES)


def test_a_folder_that_is_completed_or_named_right_later_counts(tmp_path: Path) -> None:
    folder = give(tmp_path / "c/giver")
    cache = Cache.open(tmp_path / "cache", Named.config)
    for file in (folder / BASIS, folder / ABOUT, folder / f"001{SUFFIX}"):
        away = file.rename(file.with_name("away" + "".join(file.suffixes)))
        assert all(entry.refused for entry in prepared(tmp_path / "c", cache)), file
        away.rename(file)
        assert [entry.refused for entry in prepared(tmp_path / "c", cache)] == [""], file
        for kept in (tmp_path / "cache").glob("*/*.safetensors"):
            kept.unlink()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mp4").touch()
    close_folder(monkeypatch, "bob")
    assert [item.name for item in find(tmp_path)] == ["ann/x.mp4"]
    assert "bob cannot be read and is left out: Permission denied" in caplog.text


def test_a_name_that_is_no_utf_8_and_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "c" / os.fsdecode(b"caf\xe9.mp4")
    item = Item(path.name, path.name, (path,), path, video=True)
    cache = Cache.open(tmp_path / "cache", Named.config)
    name, key, _ = prepare.prepare(item, cache)
    assert name == path.name and "cannot be read" in cache.reason(key)
