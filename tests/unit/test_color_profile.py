"""Colour profiles of photos: Display P3 becomes sRGB, and what cannot be read changes nothing."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from avatar.io.color_profile import read_profile, to_srgb
from avatar.preprocess.photo import read_photo

# Colorants of Display P3 and sRGB, adapted to the white of profiles (D50), as columns.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def profile_of(colorants: np.ndarray, name: str, gamma: float = 2.2) -> bytes:
    """A profile (ICC version 2) of three colorants and one gamma."""
    text = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)

    def point(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0none\0", b"wtpt": point(np.array([0.9642, 1.0, 0.8249]))}
    tags |= {b"rgb"[i : i + 1] + b"XYZ": point(colorants[:, i]) for i in range(3)}
    tags |= {b"rgb"[i : i + 1] + b"TRC": curve for i in range(3)}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", head, 0, start + len(body), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head[36:40] = b"acsp"
    struct.pack_into(">3i", head, 68, *(round(65536 * value) for value in (0.9642, 1.0, 0.8249)))
    return bytes(head) + table + body


def expected(image: np.ndarray) -> np.ndarray:
    """What values of Display P3 with a gamma of 2.2 are in sRGB."""
    linear = np.linalg.solve(SRGB, P3 @ ((image.reshape(-1, 3) / 255) ** 2.2).T).T.clip(0, 1)
    return 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).reshape(image.shape)


def skin() -> np.ndarray:
    """Colours of skin, lips and cloth, and one that sRGB does not hold, uint8 [16, 24, 3]."""
    colors = np.array([[220, 170, 150], [180, 80, 80], [40, 90, 140], [250, 20, 10]], np.uint8)
    return np.repeat(np.repeat(colors.reshape(2, 2, 3), 8, 0), 12, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_of_a_phone_becomes_srgb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo"
    settings = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(skin()).save(path, kind, icc_profile=profile_of(P3, "Display P3"), **settings)
    image, told = read_photo(path)
    assert np.abs(image - expected(skin())).max() < (6 if kind == "JPEG" else 2)
    assert np.abs(expected(skin()) - skin()).max() > 8  # it matters
    assert [item.kind for item in told] == ["profile"] and "from Display P3 to sRGB" in told[0].text


def test_what_is_srgb_or_no_rgb_stays(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = bytearray(profile_of(P3, "Grey"))
    grey[16:20] = b"GRAY"
    for profile in (None, srgb, bytes(grey)):
        Image.fromarray(skin()).save(path, icc_profile=profile)
        image, told = read_photo(path)
        assert np.array_equal(image, skin()) and told == []


def test_a_damaged_profile_changes_nothing_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = profile_of(P3, "Display P3")
    rng = np.random.default_rng(0)
    for cut in (b"x", whole[:100], whole[:200], bytes(4000)):
        image, name = to_srgb(skin(), cut, Path("me.jpg"))
        assert np.array_equal(image, skin()) and name is None
    assert "colour profile of me.jpg is damaged" in " ".join(capsys.readouterr().err.split())
    for _ in range(200):  # any other byte: converted somehow, or left
        torn = bytearray(whole)
        torn[rng.integers(len(torn))] = rng.integers(256)
        assert to_srgb(skin(), bytes(torn), Path("me.jpg"))[0].shape == skin().shape


def test_files_without_an_image_have_no_profile(tmp_path: Path) -> None:
    kept = io.BytesIO()
    Image.fromarray(skin()).save(kept, "PNG", icc_profile=profile_of(P3, "Display P3"))
    for data in (b"", b"text", kept.getvalue()[:30], kept.getvalue()[:60]):
        (tmp_path / "a.png").write_bytes(data)
        assert read_profile(tmp_path / "a.png") is None
