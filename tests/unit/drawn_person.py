"""A small drawn person folder: a head and shoulders with known motion before a known background."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avatar.data.background import warp_affine as warp
from avatar.data.masks import EYE_LEFT, EYE_RIGHT
from avatar.data.masks import SIZE as MASK_SIZE
from avatar.data.person import PersonFolder
from avatar.data.results import Intrinsics, ParseResult, RefineResult, TrackResult
from avatar.geometry.mesh import FACE_OVAL
from avatar.io.images import write_png
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER
from avatar.preprocess import parse
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext
from tests.person import ingest_result, write_result

SIZE = 160
HEAD = np.array([80.0, 68.0])
FOCAL, DEPTH = 320.0, 60.0


def texture(seed: int, width: int, height: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Smooth coloured noise, uint8 [height, width, 3]."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 3)
    return (np.array(colour) + 45 * (noise / noise.std())[..., None]).clip(0, 255).astype(np.uint8)


def face(shift: np.ndarray, opening: float = 3.0) -> np.ndarray:
    """Landmarks [478, 3] of an upright face, 44 pixels wide and 60 high."""
    points = np.tile(np.append(HEAD, 0.0), (478, 1)).astype(np.float32)

    def ring(indices: tuple[int, ...], centre: tuple[float, float], axes: tuple[float, float], start: float) -> None:
        angle = start + 2 * np.pi * np.arange(len(indices)) / len(indices)
        points[list(indices), :2] = np.stack([np.cos(angle), np.sin(angle)], -1) * axes + HEAD + centre

    ring(FACE_OVAL, (0, 0), (22, 30), -np.pi / 2)  # from the forehead over the person's left (right here)
    ring(LIPS_OUTER, (0, 15), (10, 4 + opening), np.pi)
    ring(LIPS_INNER, (0, 15), (7, opening), np.pi)
    ring(EYE_LEFT, (9, -6), (4, 2), 0.0)
    ring(EYE_RIGHT, (-9, -6), (4, 2), 0.0)
    points[:, :2] += shift
    return points


def similarity_about(centre: np.ndarray, shift: np.ndarray, roll: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """[2, 3] that turns and scales about ``centre`` and then shifts."""
    c, s = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, centre + shift - linear @ centre])


class Person:
    """Frames of a person whose head, body and background each go their own way.

    Args:
        folder: Where to write.
        head: [T, 2] shift of the head, pixels.
        body: [T, 2, 3] similarity of the body.
        camera: [T, 2, 3] similarity of the background.
        segments: Cuts.
    """

    def __init__(self, folder, head=None, body=None, camera=None, segments=None, frames: int = 12) -> None:
        still = np.tile(np.eye(2, 3), (frames, 1, 1))
        self.folder = Path(folder)
        self.frames = frames
        self.head = np.zeros((frames, 2)) if head is None else head
        self.body = still if body is None else body
        self.camera = still if camera is None else camera
        self.segments = segments or [(0, frames)]
        wide = SIZE + 80
        self.wall = texture(1, wide, wide, (40, 110, 190))
        self.cloth = texture(2, SIZE, SIZE, (90, 60, 60))
        self._write()

    @property
    def context(self) -> StageContext:
        return StageContext(person=PersonFolder(self.folder), video=Path("x.mp4"), config=PrepareConfig())

    def background(self, index: int) -> np.ndarray:
        """What the camera would see without the person."""
        inverse = cv2.invertAffineTransform(self.camera[index])
        inverse[:, 2] += 40
        return warp(self.wall, inverse, (SIZE, SIZE))

    def masks(self, index: int) -> np.ndarray:
        """The true shares of hair, skin, clothes, background [4, SIZE, SIZE]."""
        middle = HEAD + self.head[index]
        y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
        oval = ((x - middle[0]) / 22) ** 2 + ((y - middle[1]) / 30) ** 2 < 1
        cap = (((x - middle[0]) / 27) ** 2 + ((y - middle[1] + 6) / 34) ** 2 < 1) & (y < middle[1]) & ~oval
        shoulders = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillPoly(shoulders, [np.array([[62, 108], [98, 108], [150, 135], [150, 175], [10, 175], [10, 135]])], 255)
        inverse = cv2.invertAffineTransform(self.body[index])
        clothes = (warp(shoulders, inverse, (SIZE, SIZE), outside=0) > 127) & ~oval & ~cap
        neck = (np.abs(x - middle[0]) < 12) & (y > middle[1]) & (y < 115) & ~oval & ~clothes
        return np.stack([cap, oval | neck, clothes, ~(cap | oval | neck | clothes)]).astype(np.float32)

    def picture(self, index: int) -> np.ndarray:
        hair, skin, clothes, _ = self.masks(index) > 0
        picture = self.background(index)
        cloth = warp(self.cloth, cv2.invertAffineTransform(self.body[index]), (SIZE, SIZE))
        picture = np.where(clothes[..., None], cloth, picture)
        picture = np.where(hair[..., None], np.array([30, 25, 20], np.uint8), picture)
        return np.where(skin[..., None], np.array([205, 150, 120], np.uint8), picture)

    def _write(self) -> None:
        from safetensors.numpy import save_file

        for name in ("ingest/frames", "track", "refine"):
            (self.folder / name).mkdir(parents=True)
        for index in range(self.frames):
            picture = self.picture(index)
            path = self.folder / "ingest" / "frames" / f"{index:06d}.jpg"
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98])
        np.save(self.folder / "track" / "landmarks.npy", np.stack([face(shift) for shift in self.head]))
        np.save(self.folder / "track" / "valid.npy", np.ones(self.frames, bool))
        translation = np.tile(np.array([0, 0, DEPTH - 3], np.float32), (self.frames, 1))
        save_file({"head_translation": translation}, str(self.folder / "refine" / "motion.safetensors"))
        camera = Intrinsics(focal=FOCAL, cx=SIZE / 2, cy=SIZE / 2)
        ingest = ingest_result(
            num_frames=self.frames, width=SIZE, height=SIZE, crop=(0, 0, SIZE, SIZE), has_audio=False
        )
        for result in (ingest, TrackResult(segments=self.segments), RefineResult(camera=camera)):
            write_result(self.folder, result)

    def enlarge(self, frames: range, zoom: np.ndarray) -> None:
        """Enlarge the pictures, landmarks and masks of some frames by a similarity [2, 3], as an editor does it."""
        landmarks = np.load(self.folder / "track" / "landmarks.npy")
        small = zoom * [1, 1, MASK_SIZE / SIZE]
        for index in frames:
            path = self.folder / "ingest" / "frames" / f"{index:06d}.jpg"
            picture = warp(cv2.imread(str(path)), cv2.invertAffineTransform(zoom), (SIZE, SIZE))
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
            landmarks[index, :, :2] = landmarks[index, :, :2] @ zoom[:, :2].T + zoom[:, 2]
            mask = self.folder / "parse" / "masks" / f"{index:06d}.png"
            if mask.exists():
                image = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
                inverse = cv2.invertAffineTransform(small)
                write_png(mask, cv2.cvtColor(warp(image, inverse, (MASK_SIZE, MASK_SIZE)), cv2.COLOR_BGRA2RGBA))
        np.save(self.folder / "track" / "landmarks.npy", landmarks)

    def blacken(self, frames: range) -> None:
        """Replace some frames by a black screen, in which no face is found and all is background."""
        valid = np.load(self.folder / "track" / "valid.npy")
        valid[frames] = False
        np.save(self.folder / "track" / "valid.npy", valid)
        for index in frames:
            path = self.folder / "ingest" / "frames" / f"{index:06d}.jpg"
            cv2.imwrite(str(path), np.zeros((SIZE, SIZE, 3), np.uint8))
            mask = self.folder / "parse" / "masks" / f"{index:06d}.png"
            if mask.exists():
                write_png(mask, np.full((MASK_SIZE, MASK_SIZE, 4), (0, 0, 0, 255), np.uint8))

    def write_masks(self, stride: int = 1) -> None:
        """The parse stage, with the true masks."""
        (self.folder / "parse" / "masks").mkdir(parents=True)
        keyframes = parse.choose_keyframes(self.segments, stride)
        for index in keyframes:
            shares = np.stack([cv2.resize(m, (MASK_SIZE, MASK_SIZE)) for m in self.masks(index)])
            parse.save_mask(self.folder / "parse" / "masks" / f"{index:06d}.png", shares)
        write_result(self.folder, ParseResult(stride=stride, keyframes=keyframes, method="drawn"))


__all__ = ["DEPTH", "FOCAL", "HEAD", "SIZE", "Person", "face", "similarity_about", "texture", "write_png"]
