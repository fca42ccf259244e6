"""Start `avatar prior record`: check what is asked for, delete what a killed one left, open the page, and wait."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.serve.start import Place


def record_tracks(out: Path, *, text: Path | None = None, language: str = "en", port: int = 8080) -> None:
    """Show the page until the tracks are written, somebody declines, or Ctrl-C.

    Args:
        out: Folder to write; it must not hold anything yet.
        text: File with a sentence in each line; None: the built-in English ones.
        language: Of the sentences, two letters of ISO 639-1.
        port: Port to listen on, on this machine alone.

    Raises:
        AvatarError: An option is wrong, a package or a pretrained part is missing, or the consent was withheld.
    """
    from avatar.serve.start import Place, require_packages
    from avatar.writing import contents, one_writer

    if not 1 <= port <= 65535:
        raise AvatarError(f"--port {port} is out of range.", fix="It goes from 1 to 65535.")
    if not re.fullmatch("[a-z]{2,3}", language):
        raise AvatarError(f"--language {language!r} is no language.", fix="Give its two letters, such as de.")
    if out.is_file() or contents(out):
        raise AvatarError(f"{out} is there already.", why="Nothing was changed.", fix="Give a new folder with --out.")
    require_packages("avatar prior record")
    with one_writer(out, inside=False):
        _record(out, text, language, Place(port=port, advice="Choose another --port."))


def _record(out: Path, text: Path | None, language: str, place: Place) -> None:
    from aiohttp import web

    from avatar.audio2motion.shared import SharedPrior
    from avatar.record.app import make_app
    from avatar.record.examine import Examiner
    from avatar.record.prompts import prompts
    from avatar.record.session import RecordingSession
    from avatar.serve.hub import Settings
    from avatar.serve.start import run

    said = prompts(text)
    tell_leftovers()
    session = RecordingSession(Examiner(SharedPrior.load()), said, out, language)
    settings = Settings(token=secrets.token_urlsafe(24), host=place.host)

    async def app() -> web.Application:
        return make_app(session, settings)

    try:
        run(app, settings, place)
    finally:
        session.close()
    if session.declined:
        raise AvatarError("The consent was withheld.", why="Nothing is kept, and nothing is written.")
    if session.result is None:
        raise AvatarError("It was stopped before the end.", why="All recordings are deleted, and nothing is written.",
                          fix="Start it again.")  # fmt: skip
    minutes = session.result["seconds"] / 60
    log.info(f"{out}: {minutes:.1f} minutes of tracks, given under CC0. The recordings of face and voice are deleted.")
    log.next_command(f"avatar prior train CORPUS --out my.safetensors, with {log.word(out)} in CORPUS")


def tell_leftovers() -> None:
    """Delete the recordings of face and voice that a killed command left, and say so."""
    from avatar.record.recordings import delete_leftovers

    deleted, left = delete_leftovers()
    if deleted:
        log.warn(f"{deleted} recording(s) of a face and a voice were left by a command that was killed; now deleted.")
    for path in left:
        log.warn(f"{path} holds a face and a voice. Another `avatar prior record` uses it; if none runs, delete it.")
