"""Export a PERSON folder as a dataset of ER-NeRF and TalkingGaussian, for the papers' own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from avatar import log
from avatar.data import ernerf
from avatar.data.dataset import PersonDataset
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.io.images import write_jpeg, write_png
from avatar.writing import atomic_dir, contents, one_writer

if TYPE_CHECKING:
    from torch import Tensor

    from avatar.geometry.cameras import Camera

# Colours of the classes in parsing/*.png, RGB (TalkingGaussian's; ER-NeRF's training does not read them).
HEAD, HAIR, MOUTH, NECK, TORSO, BACKGROUND = (
    (0, 0, 255), (0, 0, 0), (100, 100, 100), (0, 255, 0), (255, 0, 0), (255, 255, 255),
)  # fmt: skip
NECK_REACH, CLOTHES_REACH = 0.12, 0.03  # in face heights: how far they are continued behind the head
SURE = 0.9  # share from which a pixel shows neck or clothes alone
LEAST_PART = 0.002  # of the face height squared: smaller parts of a class are specks of the segmenter
SOFT_EDGE = 0.03  # in face heights: how far around neck and clothes their soft edge reaches

README = """\
A dataset in the layout of ER-NeRF and TalkingGaussian, written by `avatar export`.

Images, audio and head poses are measured. Three things are stand-ins for what other programs make:

- au.csv        the columns of OpenFace, estimated from ARKit coefficients (AU25 from the gap of the lips), not
                measured by OpenFace.
