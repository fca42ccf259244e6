"""Motion for other programs: packets of Live Link Face, VRM animations and visemes, read by readers written here."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.export import vrma
from avatar.export.base import ExportSource
from avatar.export.live_link_udp import LiveLinkUdp, send_paced
from avatar.export.motion_files import LiveLink
from avatar.export.visemes import Visemes
from avatar.export.vrma import SKELETON, Vrma
from avatar.motion import Motion
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.arkit_files import head_angles
from avatar.motion.visemes import OVR, PROTOTYPES, ovr_visemes, prototype
from tests.unit.test_export_gaussians import read_glb

FPS = 200.0  # fast: packets are sent at this rate
NAME = "Ünal نیما\u200cپور"  # of a Persian, with a joiner that is not printable


@pytest.fixture
def motion() -> Motion:
    """Twelve frames of random coefficients, a turning head and wandering eyes."""
    rng = np.random.default_rng(3)
    return Motion.zeros(12, FPS).map(
        arkit=torch.from_numpy(rng.uniform(0, 1, (12, 52)).astype(np.float32)),
        head_rotation=torch.from_numpy(rng.uniform(-0.4, 0.4, (12, 3)).astype(np.float32)),
        gaze=torch.from_numpy(rng.uniform(-0.4, 0.4, (12, 2)).astype(np.float32)),
    )


@pytest.fixture
def source(motion, tmp_path) -> ExportSource:
    return ExportSource(folder=tmp_path, motion=motion)


# --- Live Link Face ---------------------------------------------------------------------------------------------------


def read_packet(data: bytes) -> tuple[str, str, int, float, int, int, list[float]]:
    """Device, subject, frame, sub-frame, rate and values, as Unreal's plug-in reads them."""
    assert data[0] == 6
    at, texts = 1, []
    for _ in range(2):
        (length,) = struct.unpack_from(">i", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    frame, part, numerator, denominator, count = struct.unpack_from(">ifiiB", data, at)
    values = struct.unpack_from(f">{count}f", data, at + 17)
    assert len(data) == at + 17 + 4 * count
    return *texts, frame, part, numerator, denominator, [*values]


def test_packets_hold_what_the_file_of_the_app_holds(source, tmp_path):
    LiveLink().write(source, tmp_path / "a.csv")
    names, *rows = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        port = receiver.getsockname()[1]
        LiveLinkUdp(send=f"127.0.0.1:{port}", subject=NAME, repeat=2).write(source, tmp_path / "none")
        packets = [read_packet(receiver.recv(4096)) for _ in range(24)]
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)
    assert not (tmp_path / "none").exists()
    order = [name[0].upper() + name[1:] for name in ARKIT] + names[-9:]
    assert order[15:17] == ["JawLeft", "JawRight"] and names[17:19] == ["JawRight", "JawLeft"]  # unlike in the CSV
    for number, (device, subject, frame, part, numerator, denominator, values) in enumerate(packets):
        assert (subject, frame, part, numerator, denominator) == (NAME, number, 0.0, 200, 1) and len(device) == 36
        expected = dict(zip(names, rows[number % 12], strict=True))
        assert values == pytest.approx([float(expected[name]) for name in order], abs=1e-7)
    assert len({packet[0] for packet in packets}) == 1


def test_sending_does_not_drift():
    now, sent = [100.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds + 0.003  # a system that sleeps too long

    def send(index: int) -> None:
        sent.append(now[0] - 100)
        if index == 50:
            now[0] += 0.5  # busy for a while

    send_paced(send, 250, 25.0, lambda: now[0], sleep)
    late = np.array(sent) - np.arange(250) / 25
    assert late.min() >= 0 and late[:50].max() < 0.004 and late[70:].max() < 0.004
    assert now[0] - 100 == pytest.approx(10.0, abs=0.004)  # the last frame lasts as long as the others


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"send": "127.0.0.1:0"}, "port"),
        ({"send": "127.0.0.1:x"}, "not understood"),
        ({"send": ":11111"}, "not understood"),
        ({"subject": ""}, "no name"),
        ({"subject": "a\n"}, "no name"),
        ({"repeat": 0}, "--repeat"),
        ({"fps": 1000.0}, "--fps 1000"),
    ],
)
def test_mistakes_of_sending_are_named(options, words):
    with pytest.raises(AvatarError, match=words):
        LiveLinkUdp(**options)


