"""Gaussians in files of other programs, read back by readers that are written here."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.export import gaussians, ply
from avatar.export.base import ExportSource
from avatar.export.ply import Ply
from avatar.export.spz import spz_bytes
from avatar.export.write import export_avatar
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.avatar import Avatar
from avatar.motion import Motion
from tests.person import make_person, small_config, train

STRAIGHT, FLIP = np.eye(3), np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    train(small_config(make_person(folder / "person", frames=24, size=64), folder / "run", steps=2))
    return folder / "run"


@pytest.fixture(scope="module")
def source(run) -> ExportSource:
    return ExportSource(folder=run, avatar=Avatar.load(run, device="cpu", precision="float32"))


def posed(source, motion=None, index=0):
    """Means [N, 3] in metres about the head at rest, y down, and covariances [N, 3, 3], in float64."""
    rest = source.avatar.model.reference_motion(25.0)
    with torch.no_grad():
        splats = source.avatar.model.splats(rest if motion is None else motion, index)
    turn = axis_angle_to_matrix(rest.head_rotation[0].double()).numpy()
    means = (splats.means.double().numpy() - rest.head_translation[0].double().numpy()) @ turn / 100
    return splats, means, turn.T @ covariances(splats.quats.numpy(), splats.scales.numpy() / 100) @ turn


def covariances(quats, scales):
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T.astype(np.float64)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    turn = np.moveaxis(np.array(rows), 2, 0) * scales[:, None, :].astype(np.float64)
    return turn @ np.swapaxes(turn, 1, 2)


def read_ply(path: Path) -> dict[str, np.ndarray]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    count = int(lines[2].removeprefix("element vertex "))
    table = np.frombuffer(body, "<f4").reshape(count, len(names)).astype(np.float64)
    return {name: table[:, i] for i, name in enumerate(names)}


def columns(table, name, count):
    return np.stack([table[f"{name}_{i}"] for i in range(count)], 1)


def check_ply(path: Path, source, motion=None, index=0, flip=STRAIGHT):
    table = read_ply(path)
    splats, means, spread = posed(source, motion, index)
    assert np.allclose(np.stack([table[a] for a in "xyz"], 1), means @ flip, atol=1e-6)
    found = covariances(columns(table, "rot", 4), np.exp(columns(table, "scale", 3)))
    assert np.abs(found - flip @ spread @ flip).max() < 1e-5 * np.abs(spread).max()
    assert np.allclose(0.5 + 0.28209479177387814 * columns(table, "f_dc", 3), splats.colors, atol=1e-6)
    assert np.allclose(1 / (1 + np.exp(-table["opacity"])), splats.opacities, atol=1e-6)
    return table


def test_a_ply_holds_the_neutral_head_exactly(run, source, tmp_path):
    assert main(["export", str(run), "--format", "ply", "--out", str(tmp_path / "a.ply"), "--device", "cpu"]) == 0
    table = check_ply(tmp_path / "a.ply", source)
    assert [*table][:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    Ply(up="+y", sh_degree=3).write(source, tmp_path / "b.ply")
    up = check_ply(tmp_path / "b.ply", source, flip=FLIP)
    assert len(up) == len(table) + 45 and not up["f_rest_44"].any()


def test_a_moment_of_a_motion_is_in_the_space_of_the_head_at_rest(run, source, tmp_path):
    motion = Motion.load(run / "motion.safetensors")
    out = tmp_path / "a.ply"
    options = ["--motion", str(run / "motion.safetensors"), "--at", "0.2", "--device", "cpu"]
    assert main(["export", str(run), "--format", "ply", "--out", str(out), *options]) == 0
    moved = check_ply(out, source, motion, 5)
    export_avatar(source, "ply", tmp_path / "head.ply", torso=False)
    head = read_ply(tmp_path / "head.ply")
    assert len(head["x"]) == int((posed(source)[0].region < 6).sum()) < len(moved["x"])


def test_every_frame_of_a_sequence_is_a_file(run, source, tmp_path, capsys):
    out = tmp_path / "sequence"
    motion = Motion.load(run / "motion.safetensors")
    command = ["export", str(run), "--format", "ply-sequence", "--motion", str(run / "motion.safetensors"),
               "--out", str(out), "--fps", "5", "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    facts = json.loads((out / "sequence.json").read_text())
    assert facts["fps"] == 5 and facts["frames"] == len([*out.glob("*.ply")]) == round(len(motion) / 5)
    check_ply(out / "000001.ply", source, motion, 5)
    assert main(command) == 2
    assert "already holds a sequence" in capsys.readouterr().err
    (out / "mine.txt").write_text("kept until it is replaced")
    assert main([*command, "--overwrite"]) == 0 and not (out / "mine.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    command[command.index(str(out))] = str(other)
    assert main([*command, "--overwrite"]) == 2 and [*other.iterdir()] == [other / "mine.txt"]
    assert "did not write" in capsys.readouterr().err


def read_spz(data: bytes):
    """A reader after the format's description: y up, version 3."""
    raw = gzip.decompress(data)
    magic, version, count, degree, bits, flags, _ = struct.unpack_from("<4sIIBBBB", raw)
    assert (magic, version, degree, flags) == (b"NGSP", 3, 0, 0) and len(raw) == 16 + 20 * count
    parts, at = [], 16
    for width in (9, 1, 3, 3, 4):
        parts.append(np.frombuffer(raw, np.uint8, count * width, at).reshape(count, width).astype(np.int64))
        at += count * width
    places, alpha, color, scale, rotation = parts
    fixed = places[:, 0::3] | places[:, 1::3] << 8 | places[:, 2::3] << 16
    means = (fixed - (fixed >> 23 << 24)) / 2.0**bits
    packed = rotation @ (256 ** np.arange(4))
    quats = np.zeros((count, 4))
    for row, code in enumerate(packed.tolist()):
        largest = code >> 30
        for component in (3, 2, 1, 0):
            if component != largest:
                quats[row, component] = (code & 511) / 511 / np.sqrt(2) * (-1 if code & 512 else 1)
                code >>= 10
        quats[row, largest] = np.sqrt(max(0.0, 1 - (quats[row] ** 2).sum()))
    return means, alpha[:, 0] / 255, (color / 255 - 0.5) / 0.15, scale / 16 - 10, quats[:, [3, 0, 1, 2]], bits


