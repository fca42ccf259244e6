"""`avatar prior eval` measures every video, also where two have the same name in folders of the same name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from avatar.corpus import evaluate
from avatar.corpus.cache import Cache
from avatar.corpus.find import Item, video, videos
from avatar.corpus.measure import MEASURED, mean
from avatar.errors import AvatarError
from tests.unit.test_prior import some_prior


def takes(folder: Path, name: str = "take.mp4") -> list[Path]:
    """Two people, whose videos have the same name."""
    paths = [folder / who / "s1" / name for who in ("alice", "bob")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(path.parent.parent.name)
    return paths


def test_names_are_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = takes(tmp_path)
    other = tmp_path / "new.mp4"
    other.touch()
    assert [item.name for item in videos([alice, other])] == ["s1/take.mp4", f"{tmp_path.name}/new.mp4"]
    items = videos([alice, bob])
    assert [item.name for item in items] == ["alice/s1/take.mp4", "bob/s1/take.mp4"]
    assert [item.files for item in items] == [(alice,), (bob,)]
    assert [item.speaker for item in items] == [item.name for item in items]
    monkeypatch.chdir(alice.parent)
    assert [item.name for item in videos([alice, Path("take.mp4")])] == ["s1/take.mp4"], "the same file"
    assert video(Path("take.mp4")).name == "s1/take.mp4"
    with pytest.raises(AvatarError, match=r"none\.mp4 does not exist"):
        videos([alice, Path("none.mp4")])


def test_every_video_is_measured_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = takes(tmp_path, "take [b] \x1b[31m.mp4")
    some_prior().save(tmp_path / "prior.safetensors")
    row: dict[str, float | None] = {"audio_delay_s": 0.0, "confidence": 1.0}
    for name in MEASURED:
        row |= {name: 0.5, f"{name}_lag": 0.0}

    def prepared(items: list[Item], cache: Cache, *_: object) -> dict[str, str]:
        return {item.name: cache.key(item) for item in items}

    monkeypatch.setattr(evaluate, "prepare_all", prepared)
    monkeypatch.setattr(evaluate, "measure_all", lambda prior, cache, keys: dict.fromkeys(keys, row))
    result = evaluate.evaluate_prior(tmp_path / "prior.safetensors", paths)
    names = [f"{who}/s1/{paths[0].name}" for who in ("alice", "bob")]
    assert list(result["videos"]) == names and result["mean"] == mean({"a": row})
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(evaluate.table(result))
    shown = console.export_text()
    for who in ("alice", "bob"):  # brackets are no markup, and control characters do not reach the terminal
        assert rf"{who}/s1/take [b] \x1b[31m.mp4" in shown
