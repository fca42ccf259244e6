"""The module that brings the avatar into a scene of PlayCanvas: its camera, without PlayCanvas."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar.export import web
from tests.node import told

WORLD = """
const seen = {};
class Any {
  getTranslation() { return this; }
  setFromMat4() { return this; }
  mul2() { return this; }
  set() { return this; }
}
const pc = { Entity: class { getWorldTransform() { return new Any(); } }, Mat4: Any, Quat: Any };
const projection = { setFrustum(...sides) { seen.sides = sides; } };
const entity = { setPosition() {}, setRotation() {}, camera: { nearClip: 0.1, farClip: 100 } };
"""


def test_the_camera_has_the_principal_point_of_the_frame() -> None:
    """A pixel of 200x100 at (130, 40) is on the optical axis."""
    source = (Path(web.__file__).parent / "player" / "playcanvas.js").read_text()
    code = "\n".join(line for line in source.splitlines() if not line.startswith("import "))
    code = code.replace("export class", "class").replace("export function", "function")
    scene = """
        const avatar = Object.create(AvatarEntity.prototype);
        avatar.performer = { camera: () => ({ matrix: [], fov: 90, center: [130, 40] }) };
        avatar.aim(entity, 200, 100);
        entity.camera.calculateProjection(projection);
        console.log(JSON.stringify({ fov: entity.camera.fov, sides: seen.sides }));
    """
    found = told("-e", f"{WORLD}\n{code}\n{scene}")
    focal = 50 / 0.1  # pixels of a field of 90 degrees, per metre at the near plane
    assert found["fov"] == 90
    assert found["sides"] == pytest.approx([-130 / focal, 70 / focal, -60 / focal, 40 / focal, 0.1, 100])
