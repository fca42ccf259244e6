"""The built-in text-to-speech engine: the package hibari-tts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from avatar.errors import AvatarError

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

    @staticmethod
    def voices() -> Mapping[str, str]:
        """Language of each voice."""
        try:
            from hibari.voices import VOICES
        except ImportError:
            raise AvatarError("--text needs the package hibari-tts.", fix="Run `pip install hibari-tts`.") from None
        return {name: str(about["language"])[:2].lower() for name, about in VOICES.items()}

    def speak(self, text: str) -> Iterator[np.ndarray]:
        """Say a text, a sentence at a time."""
        import hibari

        try:
            yield from hibari.Hibari(self._voice).stream(text, seed=0)
        except RuntimeError as error:
            raise AvatarError(
                f"The voice '{self._voice}' cannot be had:", why=str(error), fix=f"Use --voice {DEFAULT_VOICE}."
            ) from None
