"""The audio-to-motion prior that all avatars share: train it on a folder of people who talk, measure it on others."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

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
_SHOWN = 20  # recordings that cannot be used, on the terminal


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train the prior on a folder of people who talk.

    Each folder in it is one speaker; a video that lies in none is a speaker by itself. Run the same command again to
    go on after an interruption. Started by torchrun, on one machine or on several that share both folders, every
    process takes a part.
    """

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, in any folders below it; ARKit coefficients with their sound may be among them."""
    out: Path
    """The prior to write (.safetensors), for `avatar train --prior`."""
    base: Path | None = None
    """Prior to go on from (.safetensors); default: the one that comes with the package."""
    from_scratch: bool = False
    """Learn from the corpus alone, and go on from no prior."""
    cache: Path | None = None
    """Folder for what is prepared; default: beside --out, with the ending .cache."""
    workers: int | None = None
    """Processes that prepare recordings; default: one per core."""
    ray: str | None = None
    """Prepare on a Ray cluster instead: its address, or local for --workers processors of this machine."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how well a prior follows the lips of people whom it has not heard."""

    prior: Annotated[Path, tyro.conf.Positional]
    """The prior (.safetensors)."""
    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos of 2 s and more, of people whom it was not trained on."""
    json: Path | None = None
    """Write the numbers here."""
    cache: Path | None = None
    """Folder for what is prepared, for the next time; by default nothing is kept."""
    workers: int | None = None
    """Processes that prepare videos; default: one per core."""


Config = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Eval, tyro.conf.subcommand("eval")]


def main(config: Train | Eval) -> None:
    """Train or measure.

    Raises:
        AvatarError: See :func:`train` and :func:`evaluate`.
    """
    if config.workers is not None and config.workers < 1:
        raise AvatarError(f"--workers {config.workers} is too few.", fix="Give 1 or more.")
    if isinstance(config, Train):
        train(config)
    else:
        evaluate(config)


def train(config: Train) -> None:
    """Prepare what is new, train on what can be used, and write the prior and a report.

    Raises:
        AvatarError: The folder, the cache or --out is unsuitable, another process writes to --out, or too little can
            be used.
    """
    from avatar.audio.encoders.base import SpeechEncoder
    from avatar.audio.encoders.whisper import WhisperEncoder
    from avatar.audio2motion.shared import WEIGHTS, SharedPrior
    from avatar.corpus.cache import Cache
    from avatar.corpus.find import find
    from avatar.corpus.ranks import Ranks
    from avatar.corpus.recordings import decide
    from avatar.environment import environment
    from avatar.paths import write_json
    from avatar.writing import one_writer, settle

    if config.out.is_dir():
        raise AvatarError(f"--out {config.out} is a folder.", fix="Name a file, such as prior.safetensors.")
    if config.from_scratch and config.base is not None:
        raise AvatarError("--from-scratch goes on from no prior:", fix="leave it out, or --base.")
    base = None if config.from_scratch else SharedPrior.load(config.base or WEIGHTS)
    items = find(config.corpus)
    with Ranks.join() as ranks, one_writer(config.out, inside=False) if ranks.first else nullcontext():
        encoder = SpeechEncoder([WhisperEncoder()]) if base is None else base.encoder
        folder = config.cache or config.out.with_suffix(".cache")
        if ranks.first:
            Cache.open(folder, encoder.config)
            settle(folder)
        ranks.wait()
        cache = Cache.open(folder, encoder.config)
        began = time.perf_counter()
        keys = prepare_all(items, cache, ranks, config.workers, config.ray)
        prepared = time.perf_counter()
        entries = decide(items, keys, cache)
        path = config.out.with_suffix(REPORT)
        report = environment() | {"recordings": [_row(entry) for entry in entries]}
        if ranks.first:
            write_json(path, report)
        tell(entries, path)
        prior = fit_on(entries, cache, encoder, config.out.stem, ranks, base)
        if ranks.first:
            prior.save(config.out)
            times = {"prepare": round(prepared - began, 1), "train": round(time.perf_counter() - prepared, 1)}
            write_json(path, report | {"prior": prior.about, "seconds": times})
            log.info(f"{config.out} is trained. Preparing took {times['prepare']} s, training {times['train']} s.")
            log.next_command(f"avatar train PERSON --out RUN --prior {config.out}")


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


def evaluate(config: Eval) -> None:
    """Measure, print and write.

    Raises:
        AvatarError: The prior or a video cannot be read or used.
    """
    from rich.table import Table

    from avatar.audio2motion.shared import SharedPrior
    from avatar.corpus.cache import Cache
    from avatar.corpus.find import video
    from avatar.corpus.measure import MEASURED, mean, measure_all
    from avatar.corpus.ranks import Ranks
    from avatar.environment import environment
    from avatar.paths import file_sha256, write_json

    prior = SharedPrior.load(config.prior)
    items = [video(path) for path in config.videos]
    with tempfile.TemporaryDirectory() as temporary:
        cache = Cache.open(config.cache or Path(temporary), prior.encoder.config)
        rows = measure_all(prior, cache, prepare_all(items, cache, Ranks(), config.workers))
    table = Table(
        "video", "audio delay (ms)", "sync", *MEASURED, box=None, title="Correlation with the track (lag in frames)"
    )
    for name, row in [*rows.items(), ("mean", mean(rows))]:
        cells = (f"{row[key]:.2f} ({row[f'{key}_lag']:.1f})" for key in MEASURED)
        table.add_row(Path(name).stem, f"{1000 * row['audio_delay_s']:.0f}", f"{row['confidence']:.2f}", *cells)
    log.console.print(table)
    if config.json is not None:
        about = {"prior": prior.about, "sha256": file_sha256(config.prior)}
        write_json(config.json, environment() | about | {"mean": mean(rows), "videos": rows})


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
