"""The frame that a model starts from: its pixels, what they show, and Gaussians made of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from avatar.data import PersonDataset
from avatar.fields.gaussians import REGIONS, Seeds
from avatar.fields.skinning import Skinning
from avatar.motion.face_channels import mouth_opening
from avatar.preprocess.head_depth import inside_face, shown

HEAD, NECK, CLOTHES = 0, 1, 2  # what a pixel shows; the head with its hair
REGION_OF = ("hair", "neck", "torso")  # of each; the face mesh has a region of its own
_SURE = 0.97  # share of a part from which a pixel shows nothing else
_EDGE = 0.012  # of the image's width: how far inside the outline colours are the person's alone
_CHIN = 152  # vertex of the face mesh
SPREAD = 0.7  # standard deviation of a Gaussian on a surface that is seen, of the distance to the next
_FLAT = 0.3  # thickness of a Gaussian on a surface, of its width


def reference_frame(data: PersonDataset) -> int:
    """The training frame that best shows the person: near the median pose, eyes open, mouth nearly closed."""
    frames = data.train_frames
    motion = data.motion[frames]
    rotation = motion.head_rotation - motion.head_rotation.median(0).values
    translation = motion.head_translation - motion.head_translation.median(0).values
    opening = torch.from_numpy(mouth_opening(np.asarray(data.landmarks[frames])))
    opening = opening / opening.quantile(0.95).clamp_min(1e-3)
    blink = motion.arkit[:, [0, 7]].mean(-1)
    still = torch.cat([torch.zeros(1), (motion.head_rotation[1:] - motion.head_rotation[:-1]).norm(dim=-1)])
    cost = rotation.norm(dim=-1) * 10 + translation.norm(dim=-1) / 3 + opening.abs() + 3 * blink + 20 * still
    return int(frames[cost.argmin()])


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference frame of a person. Canonical space is its world, so the filming camera is the origin.

    Attributes:
        data: The person.
        skinning: Of the model.
        frame: Its number.
        image: [H, W, 3] float32 RGB 0..1.
        masks: As from `PersonDataset.masks`.
    """

    data: PersonDataset
    skinning: Skinning
    frame: int
    image: np.ndarray
    masks: dict[str, np.ndarray]

    @staticmethod
    def of(data: PersonDataset, skinning: Skinning, frame: int) -> Reference:
        """Read it."""
        return Reference(data, skinning, frame, data.image(frame).astype(np.float32) / 255, data.masks(frame))

    @functools.cached_property
    def kinds(self) -> np.ndarray:
        """[H, W] what each pixel of the person shows: `HEAD`, `NECK` or `CLOTHES`."""
        return shown(self.masks)

    @functools.cached_property
    def on_face(self) -> np.ndarray:
        """[H, W] whether a pixel lies within the outline of the face mesh."""
        return inside_face(self.data, self.frame)

    def below_chin(self, points: np.ndarray) -> np.ndarray:
        """Centimetres [N] by which canonical points [N, 3] are below the chin, along the head's axis."""
        height = self.skinning.to_head(torch.from_numpy(points).float())[:, 1].numpy()
        return height - float(self.data.shape[_CHIN, 1])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Pixels [N, 2] that show canonical points [N, 3]."""
        camera = self.data.camera
        return points[:, :2] / points[:, 2:] * camera.focal + (camera.cx, camera.cy)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Canonical directions [N, 3], 1 along the camera's axis, through pixels [N, 2] (centres at +0.5)."""
        camera = self.data.camera
        return np.concatenate([(pixels - [camera.cx, camera.cy]) / camera.focal, np.ones((len(pixels), 1))], -1)

    def beyond_inner_edge(self, points: np.ndarray) -> np.ndarray:
        """Whether canonical points [N, 3] lie beyond an edge inside of what rendering shows: bool [N]; nobody is."""
        left, top, right, bottom = self.data.info.inner_edges
        x, y = self.pixels(points).T
        height, width = self.image.shape[:2]
        return (left & (x < 0)) | (top & (y < 0)) | (right & (x >= width)) | (bottom & (y >= height))

    def shown(self, values: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [N] of an image [H, W] where it shows canonical points [N, 3], and whether they lie within it."""
        column, row = np.floor(self.pixels(points)).astype(int).T
        height, width = values.shape
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return values[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)], within

    def sample(self, pixels: np.ndarray) -> np.ndarray:
        """Bilinear colours [N, 3] at pixels [N, 2]."""
        if not len(pixels):  # which OpenCV refuses
            return np.zeros((0, 3), np.float32)
        at = (pixels - 0.5).astype(np.float32)
        found = cv2.remap(self.image, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found[0]

    def colors(self, pixels: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Colours [N, 3] at pixels, or of the nearest that surely shows the same kind [N]: outlines are mixed."""
        colors = self.sample(pixels)
        masks = self.masks
        column, row = np.clip(pixels.astype(int), 0, np.array(self.image.shape[1::-1]) - 1).T
        inner = np.asarray(distance_transform_edt(masks["background"] < 0.5)) > _EDGE * self.image.shape[1]
        for part, mask in enumerate((masks["hair"] + masks["face"], masks["neck"], masks["clothes"])):
            sure = (mask > _SURE) & inner
            chosen = (kind == part) & ~sure[row, column]
            if sure.any() and chosen.any():
                y, x = nearest_true(sure)[:, row[chosen], column[chosen]]
                colors[chosen] = self.image[y, x]
        return colors


def nearest_true(mask: np.ndarray) -> np.ndarray:
    """Row and column [2, H, W] of the nearest pixel that is true."""
    return np.asarray(distance_transform_edt(~mask, return_distances=False, return_indices=True))


def make_seeds(
    *, means: Tensor, sigma: np.ndarray, colors: np.ndarray, opacity: float, skinning_weight: np.ndarray, region: str,
    bind_index: np.ndarray | None = None, bind_weight: np.ndarray | None = None, normals: np.ndarray | None = None,
) -> Seeds:  # fmt: skip
    """Round Gaussians, or flat ones along a surface of the given normals; without a binding no landmark moves them."""
    n = means.shape[0]
    scales = torch.from_numpy(np.repeat(sigma[:, None], 3, 1)).float().clamp_min(0.01)
    normal = torch.zeros(n, 3) if normals is None else torch.from_numpy(normals).float()
    if normals is not None:
        scales[:, 2] *= _FLAT
    bind_index = np.zeros((n, 3), np.int64) if bind_index is None else bind_index
    bind_weight = np.zeros((n, 3), np.float32) if bind_weight is None else bind_weight
    return Seeds(
        means=means,
        scales=scales,
        quats=_towards(normal),
        colors=torch.from_numpy(np.ascontiguousarray(colors)).float(),
        opacities=torch.full((n,), opacity),
        skinning_weight=torch.from_numpy(skinning_weight).float(),
        bind_index=torch.from_numpy(np.ascontiguousarray(bind_index)).long(),
        bind_weight=torch.from_numpy(np.ascontiguousarray(bind_weight)).float(),
        region=torch.full((n,), REGIONS.index(region), dtype=torch.uint8),
        normal=normal,
    )


def no_seeds() -> Seeds:
    """None at all."""
    zeros = np.zeros
    return make_seeds(
        means=torch.zeros(0, 3), sigma=zeros(0), colors=zeros((0, 3)), opacity=0.5, skinning_weight=zeros(0),
        region="hair",
    )  # fmt: skip


def _towards(normal: Tensor) -> Tensor:
    """Quaternions [N, 4] that turn the z axis to unit vectors [N, 3]; none for zero vectors."""
    x, y, z = normal.unbind(-1)
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], -1)
    about_x = torch.tensor([0.0, 1, 0, 0]).expand_as(quats)
    quats = torch.where((z < -0.9999)[:, None], about_x, quats)
    return quats / quats.norm(dim=-1, keepdim=True)
