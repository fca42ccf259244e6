"""The page: frames rendered here and shown as the background of a viser scene that only carries the camera."""

from __future__ import annotations

import base64
import io
import math
import tempfile
import threading
import time
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import viser

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import quat_to_matrix
from avatar.infer.controls import Controls
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.motion import Motion
from avatar.motion.emotion import EMOTIONS
from avatar.prior.pose import POSES
from avatar.viewer.controls import Sliders, apply_controls

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar

METRES = 0.01  # viser's orbit controls feel right when a head is a quarter of a unit, not 25
MAX_SECONDS = 600.0  # of sound in one go: it is sent to the page as a whole
AS_GIVEN = "as given"  # on the command line
BORDER = 20  # grey level of the bars beside the picture


class Viewer:
    """A running page. :meth:`step` renders what changed; :meth:`serve` does so until stopped.

    Args:
        avatar: What is shown: `Renderable` with ``camera``, ``fps``, ``head_pivot`` and ``info``.
        rest: Motion that is shown while nothing is spoken; its first frame.
        speak: From a sound file and controls to the whole motion, or None where the avatar cannot be driven by sound.
        controls: To begin with; what is chosen on the page goes on top.
        host: Address to listen on.
        port: First port to try.
        size: Longer side of the rendered picture in pixels.
        private: Whether only this machine reaches the page: then it may name files on it.
    """

    def __init__(
        self,
        avatar: Avatar,
        rest: Motion,
        speak: Callable[[Path, Controls], Motion] | None,
        controls: Controls | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        size: int | None = None,
        private: bool = True,
    ) -> None:
        from avatar.infer.command import resize

        self.avatar, self.rest, self._speak = avatar, rest[:1], speak
        self._controls = controls or Controls()
        self._camera = resize(avatar.camera, size)
        self._uploads = tempfile.TemporaryDirectory(prefix="avatar-view-")
        self._stopped = threading.Event()
        self._spoken: Motion | None = None
        self._began = 0.0
        self._shown: dict[int, tuple] = {}
        self._seconds = 0.0
        self.server = viser.ViserServer(host=host, port=port, label="avatar", verbose=False)
        self._place_camera()
        self._build(private)
        self.server.on_client_disconnect(self._forget)

    @property
    def port(self) -> int:
        """The port in use; the first free one from the one asked for."""
        return self.server.get_port()

    @property
    def sliders(self) -> Sliders:
        """Where the sliders stand."""
        return Sliders(**{name: float(slider.value) for name, slider in self._sliders.items()})

    @property
    def controls(self) -> Controls:
        """How the next sound is spoken: what was given, and over that what is chosen on the page."""
        given, chosen = self._controls, {name: element.value for name, element in self._manner.items()}
        added: dict[str, str] = {}
        if chosen["emotion"] != AS_GIVEN:
            added["emotion"] = f"{chosen['emotion']}:{chosen['strength']:g}"
        if chosen["pose"] != AS_GIVEN:
            added["pose"] = chosen["pose"]
        if chosen["lip_scale"] != 1:
            added["lip_scale"] = f"{chosen['lip_scale']:g}"
        return replace(given, **{name: (*getattr(given, name), value) for name, value in added.items()})

    def _forget(self, client: viser.ClientHandle) -> None:
        self._shown.pop(client.client_id, None)

    def _place_camera(self) -> None:
        camera, start = self._camera, self.server.initial_camera
        self.server.scene.set_up_direction("-y")
        start.position = (0.0, 0.0, 0.0)
        start.look_at = (0.0, 0.0, float(self.avatar.head_pivot[2]) * METRES)  # on the axis: begins as filmed
        start.up = (0.0, -1.0, 0.0)
        start.fov = 2 * math.atan(camera.height / 2 / camera.focal)

    def _build(self, private: bool) -> None:
        gui = self.server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        info = self.avatar.info
        self._status = gui.add_markdown(f"{info.get('gaussians', '?')} Gaussians")
        self._sliders: dict[str, Any] = {}
        self._manner: dict[str, Any] = {}  # of speaking
        with gui.add_folder("Face"):
            for name in ("jaw", "smile", "blink"):
                self._sliders[name] = gui.add_slider(name.capitalize(), 0.0, 1.0, 0.01, 0.0)
        with gui.add_folder("Head"):
            for name, limit in (("yaw", 30.0), ("pitch", 20.0), ("roll", 20.0)):
                self._sliders[name] = gui.add_slider(f"{name.capitalize()} (degrees)", -limit, limit, 0.5, 0.0)
        reset = gui.add_button("Reset sliders and view")
        reset.on_click(lambda _: self.reset())
        with gui.add_folder("Speech"):
            if self._speak is None:
                gui.add_markdown("This avatar was made from a video without sound: it cannot be driven by sound.")
                return
            self._manner["emotion"] = gui.add_dropdown("Emotion", (AS_GIVEN, *EMOTIONS))
            self._manner["strength"] = gui.add_slider("Its strength", 0.0, 1.5, 0.05, 0.7)
            self._manner["lip_scale"] = gui.add_slider("Lips", 0.0, 2.0, 0.05, 1.0)
            self._manner["pose"] = gui.add_dropdown("Head motion", (AS_GIVEN, *POSES))
            upload = gui.add_upload_button("Speak a sound file", mime_type="audio/*,video/*")
            upload.on_upload(lambda event: self._uploaded(event.target.value))
            if private:
                path = gui.add_text("File on this machine", "")
                gui.add_button("Speak it").on_click(lambda _: self.say(Path(path.value.strip())))
            gui.add_button("Stop").on_click(lambda _: self.hush())
            self._message = gui.add_markdown("")
            self._player = gui.add_html("")

    def reset(self) -> None:
        """All sliders to zero and every visitor's camera to the filming camera."""
        for slider in self._sliders.values():
            slider.value = 0.0
        for client in self.server.get_clients().values():
            client.camera.position = np.zeros(3)
            client.camera.look_at = np.array([0.0, 0.0, float(self.avatar.head_pivot[2]) * METRES])
            client.camera.up_direction = np.array([0.0, -1.0, 0.0])

    def _uploaded(self, file: Any) -> None:
        path = Path(self._uploads.name) / f"upload{Path(file.name).suffix[:8]}"
        path.write_bytes(file.content)
        self.say(path, file.name)

    def say(self, path: Path, name: str = "") -> None:
        """Speak a sound file: the motion is computed first, then picture and sound start together."""
        if self._speak is None:
            return
        self.hush()
        name = name or path.name
        try:
            samples = load_audio(path)
            if len(samples) > MAX_SECONDS * SAMPLE_RATE:
                raise AvatarError(f"{name} is longer than {MAX_SECONDS / 60:.0f} minutes.", "", "Use `avatar render`.")
            self._message.content = f"Listening to {name} ..."
            spoken = self._speak(path, self.controls)
        except AvatarError as error:
            self._message.content = f"**{error}**"
            return
        self._message.content = f"{name}, {len(spoken) / spoken.fps:.1f} s. If you hear nothing, press play below."
        self._player.content = f'<audio autoplay controls style="width:100%" src="{_data_url(samples)}"></audio>'
        self._spoken, self._began = spoken, time.monotonic()

    def hush(self) -> None:
        """Stop speaking."""
        self._spoken = None
        if self._speak is not None:
            self._player.content = ""
            self._message.content = ""

    def now(self) -> tuple[Motion, int]:
        """The motion and its frame to show at this moment; frames are skipped where rendering is slower than sound."""
        spoken = self._spoken
        if spoken is None:
            return self.rest, 0
        index = int((time.monotonic() - self._began) * spoken.fps)
        if index >= len(spoken):
            self._spoken = None
            return self.rest, 0
        return spoken, index

    def step(self) -> int:
        """Render for each visitor whose view, sliders or motion changed; returns how many pictures were sent."""
        motion, index = self.now()
        sliders = self.sliders
        sent = 0
        for client in self.server.get_clients().values():
            view = client.camera
            if view.update_timestamp == 0.0:  # it has not told yet where it looks from
                continue
            key = (id(motion), index, sliders, tuple(view.wxyz), tuple(view.position), view.fov, view.aspect)
            if self._shown.get(client.client_id) == key:
                continue
            began = time.perf_counter()
            frame = apply_controls(motion[index : index + 1], **vars(sliders))
            camera = client_camera(self._camera, view.wxyz, view.position / METRES, view.fov, view.aspect)
            image = self.avatar.render(camera, frame, 0).cpu().numpy()
            client.scene.set_background_image(letterbox(image, view.aspect), format="jpeg", jpeg_quality=88)
            self._shown[client.client_id] = key
            self._seconds = 0.9 * self._seconds + 0.1 * (time.perf_counter() - began)
            sent += 1
        return sent

    def serve(self) -> None:
        """Render until :meth:`stop` is called."""
        tick = 0
        while not self._stopped.is_set():
            if self.step() == 0:
                self._stopped.wait(0.02)
            tick += 1
            if tick % 25 == 0 and self._seconds > 0:
                text = f"{self.avatar.info.get('gaussians', '?')} Gaussians, {1 / self._seconds:.0f} pictures/s"
                if self._status.content != text:
                    self._status.content = text

    def stop(self) -> None:
        """Close the page and the port."""
        self._stopped.set()
        self.server.stop()
        self._uploads.cleanup()


def client_camera(source: Camera, wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float) -> Camera:
    """The camera of a visitor, with the picture size of ``source``, which lies centred in the visitor's window.

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
    # The window's height in the picture's pixels: the picture fills the window's shorter direction.
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
    """Pad a picture [H, W, 3] with grey bars to the shape (width over height) of a window."""
    height, width = image.shape[:2]
    wide, tall = max(width, round(height * aspect)), max(height, round(width / aspect))
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


def _data_url(samples: np.ndarray) -> str:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()
