"""Say what a file, or each file of a folder, claims about how it was made, and whether that holds.

Exit code 0: all content credentials are valid. 2: some are not, or there are none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avatar.errors import AvatarError
from avatar.log import one_line
from avatar.provenance.credentials import Claims, read

KINDS = {
    "trainedAlgorithmicMedia": "made by a trained model (AI)",
    "compositeWithTrainedAlgorithmicMedia": "made in part by a trained model (AI)",
    "compositeCapture": "put together from what a camera saw",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Verify the content credentials of a file, or of all files of a folder."""

    file: Annotated[Path, tyro.conf.Positional]
    """An mp4, mov, png, webp, gif or jpg, or a folder, such as one of `avatar export --format web`."""
    json: Path | None = None
    """Write what was found to this file."""


def main(config: Config) -> None:
    """Print what the file claims, or each file of the folder.

    Raises:
        AvatarError: There are no content credentials, some do not hold, or something cannot be read.
    """
    from avatar.data.outputs import refuse_to_overwrite

    if config.json is not None:
        refuse_to_overwrite(config.json, config.file)
    if config.file.is_dir():
        _folder(config.file, config.json)
        return
    claims, name = read(config.file), one_line(str(config.file))
    _keep(config.json, {"file": str(config.file)} | asdict(claims))
    said = f"Its metadata, which nobody signed, say: {kind(claims.metadata_source_type)}."
    if claims.state == "none":
        found = f"What was found: {', '.join(claims.faults)}." if claims.faults else ""
        raise AvatarError(
            f"{name} has no content credentials.", why=f"{found} {said if claims.metadata_source_type else ''}".strip(),
            fix="They are lost when a file is encoded anew, or copied by a program that does not know them.",
        )  # fmt: skip
    if claims.state == "invalid":
        why = f"What was found: {', '.join(claims.faults)}."
        raise AvatarError(f"{name} is not as it was signed: it was changed, or the signature is wrong.", why=why)
    print(f"{name} is as it was signed.")
    program, made = (claims.program and f", by {claims.program}"), (claims.made and f", {claims.made}")
    print(f"  {kind(claims.source_type)}{program}{made}")
    print(f"  signed by: {claims.signer}{_doubt(claims)}")
    for photo in filter(None, (claims.photo, *claims.more_photos)):
        print(f"  the avatar was made from one photo, SHA-256 {photo}: teeth and what it hides are invented")
    for consent in filter(None, (claims.consent, *claims.more_consents)):
        print(f"  record of consent: SHA-256 {consent}")


def _doubt(claims: Claims) -> str:
    """Why a certificate does not prove who signed; nothing where it does."""
    if claims.expired:
        return "; the certificate has expired, it does not prove who signed"
    return "" if claims.known_signer else "; anybody can make such a certificate, it does not prove who signed"


def _folder(folder: Path, json: Path | None) -> None:
    """Print a line for each file that claims something, or could.

    Raises:
        AvatarError: No file can hold content credentials, or one has none or not valid ones.
    """
    from avatar.provenance.folder import read_folder, signable

    files = read_folder(folder)
    _keep(json, {"folder": str(folder), "files": {name: asdict(claims) for name, claims in files.items()}})
    for name, claims in files.items():
        print(f"{one_line(name)}: {in_words(claims)}")
    if not any(map(signable, files)):
        raise AvatarError(f"{folder} holds no file that could have content credentials.")
    if changed := [one_line(name) for name, claims in files.items() if claims.state == "invalid"]:
        why = f"{', '.join(changed[:5])} was changed or cannot be read."
        raise AvatarError(f"{folder} is not as it was signed:", why=why)
    if lacking := [one_line(n) for n, claims in files.items() if signable(n) and claims.state == "none"]:
        raise AvatarError(f"{folder} is not signed as a whole:", why=f"{', '.join(lacking[:5])} has no credentials.")


def in_words(claims: Claims) -> str:
    """What a file claims, and whether that holds, in a line."""
    if claims.state == "valid":
        return f"as it was signed; {kind(claims.source_type)}"
    if claims.state == "invalid":
        return f"not as it was signed ({', '.join(claims.faults)[:100]})"
    said = f"; says, unsigned: {kind(claims.metadata_source_type)}" if claims.metadata_source_type else ""
    return f"no content credentials{said}"


def _keep(path: Path | None, found: dict[str, Any]) -> None:
    from avatar.paths import write_json

    if path is not None:
        write_json(path, found)


def kind(source_type: str | None) -> str:
    """A digital source type in words."""
    name = (source_type or "").rpartition("/")[2]
    return KINDS.get(name, name or "nothing about its source")
