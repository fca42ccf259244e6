"""Speech to lips for one person: a few small temporal networks, trained on the person's own track in seconds.

Each of the networks leaves out another fifth of the training part. Their mean drives the mouth; what each says about
the fifth it has not seen tells honestly how well it works and by how much such networks under-open the mouth, which
is then made up for. In silence a gate leads the mouth to the person's closed lips.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from avatar import log
from avatar.audio.encoders.base import SpeechEncoder, build_encoder, features_at, speech_encoder, stream_features
from avatar.audio.vad import HOLD_SECONDS, VoiceActivityDetector
from avatar.checks import FRAME_RATES, Record, parse_json, written_number
from avatar.data.person import PersonFolder
from avatar.device import cpu_threads
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors, load_state
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio
from avatar.io.checkpoint import read_safetensors
from avatar.motion import Motion, arkit, face_channels
from avatar.motion.mouth import FACE, MOUTH, mouth_channels, opening_weights, with_mouth
from avatar.writing import atomic_file

FORMAT = "avatar-speech-1"
MEMBERS = 5
_HIDDEN, _LAYERS, _KERNEL = 64, 4, 5
REACH = _LAYERS * (_KERNEL // 2)  # frames of context on each side
_WINDOW, _BATCH = 100, 8  # frames, windows per step
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 1e-2
_NOISE, _MASK = 0.1, 6  # feature noise (standard deviations), longest masked span (frames)
_GAP_SECONDS = 0.5  # kept out of training around a member's left-out fifth
_SPEEDS = (0.9, 1.1)  # voices are higher and faster, or deeper and slower, than this person's
_QUIET_SHARE = 0.15  # of the sound that one training copy replaces by silence or noise
_PAUSES = (HOLD_SECONDS, 0.4, 0.6)  # seconds, the choices for how long a pause leaves the mouth to the networks
_PAUSE_COST = 0.01  # of correlation, that closing the lips sooner may cost
MOST_PAUSE = 60.0  # seconds, in what is read
_MAX_GAIN = 1.5
_GAIN_POWER = 0.7  # how much of the lost variance to restore: all of it would exaggerate wrong guesses as well


class _Net(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, _HIDDEN)
        self.convs = nn.ModuleList(nn.Conv1d(_HIDDEN, _HIDDEN, _KERNEL, padding=_KERNEL // 2) for _ in range(_LAYERS))
        self.leave = nn.Linear(_HIDDEN, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, inputs] to [B, T, outputs], both standardised."""
        x = functional.dropout(x, 0.2, self.training)
        x = functional.gelu(self.enter(x)).transpose(1, 2)
        for conv in self.convs:
            x = x + functional.gelu(conv(functional.dropout(x, 0.3, self.training)))
        return self.leave(x.transpose(1, 2))


