"""The built-in text-to-speech engine: the package hibari-tts."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from avatar import log
from avatar.errors import AvatarError

if TYPE_CHECKING:
    import hibari

DEFAULT_VOICE = "heart"


class Hibari:
    """English voices of hibari-tts, an `avatar.io.text_to_speech.TextToSpeech`; gives a sentence at a time.

    All voices but the default one are downloaded by hibari-tts on first use.
    """

    sample_rate = 24000

    def __init__(self, voice: str | None, language: str) -> None:
        known = self.voices()
        self._voice = voice or DEFAULT_VOICE
        if self._voice not in known:
            raise AvatarError(f"There is no voice '{voice}'.", fix=f"Known are {', '.join(known)}.")
        if language != known[self._voice]:
            raise AvatarError(
                f"The voice '{self._voice}' does not speak '{language}'.",
                why=f"The voices of hibari speak {', '.join(sorted(set(known.values())))}.",
                fix="Choose another --language, or another engine with --tts.",
            )
        self._engine: hibari.Hibari | None = None
        self._loading = threading.Lock()

    @staticmethod
    def voices() -> Mapping[str, str]:
        """Language of each voice."""
        try:
            from hibari.voices import VOICES
        except ImportError:
            raise AvatarError("--text needs the package hibari-tts.", fix="Run `pip install hibari-tts`.") from None
        return {name: str(about["language"])[:2].lower() for name, about in VOICES.items()}

    def speak(self, text: str) -> Iterator[np.ndarray]:
        """Say a text, a sentence at a time. The first text loads the voice.

        Words of other scripts that it leaves out are named by a warning, if it says something else of the text.
        """
        try:
            left_out = None
            for piece in self._loaded().stream(text, seed=0):
                if left_out is None and len(piece):
                    left_out = self._left_out(text)
                    if left_out:
                        log.warn(f"the voice '{self._voice}' leaves out what it cannot read: {', '.join(left_out)}.")
                yield piece
        except IndexError as error:  # of numbers of 37 digits and more, whose names hibari does not know
            raise AvatarError("hibari cannot read the text aloud.", why="A number in it may be too long.") from error
        except RuntimeError as error:
            raise AvatarError(
                f"The voice '{self._voice}' cannot be had:", why=str(error), fix=f"Use --voice {DEFAULT_VOICE}."
            ) from None

    def _left_out(self, text: str) -> list[str]:
        """Words, or parts of words, of other scripts of which it says nothing, each once."""
        engine = self._loaded()
        words = "".join(c if _is_foreign(c) else " " for c in text).split()
        return [word for word in dict.fromkeys(words) if not engine.ids(engine.g2p(word) or "")[1:-1]]

    def _loaded(self) -> hibari.Hibari:
        """The engine, which is loaded once: that takes half a second, and agents say many texts."""
        import hibari

        with self._loading:
            if self._engine is None:
                self._engine = hibari.Hibari(self._voice)
            return self._engine


def _is_foreign(character: str) -> bool:
    """Whether a character is part of a word in another script than the Latin one."""
    kind = unicodedata.category(character)[0]  # L, M, N: letters, their marks, digits
    return kind in "LMN" and not character.isascii() and not unicodedata.name(character, "").startswith("LATIN")
