"""Pinhole cameras, and the only place where sign conventions change.

Inside the toolkit: OpenCV axes (x right, y down, z forward), world-to-camera matrices, pixel centres at +0.5.
The world frame is the frame of the camera that filmed the person, in centimetres of MediaPipe's canonical face
(a face 15.5 cm wide), so the filming camera has the identity view matrix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Num
from torch import Tensor

from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle

# Head axes are x to the person's left, y down, z into the head, so that a frontal head has the identity rotation in
# the filming camera. MediaPipe's canonical face has y up and z out of the face: multiply its vertices by this.
MEDIAPIPE_TO_HEAD = torch.tensor([1.0, -1.0, -1.0])
# The origin of AD-NeRF's head frame, the mean vertex of the front of the Basel face, in head axes and centimetres: the
# mean offset of its eyes, nose and mouth from the canonical face's. And its unit, in centimetres.
NERF_ORIGIN = torch.tensor([0.0, 0.5, -2.1])
NERF_UNIT = 100.0
EPS2D = 0.3  # square pixels, as gsplat has it


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera.

    Attributes:
        focal: Focal length in pixels, the same for x and y.
        cx, cy: Principal point in pixels.
        width, height: Image size in pixels.
        viewmat: World to camera, [4, 4] float32.
        enlarged: Pixels of it, without zoom, per pixel of the images that an avatar was trained on, across.
        zoom, shift: A pixel [x, y] of the image without zoom lies at ``zoom * pixel + shift``. A background does too.
    """

    focal: float
    cx: float
    cy: float
    width: int
    height: int
    viewmat: Float[Tensor, "4 4"]
    enlarged: float = 1.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @staticmethod
    def source(focal: float, cx: float, cy: float, width: int, height: int) -> Camera:
        """The camera that filmed the person."""
        return Camera(focal=focal, cx=cx, cy=cy, width=width, height=height, viewmat=torch.eye(4))

    @functools.cached_property
    def K(self) -> Float[Tensor, "3 3"]:
        """Intrinsics [3, 3], on the device of ``viewmat``."""
        with torch.inference_mode(False):  # it is kept, and may be used in training after playback
            K = torch.tensor([[self.focal, 0, self.cx], [0, self.focal, self.cy], [0, 0, 1.0]])
            return K.to(self.viewmat.device, non_blocking=True)

    @property
    def eps2d(self) -> float:
        """What is added to the diagonal of a projected Gaussian's 2D covariance, square pixels.

        It is that of the training images, as large as there: the same small value in an enlarged image would leave
        gaps between Gaussians that were trained to touch (Yu et al. 2024, Mip-Splatting).
        """
        return EPS2D * max(1.0, self.enlarged) ** 2

    @property
    def position(self) -> Float[Tensor, " 3"]:
        """Where it is in the world, [3] centimetres."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]

    def to(self, device: torch.device) -> Camera:
        """The same camera with its matrices on a device."""
        return self if self.viewmat.device == device else replace(self, viewmat=self.viewmat.to(device))

    def resized(self, width: int, height: int) -> Camera:
        """The same view at another size; the width sets the scale."""
        s, down = width / self.width, height / self.height
        return replace(self, focal=self.focal * s, cx=self.cx * s, cy=self.cy * height / self.height,
                       width=width, height=height, enlarged=self.enlarged * s,
                       shift=(self.shift[0] * s, self.shift[1] * down))  # fmt: skip

    def cropped(self, x0: int, y0: int, x1: int, y1: int) -> Camera:
        """The camera of a part of the image, from pixel (x0, y0) up to (x1, y1), which is excluded."""
        x, y = self.shift
        shift = (x + (self.zoom - 1) * x0, y + (self.zoom - 1) * y0)
        return replace(self, cx=self.cx - x0, cy=self.cy - y0, width=x1 - x0, height=y1 - y0, shift=shift)

    def zoomed(self, pixel: tuple[float, float], zoom: float) -> Camera:
        """The same view, enlarged about a pixel (x, y), which keeps its place."""

        def moved(x: float, y: float) -> tuple[float, float]:
            return pixel[0] + zoom * (x - pixel[0]), pixel[1] + zoom * (y - pixel[1])

        cx, cy = moved(self.cx, self.cy)
        return replace(self, focal=self.focal * zoom, cx=cx, cy=cy, zoom=self.zoom * zoom, shift=moved(*self.shift))

    def rays(self, pixels: Num[Tensor, "*batch 2"]) -> tuple[Float[Tensor, " 3"], Float[Tensor, "*batch 3"]]:
        """Rays through the centres of pixels.

        Args:
            pixels: [..., 2] x, y, counted from 0; fractions are places between their centres.

        Returns:
            Where they begin, [3] centimetres, and directions [..., 3] in world axes whose part along the camera's axis
            is 1: a factor on them is the depth.
        """
        x, y = (pixels + 0.5).unbind(-1)
        local = torch.stack([(x - self.cx) / self.focal, (y - self.cy) / self.focal, torch.ones_like(x)], -1)
        return self.position, local @ self.viewmat[:3, :3]

    def centred(self) -> tuple[Camera, Float[Tensor, "3 3"]]:
        """A camera at the same place that has its principal point in the middle, for formats that know no other.

        It is turned to what the middle of the image shows. A point near the middle keeps its pixel, whatever its
        depth; one that is x pixels away moves by about x**2 tan(angle) / focal.

        Returns:
            The camera, and the rotation [3, 3] float64 from this camera's axes to its axes.
        """
        middle = [self.width / 2 - self.cx, self.height / 2 - self.cy, self.focal]
        x, y, z = torch.nn.functional.normalize(torch.tensor(middle, dtype=torch.float64), dim=0)
        sine = torch.hypot(x, y)
        turn = torch.stack([y, -x, torch.zeros_like(x)]) * (torch.atan2(sine, z) / sine.clamp_min(1e-12))
        # Along the offset a pixel is cos**2 of the angle as wide as on the axis, across it cos: the mean of the two.
        camera = replace(self, focal=self.focal / float(z) ** 1.5, cx=self.width / 2, cy=self.height / 2)
        return camera, axis_angle_to_matrix(turn)

    def orbit(self, pivot: Float[Tensor, " 3"], azimuth: float, elevation: float, zoom: float = 1.0) -> Camera:
        """This camera turned around a point.

        Args:
            pivot: World point [3] to turn around, in centimetres.
            azimuth: Degrees; positive moves the camera to its right.
            elevation: Degrees; positive moves the camera up.
            zoom: Factor on the size of what is shown; the pivot keeps its pixel.
        """
        a, e = torch.deg2rad(torch.tensor([azimuth, elevation], dtype=torch.float32))
        yaw = axis_angle_to_matrix(torch.stack([torch.zeros(()), a, torch.zeros(())]))
        pitch = axis_angle_to_matrix(torch.stack([e, torch.zeros(()), torch.zeros(())]))
        turn = pitch @ yaw
        viewmat = torch.eye(4)
        viewmat[:3, :3] = turn
        viewmat[:3, 3] = pivot - turn @ pivot
        turned = replace(self, viewmat=self.viewmat @ viewmat)
        if zoom == 1:
            return turned
        x, y = self.project(pivot).tolist()
        return turned.zoomed((x, y), zoom)

    def project(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2"]:
        """Pixels [..., 2] of world points [..., 3] in centimetres."""
        local = points @ self.viewmat[:3, :3].T.to(points) + self.viewmat[:3, 3].to(points)
        xy = local[..., :2] / local[..., 2:]
        return xy * self.focal + torch.tensor([self.cx, self.cy], dtype=points.dtype)


def head_to_nerf(rotation: Float[Tensor, "T 3"], translation: Float[Tensor, "T 3"]) -> Float[Tensor, "T 4 4"]:
    """Head poses as the camera poses of AD-NeRF (Guo et al. 2021) and its successors.

    There the head stands still and the camera moves: camera to head, with OpenGL axes for both (x right, y up, z
    towards the viewer). The origin is the middle of the Basel face's front, one unit is a metre.

    Args:
        rotation: [T, 3] axis-angle, head axes to world.
        translation: [T, 3] centimetres.

    Returns:
        [T, 4, 4] float64, the ``transform_matrix`` of each frame.
    """
    flip, origin = MEDIAPIPE_TO_HEAD.double(), NERF_ORIGIN.double()
    turn = axis_angle_to_matrix(rotation.double())
    place = (turn @ origin + translation.double()) / NERF_UNIT
    poses = torch.eye(4, dtype=torch.float64).repeat(len(turn), 1, 1)
    poses[:, :3, :3] = turn.mT * flip * flip[:, None]
    poses[:, :3, 3] = -flip * torch.einsum("tji,tj->ti", turn, place)
    return poses


def nerf_to_head(poses: Float[Tensor, "T 4 4"]) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3"]]:
    """Inverse of :func:`head_to_nerf`.

    Poses that AD-NeRF's tracker found differ from ours of the same video by a constant: its face model is another one
    (a few per cent in size, 2 degrees in pitch), and so is its focal length.

    Args:
        poses: [T, 4, 4] ``transform_matrix``.

    Returns:
        Rotation [T, 3] axis-angle, head axes to world, and translation [T, 3] in centimetres; float32.
    """
    flip, origin = MEDIAPIPE_TO_HEAD.double(), NERF_ORIGIN.double()
    poses = poses.double()
    turn = poses[:, :3, :3].mT * flip * flip[:, None]
    place = -torch.einsum("tij,tj->ti", turn, flip * poses[:, :3, 3])
    return matrix_to_axis_angle(turn).float(), (place * NERF_UNIT - turn @ origin).float()
