"""Train the shared audio-to-motion model on a folder of people who talk."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar import log
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.audio2motion.shared import SharedPrior
    from avatar.corpus.cache import Cache
    from avatar.corpus.find import Item
    from avatar.corpus.ranks import Ranks
    from avatar.corpus.recordings import Entry

REPORT = ".report.json"  # ending, beside the prior
LEAST_SECONDS = 30.0  # of video, below which nothing is trained
FEW_SECONDS = 600.0  # below which there is a warning
_SHOWN = 20  # recordings that cannot be used, in the log


def train_prior(
    corpus: Path,
    out: Path,
    *,
    base: Path | None = None,
    from_scratch: bool = False,
    cache: Path | None = None,
    workers: int | None = None,
    ray: str | None = None,
) -> None:
    """Prepare what is new, train on what can be used, and write the prior and a report.

    Args:
        corpus: Folder of recordings; each folder in it is one speaker.
        out: The prior to write (.safetensors).
        base: Prior to go on from; None: the one that comes with the package.
        from_scratch: Go on from no prior.
        cache: Folder for what is prepared; None: beside ``out``.
        workers: Processes that prepare recordings; None: one per core.
        ray: Address of a Ray cluster to prepare on, or "local".

    Raises:
        AvatarError: The folder, the cache or ``out`` is unsuitable, another process writes to ``out``, or too little
            can be used.
    """
    from avatar.audio.encoders.base import SpeechEncoder
    from avatar.audio.encoders.whisper import WhisperEncoder
    from avatar.audio2motion.shared import WEIGHTS, SharedPrior
    from avatar.corpus.cache import Cache
    from avatar.corpus.find import find
    from avatar.corpus.ranks import Ranks
    from avatar.corpus.workers import check_workers
    from avatar.writing import one_writer, settle

    check_workers(workers)
    if out.is_dir():
        raise AvatarError(f"--out {out} is a folder.", fix="Name a file, such as prior.safetensors.")
    if from_scratch and base is not None:
        raise AvatarError("--from-scratch goes on from no prior:", fix="leave it out, or --base.")
    start = None if from_scratch else SharedPrior.load(base or WEIGHTS)
    items = find(corpus)
    with Ranks.join() as ranks, one_writer(out, inside=False) if ranks.first else nullcontext():
        encoder = SpeechEncoder([WhisperEncoder(ahead=0.2)]) if start is None else start.encoder
        folder = cache or out.with_suffix(".cache")
        if ranks.first:
            Cache.open(folder, encoder.config)
            settle(folder)
        ranks.wait()
        kept = Cache.open(folder, encoder.config)
        began = time.perf_counter()
        keys = prepare_all(items, kept, ranks, workers, ray)
        _train(items, keys, kept, encoder, out, ranks, start, time.perf_counter() - began)


def _train(
    items: Sequence[Item], keys: dict[str, str], cache: Cache, encoder: Any, out: Path, ranks: Ranks,
    base: SharedPrior | None, preparing: float,
) -> None:  # fmt: skip
    """Choose what is trained on, train, and write; ``preparing`` took so many seconds."""
    from avatar.corpus.recordings import decide
    from avatar.environment import environment
    from avatar.paths import write_json

    began = time.perf_counter()
    entries = decide(items, keys, cache)
    path = out.with_suffix(REPORT)
    report = environment() | {"recordings": [_row(entry) for entry in entries]}
    if ranks.first:
        write_json(path, report)
    tell(entries, path)
    prior = fit_on(entries, cache, encoder, out.stem, ranks, base)
    if ranks.first:
        prior.save(out)
        times = {"prepare": round(preparing, 1), "train": round(time.perf_counter() - began, 1)}
        write_json(path, report | {"prior": prior.about, "seconds": times})
        log.info(f"{out} is trained. Preparing took {times['prepare']} s, training {times['train']} s.")


def prepare_all(
    items: Sequence[Item], cache: Cache, ranks: Ranks, workers: int | None = None, ray: str | None = None
) -> dict[str, str]:
    """Prepare what was not prepared before, this process's part of it.

    Returns:
        The keys of all recordings in the cache, by name.
    """
    from avatar.corpus.prepare import prepare
    from avatar.corpus.workers import cores, spread

    mine = ranks.share(items)
    done = spread(functools.partial(prepare, cache=cache), mine, workers or cores(), ray)
    results = list(log.track(done, "Preparing", len(mine)))
    before = sum(not new for _, _, new in results)
    if before:
        log.info(f"{before} of {len(mine)} recordings were prepared before.")
    keys = {name: key for name, key, _ in results}
    return ranks.merge(keys, [item.name for item in items])


def tell(entries: Sequence[Entry], report: Path) -> None:
    """Say what will be trained on, and what cannot be used and why."""
    used = [entry for entry in entries if not entry.refused]
    speakers = len({entry.speaker for entry in used})
    minutes = sum(entry.seconds for entry in used) / 60
    log.info(f"{len(used)} of {len(entries)} recordings can be used: {minutes:.1f} minutes of {speakers} speaker(s).")
    left_out = [entry for entry in entries if entry.refused]
    for entry in left_out[:_SHOWN]:
        log.info(f"  left out: {entry.name}: {entry.refused}")
    if len(left_out) > _SHOWN:
        log.info(f"  and {len(left_out) - _SHOWN} more, see {report}")


def fit_on(
    entries: Sequence[Entry], cache: Cache, encoder: Any, name: str, ranks: Ranks, base: SharedPrior | None = None
) -> SharedPrior:
    """Train on the recordings that can be used; all processes together, each with its part of them.

    Raises:
        AvatarError: They are too few.
    """
    from avatar.audio2motion.shared_training import fit
    from avatar.corpus.recordings import VIDEOS, Recordings, by_source, scales, shares

    sources = by_source(entries)
    used = [entry for part in sources.values() for entry in part]
    filmed = round(sum(entry.seconds for entry in sources.get(VIDEOS, [])))
    if filmed < LEAST_SECONDS:
        raise AvatarError(
            f"Only {filmed} s of video can be used;",
            why=f"at least {LEAST_SECONDS:g} s are needed, and 15 minutes or more make a good prior.",
            fix="The report beside --out says why recordings were left out.",
        )
    if filmed < FEW_SECONDS and base is None:
        log.warn(f"{filmed} s of video are little to learn from: 15 minutes or more make a good prior.")
    seconds = {"videos": filmed, "coefficients": round(sum(entry.seconds for entry in used)) - filmed}
    content = hashlib.sha256("".join(sorted(entry.key for entry in used)).encode()).hexdigest()
    about = {"id": f"{name}-{content[:8]}", "seconds": seconds, "speakers": len({entry.speaker for entry in used})}
    recordings = {source: Recordings(ranks.share(part), scales(part, cache), cache) for source, part in sources.items()}
    about |= {} if base is None else {"base": base.about.get("id")}
    return fit(recordings, shares(sources), encoder, about, base=base, components_of=[VIDEOS], reduce=ranks.add)


def _row(entry: Entry) -> dict[str, Any]:
    """A recording in the report."""
    return {
        "file": entry.name,
        "speaker": entry.speaker,
        "seconds": round(entry.seconds, 2),
        "audio_delay_s": round(entry.offset.audio_delay_s, 4),
        "confidence": entry.offset.confidence,
        "left_out": entry.refused or None,
    }
