"""One clock for every reader: time stamps that start again or leap go on where they were.

Transport streams joined end to end, recorders that restarted and counters that ran over (33 bits in MPEG) leave files
whose stamps go back, or hours forward, between two packets. All tracks jump together there, so one correction moves
them together, and audio stays in step with video. What jumps alone is something else: a frame that stands still while
the audio goes on, or audio that was lost. Such time is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream

    _Packet = av.Packet[Any]

# Seconds. Decoding stamps only grow, but for rounding; where there are none, B-frames go back by up to sixteen frames.
_BACK = 0.1
_BACK_REORDERED = 1.5
_LEAP = 10.0  # forward, of all tracks together (as FFmpeg's dts_delta_threshold)
_LEAP_ALONE = 60.0  # forward, of one track while others go on: less is a pause
_SAME_PART = 5.0  # by which the tracks of a part begin apart
_WAIT = 2.0  # for the other tracks to jump as well
_MOST_HELD = 2000  # packets, in that time
_LONGEST_STEP = 1.0  # of a packet that is no pause


@dataclass(frozen=True)
class Jump:
    """A place where time stamps were mended.

    Attributes:
        at: Seconds on the mended clock.
        leap: Seconds by which the stamps jumped, negative where they started again.
        index: The one stream concerned; None for all of them.
    """

    at: float
    leap: float
    index: int | None


@dataclass
class _Track:
    """What is known of a stream; times in its ticks."""

    index: int
    base: Fraction
    step: int
    video: bool
    offset: int = 0  # added to the stamps of the present part
    last: int | None = None  # stamp of the newest packet, as it is in the file
    shown: int = 0  # when that packet is shown
    ordered: bool = True  # that stamp is a decoding stamp
    end: int = -(1 << 62)  # mended time at which the newest frame ends

    def seconds(self, ticks: int) -> float:
        return ticks * self.base.numerator / self.base.denominator

    def leap(self, packet: _Packet, stamp: int) -> float:
        """Seconds from the newest packet to this one: back by decoding stamps, forward by when they are shown.

        An encoder that is given a leap writes it into decoding stamps some frames late.
        """
        if self.last is None:
            return 0.0
        shown = self.seconds(_shown(packet, stamp) - self.shown)
        if not self.ordered or packet.dts is None:
            return shown
        decoded = self.seconds(stamp - self.last)
        return decoded if decoded < 0 else max(shown, 0.0)

    def follow(self, packet: _Packet, stamp: int) -> None:
        """Note a packet of the present part, and mend its stamps."""
        if packet.duration and self.seconds(packet.duration) < _LONGEST_STEP:
            self.step = packet.duration
        elif self.last is not None and 0 < self.seconds(stamp - self.last) < _LONGEST_STEP:
            self.step = stamp - self.last
        self.last, self.shown, self.ordered = stamp, _shown(packet, stamp), packet.dts is not None
        self.end = max(self.end, self.shown + self.offset + self.step)
        if self.offset:
            packet.pts = None if packet.pts is None else packet.pts + self.offset
            packet.dts = None if packet.dts is None else packet.dts + self.offset


@dataclass
class _Hold:
    """Packets that wait until it is known which tracks jump."""

    waiting: set[int]  # tracks that may jump as well
    packets: list[tuple[_Packet, int | None]] = field(default_factory=list)  # with its stamp where it is to be mended
    behind: dict[int, tuple[_Packet, int, float]] = field(default_factory=dict)  # first packet behind the jump, leap
    began: dict[int, int] = field(default_factory=dict)  # when the first packet of a track that was held is shown
    newest: dict[int, int] = field(default_factory=dict)  # when the newest one of a track is shown


class _Clock:
    """The state of :func:`steady_packets`."""

    def __init__(self, container: InputContainer, jumps: list[Jump]) -> None:
        self.jumps = jumps
        self.tracks = {
            s.index: _Track(s.index, s.time_base or Fraction(1, 1000), _usual_step(s), s.type == "video")
            for s in timed_streams(container)
        }
        self.joins = is_joinable(container)
        self.part = Fraction(0)  # seconds added to the stamps of the present part
        self.hold: _Hold | None = None

    def take(self, packet: _Packet) -> list[_Packet]:
        """Give the packets that are due, mended."""
        track = self.tracks[packet.stream.index]
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            stamp = packet.dts = 0 if track.last is None else track.last + track.step
        if self.hold is not None:
            return self._keep(self.hold, track, packet, stamp)
        if not self._jumps(track, packet, stamp):
            track.follow(packet, stamp)
            return [packet]
        if self._begins_part(track, _shown(packet, stamp)):
            track.offset = round(self.part / track.base)
            track.follow(packet, stamp)
            return [packet]
        self.hold = _Hold(self._active())
        return self._keep(self.hold, track, packet, stamp)

    def release(self) -> list[_Packet]:
        """Decide what the jump was, and give all packets that waited for it."""
        hold, self.hold = self.hold, None
        if hold is None:
            return []
        offsets: dict[int, int] = {}
        if hold.waiting <= hold.behind.keys():  # all tracks together: the first video track goes on without a seam
            index = min(hold.behind, key=lambda i: (not self.tracks[i].video, i))
            packet, stamp, leap = hold.behind[index]
            track = self.tracks[index]
            self.part = (track.end - _shown(packet, stamp)) * track.base
            offsets = {i: round(self.part / self.tracks[i].base) for i in hold.behind}
            self.jumps.append(Jump(track.seconds(track.end), leap, None))
        else:
            for index, (packet, stamp, leap) in hold.behind.items():
                track = self.tracks[index]
                if leap > _LEAP_ALONE or leap < -_BACK_REORDERED:
                    offsets[index] = track.end - _shown(packet, stamp)
                    self.jumps.append(Jump(track.seconds(track.end), leap, index))
        for packet, stamp in hold.packets:
            if stamp is not None:
                track = self.tracks[packet.stream.index]
                track.offset = offsets.get(track.index, track.offset)
                track.follow(packet, stamp)
        return [packet for packet, _ in hold.packets]

    def _jumps(self, track: _Track, packet: _Packet, stamp: int) -> bool:
        if track.last is None:
            return False
        leap = track.leap(packet, stamp)
        if leap < 0:
            return leap < -(_BACK if track.ordered and packet.dts is not None else _BACK_REORDERED)
        if leap <= _LEAP or (not self.joins and len(self._active()) < 2):
            return False  # a single track: nothing tells a leap from a pause
        shown = track.seconds(_shown(packet, stamp) + track.offset)
        return self._ends(track) + _SAME_PART < shown  # else the time passed elsewhere

    def _begins_part(self, track: _Track, shown: int) -> bool:
        """Whether a track comes to the part that the others have begun already."""
        moved = round(self.part / track.base)
        return moved != track.offset and abs(track.seconds(shown + moved) - self._ends()) < _SAME_PART

    def _ends(self, other_than: _Track | None = None) -> float:
        """Mended second that the tracks have come to."""
        seen = [t.seconds(t.end) for t in self.tracks.values() if t.last is not None and t is not other_than]
        return max(seen, default=-float("inf"))

    def _active(self) -> set[int]:
        latest = self._ends() - _LEAP
        return {i for i, t in self.tracks.items() if t.last is not None and t.seconds(t.end) > latest}

    def _keep(self, hold: _Hold, track: _Track, packet: _Packet, stamp: int) -> list[_Packet]:
        """Hold a packet; give all as soon as it is clear who jumps."""
        index, shown = track.index, _shown(packet, stamp)
        if index in hold.behind:
            if track.seconds(shown - hold.newest[index]) < -_BACK_REORDERED:  # the next jump
                return [*self.release(), *self.take(packet)]
            hold.packets.append((packet, stamp))
        elif self._jumps(track, packet, stamp):
            hold.behind[index] = packet, stamp, track.leap(packet, stamp)
            hold.packets.append((packet, stamp))
            hold.began[index] = shown
        else:
            track.follow(packet, stamp)
            hold.packets.append((packet, None))
            hold.began.setdefault(index, shown)
        hold.newest[index] = shown
        waited = abs(track.seconds(shown - hold.began[index]))
        settled = hold.waiting <= hold.behind.keys() or waited > _WAIT or len(hold.packets) > _MOST_HELD
        return self.release() if settled else []


def steady_packets(
    container: InputContainer, streams: Sequence[Stream], jumps: list[Jump] | None = None
) -> Iterator[_Packet]:
    """Demux audio and video with time stamps that never start again or leap.

    Where the stamps of all tracks jump together, the part behind goes on where the first video track ended, every
    track moved by the same time. A track that jumps alone by more than a pause goes on where it ended. Pauses stay.

    Args:
        container: Open for reading.
        streams: The tracks whose packets are wanted. All audio and video tracks are looked at, whichever are wanted.
        jumps: Gets every place that was mended.

    Yields:
        Packets in the order of the file, ``pts`` and ``dts`` in ticks of their stream, then the empty ones that flush
        decoders. Without any stamp, ``dts`` is counted on.

    Raises:
        av.FFmpegError: The container is damaged from here on.
    """
    import av

    clock = _Clock(container, [] if jumps is None else jumps)
    wanted = {stream.index for stream in streams}
    try:
        for packet in container.demux(*timed_streams(container)):
            due = clock.take(packet) if packet.size else [*clock.release(), packet]  # the empty one flushes a decoder
            yield from (one for one in due if one.stream.index in wanted)
    except av.FFmpegError:
        yield from (one for one in clock.release() if one.stream.index in wanted)
        raise


def is_joinable(container: InputContainer) -> bool:
    """Whether files of this kind can be cut and joined anywhere, so that all may change on the way."""
    from av.format import Flags

    return bool(container.format.flags & Flags.ts_discont.value)


def timed_streams(container: InputContainer) -> list[Stream]:
    """Audio and video tracks of a container; a cover picture is none."""
    return [
        s
        for s in container.streams
        if s.type == "audio" or (s.type == "video" and not s.disposition & s.disposition.attached_pic)
    ]


def _shown(packet: _Packet, stamp: int) -> int:
    """When a packet is shown, in ticks of the file."""
    return stamp if packet.pts is None else packet.pts


def _usual_step(stream: Stream) -> int:
    """Ticks that a packet lasts where nothing says so."""
    if stream.type != "video" or stream.time_base is None:
        return 0
    return max(1, round(1 / ((stream.average_rate or stream.guessed_rate or 25) * stream.time_base)))
