"""The page: frames rendered here and shown as the background of a viser scene that only carries the camera."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import viser

from avatar import log
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import quat_to_matrix
from avatar.infer.controls import Controls
from avatar.infer.renderer import counts_text
from avatar.infer.video import resize
from avatar.infer.view_cone import SOFTNESS, turned, view_of
from avatar.motion import Motion
from avatar.viewer.controls import apply_controls
from avatar.viewer.door import Door, current_connection, unprinted
from avatar.viewer.visitor import Speak, Visitor

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar

METRES = 0.01  # viser's orbit controls feel right when a head is a quarter of a unit, not 25
SLACK = 0.02  # share of the way to the view limits by which the page's camera may pass where it stops
BORDER = 20  # grey level of the bars beside the image
LONGEST_SIDE = 4096  # pixels of an image with its bars


class Viewer:
    """A running page. :meth:`step` renders what changed; :meth:`serve` does so until stopped.

    Args:
        avatar: What is shown: `Renderer` with ``camera``, ``fps``, ``pivot`` and ``info``.
        rest: Motion that is shown while nothing is spoken; its first frame.
        speak: From an audio file and controls to motion, or None where the avatar cannot be driven by audio.
        controls: To begin with; what is chosen on a page goes on top.
        host: Address to listen on.
        port: First port to try; 0 lets the system choose.
        size: Longer side of the rendered image in pixels.

    Attributes:
        visitors: One for each open page.
        url: The address of the page, with the token without which nobody is let in.
        one_at_a_time: Held while audio is turned into motion, which takes all cores.

    Raises:
        OSError: The host is not one of this machine, or no port is free.
    """

    def __init__(
        self,
        avatar: Avatar,
        rest: Motion,
        speak: Speak | None,
        controls: Controls | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        size: int | None = None,
    ) -> None:
        self.avatar, self.rest, self.speak = avatar, rest[:1], speak
        self.controls = controls or Controls()
        self.camera = resize(avatar.camera, size)
        self.visitors: list[Visitor] = []
        self.one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._seconds = 0.0
        self._door = Door(host, port)
        self.url, self.port = self._door.url, self._door.port
        try:
            with self._door.kept():
                self.server = viser.ViserServer(host=host, port=self.port, label="avatar", verbose=False)
        except AvatarError:
            self.stop()
            raise
        self._place_camera()
        self.server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self.server.on_client_connect(self._welcome)

    @property
    def head(self) -> np.ndarray:
        """Point that a page looks at to begin with [3], metres.

        It is on the filming camera's axis, as far away as the head.
        """
        return np.array([0.0, 0.0, float(self.avatar.pivot[2]) * METRES])

    async def _welcome(self, client: viser.ClientHandle) -> None:
        try:
            self.visitors.append(Visitor(client, current_connection.get(), self))
        except Exception as error:
            log.warn(f"A page could not be opened: {type(error).__name__}: {error}")

    def _place_camera(self) -> None:
        camera, start = self.camera, self.server.initial_camera
        self.server.scene.set_up_direction("-y")
        start.position = (0.0, 0.0, 0.0)
        start.look_at = tuple(self.head)
        start.up = (0.0, -1.0, 0.0)
        start.fov = 2 * math.atan(camera.height / 2 / camera.focal)

    def step(self) -> int:
        """Render for each visitor whose view, sliders or motion changed; returns how many images were sent.

        What goes wrong for one of them is noted once and passed over until something changes.
        """
        sent = 0
        for visitor in self.visitors.copy():
            if not visitor.here:
                self.visitors.remove(visitor)
                continue
            try:
                sent += self._show(visitor)
            except Exception as error:
                visitor.failed("The image cannot be drawn", error)
        return sent

    def _show(self, visitor: Visitor) -> bool:
        view, (motion, index), sliders = visitor.client.camera, visitor.now(), visitor.sliders
        aspect = view.image_width / view.image_height
        key = (id(motion), index, sliders, visitor.beyond, tuple(view.wxyz), tuple(view.position), view.fov, aspect)
        if visitor.shown == key:
            return False
        visitor.shown = key  # whatever becomes of it
        began = time.perf_counter()
        frame = apply_controls(motion[index : index + 1], **vars(sliders))
        camera = client_camera(self.camera, view.wxyz, view.position / METRES, view.fov, aspect)
        if not visitor.beyond:
            frame, _ = self.avatar.cone.limit_head(frame)
            camera = self._held(visitor, camera)
        azimuth, elevation = view_of(camera, self.avatar.pivot)
        image = self.avatar.render(camera, frame, 0).cpu().numpy()
        if not visitor.here:  # left meanwhile
            return False
        visitor.client.scene.set_background_image(letterbox(image, aspect), format="jpeg", jpeg_quality=88)
        visitor.point(azimuth, elevation)
        self._seconds = 0.9 * self._seconds + 0.1 * (time.perf_counter() - began)
        visitor.images += 1
        if visitor.images % 25 == 0:
            visitor.status.content = f"{counts_text(self.avatar.info)}, {1 / self._seconds:.0f} images/s"
        return True

    def _held(self, visitor: Visitor, camera: Camera) -> Camera:
        """The camera stopped softly at the view limits.

        The page's own camera is held where asking for more changes nothing, so that dragging back acts at once.
        """
        limits, pivot = self.avatar.cone.limits(), self.avatar.pivot
        view = view_of(camera, pivot)
        ratio = limits.ratio(*view)
        visitor.arrived = visitor.arrived or ratio <= 1
        if visitor.arrived and ratio > 1 + SOFTNESS + SLACK:
            share = (1 + SOFTNESS) / ratio
            back = turned(camera, pivot, (view[0] * share, view[1] * share))
            turn = back.viewmat[:3, :3].T @ camera.viewmat[:3, :3]
            aim = torch.tensor(visitor.client.camera.look_at / METRES, dtype=torch.float32)
            target = pivot + turn @ (aim - pivot)
            visitor.look(back.position.double().numpy() * METRES, target.double().numpy() * METRES)
        held = limits.clamped(*view)
        return camera if held == view else turned(camera, pivot, held)

    def serve(self) -> None:
        """Render until :meth:`stop` is called."""
        while not self._stopped.is_set():
            if self.step() == 0:
                self._stopped.wait(0.02)

    def stop(self) -> None:
        """Close the page and the port."""
        self._stopped.set()
        with unprinted():
            self.server.stop()
        self._door.socket.close()


def client_camera(source: Camera, wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float) -> Camera:
    """The camera of a visitor, with the image size of ``source``, which lies centred in the visitor's window.

    Args:
        source: Gives size and principal point.
        wxyz: Camera to world rotation, OpenCV axes.
        position: Centre of projection [3], world centimetres.
        fov: Vertical field of view of the window, radians.
        aspect: Width over height of the window.
    """
    rotation = quat_to_matrix(torch.tensor(np.asarray(wxyz), dtype=torch.float32))
    viewmat = torch.eye(4)
    viewmat[:3, :3] = rotation.T
    viewmat[:3, 3] = -rotation.T @ torch.tensor(np.asarray(position), dtype=torch.float32)
    # The window's height in the image's pixels: the image fills the window's shorter direction.
    window = source.height if aspect >= source.width / source.height else source.width / aspect
    return Camera(
        focal=window / 2 / math.tan(fov / 2),
        cx=source.cx,
        cy=source.cy,
        width=source.width,
        height=source.height,
        viewmat=viewmat,
    )


def letterbox(image: np.ndarray, aspect: float) -> np.ndarray:
    """Pad an image [H, W, 3] with grey bars to the shape (width over height) of a window.

    It is made smaller where the longer side would have more than ``LONGEST_SIDE`` pixels with the bars.
    """
    height, width = image.shape[:2]
    wide, tall = max(width, round(height * aspect)), max(height, round(width / aspect))
    if max(wide, tall) > LONGEST_SIDE:
        scale = LONGEST_SIDE / max(wide, tall)
        width, height, wide, tall = (max(1, int(size * scale)) for size in (width, height, wide, tall))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    left, top = (wide - width) // 2, (tall - height) // 2
    sides = (top, tall - height - top, left, wide - width - left)
    return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=(BORDER, BORDER, BORDER))


def rest_frame(motion: Motion) -> Motion:
    """The most ordinary frame of a track: nearest to the median of pose and face, each in its own spread."""
    rows = torch.cat([motion.head_rotation, motion.head_translation, motion.face], -1)[motion.valid]
    if len(rows) == 0:
        return motion[:1]
    distance = (rows - rows.median(0).values).abs() / rows.std(0, correction=0).clamp_min(1e-4)
    best = int(torch.nonzero(motion.valid)[int(distance.mean(-1).argmin())])
    return motion[best : best + 1]
