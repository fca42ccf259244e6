"""The options that say what an avatar speaks, shared by the commands that let it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.infer.sources import AudioFile


@dataclass(frozen=True, kw_only=True)
class Speaking:
    """What is said."""

    audio: Path | None = None
    """What the avatar says: any audio or video file, of any length."""
    audio_track: int | None = None
    """Audio track of --audio, from 1; default: the default one that can be decoded and carries a voice."""
    text: str | None = None
    """Instead of --audio: what the avatar says; its audio is written beside the output."""
    tts: str = "hibari"
    """Text-to-speech engine of --text: hibari, or that of an installed package."""
    voice: str | None = None
    """Voice of --text; default: the engine's own choice. An unknown one lists the others."""
    language: str = "en"
    """Language of --text, two letters of ISO 639-1."""

    def open(self, out: Path) -> AudioFile | None:
        """Open the audio to be spoken, if any. Nothing slow has happened yet where it cannot be read.

        Args:
            out: The file that is written in the end; the audio of a text goes beside it.

        Raises:
            AvatarError: It cannot be read, or the text cannot be said.
        """
        from avatar.infer.sources import AudioFile

        if self.audio is not None and self.text is not None:
            raise AvatarError("--audio and --text exclude each other.")
        path = self.audio
        if self.text is not None:
            from avatar.io.text_to_speech import say

            path = out.with_suffix(".speech.wav")
            say(self.text, path, self.tts, self.voice, self.language)
        return None if path is None else AudioFile(path, self.audio_track if path is self.audio else None)
