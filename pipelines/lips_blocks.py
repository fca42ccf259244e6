"""How well do lips follow audio that was held out? ``python -m pipelines.lips_blocks PERSON ... --json FILE``.

A person's video is cut into three blocks. Each is left out in turn, with half a second around it, and everything that
speaks for the person is trained on the rest. Nothing is rendered: what is said is compared with the track.
docs/notes/audio2motion.md explains the numbers, `avatar.eval.lip_timing` defines them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio.features import FrameFeatures, features_at
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.personal_training import train_personal
from avatar.audio2motion.shared import RATE, SharedPrior, SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt_to_features
from avatar.data.person import PersonInfo
from avatar.environment import environment
from avatar.eval.lip_timing import Limits, lip_numbers, second_rendering
from avatar.eval.speech_metrics import Word, closed_at, closure_times, read_words
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.log import info, on_terminal
from avatar.motion import Motion
from avatar.motion.mouth import OPENING, articulation, mouth_channels
from avatar.paths import write_json
from avatar.train.speech import STREAMING_SECONDS, first_seen

BLOCKS = 3
GAP_SECONDS = 0.5  # on either side of a block, not trained on either
VOICES = (
    "prior", "adapted, linear", "adapted", "personal", "ensemble, linear", "ensemble", "streaming",
    "streaming adapted, linear", "streaming adapted",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    persons: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """PERSON folders."""
    words: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PERSON=FILE")] = ()
    """Words with their times of some of these people."""
    only: tuple[str, ...] = VOICES
    """Measure these alone."""
    prior: Path | None = None
    """Another prior than the one in the package."""
    blocks: tuple[int, ...] = tuple(range(BLOCKS))
    """Leave these out in turn."""
    json: Path | None = None
    """Write the numbers here."""


@dataclass(frozen=True)
class Material:
    """A person without a block.

    Attributes:
        motion: T frames; those of the block and of its surroundings are not measured, and hold the mean mouth.
        samples: Audio of the whole video.
        delay: Seconds by which it comes after the video.
        priors: The shared one, and the same streaming, with its features of the audio in step with the track.
        adapted: What was adapted already, by kind.
    """

    motion: Motion
    samples: np.ndarray
    delay: float
    priors: dict[str, tuple[SharedPrior, FrameFeatures]]
    adapted: dict[str, SharedSpeech] = field(default_factory=dict)


Said = Motion  # of the whole track
Train = Callable[[Material, Mapping[str, Said]], Said]


def main(config: Config) -> None:
    """Leave out block by block, and write a row per voice."""
    prior = SharedPrior.load(config.prior) if config.prior else SharedPrior.load()
    words = {Path(a).stem: Path(b) for a, b in (entry.partition("=")[::2] for entry in config.words)}
    result: dict[str, Any] = environment() | {"prior": prior.about, "persons": {}}
    for folder in config.persons:
        result["persons"][folder.stem] = measure(folder, prior, config, words.get(folder.stem))
        if config.json is not None:
            write_json(config.json, result)


def measure(folder: Path, prior: SharedPrior, config: Config, words: Path | None) -> dict[str, Any]:
    """Rows of one person: by voice, the numbers of each block, of all together, and the mean of the blocks'."""
    motion = Motion.load(folder / "pose" / "motion.safetensors")
    samples, delay = load_audio(folder / "ingest" / "audio.wav"), PersonInfo.read(folder / "person.json").audio_delay_s
    count = round(len(motion) / motion.fps * SAMPLE_RATE)
    audio = in_step(samples, delay)[:count]
    kinds = {"offline": prior} | ({"streaming": prior.streaming()} if any("stream" in n for n in config.only) else {})
    priors = {kind: (p, features_at(p.encoder, audio, RATE)) for kind, p in kinds.items()}
    edges = np.linspace(0, len(motion), BLOCKS + 1).astype(int)
    spans = [(int(edges[k]), int(edges[k + 1])) for k in config.blocks]
    said: dict[str, list[np.ndarray]] = {name: [] for name in config.only}
    for start, stop in spans:
        material = Material(without(motion, start, stop), samples, delay, priors)
        voices: dict[str, Said] = {}
        for name in VOICES:
            if name in _needed(config.only):
                voices[name] = TRAINING[name](material, voices)
        for name in config.only:
            said[name].append(mouth_channels(voices[name][start:stop]))
        info(f"{folder.name}: frames {start} to {stop} done")
    times = None if words is None else spoken(words, delay)
    if times is not None:
        whole = mouth_channels(motion)
        said["the words said elsewhere"] = [second_rendering(whole, times, a, b, motion.fps) for a, b in spans]
    rows = {name: _rows(parts, motion, spans, times) for name, parts in said.items()}
    for name, row in rows.items():
        info(f"{folder.name}, {name}: " + _line(row))
    return {"seconds": len(motion) / motion.fps, "fps": motion.fps, "blocks": spans, "voices": rows}


def in_step(samples: np.ndarray, delay: float) -> np.ndarray:
    """The audio from the first frame on."""
    shift = round(delay * SAMPLE_RATE)
    return samples[shift:] if shift >= 0 else np.pad(samples, (-shift, 0))


def spoken(words: Path, delay: float) -> list[Word]:
    """Words with their times from the first frame on, as :func:`in_step` has the audio."""
    return [(start - delay, end - delay, word) for start, end, word in read_words(words)]


