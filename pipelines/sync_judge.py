"""Train the sync judge on publishable data, and measure it on unseen people (docs/notes/sync_judge.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avatar.assets.canonical_face import canonical_face
from avatar.environment import environment
from avatar.io.checkpoint import load_tensors
from avatar.log import info, on_terminal, track
from avatar.paths import file_sha256, write_json
from avatar.preprocess.face_tracker import FaceTracker, Track, track_video
from avatar.preprocess.head_fit import canonical_in_head_axes
from avatar.sync.evaluation import judge_clips, summary
from avatar.sync.judge import RATE, SyncJudge
from avatar.sync.training import animated, join, record, save, synthetic, train

SYNTHETIC_SECONDS = 1500.0
SHARES = {"sentences": 0.45, "animation": 0.3, "synthetic": 0.25}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to train on and what to measure."""

    sentences: Annotated[Path, tyro.conf.Positional]
    """Folder of short videos in step: GRID's (CC-BY 4.0)."""
    animation: Annotated[Path, tyro.conf.Positional]
    """Folder of blendshape animation with its speech: FACEGOOD's (MIT)."""
    out: Path
    """Where the judge goes (.safetensors)."""
    steps: int = 1200
    """Training steps."""
    seed: int = 0
    """Fixes everything that is drawn by chance."""
    measure_only: bool = False
    """Measure the judge that is at --out instead of training it."""
    familiar: tuple[Path, ...] = ()
    """Other videos of people it is trained on."""
    development: tuple[Path, ...] = ()
    """Videos of people that choices were made by."""
    test: tuple[Path, ...] = ()
    """Videos of people that it was neither trained on nor chosen by."""
    known: tuple[str, ...] = ()
    """True audio delays of videos, as NAME=SECONDS (positive: audio after video)."""
    seconds: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    """Lengths of the clips to measure."""
    tracks: Path | None = None
    """Keep tracked landmarks here for the next time."""
    json: Path | None = None
    """Write the numbers here."""


def main(config: Config) -> None:
    """Train, save, measure."""
    with FaceTracker() as tracker:
        if not config.measure_only:
            _train(config, tracker)
        judge = SyncJudge.load(config.out)
        groups = {
            name: _tracks(paths, tracker, config.tracks)
            for name in ("familiar", "development", "test")
            if (paths := getattr(config, name))
        }
    known = {name: float(seconds) for name, _, seconds in (entry.partition("=") for entry in config.known)}
    result: dict[str, Any] = {"judge": load_tensors(config.out)[1], "sha256": file_sha256(config.out)}
    videos = {name: video for group in groups.values() for name, video in group.items()}
    result["videos"] = {name: vars(judge.score(v.landmarks, v.audio, v.fps)) for name, v in videos.items()}
    for seconds in config.seconds:
        clips = judge_clips(judge, videos, seconds)
        members = groups | {"unseen": {**groups.get("development", {}), **groups.get("test", {})}}
        row = {name: summary((c for c in clips if c.video in group), known) for name, group in members.items()}
        result[f"clips of {seconds:g} s"] = row
        for name, numbers in row.items():
            shown = " ".join(f"{k}={v:.3f}" for k, v in numbers.items() if isinstance(v, float))
            info(f"{seconds:g} s, {name}, {numbers['clips']} clips: {shown}")
        if config.json is not None:  # after every length: it takes minutes
            write_json(config.json, environment() | result)


def _train(config: Config, tracker: FaceTracker) -> None:
    shape = canonical_in_head_axes(canonical_face()[0])
    sentences = _tracks(sorted(config.sentences.glob("*.mp4")), tracker, config.tracks)
    recordings = {
        "sentences": [join([record(s.landmarks, s.audio, s.fps, shape) for s in sentences.values()])],
        "animation": animated(config.animation, shape, config.seed),
        "synthetic": synthetic(SYNTHETIC_SECONDS, shape, config.seed),
    }
    net = train([(SHARES[name], recordings[name]) for name in SHARES], config.steps, config.seed)
    seconds = {name: round(sum(map(len, parts)) / RATE) for name, parts in recordings.items()}
    about = {"seconds": seconds, "shares": SHARES, "steps": config.steps, "seed": config.seed}
    save(config.out, net, shape, about)


def _tracks(paths: Sequence[Path], tracker: FaceTracker, kept: Path | None) -> dict[str, Track]:
    return {path.stem: track_video(path, tracker, kept) for path in track(paths, "Tracking", len(paths))}


if __name__ == "__main__":
    with on_terminal():
        main(tyro.cli(Config))
