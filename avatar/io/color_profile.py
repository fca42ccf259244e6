"""Colour profiles (ICC) of photos: the values of a phone's wide gamut are brought to sRGB, as everything else is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from avatar import log

_SRGB = ("srgb", "iec61966")  # in the names of profiles that change nothing


def read_profile(path: Path) -> bytes | None:
    """Read the colour profile that a JPEG or PNG file holds, without decoding its image.

    Args:
        path: The file.

    Returns:
        The ICC profile; None where there is none, or where it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            profile = image.info.get("icc_profile")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return profile if isinstance(profile, bytes) and profile else None


def to_srgb(image: np.ndarray, profile: bytes, path: Path) -> tuple[np.ndarray, str | None]:
    """Convert an image from the colours of a profile to sRGB; colours outside of it are clipped.

    Args:
        image: uint8 RGB [H, W, 3] in the values of the file.
        profile: ICC profile of them.
        path: The file, for a warning.

    Returns:
        uint8 RGB [H, W, 3], and the name of the profile. The image as it was, and None, where the profile is that of
        sRGB, is not one of RGB, or is damaged; the last brings a warning.
    """
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about: Any = source.profile  # of the C library; its type is not published
        name = " ".join((about.profile_description or "").split()) or "without a name"
        if about.xcolor_space.strip() != "RGB" or any(word in name.lower() for word in _SRGB):
            return image, None
        converted = ImageCms.profileToProfile(
            Image.fromarray(image), source, ImageCms.createProfile("sRGB"), outputMode="RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )  # fmt: skip
        assert converted is not None  # `inPlace` was not asked for
    except (OSError, ValueError, ImageCms.PyCMSError):
        log.warn(f"The colour profile of {path} is damaged: its colours are taken for sRGB.")
        return image, None
    return np.asarray(converted), name
