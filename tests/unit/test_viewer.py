"""The viewer without a browser: what sliders do to a face, where cameras are, a page that really serves pictures."""

from __future__ import annotations

import math
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import soundfile
import torch

from avatar.cli import main
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, LIPS_OUTER
from avatar.viewer.command import Config, is_loopback, open_viewer
from avatar.viewer.controls import apply_controls

WIDTH, HEIGHT, FPS = 64, 48, 25.0


def channel(motion: Motion, name: str) -> float:
    return float(motion.face[0, CHANNEL_INDEX[name]])


def contour(motion: Motion, label: str, axis: str, points: int) -> np.ndarray:
    """Displacement along a lip contour, put together from its Fourier modes, in centimetres."""
    phase = 2 * np.pi * np.arange(points) / points
    value = np.full(points, channel(motion, f"lip_{label}_{axis}_cos0"))
    for k in (1, 2, 3):
        value += channel(motion, f"lip_{label}_{axis}_cos{k}") * np.cos(k * phase)
        value += channel(motion, f"lip_{label}_{axis}_sin{k}") * np.sin(k * phase)
    return value


def test_nothing_changes_at_zero() -> None:
    motion = Motion.zeros(3, FPS)
    motion.head_rotation[:, 0] = torch.tensor([0.1, -0.2, 0.3])
    motion.arkit[:] = 0.4
    same = apply_controls(motion)
    for name in ("arkit", "face", "head_rotation", "head_translation"):
        torch.testing.assert_close(getattr(same, name), getattr(motion, name), atol=1e-5, rtol=0)


def test_jaw_opens_the_mouth_downwards() -> None:
    half, full = (apply_controls(Motion.zeros(1, FPS), jaw=v) for v in (0.5, 1.0))
    assert 0 < float(half.arkit[0, INDEX["jawOpen"]]) < float(full.arkit[0, INDEX["jawOpen"]]) <= 1
    lips = contour(full, "inner", "y", len(LIPS_INNER))
    lower, upper = LIPS_INNER.index(14), LIPS_INNER.index(13)
    assert lips[lower] > 1.0 and abs(lips[upper]) < 0.3  # y points down; the upper lip stays
    assert channel(full, "jaw_y") == pytest.approx(2 * channel(half, "jaw_y")) and channel(full, "jaw_y") > 1
    assert abs(channel(full, "jaw_x")) < 1e-6


def test_smile_pulls_the_corners_out_and_up() -> None:
    smile = apply_controls(Motion.zeros(1, FPS), smile=1)
    assert float(smile.arkit[0, INDEX["mouthSmileLeft"]]) == float(smile.arkit[0, INDEX["mouthSmileRight"]]) > 0.5
    across, down = (contour(smile, "outer", axis, len(LIPS_OUTER)) for axis in "xy")
    right, left, middle = (LIPS_OUTER.index(v) for v in (61, 291, 0))
    assert across[right] < -0.3 and across[left] > 0.3 and abs(across[middle]) < 0.1
    assert down[right] < -0.3 and down[left] < -0.3 and abs(down[middle]) < 0.2
    assert channel(smile, "cheek_left_y") < 0 and float(smile.arkit[0, INDEX["jawOpen"]]) == 0


def test_blink_closes_both_eyes_and_stays_in_range() -> None:
    motion = Motion.zeros(1, FPS)
    motion.arkit[:, INDEX["eyeBlinkLeft"]] = 0.8
    blink = apply_controls(motion, blink=1)
    for side in ("left", "right"):
        assert channel(blink, f"eye_{side}_open") < -0.7
    assert float(blink.arkit[0, INDEX["eyeBlinkLeft"]]) == 1 and float(blink.arkit.max()) <= 1
    assert channel(blink, "jaw_y") == 0


@pytest.mark.parametrize("start", [(0.0, 0.0, 0.0), (0.1, 0.3, -0.05)])
def test_head_turns_where_the_sliders_say(start: tuple[float, float, float]) -> None:
    motion = Motion.zeros(1, FPS)
    motion.head_rotation[:] = torch.tensor(start)
    before = axis_angle_to_matrix(motion.head_rotation)[0]
    nose, crown = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([0.0, -1.0, 0.0])

    def seen(point: torch.Tensor, **angles: float) -> torch.Tensor:
        """Where a point of the head goes, in the head's own axes before the turn."""
        return before.T @ axis_angle_to_matrix(apply_controls(motion, **angles).head_rotation)[0] @ point

    sine, cosine = math.sin(math.radians(20)), math.cos(math.radians(20))
    torch.testing.assert_close(seen(nose, yaw=20), torch.tensor([sine, 0, -cosine]), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen(nose, pitch=20), torch.tensor([0, -sine, -cosine]), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen(crown, roll=20), torch.tensor([sine, -cosine, 0]), atol=1e-5, rtol=0)


