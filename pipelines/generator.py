"""Learn the shared weights of generated head motion, and measure it: plausible, alive, different, steady, no seams?

    python -m pipelines.generator --learn PERSON=RUN --persons PERSON=RUN --sound SPEECH.wav --out DIR --json FILE

For each person a generator learns from the training part without its last tenth (`--part development`), or from all of
it (`--part test`), and is compared with what was left out, with the loop of the same piece (`--pose own`), and with how
the two halves of that piece compare with each other. docs/notes/headmotion.md explains the numbers.
"""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import torch
import tyro
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter1d
from scipy.stats import wasserstein_distance

from avatar import log
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.features import features_at
from avatar.data import PersonDataset
from avatar.data.run import HEADMOTION
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.headmotion.flow import RATE, WEIGHTS, WINDOW, FlowNet, Response, around, save_flow, shared_flow
from avatar.headmotion.generator import MotionGenerator, training_track
from avatar.headmotion.loop import pose_track
from avatar.headmotion.normalizer import CHANNELS, UpperFaceNormalizer, upper_channels
from avatar.headmotion.training import Windows, fit_flow, fit_forecast, flow_loss, windows_of
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio
from avatar.motion import Motion
from avatar.motion.arkit import MOUTH
from avatar.motion.blinks import CLOSED, EYES, find_blinks
from avatar.motion.face_channels import LIP_CHANNELS
from avatar.paths import write_json

SEEDS = 4
SAID_SECONDS = 10  # of the sound, for lips
FOLDS = 3  # of the comparison of weights
LEARNING_STEPS = 400
PIECE = 50  # rows of a window of the Frechet distance
DIMENSIONS = 16  # of these windows that count
SACCADE = np.radians(20.0)  # per second: faster is no fixation
Segments = list[tuple[int, int]]


@dataclass(frozen=True)
class Config:
    """What to measure."""

    persons: tuple[str, ...]
    """PERSON=RUN, prepared and trained: who is measured."""
    sound: Path
    """Speech that none of them said."""
    out: Path
    """Folder for plots and the generators."""
    json: Path
    """Where the numbers go."""
    part: Literal["development", "test"] = "development"
    """What is left out of learning, and compared with: the last tenth of the training part, or the test part."""
    learn: str | None = None
    """PERSON=RUN whose training part the shared weights are learnt from; they may be published."""
    weights: Path = WEIGHTS
    """Where the shared weights go."""
    compare: bool = False
    """Also what shared weights, own ones, and own ones that began as shared ones say about left-out thirds."""
    hour: bool = False
    """Also an hour, for drift and memory."""


@dataclass
class Track:
    """A motion at `RATE` and what is known about it.

    Attributes:
        motion: T rows.
        segments: Without a cut inside.
        z: [T, C] in the person's spreads, eyes open.
        loudness: [T] dB.
    """

    motion: Motion
    segments: Segments
    z: np.ndarray
    loudness: np.ndarray

    def pieces(self, order: int) -> np.ndarray:
        """[n, C] place (0), velocity (1) or acceleration (2) per second, nothing across cuts."""
        return np.concatenate([np.diff(self.z[a:b], order, axis=0) * RATE**order for a, b in self.segments])


def main(config: Config) -> None:
    """Measure all persons."""
    torch.set_num_threads(1)
    if config.learn is not None:
        learn(*folders(config.learn), config.weights)
    novel = load_audio(config.sound)
    results: dict[str, Any] = environment() | {"part": config.part, "sound_seconds": round(len(novel) / SAMPLE_RATE, 1)}
    for pair in config.persons:
        person, run = folders(pair)
        log.info(f"{person} ...")
        results[person.stem] = measure(person, run, novel, config)
        write_json(config.json, results)


def folders(pair: str) -> tuple[Path, Path]:
    """PERSON and RUN of ``PERSON=RUN``."""
    person, _, run = pair.partition("=")
    if not run:
        raise AvatarError(f"{pair} is not PERSON=RUN.")
    return Path(person), Path(run)


def learn(person: Path, run: Path, weights: Path) -> None:
    """The shared weights, from the training part of one person."""
    data = PersonDataset(person)
    motion = Motion.load(run / "motion.safetensors")
    windows, _ = windows_of_person(motion, clipped(data.segments, 0, len(motion)), data)
    net = fit_flow(FlowNet(), windows, fit_forecast(windows), listens=True, steps=LEARNING_STEPS)
    save_flow(net, weights, {"seconds": round(len(motion) / motion.fps), "steps": LEARNING_STEPS})