@dataclass
class PersonalSpeech:
    """A person's audio-to-motion network; implements `avatar.audio2motion.base.AudioToMotion`.

    Attributes:
        fps: Frames per second of the motion.
        encoder: Makes the speech features.
        members: The networks, from standardised features to standardised mouth channels.
        input_mean, input_std: [F].
        output_mean, output_std, gain, rest: [C], over `FACE` and then `MOUTH` channels; ``gain`` restores the
            variance that averaging takes, ``rest`` is the person's closed mouth.
        pause: Seconds of a pause after which the person's lips close (`avatar.audio.vad`).
        report: How well it predicts parts of the video it was not trained on.
    """

    fps: float
    encoder: SpeechEncoder
    members: list[_Net]
    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor
    gain: Tensor
    rest: Tensor
    pause: float
    report: dict[str, Any]

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Blocks of motion for a stream of 16 kHz mono sound; only mouth, jaw and cheeks move."""
        return self.from_features((b.features, b.energy) for b in stream_features(self.encoder, chunks, self.fps))

    def speak(self, samples: np.ndarray) -> Motion:
        """The motion for a whole sound [N]."""
        return Motion.cat(list(self.stream(chunked(samples))))

    def predict(self, features: np.ndarray, energy: np.ndarray) -> Motion:
        """The motion for features [T, F] and energy [T] at the person's frame rate."""
        return Motion.cat(list(self.from_features([(features, energy)])))

    def from_features(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Motion]:
        """Blocks of motion for blocks of features [n, F] and energy [n], the same however they are cut."""
        gate = VoiceActivityDetector(self.fps, self.pause)
        held = torch.zeros(0, len(self.input_mean))
        opens = torch.zeros(0)
        left = 0  # rows of `held` that are context on the left

        def motion(stop: int) -> Motion:
            nonlocal held, opens, left
            with torch.no_grad():
                x = ((held - self.input_mean) / self.input_std).clamp(-6, 6)[None]
                y = torch.stack([m(x)[0] for m in self.members]).mean(0)[left:stop]
            y = y * self.gain * self.output_std + self.output_mean
            y = self.rest + opens[left:stop, None] * (y - self.rest)
            drop = max(0, stop - REACH)
            held, opens, left = held[drop:], opens[drop:], stop - drop
            return with_mouth(y, self.fps)

        def add(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
            nonlocal held, opens
            for features, relative, opening in rows:
                held = torch.cat([held, torch.from_numpy(np.c_[features, relative].astype(np.float32))])
                opens = torch.cat([opens, torch.from_numpy(opening.astype(np.float32))])

        for features, energy in blocks:
            add(gate.push(features, energy))
            if len(held) - REACH > left:
                yield motion(len(held) - REACH)
        add(gate.finish())
        if len(held) > left:
            yield motion(len(held))

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; its metadata says how the features are made."""
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        for i, member in enumerate(self.members):
            tensors |= {f"members.{i}.{k}": v.contiguous() for k, v in member.state_dict().items()}
        metadata = {
            "format": FORMAT,
            "fps": repr(self.fps),
            "encoder": json.dumps(self.encoder.config),
            "face": json.dumps([face_channels.CHANNELS[i] for i in FACE]),
            "arkit": json.dumps([arkit.ARKIT[i] for i in MOUTH]),
            "pause": repr(self.pause),
            "report": json.dumps(self.report),
        }
        with atomic_file(Path(path)) as temporary:
            save_file(tensors, str(temporary), metadata)

    @staticmethod
    def load(path: Path | str) -> PersonalSpeech:
        """Read what :meth:`save` wrote.

        Raises:
            AvatarError: The file is missing, damaged or of another version, or its encoder cannot be had.
        """
        path = Path(path)
        if not path.is_file():
            raise AvatarError(f"The speech network {path} does not exist.", fix="Train with `avatar train`.")
        tensors, metadata = read_safetensors(path, "a speech network")
        channels = [*(face_channels.CHANNELS[i] for i in FACE), *(arkit.ARKIT[i] for i in MOUTH)]
        about = {
            name: parse_json(metadata.get(name, "null"), f"{path}: {name}")
            for name in ("face", "arkit", "encoder", "report")
        }
        if metadata.get("format") != FORMAT or [about["face"], about["arkit"]] != [
            channels[: len(FACE)],
            channels[len(FACE) :],
        ]:
            raise AvatarError(f"{path} is not a speech network of this version.", fix="Train again.")
        outputs = str(len(channels))
        sizes = check_tensors(tensors, path, {name: "F" if "input" in name else outputs for name in _TENSORS})
        members = []
        for i in range(sum(name.endswith("enter.weight") for name in tensors)):
            net = _Net(sizes["F"], len(channels))
            prefix = f"members.{i}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_state(net, state, f"{path}, member {i}")
            members.append(net.eval())
        encoder = build_encoder(about["encoder"], path)
        if not members or encoder.dim + 1 != sizes["F"]:  # and loudness relative to the voice
            raise AvatarError(f"{path} holds no network for the features of its encoder.", fix="Train again.")
        return PersonalSpeech(
            fps=written_number(metadata.get("fps", ""), f"{path}: fps", *FRAME_RATES),
            encoder=encoder,
            members=members,
            pause=written_number(metadata.get("pause", ""), f"{path}: pause", 0, MOST_PAUSE),
            report=Record(about["report"], f"{path}: report").data,
            **{name: tensors[name].float() for name in _TENSORS},
        )


_TENSORS = ("input_mean", "input_std", "output_mean", "output_std", "gain", "rest")


def train_personal(
    person: Path | str,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PersonalSpeech:
    """Train on a PERSON folder; only frames before ``test_start`` are looked at.

    Args:
        person: Folder written by `avatar prepare`.
        seed: The same seed and folder give the same network.
        steps: Training steps per member. None: 300, more for long videos.
        progress: Called with (steps done, steps in all). None: a progress bar.

    Raises:
        AvatarError: The folder is incomplete, has no sound, or has less than 3 s of tracked frames to train on.
    """
    person = Path(person)
    info = PersonFolder(person).info()
    if not info.has_audio:
        raise AvatarError(
            f"{person} has no sound.", why="Speech cannot be learnt from it.", fix="Use a video with sound."
        )
    motion = Motion.load(motion_path(person))[: info.test_start]
    if int(motion.valid.sum()) < 3 * motion.fps:
        raise AvatarError(
            f"{person} has less than 3 s of tracked face to learn speech from.", fix="Use a longer video."
        )
    encoder = speech_encoder("auto")
    samples = load_audio(person / "ingest" / "audio.wav")
    return fit(motion, samples, encoder, info.audio_delay_frames, seed=seed, steps=steps, progress=progress)


def fit(
    motion: Motion,
    samples: np.ndarray,
    encoder: SpeechEncoder,
    offset: float = 0.0,
    *,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PersonalSpeech:
    """Train on a motion track and the sound [N] that goes with it; see :func:`train_personal`.

    Args:
        motion: The training part, T frames.
        samples: 16 kHz mono, from frame 0 on; may go on after the training part, which is then cut off.
        encoder: Makes the speech features.
        offset: Frames by which the sound is late.
        seed: See :func:`train_personal`.
        steps: See :func:`train_personal`.
        progress: See :func:`train_personal`.
    """
    count, fps = len(motion), motion.fps
    samples = samples[: max(0, round((count + offset) / fps * SAMPLE_RATE))]
    targets = mouth_channels(motion)
    valid = motion.valid.numpy()
    rng = np.random.default_rng(seed)
    copies = [_copy(samples, encoder, fps, offset, targets, valid, 1.0)]
    rest = closed_mouth(targets, _gate(copies[0].energy, fps)[1], valid)
    copies += [_copy(samples, encoder, fps, offset, targets, valid, speed) for speed in _SPEEDS]
    copies.append(_quiet_copy(samples, encoder, fps, offset, targets, valid, rest, rng))
    copies += [_noise_copy(noise, encoder, fps, rest) for noise in _noises(rng)]

    own = copies[0]
    input_mean, input_std = own.inputs[valid].mean(0), own.inputs[valid].std(0) + 1e-3
    output_mean, output_std = targets[valid].mean(0), targets[valid].std(0) + 1e-4
    for copy in copies:
        copy.inputs = np.clip((copy.inputs - input_mean) / input_std, -6, 6).astype(np.float32)
        copy.targets = ((copy.targets - output_mean) / output_std).astype(np.float32)

    steps = steps or int(np.clip(300 * count / (60 * fps), 300, 800))
    members: list[_Net] = []
    unseen = np.zeros((count, targets.shape[1]), np.float32)
    edges = np.linspace(0, count, MEMBERS + 1).astype(int)
    weight = torch.from_numpy(np.r_[opening_weights() * output_std[: len(FACE)], np.zeros(len(MOUTH))]).float()
    # Networks this small only lose time on more threads; and so the result does not depend on their number.
    with _Progress(progress, MEMBERS * steps) as tick, cpu_threads(1):
        for i, (start, end) in enumerate(itertools.pairwise(edges)):
            net = _train(copies, (start, end), _GAP_SECONDS * fps, weight, steps, seed * MEMBERS + i, tick)
            members.append(net)
            low, high = max(0, start - REACH), min(count, end + REACH)
            with torch.no_grad():
                y = net(torch.from_numpy(own.inputs[None, low:high]))[0]
            unseen[start:end] = y[start - low : start - low + end - start].numpy()

    gain = _gains(unseen[valid], own.targets[valid], members, own.inputs)
    free = unseen * gain * output_std + output_mean
    gates = {pause: _gate(own.energy, fps, pause)[1][valid] for pause in _PAUSES}
    pause = choose_pause(free[valid], targets[valid], rest, gates)
    speech = PersonalSpeech(
        fps=fps,
        encoder=encoder,
        members=members,
        input_mean=torch.from_numpy(input_mean).float(),
        input_std=torch.from_numpy(input_std).float(),
        output_mean=torch.from_numpy(output_mean).float(),
        output_std=torch.from_numpy(output_std).float(),
        gain=torch.from_numpy(gain).float(),
        rest=torch.from_numpy(rest).float(),
        pause=pause,
        report={},
    )
    predicted = rest + _gate(own.energy, fps, pause)[1][:, None] * (free - rest)
    opening, real = _opening(predicted[valid]), _opening(targets[valid])
    speech.report = {
        "opening_correlation": round(float(np.corrcoef(opening, real)[0, 1]), 3),
        "opening_std_ratio": round(float(opening.std() / (real.std() + 1e-9)), 3),
        "frames": int(valid.sum()),
        "steps": steps,
    }
    return speech


def _opening(channels: np.ndarray) -> np.ndarray:
    return channels[:, : len(FACE)] @ opening_weights()


def choose_pause(free: np.ndarray, real: np.ndarray, rest: np.ndarray, gates: dict[float, np.ndarray]) -> float:
    """The shortest pause whose gate costs no more than `_PAUSE_COST` of correlation on unseen parts.

    Args:
        free: [T, C] mouth channels as predicted, without a gate.
        real: [T, C] as tracked.
        rest: [C] the closed mouth.
        gates: By the pause in seconds, the shortest first, what the gate [T] is with it.
    """
    scores = {}
    for pause, gate in gates.items():
        both = np.stack([_opening(rest + gate[:, None] * (free - rest)), _opening(real)])
        scores[pause] = float(np.corrcoef(both)[0, 1]) if both.std(1).min() > 1e-6 else 0.0  # nobody speaks, or moves
    return next(pause for pause, score in scores.items() if score >= max(scores.values()) - _PAUSE_COST)


def closed_mouth(targets: np.ndarray, opens: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The person's resting mouth [C]: the typical frame of the most closed tenth, of silent ones if there are enough.

    Args:
        targets: [T, C] mouth channels, `FACE` first.
        opens: [T] the speech gate, 0 in silence.
        valid: [T] bool.
    """
    opening = _opening(targets)
    closed = valid & (opening <= np.quantile(opening[valid], 0.1))
    silent = closed & (opens < 0.1)
    return np.median(targets[silent if silent.sum() >= 10 else closed], 0)


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


def _copy(
    samples: np.ndarray,
    encoder: SpeechEncoder,
    fps: float,
    offset: float,
    targets: np.ndarray,
    valid: np.ndarray,
    speed: float,
) -> _Copy:
    """The training data played at another speed (and pitch)."""
    if speed != 1:
        import soxr

        samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE).astype(np.float32)
    count = int(len(targets) / speed)
    sound = features_at(encoder, samples, fps, count, offset / speed)
    relative = _gate(sound.energy, fps)[0]
    source = np.minimum(np.arange(count) * speed, len(targets) - 1)
    low = source.astype(int)
    high = np.minimum(low + 1, len(targets) - 1)
    mix = (source - low)[:, None]
    return _Copy(
        np.c_[sound.features, relative],
        targets[low] * (1 - mix) + targets[high] * mix,
        sound.energy,
        source,
        valid[low] & valid[high],
    )


