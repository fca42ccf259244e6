"""How long must a held-out part be to judge lips by? ``python -m pipelines.held_out_length PERSON ... --json FILE``.

The shared network speaks a person's audio, and its mouth opening is compared with the tracked one, in windows of each
length that begin a second apart. Nothing is rendered. "wrong" is what is said in another window, three seconds or
more away: how often it passes for the right one is the rate of false alarms (`avatar.eval.lips`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from avatar.audio2motion.shared import SharedPrior
from avatar.data.person import PersonInfo
from avatar.environment import environment
from avatar.eval import bootstrap, lips
from avatar.eval.bootstrap import correlation
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.motion import Motion
from avatar.paths import write_json
from pipelines.prior_guarantees import opening, spoken

LENGTHS = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0)  # seconds
KNOWN = 15.0  # seconds at the beginning, from which the network knows the person
APART = 3.0  # seconds
MOST_WINDOWS = 100


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure on."""

    persons: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """PERSON folders."""
    json: Path | None = None
    """Write the numbers here."""


def openings(folder: Path, prior: SharedPrior) -> tuple[np.ndarray, np.ndarray, float]:
    """Said and tracked opening [T] of what comes after the known seconds, and frames per second."""
    motion = Motion.load(folder / "pose" / "motion.safetensors")
    shift = round(PersonInfo.read(folder / "person.json").audio_delay_s * SAMPLE_RATE)
    audio = load_audio(folder / "ingest" / "audio.wav")
    audio = audio[shift:] if shift >= 0 else np.pad(audio, (-shift, 0))
    known = round(KNOWN * motion.fps)
    said = opening(spoken(prior.person(motion[:known], motion.fps), audio))
    real = np.where(motion.valid.numpy(), opening(motion), np.nan)
    end = min(len(said), len(real))
    return said[known:end], real[known:end], motion.fps


def windows(said: np.ndarray, real: np.ndarray, fps: float, seconds: float) -> dict[str, Any] | None:
    """Numbers of all windows of a length; None where they do not fit in."""
    frames = round(seconds * fps)
    last = len(said) - frames
    if last < round(APART * fps):
        return None
    rng, rows = np.random.default_rng(0), {"own": [], "wrong": []}
    for start in range(0, last + 1, round(fps * max(1.0, last / fps / MOST_WINDOWS))):
        far = [other for other in range(last + 1) if abs(other - start) >= APART * fps]
        elsewhere = int(rng.choice(far)) if far else start
        for kind, at in (("own", start), ("wrong", elsewhere)):
            own, truth = said[at : at + frames], real[start : start + frames]
            floor = np.roll(own, frames // 2)
            series = {"real": {"opening": truth}, "audio": {"opening": own, "lmd": np.abs(own - truth)},
                      "shuffled": {"opening": floor, "lmd": np.abs(floor - truth)}}  # fmt: skip
            better = lips.judge(series, seconds, fps)["better_than_shuffled"]["mouth_correlation"]
            values = [bootstrap.value(correlation, x, truth) for x in (own, floor)]
            rows[kind].append((*(np.nan if v is None else v for v in values), better))
    own, wrong = (np.array(rows[kind], float) for kind in ("own", "wrong"))
    return {
        "windows": len(own), "correlation": own[:, 0].mean(), "spread": own[:, 0].std(),
        "least_of_20": np.percentile(own[:, 0], 5), "shuffled_most_of_20": np.percentile(own[:, 1], 95),
        "told_apart": own[:, 2].mean(), "false_alarms": wrong[:, 2].mean(),
    }  # fmt: skip


def main(config: Config) -> None:
    """Print a row per person and length, and write them."""
    prior = SharedPrior.load()
    result: dict[str, Any] = environment() | {"persons": {}}
    for folder in config.persons:
        said, real, fps = openings(folder, prior)
        found = {f"{seconds:g} s": windows(said, real, fps, seconds) for seconds in LENGTHS}
        result["persons"][folder.name] = {
            length: {k: round(float(v), 3) for k, v in row.items()} for length, row in found.items() if row is not None
        }
        for length, row in result["persons"][folder.name].items():
            print(folder.name, length, row)
    if config.json is not None:
        write_json(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config))
