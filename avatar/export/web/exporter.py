"""Export a talking avatar as a folder that plays in a browser without a server: `avatar export --format web`."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import tyro

from avatar import log
from avatar.data.consent import require
from avatar.data.disclosed import disclosed
from avatar.data.run import MODEL
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.export.web import format as web
from avatar.export.web.folder import Named, add_clip, clip_name, new_folder
from avatar.paths import file_sha256, read_json
from avatar.provenance.disclosure import DisclosureOptions
from avatar.provenance.source_type import CAPTURED
from avatar.writing import contents, one_writer

_FIX = "Export it again, with --overwrite."


@dataclass(frozen=True, kw_only=True)
class WebFolder:
    """The talking avatar as a web page and a custom element, playing without any server."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = "web"

    compact: bool = False
    """Make it small: Gaussians that hardly show are left out, and the basis is coarser."""
    title: str | None = None
    """Name of the avatar on the page; default: that of the RUN folder."""
    clip: str | None = None
    """Name of the clip; default: the beginning of the text, or the name of the audio or motion file."""
    add: bool = False
    """Add the clip to a folder that this command wrote. One that has the name of --clip is replaced."""
    speech_input: bool = False
    """Add what the page needs to speak audio files and the microphone: 10 MB more."""
    overwrite: bool = False
    """Replace a folder that this command wrote."""
    disclosure: tyro.conf.OmitArgPrefixes[DisclosureOptions] = field(default_factory=DisclosureOptions)

    def needs(self) -> Set[Need]:
        """An avatar that does something."""
        return {"avatar", "motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the folder, or add a clip to it; it changes only once everything is there.

        Raises:
            AvatarError: Nobody agreed to it, the target is not free or is that of another avatar, or the method has no
                Gaussians.
        """
        assert source.avatar is not None and source.motion is not None
        require(source.folder, "publish", "to be played in a web page")
        if self.speech_input:
            require(source.folder, "live", "to say in a web page whatever its visitors say")
        disclosure = disclosed(source.folder, self.disclosure, CAPTURED)
        disclosure.announce()
        title = self.clip or source.title or (source.audio.stem if source.audio else "motion")
        with one_writer(path, inside=False):
            before = check_target(path, self.add, self.overwrite)
            model = file_sha256(source.folder / MODEL)
            wanted = clip_name(title)
            clip = Named(title, wanted) if self.clip or before is None else Named.beside(title, before["clips"])
            if before is None:
                name = self.title or source.folder.resolve().name
                psnr = new_folder(source, path, clip, name, model, self.compact, disclosure, speech=self.speech_input)
            else:
                if before["model"] != model:
                    raise AvatarError(f"{path} holds another avatar,", why="or this one before it was trained again.",
                                      fix=_FIX)  # fmt: skip
                psnr = add_clip(source, path, clip, before, self.speech_input)
        megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        if clip.name != wanted:
            log.info(f"There is a clip {wanted}, so this one is {clip.name}. --clip {wanted} would replace that one.")
        log.info(
            f"{path}: {megabytes:.1f} MB, clip {clip.name}. PSNR to the avatar's images: "
            f"{sum(psnr) / len(psnr):.1f} dB, {min(psnr):.1f} at worst. Open {path / 'index.html'} in a browser."
        )


def check_target(path: Path, add: bool, overwrite: bool) -> dict[str, Any] | None:
    """Refuse to write over anything but what this command wrote, and over that without permission.

    Returns:
        The manifest of the folder that a clip is added to; None: a new folder is written.
    """
    if add and overwrite:
        raise AvatarError("--add and --overwrite exclude each other.")
    if path.is_file():
        raise AvatarError(f"--out {path} is a file.", fix="Name a folder.")
    if not contents(path):
        if add:
            raise AvatarError(f"There is no web folder {path} to add a clip to.", fix="Leave out --add.")
        return None
    manifest = path / web.MANIFEST
    content = read_json(manifest, _FIX) if manifest.is_file() else None
    if not isinstance(content, dict) or not str(content.get("format")).startswith("avatar-web-"):
        raise AvatarError(
            f"{path} holds files that `avatar export --format web` did not write.", fix="Choose another --out."
        )
    if overwrite:
        return None
    if not add:
        raise AvatarError(f"{path} already holds an avatar.", why="Nothing was changed.",
                          fix="Pass --add for another clip, or --overwrite, or choose another --out.")  # fmt: skip
    if content.get("format") != web.FORMAT or not isinstance(content.get("clips"), list) or "model" not in content:
        raise AvatarError(f"{manifest} is damaged, or was written by another version.", fix=_FIX)
    return content