def test_cameras_of_visitors() -> None:
    from avatar.viewer.server import client_camera, letterbox

    source = Camera.source(90.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    fov = 2 * math.atan(HEIGHT / 2 / 90.0)
    same = client_camera(source, np.array([1.0, 0, 0, 0]), np.zeros(3), fov, 16 / 9)
    assert same.focal == pytest.approx(90) and torch.equal(same.viewmat, torch.eye(4))
    narrow = client_camera(source, np.array([1.0, 0, 0, 0]), np.zeros(3), fov, 1.0)  # the picture gets smaller in it
    assert narrow.focal == pytest.approx(90 * WIDTH / HEIGHT)
    pivot = torch.tensor([0.0, 0.0, 60.0])
    orbit = source.orbit(pivot, 20, 10)
    rotation = orbit.viewmat[:3, :3].T
    from avatar.geometry.se3 import matrix_to_quat

    position = (-rotation @ orbit.viewmat[:3, 3]).numpy()
    again = client_camera(source, matrix_to_quat(rotation).numpy(), position, fov, 2.0)
    torch.testing.assert_close(again.viewmat, orbit.viewmat, atol=1e-4, rtol=0)
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for aspect in (0.5, WIDTH / HEIGHT, 2.5):
        framed = letterbox(picture, aspect)
        assert framed.shape[1] / framed.shape[0] == pytest.approx(aspect, rel=0.03)
        assert (framed == 200).all(-1).sum() == WIDTH * HEIGHT


class FakeAvatar:
    """Brightness follows the jaw, the red part the camera's place."""

    camera = Camera.source(90.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    fps, head_pivot = FPS, torch.tensor([0.0, 0.0, 60.0])
    info: ClassVar = {"gaussians": 12, "method": "drawn"}

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        image = torch.full((camera.height, camera.width, 3), 40 + 200 * float(motion.arkit[index, INDEX["jawOpen"]]))
        image[..., 0] = min(255.0, 20 + 3 * abs(float(camera.viewmat[0, 3])))
        return image.to(torch.uint8)


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


class Visitor:
    """Speaks just enough of the page's protocol to move a camera and to receive pictures."""

    def __init__(self, port: int) -> None:
        import viser
        from websockets.sync.client import connect

        self.socket = connect(f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None)  # type: ignore[list-item]

    def look(self, position: tuple[float, float, float]) -> None:
        import msgspec

        camera = {
            "type": "ViewerCameraMessage", "wxyz": (1.0, 0.0, 0.0, 0.0), "position": position, "fov": 0.5,
            "near": 0.01, "far": 100.0, "image_height": 480, "image_width": 640, "look_at": (0.0, 0.0, 0.6),
            "up_direction": (0.0, -1.0, 0.0),
        }  # fmt: skip
        self.socket.send(msgspec.msgpack.encode(camera))

    def picture(self, seconds: float = 10.0) -> np.ndarray:
        """The next picture that arrives, uint8 RGB."""
        import msgspec
        import zstandard

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            data = self.socket.recv(timeout=seconds)
            if not isinstance(data, bytes):
                continue
            size = int.from_bytes(data[8:16], "little")  # after the 16 bytes: compressed messages, then raw buffers
            batch = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + size]))
            for message in batch["messages"]:
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
                    image = cv2.imdecode(np.frombuffer(message["rgb_data"], np.uint8), cv2.IMREAD_COLOR)
                    return image[..., ::-1]
        raise TimeoutError


def test_the_page_serves_pictures_and_stops(tmp_path: Path) -> None:
    from avatar.viewer.server import Viewer

    soundfile.write(tmp_path / "speech.wav", np.sin(np.arange(16000) / 10).astype(np.float32), 16000)
    spoken = Motion.zeros(500, FPS)
    spoken.arkit[:, INDEX["jawOpen"]] = 1.0
    avatar: Any = FakeAvatar()
    viewer = Viewer(avatar, Motion.zeros(3, FPS), lambda *_: spoken, port=18765)
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}", timeout=10).read()
        assert b"<html" in page[:3000].lower()
        assert viewer.step() == 0  # nobody is there
        visitor = Visitor(viewer.port)
        visitor.look((0.0, 0.0, 0.0))
        wait_for(lambda: viewer.step() == 1)
        calm = visitor.picture()
        assert calm.shape == (HEIGHT, WIDTH, 3) and calm[24, 32] == pytest.approx([20, 40, 40], abs=6)
        assert viewer.step() == 0  # nothing changed, nothing is rendered
        visitor.look((0.3, 0.0, 0.0))
        wait_for(lambda: viewer.step() == 1)
        assert visitor.picture()[24, 32, 0] == pytest.approx(20 + 3 * 30, abs=6)  # centimetres
        viewer._sliders["jaw"].value = 0.5
        assert viewer.step() == 1
        assert visitor.picture()[24, 32, 1] == pytest.approx(40 + 200 * 0.35, abs=6)
        viewer.reset()
        assert viewer.sliders.jaw == 0
        viewer.say(tmp_path / "speech.wav")
        assert "<audio" in viewer._player.content and viewer.now()[0] is spoken
        wait_for(lambda: viewer.step() == 1)
        viewer.hush()
        assert viewer.now()[0] is viewer.rest and viewer._player.content == ""
        viewer.say(tmp_path / "missing.wav")
        assert "missing.wav" in viewer._message.content and viewer.now()[0] is viewer.rest
        visitor.socket.close()
        port = viewer.port
    finally:
        viewer.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2).read()


