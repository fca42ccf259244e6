"""The steps of `python -m pipelines.readers_check`: what other programs show of exported files."""

from __future__ import annotations

import base64
import importlib
import json
import math
import socket
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.sequence import at_rate
from avatar.export.vrma import preset_expressions
from avatar.export.write import export_avatar
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.avatar import Avatar
from avatar.motion.arkit import ARKIT
from avatar.motion.arkit_files import head_angles
from avatar.motion.live_link import channel_values
from pipelines.live_browser import Page
from pipelines.readers_model import write_vrm
from pipelines.web_steps import SHARES, psnr

SECONDS = 300.0  # that a software renderer may take for an image
STILL = {"spark": ("head.ply", "head.spz"), "playcanvas": ("head.ply", "head.glb")}  # what each program reads
SETTINGS = {"as it comes": False, "as trained": True}
METRES = 0.01
SHOTS = (10, 60)  # frames of the animation that are photographed
LIVE_SECONDS = 2.0
DECODER = "pylivelinkface"  # of other people; not needed to run the project


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all steps work with.

    Attributes:
        source: The avatar, and what it does in the clip.
        folder: Where exported files and images lie; browsers are served from it.
    """

    source: ExportSource
    folder: Path

    @property
    def avatar(self) -> Avatar:
        """The avatar."""
        assert self.source.avatar is not None
        return self.source.avatar

    def export(self, steps: Collection[str]) -> None:
        """Write what the steps open; what lies there from another time stays."""
        still = ExportSource(folder=self.source.folder, avatar=self.avatar)
        wanted = {"still": ("head.ply", "head.spz", "head.glb"), "mesh": ("mesh.glb",), "vrma": ("hello.vrma",)}
        for step in steps:
            for name in wanted.get(step, ()):
                if not (self.folder / name).exists():
                    kind = "mesh" if step == "mesh" else name.rpartition(".")[2]
                    options = {"expressions": "both"} if kind == "vrma" else {}
                    export_avatar(self.source if step == "vrma" else still, kind, self.folder / name, **options)
        if "talking" in steps and not (self.folder / "web").exists():
            export_avatar(self.source, "web", self.folder / "web")

    def keep(self, name: str, shown: str) -> np.ndarray:
        """Write an image that a page gave, and return it as uint8 RGB."""
        data = base64.b64decode(shown.partition(",")[2])
        (self.folder / f"{name}.png").write_bytes(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@torch.inference_mode()
def truth(bench: Bench) -> tuple[np.ndarray, dict[str, Any]]:
    """The neutral head before black, as `avatar render` draws it, and the filming camera in the axes of the files."""
    avatar, model = bench.avatar, bench.avatar.model
    camera, rest = avatar.camera, model.reference_motion(avatar.fps)
    out = model(rest, 0, camera, part="person")
    image = (out.rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    cv2.imwrite(str(bench.folder / "head.true.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    flip = np.diag([1.0, -1.0, -1.0])
    turn = flip @ axis_angle_to_matrix(rest.head_rotation[0]).numpy().T
    view = camera.viewmat.numpy().astype(float)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ view[:3, :3].T @ flip
    matrix[:3, 3] = METRES * turn @ (-view[:3, :3].T @ view[:3, 3] - rest.head_translation[0].numpy())
    fov = math.degrees(2 * math.atan(camera.height / 2 / camera.focal))
    return image, {"size": camera.width, "fov": fov, "matrix": matrix.T.ravel().tolist()}


async def still(bench: Bench, page: Page, reader: str) -> dict[str, Any]:
    """Compare files of the neutral head with what `avatar render` draws, dB."""
    image, camera = truth(bench)
    found: dict[str, Any] = {}
    for name in STILL[reader]:
        found[name] = {}
        for setting, matched in SETTINGS.items():
            code = f"readers.still({json.dumps(name)}, {json.dumps(camera)}, {json.dumps(matched)})"
            shown = bench.keep(f"{name}.{reader}.{setting.replace(' ', '_')}", await page.run(code, SECONDS))
            found[name][setting] = round(psnr(image, shown), 2)
    return found


async def talking(bench: Bench, page: Page, reader: str, matched: bool, count: int) -> dict[str, Any]:
    """Compare the talking avatar in another program with the web folder's own player, from three sides, dB."""
    size = bench.avatar.view_camera.width
    about = await page.run(f"readers.open({size}, {json.dumps(matched)})", SECONDS)
    limits, values, spent = about["limits"], [], []
    for share in SHARES:
        view = [
            share[0] * limits["right" if share[0] > 0 else "left"],
            share[1] * limits["up" if share[1] > 0 else "down"],
        ]
        row: list[float] = []
        for frame in np.linspace(0, about["frames"] - 1, count + 2).astype(int)[1:-1].tolist():
            answer = await page.run(f"readers.frame({frame}, {view[0]}, {view[1]})", SECONDS)
            name = f"talking_{reader}_{'as_trained' if matched else 'as_it_comes'}_{frame:05d}_{view[0]:.0f}"
            ours, theirs = bench.keep(f"{name}_ours", answer["ours"]), bench.keep(name, answer["theirs"])
            row.append(psnr(ours, theirs))
            spent.append(answer["milliseconds"])
        values.append(row)
    found = np.array(values)
    return {
        "frames": count, "mean": round(float(found.mean()), 2), "worst": round(float(found.min()), 2),
        "mean_of_view": found.mean(1).round(2).tolist(), "script_ms": round(float(np.median(spent)), 1),
    }  # fmt: skip


