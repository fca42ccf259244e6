"""What a synthetic person looks like beside face and colours: hair, glasses, collar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Hair = Literal["long", "short", "tied"]
HairChoice = Literal["long", "short", "tied", "auto"]


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """What a synthetic person looks like. The default is the person of the documentation."""

    hair: Hair = "long"
    """long falls on the shoulders, short leaves the ears free, tied is drawn back into a bun."""
    glasses: bool = False
    """Wears glasses."""
    collar: bool = False
    """Wears a shirt with a folded collar over it."""

    @staticmethod
    def choose(seed: int, hair: HairChoice = "long", glasses: bool = False, collar: bool = False) -> Appearance:
        """Resolve ``auto`` hair by the seed; seed 0 has long hair."""
        styles: tuple[Hair, ...] = ("long", "short", "tied")
        return Appearance(hair=styles[seed % 3] if hair == "auto" else hair, glasses=glasses, collar=collar)