- ori_imgs/*.lms  the 68 points of the iBUG annotation, taken from a face mesh, not from face-alignment.
- teeth_mask/   empty: parsing/ already shows the whole inside of the mouth in grey, teeth included. TalkingGaussian's
                own script is data_utils/easyportrait/create_teeth_mask.py DATASET (it needs mmcv and a GPU). Its
                loader flips the face class of parsing/ under that mask, so run it only with the paper's own parsing.

The audio features that the papers train on are not here. Make the one you want with the paper's own script:

  python data_utils/deepspeech_features/extract_ds_features.py --input DATASET/aud.wav   (rename aud.npy to aud_ds.npy)
  python data_utils/hubert.py --wav DATASET/aud.wav                                      (makes aud_hu.npy)
  python data_utils/wav2vec.py --wav DATASET/aud.wav --save_feats                        (ER-NeRF; makes aud_eo.npy)

track_params.pt, which GaussianTalker asks for, is not written: it is a pickle of another face model's parameters.
"""


@dataclass(frozen=True, kw_only=True)
class ErNerfDataset:
    """A PERSON folder as a dataset of ER-NeRF and TalkingGaussian."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = None

    overwrite: bool = False
    """Replace a dataset that this command wrote."""

    def needs(self) -> Set[Need]:
        """A prepared video."""
        return {"person"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the dataset; it appears only when it is whole.

        Raises:
            AvatarError: The target is not free.
        """
        assert source.person is not None
        with one_writer(path, inside=False):
            check_target(path, self.overwrite)
            warn_of_losses(source.person)
            with atomic_dir(path) as folder:
                write_dataset(source.person, folder)
            frames = source.person.num_frames
            log.info(f"{path}: {frames} frames. Its README.txt says which audio features to add.")


def warn_of_losses(data: PersonDataset) -> None:
    """Warn of what the layout cannot hold."""
    if data.fps != ernerf.FPS:
        log.warn(
            f"{data.folder} has {data.fps:g} frames per second, and the papers' code takes every dataset for 25. "
            "Convert the video to 25 frames per second and prepare that, to train with it."
        )
    if not data.info.has_audio:
        log.warn(f"{data.folder} has no audio, so the dataset has no {ernerf.AUDIO}.")
    if data.camera_moves:
        log.warn("The camera moves, but the layout has one background for all frames: that of the camera at rest.")


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse to write over anything but what this command wrote, and over that without permission."""
    if out.is_file():
        raise AvatarError(f"--out {out} is a file.", fix="Name a folder.")
    if not contents(out):
        return
    readme = out / "README.txt"
    if not readme.is_file() or not readme.read_text(errors="replace").startswith(README.splitlines()[0]):
        raise AvatarError(f"{out} holds files that `avatar export` did not write.", fix="Choose another --out.")
    if not overwrite:
        raise AvatarError(
            f"{out} already holds a dataset.",
            why="Nothing was changed.",
            fix="Pass --overwrite, or choose another --out.",
        )


def write_dataset(data: PersonDataset, folder: Path) -> None:
    """Fill ``folder`` with the whole layout (docs/datasets.md)."""
    for name in (ernerf.IMAGES, "gt_imgs", "torso_imgs", "parsing", "teeth_mask"):
        (folder / name).mkdir()
    write_transforms(data, folder)
    write_action_units(data, folder / "au.csv")
    write_jpeg(folder / "bc.jpg", data.background_image)
    (folder / "README.txt").write_text(README)
    if data.info.has_audio:
        write_audio(data, folder / ernerf.AUDIO)
    for index in log.track(range(data.num_frames), "writing frames"):
        write_frame(data, index, folder)


def write_transforms(data: PersonDataset, folder: Path) -> None:
    """Write head poses and camera. Training frames are the measured ones, held-out frames all.

    TalkingGaussian takes the principal point for the middle of the image, so it is put there.
    """
    from avatar.geometry.cameras import head_to_nerf
    from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle

    camera, turn = data.camera.centred()
    rotation = matrix_to_axis_angle(turn @ axis_angle_to_matrix(data.motion.head_rotation.double()))
    poses = head_to_nerf(rotation, data.motion.head_translation.double() @ turn.T).tolist()
    if (moved := centring_error(data, camera, turn)) > 1:
        log.warn(
            f"The frame was cut out beside the middle of the video, which the layout cannot say: by its camera the "
            f"face is drawn up to {moved:.1f} pixels from its place."
        )
    for name, frames in ((ernerf.TRAIN, data.train_frames), (ernerf.VAL, data.test_frames)):
        transforms = {
            "focal_len": camera.focal, "cx": camera.cx, "cy": camera.cy, "w": data.width, "h": data.height,
            "fps": data.fps,
            "frames": [{"img_id": int(i), "aud_id": int(i), "transform_matrix": poses[i]} for i in frames],
        }  # fmt: skip
        (folder / name).write_text(json.dumps(transforms, indent=1) + "\n")


def centring_error(data: PersonDataset, camera: Camera, turn: Float[Tensor, "3 3"]) -> float:
    """Largest distance in pixels by which a landmark moves when ``camera`` stands in for the person's own."""
    import torch

    pixels = torch.tensor(data.landmarks[:, :, :2], dtype=torch.float64).reshape(-1, 2)
    rays = torch.nn.functional.pad(pixels, (0, 1), value=1.0) @ torch.linalg.inv(data.camera.K.double()).T @ turn.T
    return float((camera.project(rays) - pixels).norm(dim=-1).max())


def write_action_units(data: PersonDataset, path: Path) -> None:
    """Write a table with OpenFace's columns, spaces after the commas included, one row per frame."""
    from avatar.motion.face_channels import relative_opening
    from avatar.motion.facs import action_units

    units = action_units(data.motion.arkit.numpy(), relative_opening(data.landmarks))
    valid = data.motion.valid.numpy().astype(int)
    lines = [", ".join(["frame", "face_id", "timestamp", "confidence", "success", *(f"{name}_r" for name in units)])]
    for i in range(data.num_frames):
        row = [f"{values[i]:.2f}" for values in units.values()]
        lines.append(", ".join([str(i + 1), "0", f"{i / data.fps:.3f}", f"{valid[i]:.2f}", str(valid[i]), *row]))
    path.write_text("\n".join(lines) + "\n")


def write_audio(data: PersonDataset, path: Path) -> None:
    """Write the audio as long as the video, with its measured delay taken out."""
    from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav

    samples = load_audio(data.audio_path, start=data.info.audio_delay_s)
    length = round(data.num_frames / data.fps * SAMPLE_RATE)
    write_wav(path, np.pad(samples[:length], (0, max(0, length - len(samples)))))


def write_frame(data: PersonDataset, index: int, folder: Path) -> None:
    """Write everything that there is once per frame."""
    from avatar.geometry.mesh import IBUG_68

    image, masks, points = data.image(index), data.masks(index), data.landmarks[index, :, :2]
    behind = masks["background"][..., None]
    composed = np.rint(image * (1 - behind) + data.background_image * behind).astype(np.uint8)
    face_height = float(np.linalg.norm(points[152] - points[10]))
    shutil.copyfile(data.image_path(index), folder / ernerf.IMAGES / f"{index}.jpg")
    np.savetxt(folder / ernerf.IMAGES / f"{index}.lms", points[list(IBUG_68)], "%f")
    write_jpeg(folder / "gt_imgs" / f"{index}.jpg", composed)
    write_png(folder / "parsing" / f"{index}.png", class_image(masks, face_height))
    write_png(folder / "torso_imgs" / f"{index}.png", cut_torso(composed, masks, face_height))
    # A sparse file of zeros.
    np.lib.format.open_memmap(folder / "teeth_mask" / f"{index}.npy", "w+", bool, image.shape[:2])


def class_image(masks: dict[str, np.ndarray], face_height: float) -> UInt8[np.ndarray, "H W 3"]:
    """Paint the most likely class of each pixel, uint8 RGB [H, W, 3]; specks take the next likely one.

    Args:
        masks: Soft masks of the frame.
        face_height: Pixels.
    """
    colours = {"face": HEAD, "hair": HAIR, "neck": NECK, "clothes": TORSO, "background": BACKGROUND}
    shares = np.stack([masks[name] for name in colours])
    best = np.argmax(shares, axis=0)
    for index, name in enumerate(colours):
        if name != "background":  # gaps between hair and shoulders are small and true
            shares[index][(best == index) & ~large_parts(best == index, face_height)] = -1
            best = np.argmax(shares, axis=0)
    painted = np.array(list(colours.values()), np.uint8)[best]
    painted[masks["mouth"] > 0.5] = MOUTH
    return painted


def cut_torso(image: np.ndarray, masks: dict[str, np.ndarray], face_height: float) -> np.ndarray:
    """Neck and clothes without the head, continued behind it, so that no gap opens when another head is put there.

    Args:
        image: uint8 RGB [H, W, 3].
        masks: Soft masks of the frame.
        face_height: Pixels; the nearest colour of neck or clothes is continued by a share of it.

    Returns:
        uint8 RGBA [H, W, 4], not premultiplied.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    body, head = masks["neck"] + masks["clothes"], masks["hair"] + masks["face"]
    body, head = without_specks(body, head, face_height)
    sure = body > SURE
    if not sure.any():
        return np.zeros((*body.shape, 4), np.uint8)
    distance, nearest = distance_transform_edt(~sure, return_indices=True)  # type: ignore[misc]
    nearest = tuple(nearest)
    is_neck = (masks["neck"] > masks["clothes"])[nearest]
    hidden = head * (distance <= np.where(is_neck, NECK_REACH, CLOTHES_REACH) * face_height)  # by the head
    filled = cv2.GaussianBlur(image[nearest], (0, 0), max(NECK_REACH * face_height / 8, 0.5))
    alpha = np.clip(body + hidden, 0, 1)
    alpha[(alpha > 0.5) & ~large_parts(alpha > 0.5, face_height)] = 0  # what the head's edge left of them
    share = (hidden / np.maximum(alpha, 1e-6))[..., None]
    rgba = np.concatenate([image * (1 - share) + filled * share, alpha[..., None] * 255], -1)
    return np.rint(rgba * (alpha[..., None] > 0)).astype(np.uint8)


def without_specks(body: np.ndarray, head: np.ndarray, face_height: float) -> tuple[np.ndarray, np.ndarray]:
    """Take loose specks out of the body: each would be continued behind the head as a disc.

    Args:
        body: [H, W] share of neck and clothes.
        head: [H, W] share of hair and face.
        face_height: Pixels.

    Returns:
        The body without specks, and the head with those that lie in it.
    """
    import cv2

    def disc(radius: float) -> np.ndarray:
        side = 2 * max(1, round(radius)) + 1
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))

    kept = large_parts(body > 0.5, face_height, counted=body > SURE)
    edge = disc(SOFT_EDGE * face_height)
    stray = np.where(cv2.dilate(kept.astype(np.uint8), edge) > 0, 0, body)
    within = cv2.morphologyEx((head > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, edge) > 0
    return body - stray, head + stray * within


def large_parts(mask: np.ndarray, face_height: float, counted: np.ndarray | None = None) -> np.ndarray:
    """Keep the connected parts of a mask that are no specks.

    Args:
        mask: bool [H, W].
        face_height: Pixels.
        counted: bool [H, W], the pixels by which a part is measured; all by default.
    """
    import cv2

    count, found = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    labels = found.astype(np.int32)
    sizes = np.bincount(labels[mask if counted is None else mask & counted], minlength=count)
    return mask & (sizes >= LEAST_PART * face_height**2)[labels]
