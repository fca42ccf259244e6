"""The viewer without a browser: what sliders do to a face, where cameras are, a page that really serves pictures."""

from __future__ import annotations

import gc
import math
import random
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from websockets.exceptions import ConnectionClosed

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.controls import Controls
from avatar.io.hosts import is_loopback
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, LIPS_OUTER
from avatar.viewer.controls import Sliders, apply_controls
from avatar.viewer.start import open_viewer
from avatar.viewer.visitor import Visitor
from tests.page import FPS, HEIGHT, WIDTH, DrawnAvatar, Page, viewing, wait_for


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
    wide = letterbox(np.full((2000, 1000, 3), 200, np.uint8), 4.0)
    assert wide.shape == (1024, 4096, 3) and (wide == 200).all(-1).sum() == 1024 * 512  # smaller, and whole
    for aspect in (0.5, WIDTH / HEIGHT, 2.5):
        framed = letterbox(picture, aspect)
        assert framed.shape[1] / framed.shape[0] == pytest.approx(aspect, rel=0.03)
        assert (framed == 200).all(-1).sum() == WIDTH * HEIGHT


def sound(path: Path, seconds: float = 1.0) -> Path:
    soundfile.write(path, np.sin(np.arange(int(16000 * seconds)) / 10).astype(np.float32), 16000)
    return path


def test_the_page_serves_pictures_and_stops(tmp_path: Path) -> None:
    spoken = Motion.zeros(500, FPS)
    spoken.arkit[:, INDEX["jawOpen"]] = 1.0
    with viewing(lambda *_: [spoken[:200], spoken[200:]]) as viewer:
        body = urllib.request.urlopen(viewer.url, timeout=10).read()
        assert b"<html" in body[:3000].lower()
        assert viewer.step() == 0  # nobody is there
        page = Page(viewer)
        visitor = page.enter()
        wait_for(lambda: viewer.step() == 1)
        calm = page.picture()
        assert calm.shape == (HEIGHT, WIDTH, 3) and calm[24, 32] == pytest.approx([20, 40, 40], abs=6)
        assert viewer.step() == 0  # nothing changed, nothing is rendered
        page.look((0.3, 0.0, 0.0))
        wait_for(lambda: viewer.step() == 1)
        assert page.picture()[24, 32, 0] == pytest.approx(20 + 3 * 30, abs=6)  # centimetres
        page.set("Jaw", 0.5)
        wait_for(lambda: viewer.step() == 1)
        assert page.picture()[24, 32, 1] == pytest.approx(40 + 200 * 0.35, abs=6)
        page.set("Reset sliders and view", True)
        wait_for(lambda: visitor.sliders.jaw == 0)
        page.upload("speech.wav", sound(tmp_path / "speech.wav").read_bytes())
        assert "20.0 s" in page.told("speech.wav, ") and page.told("<audio")
        wait_for(lambda: len(visitor.now()[0]) == 500)
        wait_for(lambda: viewer.step() == 1)
        page.set("Stop", True)
        wait_for(lambda: visitor.now()[0] is viewer.rest)
        page.upload("broken.wav", b"this is no sound " * 10)
        assert str(tmp_path.parent) not in page.told("broken.wav is not an audio file")
        assert visitor.now()[0] is viewer.rest
        page.close()
        wait_for(lambda: viewer.step() == 0 and not viewer.visitors)
    with pytest.raises(OSError):
        urllib.request.urlopen(viewer.url, timeout=2).read()


def test_speech_keeps_to_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from avatar.viewer import visitor as module

    with viewing(lambda *_: [Motion.zeros(50, FPS)]) as viewer:
        visitor = Page(viewer).enter()
        clock = [100.0]
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
        visitor.say(sound(tmp_path / "speech.wav"), "speech.wav")
        (spoken, index) = visitor.now()
        assert len(spoken) == 50 and index == 0
        clock[0] += 1.01
        assert visitor.now()[1] == 25
        clock[0] += 1.0
        assert visitor.now() == (viewer.rest, 0)
        monkeypatch.undo()


