"""Prepared recordings as the prior is trained on them: in step, and relative to each speaker's rest and spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from avatar.audio2motion.shared import RATE
from avatar.audio2motion.shared_training import Recording
from avatar.corpus.cache import Cache
from avatar.corpus.find import Item
from avatar.corpus.sync import IN_STEP, Offset, offsets
from avatar.motion.mouth import ARTICULATION, OPENING, relative, spread_of, talking

VIDEOS = "videos"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recording, and what was decided about it.

    Attributes:
        name, speaker: As found.
        key: In the cache.
        refused: Why it is not trained on; empty where it is.
        known: The articulators that were measured.
        rows: How many rows of audio it has.
        offset: Between audio and video.
    """

    name: str
    speaker: str
    key: str
    refused: str = ""
    known: tuple[str, ...] = ()
    rows: int = 0
    offset: Offset = IN_STEP

    @property
    def seconds(self) -> float:
        return self.rows / RATE


def decide(items: Sequence[Item], keys: Mapping[str, str], cache: Cache) -> list[Entry]:
    """Which recordings are trained on, and how far audio and video of each are apart.

    Raises:
        AvatarError: One was not prepared, or what was kept of it is damaged.
    """
    refused: dict[str, str] = {}
    first: dict[str, str] = {}
    for item in items:
        same = first.setdefault(keys[item.name], item.name)
        refused[item.name] = cache.reason(keys[item.name]) if same == item.name else f"It is the same as {same}."
    mouths = {item.name: cache.mouth(keys[item.name]) for item in items if not refused[item.name]}
    placed = offsets(mouths, {item.name: item.speaker for item in items})
    entries = []
    for item in items:
        entry = Entry(name=item.name, speaker=item.speaker, key=keys[item.name], refused=refused[item.name])
        if (mouth := mouths.get(item.name)) is not None:
            offset = placed[item.name]
            entry = replace(entry, refused=offset.doubt, known=mouth.known, rows=mouth.rows, offset=offset)
        entries.append(entry)
    return entries


def by_source(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """What is trained on, by what it knows: `VIDEOS` everything, the others some coefficients."""
    groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        if not entry.refused:
            groups[entry.known].append(entry)
    return {
        VIDEOS if known == ARTICULATION else f"coefficients {', '.join(known)}": groups[known]
        for known in sorted(groups)
    }


def shares(sources: Mapping[str, Sequence[Entry]]) -> dict[str, dict[str, float]]:
    """Each articulator is taught by all who know it, by how long they are."""
    rows = {name: float(sum(entry.rows for entry in part)) for name, part in sources.items()}
    return {a: {name: rows[name] for name, part in sources.items() if a in part[0].known} for a in ARTICULATION}


Scales = dict[str, tuple[np.ndarray, np.ndarray]]


def scales(part: Sequence[Entry], cache: Cache, pauses: bool = False) -> Scales:
    """Centre and spread [A] of each speaker's articulation, where it was seen to talk.

    Args:
        part: Recordings.
        cache: Where they are.
        pauses: Count the pauses as well.
    """
    speakers: dict[str, list[np.ndarray]] = defaultdict(list)
    for entry in part:
        values, seen = cache.mouth(entry.key).in_step(entry.offset.audio_delay_s)
        opening = values[:, OPENING]
        if not pauses and np.isfinite(opening).all():
            seen = talking(opening, seen, RATE)
        speakers[entry.speaker].append(values[seen])
    return {speaker: spread_of(np.concatenate(values)) for speaker, values in speakers.items()}


class Recordings(Sequence[Recording]):
    """Read from the cache one at a time."""

    def __init__(self, entries: Sequence[Entry], scales: Scales, cache: Cache) -> None:
        self._entries, self._scales, self._cache = entries, scales, cache

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        entry = self._entries[index]
        values, seen = self._cache.mouth(entry.key).in_step(entry.offset.audio_delay_s)
        target = relative(values, *self._scales[entry.speaker])
        target[~seen] = np.nan
        return Recording(self._cache.features(entry.key), target)
