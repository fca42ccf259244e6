"""PERSON and RUN folders: their formats, and the dataset that training and evaluation read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avatar.data.dataset import PersonDataset

__all__ = ["PersonDataset"]


def __getattr__(name: str) -> Any:
    """Import the dataset, and torch with it, only where it is used: file names need neither."""
    if name == "PersonDataset":
        from avatar.data.dataset import PersonDataset

        return PersonDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
