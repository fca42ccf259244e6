"""Controls over time: spans with a control, its value and soft edges; from options, from a JSON file, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.checks import Record, number
from avatar.errors import AvatarError
from avatar.motion.edits import EYES_TURN
from avatar.motion.emotion import Mix
from avatar.paths import read_json

FORMAT = "avatar-timeline-1"
# Seconds of the soft edges; they lie outside the span, within it the control has its full value.
FADES = {"lip-scale": 0.1, "emotion": 0.3, "pose": 0.8, "pose-scale": 0.5, "blink": 0.2, "gaze": 0.12}
_WORDS_FIX = 'It is {"unit": "seconds", "words": [[0.1, 0.4, "hello"]]}.'
LATEST = 1e6  # second that a control or a word may be at
_SPAN = re.compile(r"(?P<value>.*)@(?P<start>\d+(?:\.\d+)?)?-(?P<end>\d+(?:\.\d+)?)?")
Words = Sequence[tuple[float, float, str]]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One control for some time.

    Attributes:
        control: One of `FADES`.
        value: As its option takes it.
        start, end: Seconds of the audio; it begins at 0, and what comes before it is negative.
        fade: Seconds of each soft edge.
    """

    control: str
    value: str
    start: float = -math.inf
    end: float = math.inf
    fade: float = 0.0

    @property
    def always(self) -> bool:
        """Whether it holds all the time."""
        return self.start == -math.inf and self.end == math.inf

    def weight(self, seconds: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
        """[T] 1 inside, 0 outside, and a raised cosine over the edges."""
        outside = torch.maximum(self.start - seconds, seconds - self.end)
        if self.fade <= 0:
            return (outside <= 0).float()
        return (0.5 + 0.5 * torch.cos(math.pi * (outside / self.fade).clamp(0, 1))).float()

    def as_json(self) -> dict[str, Any]:
        """The entry of a timeline file."""
        entry: dict[str, Any] = {"control": self.control, "value": self.value}
        entry |= {"start": self.start} if math.isfinite(self.start) else {}
        entry |= {"end": self.end} if math.isfinite(self.end) else {}
        return entry | {"fade": self.fade}


def number_of(control: str, low: float, high: float) -> Callable[[str], float]:
    """A reader of numbers within bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise AvatarError(f"{control} {text!r} is not a number from {low:g} to {high:g}.")
        return value

    return read


def gaze_of(text: str) -> tuple[float, float] | str:
    """Read ``X,Y`` in degrees, ``camera`` or ``free``.

    Up to 45 degrees are read, as far as directions of a pointer go; eyes stop at `EYES_TURN`.

    Raises:
        AvatarError: It is something else, or further.
    """
    if text in ("camera", "free"):
        return text
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (abs(x) <= 45 and abs(y) <= 45):
        raise AvatarError(
            f"gaze {text!r} is not understood.",
            why=f"Eyes turn by {EYES_TURN[0]} degrees to the side at most, and by {EYES_TURN[1]} up or down.",
            fix="Give X,Y in degrees (left and up are positive), camera or free.",
        )
    return x, y


def blink_of(text: str) -> float | str:
    """Read blinks per minute, or ``own``."""
    return text if text == "own" else number_of("blink", 0, 60)(text)


READERS: dict[str, Callable[[str], Any]] = {
    "lip-scale": number_of("lip-scale", 0, 3),
    "emotion": Mix.parse,
    "pose": str,
    "pose-scale": number_of("pose-scale", 0, 3),
    "blink": blink_of,
    "gaze": gaze_of,
}


def from_option(control: str, text: str, words: Words = ()) -> list[Span]:
    """Spans of an option ``VALUE``, ``VALUE@START-END`` (seconds, either may be left out) or ``VALUE@WORD``.

    A word stands for every time it is said.

    Raises:
        AvatarError: The value or the time is not understood, or the word is not said.
    """
    value, places = text, [(-math.inf, math.inf)]
    if match := _SPAN.fullmatch(text):
        value = match["value"]
        places = [(float(match["start"] or "-inf"), float(match["end"] or "inf"))]
        if any(abs(at) > LATEST for at in places[0] if math.isfinite(at)):
            raise AvatarError(f"--{control} {text}: times go to {LATEST:g} seconds.")
    elif "@" in text and not is_path(text):
        value, _, word = text.rpartition("@")
        places = [(a, b) for a, b, said in words if said.lower() == word.lower()]
        if not places:
            known = sorted({said for *_, said in words})
            raise AvatarError(
                f"--{control} {text}: '{word}' is neither a time nor one of the words.",
                why=f"Words are {', '.join(known[:12])}." if words else "No words are given.",
                fix="Give VALUE@START-END in seconds, or --words FILE.",
            )
    READERS[control](value)
    return [_checked(control, value, a, b, FADES[control], f"--{control} {text}") for a, b in places]


def is_path(text: str) -> bool:
    """Whether an option names something that is there; what cannot be a name is not."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def load(path: Path) -> list[Span]:
    """The spans of a timeline file.

    Raises:
        AvatarError: The file is missing or damaged; a bad entry is named.
    """
    content = read_json(path, "Correct the file or its path.")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("spans"), list):
        raise AvatarError(f"{path} is not a timeline.", fix=f'It is {{"format": "{FORMAT}", "spans": [...]}}.')
    return spans_of(content["spans"], str(path))


