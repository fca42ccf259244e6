"""Prepared recordings in a folder, by the content of their files: moved, renamed and doubled files are known again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar.checks import Record
from avatar.corpus.find import Item
from avatar.corpus.mouth import Mouth
from avatar.corpus.prepared import read_features, read_mouth, write_prepared
from avatar.errors import AvatarError
from avatar.paths import file_sha256, read_json, write_json
from avatar.writing import contents

FORMAT = "avatar-corpus-2"  # raise it when the same recording is prepared into other numbers
MARKER = "cache.json"


@dataclass(frozen=True)
class Cache:
    """A folder of prepared recordings; files are whole or absent, and any number of processes may add to it.

    Attributes:
        folder: Where.
        encoder: Configuration of the speech encoder that listened.
    """

    folder: Path
    encoder: dict[str, Any]

    @staticmethod
    def open(folder: Path, encoder: dict[str, Any]) -> Cache:
        """Make the folder, or check that it is one.

        Raises:
            AvatarError: It holds something else, is of another version, or was made with another encoder.
        """
        folder, marker = Path(folder), Path(folder) / MARKER
        about = {"format": FORMAT, "encoder": encoder}
        if folder.exists() and not folder.is_dir():
            raise AvatarError(f"--cache {folder} is a file.", fix="Name a folder.")
        if not marker.is_file():
            if contents(folder):
                raise AvatarError(
                    f"{folder} holds other files.", why="Nothing was changed.", fix="Choose another --cache."
                )
            write_json(marker, about)
        elif (kept := read_json(marker)) != json.loads(json.dumps(about)):
            other = kept.get("format") if isinstance(kept, dict) else None
            why = f"It is {other!r}, not {FORMAT!r}." if other != FORMAT else "Another encoder listened."
            raise AvatarError(
                f"{folder} was made by another version.", why=why, fix="Choose another --cache, or delete it."
            )
        return Cache(folder, encoder)

    def key(self, item: Item) -> str:
        """SHA-256 of what is in the files of a recording.

        Raises:
            OSError: A file cannot be read.
        """
        digest = hashlib.sha256()
        for path in item.files:
            digest.update(bytes.fromhex(file_sha256(path)))
        return digest.hexdigest()

    def done(self, key: str) -> bool:
        """Whether nothing is left to do for a recording."""
        return self._path(key).is_file() or self._refusal(key).get("final", False)

    def reason(self, key: str) -> str:
        """Why a recording cannot be used; empty where it can.

        Raises:
            AvatarError: It was not prepared.
        """
        if self._path(key).is_file():
            return ""
        refusal = self._refusal(key)
        if not refusal:
            raise AvatarError(
                f"{self.folder} lacks a recording that another process prepared.", fix="Give a --cache that all share."
            )
        return refusal["reason"]

    def save(self, key: str, mouth: Mouth, features: np.ndarray) -> None:
        """Keep a prepared recording; features [mouth.rows, F] of its audio.

        Raises:
            AvatarError: The disk is full or cannot be written.
        """
        write_prepared(self._path(key), mouth, features)

    def refuse(self, key: str, reason: str, final: bool = True) -> None:
        """Keep why a recording cannot be used; it is tried again next time where that is not final."""
        write_json(self._path(key).with_suffix(".json"), {"reason": reason, "final": final})

    def mouth(self, key: str) -> Mouth:
        """Raises AvatarError where :meth:`save` did not write it."""
        return read_mouth(self._path(key))

    def features(self, key: str) -> np.ndarray:
        """Raises AvatarError where :meth:`save` did not write them."""
        return read_features(self._path(key))

    def _refusal(self, key: str) -> dict[str, Any]:
        path = self._path(key).with_suffix(".json")
        if not path.is_file():
            return {}
        refusal = Record(read_json(path), path)
        return {"reason": refusal.text("reason"), "final": refusal.flag("final", False)}

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
