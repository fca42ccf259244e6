"""Draw synthetic subjects and their avatars from the side, one above the other.

``python -m pipelines.free_view_images RUN=SUBJECT ... --out views.jpg``: for each run the exact
truth above the avatar, from -45 to 45 degrees, in the same held-out frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from avatar.data.run import open_person
from avatar.errors import AvatarError
from avatar.eval import view_truth
from avatar.infer.avatar import Avatar
from avatar.io.images import resize, write_jpeg

VIEWS = ((-45, 0), (-30, 0), (-15, 0), (0, 0), (15, 0), (30, 0), (45, 0))
SIDE = 192  # pixels of an image
GAP = 6  # pixels between two people


@dataclass(frozen=True, kw_only=True)
class Config:
    """Draw synthetic subjects and their avatars from the side."""

    pairs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """RUN=SUBJECT, the run of an avatar and the folder that `avatar synth` wrote."""
    out: Path
    """The JPEG to write."""


def rows(run: Path, subject: Path) -> np.ndarray:
    """Truth above avatar, uint8 RGB [2 SIDE, 7 SIDE, 3]."""
    measured = view_truth.measure(Avatar.load(run), open_person(run), subject, frames=1, views=VIEWS)
    shown = [measured.samples[view_truth.title(view)] for view in VIEWS]
    return np.concatenate(
        [np.concatenate([resize(sample[what], (SIDE, SIDE)) for sample in shown], 1) for what in ("truth", "avatar")]
    )


def main(config: Config) -> None:
    """Draw all pairs.

    Raises:
        AvatarError: A pair is not RUN=SUBJECT, or the subject is not the run's.
    """
    people = []
    for pair in config.pairs:
        run, equals, subject = pair.partition("=")
        if not equals:
            raise AvatarError(f"{pair} is not RUN=SUBJECT.")
        people += [rows(Path(run), Path(subject)), np.full((GAP, SIDE * len(VIEWS), 3), 255, np.uint8)]
    write_jpeg(config.out, np.concatenate(people[:-1]))


if __name__ == "__main__":
    main(tyro.cli(Config))