def test_what_is_chosen_on_the_page_goes_over_what_was_given() -> None:
    given = Controls(lip_scale=("1.5",), gaze=("camera",))
    with viewing(lambda *_: [], controls=given) as viewer:
        page = Page(viewer)
        visitor = page.enter()
        assert visitor.controls == given
        choice = {"Emotion": "happy", "Its strength": 0.4, "Lips": 0.5, "Head motion": "still"}
        for label, value in choice.items():
            page.set(label, value)
        wait_for(lambda: visitor.controls.pose)
    chosen = visitor.controls
    assert chosen == Controls(lip_scale=("1.5", "0.5"), gaze=("camera",), emotion=("happy:0.4",), pose=("still",))
    chosen.check()


def test_a_page_can_choose_only_what_it_is_offered(tmp_path: Path) -> None:
    secret = tmp_path / "motion.safetensors"
    Motion.zeros(5, FPS).save(secret)
    with viewing(lambda *_: []) as viewer:
        page = Page(viewer)
        visitor = page.enter()
        page.set("Head motion", str(secret))  # `--pose` takes a file
        page.set("Emotion", "happy:0.7@0-1+sad")
        for label, value in (("Jaw", 1e30), ("Yaw (degrees)", -1e9), ("Lips", 99.0), ("Smile", float("nan"))):
            page.set(label, value)
        page.send("GuiUpdateMessage", uuid=page.fields["Blink"], updates={"value": 0.5, "removed": True})
        page.send("GuiUpdateMessage", uuid=page.fields["Blink"], updates={"update_cb": []})
        page.set("Roll (degrees)", 7)
        wait_for(lambda: visitor.sliders.roll == 7)
        assert visitor.controls == Controls(lip_scale=("2",))
        assert visitor.sliders == Sliders(jaw=1, yaw=-30, roll=7)


def test_pages_share_nothing(tmp_path: Path) -> None:
    with viewing(lambda *_: [Motion.zeros(500, FPS)]) as viewer:
        pages = [Page(viewer), Page(viewer)]
        one, other = [page.enter() for page in pages]
        pages[0].set("Jaw", 1.0)
        pages[0].set("Lips", 0.5)
        pages[0].upload("speech.wav", sound(tmp_path / "speech.wav").read_bytes())
        pages[0].told("<audio")
        wait_for(lambda: one.now()[0] is not viewer.rest)
        assert one.sliders.jaw == 1 and one.controls.lip_scale
        pages[1].read(0.3)
        assert set(pages[1].texts) <= {"12 gaussians", ""} and other.now()[0] is viewer.rest
        assert other.sliders == Sliders() and other.controls == Controls()
        pages[1].set("Stop", True)
        wait_for(lambda: other._turn == 1)
        assert one.now()[0] is not viewer.rest


NAN = float("nan")
SENSELESS: tuple[dict[str, Any], ...] = (
    {"image_height": 0}, {"image_width": 0, "image_height": 0}, {"image_width": -5}, {"image_width": 1e300},
    {"fov": 0.0}, {"fov": NAN}, {"fov": 3.2}, {"fov": -1.0}, {"fov": "wide"}, {"wxyz": (0.0, 0.0, 0.0, 0.0)},
    {"wxyz": (1.0, 0.0, float("inf"), 0.0)}, {"position": (NAN, 0.0, 0.0)}, {"position": (0.0, NAN, 0.0)},
    {"position": (1e30, 0.0, 0.0)}, {"position": (0.0, 0.0)}, {"position": "here"}, {"look_at": None},
    {"look_at": (0.0, NAN, 0.0)}, {"extra": 1},
)  # fmt: skip


def test_a_view_that_makes_no_sense_is_passed_over() -> None:
    with viewing() as viewer:
        page = Page(viewer)
        visitor = page.enter()
        wait_for(lambda: viewer.step() == 1)
        page.picture()
        for number, view in enumerate(SENSELESS):
            page.look(**({"position": (0.1, 0.0, 0.0)} | view))
            jaw = float(number % 2 == 0)
            page.set("Jaw", jaw)  # arrives after the view
            wait_for(lambda jaw=jaw: visitor.sliders.jaw == jaw)
            assert viewer.step() == 1, view
            red = page.picture()[24, 32, 0]
            assert red == pytest.approx(20, abs=6), view  # from where it looked before


