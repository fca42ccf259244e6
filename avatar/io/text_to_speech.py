"""The seam between text and audio: engines that say a text, found by their name.

Another engine is a class in one file, announced by an entry point of the group ``avatar.tts``::

    @register_tts("beep")
    class Beep:
        sample_rate = 16000

        def __init__(self, voice: str | None, language: str) -> None: ...
        @staticmethod
        def voices() -> dict[str, str]: return {"low": "en", "high": "en"}
        def speak(self, text: str) -> Iterator[np.ndarray]: yield ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Protocol

import numpy as np

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATES, write_wav
from avatar.registry import Registry


class TextToSpeech(Protocol):
    """An engine that says a text with one voice.

    Attributes:
        sample_rate: Hertz of the samples.
    """

    @property
    def sample_rate(self) -> int: ...

    def __init__(self, voice: str | None, language: str) -> None:
        """Make the engine ready.

        Args:
            voice: One of `voices`; None: the engine's own choice for the language.
            language: Two letters of ISO 639-1, such as "en".

        Raises:
            AvatarError: The engine is not installed, or does not know the voice or the language.
        """
        ...

    @staticmethod
    def voices() -> Mapping[str, str]:
        """Language of each voice."""
        ...

    def speak(self, text: str) -> Iterator[np.ndarray]:
        """Say a text.

        Yields:
            float32 [N] mono in -1 to 1, in pieces as soon as the engine has them.

        Raises:
            AvatarError: The text has nothing to say.
        """
        ...


ENGINES: Registry[TextToSpeech] = Registry(
    "text-to-speech engine", "avatar.tts", {"hibari": "avatar.io.hibari:Hibari"}, ("voices", "speak")
)
register_tts = ENGINES.register


def open_tts(engine: str, voice: str | None = None, language: str = "en") -> TextToSpeech:
    """Open an engine by its name; see `TextToSpeech`."""
    return ENGINES.get(engine)(voice, language)


def say(text: str, path: Path, engine: str = "hibari", voice: str | None = None, language: str = "en") -> None:
    """Write what a voice says to a wav file.

    Args:
        text: What is said.
        path: Where to.
        engine: Name of a text-to-speech engine.
        voice: One of its voices; None: its own choice.
        language: Two letters of ISO 639-1.

    Raises:
        AvatarError: The engine or the voice is not available, the text has nothing to say, or what the engine gives is
            no audio.
    """
    speaker = open_tts(engine, voice, language)
    if not any(c.isalnum() for c in text):
        raise AvatarError(f"The text {text[:40]!r} has nothing to say.", fix="Give at least one word.")
    pieces = [piece for piece in speaker.speak(text) if len(_checked(piece, engine))]
    if not pieces:
        raise AvatarError(f"The voice can say nothing of the text {text[:40]!r}.", why=f"It speaks {language!r}.")
    rate = speaker.sample_rate
    if not isinstance(rate, Integral) or not SAMPLE_RATES[0] <= int(rate) <= SAMPLE_RATES[1]:
        raise _wrong(engine, f"a sample rate of {rate}")
    write_wav(path, pieces, int(rate))


def _checked(piece: np.ndarray, engine: str) -> np.ndarray:
    """Refuse what would be noise, or nothing, in a wav file."""
    if not isinstance(piece, np.ndarray):
        raise _wrong(engine, f"a {type(piece).__name__}")
    if piece.ndim != 1 or piece.dtype.kind != "f":
        raise _wrong(engine, f"{piece.dtype} {list(piece.shape)}")
    if not np.isfinite(piece).all():
        raise _wrong(engine, "samples that are not numbers (NaN or infinite)")
    return piece


def _wrong(engine: str, what: str) -> AvatarError:
    return AvatarError(
        f"The text-to-speech engine {engine!r} gave {what}.",
        why="It has to give mono float32 [N] in -1 to 1.",
        fix="Report it to its maintainers, or choose another --tts.",
    )
