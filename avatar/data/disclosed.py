"""How the files that show the avatar of a run say where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avatar.data.consent import consent_hash
from avatar.data.run import photo_hash
from avatar.provenance.credentials import Source
from avatar.provenance.disclosure import Disclosure, DisclosureOptions
from avatar.provenance.source_type import TRAINED


def disclosed(
    run: Path, options: DisclosureOptions | None = None, source_type: str = TRAINED, others: Sequence[Path] = ()
) -> Disclosure:
    """Open the disclosure of a run: with its record of consent, and with the photo that it was made from.

    Args:
        run: RUN folder.
        options: What the user asked for; default: signed by this installation, without a label.
        source_type: Digital source type (IPTC).
        others: RUN folders of further avatars that the same files show.

    Raises:
        AvatarError: Options contradict each other, a key cannot be used, or what RUN says of itself is damaged.
    """
    found = (options or DisclosureOptions()).open(consent_hash(run), source_type, photo_hash(run))
    return replace(found, others=tuple(Source(consent_hash(other), photo_hash(other)) for other in others))
