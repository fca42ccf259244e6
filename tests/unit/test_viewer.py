"""The viewer: what sliders do to a face, view limits that can be let go, an address that nobody can guess."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.controls import Controls
from avatar.infer.view_cone import view_of
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, LIPS_OUTER
from avatar.viewer.controls import apply_controls
from avatar.viewer.start import view
from tests.fake_avatar import FPS, FakeAvatar

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from avatar.serve import start
from tests.serving import fake_session, served, until


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


# --- the page ------------------------------------------------------------------------------------------------------


class Lit(FakeAvatar):
    """Keeps what was shown."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.shown: list[Motion] = []

    def render(self, camera: Any, motion: Motion, index: int, background: Any = None) -> torch.Tensor:
        self.shown.append(motion[index : index + 1])
        return super().render(camera, motion, index, background)


def viewing(folder: Path, test: Any, avatar: Any = None, **settings: Any) -> None:
    async def run() -> None:
        async with served(folder, avatar, **settings) as client, client.ws_connect("/ws") as page:
            await asyncio.wait_for(test(client, page, json.loads((await page.receive()).data)), 30)

    asyncio.run(run())


async def error_of(page: Any) -> str:
    """The next error that the page is told."""
    while True:
        message = await page.receive(timeout=10)
        if isinstance(message.data, str) and (words := json.loads(message.data))["type"] == "error":
            return words["message"]


def test_sliders_move_the_face_while_it_lives(tmp_path: Path) -> None:
    fake_session(tmp_path)
    avatar = Lit(tmp_path)

    async def test(client: Any, page: Any, hello: dict[str, Any]) -> None:
        assert hello["face"]["yaw"] == [-30, 30] and hello["beyond"] is False
        calm = avatar.shown[-1]
        await page.send_json({"type": "face", "jaw": 0.5, "blink": 1, "yaw": 10})
        await until(lambda: float(avatar.shown[-1].arkit[0, INDEX["jawOpen"]]) > 0.3)
        assert float(avatar.shown[-1].arkit[0, INDEX["eyeBlinkLeft"]]) > 0.85
        assert float((avatar.shown[-1].head_rotation - calm.head_rotation)[0, 1]) < -0.1
        await page.send_json({"type": "face"})
        await until(lambda: float(avatar.shown[-1].arkit[0, INDEX["jawOpen"]]) < 0.2)
        await page.send_json({"type": "face", "jaw": 5})
        assert "jaw" in await error_of(page)

    viewing(tmp_path, test, avatar, face=True)


def test_dragging_stops_at_the_limits_unless_they_are_let_go(tmp_path: Path) -> None:
    fake_session(tmp_path)
    avatar = FakeAvatar(tmp_path)

    async def turned(degrees: float) -> None:
        await until(lambda: abs(view_of(avatar.views[-1], avatar.pivot)[0] - degrees) < 0.1)

    async def test(client: Any, page: Any, hello: dict[str, Any]) -> None:
        assert hello["limits"]["right"] == 20 and not hello["measured"]
        await page.send_json({"type": "view", "azimuth": 60, "zoom": 0.5})
        await turned(avatar.cone.clamped(60, 0)[0])
        assert avatar.views[-1].focal == avatar.camera.focal
        await page.send_json({"type": "face", "beyond": True})
        await turned(60)
        assert avatar.views[-1].focal == avatar.camera.focal / 2
        await page.send_json({"type": "face", "beyond": False})
        await turned(avatar.cone.clamped(60, 0)[0])

    assert avatar.cone.clamped(60, 0)[0] < 30
    viewing(tmp_path, test, avatar, face=True)


def test_the_words_on_the_dial_fit_into_it() -> None:
    """A browser cuts off what is wider than the drawing."""
    page = Path(start.__file__).parent / "page"
    view_js, html, style = ((page / name).read_text() for name in ("view.js", "index.html", "style.css"))
    (notes,) = re.findall(r"const NOTES = \{(.*)\};", view_js)
    words = re.findall(r'"(.*?)"', notes)
    (wide,) = re.findall(r'id="dial" viewBox="\S+ \S+ (\d+) ', html)
    (high,) = re.findall(r"#dial text \{.*font-size: (\d+)px", style)
    longest = max((f"-180°, -85°, {note}" for note in words), key=len)
    assert len(words) == 3 and len(longest) * 0.55 * int(high) < int(wide)  # a sign is about half as wide as high