def _quiet_copy(
    samples: np.ndarray,
    encoder: SpeechEncoder,
    fps: float,
    offset: float,
    targets: np.ndarray,
    valid: np.ndarray,
    rest: np.ndarray,
    rng: np.random.Generator,
) -> _Copy:
    """The training data with stretches of silence or noise in place of speech, where the mouth is at rest."""
    samples = samples.copy()
    count = len(targets)
    talking = np.ones(count)
    level = float(np.sqrt(np.mean(np.square(samples)))) + 1e-6
    for _ in range(max(2, round(_QUIET_SHARE * count / fps / 1.5))):
        seconds = rng.uniform(0.7, 2.5)
        start = rng.uniform(0, max(0.1, count / fps - seconds))
        a, b = (round((start + d) * SAMPLE_RATE) for d in (0, seconds))
        noise = rng.standard_normal(max(0, min(b, len(samples)) - a)).astype(np.float32)
        if rng.random() < 0.5:  # pink-like: rooms and streets
            noise = np.convolve(noise, np.exp(-np.arange(40) / 12), "same").astype(np.float32) / 2.5
        samples[a : a + len(noise)] = noise * level * (0 if rng.random() < 0.3 else 10 ** rng.uniform(-3, -0.3))
        first = start * fps - offset
        frames = np.arange(count)
        distance = np.minimum(frames - first, first + seconds * fps - frames)  # positive inside
        talking = np.minimum(talking, np.clip(1 - (distance - 1) / 3, 0, 1))
    sound = features_at(encoder, samples, fps, count, offset)
    relative = _gate(sound.energy, fps)[0]
    mixed = rest + talking[:, None] * (targets - rest)
    return _Copy(np.c_[sound.features, relative], mixed, sound.energy, np.arange(count, dtype=float), valid)


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
    sound = features_at(encoder, noise, fps)
    count = len(sound)
    return _Copy(
        np.c_[sound.features, _gate(sound.energy, fps)[0]],
        np.repeat(rest[None], count, 0),
        sound.energy,
        np.full(count, -np.inf),
        np.ones(count, bool),
    )


