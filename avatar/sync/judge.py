"""Judge whether a mouth says what is in the audio, and how far audio and video are apart, by a small trained network.

The idea is SyncNet's (Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016): one encoder for the
mouth, one for the audio, and a distance that is small where both belong to the same moment. The mouth is not seen in
pixels but as the geometry of lips and jaw in the head's own axes, relative to the clip's own rest and spread, so that
neither who it is nor the style of the image is judged. The audio is log-mel energies, which know no language.

docs/notes/sync_judge.md says what the shipped network was trained on and how well it does on people it has never seen.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avatar.audio.encoders import base as encoders
from avatar.audio.encoders.mel import MelEncoder
from avatar.checks import Record, whole
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors, load_state
from avatar.io.audio import SAMPLE_RATE, is_silent
from avatar.io.checkpoint import load_tensors
from avatar.motion.face_channels import CHANNEL_INDEX, CHIN, LIPS_INNER, LIPS_OUTER, NUM_LANDMARKS, encode
from avatar.motion.mouth import GEOMETRY

FORMAT = "avatar-sync-judge-2"
WEIGHTS = Path(__file__).with_name("judge.safetensors")
RATE = 25.0  # windows per second, whatever the video's rate is
REACH = 15  # windows: delays of up to 0.6 s are looked for
BANDS = 40
ROWS = 4  # of the mel energies (100 Hz) in a window
# Windows by which the network reads video as too early, against the sync stage of `avatar prepare`: the median over
# the development people (docs/notes/sync_judge.md).
ZERO = 0.4
MIN_SECONDS = 2.0
MIN_FPS = 10.0
MIN_SEEN = 0.5  # share of the windows
_LEAST_MOTION = 0.01  # centimetres; what moves less is noise and is not blown up
_LIMIT = 6.0  # spreads
_CHUNK = 4096  # frames that are held in double precision at once

CHANNELS = tuple(CHANNEL_INDEX[name] for name in GEOMETRY)


@dataclass(frozen=True, kw_only=True)
class SyncScore:
    """What the judge says about a clip.

    Attributes:
        confidence: Median over all delays minus least distance: how much better the best delay is than any. The
            best of many is never 0: clips of 5 s have 0.27 with their own audio and 0.10 with another in the median
            (at 8 s 0.28 and 0.08).
        audio_delay_s: Where the distance is least, seconds, to a fraction of a window. Positive: audio after video.
            None: it is least at the border of the range, so that the delay may be any beyond.
        distance: 1 minus the mean cosine between mouth and audio at that delay, beyond what windows of this clip
            have in common anyway; about 1 where nothing fits, smaller is better.
    """

    confidence: float
    audio_delay_s: float | None
    distance: float


@final
class SyncNet(nn.Module):
    """Embeds mouth and audio in one space, at 25 windows per second.

    Args:
        width: Channels of the hidden layers.
        embedding: Numbers per window.
        mouth_kernels, audio_kernels: Lengths of the convolutions in windows, odd.
        dropout: In training.
    """

    def __init__(
        self,
        width: int = 64,
        embedding: int = 32,
        mouth_kernels: tuple[int, ...] = (5, 5, 3),
        audio_kernels: tuple[int, ...] = (5, 3, 3),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "embedding": embedding,
            "mouth_kernels": list(mouth_kernels),
            "audio_kernels": list(audio_kernels),
        }
        self._mouth = _encoder(len(CHANNELS), width, embedding, mouth_kernels, dropout)
        self._audio = _encoder(BANDS * ROWS, width, embedding, audio_kernels, dropout)

    def mouth(self, motion: Tensor) -> Tensor:
        """[B, T, channels] centimetres, of clips, to unit vectors [B, T, embedding]."""
        motion = motion - motion.median(1, keepdim=True).values
        spread = motion.abs().mean(1, keepdim=True)
        relative = (motion / (1.25 * (spread + _LEAST_MOTION))).clamp(-_LIMIT, _LIMIT)
        return _unit(self._mouth(relative.mT))

    def audio(self, mel: Tensor) -> Tensor:
        """[B, `ROWS` T, bands] log-mel energies, of clips, to unit vectors [B, T, embedding]."""
        mel = (mel - mel.mean(1, keepdim=True)) / 0.6
        return _unit(self._audio(mel.reshape(len(mel), -1, ROWS * BANDS).mT))


class _Normalise(nn.LayerNorm):
    """Over the channels of [B, C, T]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.mT).mT


