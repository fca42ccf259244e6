"""Send what an avatar does as Live Link Face does, over UDP, at the motion's pace."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avatar import log
from avatar.checks import can_be_shown, number, whole
from avatar.errors import AvatarError
from avatar.export.base import NO_FILE, ExportSource, Need
from avatar.export.sequence import at_rate, check_rate
from avatar.motion.live_link import PORT, PacketWriter, channel_values

MOST_SUBJECT = 64  # characters
MOST_REPEATS = 10_000


@dataclass(frozen=True, kw_only=True)
class LiveLinkUdp:
    """Live Link Face over UDP: the motion is sent frame by frame, as the app does (Unreal, MetaHuman, VSeeFace)."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = NO_FILE

    send: str = f"127.0.0.1:{PORT}"
    """HOST:PORT to send to; by default this machine only."""
    fps: float | None = None
    """Frames per second; default: the avatar's."""
    subject: str = "avatar"
    """Name that the receiver lists."""
    repeat: int = 1
    """How many times the motion is sent."""

    def __post_init__(self) -> None:
        check_rate(self.fps)
        whole(self.repeat, "--repeat", 1, MOST_REPEATS)
        if len(self.subject) > MOST_SUBJECT or not can_be_shown(self.subject):
            raise AvatarError(f'--subject "{self.subject}" is no name.', fix=f"Give 1 to {MOST_SUBJECT} characters.")
        _host_and_port(self.send)

    def needs(self) -> Set[Need]:
        """A motion."""
        return {"motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Send the motion, and return when its last frame is over.

        Raises:
            AvatarError: There is no such host, or nothing can be sent to it.
        """
        track = at_rate(source, self.fps)
        values = channel_values(track)
        writer = PacketWriter(self.subject, track.fps)
        family, address = _resolve(self.send)
        log.info(f"Sending {len(track)} frames at {track.fps:g} per second to {self.send}. Ctrl-C stops.")
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            try:
                count = self.repeat * len(track)
                send_paced(lambda i: sender.sendto(writer.packet(values[i % len(track)], i), address), count, track.fps)
            except OSError as error:
                raise AvatarError(f"Nothing can be sent to {self.send}:", why=f"{error.strerror or error}.",
                                  fix="Check --send and the network.") from None  # fmt: skip
            except KeyboardInterrupt:
                log.info("Stopped.")
                return
        log.info(f"Sent {count} frames ({count / track.fps:.1f} s).")


def send_paced(
    send: Callable[[int], object], count: int, fps: float, clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:  # fmt: skip
    """Call ``send`` with 0 to ``count`` - 1, each at its time, and wait for the end of the last one.

    Times count from the begin, so that errors of a sleep do not add up. What is late is sent at once.

    Args:
        send: Sends a frame.
        count: How many.
        fps: Frames per second.
        clock, sleep: Those of the system.
    """
    began = clock()
    for index in range(count + 1):
        if (wait := began + index / fps - clock()) > 0:
            sleep(wait)
        if index < count:
            send(index)


def _host_and_port(text: str) -> tuple[str, int]:
    """Read HOST:PORT, [IPv6]:PORT, or HOST alone."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    fix = f"Give HOST:PORT, such as 127.0.0.1:{PORT}."
    if not host or not port.isdecimal():
        raise AvatarError(f'--send "{text}" is not understood.', fix=fix)
    return host, int(number(float(port[:9]), "The port of --send", 1, 65535))


def _resolve(text: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, port = _host_and_port(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise AvatarError(f"There is no host {host}:", why=f"{getattr(error, 'strerror', None) or error}.",
                          fix="Check --send.") from None  # fmt: skip
    family, _, _, _, address = found[0]
    return family, tuple(address)  # of IPv6 with the interface: a local address is nowhere without
