"""Train the shared audio-to-motion prior on publishable data, and measure it on unseen people.

docs/notes/audio2motion.md explains the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soxr
import torch
import tyro

from avatar.assets.canonical_face import canonical_face
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.whisper import WhisperEncoder
from avatar.audio.features import features_at
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.load import PERSONAL
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.shared import RATE, WEIGHTS, SharedPrior, SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt
from avatar.audio2motion.shared_training import Recording, fit
from avatar.corpus.cache import Cache
from avatar.corpus.find import Item, find, videos
from avatar.corpus.measure import mean, measure_all, predict
from avatar.corpus.mouth import of_face
from avatar.corpus.ranks import Ranks
from avatar.corpus.recordings import Entry, Recordings, scales
from avatar.corpus.sync import Offset
from avatar.corpus.train import prepare_all
from avatar.data.person import PersonInfo
from avatar.environment import environment
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.log import info, on_terminal
from avatar.motion import Motion, face_channels
from avatar.motion.mouth import FACE, GEOMETRY, OPENING, opening_weights, relative, spread_of
from avatar.paths import file_sha256, write_json
from avatar.preprocess.head_fit import canonical_in_head_axes
from avatar.sync.judge import SyncJudge, mouth_motion
from avatar.sync.training import act
from avatar.synth import acting as performance
from avatar.synth import speech
from avatar.synth.make import SCRIPT

SYNTHETIC_SECONDS = 360.0
_TALK_SECONDS = 30.0
# The voice says better than one person how lips are rounded; everything else it says worse.
SHARES = {
    "": {"sentences": 1.0},
    "mouthPucker": {"sentences": 0.6, "synthetic": 0.4},
    "mouthFunnel": {"sentences": 0.6, "synthetic": 0.4},
}
SECONDS = (10.0, 60.0)
_LISTEN_SECONDS = 20.0  # of each language
_PIXELS = 20.0  # per centimetre, of a drawn face


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to train on and what to measure."""

    out: Path = WEIGHTS
    """Where the prior goes."""
    sentences: Path | None = None
    """Folder of short videos of one speaker: GRID's (CC-BY 4.0). Without it nothing is trained."""
    sentences_delay_s: float = -0.0148
    """Seconds by which their audio comes after video."""
    seed: int = 0
    """Fixes everything that is drawn by chance."""
    familiar: tuple[Path, ...] = ()
    """Other videos of people it is trained on."""
    development: tuple[Path, ...] = ()
    """Videos of people that choices were made by."""
    test: tuple[Path, ...] = ()
    """Videos of people that it was neither trained on nor chosen by."""
    languages: tuple[Path, ...] = ()
    """Speech, for the sync judge; the first is what the others are compared with."""
    persons: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PERSON=RUN")] = ()
    """Prepared people and their runs, to compare adaptation with the run's own speech network."""
    cache: Path = Path("prior.cache")
    """Folder for what is prepared, for the next time; another one for --streaming."""
    streaming: bool = False
    """Measure with the look-ahead of streaming audio."""
    json: Path | None = None
    """Write the numbers here."""


def main(config: Config) -> None:
    """Train, save, measure."""
    if config.sentences is not None:
        _train(config, config.sentences)
    prior, judge = SharedPrior.load(config.out), SyncJudge.load()
    if config.streaming:
        prior = prior.streaming()
    result: dict[str, Any] = environment() | {"prior": prior.about, "sha256": file_sha256(config.out)}
    for group in ("familiar", "development", "test"):
        if paths := getattr(config, group):
            rows = measure_all(prior, *prepared(videos(paths), config.cache, prior.encoder))
            result[group] = {"mean": mean(rows), "videos": rows}
            info(f"{group}: " + " ".join(f"{k} {v:.3f}" for k, v in mean(rows).items()))
    if config.languages:
        result["languages"] = _languages(prior, judge, config.languages)
        result["noise at 0 dB"] = _in_noise(prior, load_audio(config.languages[0])[: 20 * SAMPLE_RATE])
    for entry in config.persons:
        person, _, run = entry.partition("=")
        result[f"person {Path(person).name}"] = row = _adaptation(prior, Path(person), Path(run))
        info(f"{person}: {row}")
    if config.json is not None:
        write_json(config.json, result)