def windows_of_person(
    motion: Motion, segments: Segments, data: PersonDataset, left_out: slice | None = None
) -> tuple[Windows, Windows]:
    """What there is to learn from a person's motion, from the first frame on, and what a left-out part of it holds."""
    delay = data.info.audio_delay_s
    track, spans, speech = training_track(motion, segments, load_audio(data.audio_path), delay)
    low, high = (0, 0) if left_out is None else (left_out.start, left_out.stop)
    seen = clipped(spans, 0, low) + clipped(spans, high, len(track))
    rows = torch.cat([torch.arange(a, b) for a, b in seen])
    ends = np.cumsum([0, *(b - a for a, b in seen)]).tolist()
    z = UpperFaceNormalizer.of(track[rows], list(itertools.pairwise(ends))).normalise(track, spans)
    response = Response.of(z[rows], speech[rows])(around(speech))
    parts = (seen, clipped(spans, low, high))
    learnt, held = (windows_of(z, response, speech, track.valid, part) for part in parts)
    return learnt, held


def compare(motion: Motion, segments: Segments, data: PersonDataset) -> dict[str, list[float]]:
    """Flow loss on left-out thirds: of the Gaussian alone, and with each kind of weights."""
    losses: dict[str, list[float]] = {"gaussian": [], "shared": [], "own": [], "shared_then_own": []}
    count = len(motion.resample(RATE))
    for k in range(FOLDS):
        windows, held = windows_of_person(motion, segments, data, slice(k * count // FOLDS, (k + 1) * count // FOLDS))
        base = fit_forecast(windows)
        repeated = held[np.tile(np.arange(len(held)), 4)]
        noise = torch.randn(len(repeated), len(base.size), generator=torch.Generator().manual_seed(0))
        time = torch.rand(len(repeated), generator=torch.Generator().manual_seed(1))
        nets = {"gaussian": FlowNet().eval(), "shared": shared_flow()}
        nets["own"] = fit_flow(FlowNet(), windows, base, True)
        nets["shared_then_own"] = fit_flow(shared_flow(), windows, base, True)
        for name, net in nets.items():
            with torch.no_grad():
                loss = flow_loss(net, base, repeated, torch.ones(len(repeated)), noise, time)
            losses[name].append(round(float(loss), 4))
    return losses


def clipped(segments: Segments, low: int, high: int) -> Segments:
    """The parts of segments between two frames."""
    return [(max(a, low), min(b, high)) for a, b in segments if max(a, low) < min(b, high)]


def measure(person: Path, run: Path, novel: np.ndarray, config: Config) -> dict[str, Any]:
    """All numbers of one person."""
    data = PersonDataset(person)
    motion = data.steady_motion(Motion.load(run / "tracking.safetensors"))
    last = data.test_start if config.part == "development" else data.num_frames
    first = round(0.9 * last) if config.part == "development" else data.test_start
    offset = data.info.audio_delay_frames
    samples = load_audio(data.audio_path)
    learnt, segments = motion[:first], clipped(data.segments, 0, first)
    generator = MotionGenerator.fit(learnt, segments, samples, offset / motion.fps)
    folder = config.out / person.stem
    folder.mkdir(parents=True, exist_ok=True)
    generator.save(folder / HEADMOTION)
    learnt.save(folder / "motion.safetensors")

    resampled = motion.resample(RATE)
    scale = len(resampled) / len(motion)
    cut = [(round(a * scale), min(round(b * scale), len(resampled))) for a, b in data.segments]
    middle, end = round(first * scale), round(last * scale)
    loud = features_at(SpeechEncoder(()), samples, RATE, len(resampled), offset * RATE / motion.fps).energy
    normalizer = UpperFaceNormalizer.of(resampled[:middle], clipped(cut, 0, middle))

    def real(a: int, b: int) -> Track:
        spans = [(low - a, high - a) for low, high in clipped(cut, a, b)]
        return Track(resampled[a:b], spans, normalizer.normalise(resampled[a:b], spans).numpy(), loud[a:b])

    def track(made: Motion, loudness: np.ndarray) -> Track:
        spans = [(0, len(made))]
        return Track(made, spans, normalizer.normalise(made, spans).numpy(), loudness)

    novel_loud = features_at(SpeechEncoder(()), novel, RATE).energy
    count = len(novel_loud)
    made = [track(generate(generator, novel, count, seed=s), novel_loud) for s in range(SEEDS)]
    loops = [track(pose_track(learnt, segments, count, RATE, "own", s), novel_loud) for s in range(SEEDS)]
    whole, held = real(0, middle), real(middle, end)
    halves = real(0, middle // 2), real(middle // 2, middle)
    result: dict[str, Any] = {
        "learnt_seconds": round(first / motion.fps, 1),
        "held_out_seconds": round((last - first) / motion.fps, 1),
        "distance": {
            "held_out": distance([whole], [held]), "halves": distance([halves[0]], [halves[1]]),
            "generated": distance([whole], made), "loop": distance([whole], loops),
        },
        "behaviour": {
            "own": behaviour([whole]), "held_out": behaviour([held]), "first_half": behaviour([halves[0]]),
            "second_half": behaviour([halves[1]]), "generated": behaviour(made), "loop": behaviour(loops),
        },
        "seams": seams(made),
        "diversity": diversity(folder, data, novel[: SAID_SECONDS * SAMPLE_RATE]),
    }  # fmt: skip
    silence = [track(generate(generator, np.zeros(0, np.float32), count, seed=s), novel_loud) for s in range(2)]
    result["speed_in_silence"] = {
        "generated": energy_of(silence), "own_quiet": quiet_energy([whole]), "own": energy_of([whole])
    }  # fmt: skip
    if config.compare:
        result["flow_loss"] = compare(learnt, segments, data)
    if config.hour:
        result["hour"] = an_hour(generator, novel)
    plot(folder / "tracks.png", held, whole, generator, samples, middle, offset / motion.fps, loops[0])
    return result


def generate(generator: MotionGenerator, sound: np.ndarray, rows: int, **options: Any) -> Motion:
    """``rows`` rows at `RATE`."""
    stream = generator.open(RATE, **options)
    blocks = [stream.push(chunk) for chunk in chunked(sound)]
    return Motion.cat([*blocks, stream.finish(rows)])[:rows]


def distance(first: list[Track], second: list[Track]) -> dict[str, Any]:
    """Wasserstein distances per group of channels, in spreads of the first, and the Frechet distance over windows."""
    groups = {"turn": slice(0, 3), "place": slice(3, 6), "gaze": slice(6, 8), "brows": slice(8, 12)}
    result: dict[str, Any] = {}
    for order, name in enumerate(("place", "velocity", "acceleration")):
        a, b = (np.concatenate([t.pieces(order) for t in tracks]) for tracks in (first, second))
        each = [wasserstein_distance(a[:, c], b[:, c]) / a[:, c].std() for c in range(len(CHANNELS))]
        result[name] = {group: round(float(np.mean(each[part])), 3) for group, part in groups.items()}
    result["frechet"] = round(frechet(first, second), 3)
    return result


def frechet(first: list[Track], second: list[Track]) -> float:
    """Frechet distance of windows of 2 s, in the first's main directions, each in its own standard deviation."""

    def windows(tracks: list[Track]) -> np.ndarray:
        parts = [
            t.z[s : s + PIECE : 2].ravel()
            for t in tracks for a, b in t.segments for s in range(a, b - PIECE + 1, 5)
        ]  # fmt: skip
        return np.stack(parts)

    a, b = windows(first), windows(second)
    middle = a.mean(0)
    _, sizes, modes = np.linalg.svd(a - middle, full_matrices=False)
    modes = modes[:DIMENSIONS] / (sizes[:DIMENSIONS, None] / np.sqrt(len(a)))
    a, b = (a - middle) @ modes.T, (b - middle) @ modes.T
    ca, cb = np.cov(a.T), np.cov(b.T)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb))))


