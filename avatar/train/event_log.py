"""Curves of a training as TensorBoard reads them, written without TensorBoard, whose packages weigh more than avatars.

An event file is a row of records: the length of the payload as uint64, its checksum, the payload, its checksum. All
numbers are little-endian. The payload is a message ``Event`` of Protocol Buffers: 1 wall time (double), 2 step
(varint), 3 version of the file (string), 5 summary. A summary holds values (1), each with its name (1, string) and its
number (2, float). The checksum is CRC-32C, rotated by 15 bits and moved by a constant, as TensorFlow's record files
have it.
"""

from __future__ import annotations

import struct
import time
from functools import cache
from pathlib import Path
from types import TracebackType

from avatar.assets.protobuf import delimited, encoded

VERSION = "brain.Event:2"
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_MASK = 0xA282EAD8
_FLUSH_SECONDS = 10.0


class EventLog:
    """Writes numbers over steps into a new file of a folder, for ``tensorboard --logdir``.

    Args:
        folder: Made if it is not there. Each run of a training adds a file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        began = time.time()
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.avatar"
        self._file = self.path.open("xb")
        self._flushed = time.monotonic()
        self._write(_double(1, began) + delimited(3, VERSION.encode()))

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, values: dict[str, float], step: int) -> None:
        """Write the numbers of a step.

        Args:
            values: Number of each name, such as ``train/psnr``.
            step: The step, 0 or more.
        """
        summary = b"".join(
            delimited(1, delimited(1, name.encode()) + _float(2, value)) for name, value in values.items()
        )  # fmt: skip
        self._write(_double(1, time.time()) + _varint(2, step) + delimited(5, summary))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left. A second call does nothing."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    def row(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        return value

    return tuple(map(row, range(256)))


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def _varint(field: int, value: int) -> bytes:
    return encoded(field << 3) + encoded(value)


def _double(field: int, value: float) -> bytes:
    return encoded(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return encoded(field << 3 | 5) + struct.pack("<f", value)
