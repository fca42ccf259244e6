"""Measure the audio delay of each video, and whether it is certain enough to learn from it.

The best of many offsets is never bad, least of all in a short clip. Judged with the audio of other videos, clips of
the development people (docs/notes/sync_judge.md) were given a confidence of more than 0.40 / sqrt(seconds) in one case
of twenty, from 3 to 12 s. With their own audio, one clip of seven is below that at 5 s and none at 8 s; so shorter
videos of a speaker are judged together, by the mean of their distances, and share one offset.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from avatar.corpus.mouth import Mouth
from avatar.sync.judge import RATE, REACH, best_delay

CHANCE = 0.40  # times seconds to the power of -1/2: what the audio of another video hardly reaches
LEAST = 0.10  # asked of any video, however long
ALONE = 8.0  # seconds from which a video is judged by itself


@dataclass(frozen=True)
class Offset:
    """What the sync judge says about a video.

    Attributes:
        audio_delay_s: Audio delay in seconds (positive: audio after video); 0 where there is no video or no answer.
        confidence: Of the judge; None where it did not judge.
        doubt: Why the offset cannot be relied on; empty where it can.
    """

    audio_delay_s: float
    confidence: float | None = None
    doubt: str = ""


IN_STEP = Offset(0.0)


def offsets(mouths: Mapping[str, Mouth], speakers: Mapping[str, str]) -> dict[str, Offset]:
    """The offset of each recording.

    Args:
        mouths: Recordings by name. Those that are coefficients are taken to be in step.
        speakers: Whose each of them is.
    """
    found: dict[str, Offset] = {}
    together: dict[str, list[str]] = defaultdict(list)
    for name, mouth in mouths.items():
        if not mouth.filmed:
            found[name] = IN_STEP
        elif mouth.seconds < ALONE:
            together[speakers[name]].append(name)
        else:
            found[name] = _judged([mouth])
    for names in together.values():
        found |= dict.fromkeys(names, _judged([mouths[name] for name in names]))
    return found


def _judged(mouths: list[Mouth]) -> Offset:
    judged = [(mouth.seconds, mouth.curve) for mouth in mouths if mouth.curve is not None]
    if not judged:
        return Offset(0.0, None, "It is too short to tell whether audio and video are in step.")
    seconds, curves = zip(*judged, strict=True)
    curve = np.average(curves, axis=0, weights=seconds)
    score = best_delay(curve)
    confidence = score.confidence
    asked = max(LEAST, CHANCE / math.sqrt(sum(seconds)))
    doubt = ""
    if confidence < asked:
        doubt = f"Lips and audio do not clearly belong together (confidence {confidence:.2f}, {asked:.2f} are asked)."
    elif score.audio_delay_s is None:
        doubt = f"Audio and video are {REACH / RATE:.1f} s or more apart."
    return Offset(score.audio_delay_s or 0.0, confidence, doubt)
