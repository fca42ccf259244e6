"""An open viewer without a browser: a drawn avatar, and a page that speaks just enough of viser's protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import msgspec
import numpy as np
import torch
import viser
import zstandard
from websockets.sync.client import connect

from avatar.geometry.cameras import Camera
from avatar.infer.view_cone import AZIMUTHS, ELEVATIONS, ViewCone
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.viewer.server import Viewer
from avatar.viewer.visitor import Visitor

WIDTH, HEIGHT, FPS = 64, 48, 25.0


class DrawnAvatar:
    """Brightness follows the jaw, the red part the camera's place."""

    camera = Camera.source(90.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    fps, pivot = FPS, torch.tensor([0.0, 0.0, 60.0])
    info: ClassVar = {"gaussians": 12, "method": "drawn"}
    run = Path("no-run")
    cone = ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=np.ones((len(ELEVATIONS), len(AZIMUTHS))))

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        image = torch.full((camera.height, camera.width, 3), 40 + 200 * float(motion.arkit[index, INDEX["jawOpen"]]))
        image[..., 0] = min(255.0, 20 + 3 * abs(float(camera.viewmat[0, 3])))
        return image.to(torch.uint8)


@contextmanager
def viewing(speak: Any = None, avatar: Any = None, **options: Any) -> Iterator[Viewer]:
    """A viewer on a port of the system's choice; nothing is rendered until :meth:`Viewer.step` is called."""
    shown: Any = avatar or DrawnAvatar()
    viewer = Viewer(shown, Motion.zeros(3, FPS), speak, port=0, **options)
    try:
        yield viewer
    finally:
        viewer.stop()


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    return result


class Page:
    """A page that was opened by the printed address."""

    def __init__(self, viewer: Viewer, url: str = "", **options: Any) -> None:
        url = (url or viewer.url).replace("http://", "ws://").rstrip("/")
        options = {"origin": viewer.url.rsplit("/", 2)[0]} | options
        self.viewer = viewer
        self.fields: dict[str, str] = {}  # labels of fields to their names on the wire
        self.texts: list[str] = []  # sentences shown, and sound to play
        self.pictures: list[np.ndarray] = []
        self.socket = connect(url, subprotocols=[f"viser-v{viser.__version__}"], max_size=None, **options)  # type: ignore[list-item]

    def send(self, kind: str, **content: Any) -> None:
        """Send a message of any kind."""
        self.socket.send(msgspec.msgpack.encode({"type": kind} | content))

    def look(self, position: tuple[float, float, float] = (0.0, 0.0, 0.0), **changed: Any) -> None:
        """Move the camera."""
        view = {
            "wxyz": (1.0, 0.0, 0.0, 0.0), "position": position, "fov": 0.5, "near": 0.01, "far": 100.0,
            "image_height": 480, "image_width": 640, "look_at": (0.0, 0.0, 0.6), "up_direction": (0.0, -1.0, 0.0),
        }  # fmt: skip
        self.send("ViewerCameraMessage", **(view | changed))

    def enter(self) -> Visitor:
        """Look, and give what the viewer keeps for this page."""
        before = list(self.viewer.visitors)
        self.look()
        return wait_for(lambda: next((v for v in self.viewer.visitors if v not in before), None))

    def set(self, label: str, value: Any) -> None:
        """Change a field, or press a button."""
        wait_for(lambda: label in self.fields or (self.read() and label in self.fields))
        self.send("GuiUpdateMessage", uuid=self.fields[label], updates={"value": value})

    def upload(self, name: str, content: bytes, size: int | None = None, part: int = 1 << 19) -> None:
        """Send a file as viser's page does; ``size`` is what is announced."""
        label = "Speak an audio file"
        wait_for(lambda: label in self.fields or (self.read() and label in self.fields))
        about = {"source_component_uuid": self.fields[label], "transfer_uuid": f"{name}{time.monotonic()}"}
        parts = [content[i : i + part] for i in range(0, len(content), part)]
        size = len(content) if size is None else size
        self.send("FileTransferStartUpload", filename=name, mime_type="audio/wav", part_count=len(parts),
                  size_bytes=size, **about)  # fmt: skip
        for index, piece in enumerate(parts):
            self.send("FileTransferPart", part_index=index, content=piece, **about)

    def read(self, seconds: float = 0.02) -> bool:
        """Take in what has arrived."""
        while True:
            try:
                data = self.socket.recv(timeout=seconds)
            except TimeoutError:
                return True
            if not isinstance(data, bytes):
                continue
            size = int.from_bytes(data[8:16], "little")  # after the 16 bytes: compressed messages, then raw buffers
            batch = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + size]))
            for message in batch["messages"]:
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
                    image = cv2.imdecode(np.frombuffer(message["rgb_data"], np.uint8), cv2.IMREAD_COLOR)
                    assert image is not None
                    self.pictures.append(image[..., ::-1])
                if label := message.get("props", {}).get("label"):
                    self.fields[label] = message["uuid"]
                for name in ("_markdown", "content"):
                    if name in message.get("updates", {}):
                        self.texts.append(message["updates"][name])

    def picture(self) -> np.ndarray:
        """The next picture, uint8 RGB."""
        wait_for(lambda: self.pictures or (self.read() and self.pictures))
        return self.pictures.pop(0)

    def told(self, words: str) -> str:
        """The sentence with these words, once it is shown."""
        return wait_for(lambda: self.read() and next((text for text in self.texts if words in text), ""))

    def close(self) -> None:
        self.socket.close()
