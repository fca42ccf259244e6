"""The second half of the shared prior's training: its middle in speech, its movement, and where lips touch.

`pipelines.prior` measures the speaker's rest and spread over whole sentences, their silences included. People who talk
all the time are in speech at their middle; so the prior has to be, or it opens their mouths too far
(docs/notes/audio2motion.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from avatar.audio.features import features_at
from avatar.audio.vad import VoiceActivityDetector
from avatar.audio2motion.lip_closure import fit_bilabial_closure
from avatar.audio2motion.shared import GAIN, RATE, WEIGHTS, SharedPrior
from avatar.corpus.find import find
from avatar.errors import AvatarError
from avatar.eval.speech_metrics import closure_times
from avatar.io.audio import load_audio
from avatar.log import info, on_terminal, track
from avatar.motion.mouth import spread_of
from avatar.paths import read_json
from avatar.synth import speech
from pipelines.prior import prepared, random_talk, resampled

SYNTHETIC_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to finish, and with what."""

    sentences: Path
    """Folder of short videos of one speaker, those that the prior was trained on, with words.json."""
    cache: Path = Path("prior.cache")
    """Folder of what `pipelines.prior` prepared."""
    sentences_delay_s: float = -0.0148
    """Seconds by which their audio comes after video."""
    prior: Path = WEIGHTS
    """What `pipelines.prior` wrote."""
    out: Path = WEIGHTS
    """Where the prior goes."""


def main(config: Config) -> None:
    """Hear the sentences again, and write the prior."""
    prior = SharedPrior.load(config.prior)
    if "speaking" in prior.about:
        raise AvatarError(
            f"{config.prior} has been through this already.", fix="Start from what pipelines.prior wrote."
        )
    words = read_json(config.sentences / "words.json")
    items = {item.name: item for item in find(config.sentences)}
    cache, keys = prepared(list(items.values()), config.cache, prior.encoder)
    values, talks, sentences = [], [], []
    for name, key in track(sorted(keys.items()), "Listening"):
        seen = cache.mouth(key).in_step(config.sentences_delay_s)[0]
        path = items[name].files[0]
        features = features_at(prior.encoder, load_audio(path), RATE, len(seen))
        values.append(seen)
        talks.append(VoiceActivityDetector(RATE).judge(features.energy)[1] > 0.5)
        times = closure_times([(a, b, word) for a, b, word in words[path.stem]])
        sentences.append((prior.inputs(features.features), times * RATE))
    everything, speaking = np.concatenate(values), np.concatenate(values)[np.concatenate(talks)]
    weights = in_speech(prior.weights, everything, speaking)
    synthetic = [
        (prior.inputs(features_at(prior.encoder, sound, RATE).features), closures * RATE)
        for sound, closures in synthetic_closures(SYNTHETIC_SECONDS)
    ]
    about = prior.about | {"id": "shared-2", "speaking": {"gain": GAIN, "synthetic_seconds": SYNTHETIC_SECONDS}}
    closure = fit_bilabial_closure([sentences, synthetic])
    replace(prior, weights=weights, closure_weights=closure, gain=GAIN, about=about).save(config.out)
    info(f"Wrote {config.out}")


def in_speech(weights: torch.Tensor, everything: np.ndarray, speaking: np.ndarray) -> torch.Tensor:
    """Weights of a regression in units of a speaker's middle and spread [T, A], now in those of speech alone."""
    (middle, spread), (speech_middle, speech_spread) = spread_of(everything), spread_of(speaking)
    changed = weights / torch.from_numpy(speech_spread / spread)
    changed[-1] -= torch.from_numpy((speech_middle - middle) / speech_spread)
    return changed


def synthetic_closures(seconds: float, seed: int = 1000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Half minutes of random words in the project's own voice, 16 kHz, and the seconds of p, b and m in them."""
    for said in random_talk(seconds, np.random.default_rng(seed)):
        yield resampled(said), bilabials(said)


def bilabials(said: speech.Speech) -> np.ndarray:
    """Seconds of the middle of each closure: all of m, at most 75 ms of p and b."""
    found = [p for p in said.phones if p.symbol and p.symbol in speech.BILABIAL]
    return np.array([(p.start + (p.end if p.symbol == "m" else min(p.end, p.start + 0.075))) / 2 for p in found])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with on_terminal():
        main(tyro.cli(Config))