def _gate(energy: np.ndarray, fps: float, pause: float = HOLD_SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Loudness relative to the voice [T] and the gate [T]."""
    return VoiceActivityDetector(fps, pause).judge(energy)


def _train(
    copies: list[_Copy],
    left_out: tuple[int, int],
    gap: float,
    weight: Tensor,
    steps: int,
    seed: int,
    tick: Callable[[], None],
) -> _Net:
    """One member, trained on every copy but for a stretch of the video."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    window = min(_WINDOW, min(len(c.source) for c in copies) // 2)
    starts: list[tuple[int, int]] = []
    for i, copy in enumerate(copies):
        usable = copy.usable & ((copy.source < left_out[0] - gap) | (copy.source >= left_out[1] + gap))
        whole = np.convolve(usable, np.ones(window), "valid") >= window  # all of the window may be used
        starts += [(i, int(s)) for s in np.flatnonzero(whole)]
    if not starts:  # tracked only in snatches: allow windows with gaps
        starts = [(0, s) for s in range(len(copies[0].source) - window)]
    inputs = [torch.from_numpy(c.inputs) for c in copies]
    targets = [torch.from_numpy(c.targets) for c in copies]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Net(inputs[0].shape[1], targets[0].shape[1]).train()
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


def _gains(unseen: np.ndarray, real: np.ndarray, members: list[_Net], inputs: np.ndarray) -> np.ndarray:
    """[C] what to multiply predictions with, so that they move about as much as the person does."""
    with torch.no_grad():
        each = torch.stack([m(torch.from_numpy(inputs)[None])[0] for m in members])
    damping = (each.mean(0).std(0) / each.std(1).mean(0)).numpy()  # of averaging the members
    ratio = real.std(0) / (unseen.std(0) * damping + 1e-6)
    return np.clip(ratio**_GAIN_POWER, 1, _MAX_GAIN)


def motion_path(person: Path) -> Path:
    """The motion file of a PERSON folder that speech is learnt from."""
    refined = person / "refine" / "motion.safetensors"
    return refined if refined.is_file() else person / "motion.safetensors"


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
