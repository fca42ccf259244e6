"""The seam between a conversation and whoever answers in it: turns go in, text or audio of the answer comes out.

An agent belongs to one listener and remembers what was said. Without one, `Echo` lets the avatar say what it was told.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float32

from avatar.errors import AvatarError

KEY_VARIABLE = "AVATAR_AGENT_KEY"
PIECE_SECONDS = 15.0  # in which an agent has to begin, and then to go on
INSTRUCTIONS = (
    "You speak aloud with somebody through an avatar. Answer in one to three short spoken sentences, "
    "without lists, markup, emoji or web addresses."
)


class AgentError(AvatarError):
    """The agent did not answer, or not so that it can be said. The session goes on."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What somebody said.

    Attributes:
        text: In words; empty where there is only audio.
        audio: float32 [N], 16 kHz mono, of the listener.
        role: Who said it: ``user``, ``assistant`` or ``system``.
        before: Audio of the turn before, where this one goes on with it: what ended it was only a pause. So that turn
            and what was answered to it are void.
    """

    text: str = ""
    audio: Float32[np.ndarray, " N"] | None = None
    role: str = "user"
    before: Float32[np.ndarray, " N"] | None = None

    @property
    def whole(self) -> Float32[np.ndarray, " N"] | None:
        """All audio, with that of the turn before."""
        return self.audio if self.audio is None or self.before is None else np.concatenate([self.before, self.audio])


class Transcript(NamedTuple):
    """What the listener's audio said, in words.

    Attributes:
        text: The words.
        whole: Whether they are those of the turn before, too, where this one goes on with it.
    """

    text: str
    whole: bool = False


class Words(NamedTuple):
    """Text of the answer, as it comes.

    Attributes:
        text: The next characters.
        aloud: Whether text to speech says it; False where the agent sends its own audio.
    """

    text: str
    aloud: bool = True


class AudioPiece(NamedTuple):
    """Audio of the answer, float32 [N], 16 kHz mono."""

    samples: np.ndarray


Piece = Transcript | Words | AudioPiece


class Agent(Protocol):
    """Whoever answers one listener.

    Attributes:
        hears: Whether it takes audio.
    """

    @property
    def hears(self) -> bool: ...

    def reply(self, turns: Sequence[Turn], instructions: str = "") -> AsyncGenerator[Piece]:
        """Answer what was said since the last answer; closing the generator stops the answer.

        Args:
            turns: What is new.
            instructions: For this answer, instead of the usual ones.

        Raises:
            AgentError: There is no answer, or it breaks off.
        """
        ...

    async def played(self, text: str, milliseconds: int) -> None:
        """Note that the listener interrupted the last answer after ``text``, so that no more of it is remembered."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class Echo:
    """Says what it is told, and repeats audio."""

    hears = True

    async def reply(self, turns: Sequence[Turn], instructions: str = "") -> AsyncGenerator[Piece]:
        """Give back the turns; where there are none, the instructions are what is said."""
        said, between = [turn for turn in turns if turn.role != "system"], ""
        for turn in said:
            if (audio := turn.whole) is not None:
                yield AudioPiece(audio)
            elif turn.text.strip():
                yield Words(between + turn.text)
                between = "\n"
        if not said and instructions.strip():
            yield Words(instructions)

    async def played(self, text: str, milliseconds: int) -> None:
        """Nothing is remembered."""

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """Which agent answers.

    Attributes:
        url: Base of an OpenAI-compatible API such as ``http://localhost:11434/v1``, or of a realtime endpoint:
            ``wss://example.org/v1/realtime``.
        model: Its name there.
        transcriber: Model of the same server's ``/audio/transcriptions``; empty: it cannot hear.
        instructions: System prompt.
        key: API key; it stays in memory.
        seconds: In which an agent has to begin, and then to go on.
    """

    url: str
    model: str = ""
    transcriber: str = ""
    instructions: str = INSTRUCTIONS
    key: str = field(default="", repr=False)
    seconds: float = PIECE_SECONDS

    @property
    def realtime(self) -> bool:
        """Whether it takes audio and gives audio."""
        return urlsplit(self.url).scheme in ("ws", "wss")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request to it."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def check(self) -> None:
        """Refuse what cannot work, before the avatars are loaded.

        Raises:
            AvatarError: The address is none, holds a secret, or needs a model.
        """
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            parts, known = urlsplit(""), False
        if parts.username or parts.password:
            raise AvatarError(
                "--agent holds a user name or a password.", why="Other users see it in the list of processes.",
                fix=f"Put the API key into the environment variable {KEY_VARIABLE}.",
            )  # fmt: skip
        if not known or parts.query or parts.fragment:
            raise AvatarError(
                f"--agent {self.url!r} is no address of an agent.",
                fix="Give http://HOST:PORT/v1 of an OpenAI-compatible server, or wss://HOST/v1/realtime.",
            )
        if not self.realtime and not self.model:
            raise AvatarError(f"--agent {self.url} needs a model.", fix="Name one with --agent-model.")
        if not re.fullmatch(r"[\x21-\x7e]*", self.key):
            raise AvatarError(f"The key in {KEY_VARIABLE} has blanks or characters that are not ASCII.")


def key_of_environment() -> str:
    """The API key of the agent, from the environment: neither files nor the list of processes show it."""
    return os.environ.get(KEY_VARIABLE, "").strip()


def reason_of(message: object, key: str) -> str:
    """Why an agent's server refused, in its own words: shortened, and without the key if it repeats that."""
    if not isinstance(message, str):
        return ""
    message = message.replace(key, "[key]") if key else message
    return " ".join(message.split())[:200]
