"""Training of a person's speech network on the person's own track, in seconds.

Each member leaves out another fifth of the training part. What each predicts of the fifth it has not seen tells how
well it works, and by how much such networks under-open the mouth, which the gain then makes up for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar import log
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.features import features_at
from avatar.audio.vad import HOLD_SECONDS, VoiceActivityDetector
from avatar.audio2motion.pauses import choose_pause, closed_mouth, mouth_opening, opening_correlation
from avatar.audio2motion.personal import MOST_SHARE, REACH, MouthNet, PersonalSpeech
from avatar.device import cpu_threads
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.io.listening import moments_db, voice_level
from avatar.motion import Motion
from avatar.motion.mouth import FACE, MOUTH, mouth_channels, opening_weights

MEMBERS = 5
_LEAST_SECONDS = 3.0  # of tracked face
_WINDOW, _BATCH = 100, 8  # frames, windows per step
_LEAST_WINDOW = 4  # frames
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 1e-2
_NOISE, _MASK = 0.1, 6  # feature noise (standard deviations), longest masked span (frames)
_GAP_SECONDS = 0.5  # kept out of training around a member's left-out fifth
_SPEEDS = (0.9, 1.1)  # voices are higher and faster, or deeper and slower, than this person's
_QUIET_SHARE = 0.15  # of the audio that one training copy replaces by silence or noise
_PAUSES = (HOLD_SECONDS, 0.4, 0.6)  # seconds, the choices for how long a pause leaves the mouth to the networks
_MAX_GAIN = 1.5
# Opening correlation on left-out fifths: up to the first the network has no share in the ensemble, from the second on
# all that it can have. Networks of a few seconds, and of audio that the lips do not follow, are below.
_USELESS, _USEFUL = 0.3, 0.5
_GAIN_POWER = 0.7  # how much of the lost variance to restore: all of it would exaggerate wrong guesses as well


class TooLittleFace(AvatarError):
    """The face was tracked too rarely to teach a personal speech network."""


def train_personal(
    motion: Motion,
    samples: np.ndarray,
    encoder: SpeechEncoder,
    audio_delay_s: float = 0.0,
    *,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PersonalSpeech:
    """Train on a motion track and the audio that goes with it.

    Args:
        motion: The training part, T frames.
        samples: [N] 16 kHz mono, from frame 0 on. What comes after the training part is not used.
        encoder: Makes the speech features.
        audio_delay_s: Seconds by which the audio comes after the video.
        seed: The same seed and data give the same network.
        steps: Training steps per member. None: 300, more for long videos.
        progress: Called with (steps done, steps in all). None: a progress bar.

    Raises:
        TooLittleFace: Less than 3 s of the face were tracked, or only snatches.
    """
    if int(motion.valid.sum()) < _LEAST_SECONDS * motion.fps:
        raise TooLittleFace(
            f"Less than {_LEAST_SECONDS:g} s of tracked face cannot teach a speech network.", fix="Use a longer video."
        )
    material = _Material.of(motion, samples, encoder, audio_delay_s, seed)
    steps = steps or int(np.clip(300 * len(motion) / (60 * motion.fps), 300, 800))
    members, unseen, judged = _train_members(material, steps, seed, progress)
    if judged.sum() < motion.fps:
        raise TooLittleFace("The tracked face comes in snatches that cannot teach a speech network.",
                            fix="Use a longer video.")  # fmt: skip
    return _assembled(material, members, unseen, judged, encoder, steps)


@dataclass
class _Copy:
    """One version of the training data.

    Attributes:
        inputs: [n, F + 1] features, and loudness relative to the voice.
        targets: [n, C].
        energy: [n] dB.
        source: [n] the frame of the video that each row comes from.
        usable: [n] whether it was tracked.
    """

    inputs: np.ndarray
    targets: np.ndarray
    energy: np.ndarray
    source: np.ndarray
    usable: np.ndarray


@dataclass(frozen=True)
class _Track:
    """What there is of the person.

    Attributes:
        samples: [N] the audio of the training part.
        encoder: Makes the speech features.
        fps: Frames per second.
        offset: Frames by which the audio comes after the video.
        targets: [T, C] mouth channels.
        valid: [T] whether the frame was tracked.
    """

    samples: np.ndarray
    encoder: SpeechEncoder
    fps: float
    offset: float
    targets: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class _Material:
    """What the members learn from, standardised.

    Attributes:
        track: What it was made from.
        copies: Versions of the training data; the first one is the data as it is.
        rest: [C] the person's closed mouth.
        input_mean, input_std: [F].
        output_mean, output_std: [C].
    """

    track: _Track
    copies: list[_Copy]
    rest: np.ndarray
    input_mean: np.ndarray
    input_std: np.ndarray
    output_mean: np.ndarray
    output_std: np.ndarray

    @staticmethod
    def of(motion: Motion, samples: np.ndarray, encoder: SpeechEncoder, audio_delay_s: float, seed: int) -> _Material:
        """Make the copies, and standardise them."""
        fps, valid, targets = motion.fps, motion.valid.numpy(), mouth_channels(motion)
        offset = round(audio_delay_s * fps, 6)  # undoes the division that made seconds of frames
        samples = samples[: max(0, round((len(motion) + offset) / fps * SAMPLE_RATE))]
        track = _Track(samples, encoder, fps, offset, targets, valid)
        rng = np.random.default_rng(seed)
        copies = [_copy(track, 1.0)]
        rest = closed_mouth(targets, _activity(copies[0].energy, fps)[1], valid)
        copies += [_copy(track, speed) for speed in _SPEEDS]
        copies.append(_quiet_copy(track, rest, rng))
        copies += [_noise_copy(noise, encoder, fps, rest) for noise in _noises(rng)]
        inputs = copies[0].inputs[valid]
        input_mean, input_std = inputs.mean(0), inputs.std(0) + 1e-3
        output_mean, output_std = targets[valid].mean(0), targets[valid].std(0) + 1e-4
        for copy in copies:
            copy.inputs = np.clip((copy.inputs - input_mean) / input_std, -6, 6).astype(np.float32)
            copy.targets = ((copy.targets - output_mean) / output_std).astype(np.float32)
        return _Material(track, copies, rest, input_mean, input_std, output_mean, output_std)


def _train_members(
    material: _Material, steps: int, seed: int, progress: Callable[[int, int], None] | None
) -> tuple[list[MouthNet], np.ndarray, np.ndarray]:
    """The members, what each predicts [T, C] of the fifth it has not seen, standardised, and [T] what can be judged.

    Where only noise is left to learn from there is no member, and no prediction of that fifth.
    """
    members: list[MouthNet] = []
    inputs, fps = material.copies[0].inputs, material.track.fps
    count, channels = material.track.targets.shape
    unseen, judged = np.zeros((count, channels), np.float32), material.track.valid.copy()
    edges = np.linspace(0, count, MEMBERS + 1).astype(int)
    spread = material.output_std[: len(FACE)]
    weight = torch.from_numpy(np.r_[opening_weights() * spread, np.zeros(len(MOUTH))]).float()
    # Networks this small only lose time on more threads; and so the result does not depend on their number.
    with _Progress(progress, MEMBERS * steps) as tick, cpu_threads(1):
        for i, (start, end) in enumerate(itertools.pairwise(edges)):
            net = _train(material.copies, (start, end), _GAP_SECONDS * fps, weight, steps, seed * MEMBERS + i, tick)
            if net is None:
                judged[start:end] = False
                continue
            members.append(net)
            low, high = max(0, start - REACH), min(count, end + REACH)
            with torch.no_grad():
                y = net(torch.from_numpy(inputs[None, low:high]))[0]
            unseen[start:end] = y[start - low : start - low + end - start].numpy()
    return members, unseen, judged


def _assembled(
    material: _Material,
    members: list[MouthNet],
    unseen: np.ndarray,
    judged: np.ndarray,
    encoder: SpeechEncoder,
    steps: int,
) -> PersonalSpeech:
    """The network with the gain and the pause that do best on unseen parts."""
    own, rest, fps, targets = material.copies[0], material.rest, material.track.fps, material.track.targets
    gain = _gains(unseen[judged], own.targets[judged], members, own.inputs)
    free = unseen * gain * material.output_std + material.output_mean
    gates = {pause: _activity(own.energy, fps, pause)[1][judged] for pause in _PAUSES}
    pause = choose_pause(free[judged], targets[judged], rest, gates)
    predicted = rest + _activity(own.energy, fps, pause)[1][:, None] * (free - rest)
    opening, real = mouth_opening(predicted[judged]), mouth_opening(targets[judged])
    correlation = round(opening_correlation(predicted[judged], targets[judged]), 3)
    report: dict[str, Any] = {
        "opening_correlation": correlation,
        "opening_std_ratio": round(float(opening.std() / (real.std() + 1e-9)), 3),
        "frames": int(material.track.valid.sum()),
        "steps": steps,
    }
    arrays = {name: getattr(material, name) for name in ("input_mean", "input_std", "output_mean", "output_std")}
    tensors = {name: torch.from_numpy(array).float() for name, array in (arrays | {"gain": gain, "rest": rest}).items()}
    return PersonalSpeech(
        fps=fps, encoder=encoder, members=members, pause=pause, report=report,
        voice_db=voice_level(moments_db(material.track.samples)), share=share_of(correlation), **tensors,
    )  # fmt: skip


def share_of(correlation: float) -> float:
    """Weigh a personal network in the ensemble by its ``correlation`` of the opening on left-out fifths: 0 to 0.5."""
    return MOST_SHARE * float(np.clip((correlation - _USELESS) / (_USEFUL - _USELESS), 0, 1))


def _copy(track: _Track, speed: float) -> _Copy:
    """The training data played at another speed (and pitch)."""
    samples, targets, valid = track.samples, track.targets, track.valid
    if speed != 1:
        import soxr

        samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE).astype(np.float32)
    count = int(len(targets) / speed)
    audio = features_at(track.encoder, samples, track.fps, count, track.offset / speed)
    loudness = _activity(audio.energy, track.fps)[0]
    source = np.minimum(np.arange(count) * speed, len(targets) - 1)
    low = source.astype(int)
    high = np.minimum(low + 1, len(targets) - 1)
    mix = (source - low)[:, None]
    return _Copy(
        np.c_[audio.features, loudness],
        targets[low] * (1 - mix) + targets[high] * mix,
        audio.energy,
        source,
        valid[low] & valid[high],
    )


def _quiet_copy(track: _Track, rest: np.ndarray, rng: np.random.Generator) -> _Copy:
    """The training data with stretches of silence or noise in place of speech, where the mouth is at rest."""
    samples, fps = track.samples.copy(), track.fps
    count = len(track.targets)
    talking = np.ones(count)
    level = float(np.sqrt(np.mean(np.square(samples)))) + 1e-6
    for _ in range(max(2, round(_QUIET_SHARE * count / fps / 1.5))):
        seconds = rng.uniform(0.7, 2.5)
        start = rng.uniform(0, max(0.1, count / fps - seconds))
        a, b = (round((start + d) * SAMPLE_RATE) for d in (0, seconds))
        noise = rng.standard_normal(max(0, min(b, len(samples)) - a)).astype(np.float32)
        pink = rng.random() < 0.5  # rooms and streets
        if pink and len(noise) >= 40:  # where the audio ends before the video, less may be left
            noise = np.convolve(noise, np.exp(-np.arange(40) / 12), "same").astype(np.float32) / 2.5
        samples[a : a + len(noise)] = noise * level * (0 if rng.random() < 0.3 else 10 ** rng.uniform(-3, -0.3))
        first = start * fps - track.offset
        frames = np.arange(count)
        distance = np.minimum(frames - first, first + seconds * fps - frames)  # positive inside
        talking = np.minimum(talking, np.clip(1 - (distance - 1) / 3, 0, 1))
    audio = features_at(track.encoder, samples, fps, count, track.offset)
    inputs = np.c_[audio.features, _activity(audio.energy, fps)[0]]
    mixed = rest + talking[:, None] * (track.targets - rest)
    return _Copy(inputs, mixed, audio.energy, np.arange(count, dtype=float), track.valid)


def _noises(rng: np.random.Generator, seconds: float = 6.0) -> list[np.ndarray]:
    """Sounds that nobody makes with the mouth: nothing, hiss, rumble, hum, each loud and soft."""
    count = round(seconds * SAMPLE_RATE)
    white = rng.standard_normal(count).astype(np.float32)
    rumble = np.convolve(rng.standard_normal(count), np.exp(-np.arange(60) / 15), "same").astype(np.float32) / 3
    time = np.arange(count) / SAMPLE_RATE
    mains = np.sum([np.sin(2 * np.pi * 50 * k * time + k) / k for k in (1, 2, 3, 5)], axis=0)
    hum = mains.astype(np.float32) + 0.05 * white
    swell = np.geomspace(0.001, 0.2, count).astype(np.float32)
    return [np.zeros(count, np.float32), white * swell, rumble * swell[::-1], hum * swell, (white + rumble) * 0.03]


def _noise_copy(noise: np.ndarray, encoder: SpeechEncoder, fps: float, rest: np.ndarray) -> _Copy:
    """Noise, to which the mouth stays at rest; belongs to no part of the video."""
    audio = features_at(encoder, noise, fps)
    count = len(audio)
    return _Copy(
        np.c_[audio.features, _activity(audio.energy, fps)[0]],
        np.repeat(rest[None], count, 0),
        audio.energy,
        np.full(count, -np.inf),
        np.ones(count, bool),
    )


def _activity(energy: np.ndarray, fps: float, pause: float = HOLD_SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Loudness relative to the voice [T] and the gate [T]."""
    return VoiceActivityDetector(fps, pause).judge(energy)