def behaviour(tracks: list[Track]) -> dict[str, float | None]:
    """Blinks, fixations, brows, and how head motion goes with loudness."""
    minutes = sum(len(t.z) for t in tracks) / RATE / 60
    blinks = [(t, b) for t in tracks for b in find_blinks(t.motion, t.segments)]
    closed = [float((t.motion.arkit[b][:, EYES].mean(1) >= CLOSED).sum()) / RATE for t, b in blinks]
    lasting: list[float] = []
    jumps = 0
    for t in tracks:
        gaze = upper_channels(t.motion, t.segments)[0][:, 6:8].numpy()  # radians, bridged over blinks
        for a, b in t.segments:
            steps = np.linalg.norm(np.diff(gaze[a:b], axis=0), axis=1) * RATE
            fast = np.r_[True, steps > SACCADE, True]
            edges = np.flatnonzero(fast)
            lasting += [d / RATE for d in np.diff(edges) if d > 2]
            jumps += int(((steps[1:] > SACCADE) & (steps[:-1] <= SACCADE)).sum())
    brows = np.concatenate([np.abs(t.pieces(1)[:, 8:12]) for t in tracks])
    return {
        "blinks_per_minute": round(len(blinks) / minutes, 1),
        "blink_seconds": round(float(np.median(closed)), 3) if closed else None,
        "saccades_per_second": round(jumps / minutes / 60, 2),
        "fixation_seconds": round(float(np.median(lasting)), 2) if lasting else None,
        "brow_speed": round(float(brows.mean()), 3),
        "energy_with_loudness": correlation(tracks),
    }  # fmt: skip


