"""A text-to-speech engine of another package, in one file: a tone for every letter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avatar.errors import AvatarError
from avatar.io.text_to_speech import register_tts


@register_tts("beep")
class Beep:
    sample_rate = 8000

    def __init__(self, voice: str | None, language: str) -> None:
        if voice is not None and self.voices().get(voice) != language:
            raise AvatarError(f"beep has no voice {voice!r} for {language!r}.", fix=f"Known are {self.voices()}.")
        self._hertz = 200 if voice == "low" else 400

    @staticmethod
    def voices() -> dict[str, str]:
        return {"low": "en", "tief": "de"}

    def speak(self, text: str) -> Iterator[np.ndarray]:
        tone = 0.5 * np.sin(2 * np.pi * self._hertz * np.arange(800) / self.sample_rate)
        for letter in text:
            yield (tone if letter.isalpha() else 0 * tone).astype(np.float32)
