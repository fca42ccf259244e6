"""Open a live avatar for a plug-in, and refuse in words where the package that it plugs into is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.session import Session
from avatar.infer.video import resize

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.infer.avatar import Avatar


def missing(package: str, extra: str) -> AvatarError:
    """The error of a plug-in whose package is not installed."""
    return AvatarError(
        f"The plug-in for {extra} needs the package {package}.",
        fix=f"Run `pip install 'avatar-toolkit[{extra}]'`.",
    )


def loaded(avatar: Avatar | Path | str) -> Avatar:
    """The avatar, or that of a RUN folder.

    Raises:
        AvatarError: It cannot be loaded.
    """
    from avatar.infer.avatar import Avatar

    return Avatar.load(Path(avatar)) if isinstance(avatar, str | Path) else avatar


def open_session(
    avatar: Avatar | Path | str, controls: Controls | None, size: int | None, speech: AudioToMotion | None
) -> Session:
    """Make a session; it takes a moment, and more of it where the avatar has to be loaded.

    Args:
        avatar: The avatar, or its RUN folder.
        controls: How it behaves.
        size: Longer side of the image in pixels; None: as trained.
        speech: Speech network; None: that of the avatar, which is loaded once for each `Avatar` object.

    Raises:
        AvatarError: It cannot be loaded, cannot speak, or a control needs to know the audio beforehand.
    """
    avatar = loaded(avatar)
    return Session(avatar, controls, resize(avatar.camera, size), speech=speech)
