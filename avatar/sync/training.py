"""Training of the sync judge: recordings of mouths with their audio, and the contrastive loss.

Three kinds of recordings: tracked videos, blendshape animation with its speech, and performances of the project's own
synthetic voice. The latter two are acted by drawn faces in front of a camera and "tracked" exactly, with noise.
Speakers are few, so what makes one different from another is varied: faces, how much each part of the mouth moves,
length of the vocal tract, pace, microphone, room and noise.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avatar import log
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.io.checkpoint import save_tensors
from avatar.motion import facegood
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import NUM_LANDMARKS
from avatar.sync.judge import FORMAT, RATE, REACH, ROWS, SyncNet, at_windows, mel_energies, mouth_motion
from avatar.synth import acting as performance
from avatar.synth import speech
from avatar.synth.appearance import Appearance
from avatar.synth.body import Body, build_body
from avatar.synth.make import SCRIPT
from avatar.synth.subject import canonical_mesh

SEGMENT = 100  # windows of mouth; the audio is REACH longer at both ends
POOLS = (5, 20, 80)  # windows over which the loss averages: a word is hard to place, a sentence is not
_EDGE = 10  # windows at the ends of a segment that see padding
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 32, 2e-3, 1e-2
_PACE = 0.18  # of the logarithm
_GAIN = 0.2  # of the logarithm, per channel of the mouth
_JITTER = 0.02  # centimetres
_TRACT = 0.15  # relative length of the vocal tract
_ECHO = 16  # rows
_MEL_RANGE = (60.0, 7600.0)  # hertz, of MelEncoder's filters
_NEIGHBOUR = 0.15  # of the target, to each neighbour of the right offset: a frame lasts 40 ms


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A mouth and its audio, in step.

    Attributes:
        motion: [n, len(CHANNELS)] float32 centimetres at `RATE`.
        mel: [`ROWS` n, `BANDS`] float32.
    """

    motion: np.ndarray
    mel: np.ndarray

    def __len__(self) -> int:
        return len(self.motion)


def record(landmarks: np.ndarray, audio: np.ndarray, fps: float, shape: np.ndarray) -> Recording:
    """Prepare tracked landmarks [T, 478, 2] and audio [S] as the network sees them, at rest around zero."""
    motion, seen = mouth_motion(landmarks, shape)
    count = int(min(len(motion) / fps, len(audio) / SAMPLE_RATE) * RATE)
    motion, _ = at_windows(motion, seen, fps, count)
    mel = mel_energies(audio[: round(count / RATE * SAMPLE_RATE)])
    return Recording(motion=motion - np.median(motion, 0), mel=mel)


def join(parts: Sequence[Recording]) -> Recording:
    """Recordings one after the other: sentences are shorter than a training segment."""
    return Recording(motion=np.concatenate([p.motion for p in parts]), mel=np.concatenate([p.mel for p in parts]))


# --- acted by drawn faces ---------------------------------------------------------------------------------------------

_FOCAL, _DISTANCE = 1000.0, 86.0  # pixels, centimetres: a face 180 pixels wide
_FACES = 12
_TAKES = 4  # of the animation, by other faces
_TALK_SECONDS = 40.0  # of synthetic speech in one piece


def animated(folder: Path, shape: np.ndarray, seed: int = 0) -> list[Recording]:
    """FACEGOOD's animation (NAME.bs.npy, NAME.flac, blendshape_names.json), each piece by several drawn faces.

    Raises:
        AvatarError: There is none.
    """
    rng = np.random.default_rng(seed)
    recordings = []
    for path in sorted(folder.glob(f"*{facegood.SUFFIX}")):
        coefficients = facegood.load(path)
        audio = load_audio(path.with_name(path.name.removesuffix(facegood.SUFFIX) + ".flac"))
        for _ in range(_TAKES):
            recordings.append(record(act(coefficients, facegood.FPS, rng), audio, facegood.FPS, shape))
    if not recordings:
        raise AvatarError(f"{folder} has no *{facegood.SUFFIX}.")
    return recordings


def synthetic(seconds: float, shape: np.ndarray, seed: int = 0, voice: str = "auto") -> list[Recording]:
    """The project's own synthetic voice speaking random words, with the lip shapes of its phones, by drawn faces.

    Args:
        seconds: At least so much speech.
        shape: As for `sync_judge.mouth_motion`.
        seed: Fixes words, faces and poses.
        voice: See `avatar.synth.speech.speak`.
    """
    import soxr

    rng = np.random.default_rng(seed)
    words = sorted(set(re.findall("[a-z]+", " ".join(SCRIPT).lower())))
    recordings: list[Recording] = []
    while sum(map(len, recordings)) < seconds * RATE:
        parts: list[speech.Speech] = []
        while sum(part.seconds for part in parts) < min(seconds, _TALK_SECONDS):
            text = " ".join(rng.choice(words, rng.integers(4, 11)))
            parts += [speech.silence(float(rng.uniform(0.05, 0.6))), speech.speak(text, voice, len(recordings))]
        said = speech.join(parts)
        times = (np.arange(int(said.seconds * RATE)) + 0.5) / RATE
        audio = soxr.resample(said.samples, speech.RATE, SAMPLE_RATE)
        recordings.append(record(act(performance.lips(said, times), RATE, rng), audio, RATE, shape))
    return recordings


