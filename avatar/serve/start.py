"""Start the service: check what is asked for, load the avatars, listen until it is stopped."""

from __future__ import annotations

import importlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from avatar import log
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from aiohttp import web

    from avatar.audio2motion.base import AudioToMotion
    from avatar.device import DeviceName
    from avatar.infer.avatar import Avatar
    from avatar.infer.controls import Controls
    from avatar.serve.character import Character
    from avatar.serve.hub import Settings
    from avatar.serve.voice import Voice

SHUTDOWN_SECONDS = 5.0  # for what still runs when the server is stopped
MOST_SESSIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the service listens.

    Attributes:
        host: Address.
        port: Port; 0 lets the system choose.
        tries: How many ports are tried, from that one on.
        certificate, key: Files of TLS in PEM; None: it is not encrypted.
        advice: What to do where nothing can be listened on.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    key: Path | None = None
    tries: int = 1
    advice: str = "Choose another --host or --port."

    def url(self, port: int, token: str) -> str:
        """The address to open; the token is in its fragment, which no browser sends."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.certificate else ''}://{host}:{port}/" + (f"#token={quote(token)}" if token else "")

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context, if there is one.

        Raises:
            AvatarError: The files cannot be used.
        """
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise AvatarError(
                f"The TLS files {self.certificate} and {self.key or 'no key'} cannot be used:", why=f"{error}.",
                fix="Give a certificate and its key in PEM with --tls-certificate and --tls-key.",
            ) from None  # fmt: skip
        return context

    def listen(self) -> socket.socket:
        """Listen on the port.

        Raises:
            AvatarError: The address is not one of this machine, or the port is taken.
        """
        reason: Exception = OSError("there is no such port")
        for port in range(self.port, min(65535, self.port + self.tries - 1) + 1):
            try:
                family = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)[0][0]
                return socket.create_server((self.host, port), family=family)
            except (OSError, ValueError, OverflowError) as error:
                reason = error
        raise AvatarError(f"Cannot listen on {self.host}:{self.port}:", why=f"{reason}.", fix=self.advice)


def require_packages(command: str = "avatar serve") -> None:
    """Refuse to start a command without the packages that it needs.

    Raises:
        AvatarError: One is missing.
    """
    for name in ("aiohttp", "aiortc"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise AvatarError(f"`{command}` needs the package {name}.", fix=f"Run `pip install {name}`.") from None


def load_characters(
    runs: tuple[Path, ...], controls: Controls, *, size: int | None = None, device: DeviceName = "auto",
    speechless: bool = False,
) -> list[Character]:  # fmt: skip
    """Load avatars with their speech networks.

    Args:
        runs: RUN folders, or bundles.
        controls: Of the command line.
        size: Longer side of the image in pixels; None: as trained.
        device: Where to render.
        speechless: Whether an avatar that cannot speak is taken as well, with a warning.

    Raises:
        AvatarError: One cannot be loaded, cannot speak, or does not do what a control asks for.
    """
    from avatar.data.bundle import run_folder
    from avatar.infer.avatar import Avatar
    from avatar.infer.layers import build_layers
    from avatar.infer.planner import refuse_driven
    from avatar.serve.character import Character, named

    controls.check()
    refuse_driven(controls)
    found: list[Character] = []
    for folder in map(run_folder, runs):
        avatar = Avatar.load(folder, device=device)
        speech, reason = _speech(avatar, controls.speech, speechless)
        build_layers(avatar, controls)  # what cannot be read is an error now, not at the first listener
        found.append(Character(folder.resolve().name, avatar, speech, controls, size, reason))
    return named(found)


def _speech(avatar: Avatar, which: str, speechless: bool) -> tuple[AudioToMotion, str]:
    """The speech network of an avatar, and why it has none where that is allowed."""
    from avatar.infer.layers import PersonMotion
    from avatar.infer.planner import speech_of
    from avatar.infer.utterances import Speechless

    try:
        return speech_of(avatar, which, live=True), ""
    except AvatarError as error:
        if not speechless:
            raise
        log.warn(str(error))
        return Speechless(PersonMotion.of(avatar).stats.rest, avatar.fps), f"This avatar cannot speak: {error}"


def load_voice(engine: str, voice: str | None, language: str) -> Voice:
    """Load text to speech; without it the service goes on, and says so."""
    from avatar.io.text_to_speech import open_tts
    from avatar.serve.voice import Voice

    try:
        return Voice(open_tts(engine, voice, language))
    except AvatarError as error:
        log.warn(f"Texts cannot be said: {error}")
        return Voice(None, str(error))


def serve(characters: list[Character], voice: Voice, settings: Settings, place: Place) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        AvatarError: The settings are unsafe, or nothing can be listened on.
    """
    from avatar.serve.app import make_app
    from avatar.serve.hub import Hub

    async def app() -> web.Application:
        return make_app(Hub(characters, voice, settings))

    run(app, settings, place)


def run(app: Callable[[], Coroutine[Any, Any, web.Application]], settings: Settings, place: Place) -> None:
    """Run an application until Ctrl-C or SIGTERM.

    Args:
        app: Makes it, in the event loop that it runs in.
        settings: Its settings.
        place: Where it listens.

    Raises:
        AvatarError: The settings are unsafe, or nothing can be listened on.
    """
    from aiohttp import web

    from avatar.io.hosts import is_loopback
    from avatar.serve.access import check_settings

    check_settings(settings)
    context = place.tls()
    listening = place.listen()
    port: int = listening.getsockname()[1]
    hub_url = place.url(port, settings.token)

    def announce(*_: Any) -> None:
        log.info(f"Open {hub_url} in a browser. Ctrl-C stops.")
        if not is_loopback(place.host) and context is None:
            fix = "forward the port" if settings.face else "give --tls-certificate and --tls-key"
            log.warn(
                "nothing is encrypted, and browsers give a microphone only to encrypted pages of other machines: "
                f"{fix}, or put a proxy in front."
            )

    try:
        web.run_app(
            app(), sock=listening, ssl_context=context, print=announce, access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS, handler_cancellation=True,
        )  # fmt: skip
    finally:
        listening.close()
