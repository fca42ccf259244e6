"""What speech features tell of the audio that they were made from: how much of its spectrum, and of the voice's pitch.

    python -m pipelines.speech_tells RECORDINGS... --json tells.json

A linear map from the features of three neighbouring rows is learnt on all recordings but one, and asked about that one:
for the log-mel spectrum, its mean over the recording taken out, and for the median pitch. All 768 features are compared
with the components that `avatar prior record` keeps. A trained network would get more out of either: this is what can
be had at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.audio.features import features_at
from avatar.audio2motion.shared import RATE, SharedPrior, project
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.paths import write_json

MOST_SECONDS = 30  # of a recording
LEVEL = 0.5  # of the loudest sample
BANDS, WINDOW, HOP = 80, 400, 160  # of the spectrum
RIDGE = 0.01  # of the mean power of the inputs
PITCHES = (70, 400)  # hertz
VOICED = 0.45  # of the power, that has to come back after a period
PITCH_WINDOW = 1280  # samples


@dataclass(frozen=True, kw_only=True)
class Config:
    """What speech features tell."""

    recordings: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Recordings of different people, at least four."""
    json: Path | None = None
    """Write the record here."""


@dataclass(frozen=True)
class Heard:
    """A recording: features [T, F], spectrum [T, 4 * BANDS], and pitch [T] in octaves, NaN where there is none."""

    features: np.ndarray
    spectrum: np.ndarray
    pitch: np.ndarray


def listen(path: Path, prior: SharedPrior) -> Heard:
    """Features and spectrum of a recording at one level."""
    samples = load_audio(path)[: MOST_SECONDS * SAMPLE_RATE]
    samples = (samples * (LEVEL / max(1e-3, float(np.abs(samples).max())))).astype(np.float32)
    features = features_at(prior.encoder, samples, RATE).features
    rows, step = len(features), SAMPLE_RATE // round(RATE)
    padded = np.pad(samples, (PITCH_WINDOW // 2, PITCH_WINDOW))
    pitch = np.array([pitch_of(padded[k * step : k * step + PITCH_WINDOW]) for k in range(rows)])
    return Heard(features, spectrum(samples, rows), pitch)


def spectrum(samples: np.ndarray, rows: int) -> np.ndarray:
    """Log-mel energies of each row's 40 ms, [rows, 4 * BANDS]."""
    power = np.abs(
        torch.stft(
            torch.from_numpy(samples), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True
        ).numpy()
    )
    hertz = np.linspace(0, SAMPLE_RATE / 2, len(power))
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 1400), BANDS + 2) / 2595) - 1)
    rise = (hertz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])
    energy = np.log10(np.clip((power**2).T @ np.clip(np.minimum(rise, fall), 0, None), 1e-10, None))
    energy = np.maximum(energy, energy.max() - 8)
    per_row = SAMPLE_RATE // HOP // round(RATE)
    index = np.clip(per_row * np.arange(rows)[:, None] + np.arange(per_row), 0, len(energy) - 1)
    return energy[index].reshape(rows, -1)


def pitch_of(samples: np.ndarray) -> float:
    """Octaves above 1 Hz by autocorrelation, NaN where the window [PITCH_WINDOW] is not voiced."""
    centred = (samples - samples.mean()) * np.hanning(len(samples))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, 4 * len(samples))) ** 2)
    low, high = SAMPLE_RATE // PITCHES[1], SAMPLE_RATE // PITCHES[0]
    period = low + int(correlation[low:high].argmax())
    loud = float(np.mean(np.square(samples))) > 1e-4
    return float(np.log2(SAMPLE_RATE / period)) if loud and correlation[period] > VOICED * correlation[0] else np.nan


def inputs(features: np.ndarray, prior: SharedPrior, kept: bool) -> np.ndarray:
    """Rows [T, D] with their neighbours: all features, or the components that are kept."""
    basis = prior.basis if kept else torch.eye(len(prior.basis))
    rows = project(features, prior.input_mean, prior.input_std, basis).numpy().astype(np.float64)
    return np.concatenate([rows[np.clip(np.arange(len(rows)) + n, 0, len(rows) - 1)] for n in (-1, 0, 1)], 1)


def solve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ridge regression [D, ...] of y [T, ...] on x [T, D]."""
    gram = x.T @ x
    return np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)


def tells(heard: list[Heard], prior: SharedPrior, kept: bool) -> dict[str, float]:
    """Share of the spectrum's variance, and correlation of the median pitch, of recordings that were left out."""
    rows = [inputs(one.features, prior, kept) for one in heard]
    spectra, found, true = [], [], []
    for i, one in enumerate(heard):
        others = [j for j in range(len(heard)) if j != i]
        x = np.concatenate([rows[j] - rows[j].mean(0) for j in others])
        y = np.concatenate([heard[j].spectrum - heard[j].spectrum.mean(0) for j in others])
        missed = one.spectrum - one.spectrum.mean(0) - (rows[i] - rows[i].mean(0)) @ solve(x, y)
        spectra.append(1 - float(np.square(missed).sum() / np.square(one.spectrum - one.spectrum.mean(0)).sum()))
        voiced = [np.isfinite(h.pitch) for h in heard]
        x = np.concatenate([np.pad(rows[j][voiced[j]], ((0, 0), (0, 1)), constant_values=1) for j in others])
        y = np.concatenate([heard[j].pitch[voiced[j]] for j in others])
        said = np.pad(rows[i][voiced[i]], ((0, 0), (0, 1)), constant_values=1) @ solve(x, y)
        found.append(float(np.median(said)))
        true.append(float(np.median(one.pitch[voiced[i]])))
    correlation = float(np.corrcoef(found, true)[0, 1])
    return {"spectrum": round(float(np.mean(spectra)), 3), "spectrum_least": round(min(spectra), 3),
            "spectrum_most": round(max(spectra), 3), "median_pitch_correlation": round(correlation, 3)}  # fmt: skip


def main(config: Config) -> None:
    """Listen to all, print what is told, and write the record.

    Raises:
        AvatarError: There are too few recordings, or one cannot be read.
    """
    if len(config.recordings) < 4:
        raise AvatarError("There are too few recordings.", fix="Give four or more, of different people.")
    prior = SharedPrior.load()
    heard = [listen(path, prior) for path in config.recordings]
    seconds = round(sum(len(one.features) for one in heard) / RATE)
    result: dict[str, Any] = {"recordings": len(heard), "seconds": seconds}
    result |= {name: tells(heard, prior, kept) for name, kept in (("all features", False), ("kept", True))}
    print(result)
    if config.json is not None:
        write_json(config.json, environment() | result)


if __name__ == "__main__":
    main(tyro.cli(Config))
