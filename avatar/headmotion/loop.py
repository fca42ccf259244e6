"""Head, torso, gaze and upper face for speech of any length, from the person's own video.

``own`` plays pieces of the person's track one after the other and cross-fades where one meets the next; both ends of
a join are chosen to be alike in place and velocity, with open eyes. ``still`` holds the person's mean pose and only
lets the eyes blink, as often as the person does and with the person's own blinks. ``generated`` is new motion, made as
it is read, by `avatar.headmotion.generator`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from avatar.errors import AvatarError
from avatar.geometry.warp import halves
from avatar.motion import Motion
from avatar.motion.blinks import CLOSED, EYES, LIDS, find_blinks
from avatar.motion.gaps import LEAST_SECONDS
from avatar.motion.motion import POSE_TRACKS

LOOPS = ("own", "still")  # what `endless_pose` makes
POSES = (*LOOPS, "generated")
_PIECE_SECONDS = (4.0, 12.0)
_FADE_SECONDS = 1.2
_CANDIDATES = 200
_SMOOTH = 2.0  # frames, standard deviation: of the place that velocities are taken from


def pose_track(
    train: Motion,
    segments: Sequence[tuple[int, int]],
    frames: int,
    fps: float,
    mode: Literal["own", "still"] | str = "own",
    seed: int = 0,
) -> Motion:
    """The first ``frames`` frames of :func:`endless_pose`. An hour at 25 fps is 40 MB."""
    blocks: list[Motion] = []
    for block in endless_pose(train, segments, fps, mode, seed):
        blocks.append(block)
        if sum(map(len, blocks)) >= frames:
            break
    return Motion.cat(blocks)[:frames]


def endless_pose(
    train: Motion,
    segments: Sequence[tuple[int, int]],
    fps: float,
    mode: Literal["own", "still"] | str = "own",
    seed: int = 0,
) -> Iterator[Motion]:
    """Blocks of motion without an end; the mouth channels are the person's own of the moment, for others to replace.

    Args:
        train: The training part of the person's motion.
        segments: [start, end) frames without a cut inside, of ``train``.
        fps: Of the result.
        mode: ``own`` or ``still``.
        seed: The same seed gives the same track.

    Raises:
        AvatarError: The mode is unknown or ``train`` is empty.
    """
    if mode not in LOOPS:
        raise AvatarError(f"There is no head pose '{mode}' that repeats.", fix=f"Choose {' or '.join(LOOPS)}.")
    if len(train) == 0:
        raise AvatarError("The person's motion track is empty.", fix="Prepare the video again.")
    source = train.resample(fps)
    scale = len(source) / len(train)
    spans = [(round(a * scale), min(round(b * scale), len(source))) for a, b in segments]
    rng = np.random.default_rng(seed)
    return _still(source, spans, rng) if mode == "still" else _own(source, spans, rng)


class Unrolled:
    """A track without an end, made as it is read, forwards; holds what was read last.

    Args:
        blocks: Motion without an end.
    """

    def __init__(self, blocks: Iterator[Motion]) -> None:
        self._blocks, self._held, self._first = blocks, next(blocks), 0

    def read(self, start: int, count: int) -> Motion:
        """Frames ``start`` to ``start + count``; ``start`` must not be less than it was before."""
        if start < self._first:
            raise ValueError(f"frame {start} is gone, {self._first} is the first that is held")
        while len(self._held) < start + count - self._first:
            drop = min(start - self._first, len(self._held))
            self._held = Motion.cat([self._held[drop:], next(self._blocks)])
            self._first += drop
        return self._held[start - self._first : start - self._first + count]


def _own(source: Motion, spans: list[tuple[int, int]], rng: np.random.Generator) -> Iterator[Motion]:
    fps = source.fps
    usable = [(a, b) for a, b in spans if b - a >= LEAST_SECONDS * fps]
    usable = usable or [max(spans, key=lambda s: s[1] - s[0], default=(0, len(source)))]
    longest = max(b - a for a, b in usable)
    fade = max(1, min(round(_FADE_SECONDS * fps), longest // 3))
    weight = torch.from_numpy(0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).float()
    place, velocity = _state(source)
    opened = source.arkit[:, EYES].amax(1).numpy() < CLOSED
    used = np.zeros(len(source))  # how often each frame has been played

    def piece(start: int, stop: int) -> Motion:
        return source[torch.arange(start, stop).clamp(max=len(source) - 1)]

    start, end = _first_piece(usable, fade, rng)
    while True:
        stop = start + _length(start, end, fade, fps, opened, rng)
        used[start:stop] += 1
        here = stop - fade
        if here > start:
            yield piece(start, here)
        there, end = _next_piece(usable, here, fade, place, velocity, opened, used, rng)
        yield piece(here, stop).blend(piece(there, there + fade), weight)
        start = there + fade


def _first_piece(usable: list[tuple[int, int]], fade: int, rng: np.random.Generator) -> tuple[int, int]:
    lengths = np.array([b - a for a, b in usable], float)
    a, b = usable[int(rng.choice(len(usable), p=lengths / lengths.sum()))]
    return int(rng.integers(a, max(a + 1, min(a + (b - a) // 3, b - 2 * fade)))), b


def _length(start: int, end: int, fade: int, fps: float, opened: np.ndarray, rng: np.random.Generator) -> int:
    """How many frames a piece from ``start`` plays, its last ``fade`` frames included.

    The fade begins where the eyes are open, if that can be had nearby: half a blink looks odd.
    """
    room = end - start
    wanted = min(room, round(float(rng.uniform(*_PIECE_SECONDS)) * fps))
    if room - wanted < 2 * fade:  # do not leave a crumb
        wanted = room
    for length in range(wanted, max(2 * fade, wanted - round(fps)), -1):
        if opened[start + length - fade : start + length].all():
            wanted = length
            break
    return max(fade, wanted)


def _next_piece(
    usable: list[tuple[int, int]],
    here: int,
    fade: int,
    place: np.ndarray,
    velocity: np.ndarray,
    opened: np.ndarray,
    used: np.ndarray,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Where to go on from frame ``here``: (first frame, end of its segment)."""
    options = [(a, b) for a, b in usable if b - a > 2 * fade] or usable
    lengths = np.array([max(1, b - a - 2 * fade) for a, b in options], float)
    picks = rng.choice(len(options), _CANDIDATES, p=lengths / lengths.sum())
    starts = np.array([rng.integers(options[k][0], max(options[k][0] + 1, options[k][1] - 2 * fade)) for k in picks])
    middle = np.minimum(starts + fade // 2, len(place) - 1)
    there = min(here + fade // 2, len(place) - 1)
    cost = 4 * np.square(place[middle] - place[there]).sum(1) + np.square(velocity[middle] - velocity[there]).sum(1)
    cost += 0.2 * used[starts]  # variety
    cost += 4.0 * (np.abs(starts - here) < 2 * fade)  # not the same moment again
    cost += 4.0 * np.array([not opened[s : s + fade].all() for s in starts])
    best = int(cost.argmin())
    return int(starts[best]), options[int(picks[best])][1]


def _state(source: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Place and velocity of head and torso per frame, each in units of its own spread."""
    rigid = [getattr(source, name) for name in POSE_TRACKS if name != "torso_warp"]
    place = torch.cat([*rigid, halves(source.torso_warp)], 1).numpy()
    smooth = _smoothed(place)
    velocity = np.gradient(smooth, axis=0) if len(place) > 1 else np.zeros_like(place)
    return place / (place.std(0) + 1e-3), velocity / (velocity.std(0) + 1e-3)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Values [T, C] smoothed over time by a Gaussian of `_SMOOTH` frames, mirrored at both ends.

    The digits are those of SciPy's ``gaussian_filter1d``, whose import alone takes a fifth of a second.
    """
    reach = round(4 * _SMOOTH)
    weights = np.exp(-0.5 / _SMOOTH**2 * np.arange(-reach, reach + 1) ** 2)
    weights = weights[reach:] / weights.sum()
    padded = np.pad(values.astype(np.float64), ((reach, reach), (0, 0)), "symmetric")

    def moved(by: int) -> np.ndarray:
        return padded[reach + by : reach + by + len(values)]

    smooth = moved(0) * weights[0]
    for by in range(reach, 0, -1):
        smooth += (moved(-by) + moved(by)) * weights[by]
    return smooth.astype(values.dtype)


def _still(source: Motion, spans: list[tuple[int, int]], rng: np.random.Generator) -> Iterator[Motion]:
    seen = source.valid if bool(source.valid.any()) else torch.ones_like(source.valid)
    opened = seen & (source.arkit[:, EYES].amax(1) < CLOSED)
    calm = source[opened if bool(opened.any()) else seen]
    names = ("arkit", "face", "gaze", *POSE_TRACKS)
    held = source[:1].map(**{n: getattr(calm, n).mean(0, keepdim=True) for n in names})
    blinks = find_blinks(source, spans)
    lasting = sum(blink.stop - blink.start for blink in blinks) / source.fps
    mean_gap = max(0.5, (sum(b - a for a, b in spans) / source.fps - lasting) / max(1, len(blinks)))

    def hold(frames: int) -> Motion:
        return held[torch.zeros(frames, dtype=torch.long)]

    time, frame = 0.0, 0
    while True:
        time += float(rng.exponential(mean_gap))
        frames, frame = round(time * source.fps) - frame, round(time * source.fps)
        if frames:
            yield hold(frames)
        if not blinks:
            continue
        blink = blinks[int(rng.integers(len(blinks)))]
        piece = source[slice(blink.start, blink.stop)]
        block, count = hold(len(piece)), torch.arange(len(piece))
        fade = ((1 + torch.minimum(count, count.flip(0))) / 3).clamp(max=1)[:, None]
        arkit, face = block.arkit.clone(), block.face.clone()
        arkit[:, EYES] += fade * (piece.arkit[:, EYES] - arkit[:, EYES])
        face[:, LIDS] += fade * (piece.face[:, LIDS] - face[:, LIDS])
        yield block.map(arkit=arkit, face=face)
        time += len(piece) / source.fps
        frame += len(piece)
