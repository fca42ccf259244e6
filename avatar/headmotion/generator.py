"""Head, torso, gaze, brows and blinks for speech that the person never said: sampled, second by second, for ever.

What speech does not decide is drawn at random, as the person might do it: `generator_manner` takes the person out of it
and puts one in, `generator_flow` makes a second of motion from the seconds before and the sound around it, and
`generator_blinks` lets the eyes blink. docs/generator.md says how well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avatar.audio.encoders.base import ENERGY_FLOOR_DB, SpeechEncoder, features_at, stream_features
from avatar.audio.resampling import at_rate
from avatar.audio.vad import VoiceActivityDetector
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.headmotion.blinks import BlinkHabit, influences
from avatar.headmotion.flow import (
    AHEAD,
    BEFORE,
    CONTEXT,
    RATE,
    SPEECH,
    TAPS,
    WINDOW,
    FlowNet,
    Forecast,
    Response,
    around,
    sample,
    shared_flow,
)
from avatar.headmotion.normalizer import CHANNELS, FOLLOWERS, UpperFaceNormalizer
from avatar.headmotion.training import STEPS, fit_flow, fit_forecast, windows_of
from avatar.io.arrays import check_tensors, load_state
from avatar.io.audio import SAMPLE_RATE
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion import Motion, face_channels
from avatar.motion.arkit import ARKIT
from avatar.motion.blinks import EYES, LIDS

FORMAT = "avatar-generator-1"
FILE = "generator.safetensors"  # in a RUN folder
GUIDANCE, NOISE = (0.0, 3.0), (0.0, 1.5)  # what can be asked for
_RANGE_DB = (-30.0, 0.0)  # relative to the voice; what is quieter is as quiet as that
_SILENCE_DB = -60.0  # dBFS; where there never was a voice, nothing can be relative to it
_SILENCE = torch.full((1, SPEECH), -1.0)
_STARTS = 32  # moments of the track that a performance may begin from


def heard_speech(energy: np.ndarray) -> Tensor:
    """[T, 2] loudness relative to the voice and voice activity, both about -1 to 1, of energy [T] in dB at `RATE`."""
    ear = _Ear()
    return torch.cat([ear.push(energy), ear.finish()])


def heard_track(
    motion: Motion, segments: Sequence[tuple[int, int]], samples: np.ndarray | None, offset: float
) -> tuple[Motion, list[tuple[int, int]], Tensor]:
    """A track and its segments at `RATE`, and [T, 2] what is heard; see :meth:`MotionGenerator.fit`."""
    track = motion.resample(RATE)
    scale = len(track) / max(1, len(motion))
    spans = [(round(a * scale), min(round(b * scale), len(track))) for a, b in segments]
    if samples is None:
        return track, spans, heard_speech(np.full(len(track), ENERGY_FLOOR_DB))
    samples = samples[: max(0, round((len(motion) + offset) / motion.fps * SAMPLE_RATE))]
    sound = features_at(SpeechEncoder(()), samples, RATE, len(track), offset * RATE / motion.fps)
    return track, spans, heard_speech(sound.energy)


class _Ear:
    """Judges loudness as it comes in."""

    def __init__(self) -> None:
        self._gate = VoiceActivityDetector(RATE, ahead=0.0)

    def push(self, energy: np.ndarray) -> Tensor:
        return self._rows(self._gate.push(energy[:, None], energy))

    def finish(self) -> Tensor:
        return self._rows(self._gate.finish())

    @staticmethod
    def _rows(blocks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Tensor:
        rows = [np.zeros((0, SPEECH))]
        for energy, loud, opens in blocks:
            loud = np.where(energy[:, 0] > _SILENCE_DB, loud, _RANGE_DB[0]).clip(*_RANGE_DB)
            rows.append(np.c_[(loud - np.mean(_RANGE_DB)) / np.diff(_RANGE_DB) * 2, 2 * opens - 1])
        return torch.from_numpy(np.concatenate(rows).astype(np.float32))


@dataclass(frozen=True)
class MotionGenerator:
    """What moves the upper part of one person.

    Attributes:
        manner: How the person holds and moves head, eyes and brows.
        blinks: When and how they blink.
        response: What the sound says.
        forecast: The Gaussian of the next second.
        flow: What makes a sample of it.
        starts: [S, CONTEXT, C] moments to begin from, in spreads.
        listens: Whether it learnt from sound; otherwise none makes a difference.
    """

    manner: UpperFaceNormalizer
    blinks: BlinkHabit
    response: Response
    forecast: Forecast
    flow: FlowNet
    starts: Tensor
    listens: bool

    @staticmethod
    def fit(
        motion: Motion,
        segments: Sequence[tuple[int, int]],
        samples: np.ndarray | None,
        offset: float = 0.0,
        seed: int = 0,
        steps: int = STEPS,
    ) -> MotionGenerator:
        """Learn a person from a track and the sound that goes with it, in less than a minute.

        Args:
            motion: The training part, T frames at any rate.
            segments: [start, end) frames of it without a cut inside.
            samples: 16 kHz mono, from frame 0 on; None where the video has no sound: motion then does not follow it.
                What comes after the track is not heard.
            offset: Frames by which the sound is late.
            seed: The same seed and data give the same weights.
            steps: Of training the flow.

        Raises:
            AvatarError: There is too little without a cut to learn from.
        """
        track, spans, speech = heard_track(motion, segments, samples, offset)
        manner = UpperFaceNormalizer.of(track, spans)
        z = manner.normalise(track, spans)
        response = Response.of(z, speech)
        windows = windows_of(z, response(around(speech)), speech, track.valid, spans)
        if len(windows) < WINDOW:
            raise AvatarError(
                "The video holds too little motion without a cut to generate more of it.",
                why=f"It takes {(CONTEXT + 2 * WINDOW) / RATE} s in one piece, or pieces of more than "
                f"{(CONTEXT + WINDOW) / RATE} s.", fix="Use a longer video.",
            )  # fmt: skip
        forecast = fit_forecast(windows)
        listens = samples is not None
        return MotionGenerator(
            manner=manner,
            blinks=BlinkHabit.of(track, spans, z, speech),
            response=response,
            forecast=forecast,
            flow=fit_flow(shared_flow(), windows, forecast, listens, steps, seed),
            starts=windows.z[:, :CONTEXT][np.linspace(0, len(windows) - 1, min(_STARTS, len(windows))).astype(int)],
            listens=listens,
        )

    def stream(
        self,
        chunks: Iterable[np.ndarray],
        fps: float,
        lead: float = 0.0,
        seed: int = 0,
        guidance: float = 1.0,
        noise: float = 1.0,
    ) -> Iterator[Motion]:
        """Motion without an end, in blocks of about a second; when the sound is over, silence goes on.

        Memory is constant, a frame needs at most 1.5 s of sound beyond it, and what comes out does not depend on how
        the sound is cut. The mouth is at rest.

        Args:
            chunks: 16 kHz mono.
            fps: Of the motion.
            lead: Seconds of silence before the sound.
            seed: Another seed, other motion.
            guidance: How much the sound matters: 0 not at all, 1 as learnt.
            noise: How much is left to chance: 0 nothing, 1 as learnt.

        Raises:
            AvatarError: A number is out of range.
        """
        for name, value, (low, high) in (("guidance", guidance, GUIDANCE), ("noise", noise, NOISE)):
            if not low <= value <= high:
                raise AvatarError(f"{name} {value:g} is out of range.", fix=f"It goes from {low:g} to {high:g}.")
        rows = self._rows(_speech_rows(chunks, lead), seed, guidance if self.listens else 0.0, noise)
        return self._motions(rows, fps)

    def _motions(self, rows: Iterator[Tensor], fps: float) -> Iterator[Motion]:
        for block in at_rate(rows, RATE, fps):
            z, blinks = block.split([len(CHANNELS), 8], 1)
            yield _blinked(self.manner.restore(z, fps), blinks)

    def _rows(self, speech: Iterator[Tensor], seed: int, guidance: float, noise: float) -> Iterator[Tensor]:
        """Blocks [WINDOW, C + 8] at `RATE`: channels in spreads, and blinks."""
        rng = np.random.default_rng([seed, 0])
        start = self.starts[int(rng.integers(len(self.starts)))]
        context = start if noise > 0 else torch.zeros_like(start)
        blinking = _Blinking(self.blinks, seed, noise > 0)
        sound = torch.cat([_SILENCE.expand(CONTEXT, -1), *itertools.islice(speech, WINDOW + AHEAD)])
        before = context  # with the response
        for number in itertools.count(1):
            chance = np.random.default_rng([seed, number]).standard_normal(len(self.forecast.size))
            u = noise * torch.from_numpy(chance).float()
            told = guidance * self.response(sound[CONTEXT - BEFORE :])
            z = self.manner.within(sample(self.flow, self.forecast, context, sound, u, guidance) + told)
            before = torch.cat([before, z])
            blinks = blinking.push(influences(before, sound[: len(before)], RATE)[CONTEXT:])
            yield torch.cat([z, blinks], 1)
            before, context = before[-CONTEXT:], torch.cat([context, z - told])[-CONTEXT:]
            sound = torch.cat([sound[WINDOW:], *itertools.islice(speech, WINDOW)])

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {"starts": self.starts}
        tensors |= {f"blinks.{k}": getattr(self.blinks, k) for k in ("weights", "shapes", "closed", "lengths")}
        tensors |= {f"manner.{k}": v for k, v in self.manner.tensors().items()}
        tensors |= {f"response.{k}": v for k, v in vars(self.response).items()}
        tensors |= {f"forecast.{k}": v for k, v in vars(self.forecast).items()}
        tensors |= {f"flow.{k}": v for k, v in self.flow.state_dict().items()}
        about = {"format": FORMAT, "channels": CHANNELS, "listens": self.listens}
        save_tensors(path, tensors, about)

    @staticmethod
    def load(path: Path) -> MotionGenerator:
        """Read what :meth:`save` wrote.

        Raises:
            AvatarError: The file is missing, damaged or of another version.
        """
        tensors, about = load_tensors(path)
        if about.get("format") != FORMAT or about.get("channels") != list(CHANNELS):
            raise AvatarError(f"{path} is not a motion generator of this version.", fix="Train again.")

        _check(path, tensors)
        single = {k for k, v in tensors.items() if v.is_floating_point()} - {"blinks.weights"}
        tensors |= {k: tensors[k].float() for k in single}

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

        flow = FlowNet()
        load_state(flow, part("flow"), path)
        return MotionGenerator(
            manner=UpperFaceNormalizer(**part("manner")),
            blinks=BlinkHabit(rate=RATE, **part("blinks")),
            response=Response(**part("response")),
            forecast=Forecast(**part("forecast")),
            flow=flow.eval(),
            starts=tensors["starts"],
            listens=Record(about, path).flag("listens"),
        )


def _check(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse what :meth:`MotionGenerator.save` cannot have written."""
    c, window = len(CHANNELS), WINDOW * len(CHANNELS)
    shapes = {
        "starts": f"S {CONTEXT} {c}", "blinks.weights": "7", "blinks.shapes": "B N 4", "blinks.closed": "B 4",
        "blinks.lengths": "B", "manner.rest": f"{c}", "manner.spread": f"{c}", "manner.low": f"{c}",
        "manner.high": f"{c}", "manner.follow": f"{c + 1} {FOLLOWERS}", "manner.face": f"{len(face_channels.CHANNELS)}",
        "manner.arkit": f"{len(ARKIT)}", "response.weights": f"R {c}", "response.middle": "R",
        "forecast.scale": f"{5 * c}", "forecast.weights": f"{5 * c} {window}", "forecast.trend": f"{WINDOW} {c}",
        "forecast.modes": f"K {window}", "forecast.size": "K",
    }  # fmt: skip
    known = {name for name in tensors if not name.startswith("flow.")}
    if extra := known - set(shapes):
        raise AvatarError(f"{path} holds an unknown tensor {min(extra)}.", fix="Train again.")
    rows = check_tensors(tensors, path, {"blinks.shapes": "B N 4"})["N"]
    sizes = check_tensors(tensors, path, shapes, {"blinks.lengths": rows + 1})
    if sizes["S"] < 1 or sizes["B"] < 1 or sizes["R"] != TAPS or int(tensors["blinks.lengths"].min()) < 1:
        raise AvatarError(f"{path} does not hold what a motion generator needs.", fix="Train again.")
    if not bool((tensors["manner.spread"] > 0).all() and (tensors["forecast.scale"] > 0).all()):
        raise AvatarError(f"{path}: a spread in it is not positive.", fix="Train again.")


