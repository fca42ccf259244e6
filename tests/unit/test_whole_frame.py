"""What `avatar eval` says of avatars that are rendered in a larger frame than was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console

from avatar.data import PersonDataset
from avatar.data.person import PersonFolder
from avatar.data.results import FrameView
from avatar.eval import whole_frame
from avatar.infer.avatar import Avatar
from avatar.io.images import read_rgb, resize, write_jpeg
from tests.person import ingest_result, small_config, train, write_result
from tests.unit.test_framing import wide_person

VIEW = FrameView(width=320, height=180, x=64, y=36, scale=1.5)  # the trained part ends on the lower edge
FIRST, LAST = 10, 12


def filmed(folder: Path) -> Path:
    """A drawn person in a larger frame, some of whose frames are stored whole, as lossless as a JPEG can be."""
    person = PersonFolder(wide_person(folder, VIEW))
    around = read_rgb(folder / "background/whole_background.png", "")
    (person.stage("ingest") / "whole").mkdir()
    for index in (0, 10, 11):
        around[36:180, 64:208] = resize(person.frame(index), (144, 144))
        write_jpeg(person.stage("ingest") / f"whole/{index:06d}.jpg", around, 100)
    ingest = ingest_result(
        num_frames=12, source_size=(320, 180), crop=(64, 36, 144, 144), frame=(0, 0, 320, 180), frame_size=(320, 180),
        whole=[0, 10, 11],
    )  # fmt: skip
    write_result(folder, ingest)
    return folder


class Replayed:
    """An avatar that shows the real frames, with a fault."""

    def __init__(self, data: PersonDataset, fault: Callable[[np.ndarray], object]) -> None:
        self.files, self.fault = PersonFolder(data.folder), fault
        self.view_camera = data.info.view_camera()

    def view_background(self, camera: object) -> np.ndarray:
        return np.zeros((VIEW.height, VIEW.width, 3), np.uint8)

    def render(self, camera: object, motion: object, index: int, background: torch.Tensor) -> torch.Tensor:
        assert background.shape == (VIEW.height, VIEW.width, 3)
        self.fault(image := self.files.whole_frame(index))
        return torch.from_numpy(image)


def test_a_fault_counts_where_it_is(tmp_path: Path) -> None:
    data = PersonDataset(filmed(tmp_path / "person"))

    def found(fault: Callable[[np.ndarray], object]) -> dict[str, Any]:
        notes = list[str]()
        result = whole_frame.measure(cast(Avatar, Replayed(data, fault)), data, FIRST, LAST, notes)
        assert result is not None and result["frames"] == [10, 11] and not notes
        return result

    same = found(lambda image: None)
    assert (same["psnr_whole"], same["psnr_edge"], same["width"], same["height"]) == (100, 100, 320, 180)
    corner = found(lambda image: image[:10, :10].__ixor__(64))
    assert corner["psnr_edge"] == 100 and 30 < corner["psnr_whole"] < 50
    beside = found(lambda image: image[100:120, 50:62].__ixor__(64))  # a shoulder beside the trained part
    assert beside["psnr_edge"] < beside["psnr_whole"] - 5 < 40


def test_the_band_lies_along_the_edges_inside_of_the_frame() -> None:
    band = whole_frame.edge_band(VIEW, 96, 96)
    assert band[100, 49] and band[100, 79] and not band[100, 47] and not band[100, 81]
    assert band[21, 100] and not band[19, 100] and band[20:52, 120].all()
    assert not band[60:, 90:180].any() and band[179, 64] and band[179, 200]  # nobody is cut off by the lower edge
    whole = FrameView(width=96, height=96, x=0, y=0, scale=1)
    assert not whole_frame.edge_band(whole, 96, 96).any()


def test_a_trained_avatar_is_measured_and_shown(tmp_path: Path) -> None:
    person, run = filmed(tmp_path / "person"), tmp_path / "run"
    data = train(small_config(person, run, steps=2)).data
    found = whole_frame.measure(Avatar.load(run, device="cpu"), data, FIRST, LAST, [])
    assert found is not None and 8 < found["psnr_edge"] < 60 and 8 < found["psnr_whole"] < 60
    console = Console(width=100, record=True)
    for table in whole_frame.in_terminal(found, 100):
        console.print(table)
    texts = console.export_text(), whole_frame.in_html(found)
    assert all(f"{found[key]:.2f}" in text for key in ("psnr_whole", "psnr_edge") for text in texts)
    assert all("2 held-out frames at 320x180" in " ".join(text.split()) for text in texts)
    (run / "background.png").unlink()
    notes = list[str]()
    assert whole_frame.measure(Avatar.load(run, device="cpu"), data, FIRST, LAST, notes) is None
    assert "The whole frame was not measured" in notes[0]


@pytest.mark.parametrize(("first", "last", "said"), [(0, 12, 0), (1, 9, 1)])
def test_without_a_whole_frame_there_is_nothing_to_say(tmp_path: Path, first: int, last: int, said: int) -> None:
    """The first person has none, of the second none of the measured frames was kept."""
    folder = filmed(tmp_path / "person")
    data, notes = PersonDataset(folder), list[str]()
    avatar = cast(Avatar, Replayed(data, lambda image: None))
    if not said:
        data.info = replace(data.info, view=None)
    assert whole_frame.measure(avatar, data, first, last, notes) is None and len(notes) == said
    assert whole_frame.in_terminal(None, 80) == []