def head_energy(track: Track) -> Iterator[tuple[np.ndarray, slice]]:
    """Smoothed speed of the head's rotation, spreads per second, of each segment."""
    for a, b in track.segments:
        if b - a > RATE:
            speed = np.linalg.norm(np.gradient(track.z[a:b, :3], axis=0), axis=1) * RATE
            yield gaussian_filter1d(speed, 0.2 * RATE), slice(a, b)


def correlation(tracks: list[Track]) -> float:
    """Of motion energy with loudness, both smoothed over 0.2 s."""
    energy, loud = [], []
    for t in tracks:
        for speed, part in head_energy(t):
            energy.append(speed)
            loud.append(gaussian_filter1d(np.clip(t.loudness[part], -60, None), 0.2 * RATE))
    return round(float(np.corrcoef(np.concatenate(energy), np.concatenate(loud))[0, 1]), 3)


def energy_of(tracks: list[Track]) -> float:
    """Mean speed of the head's rotation, spreads per second."""
    return round(float(np.concatenate([speed for t in tracks for speed, _ in head_energy(t)]).mean()), 3)


def quiet_energy(tracks: list[Track]) -> float:
    """The same where little is heard: the most quiet tenth."""
    speed = np.concatenate([s for t in tracks for s, _ in head_energy(t)])
    loud = np.concatenate([gaussian_filter1d(t.loudness[p], 0.2 * RATE) for t in tracks for _, p in head_energy(t)])
    return round(float(speed[loud <= np.quantile(loud, 0.1)].mean()), 3)


def seams(tracks: list[Track]) -> dict[str, float]:
    """Speed and acceleration of the head's rotation where windows meet, as a multiple of elsewhere (medians)."""
    result = {}
    for order, name in ((1, "velocity"), (2, "acceleration")):
        at, elsewhere = [], []
        for t in tracks:
            values = np.linalg.norm(np.diff(t.z[:, :6], order, axis=0), axis=1)
            joins = np.zeros(len(values), bool)
            for shift in range(order):
                joins[WINDOW - 1 - shift :: WINDOW] = True
            at.append(values[joins])
            elsewhere.append(values[~joins])
        result[name] = round(float(np.median(np.concatenate(at)) / np.median(np.concatenate(elsewhere))), 3)
    return result