def spans_of(entries: Sequence[Any], source: str) -> list[Span]:
    """The spans of entries as a timeline file holds them; errors name ``source``.

    Raises:
        AvatarError: An entry is not understood.
    """
    spans: list[Span] = []
    for i, entry in enumerate(entries):
        where = f"{source}, span {i}"
        if not isinstance(entry, dict):
            raise AvatarError(f"{where} is not an object.", fix='For example {"control": "blink", "value": 20}.')
        unknown = sorted(set(entry) - {"control", "value", "start", "end", "fade"})
        if unknown or "control" not in entry or "value" not in entry:
            problem = f"unknown {', '.join(unknown)}" if unknown else "control or value is missing"
            raise AvatarError(f"{where}: {problem}.", fix="Known are control, value, start, end, fade.")
        control = Record(entry, where).text("control")
        if control not in READERS:
            raise AvatarError(f"{where}: there is no control {control!r}.", fix=f"Known are {', '.join(READERS)}.")
        value = entry["value"]
        value = value if isinstance(value, str) else str(number(value, f"{where}: value", -1e6, 1e6))
        start, end, fade = (
            number(entry[name], f"{where}: {name}", low, LATEST) if name in entry else default
            for name, low, default in (("start", -LATEST, -math.inf), ("end", -LATEST, math.inf),
                                       ("fade", 0, FADES[control]))
        )  # fmt: skip
        try:
            READERS[control](value)
        except AvatarError as error:
            raise AvatarError(f"{where}: {error.what}", why=error.why, fix=error.fix) from None
        spans.append(_checked(control, value, start, end, fade, where))
    return spans


def to_json(spans: Sequence[Span]) -> dict[str, Any]:
    """What a timeline file holds."""
    return {"format": FORMAT, "spans": [span.as_json() for span in spans]}


def load_words(path: Path) -> Words:
    """Word times: a JSON ``{"unit": "seconds", "words": [[start, end, word], ...]}``.

    Raises:
        AvatarError: The file is not that; a bad entry is named.
    """
    content = read_json(path, "Correct the file or its path.")
    if not isinstance(content, dict) or not isinstance(content.get("words"), list):
        raise AvatarError(f"{path} is not a file of words.", fix=_WORDS_FIX)
    if content.get("unit", "seconds") != "seconds":
        raise AvatarError(f"{path} is not a file of words:", why="times must be in seconds.")
    words = []
    for i, entry in enumerate(content["words"]):
        where = f"{path}, word {i}"
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str)):
            raise AvatarError(
                f"{path} is not a file of words:", why=f"word {i} is not [start, end, word].", fix=_WORDS_FIX
            )
        start, end = (number(v, f"{where}: time", -LATEST, LATEST) for v in entry[:2])
        if start > end:
            raise AvatarError(f"{where} ends before it starts.")
        words.append((start, end, entry[2]))
    return words


def _checked(control: str, value: str, start: float, end: float, fade: float, where: str) -> Span:
    if not start < end or fade < 0:
        raise AvatarError(f"{where}: the start must come before the end, and a fade cannot be negative.")
    return Span(control=control, value=value, start=start, end=end, fade=fade)
