"""Reading, writing and scaling images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avatar.checks import image_size, reading
from avatar.errors import AvatarError

JPEG_QUALITY = 95
_MOST_BYTES = 2**28  # of an image file
_PNG = b"\x89PNG\r\n\x1a\n"
PHOTO_MARKS = (b"\xff\xd8\xff", _PNG)  # first bytes of JPEG and PNG
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # of JPEG, those after which the size stands
_PLAIN_MARKERS = {0x01, *range(0xD0, 0xD9)}  # those without a length


def read_image(path: Path, flags: int, fix: str = "") -> np.ndarray:
    """Decode a JPEG or PNG file, if its header announces a possible size.

    Args:
        path: The file.
        flags: As `cv2.imdecode` takes them.
        fix: What an error says can be done.

    Returns:
        uint8 [H, W], or [H, W, C] in OpenCV's order of colours.

    Raises:
        AvatarError: The file is missing or damaged, of another format, or says that it is larger than any image.
    """
    import cv2

    with reading(path, "an image", fix), open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    size = announced_size(data)
    if size is None or len(data) > _MOST_BYTES:
        raise AvatarError(f"{path} is damaged: it is not a JPEG or PNG image that can be read.", fix=fix)
    image_size(*size, path)
    with reading(path, "an image", fix):  # OpenCV raises its own class, derived from Exception alone
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise ValueError(f"OpenCV says {error.err}") from None
    if image is None or image.dtype != np.uint8:
        raise AvatarError(f"{path} is damaged: it is not an image that can be read.", fix=fix)
    return image


def read_rgb(path: Path, fix: str = "") -> np.ndarray:
    """Read an image as uint8 RGB [H, W, 3].

    Raises:
        AvatarError: See :func:`read_image`.
    """
    import cv2

    return cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR, fix), cv2.COLOR_BGR2RGB)


def read_grey(path: Path, fix: str = "") -> np.ndarray:
    """Read an image as uint8 grey [H, W].

    Raises:
        AvatarError: See :func:`read_image`.
    """
    import cv2

    return read_image(path, cv2.IMREAD_GRAYSCALE, fix)


def announced_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a JPEG or PNG announces, None where it announces none."""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = 2 if data[:3] == b"\xff\xd8\xff" else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _PLAIN_MARKERS:
            at += 2
        elif marker in _FRAME_MARKERS:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to (width, height): averaged where it shrinks, interpolated where it grows."""
    import cv2

    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def write_jpeg(path: Path, image: np.ndarray, quality: int = JPEG_QUALITY) -> None:
    """Write uint8 RGB [H, W, 3] at a quality of 0 to 100 with colour at full resolution."""
    import cv2

    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    _write(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma])


def write_png(path: Path, image: np.ndarray, compression: int | None = None) -> None:
    """Write uint8 grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4]."""
    import cv2

    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    _write(path, image, [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression])


def _write(path: Path, image: np.ndarray, options: list[int]) -> None:
    import cv2

    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise AvatarError(f"{path} cannot be encoded.")
    path.write_bytes(data.tobytes())  # unlike cv2.imwrite this tells when the disk is full