def _encoder(inputs: int, width: int, outputs: int, kernels: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ReplicationPad1d(sum(k // 2 for k in kernels))]
    for kernel in kernels:
        layers += [nn.Conv1d(inputs, width, kernel), _Normalise(width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Conv1d(inputs, outputs, 1))


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x.mT, dim=-1)


@final
class SyncJudge:
    """The network with its weights; deterministic.

    Args:
        net: Trained.
        shape: [478, 3] a face at rest, head axes, centimetres.
    """

    def __init__(self, net: SyncNet, shape: np.ndarray) -> None:
        self._net = net.eval()
        self._shape = shape

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> SyncJudge:
        """The judge that comes with the package, or another one from `pipelines/sync_judge.py`.

        Raises:
            AvatarError: The file is missing, damaged, or of something else.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise AvatarError(f"{path} is not a sync judge.", why=f"Its format is {metadata.get('format')!r}.")
        about = Record(metadata, path).record("net")
        mouth, audio = (
            tuple(whole(k, about.place(name), 1, 99) for k in about.list(name)[:9])
            for name in ("mouth_kernels", "audio_kernels")
        )
        net = SyncNet(about.whole("width", 1, 1024), about.whole("embedding", 1, 1024), mouth, audio)
        check_tensors(tensors, path, {"shape": "478 3"})
        shape = tensors.pop("shape").double().numpy()
        load_state(net, {name: tensor.float() for name, tensor in tensors.items()}, path)
        return cls(net, shape)

    def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> SyncScore:
        """Judge a clip.

        Args:
            landmarks: [T, 478, 2 or 3] pixels, NaN where no face was found.
            audio: [S] 16 kHz mono, from the time of the first frame on.
            fps: Frames per second.

        Raises:
            AvatarError: See :meth:`distances`.
        """
        return best_delay(self.distances(landmarks, audio, fps))

    def matched(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> float:
        """Measure how well mouth and audio go together as they are, give or take 40 ms.

        It is 1 minus the distance there, and about 0 where they have nothing to do with each other. It is the number to
        rank clips by.

        Raises:
            AvatarError: See :meth:`distances`.
        """
        return 1 - float(self.distances(landmarks, audio, fps)[REACH - 1 : REACH + 2].min())

    def distances(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> np.ndarray:
        """Measure the mean distance of mouth and audio at each delay.

        Args:
            landmarks, audio, fps: As for :meth:`score`. What one of them is longer than the other is not used.

        Returns:
            [2 * REACH + 1], for audio that comes REACH to -REACH windows of 40 ms after video.

        Raises:
            AvatarError: A shape or the rate is wrong, the audio is silent or not finite, the clip is shorter than
                `MIN_SECONDS`, or the face is seen in less than half of it.
        """
        _check(landmarks, audio, fps)
        count = windows(len(landmarks), len(audio), fps)
        if count < MIN_SECONDS * RATE:
            raise AvatarError(
                f"A clip of {count / RATE:.1f} s is too short to judge audio against video.",
                fix=f"Give at least {MIN_SECONDS:g} s of both.",
            )
        mouth, known = self.embed_mouth(landmarks, fps, count)
        if known.mean() < MIN_SEEN:
            raise AvatarError(
                f"A face was found in {known.mean():.0%} of the clip,", why="too little to judge the mouth."
            )
        audible = self.embed_audio(audio[: round(count / RATE * SAMPLE_RATE)])
        # Some windows are like many others (a closed mouth, a pause): count only what a pair has beyond that. To take
        # the means of its row and column from the matrix of cosines is to take the means from the vectors.
        mouth = np.where(known[:, None], mouth - mouth[known].mean(0), 0)
        audible = audible - audible.mean(0)
        curve = []
        for ahead in range(-REACH, REACH + 1):  # the mouth at t belongs to the audio at t - ahead
            seen_part = slice(max(ahead, 0), count + min(ahead, 0))
            audio_part = slice(max(-ahead, 0), count - max(ahead, 0))
            curve.append(1 - (mouth[seen_part] * audible[audio_part]).sum() / known[seen_part].sum())
        return np.array(curve)

    def embed_mouth(self, landmarks: np.ndarray, fps: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Embed the mouth of the first ``count`` windows.

        Args:
            landmarks: [T, 478, 2 or 3] pixels, NaN where no face was found.
            fps: Frames per second.
            count: At most :func:`windows`.

        Returns:
            [count, E] unit vectors; [count] bool, where a face was found.
        """
        motion, seen = mouth_motion(landmarks, self._shape)
        motion, known = at_windows(motion, seen, fps, count)
        with torch.inference_mode():
            return self._net.mouth(torch.from_numpy(motion)[None])[0].double().numpy(), known

    def embed_audio(self, audio: np.ndarray) -> np.ndarray:
        """Embed samples [S] at 16 kHz, a whole number of windows long, as unit vectors [windows, E]."""
        with torch.inference_mode():
            return self._net.audio(torch.from_numpy(mel_energies(audio))[None])[0].double().numpy()


def windows(frames: int, samples: int, fps: float) -> int:
    """Count the windows for which there are both frames and samples."""
    return math.floor(min(frames / fps, samples / SAMPLE_RATE) * RATE + 1e-6)


def best_delay(curve: np.ndarray) -> SyncScore:
    """Find the best delay in :meth:`SyncJudge.distances`, or in their mean over several clips."""
    best = int(curve.argmin())
    inside = 0 < best < len(curve) - 1
    return SyncScore(
        confidence=float(np.median(curve) - curve[best]),
        audio_delay_s=-float((best + _vertex(curve, best) - REACH + ZERO) / RATE) if inside else None,
        distance=float(curve[best]),
    )


def mouth_motion(landmarks: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lips and jaw in the head's own axes, from one affine camera per frame (no depth is needed).

    Args:
        landmarks: [T, 478, 2 or 3] pixels, NaN where no face was found.
        shape: [478, 3] a face at rest, head axes, centimetres. How this person differs from it is a constant that
            the network takes out.

    Returns:
        [T, len(CHANNELS)] float32 centimetres, frames without a face filled in linearly; [T] bool, where there was one.
    """
    from avatar.preprocess.head_fit import rigid_points

    rigid = rigid_points(shape)
    base = np.concatenate([shape, np.ones((len(shape), 1))], 1)
    to_camera = np.linalg.pinv(base[rigid])
    vertices, channels = _basis()
    known, seen = [np.zeros((0, len(CHANNELS)))], np.zeros(len(landmarks), bool)
    for start in range(0, len(landmarks), _CHUNK):
        pixels = landmarks[start : start + _CHUNK, :, :2].astype(np.float64)
        there = np.flatnonzero(np.isfinite(pixels).all((1, 2)))
        camera = to_camera @ pixels[there][:, rigid]  # [T, 4, 2]: images of the three axes, and of 0
        plane = camera[:, :2]
        face = np.abs(np.linalg.det(plane)) >= 1e-6  # pixels per centimetre, squared
        there, camera, plane = there[face], camera[face], plane[face]
        offset = (pixels[there][:, vertices] - base[vertices] @ camera) @ np.linalg.inv(plane)
        known.append(offset.reshape(len(offset), 2 * len(vertices)) @ channels)
        seen[start + there] = True
    motion = np.zeros((len(landmarks), len(CHANNELS)), np.float32)
    if seen.any():
        frames = np.arange(len(landmarks))
        motion = np.stack([np.interp(frames, frames[seen], c) for c in np.concatenate(known).T], 1).astype(np.float32)
    return motion, seen


@functools.cache
def _basis() -> tuple[np.ndarray, np.ndarray]:
    """The vertices [V] that the channels depend on, and the channels [2 V, C] of moving each along x and y."""
    vertices = np.array(sorted({*LIPS_OUTER, *LIPS_INNER, *CHIN}))
    moved = np.zeros((len(vertices), 2, NUM_LANDMARKS, 3))
    for i, vertex in enumerate(vertices):
        moved[i, (0, 1), vertex, (0, 1)] = 1
    return vertices, encode(moved.reshape(-1, NUM_LANDMARKS, 3))[:, CHANNELS]


def at_windows(motion: np.ndarray, seen: np.ndarray, fps: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Motion [T, C] of frames at the middles of ``count`` windows, and which of them lie between seen frames.

    A frame belongs to the middle of the time that it stands on the screen.
    """
    at = (np.arange(count) + 0.5) / RATE * fps - 0.5
    frames = np.arange(len(motion))
    moved = np.stack([np.interp(at, frames, c) for c in motion.T], 1).astype(np.float32)
    return moved, np.asarray(np.interp(at, frames, seen) > 0.999)


def mel_energies(audio: np.ndarray) -> np.ndarray:
    """[`ROWS` * windows, `BANDS`] float32 of samples [S] at 16 kHz that are a whole number of windows long."""
    rows = round(len(audio) / SAMPLE_RATE * RATE) * ROWS
    return encoders.encode(MelEncoder(BANDS), audio)[:rows]


def _check(landmarks: np.ndarray, audio: np.ndarray, fps: float) -> None:
    if landmarks.ndim != 3 or landmarks.shape[1] != NUM_LANDMARKS or landmarks.shape[2] not in (2, 3):
        raise AvatarError(f"Landmarks are [T, {NUM_LANDMARKS}, 2 or 3], not {list(landmarks.shape)}.")
    if audio.ndim != 1:
        raise AvatarError(f"The audio is {list(audio.shape)},", why="not mono.", fix="Give [S] samples at 16 kHz.")
    if not (math.isfinite(fps) and fps >= MIN_FPS):
        raise AvatarError(f"{fps} frames per second are too few to judge a mouth.", fix=f"Give at least {MIN_FPS:g}.")
    if not np.isfinite(audio).all():
        raise AvatarError("The audio contains samples that are not numbers (NaN or infinite).")
    if is_silent(audio):
        raise AvatarError("The audio is silent:", why="there is nothing to judge the mouth by.")


def _vertex(curve: np.ndarray, best: int) -> float:
    """Where the parabola through the least value and its neighbours is least, relative to it."""
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend > 0 else 0.0
