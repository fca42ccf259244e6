"""An avatar that is served, with what its sessions share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from avatar.infer.controls import Controls
from avatar.infer.session import Session
from avatar.infer.video import resize

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.infer.avatar import Avatar


@dataclass(frozen=True)
class Character:
    """An avatar that is served, with what its sessions share.

    Attributes:
        name: What listeners call it.
        avatar: The avatar.
        speech: The speech network of all its sessions.
        controls: Those of the command line.
        size: Longer side of the image in pixels; None: as trained.
        speechless: Why it cannot speak; empty where it can.
    """

    name: str
    avatar: Avatar
    speech: AudioToMotion
    controls: Controls
    size: int | None = None
    speechless: str = ""

    def open(self) -> Session:
        """Make a session; it takes a moment."""
        camera = resize(self.avatar.camera, self.size)
        return Session(self.avatar, self.controls, camera, speech=self.speech, flush_seconds=None)


def named(characters: list[Character]) -> list[Character]:
    """Characters with names that differ: runs of the same name get a number."""
    seen: dict[str, int] = {}
    found: list[Character] = []
    for character in characters:
        seen[character.name] = count = seen.get(character.name, 0) + 1
        found.append(character if count == 1 else replace(character, name=f"{character.name}-{count}"))
    return found
