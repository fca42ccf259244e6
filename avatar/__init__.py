"""Person-specific talking avatars: a video of a person in, an avatar that speaks any audio out."""

__version__ = "0.1.0"
