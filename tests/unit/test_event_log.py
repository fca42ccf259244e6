"""Curves of a training are what TensorBoard reads; its reader is used where it is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from avatar.train.event_log import EventLog, crc32c

VALUES = {"train/psnr": 31.25, "train/gaussians": 30000, "train/l1": float("nan")}


def records(path: Path) -> list[bytes]:
    """Payloads of an event file, after their checksums were compared."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for part, at in ((data[:8], 8), (data[12 : 12 + length], 12 + length)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", data[at : at + 4]) == (masked,)
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_records_hold_version_step_and_numbers(tmp_path: Path):
    with EventLog(tmp_path / "log") as log:
        log.add(VALUES, 300)
    log.close()  # again: nothing happens
    first, second = records(log.path)
    assert first[9:] == b"\x1a\x0dbrain.Event:2"
    assert second[9:12] == b"\x10\xac\x02"  # step 300
    assert b"\x0a\x0atrain/psnr\x15" + struct.pack("<f", 31.25) in second
    assert log.path.name.startswith("events.out.tfevents.")


def test_every_run_adds_a_file(tmp_path: Path):
    for step in (1, 2):
        with EventLog(tmp_path) as log:
            log.add({"a": 1.0}, step)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_them(tmp_path: Path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader", reason="no TensorBoard")
    with EventLog(tmp_path) as log:
        log.add(VALUES, 0)
        log.add(VALUES, 20_000)
    version, *events = list(reader.LegacyEventFileLoader(str(log.path)).Load())
    assert version.file_version == "brain.Event:2" and [event.step for event in events] == [0, 20_000]
    shown = {value.tag: value.simple_value for value in events[1].summary.value}
    assert shown.keys() == VALUES.keys() and shown["train/psnr"] == 31.25 and shown["train/l1"] != shown["train/l1"]
