"""Measure a prior on videos of people whom it was not trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avatar.audio2motion.shared import SharedPrior
from avatar.corpus.cache import Cache
from avatar.corpus.find import video
from avatar.corpus.measure import mean, measure_all
from avatar.corpus.ranks import Ranks
from avatar.corpus.train import prepare_all
from avatar.environment import environment
from avatar.paths import file_sha256


def evaluate_prior(
    prior: Path, videos: Sequence[Path], *, cache: Path | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Correlation of the predicted mouth with the tracked one.

    Args:
        prior: The prior (.safetensors).
        videos: Videos of 2 s and more.
        cache: Folder for what is prepared; None: nothing is kept.
        workers: Processes that prepare videos; None: one per core.

    Returns:
        ``videos``, numbers by video; ``mean``, their mean; and which prior it was.

    Raises:
        AvatarError: The prior or a video cannot be read or used.
    """
    loaded = SharedPrior.load(prior)
    items = [video(path) for path in videos]
    with tempfile.TemporaryDirectory() as temporary:
        kept = Cache.open(cache or Path(temporary), loaded.encoder.config)
        rows = measure_all(loaded, kept, prepare_all(items, kept, Ranks(), workers))
    about = {"prior": loaded.about, "sha256": file_sha256(prior)}
    return environment() | about | {"mean": mean(rows), "videos": rows}