# --- training ---------------------------------------------------------------------------------------------------------


def _train(config: Config, folder: Path) -> None:
    encoder = SpeechEncoder([WhisperEncoder(ahead=0.2)])
    cache, keys = prepared(find(folder), config.cache, encoder)
    offset = Offset(config.sentences_delay_s)
    one = [Entry(name=name, speaker="s1", key=key, offset=offset) for name, key in keys.items()]
    sources = {
        "sentences": Recordings(one, scales(one, cache, pauses=True), cache),
        "synthetic": list(_synthetic(encoder, canonical_in_head_axes(canonical_face()[0]), config.seed)),
    }
    seconds = {name: round(sum(len(r.features) for r in part) / RATE) for name, part in sources.items()}
    about = {"id": "shared-1", "seconds": seconds, "shares": SHARES, "seed": config.seed}
    fit(sources, SHARES, encoder, about).save(config.out)


def prepared(items: Sequence[Item], folder: Path, encoder: SpeechEncoder) -> tuple[Cache, dict[str, str]]:
    """The cache in a folder, and the keys of recordings in it by name."""
    cache = Cache.open(folder, encoder.config)
    return cache, prepare_all(items, cache, Ranks())


def _synthetic(encoder: SpeechEncoder, shape: np.ndarray, seed: int) -> Iterable[Recording]:
    """The project's own voice speaking random words, with the lip shapes of its phones, acted by drawn faces."""
    rng = np.random.default_rng(seed)
    for said in random_talk(SYNTHETIC_SECONDS, rng):
        coefficients = performance.lips(said, np.arange(int(said.seconds * RATE)) / RATE)
        moved, _ = mouth_motion(act(coefficients, RATE, rng), shape)
        values = of_face(moved, coefficients)
        features = features_at(encoder, resampled(said), RATE, len(values)).features
        yield Recording(features, relative(values, *spread_of(values)))


def random_talk(seconds: float, rng: np.random.Generator) -> Iterator[speech.Speech]:
    """Half minutes of random words in the project's own voice; ``rng`` may be drawn from between them."""
    words = sorted(set(re.findall("[a-z]+", " ".join(SCRIPT).lower())))
    done = 0.0
    while done < seconds:
        parts: list[speech.Speech] = []
        while sum(part.seconds for part in parts) < _TALK_SECONDS:
            text = " ".join(rng.choice(words, rng.integers(4, 11)))
            pause = speech.silence(float(rng.uniform(0.05, 0.8)))
            parts += [pause, speech.speak(text, "neural", int(rng.integers(1 << 20)))]
        said = speech.join(parts)
        done += said.seconds
        yield said


def resampled(said: speech.Speech) -> np.ndarray:
    """[N] at 16 kHz."""
    return soxr.resample(said.samples, speech.RATE, SAMPLE_RATE).astype(np.float32)


# --- measuring --------------------------------------------------------------------------------------------------------


def _languages(prior: SharedPrior, judge: SyncJudge, paths: Sequence[Path]) -> dict[str, Any]:
    """What the sync judge says of a drawn face that speaks, and of the same face with the sound 2 s later."""
    shape = canonical_in_head_axes(canonical_face()[0])
    rows: dict[str, Any] = {}
    for path in paths:
        audio = load_audio(path)[: round(_LISTEN_SECONDS * SAMPLE_RATE)]
        values = predict(prior, audio, int(len(audio) / SAMPLE_RATE * RATE))
        landmarks = _drawn(values, shape)
        shift = 2 * SAMPLE_RATE
        score = judge.score(landmarks, audio, RATE)
        rows[path.stem] = row = {
            "matched": judge.matched(landmarks, audio, RATE),
            "confidence": score.confidence,
            "audio_delay_s": score.audio_delay_s,
            "matched_elsewhere": judge.matched(landmarks[: -2 * int(RATE)], audio[shift:], RATE),
        }
        row["share_of_first"] = row["matched"] / rows[paths[0].stem]["matched"]
        info(f"{path.stem}: " + " ".join(f"{k} {v:.3f}" for k, v in row.items() if v is not None))
    return rows


