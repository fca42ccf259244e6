"""Person-specific talking avatars: a video of a person in, an avatar that speaks any audio out."""

__version__ = "0.1.0"

from avatar.device import wait_passively as _wait_passively

_wait_passively()  # before torch is loaded
