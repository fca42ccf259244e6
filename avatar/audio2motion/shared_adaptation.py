"""Adaptation of the shared speech network to a person's own speech, seconds or minutes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from avatar.audio.features import FrameFeatures, features_at
from avatar.audio2motion.base import AudioToMotion, motion_of
from avatar.audio2motion.kernel import fit_kernel, moments_of
from avatar.audio2motion.pauses import choose_pause, mouth_opening, opening_correlation
from avatar.audio2motion.shared import PAUSES, RATE, SharedSpeech
from avatar.io.audio import SAMPLE_RATE
from avatar.io.listening import moments_db, voice_level
from avatar.motion import Motion
from avatar.motion.mouth import mouth_channels

_FOLDS = 5
_LEAST_SECONDS = 1.5  # of the face: of fewer, a fifth and the half seconds beside it may be all
_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # seconds of speech that the prior counts for
_LEAST_CORRELATION = 0.3  # of the opening on left-out fifths: below, the lips do not follow this audio
_MOST_LOSS = 0.02  # of that correlation that a lesser error may cost: as much is chance
_SHORT_SECONDS, _SHORT_ERROR = 15.0, 0.95  # in so few, a gain of some percent on the fifths is chance
_MAX_GAIN, _GAIN_POWER = 1.5, 0.7  # all of the lost movement would exaggerate wrong guesses as well


def adapt(
    speech: SharedSpeech,
    motion: Motion,
    samples: np.ndarray,
    audio_delay_s: float = 0.0,
    teacher: AudioToMotion | None = None,
) -> SharedSpeech:
    """Fit a correction of the shared regression to a person's own speech.

    Args:
        speech: The shared network with the person's mouth.
        motion: T frames, at any rate.
        samples: [N] 16 kHz mono, from frame 0 on; what comes after the track is not used.
        audio_delay_s: Seconds by which the audio comes after the video.
        teacher: What speaks better for this person, if there is one; see :func:`adapt_to_features`.

    Returns:
        The network corrected, at the level of this audio; as it was, but for its report, where no correction helps.
    """
    audio = _advanced(samples, audio_delay_s)[: round(len(motion) / motion.fps * SAMPLE_RATE)]
    said = None if teacher is None else motion_of(teacher, audio)
    adapted = adapt_to_features(speech, motion, features_at(speech.prior.encoder, audio, RATE), said)
    return replace(adapted, voice_db=voice_level(moments_db(audio))) if adapted.corrected else adapted


def adapt_to_features(
    speech: SharedSpeech, motion: Motion, features: FrameFeatures, said: Motion | None = None
) -> SharedSpeech:
    """Fit the correction to features of the prior's encoder at `RATE`, in step with the track.

    Two corrections of what the prior misses: a ridge regression, which a web page can run, and a kernel regression,
    which follows the lips better and speaks everywhere else. Cross-validation chooses how strongly either is held back.
    A correction has to lessen the error on left-out fifths, in less than 15 s by a twentieth. Its lip opening has to
    correlate there about as well as the prior's, and by 0.3 at least. Where neither correction does, as in a dubbed
    video, or hardly a second of the face was seen, nothing is changed.

    Where ``said`` is what a better network says of this audio, the corrections are fitted to the mean of track and that
    (distillation; Hinton et al., 2015): it is free of what no audio tells. They are judged by the track all the same.
    """
    track = motion.resample(RATE)
    inputs = speech.prior.inputs(features.features)[: len(track)]
    track = track[: len(inputs)]
    valid = track.valid.numpy()
    base = replace(speech, correction=None, kernel=None)
    report: dict[str, Any] = {"seconds": round(int(valid.sum()) / RATE, 1)}
    if valid.sum() < _LEAST_SECONDS * RATE:
        return replace(base, report=report)
    expected = base.predicted(inputs).double().numpy()
    real = mouth_channels(track).astype(np.float64)
    taught = real if said is None else (real + _of_length(mouth_channels(said.resample(RATE)), len(real))) / 2
    fit = _Regression(inputs.double().numpy()[valid], real[valid], expected[valid], taught[valid])
    errors = {seconds: fit.error(seconds) for seconds in (None, *_RIDGES)}
    best = min(errors, key=lambda key: errors[key])
    best = best if fit.is_better(fit.left_out(best)) else None
    unseen = fit.left_out(best)
    linear_gain = _gain(fit.real, unseen)
    moments = moments_of(inputs, speech.prior.behind, speech.prior.ahead)
    kernel = fit_kernel(
        moments, taught - expected, valid, RATE, lambda unseen: fit.error_of(expected[valid] + unseen)
    )  # fmt: skip
    better = expected[valid] + kernel.unseen
    use_kernel = fit.error_of(better) < errors[best] and fit.is_better(better)
    gain = _gain(fit.real, better) if use_kernel else linear_gain
    unseen = better if use_kernel else unseen
    middle = speech.normalizer.bias.numpy()
    gates = {pause: speech.prior.gate(pause).judge(features.energy)[1][: len(track)][valid] for pause in PAUSES}
    pause = choose_pause(middle + gain * (unseen - middle), fit.real, speech.rest.numpy(), gates)
    report |= {"ridge": best, "error": round(fit.error_of(unseen) / errors[None], 3)}
    report["opening_correlation"] = round(opening_correlation(unseen, fit.real), 3)
    if best is None and not use_kernel:
        return replace(base, report=report)
    return replace(
        base,
        correction=None if best is None else torch.from_numpy(fit.solve(np.ones(len(fit.x), bool), best)).float(),
        gain=torch.from_numpy(linear_gain).float(),
        kernel=kernel.regression(gain) if use_kernel else None,
        pause=pause,
        report=report | ({"noise": kernel.noise} if use_kernel else {}),
    )


def _of_length(rows: np.ndarray, count: int) -> np.ndarray:
    """The first rows; the last one repeats where there are fewer."""
    return rows[np.arange(count).clip(max=len(rows) - 1)].astype(np.float64)


def _gain(real: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """[CHANNELS] what makes predictions of unseen parts move about as much as the person does."""
    return np.clip((real.std(0) / (unseen.std(0) + 1e-6)) ** _GAIN_POWER, 1, _MAX_GAIN)


class _Regression:
    """Ridge regression from inputs to what the prior misses, cross-validated on fifths.

    Args:
        x: [T, R] inputs.
        real: [T, CHANNELS] as tracked.
        expected: [T, CHANNELS] as the prior predicts.
        taught: [T, CHANNELS] what it is fitted to, if not to ``real``.
    """

    def __init__(self, x: np.ndarray, real: np.ndarray, expected: np.ndarray, taught: np.ndarray | None = None) -> None:
        self.x, self.real, self.expected = x, real, expected
        self._missing = (real if taught is None else taught) - expected
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
        return self.error_of(self.left_out(seconds))

    def error_of(self, channels: np.ndarray) -> float:
        """Mean square error of channels [T, CHANNELS] and, as much again, of the opening, in units of their spreads."""
        errors = np.square((channels - self.real) / self._scale).mean()
        opening = mouth_opening(self.real)
        missed = np.square(mouth_opening(channels) - opening).mean() / (opening.var() + 1e-6)
        return float(errors + missed)

    def is_better(self, channels: np.ndarray) -> bool:
        """Tell whether channels [T, CHANNELS] of left-out fifths follow the lips, and better than the prior."""
        most = _SHORT_ERROR if len(self.x) < _SHORT_SECONDS * RATE else 1.0
        if self.error_of(channels) >= most * self.error_of(self.expected):
            return False
        least = opening_correlation(self.expected, self.real) - _MOST_LOSS
        return opening_correlation(channels, self.real) >= max(_LEAST_CORRELATION, least)


def _advanced(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Audio from second ``seconds`` on; silence where that is before its beginning."""
    shift = round(seconds * SAMPLE_RATE)
    return samples[shift:] if shift >= 0 else np.pad(samples, (-shift, 0))
