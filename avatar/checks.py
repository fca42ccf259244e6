"""Checks of what comes from outside: text, numbers and records, each refused in one sentence that names file and field.

Whatever reads a file uses these, so that a rule (a frame rate goes from 1 to 1000) is written once. Arrays and tensors
have theirs in `avatar.io.arrays`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avatar.errors import AvatarError

FRAME_RATES = (1.0, 1000.0)  # per second
MOST_FRAMES = 10_000_000  # of a video: more than four days
SIDES = (2, 16_384)  # pixels of an image, either way
MOST_PIXELS = 2**26  # of an image: twice as many as 8K video has
_TEXT_BYTES = 2**28  # of a text file; an hour of coefficients as JSON has a quarter of it
_TEXT_VALUES = 10_000_000  # of a text file: every value takes some 100 bytes of memory
_DEEP = 64  # levels of lists and objects in each other
# Characters that join or part letters and words, or say which way they run, in Persian, Hindi, Khmer or Hebrew.
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060"
_REASON = 200  # characters of another library's error

Where = Path | str
last_read = ""  # the file that was opened last, for reports of what nobody expected


def describe(error: BaseException) -> str:
    """An exception of another library in one line, without its final full stop."""
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}" if error.args else "something is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return (text[:_REASON] or type(error).__name__).rstrip(". ")


def can_be_shown(text: str) -> bool:
    """Whether a text holds something to see, and no control characters."""
    return bool(text.strip(f" {_INVISIBLE}")) and text.translate(dict.fromkeys(map(ord, _INVISIBLE))).isprintable()


@contextmanager
def reading(path: Where, kind: str, fix: str = "") -> Generator[None]:
    """Turn what goes wrong while a file is taken apart into an :class:`AvatarError` that names it.

    For code that does nothing but read: a fault of the toolkit in here would pass for one of the file.

    Args:
        path: The file.
        kind: What it should be, with its article.
        fix: What the user can do.
    """
    global last_read
    last_read = str(path)
    try:
        yield
    except AvatarError:
        raise
    except FileNotFoundError:
        raise AvatarError(f"{path} does not exist.", fix=fix) from None
    except (ImportError, NameError, AssertionError):
        raise
    except Exception as error:  # libraries raise classes of their own, some of them not exported
        raise AvatarError(f"{path} cannot be read as {kind}:", why=f"{describe(error)}.", fix=fix) from error


def number(value: Any, where: Where, low: float, high: float) -> float:
    """A finite number between two bounds, both included.

    Raises:
        AvatarError: It is of another type, not finite, or out of bounds.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        found = float(value)  # an integer may have thousands of digits
        if not low <= found <= high:
            raise ValueError
    except (ValueError, OverflowError):
        raise AvatarError(f"{where} is {_shown(value)}, not a number from {_plain(low)} to {_plain(high)}.") from None
    return found