def test_a_server_for_others_has_no_sliders(tmp_path: Path) -> None:
    async def test(client: Any, page: Any, hello: dict[str, Any]) -> None:
        assert hello["face"] is None
        await page.send_json({"type": "face", "jaw": 0.5, "beyond": True})
        assert "avatar view" in await error_of(page)

    viewing(tmp_path, test)


def test_the_microphone_can_be_listened_to_without_an_agent(tmp_path: Path) -> None:
    async def test(client: Any, page: Any, hello: dict[str, Any]) -> None:
        session, heard = next(iter(client.hub.guests.values())).listener.session, []
        session.hear = heard.append
        for on in (False, True):
            await page.send_json({"type": "attend", "on": on})
            await page.send_bytes(np.zeros(320, "<i2").tobytes())
        await until(lambda: len(heard) == 1)

    viewing(tmp_path, test, face=True)


def test_an_avatar_without_speech_is_shown_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_session(tmp_path)
    monkeypatch.setattr("avatar.infer.avatar.Avatar.load", lambda run, device: FakeAvatar(run))
    controls = Controls(speech="personal")  # of a video without audio there is none
    with pytest.raises(AvatarError, match="personal"):
        start.load_characters((tmp_path,), controls)
    (character,) = start.load_characters((tmp_path,), controls, speechless=True)
    assert "cannot speak" in character.speechless
    session = character.open()
    session.push_audio(np.ones(8000, np.float32))
    assert len([*session.frames()]) >= 12

    async def test(client: Any, page: Any, hello: dict[str, Any]) -> None:
        assert "cannot speak" in hello["speechless"] and hello["text"] is False
        for words in ({"type": "say", "text": "Hello"}, {"type": "echo", "on": True}):
            await page.send_json(words)
            assert "cannot speak" in await error_of(page)

    viewing(tmp_path, test, speechless=character.speechless)


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_printed_address_alone_lets_in_and_the_next_port_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    seen: list[Any] = []
    monkeypatch.setattr(start, "load_characters", lambda *_, **options: seen.append(options) or [])
    monkeypatch.setattr(start, "load_voice", lambda *_: None)
    monkeypatch.setattr(start, "serve", lambda *arguments: seen.append(arguments))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for _ in range(2):
            view(tmp_path, Controls(beyond=True), port=port)
        (_, _, settings, place), (_, _, other, _) = seen[1], seen[3]
        with place.listen() as listening:
            assert port < listening.getsockname()[1] < port + 100
    assert seen[0]["speechless"] and settings.face and settings.sessions == 8
    assert len(settings.token) >= 24 and settings.token != other.token and settings.host == "127.0.0.1"
    assert settings.file_bytes == 128 << 20
    assert f"#token={settings.token}" in place.url(port, settings.token)


@pytest.mark.parametrize(("option", "limits"), [("size", (32, 4096)), ("port", (1, 65535))])
def test_numbers_are_accepted_up_to_their_limits_and_not_beyond(tmp_path: Path, option: str, limits: Any) -> None:
    low, high = limits
    for value in (low - 1, high + 1):
        with pytest.raises(AvatarError, match=f"--{option} {value} is out of range"):
            view(tmp_path / "none", Controls(), **{option: value})
    for value in limits:
        with pytest.raises(AvatarError, match="There is no run folder"):
            view(tmp_path / "none", Controls(), **{option: value})


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [str(tmp_path / "no-run")], [str(tmp_path), "--port", "0"], [str(tmp_path), "--size", "5"],
        [str(tmp_path), "--emotion", "hungry"], [str(tmp_path), "--print-timeline", str(tmp_path / "a.json")],
        [str(tmp_path), "--motion", str(tmp_path)],
    ):  # fmt: skip
        assert main(["view", *arguments]) == 2
        assert "Traceback" not in capsys.readouterr().err
