"""An exporter of another package, in one file: the opening of the jaw as text, one number a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar.export.base import ExportSource
from avatar.export.registry import register_exporter
from avatar.motion.arkit import INDEX


@register_exporter("jaw")
@dataclass(frozen=True, kw_only=True)
class JawExporter:
    """The opening of the jaw as text."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    default: ClassVar[str | None] = None

    digits: int = 3
    """Digits after the point."""

    def needs(self) -> set:
        return {"motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        assert source.motion is not None
        jaw = source.motion.arkit[:, INDEX["jawOpen"]]
        path.write_text("".join(f"{value:.{self.digits}f}\n" for value in jaw.tolist()))
