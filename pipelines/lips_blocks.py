"""How well do lips follow the audio, on speech that was held out? ``python -m pipelines.lips_blocks PERSON ... --json``.

A person's video is cut into three blocks. Each is left out in turn, with half a second around it, and everything that
speaks for the person is trained on the rest. Nothing is rendered: what is said is compared with the track.
docs/notes/audio2motion.md explains the numbers, `avatar.eval.lip_timing` defines them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio2motion.base import AudioToMotion, motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.personal_training import train_personal
from avatar.audio2motion.shared import SharedPrior
from avatar.audio2motion.shared_adaptation import adapt
from avatar.data.person import PersonInfo
from avatar.environment import environment
from avatar.eval.lip_timing import Limits, lip_numbers, second_rendering
from avatar.eval.speech_metrics import closed_at, closure_times, read_words
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.log import info, on_terminal
from avatar.motion import Motion
from avatar.motion.mouth import OPENING, articulation, mouth_channels
from avatar.paths import write_json
from avatar.train.speech import STREAMING_SECONDS

BLOCKS = 3
GAP_SECONDS = 0.5  # on either side of a block, not trained on either
LEAD_SECONDS = 10.0  # of audio before a block, by which the level of the voice is known
VOICES = ("prior", "adapted", "personal", "ensemble", "streaming", "streaming adapted")


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
        prior: The shared one.
    """

    motion: Motion
    samples: np.ndarray
    delay: float
    prior: SharedPrior


Train = Callable[[Material, Mapping[str, AudioToMotion]], AudioToMotion]


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
    edges = np.linspace(0, len(motion), BLOCKS + 1).astype(int)
    spans = [(int(edges[k]), int(edges[k + 1])) for k in config.blocks]
    said: dict[str, list[np.ndarray]] = {name: [] for name in config.only}
    for start, stop in spans:
        material = Material(without(motion, start, stop), samples, delay, prior)
        voices: dict[str, AudioToMotion] = {}
        for name in VOICES:
            if name in _needed(config.only):
                voices[name] = TRAINING[name](material, voices)
        for name in config.only:
            said[name].append(mouth_channels(spoken(voices[name], samples, delay, start, stop, motion.fps)))
        info(f"{folder.name}: frames {start} to {stop} done")
    if words is not None:
        times = read_words(words)
        whole = mouth_channels(motion)
        said["the words said elsewhere"] = [second_rendering(whole, times, a, b, motion.fps) for a, b in spans]
    rows = {name: _rows(parts, motion, spans, words) for name, parts in said.items()}
    for name, row in rows.items():
        info(f"{folder.name}, {name}: " + _line(row))
    return {"seconds": len(motion) / motion.fps, "fps": motion.fps, "blocks": spans, "voices": rows}


def without(motion: Motion, start: int, stop: int) -> Motion:
    """The track without frames from ``start`` to ``stop``, and half a second around: the mean, not measured."""
    gap = round(GAP_SECONDS * motion.fps)
    valid = motion.valid.clone()
    hidden = slice(max(0, start - gap), min(len(motion), stop + gap))
    valid[hidden] = False
    face, coefficients = motion.face.clone(), motion.arkit.clone()
    face[hidden], coefficients[hidden] = face[valid].mean(0), coefficients[valid].mean(0)
    return motion.map(face=face, arkit=coefficients, valid=valid)


def spoken(
    voice: AudioToMotion, samples: np.ndarray, delay: float, start: int, stop: int, fps: float
) -> Motion:  # fmt: skip
    """What a voice says in frames ``start`` to ``stop``, after some audio before them."""
    lead = min(start, round(LEAD_SECONDS * fps))
    first, last = (round((frame / fps + delay) * SAMPLE_RATE) for frame in (start - lead, stop))
    audio = np.pad(samples[max(0, first) : max(0, last)], (max(0, -first), 0))
    motion = motion_of(voice, audio)[lead : lead + stop - start]
    missing = stop - start - len(motion)
    return Motion.cat([motion, *[motion[-1:]] * missing]) if missing > 0 else motion


# --- what speaks ------------------------------------------------------------------------------------------------------


def _adapted(material: Material, _: Mapping[str, AudioToMotion]) -> AudioToMotion:
    plain = material.prior.person(material.motion, material.motion.fps)
    return adapt(plain, material.motion, material.samples, material.delay)


def _streaming_adapted(material: Material, _: Mapping[str, AudioToMotion]) -> AudioToMotion:
    motion = material.motion
    plain = material.prior.streaming().person(motion, motion.fps)
    return adapt(plain, first_seconds(motion, STREAMING_SECONDS), material.samples, material.delay)


def _personal(material: Material, _: Mapping[str, AudioToMotion]) -> AudioToMotion:
    return train_personal(material.motion, material.samples, speech_encoder(), material.delay)


TRAINING: dict[str, Train] = {
    "prior": lambda m, _: m.prior.person(m.motion, m.motion.fps),
    "adapted": _adapted,
    "personal": _personal,
    "ensemble": lambda _, voices: Ensemble([voices["personal"], voices["adapted"]]),
    "streaming": lambda m, _: m.prior.streaming().person(m.motion, m.motion.fps),
    "streaming adapted": _streaming_adapted,
}
_PARTS = {"ensemble": ("personal", "adapted")}


def _needed(names: tuple[str, ...]) -> set[str]:
    return {part for name in names for part in (name, *_PARTS.get(name, ()))}


def first_seconds(motion: Motion, seconds: float) -> Motion:
    """The track up to where ``seconds`` of it were measured."""
    enough = np.flatnonzero(np.cumsum(motion.valid.numpy()) >= round(seconds * motion.fps))
    return motion[: int(enough[0]) + 1] if len(enough) else motion


# --- what is measured -------------------------------------------------------------------------------------------------


def _rows(
    parts: list[np.ndarray], motion: Motion, spans: list[tuple[int, int]], words: Path | None
) -> dict[str, Any]:  # fmt: skip
    real, valid = articulation(mouth_channels(motion)), motion.valid.numpy()
    limits = Limits.of(np.where(valid, real[:, OPENING], np.nan))
    said = [articulation(part) for part in parts]
    closures = closure_times(read_words(words)) * motion.fps if words is not None else None
    rows = []
    for part, (a, b) in zip(said, spans, strict=True):
        seen = valid[a:b] & np.isfinite(part[:, OPENING])
        rows.append(lip_numbers(part, real[a:b], seen, limits, motion.fps))
        if closures is not None:
            closed = closed_at(part[:, OPENING], real[valid, OPENING], closures - a)
            rows[-1]["closed_at_p_b_m"] = {"value": _mean([closed[np.isfinite(closed)].mean()]), "interval": None}
    together = np.concatenate([np.arange(a, b) for a, b in spans])
    ends = np.cumsum([0, *(b - a for a, b in spans)])
    everything = np.concatenate(said)
    seen = valid[together] & np.isfinite(everything[:, OPENING])
    segments = [(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]
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
