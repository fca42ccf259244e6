"""From where, how large and before what an avatar is shown in exported images and videos."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class View:
    """Options of images and videos."""

    camera: str | None = None
    """orbit, "azimuth,elevation[,zoom]" in degrees around the head, or a .json of keyframes; default: as filmed."""