def act(coefficients: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Landmarks [T, 478, 2] of a drawn face with ARKit coefficients [T, 52], its head moving, tracked with noise."""
    body = _face(int(rng.integers(_FACES)))
    count = len(coefficients)

    def wander(seconds: float) -> np.ndarray:
        return performance.smooth_noise(count, fps, seconds, rng)

    coefficients = coefficients * np.exp(rng.normal(0, 0.3, len(ARKIT)))
    face = body.neutral + np.einsum("tk,kvd->tvd", coefficients, body.fields)
    turning = np.stack([4.2 * wander(2.2) + 1.8 * wander(0.8), 12 * wander(3.0), 4 * wander(2.6)], 1)
    turn = np.deg2rad(rng.uniform(0.3, 1.3) * turning + rng.normal(0, (4, 8, 2)))
    shift = np.stack([wander(2.5), 0.5 * wander(2.0), wander(4.0) + _DISTANCE], 1)
    world = face @ axis_angle_to_matrix(torch.from_numpy(turn)).mT.numpy() + shift[:, None]
    pixels = world[..., :2] / world[..., 2:] * _FOCAL
    landmarks = np.zeros((count, NUM_LANDMARKS, 2), np.float32)  # the irises stay zero: they tell the judge nothing
    landmarks[:, : pixels.shape[1]] = pixels + rng.normal(0, rng.uniform(0.1, 0.6), pixels.shape)
    return landmarks


@functools.cache
def _face(seed: int) -> Body:
    return build_body(*canonical_mesh(), seed, Appearance())


# --- training ---------------------------------------------------------------------------------------------------------


def train(sources: Sequence[tuple[float, Sequence[Recording]]], steps: int, seed: int = 0) -> SyncNet:
    """Train a network.

    Args:
        sources: (share of the batches, recordings) of each kind.
        steps: Of `_BATCH` segments.
        seed: Fixes everything.

    Raises:
        AvatarError: A source has no recording that is long enough.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        batches = _batches(sources, rng)
        net = SyncNet().train()
        scale = nn.Parameter(torch.full((len(POOLS),), 2.3))  # logarithm of the inverse temperatures
        optimiser = torch.optim.AdamW([*net.parameters(), scale], _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.1)
        for _ in log.track(range(steps), "Training the sync judge", steps):
            motion, mel = next(batches)
            motion, mel = vary_motion(motion, rng), vary_audio(mel, rng)
            loss = contrast(net.mouth(motion), net.audio(mel), scale.exp())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return net.eval()


def contrast(mouth: Tensor, audio: Tensor, scale: Tensor) -> Tensor:
    """Compute InfoNCE over the offsets within a clip, and over the clips of the batch.

    Van den Oord, Li and Vinyals, 2018.

    Args:
        mouth: [B, T, E] unit vectors.
        audio: [B, T + 2 * REACH, E]; what belongs to mouth window t is at t + REACH.
        scale: [len(POOLS)] inverse temperatures.
    """
    inside = slice(_EDGE, mouth.shape[1] - _EDGE)
    offsets = 2 * REACH + 1
    mouth_in = mouth[:, inside]
    count = mouth_in.shape[1]
    shifted = torch.stack([audio[:, k + _EDGE :][:, :count] for k in range(offsets)], 2)
    by_offset = torch.einsum("bte,btke->bkt", mouth_in, shifted)
    by_clip = torch.einsum("bte,cte->bct", mouth_in, shifted[:, :, REACH])
    target = torch.zeros(offsets)
    target[REACH - 1 : REACH + 2] = _NEIGHBOUR
    target[REACH] = 1 - 2 * _NEIGHBOUR
    clips = torch.eye(len(mouth))[:, :, None]
    loss = mouth.new_zeros(())
    for inverse, pool in zip(scale, POOLS):

        def pooled(cosine: Tensor, pool: int = pool, inverse: Tensor = inverse) -> Tensor:
            return inverse * functional.avg_pool1d(cosine, pool, max(1, pool // 2))

        of_clip = pooled(by_clip)
        loss = loss - (pooled(by_offset).log_softmax(1) * target[:, None]).sum(1).mean()
        for axis in (0, 1):  # audio for a mouth, and mouths for audio
            loss = loss - 0.5 * (of_clip.log_softmax(axis) * clips).sum(axis).mean()
    return loss


def vary_motion(motion: Tensor, rng: np.random.Generator) -> Tensor:
    """Other people move each part of the mouth more or less; trackers shake. [B, T, C] centimetres."""
    clips, _, channels = motion.shape
    gain = np.exp(rng.normal(0, _GAIN, (clips, 1, channels)))
    shake = rng.uniform(0, _JITTER, (clips, 1, 1))
    return motion * _tensor(gain) + _tensor(shake * rng.standard_normal(motion.shape))


def vary_audio(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Another vocal tract (Jaitly and Hinton, 2013), microphone, room and background; [B, rows, BANDS]."""
    clips, rows, bands = mel.shape
    first, last = (2595 * np.log10(1 + hertz / 700) for hertz in _MEL_RANGE)
    step = (last - first) / (bands + 1)
    centre = 700 * (10 ** ((first + step * np.arange(1, bands + 1)) / 2595) - 1)
    # A shorter tract moves what is at f to f (1 + w); d mel / d f = 2595 / ln 10 / (700 + f).
    moved = 2595 / np.log(10) / step * rng.uniform(-_TRACT, _TRACT, (clips, 1)) * centre / (700 + centre)
    at = (np.arange(bands) + moved).clip(0, bands - 1.001)
    low = torch.from_numpy(np.floor(at).astype(int))[:, None].expand(clips, rows, bands)
    part = _tensor(at % 1)[:, None]
    mel = mel.gather(2, low) * (1 - part) + mel.gather(2, low + 1) * part

    power = 10 ** (2 * (mel - 2))  # MelEncoder gives decibels / 20 + 2
    decay = rng.uniform(0, 0.85, (clips, 1, 1)) * rng.integers(0, 2, (clips, 1, 1))  # per row; half the rooms are dry
    wet = rng.uniform(0, 0.5, (clips, 1, 1))
    before = functional.pad(power, (0, 0, _ECHO, 0))
    for k in range(1, _ECHO + 1, 2):
        power = power + _tensor(wet * decay**k) * before[:, _ECHO - k :][:, :rows]
    microphone, colour = (_spectrum(clips, bands, spread, rng) for spread in (0.3, 0.4))
    level = _tensor(10 ** rng.uniform(-6, -1.3, (clips, 1, 1)))
    hiss = _tensor(0.5 + 0.5 * rng.exponential(size=mel.shape))
    return (torch.log10(power * microphone + level * colour * hiss + 1e-8) / 2 + 2).clamp(-2, 2.5)


def _spectrum(clips: int, bands: int, spread: float, rng: np.random.Generator) -> Tensor:
    """[B, 1, bands] smooth factors on power."""
    knots = _tensor(rng.normal(0, spread, (clips, 1, 5)))
    return 10 ** functional.interpolate(knots, bands, mode="linear", align_corners=True)


def _batches(
    sources: Sequence[tuple[float, Sequence[Recording]]], rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Segments: motion [B, SEGMENT, C] and mel [B, ROWS * (SEGMENT + 2 * REACH), BANDS], at another pace."""
    longest = (SEGMENT + 2 * REACH) * np.exp(_PACE) + 2
    shares = np.array([share for share, _ in sources])
    usable = [[r for r in recordings if len(r) > longest] for _, recordings in sources]
    if not all(usable):
        raise AvatarError(f"A source has no recording of {longest / RATE:.1f} s or more.", fix="Join short ones.")

    def segment() -> tuple[np.ndarray, np.ndarray]:
        recordings = usable[rng.choice(len(usable), p=shares / shares.sum())]
        chosen = recordings[rng.integers(len(recordings))]
        pace = np.exp(rng.uniform(-_PACE, _PACE))
        start = rng.uniform(0, len(chosen) - (SEGMENT + 2 * REACH) * pace - 1)  # windows
        mouth = start + (np.arange(SEGMENT) + REACH + 0.5) * pace - 0.5
        audio = start * ROWS + np.arange((SEGMENT + 2 * REACH) * ROWS) * pace
        return _rows(chosen.motion, mouth), _rows(chosen.mel, audio)

    while True:
        motion, mel = zip(*(segment() for _ in range(_BATCH)), strict=True)
        yield torch.from_numpy(np.stack(motion)), torch.from_numpy(np.stack(mel))


def _rows(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of a table [n, C] at fractional places, linearly."""
    low = np.clip(np.floor(at).astype(int), 0, len(table) - 2)
    part = (at - low)[:, None].astype(np.float32)
    return table[low] * (1 - part) + table[low + 1] * part


def save(path: Path, net: SyncNet, shape: np.ndarray, about: dict[str, Any]) -> None:
    """Write a judge (half precision) that :meth:`SyncJudge.load` reads; ``about`` says how it was trained."""
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    tensors["shape"] = torch.from_numpy(np.ascontiguousarray(shape, np.float32))
    save_tensors(path, tensors, {"format": FORMAT, "net": net.config, "about": about})


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
