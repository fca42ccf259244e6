"""A replica: a process of a Ray cluster that serves sessions at an address of its own, behind a front."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.serve.hub import Settings

if TYPE_CHECKING:
    from avatar.serve.character import Character
    from avatar.serve.voice import Voice

STOP_SECONDS = 5.0  # for what still runs when it is stopped


@dataclass(frozen=True, kw_only=True)
class Cast:
    """What each replica serves, as the command line says it.

    Attributes:
        folder: Folder that relative paths are relative to; on every machine.
        runs, controls, size, device: See `avatar.serve.start.load_characters`.
        tts, voice, language: See `avatar.serve.start.load_voice`.
    """

    folder: Path
    runs: tuple[Path, ...]
    controls: Controls
    size: int | None = None
    device: DeviceName = "auto"
    tts: str = "hibari"
    voice: str | None = None
    language: str = "en"

    def load(self) -> tuple[list[Character], Voice]:
        """Load the avatars and text to speech.

        Raises:
            AvatarError: An avatar cannot be loaded.
        """
        from avatar.serve.start import load_characters, load_voice

        try:
            os.chdir(self.folder)
        except OSError as error:
            raise AvatarError(
                f"A replica cannot use the folder {self.folder}:", why=f"{error.strerror}.",
                fix="Start `avatar serve` in a folder that all machines of the cluster have.",
            ) from None  # fmt: skip
        characters = load_characters(self.runs, self.controls, size=self.size, device=self.device)
        return characters, load_voice(self.tts, self.voice, self.language)


class Replica:
    """Serves sessions in its process; Ray runs it as an actor.

    It has an event loop of its own, because that of a Ray actor may be another implementation, with which ICE fails.

    Args:
        cast: What it serves.
        settings: How; its host is where it listens, at a port that the system chooses.
    """

    def __init__(self, cast: Cast, settings: Settings) -> None:
        self._cast, self._settings = cast, settings
        self._loop = asyncio.SelectorEventLoop()
        self._over = asyncio.Event()
        self._listening = threading.Event()
        self._port, self._failure = 0, ""
        self._thread: threading.Thread | None = None

    def start(self, here: bool) -> tuple[str, int]:
        """Load the avatars and listen.

        Args:
            here: Whether only this machine is to reach it.

        Returns:
            Its address and port.

        Raises:
            AvatarError: An avatar cannot be loaded.
        """
        logging.basicConfig(level=logging.WARNING, format="%(message)s")  # Ray takes it to the front
        characters, voice = self._cast.load()
        settings = self._settings
        if not here:
            settings = replace(settings, host=importlib.import_module("ray.util").get_node_ip_address())
        self._thread = threading.Thread(target=self._serve, args=(characters, voice, settings), daemon=True)
        self._thread.start()
        self._listening.wait()
        if self._failure:
            raise RuntimeError(self._failure)
        return settings.host, self._port

    def run(self) -> None:
        """Return when it was stopped."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """End all sessions, with a word to their listeners."""
        self._loop.call_soon_threadsafe(self._over.set)

    def _serve(self, characters: list[Character], voice: Voice, settings: Settings) -> None:
        from aiohttp import web

        from avatar.serve.app import make_app
        from avatar.serve.hub import Hub

        async def work() -> None:
            app = make_app(Hub(characters, voice, settings))
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_SECONDS)
            await runner.setup()
            try:
                site = web.TCPSite(runner, settings.host, 0)
                await site.start()
                self._port = runner.addresses[0][1]
                self._listening.set()
                await self._over.wait()
            finally:
                await runner.cleanup()

        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(work())
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
        finally:
            self._listening.set()
            self._loop.close()
