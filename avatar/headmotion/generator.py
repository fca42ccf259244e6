"""Head, torso, gaze, brows and blinks for speech that the person never said: sampled second by second, for ever.

What speech does not decide is sampled as the person might do it. `avatar.headmotion.normalizer` takes the person out of
the motion and puts one in. `avatar.headmotion.flow` makes a second of motion from the seconds before and the audio
around it. `avatar.headmotion.blinks` lets the eyes blink. docs/notes/headmotion.md says how well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.features import FrameFeatureStream, features_at, features_look_ahead
from avatar.audio.resampling import LinearResampler
from avatar.audio.spectra import ENERGY_FLOOR_DB
from avatar.audio.vad import VoiceActivityDetector
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.headmotion.blinks import BlinkHabit, influences
from avatar.headmotion.flow import (
    AHEAD,
    BEFORE,
    CONTEXT,
    RATE,
    RESPONSE_FEATURES,
    SPAN,
    SPEECH,
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

FORMAT = "avatar-headmotion-1"
GUIDANCE, NOISE = (0.0, 3.0), (0.0, 1.5)  # what can be asked for
_RANGE_DB = (-30.0, 0.0)  # relative to the voice; what is quieter is as quiet as that
_SILENCE_DB = -60.0  # dBFS; where there never was a voice, nothing can be relative to it
_SILENCE = torch.full((1, SPEECH), -1.0)
_STARTS = 32  # moments of the track that a performance may begin from


def speech_rows(energy: np.ndarray) -> Tensor:
    """Turn energy [T] in dB at `RATE` into loudness and voice activity [T, 2].

    Loudness is relative to the voice. Both are about -1 to 1.
    """
    activity = _SpeechActivity()
    return torch.cat([activity.push(energy), activity.finish()])


def training_track(
    motion: Motion, segments: Sequence[tuple[int, int]], samples: np.ndarray | None, audio_delay_s: float
) -> tuple[Motion, list[tuple[int, int]], Tensor]:
    """A track and its segments at `RATE`, and its `speech_rows` [T, 2]; see :meth:`MotionGenerator.fit`."""
    track = motion.resample(RATE)
    scale = len(track) / max(1, len(motion))
    spans = [(round(a * scale), min(round(b * scale), len(track))) for a, b in segments]
    if samples is None:
        return track, spans, speech_rows(np.full(len(track), ENERGY_FLOOR_DB))
    offset = round(audio_delay_s * motion.fps, 6)  # undoes the division that made seconds of frames
    samples = samples[: max(0, round((len(motion) + offset) / motion.fps * SAMPLE_RATE))]
    features = features_at(SpeechEncoder(()), samples, RATE, len(track), offset * RATE / motion.fps)
    return track, spans, speech_rows(features.energy)


class _SpeechActivity:
    """`speech_rows` of a stream of energy."""

    def __init__(self) -> None:
        self._detector = VoiceActivityDetector(RATE, ahead=0.0)
        self.look_ahead = self._detector.look_ahead / RATE  # seconds

    def push(self, energy: np.ndarray) -> Tensor:
        return self._rows(*self._detector.push(energy))

    def finish(self) -> Tensor:
        return self._rows(*self._detector.finish())

    @staticmethod
    def _rows(energy: np.ndarray, loudness: np.ndarray, gate: np.ndarray) -> Tensor:
        loudness = np.where(energy > _SILENCE_DB, loudness, _RANGE_DB[0]).clip(*_RANGE_DB)
        rows = np.c_[(loudness - np.mean(_RANGE_DB)) / np.diff(_RANGE_DB) * 2, 2 * gate - 1]
        return torch.from_numpy(rows.astype(np.float32))


@dataclass(frozen=True)
class MotionGenerator:
    """What moves the upper part of one person.

    Attributes:
        normalizer: How the person holds and moves head, eyes and brows.
        blinks: When and how they blink.
        response: Linear effect of speech.
        forecast: The Gaussian of the next second.
        flow: What makes a sample of the forecast.
        starts: [S, CONTEXT, C] moments to begin from, in spreads.
        listens: Whether it was trained with audio; otherwise audio makes no difference.
    """

    normalizer: UpperFaceNormalizer
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
        audio_delay_s: float = 0.0,
        seed: int = 0,
        steps: int = STEPS,
    ) -> MotionGenerator:
        """Fit a person's generator to a track and its audio, in less than a minute.

        Args:
            motion: The training part, T frames at any rate.
            segments: [start, end) frames of it without a cut inside.
            samples: 16 kHz mono, from frame 0 on; None where the video has no audio: motion then does not follow
                any. What comes after the track is not used.
            audio_delay_s: Seconds by which the audio comes after the video.
            seed: The same seed and data give the same weights.
            steps: Of training the flow.

        Raises:
            AvatarError: There is too little without a cut to learn from.
        """
        track, spans, speech = training_track(motion, segments, samples, audio_delay_s)
        normalizer = UpperFaceNormalizer.of(track, spans)
        z = normalizer.normalise(track, spans)
        response = Response.of(z, speech)
        windows = windows_of(z, response(around(speech)), speech, track.valid, spans)
        if len(windows) < WINDOW:
            raise AvatarError(
                "The video holds too little motion without a cut to generate more of it.",
                why=f"It takes {(CONTEXT + 2 * WINDOW) / RATE} s in one piece, or pieces of more than "
                f"{(CONTEXT + WINDOW) / RATE} s.",
                fix="Use a longer video.",
            )  # fmt: skip
        forecast = fit_forecast(windows)
        listens = samples is not None
        return MotionGenerator(
            normalizer=normalizer,
            blinks=BlinkHabit.of(track, spans, z, speech),
            response=response,
            forecast=forecast,
            flow=fit_flow(shared_flow(), windows, forecast, listens, steps, seed),
            starts=windows.z[:, :CONTEXT][np.linspace(0, len(windows) - 1, min(_STARTS, len(windows))).astype(int)],
            listens=listens,
        )

    @property
    def look_ahead(self) -> float:
        """Seconds of audio after a frame that it waits for, at most."""
        made = (WINDOW + AHEAD) / RATE  # the first row of a window waits for its last one, and for `AHEAD` more
        return made + _SpeechActivity().look_ahead + features_look_ahead(SpeechEncoder(()), RATE)

    def open(
        self, fps: float, *, lead: float = 0.0, seed: int = 0, guidance: float = 1.0, noise: float = 1.0
    ) -> GeneratorStream:
        """Begin a performance. The mouth is at rest.

        Args:
            fps: Of the motion.
            lead: Seconds of silence before the audio.
            seed: Another seed, other motion.
            guidance: Strength of the conditioning on speech: 0 ignores it, 1 is as trained.
            noise: Sampling temperature: 0 is deterministic, 1 is as trained.

        Raises:
            AvatarError: A number is out of range.
        """
        for name, value, (low, high) in (("guidance", guidance, GUIDANCE), ("noise", noise, NOISE)):
            if not low <= value <= high:
                raise AvatarError(f"{name} {value:g} is out of range.", fix=f"It goes from {low:g} to {high:g}.")
        return GeneratorStream(self, fps, lead, seed, guidance if self.listens else 0.0, noise)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {"starts": self.starts}
        tensors |= {f"blinks.{k}": getattr(self.blinks, k) for k in ("weights", "shapes", "closed", "lengths")}
        tensors |= {f"normalizer.{k}": v for k, v in self.normalizer.tensors().items()}
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
            normalizer=UpperFaceNormalizer(**part("normalizer")),
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
        "blinks.lengths": "B", "normalizer.rest": f"{c}", "normalizer.spread": f"{c}", "normalizer.low": f"{c}",
        "normalizer.high": f"{c}", "normalizer.follow": f"{c + 1} {FOLLOWERS}",
        "normalizer.face": f"{len(face_channels.CHANNELS)}", "normalizer.arkit": f"{len(ARKIT)}",
        "response.weights": f"R {c}", "response.middle": "R",
        "forecast.scale": f"{5 * c}", "forecast.weights": f"{5 * c} {window}", "forecast.trend": f"{WINDOW} {c}",
        "forecast.modes": f"K {window}", "forecast.size": "K",
    }  # fmt: skip
    known = {name for name in tensors if not name.startswith("flow.")}
    if extra := known - set(shapes):
        raise AvatarError(f"{path} holds an unknown tensor {min(extra)}.", fix="Train again.")
    rows = check_tensors(tensors, path, {"blinks.shapes": "B N 4"})["N"]
    sizes = check_tensors(tensors, path, shapes, {"blinks.lengths": rows + 1})
    if sizes["S"] < 1 or sizes["B"] < 1 or sizes["R"] != RESPONSE_FEATURES or int(tensors["blinks.lengths"].min()) < 1:
        raise AvatarError(f"{path} does not hold what a motion generator needs.", fix="Train again.")
    if not bool((tensors["normalizer.spread"] > 0).all() and (tensors["forecast.scale"] > 0).all()):
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


class GeneratorStream:
    """One performance: motion in blocks of a second, the same however the audio is cut, in constant memory."""

    def __init__(
        self, generator: MotionGenerator, fps: float, lead: float, seed: int, guidance: float, noise: float
    ) -> None:
        self._generator, self._fps = generator, fps
        self._features, self._activity = FrameFeatureStream(SpeechEncoder(()), RATE), _SpeechActivity()
        self._windows = _Windows(generator, seed, guidance, noise)
        self._frames = LinearResampler(RATE, fps)
        self._early = Motion.zeros(0, fps)  # frames made and not yet given
        self._count = 0  # frames given
        if lead > 0:
            self._early = self._made(np.zeros(round(lead * SAMPLE_RATE), np.float32))

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N] at 16 kHz; return the frames [n >= 0] that they complete."""
        return self._give(self._made(samples), None)

    def finish(self, frames: int) -> Motion:
        """Go on with silence until there are ``frames`` in all; return those that were missing."""
        blocks, ready = [], self._count + len(self._early)
        while ready < frames:
            blocks.append(self._made(np.zeros(SAMPLE_RATE, np.float32)))
            ready += len(blocks[-1])
        return self._give(Motion.cat([Motion.zeros(0, self._fps), *blocks]), max(0, frames - self._count))

    def _give(self, new: Motion, most: int | None) -> Motion:
        ready = Motion.cat([self._early, new])
        count = len(ready) if most is None else most
        self._early = ready[count:]
        self._count += count
        return ready[:count]

    def _made(self, samples: np.ndarray) -> Motion:
        rows = self._windows.push(self._activity.push(self._features.push(samples).energy))
        z, blinks = self._frames.push(rows).split([len(CHANNELS), 8], 1)
        return _blinked(self._generator.normalizer.restore(z, self._fps), blinks)


