"""Say what a video or an image claims about how it was made, and whether that holds.

Exit code 0: its content credentials are valid. 2: they are not, or there are none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar.errors import AvatarError

KINDS = {
    "trainedAlgorithmicMedia": "made by a trained model (AI)",
    "compositeWithTrainedAlgorithmicMedia": "made in part by a trained model (AI)",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Verify the content credentials of a file."""

    file: Annotated[Path, tyro.conf.Positional]
    """An mp4, mov, png, webp, gif or jpg."""
    json: Path | None = None
    """Write what was found to this file."""


def main(config: Config) -> None:
    """Print what the file claims.

    Raises:
        AvatarError: It has no content credentials, they do not hold, or it cannot be read.
    """
    from avatar.data.outputs import refuse_to_overwrite
    from avatar.paths import write_json
    from avatar.provenance.credentials import read

    if config.json is not None:
        refuse_to_overwrite(config.json, config.file)
    claims = read(config.file)
    if config.json is not None:
        write_json(config.json, {"file": str(config.file)} | asdict(claims))
    said = f"Its metadata, which nobody signed, say: {kind(claims.metadata_source_type)}."
    if claims.state == "none":
        raise AvatarError(
            f"{config.file} has no content credentials.", why=said if claims.metadata_source_type else "",
            fix="They are lost when a file is encoded anew, or copied by a program that does not know them.",
        )  # fmt: skip
    if claims.state == "invalid":
        why = f"What was found: {', '.join(claims.faults)}."
        raise AvatarError(f"{config.file} is not as it was signed: it was changed, or the signature is wrong.", why=why)
    print(f"{config.file} is as it was signed.")
    print(f"  {kind(claims.source_type)}, by {claims.program}{f', {claims.made}' if claims.made else ''}")
    known = "" if claims.known_signer else "; anybody can make such a certificate, it does not prove who signed"
    print(f"  signed by: {claims.signer}{known}")
    if claims.consent:
        print(f"  record of consent: SHA-256 {claims.consent}")


def kind(source_type: str | None) -> str:
    """A digital source type in words."""
    name = (source_type or "").rpartition("/")[2]
    return KINDS.get(name, name or "nothing about its source")