def test_any_window_gets_a_picture_of_bounded_size() -> None:
    with viewing() as viewer:
        page = Page(viewer)
        for width, height in ((32768, 1), (1, 32768), (30000, 20000), (1, 1)):
            page.look(image_width=width, image_height=height)
            wait_for(lambda: viewer.step() == 1)
            assert max(page.picture().shape) <= 4096


def test_an_error_of_one_page_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    class Fragile(DrawnAvatar):
        def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
            if float(camera.viewmat[0, 3]) != 0:
                raise RuntimeError("out of [/memory]")
            return super().render(camera, motion, index)

    with viewing(avatar=Fragile()) as viewer:
        bad, good = Page(viewer), Page(viewer)
        bad.enter()
        good.enter()
        wait_for(lambda: viewer.step() == 2)
        good.picture()
        for number in range(3):
            bad.look((0.1 + number, 0.0, 0.0))
            before = viewer.visitors[0].shown
            wait_for(lambda before=before: viewer.step() or viewer.visitors[0].shown != before)
        good.set("Jaw", 1.0)
        wait_for(lambda: viewer.step() == 1)
        assert good.picture()[24, 32, 1] > 100
        bad.look()
        wait_for(lambda: viewer.step() == 1)  # and it goes on where it can
    said = capsys.readouterr().err
    assert said.count("out of [/memory]") == 1 and "Traceback" not in said