def test_an_unknown_host_is_named(source, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(AvatarError, match="There is no host nowhere: Name or service"):
        LiveLinkUdp(send="nowhere").write(source, tmp_path)


def test_an_address_that_belongs_to_an_interface_is_sent_to_through_it(source, tmp_path, monkeypatch):
    address, sent = ("fe80::1", 11111, 0, 3), []

    class Sender(contextlib.nullcontext):
        def __enter__(self):
            return self

        def sendto(self, data: bytes, to: object) -> None:
            sent.append(to)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", address)])
    monkeypatch.setattr(socket, "socket", lambda *_: Sender())
    LiveLinkUdp(send="[fe80::1%en0]:11111", fps=240.0).write(source, tmp_path)
    assert {*sent} == {address}


# --- VRM --------------------------------------------------------------------------------------------------------------


def matrices(quats: np.ndarray) -> np.ndarray:
    x, y, z, w = quats.astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def read_vrma(path: Path):
    """The extension, and values over time by node and path."""
    document, numbers = read_glb(path)
    (animation,) = document["animations"]
    tracks = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = numbers(sampler["input"])[:, 0]
        tracks[channel["target"]["node"], channel["target"]["path"]] = numbers(sampler["output"])
    assert "VRMC_vrm_animation" in document["extensionsUsed"]
    reached = {*document["scenes"][0]["nodes"]}
    for node in document["nodes"]:
        reached |= {*node.get("children", ())}
    assert reached == {*range(len(document["nodes"]))}
    return document["extensions"]["VRMC_vrm_animation"], tracks, times


def test_a_vrm_animation_turns_the_head_and_the_eyes(source, motion, tmp_path):
    Vrma(expressions="both").write(source, tmp_path / "a.vrma")
    extension, tracks, times = read_vrma(tmp_path / "a.vrma")
    assert extension["specVersion"] == "1.0" and {*extension["humanoid"]["humanBones"]} == {*SKELETON}
    assert times == pytest.approx(np.arange(12) / FPS)
    neck, head = (
        matrices(tracks[extension["humanoid"]["humanBones"][bone]["node"], "rotation"]) for bone in ("neck", "head")
    )
    front = (neck @ head)[:, :, 2]  # where the face points: x is the person's left, y is up
    yaw, pitch, _ = np.radians(head_angles(motion.head_rotation)).T
    assert np.arctan2(front[:, 0], front[:, 2]) == pytest.approx(yaw, abs=1e-5)
    assert np.arcsin(front[:, 1]) == pytest.approx(pitch, abs=1e-5)
    look = matrices(tracks[extension["lookAt"]["node"], "rotation"])[:, :, 2]
    gaze = motion.gaze.numpy()
    assert np.arctan2(look[:, 0], look[:, 2]) == pytest.approx(gaze[:, 0], abs=1e-5)
    assert np.arcsin(look[:, 1]) == pytest.approx(gaze[:, 1], abs=1e-5)
    custom = extension["expressions"]["custom"]
    for index, name in enumerate(ARKIT):
        values = tracks[custom[name]["node"], "translation"]
        assert values[:, 0] == pytest.approx(motion.arkit[:, index].numpy()) and not values[:, 1:].any()


def test_presets_never_move_an_eye_twice(motion, source, tmp_path):
    Vrma().write(source, tmp_path / "a.vrma")
    extension, tracks, _ = read_vrma(tmp_path / "a.vrma")
    preset = {n: tracks[e["node"], "translation"][:, 0] for n, e in extension["expressions"]["preset"].items()}
    assert "custom" not in extension["expressions"]
    for side in ("Left", "Right"):
        assert preset["blink"] + preset[f"blink{side}"] == pytest.approx(
            motion.arkit[:, INDEX[f"eyeBlink{side}"]].numpy(), abs=1e-6
        )
    assert (np.minimum(preset["blinkLeft"], preset["blinkRight"]) == 0).all()
    vowels = np.stack([preset[name] for name in ("aa", "ih", "ou", "ee", "oh")])
    assert (vowels >= 0).all() and (vowels.sum(0) <= 1 + 1e-6).all() and vowels.max() > 0.1


def test_quaternions_of_neighbours_have_the_same_sign():
    turns = torch.zeros(40, 3)
    turns[:, 1] = torch.linspace(2.0, 4.0, 40)  # through half a turn, where the sign of w changes
    quats = vrma.up_quaternions(turns)
    assert ((quats[1:] * quats[:-1]).sum(1) > 0.9).all()


# --- visemes ----------------------------------------------------------------------------------------------------------


def test_each_prototype_is_its_viseme():
    weights = ovr_visemes(np.stack([prototype(name) for name in PROTOTYPES]))
    assert [OVR[i] for i in weights.argmax(1)] == [*PROTOTYPES] and weights.max(1).min() > 0.8
    assert weights.sum(1) == pytest.approx(1, abs=1e-5)
    rest = ovr_visemes(np.zeros((1, 52), np.float32))[0]
    assert OVR[int(rest.argmax())] == "sil" and rest[0] == 1
    half = ovr_visemes(0.5 * prototype("aa")[None])[0]  # half open is half the weight
    assert 0.4 < half[OVR.index("aa")] < 0.6 and half[0] == pytest.approx(0.5, abs=0.1)


def test_visemes_are_written_by_name_and_time(source, motion, tmp_path):
    Visemes(fps=100).write(source, tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["format"] == "avatar-visemes-1" and len(found["names"]) == 15 and found["fps"] == 100
    assert [frame["time"] for frame in found["frames"]] == pytest.approx(np.arange(6) / 100)
    assert found["frames"][1]["visemes"] == pytest.approx(ovr_visemes(motion.arkit.numpy())[2], abs=1e-4)
