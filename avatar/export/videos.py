"""Export what an avatar does as a video with its audio: for players, and with alpha for editors and web pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar import log
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.view import NONE, OWN, View
from avatar.infer.pipeline import Worker
from avatar.io.video_codings import MOV, MP4, WEBM, Coding
from avatar.io.video_writer import VideoWriter


@dataclass(frozen=True, kw_only=True)
class _Video(View):
    """A video in some coding."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = None
    coding: ClassVar[Coding] = MP4

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the file, with the audio that the avatar speaks.

        Raises:
            AvatarError: There is nothing to draw, the audio cannot be read, or the coding has no alpha.
        """
        if self.background == NONE and not self.coding.alpha:
            raise AvatarError(f"{self.suffixes[0][1:]} has no transparency.",
                              fix="Choose --format webm or mov, or another --background.")  # fmt: skip
        disclosure = self.disclosed(source)
        shots = self.shots(source)
        with VideoWriter(
            path, shots.width, shots.height, shots.fps, source.audio, source.audio_start,
            audio_track=source.audio_track, coding=self.coding, alpha=self.background == NONE, disclosure=disclosure,
        ) as writer, Worker(writer.write) as encoder:  # fmt: skip
            for image in log.track(shots.images, "rendering", total=shots.frames):
                encoder.put(image)
        size = path.stat().st_size / 2**20
        log.info(
            f"{path}: {shots.frames} frames of {shots.width}x{shots.height} pixels, {shots.fps:g} per second, "
            f"{size:.1f} MB."
        )


@dataclass(frozen=True, kw_only=True)
class Mp4(_Video):
    """A video as mp4 (H.264 and AAC), as `avatar render` writes it."""

    suffixes: ClassVar[tuple[str, ...]] = (".mp4",)

    background: str = OWN
    """What is behind the person: own (as filmed), or a color such as 00b140."""


@dataclass(frozen=True, kw_only=True)
class WebM(_Video):
    """A video as WebM with alpha (VP9 and Opus), for web pages and OBS."""

    suffixes: ClassVar[tuple[str, ...]] = (".webm",)
    coding: ClassVar[Coding] = WEBM


@dataclass(frozen=True, kw_only=True)
class Mov(_Video):
    """A video as ProRes 4444 with alpha (and PCM audio), for video editors."""

    suffixes: ClassVar[tuple[str, ...]] = (".mov",)
    coding: ClassVar[Coding] = MOV
