"""Packets of Live Link Face: what the app sends to Unreal, and others read, over UDP."""

from __future__ import annotations

import struct
import uuid
from fractions import Fraction

import numpy as np
from jaxtyping import Float32

from avatar.motion import Motion
from avatar.motion.arkit_files import live_link_angles

VERSION = 6
PORT = 11111
CHANNELS = 61  # 52 coefficients, three angles of the head and of each eye
_MOST_DENOMINATOR = 1001  # of a frame rate


def channel_values(track: Motion) -> Float32[np.ndarray, "T 61"]:
    """Values of each frame in the order of the packets.

    Coefficients are in Apple's order, left before right, unlike in the app's CSV. The angles follow, in radians with
    the app's signs.
    """
    return np.concatenate([track.arkit.numpy().astype(np.float32), live_link_angles(track)], 1).astype(np.float32)


class PacketWriter:
    """Encodes frames of one sender.

    Args:
        subject: Name that the receiver lists.
        fps: Frames per second.
        device: Identity of the sender, 36 characters; by default a random one.
    """

    def __init__(self, subject: str, fps: float, device: str | None = None) -> None:
        self._rate = Fraction(fps).limit_denominator(_MOST_DENOMINATOR)
        self._begin = struct.pack(">B", VERSION) + _text(device or str(uuid.uuid4()).upper()) + _text(subject)

    def packet(self, values: Float32[np.ndarray, " 61"], frame: int) -> bytes:
        """Encode one frame.

        All numbers are big-endian: version (uint8), device and subject (int32 length, UTF-8), frame (int32) and
        sub-frame (float32), rate (two int32), number of values (uint8), values (float32).

        Args:
            values: See :func:`channel_values`.
            frame: Its number.
        """
        time = struct.pack(">if2i", frame, 0.0, self._rate.numerator, self._rate.denominator)
        return self._begin + time + struct.pack(f">B{CHANNELS}f", CHANNELS, *values.tolist())


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">i", len(data)) + data
