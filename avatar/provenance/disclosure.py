"""Options and state of a file that says that a program made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from avatar import log
from avatar.errors import AvatarError
from avatar.provenance.credentials import Source
from avatar.provenance.label import labelled
from avatar.provenance.source_type import TRAINED, write_source_type

if TYPE_CHECKING:
    from avatar.provenance.keys import SigningKey

Label = Literal["none", "corner"]


@dataclass(frozen=True, kw_only=True)
class DisclosureOptions:
    """How videos and images say that a program made them. See docs/provenance.md."""

    no_credentials: Annotated[str | None, tyro.conf.arg(metavar="REASON")] = None
    """Write no content credentials (C2PA), and note this reason in the file."""
    certificate: Path | None = None
    """Sign the content credentials with your own certificates: a PEM chain, the signer first. Goes with --key."""
    key: Path | None = None
    """PEM of the private key that belongs to --certificate; default: a key of this installation."""
    label: Label = "none"
    """Visible label "AI": none, or corner for the lower right one."""

    def open(self, consent: str | None = None, source_type: str = TRAINED, photo: str | None = None) -> Disclosure:
        """Check the options and load the key. For an avatar, call :func:`avatar.data.disclosed.disclosed`.

        Args:
            consent: SHA-256 of the record of consent, or None.
            source_type: Digital source type (IPTC).
            photo: SHA-256 of the one photo that the avatar was made from, or None.

        Raises:
            AvatarError: Options contradict each other, the reason is empty, or a key cannot be read or does not sign.
        """
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise AvatarError(f"--{given} needs --{missing} as well.")
        if self.no_credentials is None:
            return Disclosure(source_type=source_type, key=self._key(), consent=consent, photo=photo, label=self.label)
        if self.key is not None:
            raise AvatarError("--no-credentials and --key exclude each other.")
        reason = " ".join(self.no_credentials.split())
        if not reason:
            raise AvatarError("--no-credentials needs a reason.", fix='Such as: --no-credentials "test footage"')
        return Disclosure(source_type=source_type, without=reason, consent=consent, photo=photo, label=self.label)

    def _key(self) -> SigningKey:
        from avatar.provenance.keys import installation_key, own_key

        if self.certificate is None or self.key is None:
            return installation_key()
        key = own_key(self.certificate, self.key)
        _try(key, self.certificate)
        return key


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What is written into the files of one command.

    Attributes:
        source_type: Digital source type (IPTC).
        key: Signs the content credentials; None: there are none.
        without: Why there are none.
        consent: SHA-256 of the record of consent, or None.
        photo: SHA-256 of the one photo that the avatar was made from, or None.
        others: The same of further avatars that the files show.
        label: Whether images have a visible label.
    """

    source_type: str = TRAINED
    key: SigningKey | None = None
    without: str = ""
    consent: str | None = None
    photo: str | None = None
    others: tuple[Source, ...] = ()
    label: Label = "none"

    @property
    def comment(self) -> str:
        """What stands in the metadata of a file in words."""
        photos = sum(source.photo is not None for source in self.sources)
        part = ", in part" if 0 < photos < len(self.sources) else ""
        made = f"Made by a program (AI){part} from one photo." if photos else "Made by a program (AI)."
        return made if self.key is not None else f"{made} No content credentials: {self.without}"

    @property
    def sources(self) -> tuple[Source, ...]:
        """Of each avatar that the files show."""
        return (Source(self.consent, self.photo), *self.others)

    def announce(self) -> None:
        """Say where nothing is signed."""
        if self.key is None:
            log.warn(f"What is written has no content credentials: {self.without}")

    def draw(self, image: np.ndarray) -> np.ndarray:
        """An image with the label where one is asked for, uint8 [H, W, C]."""
        return image if self.label == "none" else labelled(image)

    def finish(self, path: Path) -> None:
        """Mark a file that is whole; it is the last that changes it.

        A file that cannot be signed stays, and there is a warning.

        Raises:
            OSError: The disk is full.
        """
        from avatar.provenance import credentials

        write_source_type(path, self.source_type)
        if self.key is not None and path.suffix.lower() in credentials.SUFFIXES:
            try:
                credentials.sign(path, self.key, self.source_type, self.sources)
            except AvatarError as error:
                log.warn(f"{error} It is written without content credentials.")


def _try(key: SigningKey, certificate: Path) -> None:
    """Sign a small image, so that a certificate that does not sign is refused before hours of work.

    Raises:
        AvatarError: It does not.
    """
    import tempfile

    import cv2

    from avatar.provenance import credentials

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        path.write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
        try:
            credentials.sign(path, key, TRAINED)
            claims = credentials.read(path)
        except AvatarError as error:
            raise AvatarError(
                f"The certificate {certificate} does not sign content credentials.", why=error.why
            ) from error
    if claims.state != "valid":
        raise AvatarError(
            f"The certificate {certificate} does not sign content credentials.", why=f"{', '.join(claims.faults)}.",
            fix="It has to allow digital signatures, and the extended usage emailProtection or documentSigning.",
        )  # fmt: skip