def whole(value: Any, where: Where, low: int, high: int) -> int:
    """A whole number between two bounds, both included; 3.0 is one.

    Raises:
        AvatarError: It is of another type, has a fraction, or is out of bounds.
    """
    if isinstance(value, float) and math.isfinite(value) and value == round(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise AvatarError(f"{where} is {_shown(value)}, not a whole number from {low} to {high}.")
    return value


def frame_rate(value: Any, where: Where) -> float:
    """Frames per second, 1 to 1000.

    Raises:
        AvatarError: It is not.
    """
    return number(value, where, *FRAME_RATES)


def image_size(width: Any, height: Any, where: Where) -> tuple[int, int]:
    """Width and height of an image in pixels.

    Raises:
        AvatarError: One is no whole number, or the image is too small or too large.
    """
    width, height = (whole(v, f"{where}: {n}", *SIDES) for n, v in (("width", width), ("height", height)))
    if width * height > MOST_PIXELS:
        raise AvatarError(f"{where} says {width}x{height} pixels;", why=f"at most {MOST_PIXELS} are read.")
    return width, height


def written_number(text: str, where: Where, low: float, high: float) -> float:
    """A number that is written as text; otherwise as :func:`number`."""
    try:
        value: Any = float(text)
    except (TypeError, ValueError):
        value = text
    return number(value, where, low, high)


class Record:
    """Read a JSON object field by field, each with its type and range.

    Fields that nobody asks for do no harm.

    Args:
        data: What was read.
        where: What an error names: the file, and the place in it.

    Raises:
        AvatarError: It is no object; or, when a field is asked for: it is missing, of another type, or out of range.
    """

    def __init__(self, data: Any, where: Where) -> None:
        if not isinstance(data, dict):
            raise AvatarError(f"{where} is {_shown(data)}, not a JSON object.")
        self.data, self.where = data, where

    def value(self, name: str, default: Any = ...) -> Any:
        """Whatever the field holds."""
        if name not in self.data and default is ...:
            raise AvatarError(f"{self.where} lacks {name}.")
        return self.data.get(name, default)

    def place(self, name: str) -> str:
        """What an error calls a field."""
        return f"{self.where}: {name}"

    def number(self, name: str, low: float, high: float, default: Any = ...) -> float:
        return number(self.value(name, default), self.place(name), low, high)

    def whole(self, name: str, low: int, high: int, default: Any = ...) -> int:
        return whole(self.value(name, default), self.place(name), low, high)

    def frame_rate(self, name: str = "fps", default: Any = ...) -> float:
        return frame_rate(self.value(name, default), self.place(name))

    def flag(self, name: str, default: Any = ...) -> bool:
        return self._of(name, bool, "true or false", default)

    def text(self, name: str, default: Any = ...) -> str:
        return self._of(name, str, "text", default)

    def list(self, name: str, default: Any = ...) -> list[Any]:
        return self._of(name, list, "a list", default)

    def names(self, name: str, default: Any = ...) -> list[str]:
        """A list of different names."""
        found = self.list(name, default)
        if not all(isinstance(item, str) for item in found) or len(set(found)) < len(found):
            raise AvatarError(f"{self.place(name)} is not a list of different names.")
        return found

    def record(self, name: str, default: Any = ...) -> Record:
        return Record(self.value(name, default), self.place(name))

    def records(self, name: str) -> list[Record]:
        """A list of objects."""
        return [Record(item, f"{self.place(name)}[{i}]") for i, item in enumerate(self.list(name))]

    def _of(self, name: str, kind: type, words: str, default: Any) -> Any:
        found = self.value(name, default)
        if not isinstance(found, kind):
            raise AvatarError(f"{self.place(name)} is {_shown(found)}, not {words}.")
        return found


def read_text(path: Path, kind: str, fix: str = "") -> str:
    """A text file: UTF-8 with or without its mark, or UTF-16 with it.

    Raises:
        AvatarError: It is missing, no regular file, larger than any such file needs to be, or no text.
    """
    path = Path(path)
    with reading(path, kind, fix):
        if path.exists() and not path.is_file():
            raise AvatarError(f"{path} is not a file.", fix=fix)
        with open(path, "rb") as file:
            data = file.read(_TEXT_BYTES + 1)
        if len(data) > _TEXT_BYTES or sum(map(data.count, (b",", b"[", b"{", b"\n"))) > 2 * _TEXT_VALUES:
            raise AvatarError(f"{path} is too large for {kind}.", why=f"At most {_TEXT_BYTES >> 20} MiB are read.")
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def parse_json(text: str, where: Where, fix: str = "") -> Any:
    """What JSON text holds.

    Raises:
        AvatarError: It is not JSON, nested too deeply, or holds numbers that no program writes.
    """
    with reading(where, "JSON", fix):
        data = json.loads(text)
        _refuse_depth(data)
        return data


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        AvatarError: It is missing or damaged.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    text = read_text(path, "TOML")
    with reading(path, "TOML"):
        return tomllib.loads(text)


def _refuse_depth(data: Any) -> None:
    """Refuse lists and objects that are nested more deeply than any file needs: who walks them would not come back."""
    level = [data] if isinstance(data, dict | list) else []
    for _ in range(_DEEP):
        inside = (child for box in level for child in (box.values() if isinstance(box, dict) else box))
        level = [child for child in inside if isinstance(child, dict | list)]
        if not level:
            return
    raise RecursionError


def _plain(bound: float) -> str:
    """A bound in digits where they are few."""
    return str(int(bound)) if bound == int(bound) and abs(bound) < 1e10 else f"{bound:g}"


def _shown(value: Any) -> str:
    """A value as an error shows it; a container by its kind alone, for it may be of any size."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "missing"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "an integer of more than 30 digits"  # the conversion to text of a much longer one is refused
    return repr(value)[:80]