async def mesh(bench: Bench, page: Page) -> dict[str, Any]:
    """Photograph the mesh from three sides; a person has to look at it."""
    image = bench.keep("mesh", await page.run("readers.mesh('mesh.glb', 400)", SECONDS))
    return {"bytes": (bench.folder / "mesh.glb").stat().st_size, "covered": round(float((image.std(2) > 14).mean()), 3)}


async def vrma(bench: Bench, page: Page) -> dict[str, Any]:
    """Play the animation on a model, and compare all that moves with what was exported."""
    write_vrm(bench.folder / "model.vrm")
    answer = await page.run(f"readers.play('model.vrm', 'hello.vrma', {json.dumps(SHOTS)})", SECONDS)
    bench.keep("vrma", answer["shown"])
    track = at_rate(bench.source, None)
    rows = answer["frames"][: len(track)]
    expected = dict(preset_expressions(track))
    expected |= {name: track.arkit[:, index].numpy() for index, name in enumerate(ARKIT)}
    errors = {name: np.abs([row["expressions"][name] for row in rows] - value[: len(rows)]).max()
              for name, value in expected.items()}  # fmt: skip
    yaw, pitch, _ = np.radians(head_angles(track.head_rotation)).T
    front = np.array([row["front"] for row in rows])
    errors["head yaw"] = np.abs(np.arctan2(front[:, 0], front[:, 2]) - yaw[: len(rows)]).max()
    errors["head pitch"] = np.abs(np.arcsin(front[:, 1]) - pitch[: len(rows)]).max()
    look = np.radians([[row["yaw"], -row["pitch"]] for row in rows])
    errors["gaze"] = np.abs(look - track.gaze.numpy()[: len(rows)]).max()
    return {"frames": len(rows), "values": len(errors), "most_error": round(float(max(errors.values())), 7)}


def live_link(bench: Bench) -> dict[str, Any]:
    """Send the motion over UDP, and read the packets with a decoder that other people wrote.

    Raises:
        AvatarError: It is not installed.
    """
    try:
        decoder = importlib.import_module(DECODER)
    except ImportError:
        raise AvatarError(f"{DECODER} is not installed.", fix=f"Run `pip install {DECODER}`.") from None
    motion = at_rate(bench.source, None)
    motion = motion[: round(LIVE_SECONDS * motion.fps)]
    values, packets = channel_values(motion), []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        source = ExportSource(folder=bench.folder, motion=motion)
        port = receiver.getsockname()[1]
        sender = threading.Thread(
            target=export_avatar, args=(source, "live-link-udp", bench.folder), kwargs={"send": f"127.0.0.1:{port}"}
        )
        sender.start()
        packets = [receiver.recv(4096) for _ in range(len(motion))]
        sender.join()
    errors: list[float] = []
    for row, packet in zip(values, packets, strict=True):
        good, face = decoder.PyLiveLinkFace.decode(packet)
        if not good:
            raise AvatarError("The decoder refuses a packet.")
        read = [face.get_blendshape(shape) for shape in decoder.FaceBlendShape]
        errors.append(float(np.abs(np.array(read) - np.asarray(row)).max()))
    return {"packets": len(packets), "values": len(values[0]), "most_error": round(max(errors), 7)}
