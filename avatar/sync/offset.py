"""Measure by how many seconds audio comes after video, and say where that cannot be known.

The sync judge embeds mouth and audio, window by window. Their scalar products, summed along a lag, make a curve over
lags. Its maximum is the delay. It is trusted only if three questions have good answers:

- Is the maximum high? Its z-score says so, in deviations of the curve at lags where nothing fits. Their variance is the
  mean of two estimates, from the clip's own far lags and from the autocovariance of both signals (Bartlett, 1935).
- Is it alone? No other lag may come near it, be it within the range or far outside.
- Is it the same in all parts? A drift or a jump of the delay is looked for.

docs/notes/offset.md says how often the answer is right, wrong, or none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from avatar.io.audio import SAMPLE_RATE, is_silent
from avatar.sync.judge import RATE, ZERO, SyncJudge, windows

MAX_SECONDS = 2.4  # largest delay that is looked for
FAR_SECONDS = 10.0  # lags up to here show what the curve is like where nothing fits
LEAST_SECONDS = 4.0  # of mouth and audio
LEAST_OVERLAP = 0.4  # of the clip, at a lag
SLOW_SECONDS = 3.0  # pauses and sentences, which change more slowly, hardly tell one moment from the next
PEAK_WINDOWS = 8  # on either side of the maximum
SOUND_DB = -75.0  # dBFS; below is what editors and codecs fill the ends of a track with

# The best of many lags has a higher z-score in a short clip, whose deviation is known less well. With audio of other
# recordings none of 17 000 clips of 6 to 20 s was trusted (docs/notes/offset.md).
MIN_Z, MIN_Z_SECONDS = 4.5, 9.0  # the least z-score is MIN_Z + MIN_Z_SECONDS / seconds
MIN_MARGIN = 1.5
MIN_STABILITY = 0.9
TOO_SHORT = f"there are less than {LEAST_SECONDS:g} s of a face with audio"
UNCLEAR = "the lips do not clearly follow the audio"
AMBIGUOUS = "several delays fit about as well"
_MEMORY = 16  # windows over which each signal is like itself
_RESAMPLES = 200
_BLOCK_SECONDS = 1.0
_BLOCKS = 240  # at most; longer ones in longer clips
_DRIFTS = np.linspace(-0.025, 0.025, 51)  # windows per window
_DRIFTED = 1.5  # windows over the clip
_DRIFT_GAIN = 2.5  # in z^2, over a constant delay; one steady clip in thirty has more at 10 s, none at 20 s
_STEADY = 2.0  # windows that the delay of a part may differ
_PART_SECONDS = 5.0
_PARTS = 8
_JUMP_GAIN = 1.0  # in z, over the common delay; steady clips of 10 s and more have 0 to 0.9
_JUMP_Z = 4.5  # asked beside it of parts shorter than half, in which another may speak


@dataclass(frozen=True, kw_only=True)
class Offset:
    """A measured delay between audio and video.

    Attributes:
        audio_delay_s: Seconds; positive: audio after video.
        z_score: Maximum of the curve, in deviations of the curve where nothing fits.
        margin: By how many deviations the second maximum, anywhere else, is lower.
        stability: 0 to 1, the share of block-resampled clips whose maximum is within 40 ms of this one.
        doubt: Why the delay cannot be relied on, as a clause; empty where it can.
        delays: [L] seconds, every delay that was tried.
        curve: [L] z-score of each; -inf where too little overlaps.
    """

    audio_delay_s: float
    z_score: float
    margin: float
    stability: float
    doubt: str
    delays: np.ndarray
    curve: np.ndarray

    @property
    def trusted(self) -> bool:
        """Whether the delay can be relied on."""
        return not self.doubt

    @property
    def undecided(self) -> bool:
        """Whether a longer clip might tell the delay."""
        return self.doubt in (TOO_SHORT, UNCLEAR, AMBIGUOUS)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Scalar products by block and lag, so that the curve of any part follows.

    Attributes:
        sums: [blocks, lags], over the windows of a block where there are both a mouth and audio.
        counts: [blocks, lags] how many those are.
        lags: [lags] windows.
        block: Windows.
        deviation: Of ``sums / sqrt(counts)`` where nothing fits.
    """

    sums: np.ndarray
    counts: np.ndarray
    lags: np.ndarray
    block: int
    deviation: float

    def curve(self, part: slice = slice(None)) -> np.ndarray:
        """Z-scores [lags] of some blocks."""
        return _z_scores(self.sums[part].sum(0), self.counts[part].sum(0)) / self.deviation


