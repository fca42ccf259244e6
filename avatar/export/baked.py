"""Export an avatar in the form that plays faster: `avatar render RUN --baked`."""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar import log
from avatar.data.run import BAKED
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.writing import one_writer


@dataclass(frozen=True, kw_only=True)
class BakedBasis:
    """The deformation as a linear basis, in the RUN folder, for `avatar render --baked`."""

    suffixes: ClassVar[tuple[str, ...]] = (BAKED,)
    default: ClassVar[str | None] = BAKED

    modes: int = 16
    """Dimensions of the basis; more are closer to the trained field, fewer are faster."""

    def needs(self) -> Set[Need]:
        """An avatar."""
        return {"avatar"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write RUN/baked.safetensors and say how close it is to the trained field.

        Raises:
            AvatarError: ``modes`` is out of range, ``path`` is elsewhere, or another process writes to the RUN folder.
        """
        assert source.avatar is not None
        if path.resolve() != (source.folder / BAKED).resolve():
            raise AvatarError(
                f"--out {path} is not {source.folder / BAKED},",
                why="where --baked looks for it.",
                fix="Leave out --out.",
            )
        with one_writer(source.folder):  # what is baked must not be trained meanwhile
            began = time.perf_counter()
            path, psnr = source.avatar.bake(self.modes)
        megabytes, seconds = path.stat().st_size / 2**20, time.perf_counter() - began
        log.info(
            f"{path}: {self.modes} modes, {megabytes:.1f} MB, in {seconds:.0f} s. "
            f"PSNR to the trained field's images: {sum(psnr) / len(psnr):.1f} dB, {min(psnr):.1f} at worst."
        )
        log.next_command(f"avatar render {log.word(source.folder)} --baked --audio SPEECH.wav")
