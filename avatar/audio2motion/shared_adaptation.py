"""Adaptation of the shared speech network to a person's own speech, seconds or minutes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch

from avatar.audio.features import features_at
from avatar.audio2motion.pauses import choose_pause
from avatar.audio2motion.shared import PAUSES, RATE, SharedSpeech, pause_gate
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.mouth import mouth_channels

_FOLDS = 5
_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # seconds of speech that the prior counts for
_MAX_GAIN, _GAIN_POWER = 1.5, 0.7  # all of the lost movement would exaggerate wrong guesses as well


def adapt(speech: SharedSpeech, motion: Motion, samples: np.ndarray, audio_delay_s: float = 0.0) -> SharedSpeech:
    """Fit a correction of the shared regression to a person's own speech.

    A ridge regression of what the prior misses. Cross-validation chooses how strongly it is held back; where no
    strength helps, nothing is corrected.

    Args:
        speech: The shared network with the person's mouth.
        motion: T frames, at any rate.
        samples: [N] 16 kHz mono, from frame 0 on; what comes after the track is not used.
        audio_delay_s: Seconds by which the audio comes after the video.
    """
    track = motion.resample(RATE)
    audio = _advanced(samples, audio_delay_s)[: round(len(motion) / motion.fps * SAMPLE_RATE)]
    features = features_at(speech.prior.encoder, audio, RATE)
    inputs = speech.prior.inputs(features.features)[: len(track)]
    track = track[: len(inputs)]
    valid = track.valid.numpy()
    base = replace(speech, correction=None)
    fit = _Regression(
        x=inputs.double().numpy()[valid],
        real=mouth_channels(track)[valid].astype(np.float64),
        expected=base.predicted(inputs).double().numpy()[valid],
    )
    errors = {seconds: fit.error(seconds) for seconds in (None, *_RIDGES)}
    best = min(errors, key=lambda key: errors[key])
    unseen = fit.left_out(best)
    gain = np.clip((fit.real.std(0) / (unseen.std(0) + 1e-6)) ** _GAIN_POWER, 1, _MAX_GAIN)
    middle = speech.normalizer.bias.numpy()
    gates = {pause: pause_gate(pause).judge(features.energy)[1][: len(track)][valid] for pause in PAUSES}
    pause = choose_pause(middle + gain * (unseen - middle), fit.real, speech.rest.numpy(), gates)
    return replace(
        base,
        correction=None if best is None else torch.from_numpy(fit.solve(np.ones(len(fit.x), bool), best)).float(),
        gain=torch.from_numpy(gain).float(),
        pause=pause,
        report={"seconds": round(len(fit.x) / RATE, 1), "ridge": best, "error": round(errors[best] / errors[None], 3)},
    )


class _Regression:
    """Ridge regression from inputs to what the prior misses, cross-validated on fifths.

    Args:
        x: [T, R] inputs.
        real: [T, CHANNELS] as tracked.
        expected: [T, CHANNELS] as the prior predicts.
    """

    def __init__(self, x: np.ndarray, real: np.ndarray, expected: np.ndarray) -> None:
        self.x, self.real, self.expected = x, real, expected
        self._missing = real - expected
        self._scale = real.std(0) + 1e-3
        self._power = float(np.square(x[:, :-1]).mean()) * RATE
        self._folds = list(itertools.pairwise(np.linspace(0, len(x), _FOLDS + 1).astype(int)))

    def solve(self, chosen: np.ndarray, seconds: float) -> np.ndarray:
        """Weights [R, CHANNELS] fitted to the ``chosen`` rows [T]; the prior counts for ``seconds`` of speech."""
        seen = self.x[chosen]
        ridge = np.full(self.x.shape[1], self._power * seconds)
        ridge[-1] = RATE  # the constant: a second of the prior's mean
        return np.linalg.solve(seen.T @ seen + np.diag(ridge), seen.T @ self._missing[chosen])

    def left_out(self, seconds: float | None) -> np.ndarray:
        """Channels [T, CHANNELS] of each fifth, predicted by the others; None: by the prior alone."""
        if seconds is None:
            return self.expected
        gap, index = round(RATE / 2), np.arange(len(self.x))
        parts = [self.x[a:b] @ self.solve((index < a - gap) | (index >= b + gap), seconds) for a, b in self._folds]
        return self.expected + np.concatenate(parts)

    def error(self, seconds: float | None) -> float:
        """Mean square error on the fifths, in units of each channel's spread."""
        return float(np.square((self.left_out(seconds) - self.real) / self._scale).mean())


def _advanced(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Audio from second ``seconds`` on; silence where that is before its beginning."""
    shift = round(seconds * SAMPLE_RATE)
    return samples[shift:] if shift >= 0 else np.pad(samples, (-shift, 0))
