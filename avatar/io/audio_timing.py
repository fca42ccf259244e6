"""Keeping audio in step with its time stamps: gaps, overlaps, jitter and clocks that run apart."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avatar.io.media import Treatment

if TYPE_CHECKING:
    from av import AudioFrame

GAP_SECONDS = 0.05  # stamps further off than this, and for longer than one frame, are a gap or an overlap
MAX_GAP_SECONDS = 60.0  # a longer jump is a broken time stamp, not a pause
MAX_SILENCE_SECONDS = 3600.0  # filled in, all in all
MAX_OVERLAP_SECONDS = 3600.0  # dropped, all in all; decoding it takes time all the same
_LASTING_SECONDS = 0.25  # a gap shows in most stamps of this time; a late packet shows in one
_LASTING_SHARE = 0.6
_DRIFT_SECONDS = 0.02  # of difference that begins the correction of a drift; rounding and jitter stay below
_SMOOTH_SECONDS = 2.0  # to each side: jitter of the stamps is averaged over this time
_SETTLE_SECONDS = 1.0
PADDED_SECONDS = 1.0  # at either end of a video; more is said: players show a video with less as whole
_TAPS = 8  # to each side, of the interpolation
_PHASES = 4096  # between two samples


@dataclass
class TimingReport:
    """What was done to the time of an audio track.

    Attributes:
        filled: Seconds of silence put into gaps.
        dropped: Seconds left out where stamps overlap.
        jumps: Gaps and overlaps.
        drift: Seconds by which the track was stretched (> 0) or shortened all in all.
        retimed: Whether it was stretched or shortened anywhere.
        begins: Seconds on the file's clock of the first sample that was decoded; None before that. It is not compared.
        before, after: Seconds of silence put before and after the track, where it is laid under a video.
    """

    filled: float = 0.0
    dropped: float = 0.0
    jumps: int = 0
    drift: float = 0.0
    retimed: bool = False
    begins: float | None = field(default=None, compare=False)
    before: float = 0.0
    after: float = 0.0

    @property
    def padded(self) -> bool:
        """Whether the track leaves more than `PADDED_SECONDS` of the video out at either end."""
        return max(self.before, self.after) > PADDED_SECONDS

    def treatments(self) -> tuple[Treatment, ...]:
        """Say it in words."""
        found = []
        if self.jumps:
            done = f"{self.filled:.2f} s of silence put in, {self.dropped:.2f} s left out"
            found.append(Treatment("audio-gaps", f"Jumps of the time stamps of the audio: {self.jumps}; {done}."))
        if self.retimed:
            done = f"{'stretched' if self.drift > 0 else 'shortened'} by {abs(self.drift):.2f} s in all"
            found.append(Treatment("audio-retimed", f"The audio ran apart from its time stamps; it was {done}."))
        if self.padded:
            ends = (f"begins {self.before:.1f} s after", self.before), (f"ends {self.after:.1f} s before", self.after)
            where = " and ".join(f"{how} the video" for how, seconds in ends if seconds > PADDED_SECONDS)
            found.append(Treatment("audio-padded", f"The audio {where}; silence was put in there."))
        return tuple(found)


class TimedFrame(NamedTuple):
    """A decoded frame and its place.

    Attributes:
        frame: The samples.
        at: Seconds on the file's clock of its first sample.
        jump: Whether it does not follow the frame before without a gap.
        correction: Seconds that were added to the sample clock since the last jump.
    """

    frame: AudioFrame
    at: float
    jump: bool
    correction: float


class _Held(NamedTuple):
    frame: AudioFrame
    clock: float  # seconds of samples before it
    off: float  # stamp minus sample clock, seconds
    jump: bool


def timed_frames(frames: Iterable[AudioFrame], start: float, report: TimingReport) -> Iterator[TimedFrame]:
    """Place decoded frames on the file's clock.

    Even stamps leave every frame where it follows the one before. A lasting jump of more than 50 ms is followed at
    once. What the stamps run ahead or behind beyond 20 ms on average is followed slowly, without a jump.

    Args:
        frames: Frames as they are decoded.
        start: Seconds; where the first frame begins that has no stamp.
        report: Takes what was done.

    Raises:
        ValueError: Stamps leave more than an hour empty, or repeat more than an hour.
    """
    part: deque[_Held] = deque()  # of one run without jumps: what was given and what is to come
    place = _Placer(report)
    given = 0
    for held in _jumps(frames, start, report):
        if held.jump:
            for i in range(given, len(part)):
                yield place(part, i)
            part.clear()
            given = 0
        part.append(held)
        while given < len(part) and held.clock - part[given].clock >= _SMOOTH_SECONDS:
            yield place(part, given)
            given += 1
            while part[given].clock - part[0].clock > _SMOOTH_SECONDS:
                part.popleft()
                given -= 1
    for i in range(given, len(part)):
        yield place(part, i)


class _Placer:
    """Corrects the sample clock of one run after the other."""

    def __init__(self, report: TimingReport) -> None:
        self._report = report
        self._first = self._now = 0.0
        self._sliding: tuple[float, float] | None = None  # since when, and how far off then
        self._ended = 0.0  # drift of the runs before

    def __call__(self, part: deque[_Held], i: int) -> TimedFrame:
        held = part[i]
        if self._report.begins is None:
            self._report.begins = held.clock + held.off
        if held.jump:
            self._ended = self._report.drift
            self._first = self._now = held.off
            self._sliding = None
        elif self._sliding is None and any(abs(other.off - self._now) > _DRIFT_SECONDS for other in part):
            middle = median(other.off for other in part)
            if abs(middle - self._now) > _DRIFT_SECONDS:
                self._sliding = held.clock, self._now - self._smooth(part, held.clock)
                self._report.retimed = True
        if self._sliding is not None:
            since, distance = self._sliding
            settling = distance * float(np.exp((since - held.clock) / _SETTLE_SECONDS))
            self._now = self._smooth(part, held.clock) + settling
            self._report.drift = self._ended + self._now - self._first
        return TimedFrame(held.frame, held.clock + self._now, held.jump, self._now - self._first)

    @staticmethod
    def _smooth(part: deque[_Held], clock: float) -> float:
        """The deviation around a time: a line through what is near, weighted by a Hann window."""
        times = np.array([held.clock for held in part]) - clock
        off = np.array([held.off for held in part])
        weights = np.cos(np.clip(times / (1.01 * _SMOOTH_SECONDS), -1, 1) * np.pi / 2) ** 2
        total = weights.sum()
        mean, centre = (weights * off).sum() / total, (weights * times).sum() / total
        spread = (weights * (times - centre) ** 2).sum()
        slope = (weights * (times - centre) * off).sum() / spread if spread > 0 else 0.0
        return float(mean - slope * centre)


def _jumps(frames: Iterable[AudioFrame], start: float, report: TimingReport) -> Iterator[_Held]:
    """Compare stamps with the sample clock, and find lasting jumps."""
    ahead: deque[tuple[AudioFrame, float, float]] = deque()
    recent: deque[tuple[float, float]] = deque()  # clock and deviation of the run so far
    broken = 0.0  # sum of jumps too long to be true

    def judged() -> _Held:
        nonlocal broken
        frame, clock, off = ahead[0]
        if not recent:
            recent.append((clock, off))
            ahead.popleft()
            return _Held(frame, clock, off - broken, True)
        level = median(value for _, value in recent)
        steps = [value - level for _, _, value in ahead]
        lasting = sum(step * steps[0] > 0 and abs(step) > GAP_SECONDS for step in steps)
        jump = abs(steps[0]) > GAP_SECONDS and lasting >= _LASTING_SHARE * len(steps)
        if jump:
            recent.clear()
            if abs(steps[0]) >= MAX_GAP_SECONDS:
                broken += steps[0]
                jump = False
            else:
                _count(report, steps[0])
        recent.append((clock, off))
        while clock - recent[0][0] > _LASTING_SECONDS:
            recent.popleft()
        ahead.popleft()
        return _Held(frame, clock, off - broken, jump)

    clock: float | None = None
    last = 0.0
    for frame in frames:
        if frame.samples == 0:
            continue
        time = frame.time
        if clock is None:
            clock = start if time is None else time
        last = last if time is None else time - clock
        ahead.append((frame, clock, last))
        clock += frame.samples / max(1, frame.sample_rate)
        while clock - ahead[0][1] > _LASTING_SECONDS + frame.samples / max(1, frame.sample_rate):
            yield judged()
    while ahead:
        yield judged()


def _count(report: TimingReport, step: float) -> None:
    report.jumps += 1
    if step > 0:
        report.filled += step
        if report.filled > MAX_SILENCE_SECONDS:
            raise ValueError("its time stamps leave more than an hour empty")
    else:
        report.dropped -= step
        if report.dropped > MAX_OVERLAP_SECONDS:
            raise ValueError("more than an hour of it has time stamps of what was there before")


class Stretch:
    """Move samples slightly in time, as they come: an interpolation by windowed sinc of 16 taps.

    Until the first correction samples pass unchanged.

    Args:
        rate: Hertz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._knots: deque[tuple[float, float]] = deque([(0.0, 0.0)])  # place of a sample: before, after
        self._first = 0  # number of the first sample held
        self._next = 0  # number of the next sample given
        self._held: np.ndarray | None = None

    def correct(self, clock: float, correction: float) -> None:
        """From ``clock`` seconds of samples on, place them ``correction`` seconds later; linear in between."""
        before = clock * self._rate
        if before > self._knots[-1][0]:
            self._knots.append((before, max(before + correction * self._rate, self._knots[-1][1] + 1e-3)))

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Take samples [C, n], and give those [C, m] that are complete."""
        held = samples if self._held is None else np.concatenate([self._held, samples], 1)
        end = self._first + held.shape[1]
        plain = all(before == after for before, after in self._knots)
        if plain:
            result = held[:, self._next - self._first :]
            self._next = end
        else:
            before, after = np.array(self._knots).T
            slope = (after[-1] - after[-2]) / (before[-1] - before[-2])
            limit = end if last else end - _TAPS
            until = np.interp(limit, before, after) + max(limit - before[-1], 0) * slope
            numbers = np.arange(self._next, max(self._next, int(np.ceil(until))))
            places = np.interp(numbers, after, before) + np.maximum(numbers - after[-1], 0) / slope
            result = _interpolate(held, places - self._first)
            self._next += len(numbers)
            end = int(places[-1]) if len(places) else self._first + _TAPS
        kept = max(0, end - _TAPS - self._first)
        self._held, self._first = held[:, kept:], self._first + kept
        while len(self._knots) > 2 and self._knots[1][0] < self._first and self._knots[1][1] < self._next:
            self._knots.popleft()
        return result


def _interpolate(samples: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Samples [C, n] at fractional places [m]; silence beyond the ends."""
    padded = np.pad(samples, ((0, 0), (_TAPS, _TAPS + 1)))
    whole = np.floor(places)
    weights = _weights()[np.rint((places - whole) * _PHASES).astype(np.int64)]
    at = np.clip(whole.astype(np.int64)[:, None] + np.arange(1, 2 * _TAPS + 1), 0, padded.shape[1] - 1)
    return np.stack([(row[at] * weights).sum(1) for row in padded]).astype(np.float32)


@functools.cache
def _weights() -> np.ndarray:
    """Weights [phase, tap] of a windowed sinc."""
    distance = np.arange(_PHASES + 1)[:, None] / _PHASES - np.arange(1 - _TAPS, _TAPS + 1)
    weights = np.sinc(distance) * np.cos(np.clip(distance / (_TAPS + 0.01), -1, 1) * np.pi / 2) ** 2
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