def test_speech_keeps_to_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from avatar.viewer import server

    soundfile.write(tmp_path / "speech.wav", np.zeros(16000, np.float32) + 0.1, 16000)
    spoken = Motion.zeros(50, FPS)
    avatar: Any = FakeAvatar()
    viewer = server.Viewer(avatar, Motion.zeros(1, FPS), lambda *_: spoken, port=18790)
    try:
        clock = [100.0]
        monkeypatch.setattr(server.time, "monotonic", lambda: clock[0])
        viewer.say(tmp_path / "speech.wav")
        assert viewer.now() == (spoken, 0)
        clock[0] += 1.01
        assert viewer.now() == (spoken, 25)
        clock[0] += 1.0
        assert viewer.now() == (viewer.rest, 0)
    finally:
        monkeypatch.undo()
        viewer.stop()


def test_what_is_chosen_on_the_page_goes_over_what_was_given(tmp_path: Path) -> None:
    from avatar.infer.controls import Controls
    from avatar.viewer import server

    soundfile.write(tmp_path / "speech.wav", np.zeros(16000, np.float32) + 0.1, 16000)
    asked: list[Controls] = []

    def speak(_: Path, how: Controls) -> Motion:
        asked.append(how)
        return Motion.zeros(50, FPS)

    avatar: Any = FakeAvatar()
    given = Controls(lip_scale=("1.5",), gaze=("camera",))
    viewer = server.Viewer(avatar, Motion.zeros(1, FPS), speak, given, port=18850)
    try:
        viewer.say(tmp_path / "speech.wav")
        for name, value in {"emotion": "happy", "strength": 0.4, "lip_scale": 0.5, "pose": "still"}.items():
            viewer._manner[name].value = value
        viewer.say(tmp_path / "speech.wav")
    finally:
        viewer.stop()
    assert asked[0] == given
    assert asked[1] == Controls(lip_scale=("1.5", "0.5"), gaze=("camera",), emotion=("happy:0.4",), pose=("still",))
    asked[1].check()


def test_rest_is_an_ordinary_measured_frame() -> None:
    from avatar.viewer.server import rest_frame

    motion = Motion.zeros(50, FPS)
    motion.head_rotation[:, 1] = torch.linspace(-0.5, 0.5, 50)
    motion.valid[20:30] = False
    assert abs(float(rest_frame(motion).head_rotation[0, 1])) == pytest.approx(0, abs=0.15)
    assert len(rest_frame(motion)) == 1 and bool(rest_frame(motion).valid[0])


def test_an_avatar_without_speech_is_shown_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import avatar.infer.avatar as avatar_module

    Motion.zeros(5, FPS).save(tmp_path / "motion.safetensors")
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(lambda _, device: FakeAvatar()))
    viewer = open_viewer(Config(run=tmp_path, port=18820, size=32))
    try:
        assert viewer.server.get_host() == "127.0.0.1"
        assert viewer._camera.width == 32
        viewer.say(tmp_path / "anything.wav")
        assert viewer.now()[0] is viewer.rest
    finally:
        viewer.stop()


@pytest.mark.parametrize(("option", "limits"), [("size", (32, 4096)), ("port", (1, 65535))])
def test_numbers_are_accepted_up_to_their_limits_and_not_beyond(tmp_path: Path, option: str, limits: tuple) -> None:
    low, high = limits
    for value in (low - 1, high + 1):
        with pytest.raises(AvatarError, match=f"--{option} {value} is out of range"):
            open_viewer(Config(run=tmp_path / "none", **{option: value}))
    for value in limits:
        with pytest.raises(AvatarError, match="There is no run folder"):
            open_viewer(Config(run=tmp_path / "none", **{option: value}))


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [str(tmp_path / "no-run")], [str(tmp_path), "--port", "0"], [str(tmp_path), "--size", "5"],
        [str(tmp_path), "--emotion", "hungry"], [str(tmp_path), "--idle", "3"],
    ):  # fmt: skip
        assert main(["view", *arguments]) == 2
        assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(AvatarError):
        open_viewer(Config(run=tmp_path))
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
