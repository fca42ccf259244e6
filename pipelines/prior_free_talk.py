"""The third part of the shared prior's training: free talk that may be published.

`pipelines.prior` and `pipelines.prior_speaking` know sentences of six words. This goes on from them with recordings of
free talk, as `avatar prior train` does, and writes down what they are and why they may be used
(docs/notes/audio2motion.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from avatar.audio2motion.shared import WEIGHTS, SharedPrior
from avatar.corpus.find import find
from avatar.corpus.ranks import Ranks
from avatar.corpus.recordings import decide
from avatar.corpus.train import fit_on
from avatar.errors import AvatarError
from avatar.log import info, on_terminal
from pipelines.prior import prepared


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to go on from, and with what."""

    talk: Path
    """Folder of videos of free talk; each folder in it is one speaker."""
    licence: str
    """What they are, and the licence under which they may be used."""
    cache: Path = Path("prior.cache")
    """Folder of what is prepared."""
    prior: Path = WEIGHTS
    """What `pipelines.prior_speaking` wrote."""
    out: Path = WEIGHTS
    """Where the prior goes."""


def main(config: Config) -> None:
    """Go on from a prior, and write it."""
    base = SharedPrior.load(config.prior)
    if "free_talk" in base.about or "speaking" not in base.about:
        raise AvatarError(
            f"{config.prior} is not what pipelines.prior_speaking wrote.", fix="Start from that file, with --prior."
        )
    items = find(config.talk)
    cache, keys = prepared(items, config.cache, base.encoder)
    entries = decide(items, keys, cache)
    if refused := {entry.name: entry.refused for entry in entries if entry.refused}:
        raise AvatarError(f"Not all of {config.talk} can be used.", why=str(refused))
    prior = fit_on(entries, cache, base.encoder, "free-talk", Ranks(), base)
    heard = torch.cat([base.inputs(cache.features(entry.key)) for entry in entries])
    weights = same_middle(prior.weights, base.weights, heard)
    talk = {"seconds": prior.about["seconds"]["videos"], "speakers": prior.about["speakers"], "licence": config.licence}
    replace(prior, weights=weights, about=base.about | {"id": "shared-3", "free_talk": talk}).save(config.out)
    info(f"Wrote {config.out}")


def same_middle(weights: torch.Tensor, before: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """Weights [R, A] that say on average of what was ``heard`` [T, R] what those of ``before`` do.

    Half a minute of one person teaches how the mouth follows speech, not where its middle is: with the constant as it
    was fitted, other people's mouths are open by a fifth of a spread too much.
    """
    moved = weights.clone()
    moved[-1] -= heard.mean(0) @ (weights - before)
    return moved


if __name__ == "__main__":
    torch.set_num_threads(1)
    with on_terminal():
        main(tyro.cli(Config))
