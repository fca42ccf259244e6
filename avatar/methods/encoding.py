"""The tri-plane of a method, with the backend that its options name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from avatar.backends import EncodingName, require
from avatar.fields.triplane import TriplaneHash

if TYPE_CHECKING:
    from avatar.fields.deformation import Encoding


class TriplaneOptions(Protocol):
    """What the options of a method say about its tri-plane."""

    @property
    def levels(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def coarsest(self) -> int: ...
    @property
    def finest(self) -> int: ...
    @property
    def log2_table(self) -> int: ...
    @property
    def encoding(self) -> EncodingName: ...


def make_triplane(config: TriplaneOptions, bounds: Tensor) -> Encoding:
    """Make the encoding of points inside ``bounds`` [2, 3].

    Raises:
        AvatarError: Its backend cannot run here.
    """
    kind = TriplaneHash
    if config.encoding == "tinycudann":
        require(config.encoding)
        from avatar.backends.tinycudann import TinyCudaTriplane as kind
    return kind(
        bounds, levels=config.levels, features=config.features, coarsest=config.coarsest, finest=config.finest,
        log2_table=config.log2_table,
    )  # fmt: skip