def _windows(copies: list[_Copy], left_out: tuple[int, int], gap: float) -> tuple[int, list[tuple[int, int]]]:
    """How long training windows are, and where each begins: (copy, row). None where no speech fills the shortest.

    A short track, or one with many gaps, is cut into shorter windows: noise alone would teach a closed mouth.
    """
    window = min(_WINDOW, min(len(c.source) for c in copies) // 2)
    while window >= _LEAST_WINDOW:
        starts: list[tuple[int, int]] = []
        speech = False
        for i, copy in enumerate(copies):
            usable = copy.usable & ((copy.source < left_out[0] - gap) | (copy.source >= left_out[1] + gap))
            whole = np.convolve(usable, np.ones(window), "valid") >= window  # all of the window may be used
            starts += [(i, int(s)) for s in np.flatnonzero(whole)]
            speech |= bool(whole.any() and np.isfinite(copy.source[0]))  # noise is of no frame
        if speech:
            return window, starts
        window //= 2
    return window, []


def _train(
    copies: list[_Copy],
    left_out: tuple[int, int],
    gap: float,
    weight: Tensor,
    steps: int,
    seed: int,
    tick: Callable[[], None],
) -> MouthNet | None:
    """One member, trained on every copy but for a stretch of the video; None where that leaves no speech."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    window, starts = _windows(copies, left_out, gap)
    if not starts:
        for _ in range(steps):
            tick()
        return None
    inputs = [torch.from_numpy(c.inputs) for c in copies]
    targets = [torch.from_numpy(c.targets) for c in copies]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MouthNet(inputs[0].shape[1], targets[0].shape[1]).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.15)
        for _ in range(steps):
            picks = [starts[k] for k in rng.integers(0, len(starts), _BATCH)]
            x = torch.stack([inputs[i][s : s + window] for i, s in picks])
            y = torch.stack([targets[i][s : s + window] for i, s in picks])
            x = x + _NOISE * torch.randn(x.shape, generator=generator)
            for b in range(_BATCH):
                at = int(rng.integers(0, max(1, window - _MASK)))
                x[b, at : at + int(rng.integers(1, _MASK + 1))] = 0
            error = net(x) - y
            opening = error @ weight  # centimetres
            loss = error.square().mean() + error.diff(dim=1).square().mean() + opening.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            tick()
    return net.eval()


def _gains(unseen: np.ndarray, real: np.ndarray, members: list[MouthNet], inputs: np.ndarray) -> np.ndarray:
    """[C] what to multiply predictions with, so that they move about as much as the person does."""
    with torch.no_grad():
        each = torch.stack([m(torch.from_numpy(inputs)[None])[0] for m in members])
    damping = (each.mean(0).std(0) / each.std(1).mean(0)).numpy()  # of averaging the members
    ratio = real.std(0) / (unseen.std(0) * damping + 1e-6)
    return np.clip(ratio**_GAIN_POWER, 1, _MAX_GAIN)


class _Progress:
    """Calls ``progress(done, total)``, or shows a bar."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._call, self._total, self._done = progress, total, 0

    def __enter__(self) -> Callable[[], None]:
        self._bar = None if self._call else log.progress()
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("speech", total=self._total, info="")
        return self._tick

    def _tick(self) -> None:
        self._done += 1
        if self._call:
            self._call(self._done, self._total)
        elif self._bar:
            self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