def test_an_spz_holds_the_same_within_its_quantisation(source):
    cloud = gaussians.posed(source, None, 0, "+y")
    means, alpha, harmonics, scales, quats, bits = read_spz(spz_bytes(cloud))
    assert np.allclose(means, posed(source)[1] @ FLIP, atol=2.0 ** -(bits + 1) + 1e-6) and bits >= 20
    assert np.abs(alpha - cloud.opacities).max() <= 0.5 / 255 + 1e-6
    assert np.abs(harmonics - cloud.harmonics).max() <= 0.5 / 255 / 0.15 + 1e-6
    shown = np.log(cloud.scales) > -10  # smaller ones are 0.05 mm
    assert np.abs(scales - np.log(cloud.scales))[shown].max() <= 1 / 32 + 1e-6
    turn = np.abs((quats * cloud.quats).sum(1)).clip(0, 1)
    assert np.degrees(2 * np.arccos(turn)).max() < 0.3


def read_glb(path: Path):
    data = path.read_bytes()
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, kind) == (b"glTF", 2, len(data), b"JSON") and length % 4 == 0
    document, body = json.loads(data[20 : 20 + length]), data[28 + length :]
    assert struct.unpack_from("<I4s", data, 20 + length) == (len(body), b"BIN\0")
    assert document["buffers"] == [{"byteLength": len(body)}]

    def numbers(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        kind = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == accessor["count"] * width * np.dtype(kind).itemsize
        values = np.frombuffer(body, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        if "min" in accessor:
            assert accessor["min"] == values.min(0).tolist() and accessor["max"] == values.max(0).tolist()
        return values

    return document, numbers


def test_a_glb_holds_gaussians_and_points(run, source, tmp_path):
    assert main(["export", str(run), "--format", "glb", "--out", str(tmp_path / "a.glb"), "--device", "cpu"]) == 0
    document, numbers = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0 and "KHR_gaussian_splatting" in document["extensionsUsed"]
    extension = primitive["extensions"]["KHR_gaussian_splatting"]
    assert extension == {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    found = {name.rpartition(":")[2]: numbers(index) for name, index in primitive["attributes"].items()}
    splats, means, spread = posed(source)
    assert np.allclose(found["POSITION"], means @ FLIP, atol=1e-6)
    shape = covariances(found["ROTATION"][:, [3, 0, 1, 2]], found["SCALE"])
    assert np.abs(shape - FLIP @ spread @ FLIP).max() < 1e-5 * np.abs(spread).max()
    assert np.allclose(found["OPACITY"][:, 0], splats.opacities, atol=1e-6)
    color = 0.5 + 0.28209479177387814 * found["SH_DEGREE_0_COEF_0"]
    assert np.allclose(color, splats.colors, atol=1e-6)
    shown = (found["COLOR_0"] / 65535)[:, :3] ** (1 / 2.2)  # nearly sRGB
    assert np.abs(shown - color.clip(0, 1)).max() < 0.04


def test_a_mesh_of_gaussians_is_a_head(run, tmp_path, capsys):
    pytest.importorskip("skimage")
    command = [
        "export",
        str(run),
        "--format",
        "mesh",
        "--device",
        "cpu",
        "--texture",
        "0",
        "--out",
        str(tmp_path / "a.glb"),
    ]
    assert main([*command, "--resolution", "20"]) == 0
    document, numbers = read_glb(tmp_path / "a.glb")
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    places, colors = numbers(attributes["POSITION"]), numbers(attributes["COLOR_0"])
    assert len(places) > 200 and np.ptp(places, axis=0).min() > 0.1 and np.ptp(places, axis=0).max() < 0.4
    front = colors[places[:, 2] > np.quantile(places[:, 2], 0.9), :3] / 65535
    assert (front.mean(0)[0] > front.mean(0)[2]) and front.mean() > 0.1  # skin
    capsys.readouterr()
    assert main([*command, "--level", "3"]) == 2
    assert "--level belongs to a density" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ply --at 1", "--at belongs to a motion"),
        ("ply --motion {motion} --at 99", "after the end of the motion, which lasts"),
        ("ply --at -1", "--at is -1"),
        ("ply --sh-degree 4", "--sh-degree is 4"),
        ("ply --emotion happy", "Nothing to say"),
        ("glb --out {folder}/a.ply", "must end in .glb"),
        ("spz --out {folder}", "must end in .spz"),
        ("ply --out {motion}.ply/x.ply", "Cannot write"),
        ("ply-sequence --motion {motion} --out {motion}", "is a file"),
        ("ply-sequence --motion {motion} --out {folder}/s --fps 0", "--fps 0 is out of range"),
        ("frames --motion {motion} --out {motion}", "is a file"),
    ],
)
def test_mistakes_are_named(run, tmp_path, capsys, options, words):
    (tmp_path / "m.safetensors").write_bytes((run / "motion.safetensors").read_bytes())
    (tmp_path / "m.safetensors.ply").write_text("in the way")
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    text = options.format(motion=tmp_path / "m.safetensors", folder=tmp_path).split()
    out = [] if "--out" in text else ["--out", str(tmp_path / f"new.{text[0]}")]
    assert main(["export", str(run), "--device", "cpu", "--format", *text, *out]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert words in error and "Traceback" not in error
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before


def test_a_full_disk_and_broken_numbers_are_refused(run, source, tmp_path, monkeypatch):
    motion = Motion.load(run / "motion.safetensors")
    full = ExportSource(folder=run, avatar=source.avatar, motion=motion)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(ply.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(AvatarError, match=r"need 0\.0 GiB"):
        export_avatar(full, "ply-sequence", tmp_path / "s")
    assert not [*tmp_path.iterdir()]
    splats = source.avatar.model.splats(source.avatar.model.reference_motion(25.0), 0)
    splats.means[3] = torch.nan
    monkeypatch.setattr(source.avatar.model, "splats", lambda *_: splats)
    with pytest.raises(AvatarError, match="NaN"):
        Ply().write(source, tmp_path / "a.ply")
    assert not [*tmp_path.iterdir()]