def _in_noise(prior: SharedPrior, audio: np.ndarray) -> dict[str, float]:
    """The opening for speech in pink noise as loud as it, against the same without noise."""
    noise = pink(np.random.default_rng(0).standard_normal(len(audio)))
    noisy = (audio + noise * audio.std() / noise.std()).astype(np.float32)
    count = int(len(audio) / SAMPLE_RATE * RATE)
    clean, masked = (predict(prior, sound, count)[:, OPENING].astype(float) for sound in (audio, noisy))
    return {
        "correlation": float(np.corrcoef(clean, masked)[0, 1]),
        "movement": float(masked.std() / clean.std()),
        "velocity": float(np.diff(masked).std() / np.diff(clean).std()),
    }


def pink(white: np.ndarray) -> np.ndarray:
    """White noise [N] at 16 kHz with as much in every octave, above 50 Hz or so."""
    frequency = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)
    return np.fft.irfft(np.fft.rfft(white) / np.sqrt(frequency + 50), len(white))


def _drawn(values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 2] of a frontal face whose lips move by articulation in spreads, some 3 mm each."""
    index = [face_channels.CHANNEL_INDEX[name] for name in GEOMETRY]
    unit = np.zeros((face_channels.NUM_LANDMARKS * 3, face_channels.NUM_LANDMARKS, 3), np.float32)
    unit.reshape(len(unit), -1)[np.arange(len(unit)), np.arange(len(unit))] = 1
    moved = np.linalg.pinv(face_channels.encode(unit)[:, index])  # [C, 478 * 3]: the least that gives the channels
    face = shape + 0.3 * (values[:, : len(GEOMETRY)] @ moved).reshape(len(values), -1, 3)[:, : len(shape)]
    return (_PIXELS * face[..., :2] + 256).astype(np.float32)


def _adaptation(prior: SharedPrior, person: Path, run: Path) -> dict[str, Any]:
    """Opening on the held-out part: the prior as it is, adapted to seconds and to all, the run's own network, both."""
    about = PersonInfo.read(person / "person.json")
    motion = Motion.load(person / "pose" / "motion.safetensors")
    audio, delay, end = load_audio(person / "ingest" / "audio.wav"), about.audio_delay_frames, about.test_start
    train, held_out = motion[:end], motion[end:]
    start = round((end + delay) / motion.fps * SAMPLE_RATE)
    lead = min(start, SAMPLE_RATE)
    sound = audio[start - lead : start + round(len(held_out) / motion.fps * SAMPLE_RATE)]
    skipped = round(lead / SAMPLE_RATE * motion.fps)

    def speak(speech: SharedSpeech | PersonalSpeech) -> np.ndarray:
        face = motion_of(speech, sound).face[skipped:, FACE].numpy()
        return (np.pad(face, ((0, len(held_out)), (0, 0)), "edge")[: len(held_out)] @ opening_weights()).astype(float)

    base = prior.person(train, motion.fps)
    said = {"prior": speak(base)}
    for seconds in (*SECONDS, None):
        count = end if seconds is None else min(end, round(seconds * motion.fps))
        taken = train[:count]
        few = adapt(prior.person(taken, motion.fps), taken, audio, delay / motion.fps)
        said["all" if seconds is None else f"{seconds:g} s"] = speak(few)
    said["own network"] = speak(PersonalSpeech.load(run / PERSONAL))
    said["all + own network"] = 0.5 * (said["all"] + said["own network"])
    real = held_out.face[:, FACE].numpy() @ opening_weights()
    valid = held_out.valid.numpy()
    return {
        name: {
            "opening": float(np.corrcoef(value[valid], real[valid])[0, 1]),
            "movement": float(value[valid].std() / real[valid].std()),
        }
        for name, value in said.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with on_terminal():
        main(tyro.cli(Config))
