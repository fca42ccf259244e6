"""Train the sync judge on what may be published, and measure it on people it has never seen (docs/sync_judge.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from avatar.assets import canonical_face
from avatar.environment import environment
from avatar.eval.retrack import FaceTracker
from avatar.eval.sync_evaluation import evaluate
from avatar.eval.sync_judge import SyncJudge
from avatar.eval.sync_training import Track, animated, join, record, save, synthetic, track_video, train
from avatar.log import info, track
from avatar.paths import atomic_file, write_json
from avatar.preprocess.refine import canonical_in_head_axes

SYNTHETIC_SECONDS = 1500.0
SHARES = {"sentences": 0.45, "animation": 0.3, "synthetic": 0.25}
CLIP_SECONDS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to train on and what to measure."""

    sentences: Annotated[Path, tyro.conf.Positional]
    """Folder of short videos in step, such as GRID's (CC-BY 4.0)."""
    animation: Annotated[Path, tyro.conf.Positional]
    """Folder of blendshape animation with its speech: FACEGOOD's (MIT)."""
    out: Path
    """Where the judge goes (.safetensors)."""
    steps: int = 2000
    """Training steps."""
    seed: int = 0
    """Fixes everything that is drawn by chance."""
    development: tuple[Path, ...] = ()
    """Videos of people by which choices were made: measured apart."""
    test: tuple[Path, ...] = ()
    """Videos of people that nothing was chosen by."""
    known: tuple[str, ...] = ()
    """True offsets of videos, as NAME=FRAMES (positive: the picture is late)."""
    tracks: Path | None = None
    """Keep tracked landmarks here, for the next time."""
    json: Path | None = None
    """Write the numbers here."""


def main(config: Config) -> None:
    """Train, save, measure."""
    shape = canonical_in_head_axes(canonical_face()[0])
    with FaceTracker() as tracker:
        sentences = _tracks(sorted(config.sentences.glob("*.mp4")), tracker, config.tracks)
        groups = {
            name: _tracks(list(paths), tracker, config.tracks)
            for name, paths in (("development", config.development), ("test", config.test))
        }
    recordings = {
        "sentences": [join([record(t, shape) for t in sentences.values()])],
        "animation": animated(config.animation, shape, config.seed),
        "synthetic": synthetic(SYNTHETIC_SECONDS, shape, config.seed),
    }
    net = train([(SHARES[name], recordings[name]) for name in SHARES], config.steps, config.seed)
    trained = {
        "seconds": {name: round(sum(len(r) for r in rs) / 25) for name, rs in recordings.items()},
        "steps": config.steps,
        "seed": config.seed,
    }
    save(config.out, net, shape, trained)
    judge = SyncJudge.load(config.out)
    known = {name: float(frames) for name, _, frames in (entry.partition("=") for entry in config.known)}
    result = {"trained_on": trained, "people": {}}
    groups["all"] = groups["development"] | groups["test"]
    for name, videos in groups.items():
        if videos:
            scores = {key: vars(judge.score(t.landmarks, t.audio, t.fps)) for key, t in videos.items()}
            result["people"][name] = {
                "videos": scores,
                "clips": [evaluate(judge, videos, seconds, known) for seconds in CLIP_SECONDS],
            }
            for row in result["people"][name]["clips"]:
                info(f"{name}, {row['seconds']:g} s: {row}")
    if config.json is not None:
        write_json(config.json, environment() | result)


def _tracks(paths: list[Path], tracker: FaceTracker, kept: Path | None) -> dict[str, Track]:
    tracks = {}
    for path in track(paths, "Tracking", len(paths)):
        file = kept / f"{path.stem}.npz" if kept else None
        if file is not None and file.is_file():
            with np.load(file) as saved:
                tracks[path.stem] = Track(landmarks=saved["landmarks"], audio=saved["audio"], fps=float(saved["fps"]))
            continue
        tracks[path.stem] = found = track_video(path, tracker)
        if file is not None:
            with atomic_file(file) as temporary:
                np.savez(temporary, **vars(found))
    return tracks


if __name__ == "__main__":
    main(tyro.cli(Config))