def measure(judge: SyncJudge, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> Offset:
    """Measure the delay of a clip.

    Args:
        judge: Embeds mouth and audio.
        landmarks: [T, 478, 2 or 3] pixels, NaN where no face was found.
        audio: [S] 16 kHz mono, from the time of the first frame on. What is longer than the frames is not used.
        fps: Frames per second.
    """
    count = windows(len(landmarks), len(audio), fps)
    audio = audio[: round(count / RATE * SAMPLE_RATE)]
    if is_silent(audio):
        return _unknown("the audio is silent")
    mouth, known = judge.embed_mouth(landmarks, fps, count)
    heard = _sounding(audio)
    if min(known.sum(), heard.sum()) < LEAST_SECONDS * RATE:
        return _unknown(TOO_SHORT)
    # What an editor filled in is no audio: it would change the level that the rest is compared with.
    first, end = np.flatnonzero(heard)[[0, -1]] + (0, 1)
    window = round(SAMPLE_RATE / RATE)
    voice = np.zeros_like(mouth)
    voice[first:end] = judge.embed_audio(audio[first * window : end * window])
    return _judged(_table(_quick(mouth, known), known, _quick(voice, heard), heard))


def _unknown(doubt: str) -> Offset:
    nothing = np.zeros(0)
    return Offset(
        audio_delay_s=0.0, z_score=0.0, margin=0.0, stability=0.0, doubt=doubt, delays=nothing, curve=nothing
    )  # fmt: skip


def _judged(table: _Table) -> Offset:
    """Find the maximum, and a reason not to trust it."""
    curve, lags = table.curve(), table.lags
    top = int(curve.argmax())
    elsewhere = np.abs(lags - lags[top]) > PEAK_WINDOWS
    peak = _peak(curve, lags)
    found = Offset(
        audio_delay_s=_seconds(peak),
        z_score=float(curve[top]),
        margin=float(curve[top] - curve[elsewhere].max()),
        stability=_stability(table, peak),
        doubt="",
        delays=(lags - ZERO) / RATE,
        curve=curve,
    )
    least = MIN_Z + MIN_Z_SECONDS * RATE / table.counts[:, top].sum()
    if found.z_score < least:
        doubt = _drift(table, least) or UNCLEAR
    elif abs(lags[top]) >= MAX_SECONDS * RATE:
        doubt = f"it may be {found.audio_delay_s:+.1f} s, and only {MAX_SECONDS:g} s to either side are relied on"
    else:
        doubt = _drift(table, least) or _jump(table, int(lags[top]))
        if not doubt and (found.margin < MIN_MARGIN or found.stability < MIN_STABILITY):
            doubt = AMBIGUOUS
    return replace(found, doubt=doubt)


def _sounding(audio: np.ndarray) -> np.ndarray:
    """Tell which windows lie between the first and the last that sound."""
    power = np.square(audio.reshape(-1, round(SAMPLE_RATE / RATE)), dtype=np.float64).mean(1)
    loud = np.flatnonzero(10 * np.log10(power + 1e-12) > SOUND_DB)
    heard = np.zeros(len(power), bool)
    if len(loud):
        heard[loud[0] : loud[-1] + 1] = True
    return heard


def _quick(vectors: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Take away the mean over `SLOW_SECONDS` around each window; 0 where nothing is ``there``."""
    size = round(SLOW_SECONDS * RATE)
    vectors = np.where(there[:, None], vectors - vectors[there].mean(0), 0)
    share = uniform_filter1d(there.astype(np.float64), size, mode="constant")
    mean = uniform_filter1d(vectors, size, axis=0, mode="constant") / np.maximum(share, 0.05)[:, None]
    return np.where(there[:, None], vectors - mean, 0)


def _table(mouth: np.ndarray, known: np.ndarray, voice: np.ndarray, heard: np.ndarray) -> _Table:
    count = len(mouth)
    far = min(round(FAR_SECONDS * RATE), math.floor((1 - LEAST_OVERLAP) * count))
    lags = np.arange(-far, far + 1)
    block = max(round(_BLOCK_SECONDS * RATE), math.ceil(count / _BLOCKS))
    starts = np.arange(0, count, block)
    sums, counts = np.zeros((2, len(starts), len(lags)))
    for i, lag in enumerate(lags.tolist()):
        seen, listened = slice(max(-lag, 0), count - max(lag, 0)), slice(max(lag, 0), count - max(-lag, 0))
        products, both = np.zeros((2, count))
        products[seen] = np.einsum("te,te->t", mouth[seen], voice[listened])
        both[seen] = known[seen] & heard[listened]
        sums[:, i], counts[:, i] = np.add.reduceat(products, starts), np.add.reduceat(both, starts)
    curve = _z_scores(sums.sum(0), counts.sum(0))
    away = (np.abs(lags - lags[curve.argmax()]) > PEAK_WINDOWS) & np.isfinite(curve)
    variance = (float(curve[away].var()) + _expected_variance(mouth, known, voice, heard)) / 2
    return _Table(sums=sums, counts=counts, lags=lags, block=block, deviation=math.sqrt(variance + 1e-12))


def _expected_variance(mouth: np.ndarray, known: np.ndarray, voice: np.ndarray, heard: np.ndarray) -> float:
    """Variance of a mean product of independent signals, times their length: from their autocovariances."""
    total = 0.0
    for lag in range(_MEMORY + 1):
        a, b = (x[: len(x) - lag].T @ x[lag:] / there.sum() for x, there in ((mouth, known), (voice, heard)))
        total += (1 if lag == 0 else 2) * (1 - lag / (_MEMORY + 1)) * float((a * b).sum())
    return max(total, 0.0)


def _z_scores(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums [..., lags] brought to one deviation, whatever the overlap; -inf where that is too little."""
    enough = counts >= np.maximum(1, LEAST_OVERLAP * counts.max(-1, keepdims=True))
    return np.where(enough, sums / np.sqrt(np.maximum(counts, 1)), -np.inf)


def _stability(table: _Table, peak: float) -> float:
    blocks = len(table.sums)
    draws = np.random.default_rng(0).multinomial(blocks, np.full(blocks, 1 / blocks), _RESAMPLES)
    curves = _z_scores(draws @ table.sums, draws @ table.counts)
    return float(np.mean([abs(_peak(curve, table.lags) - peak) <= 1 for curve in curves]))


def _drift(table: _Table, least: float) -> str:
    """Say so where an evenly changing delay fits better than a constant one, with a z-score of at least ``least``."""
    times = np.arange(len(table.sums)) * table.block
    times = times - times.mean()
    columns = np.arange(len(table.lags))
    heights = []
    for drift in _DRIFTS:
        at = columns + np.round(drift * times).astype(int)[:, None]
        inside = (at >= 0) & (at < len(columns))
        sums, counts = (
            np.where(inside, np.take_along_axis(part, at.clip(0, len(columns) - 1), 1), 0).sum(0)
            for part in (table.sums, table.counts)
        )
        heights.append(float(_z_scores(sums, counts).max()) / table.deviation)
    best, steady = int(np.argmax(heights)), heights[len(_DRIFTS) // 2]
    change = _DRIFTS[best] * np.ptp(times)
    if heights[best] < least or heights[best] ** 2 - steady**2 <= _DRIFT_GAIN or abs(change) <= _DRIFTED:
        return ""
    return f"it changes steadily, by {change / RATE:+.2f} s from start to end"


def _jump(table: _Table, common: int) -> str:
    """Say so where a part of the clip has another delay than the whole."""
    blocks = len(table.sums)
    near = np.abs(table.lags - common) <= _STEADY
    sought = np.abs(table.lags) < MAX_SECONDS * RATE
    most, doubt = _JUMP_GAIN, ""
    for parts in range(2, _PARTS + 1):
        size = blocks // parts
        if size * table.block < _PART_SECONDS * RATE:
            break
        for start in range(0, blocks - size + 1, max(1, size // 2)):
            curve = np.where(sought, table.curve(slice(start, start + size)), -np.inf)
            gain = curve.max() - curve[near].max()
            if np.isfinite(gain) and gain > most and (parts == 2 or curve.max() > _JUMP_Z):
                most = float(gain)
                begin, end = (edge * table.block / RATE for edge in (start, start + size))
                other = _seconds(float(table.lags[curve.argmax()]))
                doubt = (f"it is {_seconds(common):+.2f} s in most of the recording, but {other:+.2f} s between "
                         f"{begin:.0f} and {end:.0f} s")  # fmt: skip
    return doubt


def _seconds(lag: float) -> float:
    """Delay for a lag in windows."""
    return (lag - ZERO) / RATE


def _peak(curve: np.ndarray, lags: np.ndarray) -> float:
    """The place of the maximum, by a parabola through its neighbours."""
    top = int(curve.argmax())
    if not 0 < top < len(curve) - 1 or not np.isfinite(curve[[top - 1, top + 1]]).all():
        return float(lags[top])
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(lags[top] + (0.5 * (left - right) / bend if bend < 0 else 0.0))