def test_what_is_no_message_of_a_page_is_not_heeded(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with viewing() as viewer:
        shared: list[int] = []
        viewer.server.request_share_url = lambda *_, **__: shared.append(1)  # type: ignore[method-assign]
        page = Page(viewer)
        visitor = page.enter()
        for junk in (b"", b"\xff" * 100, b"\x91" * 100_000, "text", msgspec.msgpack.encode({"type": "Nothing"})):
            page.socket.send(junk)
        page.send("ShareUrlRequest")  # viser would open a tunnel to a public server
        page.send("GuiFormDirtyMessage", uuid="x")
        page.send("ViewerCameraMessage")
        page.set("Jaw", 1.0)
        wait_for(lambda: visitor.sliders.jaw == 1)
        assert shared == [] and viewer.visitors == [visitor]
        page.set("Jaw", "open")  # a number is expected: viser's own error, in one line
        page.set("Smile", 1.0)
        wait_for(lambda: visitor.sliders.smile == 1)
        page.socket.send(bytes(2 << 20))
        wait_for(lambda: not visitor.here)
        Page(viewer).enter()
        gc.collect()  # asyncio reports the error of a task when it is thrown away
        said = wait_for(lambda: capfd.readouterr().err)
    assert said.count("could not be heeded") == 1 and "Traceback" not in said
    assert all(record.name.startswith("avatar") for record in caplog.records)


def test_random_messages_end_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    odd = [None, 0, -1, 2**62, 1e308, NAN, float("inf"), "", b"", "x" * 300, True, [], {}, (1.0, 0.0, 0.0), "nan"]
    view: dict[str, Any] = {
        "wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 0.0), "fov": 0.5, "near": 0.01, "far": 100.0,
        "image_height": 480, "image_width": 640, "look_at": (0.0, 0.0, 0.6), "up_direction": (0.0, -1.0, 0.0),
    }  # fmt: skip
    with viewing(lambda *_: [Motion.zeros(5, FPS)]) as viewer:
        good = Page(viewer)
        visitor = good.enter()
        for _ in range(3):
            bad = Page(viewer)
            bad.enter()
            bad.set("Jaw", 0.5)
            with suppress(ConnectionClosed):
                for _ in range(50):
                    field = rng.choice([*bad.fields.values()])
                    file = {"source_component_uuid": rng.choice([field, bad.fields["Speak an audio file"]]),
                            "transfer_uuid": rng.choice("ab")}  # fmt: skip
                    messages: list[dict[str, Any]] = [
                        {"type": "ViewerCameraMessage"} | view,
                        {"type": "GuiUpdateMessage", "uuid": field, "updates": {"value": rng.choice(odd)}},
                        {"type": "FileTransferStartUpload", "filename": "a", "mime_type": "", "size_bytes": 5,
                         "part_count": rng.choice([0, 1, 2, -1])} | file,
                        {"type": "FileTransferPart", "part_index": rng.choice([0, 1, -1]), "content": b"12345"} | file,
                        {"type": rng.choice(["GuiFormSubmitMessage", "CommandTriggerMessage"]), "uuid": field},
                    ]  # fmt: skip
                    message = rng.choice(messages)
                    if rng.random() < 0.5:
                        message[rng.choice([*message])] = rng.choice(odd)
                    data = msgspec.msgpack.encode(message)
                    bad.socket.send(data[: rng.randrange(len(data))] if rng.random() < 0.05 else data)
            viewer.step()
        good.set("Jaw", 1.0)
        wait_for(lambda: visitor.sliders.jaw == 1)
        good.pictures.clear()
        wait_for(lambda: viewer.step() >= 0 and good.read() and good.pictures)
        gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_uploads_are_limited_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.viewer import messages

    monkeypatch.setattr(messages, "UPLOAD_MEGABYTES", 1)
    monkeypatch.setattr(messages, "UPLOADS_MEGABYTES", 2)
    heard: list[bytes] = []
    monkeypatch.setattr(Visitor, "say", lambda self, path, name: heard.append(path.read_bytes()))
    half = bytes(1 << 19)
    with viewing(lambda *_: []) as viewer:
        page = Page(viewer)
        visitor = page.enter()
        page.upload("big.wav", half * 3)
        page.told("big.wav is not taken: it is larger than 1 MB")
        page.upload("empty.wav", b"")
        page.told("empty.wav is not taken: it is empty")
        page.upload("right.wav", half + b"end")
        wait_for(lambda: heard == [half + b"end"])
        assert visitor._upload.value.content == b""  # it is not kept
        page.fields["Speak an audio file"], button = page.fields["Jaw"], page.fields["Speak an audio file"]
        page.upload("slider.wav", half)  # viser would put it there
        page.set("Smile", 1.0)
        wait_for(lambda: visitor.sliders.smile == 1)
        assert visitor.sliders.jaw == 0 and len(heard) == 1
        page.fields["Speak an audio file"] = button
        page.upload("first.wav", half, size=1 << 20, part=1 << 20)  # less than announced
        wait_for(lambda: not viewer.step() and not viewer.visitors)
        page = Page(viewer)
        page.enter()
        page.upload("more.wav", half * 2, size=(1 << 19) + 5)
        wait_for(lambda: not viewer.step() and not viewer.visitors)
        pages = [Page(viewer) for _ in range(3)]
        for number, page in enumerate(pages):
            page.enter()
            page.set("Jaw", 0.0)
            about = {"source_component_uuid": page.fields["Speak an audio file"], "mime_type": ""}
            for name in "ab":
                page.send("FileTransferStartUpload", transfer_uuid=name, filename=name, part_count=2,
                          size_bytes=1 << 20, **about)  # fmt: skip
            page.told("another file is still being sent" if number < 2 else "other windows are sending files")
        pages[0].close()
        wait_for(lambda: not viewer.step() and len(viewer.visitors) == 2)
        pages[2].upload("late.wav", half)  # there is room again
        wait_for(lambda: len(heard) == 2)


def test_a_sound_is_decoded_as_far_as_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from avatar.viewer import visitor as module

    monkeypatch.setattr(module, "MAX_SECONDS", 3.0)
    seen: list[np.ndarray] = []
    with viewing(lambda samples, _: seen.append(samples) or [Motion.zeros(5, FPS)]) as viewer:
        page = Page(viewer)
        page.enter()
        page.upload("long.flac", sound(tmp_path / "long.wav", 4.0).read_bytes())
        page.told("long.flac is longer than 0.05 minutes")
        assert seen == []
        page.upload("list.wav", f"ffconcat version 1.0\nfile {tmp_path / 'long.wav'}\n".encode())
        page.told("list.wav is not an audio file of a kind that is opened here")
        page.upload("short.wav", sound(tmp_path / "short.wav", 2.0).read_bytes())
        page.told("short.wav, 0.2 s")
        assert [len(samples) for samples in seen] == [2 * 16000]


def test_a_sound_that_is_no_longer_wanted_is_given_up(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def speak(*_: Any) -> Iterator[Motion]:
        begun.set()
        for number in range(1000):
            assert go_on.wait(10), number
            yield Motion.zeros(25, FPS)

    content = sound(tmp_path / "speech.wav").read_bytes()
    with viewing(speak) as viewer:
        page = Page(viewer)
        visitor = page.enter()
        page.upload("first.wav", content)
        assert begun.wait(10)
        page.upload("second.wav", content)
        page.told("second.wav is not taken")
        page.set("Stop", True)
        wait_for(lambda: visitor._turn == 2)
        go_on.set()
        wait_for(lambda: not visitor._busy.locked())
        page.read()
        assert visitor.now()[0] is viewer.rest and not any("first.wav, " in text for text in page.texts)
        page.upload("third.wav", content)
        page.told("third.wav, 1000.0 s")


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
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(lambda _, device: DrawnAvatar()))
    viewer = open_viewer(tmp_path, Controls(), port=18820, size=32)
    try:
        assert viewer.url.startswith("http://127.0.0.1:") and viewer.camera.width == 32
        page = Page(viewer)
        visitor = page.enter()
        wait_for(lambda: viewer.step() == 1)
        visitor.say(tmp_path / "anything.wav", "anything.wav")
        assert visitor.now()[0] is viewer.rest
    finally:
        viewer.stop()


@pytest.mark.parametrize(("option", "limits"), [("size", (32, 4096)), ("port", (1, 65535))])
def test_numbers_are_accepted_up_to_their_limits_and_not_beyond(tmp_path: Path, option: str, limits: tuple) -> None:
    low, high = limits
    for value in (low - 1, high + 1):
        with pytest.raises(AvatarError, match=f"--{option} {value} is out of range"):
            open_viewer(tmp_path / "none", Controls(), **{option: value})
    for value in limits:
        with pytest.raises(AvatarError, match="There is no run folder"):
            open_viewer(tmp_path / "none", Controls(), **{option: value})


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [str(tmp_path / "no-run")], [str(tmp_path), "--port", "0"], [str(tmp_path), "--size", "5"],
        [str(tmp_path), "--emotion", "hungry"], [str(tmp_path), "--idle", "3"],
    ):  # fmt: skip
        assert main(["view", *arguments]) == 2
        assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(AvatarError):
        open_viewer(tmp_path, Controls())
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")