def without(motion: Motion, start: int, stop: int) -> Motion:
    """The track without frames from ``start`` to ``stop``, and half a second around: the mean, not measured."""
    gap = round(GAP_SECONDS * motion.fps)
    valid = motion.valid.clone()
    hidden = slice(max(0, start - gap), min(len(motion), stop + gap))
    valid[hidden] = False
    face, coefficients = motion.face.clone(), motion.arkit.clone()
    face[hidden], coefficients[hidden] = face[valid].mean(0), coefficients[valid].mean(0)
    return motion.map(face=face, arkit=coefficients, valid=valid)


def _of_length(motion: Motion, frames: int) -> Motion:
    """The first frames; the last one is repeated where there are fewer."""
    missing = frames - len(motion)
    return Motion.cat([motion, *[motion[-1:]] * missing]) if missing > 0 else motion[:frames]


# --- what speaks ------------------------------------------------------------------------------------------------------


def _person(material: Material, kind: str) -> SharedSpeech:
    return material.priors[kind][0].person(material.motion, material.motion.fps)


def _adapted(material: Material, kind: str, said: Said | None = None) -> SharedSpeech:
    """The network adapted, live lips also to what the ensemble ``said``."""
    if kind not in material.adapted:
        streaming = kind == "streaming"
        motion = material.motion
        motion = first_seen(motion, round(STREAMING_SECONDS * motion.fps)) if streaming else motion
        material.adapted[kind] = adapt_to_features(_person(material, kind), motion, material.priors[kind][1], said)
    return material.adapted[kind]


def _said(speech: SharedSpeech, material: Material, kind: str) -> Said:
    """What the shared network says, gate and lip closure included, of features that are at hand."""
    return _of_length(speech.of_features(material.priors[kind][1]), len(material.motion))


def _personal(material: Material, _: Mapping[str, Said]) -> Said:
    model = train_personal(material.motion, material.samples, speech_encoder(), material.delay)
    return _of_length(motion_of(model, in_step(material.samples, material.delay)), len(material.motion))


def _ensemble(adapted: str) -> Train:
    """The mean of the personal network and an adapted one, as `avatar.audio2motion.ensemble` takes it.

    But for the lip closure, which here is the adapted one's and so is halved in the mean.
    """

    def mean(_: Material, voices: Mapping[str, Said]) -> Said:
        a, b = voices["personal"], voices[adapted]
        return a.map(face=(a.face + b.face) / 2, arkit=(a.arkit + b.arkit) / 2)

    return mean


TRAINING: dict[str, Train] = {
    "prior": lambda m, _: _said(_person(m, "offline"), m, "offline"),
    "adapted, linear": lambda m, _: _said(_adapted(m, "offline").linear(), m, "offline"),
    "adapted": lambda m, _: _said(_adapted(m, "offline"), m, "offline"),
    "personal": _personal,
    "ensemble, linear": _ensemble("adapted, linear"),
    "ensemble": _ensemble("adapted"),
    "streaming": lambda m, _: _said(_person(m, "streaming"), m, "streaming"),
    "streaming adapted, linear": lambda m, v: _said(_adapted(m, "streaming", v["ensemble"]).linear(), m, "streaming"),
    "streaming adapted": lambda m, v: _said(_adapted(m, "streaming", v["ensemble"]), m, "streaming"),
}
_PARTS = {"ensemble": ("personal", "adapted"), "ensemble, linear": ("personal", "adapted, linear")}
_PARTS |= {f"streaming adapted{end}": ("personal", "adapted", "ensemble") for end in ("", ", linear")}


def _needed(names: tuple[str, ...]) -> set[str]:
    return {part for name in names for part in (name, *_PARTS.get(name, ()))}


# --- what is measured -------------------------------------------------------------------------------------------------


def _rows(
    parts: list[np.ndarray], motion: Motion, spans: list[tuple[int, int]], words: list[Word] | None
) -> dict[str, Any]:  # fmt: skip
    real, valid = articulation(mouth_channels(motion)), motion.valid.numpy()
    limits = Limits.of(np.where(valid, real[:, OPENING], np.nan))
    said = [articulation(part) for part in parts]
    closures = closure_times(words) * motion.fps if words is not None else None
    rows = []
    for part, (a, b) in zip(said, spans, strict=True):
        seen = valid[a:b] & np.isfinite(part[:, OPENING])
        rows.append(lip_numbers(part, real[a:b], seen, limits, motion.fps))
        if closures is not None:
            closed = closed_at(part[:, OPENING], real[valid, OPENING], closures - a, motion.fps)
            rows[-1]["closed_at_p_b_m"] = {"value": _mean([closed[np.isfinite(closed)].mean()]), "interval": None}
    together = np.concatenate([np.arange(a, b) for a, b in spans])
    ends = np.cumsum([0, *(b - a for a, b in spans)])
    everything = np.concatenate(said)
    seen = valid[together] & np.isfinite(everything[:, OPENING])
    segments = [(int(a), int(b)) for a, b in itertools.pairwise(ends)]
    pooled = lip_numbers(everything, real[together], seen, limits, motion.fps, segments)
    mean = {name: _mean([row[name]["value"] for row in rows]) for name in rows[0]}
    return {"mean": mean, "pooled": pooled, "blocks": rows}


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _line(row: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in row["mean"].items() if value is not None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with on_terminal():
        main(tyro.cli(Config))
