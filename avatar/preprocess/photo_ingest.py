"""Stage `ingest` of a photo: find the face, cut out the square around the head, store it as the only frame."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avatar.data.results import IngestResult
from avatar.errors import AvatarError
from avatar.io.images import resize, write_jpeg
from avatar.io.media import Treatment
from avatar.paths import file_sha256
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.ingest import Crop, crop_treatments, fits, frame_head, working_size
from avatar.preprocess.photo import choose_face, find_faces, meant_face, read_photo
from avatar.preprocess.stage import StageContext
from avatar.preprocess.upright import moved_point, quarter_turns, turned

NAME = "ingest"
INPUTS: tuple[str, ...] = ()
VERSION = 3
FPS = 25.0  # of what is rendered
QUALITY = 98


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on."""
    config = ctx.config
    return {"photo": file_sha256(ctx.video), "size": config.size, "face": config.face, "crop": config.crop}


_TURNS = {1: "90 degrees to the left", 2: "180 degrees", 3: "90 degrees to the right"}


def run(ctx: StageContext, out: Path) -> IngestResult:
    """Write frames/000000.jpg.

    Raises:
        AvatarError: The photo is damaged or too large, or no avatar can be made of it; see
            :func:`avatar.preprocess.photo.choose_face`.
    """
    config = ctx.config
    image, colours = read_photo(ctx.video)
    _check_crop(config, image)
    faces = find_faces(image, isinstance(config.wanted_face, tuple))
    seen = meant_face(ctx.video, faces, config) if faces else None
    shown = None
    if turns := quarter_turns(image, seen):
        image, config = turned(image, turns, config, seen)
        shown = partial(moved_point, width=image.shape[1], height=image.shape[0], turns=-turns)
        faces = find_faces(image, isinstance(config.wanted_face, tuple))
        colours.append(Treatment("turned", f"The photo was turned by {_TURNS[turns]}, so that the head is upright."))
    face, (height, width) = choose_face(ctx.video, faces, config, shown), image.shape[:2]
    if (square := config.square) is not None:
        fits(face.box[None], face.height, config)
        head = Crop(*square)
    else:
        head = frame_head(width, height, face.box[None], face.height)
    size, crop = working_size(head, config.size)
    part = np.ascontiguousarray(image[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side])
    (out / "frames").mkdir()
    write_jpeg(out / "frames" / "000000.jpg", part if crop.side == size else resize(part, (size, size)), QUALITY)
    x, y = face.centre
    told = [Treatment("photo", "The avatar was made from one photo."), *colours, *crop_treatments(crop, size, config)]
    return IngestResult(
        source=str(ctx.video.resolve()), source_size=(width, height), fps=FPS, num_frames=1, has_audio=False,
        crop=(crop.x, crop.y, crop.side, crop.side), width=size, height=size, head=(crop.x, crop.y, crop.side),
        face_height=round(face.height, 1), face=(round(x), round(y), round(face.height)), recording=told,
        photo=file_sha256(ctx.video),
    )  # fmt: skip


def _check_crop(config: PrepareConfig, image: np.ndarray) -> None:
    """Refuse a square that is not within the photo."""
    height, width = image.shape[:2]
    square = config.square
    if square is not None and (square.x + square.side > width or square.y + square.side > height):
        raise AvatarError(
            f"--crop {config.crop} reaches out of the photo;", why=f"it is {width}x{height} pixels.",
            fix="Give the left and upper edge of a square inside it, and its side.",
        )  # fmt: skip
