"""`avatar render --camera`: a view that the avatar is not good for stops at its limit and is said, unless --beyond."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avatar.cli.main import main
from avatar.infer.camera_path import CameraPath
from avatar.infer.view_cone import AZIMUTHS, ELEVATIONS, HeadLimits, Limits, ViewCone, view_of
from avatar.motion import Motion
from tests.fake_avatar import FPS, FakeAvatar

GRID = np.array([[1.0 if -25 < a < 40 and abs(e) < 15 else 0.0 for a in AZIMUTHS] for e in ELEVATIONS])
HEAD = HeadLimits(Limits(20, 20, 10, 10), 10)
CONE = ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=GRID, head=HEAD)
LEFT, RIGHT, DOWN, UP = CONE.limits()


@pytest.fixture
def avatar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAvatar:
    """An instant avatar whose limits are known, which `avatar render` loads; it notes where it is looked at from."""
    import avatar.infer.avatar as module

    (tmp_path / "run").mkdir()
    Motion.zeros(60, FPS).save(tmp_path / "run" / "motion.safetensors")
    fake = FakeAvatar(tmp_path / "run")
    fake.cone = CONE  # type: ignore[misc]
    monkeypatch.setattr(module.Avatar, "load", staticmethod(lambda *_, **__: fake))
    return fake


def views(avatar: FakeAvatar, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[np.ndarray, str]:
    """Views [T, 2] that a second of waiting is rendered from, degrees, and what is said about them."""
    avatar.views.clear()
    out = avatar.run / "out.mp4"
    assert main(["render", str(avatar.run), "--idle", "1", "--out", str(out), *options]) == 0
    shown = np.array([view_of(camera, avatar.pivot) for camera in avatar.views])
    assert len(shown) == 25
    return shown, " ".join(capsys.readouterr().err.split())


def test_a_view_beyond_the_limits_is_limited_and_said(avatar: FakeAvatar, capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = views(avatar, capsys, "--camera", "60,0")
    assert shown == pytest.approx(np.tile([RIGHT, 0], (25, 1)), abs=0.01)
    assert f"The view 60,0 was limited to {RIGHT:.0f},0" in said and "--beyond" in said
    shown, said = views(avatar, capsys, "--camera", "60,0", "--beyond")
    assert shown[:, 0] == pytest.approx(60, abs=0.01) and "limited" not in said
    shown, said = views(avatar, capsys, "--camera", f"{RIGHT - 0.5},0")  # inside: exactly as asked
    assert shown[:, 0] == pytest.approx(RIGHT - 0.5, abs=0.01) and "limited" not in said
    shown, said = views(avatar, capsys)
    assert np.abs(shown).max() < 1e-3 and "limited" not in said


def test_limits_that_nobody_measured_are_said_to_be_unknown(
    avatar: FakeAvatar, capsys: pytest.CaptureFixture[str]
) -> None:
    avatar.cone = ViewCone.unknown()  # type: ignore[misc]
    shown, said = views(avatar, capsys, "--camera", "60,0")
    assert shown[:, 0] == pytest.approx(20, abs=0.1) and "not measured" in said


def test_a_path_stops_softly(avatar: FakeAvatar, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    path.write_text(json.dumps([{"time": 0}, {"time": 0.96, "azimuth": 80}]))
    shown, said = views(avatar, capsys, "--camera", str(path))
    assert "The camera path" in said and "was limited" in said
    assert shown[:, 0].max() == pytest.approx(RIGHT, abs=0.01) and (np.diff(shown[:, 0]) >= -1e-3).all()
    free, said = views(avatar, capsys, "--camera", str(path), "--beyond")
    assert free[-1, 0] == pytest.approx(80, abs=0.1) and "limited" not in said
    early = free[:, 0] < 0.7 * RIGHT
    assert early.sum() > 3 and shown[early] == pytest.approx(free[early], abs=1e-3)
    path.write_text(json.dumps([{"time": 0}, {"time": 0.96, "azimuth": RIGHT - 1}]))
    inside = CameraPath.parse(str(path))
    assert inside.within(CONE) is inside


def test_an_orbit_fits_the_limits(avatar: FakeAvatar, capsys: pytest.CaptureFixture[str]) -> None:
    orbit = CameraPath.parse("orbit")
    fitted = np.array([orbit.within(CONE).at(t)[:2] for t in np.linspace(0, 8, 200)])
    assert fitted[:, 0].min() == pytest.approx(-20, abs=0.1) and fitted[:, 0].max() == pytest.approx(20, abs=0.1)
    narrow = ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=np.where(np.array(AZIMUTHS) < 0, GRID, 0))
    narrow.grid[:, AZIMUTHS.index(0.0)] = 1
    path = orbit.within(narrow)
    fitted = np.array([path.at(t)[:2] for t in np.linspace(0, 8, 200)])
    limits = narrow.limits()
    assert max(limits.ratio(*view) for view in fitted) <= 1
    ends = fitted[:, 0].min(), fitted[:, 0].max()
    assert ends == pytest.approx((-0.9 * limits.left, 0.9 * limits.right), abs=0.1)
    assert path.at(0)[0] == pytest.approx(0, abs=0.05) and path.at(8.5) == pytest.approx(path.at(0.5), abs=1e-6)
    assert "limited" not in views(avatar, capsys, "--camera", "orbit")[1]
