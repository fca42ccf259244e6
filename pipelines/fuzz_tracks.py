"""Tracks that somebody gave, for `pipelines.fuzz_corpus`: a folder of them, and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FPS = 25.0


def build_tracks(folder: Path, prior: Path, values: np.ndarray) -> None:
    """Write a folder of one take.

    Args:
        folder: It is made.
        prior: File of the shared model in whose basis its speech is told.
        values: [T, A] what the mouth does.
    """
    from avatar.audio2motion.shared import SharedPrior
    from avatar.corpus.mouth import Mouth
    from avatar.corpus.tracks import Take, write_tracks

    folder.mkdir()
    rows = len(values)
    mouth = Mouth(values=values, seen=np.ones(rows, bool), fps=FPS, rows=rows)
    arkit, head = np.zeros((rows, 52)), np.zeros((rows, 3))
    take = Take(mouth=mouth, speech=np.zeros((rows, 4)), arkit=arkit, head=head, text="A text.")
    write_tracks(folder, [take], SharedPrior.load(prior), {"name": "Nobody", "statement": ["I give it."]})


def given_tracks(tracks: Path, prior: Path) -> list[tuple[str, Path, Callable[[Path], Any]]]:
    """Kinds of file, the files, and what reads each as training does."""
    from avatar.audio2motion.shared import SharedPrior
    from avatar.checks import Record
    from avatar.corpus.tracks import ABOUT, BASIS, SUFFIX, read_take
    from avatar.paths import file_sha256, read_json, write_json

    take = tracks / f"001{SUFFIX}"

    def given(path: Path) -> None:
        about = Record(read_json(tracks / ABOUT), tracks / ABOUT)
        if path.name != ABOUT:  # whoever damages a file may write its hash anew
            about.record("speech").data["sha256"] = file_sha256(tracks / BASIS)
            about.records("takes")[0].data["sha256"] = file_sha256(take)
            write_json(tracks / ABOUT, about.data)
        mouth, features = read_take(take, SharedPrior.load(prior).encoder)
        for numbers in (mouth.in_step(-0.1)[0], features):
            assert np.isfinite(numbers).all(), "what was given is not finite"

    return [
        ("given take", take, given),
        ("given basis", tracks / BASIS, given),
        ("given tracks", tracks / ABOUT, given),
    ]