def diversity(folder: Path, data: PersonDataset, samples: np.ndarray) -> dict[str, float]:
    """Variance over seeds of head pose and of lips as shares of the person's own, through :func:`plan_motion`."""
    from avatar.audio2motion.base import AudioToMotion, motion_of
    from avatar.audio2motion.shared import SharedPrior
    from avatar.infer.avatar import Avatar
    from avatar.infer.controls import Controls
    from avatar.infer.planner import plan_motion

    learnt = Motion.load(folder / "motion.safetensors")
    said = motion_of(SharedPrior.load().person(learnt, learnt.fps), samples)  # predicted once, for all seeds
    stream = SimpleNamespace(push=lambda _: said[:0], finish=lambda: said)
    speech = cast(AudioToMotion, SimpleNamespace(fps=said.fps, look_ahead=0.0, open=lambda: stream))
    avatar = cast(Avatar, SimpleNamespace(run=folder, fps=learnt.fps, person=data.info))
    shown = []
    for seed in range(SEEDS):
        controls = Controls(pose=("generated",), seed=seed)
        plan = plan_motion(avatar, controls, frames=len(said), speech=speech)
        shown.append(Motion.cat(list(plan.stream(chunked(samples)))))

    def share(name: str, columns: list[int]) -> float:
        values = torch.stack([getattr(m, name)[:, columns] for m in shown])
        return float(values.var(0).mean() / getattr(learnt, name)[:, columns].var(0).mean())

    eyes = torch.stack([m.arkit[:, EYES[0]] > CLOSED for m in shown]).float()
    return {
        "head_rotation": round(share("head_rotation", [0, 1, 2]), 3),
        "head_translation": round(share("head_translation", [0, 1, 2]), 3),
        "gaze": round(share("gaze", [0, 1]), 3),
        "lips": round(share("face", list(LIP_CHANNELS)), 6),
        "mouth_coefficients": round(share("arkit", list(MOUTH)), 6),
        "blinks_together": round(float((eyes.sum(0) > 1).sum() / (eyes.sum(0) > 0).sum().clamp(min=1)), 3),
    }


def an_hour(generator: MotionGenerator, sound: np.ndarray) -> dict[str, Any]:
    """Drift and memory over an hour of speech, the same minute again and again."""
    stream = generator.open(RATE)
    rows: list[torch.Tensor] = []
    memory = {}
    total = 0
    for chunk in itertools.chain.from_iterable(chunked(sound) for _ in itertools.count()):
        block = stream.push(chunk)
        rows.append(torch.cat([block.head_rotation, block.head_translation], 1))
        total += len(block)
        minute = total // round(60 * RATE)
        if minute in (5, 60) and minute not in memory:
            memory[minute] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if minute >= 60:
            break
    track = torch.cat(rows)
    five = round(300 * RATE)
    first, last = track[:five], track[-five:]
    minutes = track.unflatten(0, (-1, five // 5))[:60].mean(1) if len(track) % (five // 5) == 0 else None
    moved, ratio = (last.mean(0) - first.mean(0)).abs() / first.std(0), last.std(0) / first.std(0)
    return {
        "moved_in_spreads_of_first_five_minutes": [round(v, 3) for v in moved.tolist()],
        "spread_last_to_first": [round(v, 3) for v in ratio.tolist()],
        "largest_minute_in_spreads": None if minutes is None else
            round(float(((minutes - first.mean(0)).abs() / first.std(0)).max()), 3),
        "peak_memory_mb": {f"{k} min": round(v) for k, v in memory.items()},
        "numbers_kept_by_this_test_mb": round(track.numel() * 4 / 2**20, 1),
    }  # fmt: skip


def plot(
    path: Path, held: Track, whole: Track, generator: MotionGenerator, samples: np.ndarray, middle: int,
    offset: float, loop: Track,
) -> None:  # fmt: skip
    """The last 20 s that were learnt and what was held out, and two samples and a loop beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    start = max(0, middle - round(20 * RATE))
    real = np.concatenate([whole.z[start:], held.z])
    begin = max(0, round((start / RATE + offset) * SAMPLE_RATE))
    made = [generate(generator, samples[begin:], len(real), seed=s) for s in (0, 1)]
    columns = [real, *(generator.normalizer.normalise(m, [(0, len(m))]).numpy() for m in made), loop.z[: len(real)]]
    names = ("pitch", "yaw", "roll", "x", "y", "gaze_yaw", "gaze_pitch", "brow_left_inner_y", "lids")
    figure, axes = plt.subplots(len(names), 4, figsize=(22, 2 * len(names)), sharey="row", sharex=True)
    for c, (z, title) in enumerate(zip(columns, ("real", "generated, seed 0", "seed 1", "loop"), strict=True)):
        axes[0, c].set_title(title)
        for r, name in enumerate(names):
            axes[r, c].plot(np.arange(len(z)) / RATE, z[:, CHANNELS.index(name)], lw=1)
            axes[r, 0].set_ylabel(name)
    loud = np.concatenate([whole.loudness[start:], held.loudness])
    for c in range(3):
        axes[0, c].plot(np.arange(len(loud)) / RATE, (loud + 40) / 20, lw=0.5, color="gray")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    plt.close(figure)


if __name__ == "__main__":
    with log.on_terminal():
        main(tyro.cli(Config))
