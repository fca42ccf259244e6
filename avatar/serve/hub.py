"""Who is served: so many listeners at once, each with a session of its own, for so long."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from avatar.errors import AvatarError
from avatar.serve.agent import AgentSettings
from avatar.serve.agents import agent_maker
from avatar.serve.character import Character
from avatar.serve.encoder import Codec
from avatar.serve.guest import Guest
from avatar.serve.listener import Listener
from avatar.serve.metrics import Metrics
from avatar.serve.voice import MOST_FILE_BYTES, Voice

CLOSING = "The server is shutting down."
RETRY_SECONDS = 10  # after which a listener who found the server full may ask again
LEAVE_SECONDS = 5.0  # in which a session that is replaced has to end; the page waits 10 s for a first word


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the service runs.

    Attributes:
        sessions: Listeners at once.
        session_seconds: A session ends after that.
        idle_seconds: A session ends after that long in which its listener neither spoke nor did anything, and nothing
            was said to it.
        codec: Video codec of the WebSocket; None: H.264. WebRTC uses VP8 unless H.264 is asked for.
        bits_per_second: Of the video.
        token: What a request has to carry; empty: nothing.
        host: Address that is listened on.
        ice_servers: STUN and TURN servers, as `RTCPeerConnection` in a browser takes them.
        origins: Other origins whose pages may connect.
        agent: Who answers; None: nobody, and the avatar says what it is told.
        face: Whether pages may move the face by hand, and let go of the view limits.
        file_bytes: Most bytes of an audio file that is sent.
        prefix: What the names of sessions begin with; it tells a front where a session is.
    """

    sessions: int = 4
    session_seconds: float = 3600.0
    idle_seconds: float = 900.0
    codec: Codec | None = None
    bits_per_second: int = 1_500_000
    token: str = ""
    host: str = "127.0.0.1"
    ice_servers: tuple[dict[str, str], ...] = ()
    origins: tuple[str, ...] = ()
    agent: AgentSettings | None = None
    face: bool = False
    file_bytes: int = MOST_FILE_BYTES
    prefix: str = ""


class Full(AvatarError):
    """All places are taken."""


class Hub:
    """Lets listeners in, and ends their sessions.

    Args:
        characters: The avatars; the first one is the default.
        voice: Says texts.
        settings: How the service runs.

    Attributes:
        metrics: Counts and times of all sessions.
        guests: Those that are served, by the names of their sessions.
    """

    def __init__(self, characters: list[Character], voice: Voice, settings: Settings) -> None:
        self.characters = {character.name: character for character in characters}
        self.voice, self.settings, self.metrics = voice, settings, Metrics()
        self.guests: dict[str, Guest] = {}
        self._agent = agent_maker(settings.agent)
        self._taken = 0
        self._left: dict[str, asyncio.Event] = {}  # by the names of sessions: set once their places are free
        self._making = asyncio.Semaphore(1)  # sessions are made one at a time, so that those that run are not late
        self.closing = False

    def character(self, name: str) -> Character:
        """Find an avatar by its name; an empty one is the default.

        Raises:
            AvatarError: There is none of this name.
        """
        if not name:
            return next(iter(self.characters.values()))
        if name not in self.characters:
            raise AvatarError(f"There is no avatar {name[:64]!r} here.", fix=f"There is {', '.join(self.characters)}.")
        return self.characters[name]

    def check_room(self, replaces: str = "") -> None:
        """Refuse a listener where all places are taken.

        Args:
            replaces: As for `admit`; there is room where that session runs.

        Raises:
            Full: They are.
        """
        self._check_open()
        if self._taken >= self.settings.sessions and replaces not in self.guests:
            raise Full(
                f"The server is full: {self.settings.sessions} people talk with it now.", fix="Try again in a moment."
            )

    def _check_open(self) -> None:
        if self.closing:
            raise Full(CLOSING)

    @asynccontextmanager
    async def admit(self, name: str = "", start: bool = True, replaces: str = "") -> AsyncGenerator[Guest]:
        """Serve a listener as long as the context lasts.

        Args:
            name: Of the avatar; an empty one is the default.
            start: Whether its avatar starts at once. Otherwise the door starts it, when somebody takes what it gives.
            replaces: Name of a session that ends for it and leaves it its place. Only its own listener was told it.

        Raises:
            Full: All places are taken.
            AvatarError: There is no avatar of this name, or no session can be made.
        """
        character = self.character(name)
        self.check_room(replaces)
        old = self.guests.pop(replaces, None)  # nobody else can replace it now
        self._taken += 1  # with the old one still there this is one too many, so nobody else gets its place
        guest: Guest | None = None
        try:
            if old is not None:
                await self._see_out(old)
            async with self._making:
                self._check_open()  # the server may have been stopped while this one waited for others
                session = await asyncio.to_thread(character.open)
            self._check_open()
            listener = Listener(session, self.metrics)
            name, answers = self.settings.prefix + secrets.token_urlsafe(18), self.settings.agent is not None
            guest = Guest(
                name, listener, character, self.voice, self.metrics, self._agent(), answers, self.settings.face,
                self.settings.file_bytes,
            )  # fmt: skip
            self.guests[guest.name], self._left[guest.name] = guest, asyncio.Event()
            self.metrics.count("sessions_total")
            if start:
                listener.start()
            yield guest
        finally:
            self._taken -= 1
            if guest is not None:
                self._left.pop(guest.name).set()
                self.guests.pop(guest.name, None)
                await asyncio.shield(_let_go(guest))  # a door that is cancelled meanwhile leaves no threads

    async def _see_out(self, guest: Guest) -> None:
        """End a session, and return once its place is free."""
        guest.end(replaced=True)
        try:
            await asyncio.wait_for(self._left[guest.name].wait(), LEAVE_SECONDS)
        except asyncio.TimeoutError:
            raise Full("The session before has not ended yet.", fix="Try again in a moment.") from None

    async def watch(self) -> None:
        """End sessions whose time is over, and keep the gauges; runs until it is cancelled."""
        while True:
            now = time.monotonic()
            for guest in list(self.guests.values()):
                if guest.conversation.busy:  # who is spoken to may just listen
                    guest.active = now
                if now - guest.began > self.settings.session_seconds:
                    guest.end("The time of this session is over. Load the page again.")
                elif now - guest.active > self.settings.idle_seconds:
                    guest.end("Nothing came from you for a long time, so the session ended. Load the page again.")
            listeners = [guest.listener for guest in self.guests.values()]
            self.metrics.gauge("sessions", len(listeners))
            self.metrics.gauge("queued_audio_seconds", sum(one.session.waiting_seconds for one in listeners))
            self.metrics.gauge("queued_images", sum(one.outbox.images for one in listeners))
            await asyncio.sleep(1.0)

    def close(self) -> None:
        """Let nobody in any more, and end all sessions."""
        self.closing = True
        for guest in list(self.guests.values()):
            guest.end(CLOSING)


async def _let_go(guest: Guest) -> None:
    """End the conversation of a listener who has left, and the avatar's threads."""
    try:
        await guest.conversation.close()
    finally:
        await asyncio.to_thread(guest.listener.stop)
