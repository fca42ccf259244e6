"""What an avatar of one photo says about itself, wherever it goes: PERSON, RUN, bundle, report and credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from avatar.checks import Record
from avatar.data.results import Parsed, Text

KIND = "photo"  # in person.json; without it, a person was filmed
TURN, NOD, TILT = 8.0, 5.0, 6.0  # degrees that the head, or the camera around it, may go to either side of the photo
INVENTED = (
    "Teeth, tongue and the inside of the mouth are invented: they are drawn from a small palette.",
    "What the photo does not show (the far side of the face, ears, hair, neck, what is behind) is guessed or mirrored.",
    "Lips, lids and brows move as people's do in general, not as this person's do.",
    "Blinks, gaze and head motion are generated.",
)


def _sentences(data: Record, name: str) -> tuple[str, ...]:
    return tuple(data.names(name))


@dataclass(frozen=True, kw_only=True)
class PhotoInfo(Parsed):
    """The photo that a person was made from.

    Attributes:
        sha256: Of its file.
        invented: What the avatar shows and the photo does not, one sentence each.
    """

    sha256: Text
    invented: Annotated[tuple[str, ...], _sentences] = field(default=INVENTED)
