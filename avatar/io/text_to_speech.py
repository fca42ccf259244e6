"""A text as a sound file, by the package hibari-tts."""

from __future__ import annotations

from pathlib import Path

from avatar.errors import AvatarError
from avatar.io.audio import write_wav

RATE = 24000
DEFAULT_VOICE = "heart"


def check_voice(voice: str) -> None:
    """Whether the voice can be used.

    Raises:
        AvatarError: hibari-tts is not installed or does not know the voice.
    """
    try:
        from hibari.voices import VOICES
    except ImportError:
        raise AvatarError("--text needs the package hibari-tts.", fix="Run `pip install hibari-tts`.") from None
    if voice not in VOICES:
        raise AvatarError(f"There is no voice '{voice}'.", fix=f"Known are {', '.join(VOICES)}.")


def say(text: str, voice: str, path: Path) -> None:
    """Write what a voice says to a wav file.

    Args:
        text: English.
        voice: A name of hibari-tts. All but the default one are downloaded by it on first use.
        path: Where to.

    Raises:
        AvatarError: The voice cannot be had, or the text has nothing to say.
    """
    check_voice(voice)
    from hibari import Hibari

    try:
        samples = Hibari(voice)(text, seed=0)
    except RuntimeError as error:
        raise AvatarError(
            f"The voice '{voice}' cannot be had:", why=str(error), fix=f"Use --voice {DEFAULT_VOICE}."
        ) from None
    if len(samples) == 0 or not any(c.isalnum() for c in text):
        raise AvatarError(f"The text {text[:40]!r} has nothing to say.", fix="Give at least one word.")
    write_wav(path, samples, RATE)