def test_a_window_that_announces_and_sends_nothing_blocks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.viewer import messages

    monkeypatch.setattr(messages, "UPLOADS_MEGABYTES", 1)
    monkeypatch.setattr(messages, "UPLOAD_IDLE_SECONDS", 0.2)
    heard: list[bytes] = []
    monkeypatch.setattr(Visitor, "say", lambda self, path, name: heard.append(path.read_bytes()))
    with viewing(lambda *_: []) as viewer:
        idle, busy = Page(viewer), Page(viewer)
        for page in (idle, busy):
            page.enter()
            page.set("Jaw", 0.0)
        idle.send("FileTransferStartUpload", source_component_uuid=idle.fields["Speak an audio file"], mime_type="",
                  transfer_uuid="a", filename="a", part_count=2, size_bytes=1 << 20)  # fmt: skip
        wait_for(lambda: viewer._door._uploads.announced)
        wait_for(lambda: not viewer._door._uploads.announced)
        busy.upload("mine.wav", b"sound")
        wait_for(lambda: heard == [b"sound"])


def test_a_message_of_endless_empty_frames_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with viewing() as viewer:
        other, page = Page(viewer), Page(viewer)
        other.enter()
        page.enter()
        raw = page.socket.socket
        with suppress(OSError):
            raw.sendall(b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5000)
        wait_for(lambda: len(viewer._door._inside) == 1)
        other.set("Jaw", 0.5)
        wait_for(lambda: viewer.visitors[0].sliders.jaw == 0.5)