class _Blinking:
    """Lays blinks over rows as their hazard adds up."""

    def __init__(self, habit: BlinkHabit, seed: int, random: bool) -> None:
        self._habit, self._random = habit, random
        self._rng = np.random.default_rng([seed, 2**32 - 1])
        self._since = float(self._rng.uniform(0, 4)) if random else 4.0  # seconds since the last blink
        self._sum, self._due = 0.0, self._draw()
        self._coming = torch.zeros(0, 8)  # rest of a blink that has begun
        self._closing = 0  # rows that it still takes

    def _draw(self) -> float:
        return float(self._rng.exponential()) if self._random else 1.0

    def push(self, rows: np.ndarray) -> Tensor:
        """[n, 8] how far blinks close `EYES` and `LIDS` in n rows whose `influences` are ``rows``, and that times what
        they are when closed."""
        out = torch.zeros(len(rows), 8)
        count = min(len(self._coming), len(rows))
        out[:count], self._coming = self._coming[:count], self._coming[count:]
        for i, row in enumerate(rows):
            self._since += 1 / RATE
            if self._closing > 0:  # no other begins
                self._closing -= 1
                continue
            self._sum += self._habit.hazard(self._since, row)
            if self._sum >= self._due:
                pick = int(self._rng.integers(len(self._habit.shapes))) if self._random else 0
                length = int(self._habit.lengths[pick])
                shape = self._habit.shapes[pick, :length]
                shape = torch.cat([shape, shape * self._habit.closed[pick]], 1)
                self._closing = length - 1
                count = min(len(shape), len(rows) - i)
                out[i : i + count], self._coming = shape[:count], shape[count:]
                self._since, self._sum, self._due = 0.0, 0.0, self._draw()
        return out


def _blinked(motion: Motion, blinks: Tensor) -> Motion:
    """With eyes as far closed as rows [T, 8] of `_Blinking` say."""
    share, closed = blinks.split(4, 1)
    arkit, face = motion.arkit.clone(), motion.face.clone()
    arkit[:, EYES] = arkit[:, EYES] * (1 - share[:, :2]) + closed[:, :2]
    face[:, LIDS] = face[:, LIDS] * (1 - share[:, 2:]) + closed[:, 2:]
    return motion.map(arkit=arkit, face=face)


def _speech_rows(chunks: Iterable[np.ndarray], lead: float) -> Iterator[Tensor]:
    """Rows [1, SPEECH] one by one, without end: silence for ``lead`` seconds, the sound, and silence."""
    ear = _Ear()
    silence = (np.zeros(SAMPLE_RATE, np.float32) for _ in itertools.count())
    padded = itertools.chain([np.zeros(round(lead * SAMPLE_RATE), np.float32)], chunks, silence)
    for block in stream_features(SpeechEncoder(()), padded, RATE):
        for row in ear.push(block.energy):
            yield row[None]
