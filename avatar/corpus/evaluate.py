"""Measure a prior on videos of people whom it was not trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.audio2motion.shared import SharedPrior
from avatar.corpus.cache import Cache
from avatar.corpus.find import videos as items_of
from avatar.corpus.measure import MEASURED, mean, measure_all
from avatar.corpus.ranks import Ranks
from avatar.corpus.train import prepare_all
from avatar.corpus.workers import check_workers
from avatar.environment import environment
from avatar.log import one_line
from avatar.paths import file_sha256

if TYPE_CHECKING:
    from rich.table import Table


def evaluate_prior(
    prior: Path, videos: Sequence[Path], *, cache: Path | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Correlation of the predicted mouth with the tracked one.

    Args:
        prior: The prior (.safetensors).
        videos: Videos of 2 s and more; the same file counts once.
        cache: Folder for what is prepared; None: nothing is kept.
        workers: Processes that prepare videos; None: one per core.

    Returns:
        ``videos``, numbers by video; ``mean``, their mean; and which prior it was.

    Raises:
        AvatarError: The prior or a video cannot be read or used.
    """
    check_workers(workers)
    loaded = SharedPrior.load(prior)
    items = items_of(videos)
    with tempfile.TemporaryDirectory() as temporary:
        kept = Cache.open(cache or Path(temporary), loaded.encoder.config)
        rows = measure_all(loaded, kept, prepare_all(items, kept, Ranks(), workers))
    about = {"prior": loaded.about, "sha256": file_sha256(prior)}
    return environment() | about | {"mean": mean(rows), "videos": rows}


def table(result: dict[str, Any]) -> Table:
    """The numbers of :func:`evaluate_prior` as a table, a row per video and their mean."""
    from rich.table import Table
    from rich.text import Text

    title = "Correlation with the track (lag in frames)"
    found = Table("video", "audio delay", "sync", *MEASURED, box=None, title=title)
    stems = [Path(name).stem for name in result["videos"]]
    for name, row in [*result["videos"].items(), ("mean", result["mean"])]:
        shown = name if stems.count(Path(name).stem) > 1 else Path(name).stem
        lags = {key: "-" if (lag := row[f"{key}_lag"]) is None else f"{lag:.1f}" for key in MEASURED}
        cells = (f"{row[key]:.2f} ({lag})" for key, lag in lags.items())
        found.add_row(Text(one_line(shown)), f"{row['audio_delay_s']:.3f} s", f"{row['confidence']:.2f}", *cells)
    return found
