"""What a photo is, and whose face in it is learned; each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar.errors import AvatarError
from avatar.io.images import PHOTO_MARKS, announced_size, read_rgb
from avatar.io.media import Treatment
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.upright import SEARCHED, head_rotation, roll

if TYPE_CHECKING:
    from avatar.preprocess.landmarker import Face

Shown = Callable[[np.ndarray], np.ndarray]  # of a point [2], where it is in the photo as it lies
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png")
OTHERS = (".heic", ".heif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".jxl")  # of photos that are not read
LEAST_FACE = 128  # pixels from forehead to chin
MOST_TURNED = 25.0  # degrees: beyond, one half of the face is not there
MOST_NODDED = 25.0
MOST_TILTED = 30.0
COUNTS = 0.35  # of the largest face's height: smaller ones are bystanders
FAR = 0.5  # face heights from a given point to the box of the face that it means: others may stand beside it
_HEADER = 1 << 24  # bytes before which the size stands, whatever a camera puts before it
_CONVERT = "Convert it to JPEG or PNG."


def is_photo(path: Path) -> bool:
    """Tell whether a source is a photo rather than a video, by its name or its first bytes."""
    path = Path(path)
    if path.is_dir():
        return False
    if path.suffix.lower() in (*SUFFIXES, *OTHERS):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(8).startswith(PHOTO_MARKS)
    except (OSError, ValueError):
        return False


def check_photo(path: Path, config: PrepareConfig) -> tuple[int, int]:
    """Refuse all that can be refused without decoding the photo.

    Returns:
        Width and height that its header announces, pixels.

    Raises:
        AvatarError: It is of another format or has no size, or an option is for videos alone.
    """
    if path.suffix.lower() in OTHERS:
        raise AvatarError(f"{path} is of a kind of image that is not read.", fix=_CONVERT)
    for name, value in (("audio-track", config.audio_track), ("video-track", config.video_track)):
        if value is not None:
            raise AvatarError(f"--{name} chooses a track of a video;", why=f"{path} is a photo.", fix="Leave it out.")
    if config.frame != "head":
        raise AvatarError(f"--frame {config.frame} needs a video;", why=f"{path} is a photo.", fix="Leave it out.")
    with open(path, "rb") as file:
        size = announced_size(file.read(_HEADER))
    if size is None:
        raise AvatarError(f"{path} is damaged, or no JPEG or PNG image.", fix=_CONVERT)
    return size


def read_photo(path: Path) -> tuple[np.ndarray, list[Treatment]]:
    """Read a photo as sRGB.

    Returns:
        uint8 RGB [H, W, 3], upright, and what was done to its colours and to what is transparent.

    Raises:
        AvatarError: It is damaged or larger than any photo.
    """
    from avatar.io.color_profile import read_profile, to_srgb

    image = read_rgb(path, _CONVERT)  # refuses a size that cannot be before anything else looks at it
    told: list[Treatment] = []
    if (profile := read_profile(path)) is not None:
        image, name = to_srgb(image, profile, path)
        told += [] if name is None else [Treatment("profile", f"Colours were converted from {name} to sRGB.")]
    if (alpha := read_alpha(path)) is not None and alpha.shape == image.shape[:2] and int(alpha.min()) < 255:
        share = alpha[..., None] / np.float32(255)
        image = np.rint(share * image + 255 * (1 - share)).astype(np.uint8)
        told.append(Treatment("alpha", "What is transparent in the photo was made white."))
    return image, told


def read_alpha(path: Path) -> np.ndarray | None:
    """Read how opaque a PNG file is, uint8 [H, W], upright; None of others.

    Under what is transparent, files often still hold what somebody took out of the photo.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG",)) as found:
            if found.mode not in ("RGBA", "LA", "PA") and "transparency" not in found.info:
                return None
            return np.asarray(ImageOps.exif_transpose(found).convert("RGBA").getchannel("A"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def find_faces(image: np.ndarray, pointed: bool = False) -> list[Face]:
    """Find the faces in a photo: largest first, in its pixels.

    The detector overlooks some faces of a group, so those are looked for in parts of the photo as well. Where there is
    one person, that could only add false faces.

    Args:
        image: uint8 RGB [H, W, 3].
        pointed: Whether the user points at one of them.
    """
    from avatar.io.images import resize
    from avatar.preprocess.faces import distinct, find_in_tiles, moved_face
    from avatar.preprocess.landmarker import Landmarker

    height, width = image.shape[:2]
    scale = min(1.0, SEARCHED / max(height, width))
    small = image if scale == 1 else resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    with Landmarker(num_faces=4) as landmarker:
        found = distinct(landmarker.detect(small))
        if pointed or len(found) != 1:
            found = find_in_tiles(landmarker, small, found)
    return [moved_face(face, 0, 0, scale) for face in found]


def choose_face(path: Path, faces: Sequence[Face], config: PrepareConfig, shown: Shown | None = None) -> Face:
    """Choose the face to learn, and refuse one that no avatar can be made of.

    Args:
        path: The photo, for the errors.
        faces: The faces in it, largest first.
        config: ``face`` chooses for the user.
        shown: Where a point of the image is in the photo as the user sees it, which was turned.

    Raises:
        AvatarError: There is no face, or several could be meant, or it is too small, or turned or tilted too far.
    """
    face = meant_face(path, faces, config, shown)
    if face.height < LEAST_FACE:
        raise AvatarError(
            f"The face in {path} is only {face.height:.0f} pixels high;",
            why=f"at least {LEAST_FACE} are needed, and 300 make a good avatar.", fix="Give a larger or closer photo.",
        )  # fmt: skip
    turned, nodded = direction(face)
    if abs(turned) > MOST_TURNED or abs(nodded) > MOST_NODDED:
        way = (
            f"{abs(turned):.0f} degrees to the side" if abs(turned) > MOST_TURNED else f"{abs(nodded):.0f} degrees "
            f"{'up' if nodded > 0 else 'down'}"
        )  # fmt: skip
        raise AvatarError(
            f"The face in {path} is turned by {way};", why=f"up to {MOST_TURNED:.0f} can be used.",
            fix="Give a photo from the front.",
        )  # fmt: skip
    if abs(tilt := roll(face)) > MOST_TILTED:
        raise AvatarError(
            f"The head in {path} is tilted by {abs(tilt):.0f} degrees;", why=f"up to {MOST_TILTED:.0f} can be used.",
            fix="Turn the photo so that the head is upright.",
        )  # fmt: skip
    return face


def meant_face(path: Path, faces: Sequence[Face], config: PrepareConfig, shown: Shown | None = None) -> Face:
    """Choose the face that is meant, whatever can be made of it.

    Args:
        path: The photo, for the errors.
        faces: The faces in it, largest first.
        config: ``face`` chooses for the user.
        shown: See :func:`choose_face`.

    Raises:
        AvatarError: There is no face, or several could be meant.
    """
    if not faces:
        raise AvatarError(f"No face was found in {path}.", fix="Give a photo that shows one face well, from the front.")
    wanted = config.wanted_face
    in_order = sorted(faces, key=lambda face: tuple(face.centre))
    places = [face.centre if shown is None else shown(face.centre) for face in in_order]
    listed = ", ".join(
        "one at {:.0f},{:.0f} ({:.0f} pixels high)".format(*place, face.height)
        for place, face in zip(places, in_order, strict=True)
    )
    listed = f"From the left{'' if shown is None else ', once the photo is upright'}: {listed}."
    if wanted is None:
        meant = [face for face in faces if face.height >= COUNTS * faces[0].height]
        if len(meant) > 1:
            raise AvatarError(
                f"There are {len(meant)} faces in {path}.", why=listed,
                fix="Say whose avatar this is with --face, a point X,Y in it or its number.",
            )  # fmt: skip
        return faces[0]
    if isinstance(wanted, int):
        if wanted > len(in_order):
            raise AvatarError(f"There is no face {wanted} in {path}.", why=listed)
        return in_order[wanted - 1]
    # Boxes overlap where people stand close: of two that hold the point, it is the face whose middle is nearer.
    nearest = min(in_order, key=lambda face: (_outside(face, wanted), float(np.linalg.norm(face.centre - wanted))))
    if _outside(nearest, wanted) > FAR * nearest.height:
        place = wanted if shown is None else shown(np.array(wanted, float)).round().astype(int)
        raise AvatarError(f"There is no face near {place[0]},{place[1]} in {path}.", why=listed)
    return nearest


def _outside(face: Face, point: tuple[int, int]) -> float:
    """Pixels from a point to the box of a face; 0 inside."""
    return float(np.linalg.norm(np.maximum(np.maximum(face.box[:2] - point, point - face.box[2:]), 0)))


def direction(face: Face) -> tuple[float, float]:
    """Degrees by which a face is turned to the image's right and up, from the depth of its landmarks."""
    x, y, z = head_rotation(face) @ [0.0, 0.0, -1.0]  # where the face looks; y points down
    return float(np.degrees(np.arctan2(x, -z))), float(np.degrees(np.arctan2(-y, np.hypot(x, z))))