class _Windows:
    """Rows [n, C + 8] at `RATE`, a window at a time: channels in spreads, and blinks."""

    def __init__(self, generator: MotionGenerator, seed: int, guidance: float, noise: float) -> None:
        self._generator, self._seed, self._guidance, self._noise = generator, seed, guidance, noise
        starts = generator.starts
        start = starts[int(np.random.default_rng([seed, 0]).integers(len(starts)))]
        self._before = start if noise > 0 else torch.zeros_like(start)  # the last rows, with the response
        self._context = self._before  # the same without it
        self._blinking = _Blinking(generator.blinks, seed, noise > 0)
        self._speech = _SILENCE.expand(CONTEXT, -1)  # rows that the context belongs to, and what came since
        self._number = 0

    def push(self, speech: Tensor) -> Tensor:
        """Take `speech_rows` [n, SPEECH]; return the windows that they complete."""
        self._speech = torch.cat([self._speech, speech])
        rows = [torch.zeros(0, len(CHANNELS) + 8)]
        while len(self._speech) >= SPAN:
            rows.append(self._window(self._speech[:SPAN]))
            self._speech = self._speech[WINDOW:]
        return torch.cat(rows)

    def _window(self, speech: Tensor) -> Tensor:
        generator, self._number = self._generator, self._number + 1
        chance = np.random.default_rng([self._seed, self._number]).standard_normal(len(generator.forecast.size))
        u = self._noise * torch.from_numpy(chance).float()
        response = self._guidance * generator.response(speech[CONTEXT - BEFORE :])
        free = sample(generator.flow, generator.forecast, self._context, speech, u, self._guidance)
        z = generator.normalizer.within(free + response)
        rows = torch.cat([self._before, z])
        blinks = self._blinking.push(influences(rows, speech[: len(rows)], RATE)[CONTEXT:])
        self._before = rows[-CONTEXT:]
        self._context = torch.cat([self._context, z - response])[-CONTEXT:]
        return torch.cat([z, blinks], 1)
