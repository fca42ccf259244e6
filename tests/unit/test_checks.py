"""What comes from outside is checked in one place: numbers, records, text, arrays and pictures."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from avatar.checks import Record, frame_rate, image_size, number, read_text, read_toml, whole
from avatar.errors import AvatarError, printable
from avatar.io.arrays import check_numbers, check_shape, check_tensors, load_array, load_state
from avatar.io.images import announced_size, read_image, write_jpeg, write_png
from avatar.paths import read_json

NOT_NUMBERS = (math.nan, math.inf, -math.inf, "5", None, True, [], {}, 10**400, 10**5000, 1e12, -25)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=range(len(NOT_NUMBERS)))
def test_numbers_out_of_range_are_one_sentence_with_the_field(value: Any) -> None:
    for check in (lambda: frame_rate(value, "a.json: fps"), lambda: whole(value, "a.json: fps", 1, 1000)):
        with pytest.raises(AvatarError, match=r"a\.json: fps is ") as error:
            check()
        assert "\n" not in str(error.value) and len(str(error.value)) < 200
    assert (frame_rate(25, ""), number(-0.5, "", -1, 0), whole(3.0, "", 0, 3)) == (25.0, -0.5, 3)


def test_records_say_what_is_missing_and_do_not_mind_more() -> None:
    data = Record({"a": 1, "more": [[]], "b": {"names": ["x", "x"]}}, "f.json")
    assert data.whole("a", 0, 5) == 1 and data.whole("c", 0, 5, 4) == 4
    with pytest.raises(AvatarError, match=r"f\.json lacks c\."):
        data.number("c", 0, 1)
    with pytest.raises(AvatarError, match=r"f\.json: b: names is not a list of different names"):
        data.record("b").names("names")
    for wrong in (None, 3, [], "text"):
        with pytest.raises(AvatarError, match=r"f\.json is .*not a JSON object"):
            Record(wrong, "f.json")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000 + b"]" * 100_000, b"[" * 100 + b"]" * 100,
        "{}".encode("utf-16-le"), b'{"a": "\xff"}', b"\xff\xfe\x00", b'{"a": 1}{"b": 2}', b"\xef\xbb\xbf",
    ],
)  # fmt: skip
def test_broken_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AvatarError, match=r"a\.json cannot be read as JSON: .*\. Delete it") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_json_is_read_in_any_usual_encoding(tmp_path: Path) -> None:
    for codec in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode(codec))
        assert read_json(tmp_path / "a.json") == {"a": "é"}


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "is not a file"),
        (tmp_path / "none", "does not exist"),
        (Path("/dev/zero"), "not a"),
    ):
        with pytest.raises(AvatarError, match=says):
            read_text(path, "JSON")
    (tmp_path / "a.toml").write_bytes(b"a = [" * 3000)
    with pytest.raises(AvatarError, match=r"a\.toml cannot be read as TOML"):
        read_toml(tmp_path / "a.toml")


def test_text_of_more_values_than_memory_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avatar.checks._TEXT_VALUES", 1000)
    (tmp_path / "a.json").write_text("[" + "[]," * 5000 + "[]]")
    with pytest.raises(AvatarError, match=r"a\.json is too large"):
        read_json(tmp_path / "a.json")


def test_errors_can_be_printed_on_any_terminal() -> None:
    error = AvatarError("\ud800.json \x1b[31m", why="x" * 10**6, fix="é 漢")
    assert str(error).encode("utf-8") and "\x1b" not in str(error) and "é 漢" in str(error)
    assert len(str(error)) < 3000 and printable("\udcff") == "\\udcff"
    assert printable("می\u200cرود.mp4") == "می\u200cرود.mp4" and printable("a\u202eb") == "a\\u202eb"


def test_shapes_and_numbers_of_arrays() -> None:
    sizes: dict[str, int] = {}
    check_shape(torch.zeros(4, 3), "t", "N 3", sizes)
    assert sizes == {"N": 4}
    for shape in ("N", "N 4", "5 3", "3 N", ""):
        with pytest.raises(AvatarError, match=r"t has the shape \[4, 3\], expected \["):
            check_shape(torch.zeros(4, 3), "t", shape, {"N": 4} if shape != "3 N" else {})
    for bad in (math.nan, math.inf, -1e20):
        with pytest.raises(AvatarError, match="t holds"):
            check_numbers(torch.tensor([0.0, bad]), "t")
    for wrong in (torch.zeros(1, dtype=torch.complex64), torch.zeros(1, dtype=torch.int32), np.array(["a"])):
        with pytest.raises(AvatarError, match="t has the type"):
            check_numbers(wrong, "t")
    with pytest.raises(AvatarError, match="f lacks the tensor b"):
        check_tensors({"a": torch.zeros(2)}, "f", {"a": "N", "b": "N"})
    with pytest.raises(AvatarError, match="f: a goes from 0 to 7, not from 0 to 6"):
        check_tensors({"a": torch.tensor([0, 7])}, "f", {"a": "N"}, {"a": 7})


def test_a_network_takes_its_own_state_only() -> None:
    net = torch.nn.Linear(2, 1)
    good = dict(net.state_dict())
    load_state(net, good, "f")
    for change, says in (
        ({"weight": torch.zeros(1, 3)}, "weight has the shape"), ({"more": torch.zeros(1)}, "unknown tensor more"),
        ({"bias": torch.tensor([math.nan])}, "bias holds NaN"), ({"bias": torch.tensor([1])}, "type int64"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=says):
            load_state(net, good | change, "f")
    with pytest.raises(AvatarError, match="lacks tensor bias"):
        load_state(net, {"weight": good["weight"]}, "f")


def test_arrays_are_no_larger_than_their_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert load_array(path, "T 3").sum() == 15
    good = path.read_bytes()
    lies = {
        b"(2, 3)": (b"(9, 3)", b"(-1,3)", b"((2,3)", b"(2e9,)"), b"'<f4'": (b"'|O' ", b"'<U1'", b"'>f4'", b"'<i4'"),
    }  # fmt: skip
    for old, news in lies.items():
        for new in news:
            path.write_bytes(good.replace(old, new))
            with pytest.raises(AvatarError, match=r"a\.npy"):
                load_array(path, "T 3")
    path.write_bytes(good[:-4] + struct.pack("<f", math.nan))
    with pytest.raises(AvatarError, match=r"a\.npy holds NaN"):
        load_array(path, "T 3")
    assert np.isnan(load_array(path, "T 3", finite=False)[1, 2])


def test_pictures_are_measured_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    for name, write in (("a.jpg", write_jpeg), ("a.png", write_png)):
        write(tmp_path / name, picture)
        assert announced_size((tmp_path / name).read_bytes()) == (60, 40)
        assert read_image(tmp_path / name, cv2.IMREAD_COLOR).shape == (40, 60, 3)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (65500).to_bytes(2, "big") * 2
    (tmp_path / "huge.jpg").write_bytes(data)
    (tmp_path / "other.jpg").write_bytes(b"II*\x00" + b"\x00" * 100)  # a TIFF
    (tmp_path / "cut.jpg").write_bytes(data[:at])

    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    for name, says in (("huge", "width is 65500"), ("other", "not a JPEG or PNG"), ("cut", "not a JPEG or PNG")):
        with pytest.raises(AvatarError, match=rf"{name}\.jpg.*{says}"):
            read_image(tmp_path / f"{name}.jpg", cv2.IMREAD_COLOR)
    with pytest.raises(AvatarError, match="at most"):
        image_size(16_000, 16_000, "a.png")
