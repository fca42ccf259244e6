"""Hostile sound, video and datasets: their headers decide nothing about time, memory or disk."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avatar.cli.main import main
from avatar.data import ernerf
from avatar.errors import AvatarError
from avatar.infer.sources import AudioFile
from avatar.io import video
from avatar.io.audio import load_audio, probe_audio
from avatar.io.images import write_jpeg
from avatar.paths import write_json
from tests.media import write_sound


def film(path: Path, times: list[float], sizes: tuple[int, ...] = (64,)) -> Path:
    """A video whose pictures are shown at these seconds; its side changes as it goes on."""
    tick = Fraction(1, 1000)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width = stream.height = sizes[0]
        stream.pix_fmt = "yuvj420p"
        stream.codec_context.time_base = tick
        for i, time in enumerate(times):
            picture = np.full((sizes[0], sizes[0], 3), i * 7 % 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_gap_of_hours_is_not_filled_with_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = film(tmp_path / "v.mkv", [i / 25 for i in range(30)] + [20_000 + i / 25 for i in range(30)])
    assert main(["prepare", str(path), "--out", str(tmp_path / "p")]) == 2
    assert "v.mkv shows nothing new for 19999 s, from second 1.2 on" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "p").exists()


def test_few_pictures_in_much_time_are_no_video(tmp_path: Path) -> None:
    for times in ([59.0 * i for i in range(10)], [40.0 * i for i in range(20)] + [800 + i / 25 for i in range(20)]):
        with pytest.raises(AvatarError, match=r"v\.mkv.*(frames per second is|has only)"):
            video.read_info(film(tmp_path / "v.mkv", times))


def test_a_day_of_pictures_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "v.mkv", [i / 25 for i in range(60)])
    monkeypatch.setattr(video, "MOST_READ", 50)
    with pytest.raises(AvatarError, match=r"v\.mkv has 60 frames in .* at most 50 are read"):
        video.read_info(path)


def test_a_pause_is_bridged(tmp_path: Path) -> None:
    info = video.read_info(film(tmp_path / "v.mkv", [i / 25 for i in range(60)] + [12 + i / 25 for i in range(60)]))
    assert info.num_frames == len(list(video.read_frames(info))) < 400


def test_the_size_of_a_picture_is_known_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "v.mkv", [i / 25 for i in range(30)])
    monkeypatch.setattr(video, "declared_size", lambda _: (65_500, 65_500))
    with pytest.raises(AvatarError, match=r"v\.mkv: its video track: width is 65500"):
        video.read_info(path)
    monkeypatch.setattr(video, "declared_size", lambda _: (64, 64))  # a header that lies
    monkeypatch.setattr(video, "MOST_PIXELS", 1000)
    with pytest.raises(AvatarError, match=r"v\.mkv"):
        video.read_info(path)


# -- sound -----------------------------------------------------------------------------------------------------------

_RATE, _BITS, _DATA = (24, "<I"), (34, "<H"), (40, "<I")  # place in a WAV header, and form


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (_RATE, 0, "audio"), (_RATE, 3, "sample rate is 3"), (_RATE, 0x7FFFFFFF, "sample rate is"),
        (_RATE, 0xF149F2CA, "audio"), (_BITS, 0, "audio"),
    ],
)  # fmt: skip
def test_sound_with_an_impossible_header_is_refused(
    tmp_path: Path, field: tuple[int, str], value: int, says: str
) -> None:
    data = bytearray(write_sound(tmp_path / "a.wav", 1.0).read_bytes())
    struct.pack_into(field[1], data, field[0], value)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AvatarError, match=rf"a\.wav.*{says}"):
        load_audio(tmp_path / "a.wav")


def test_a_length_that_the_file_cannot_hold_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(write_sound(tmp_path / "a.wav", 2.0).read_bytes())
    struct.pack_into("<I", data, 40, 0xFFFFFF00)
    (tmp_path / "a.wav").write_bytes(data)
    assert AudioFile(tmp_path / "a.wav").frames(25.0) == 50
    assert abs(len(load_audio(tmp_path / "a.wav")) - 32_000) < 100


def test_sound_that_is_too_long_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avatar.io.audio._MAX_SECONDS_HELD", 1.0)
    with pytest.raises(AvatarError, match=r"a\.wav lasts more than"):
        load_audio(write_sound(tmp_path / "a.wav", 20.0))
    assert probe_audio(tmp_path / "a.wav").duration == 20


# -- datasets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "d"
    (folder / ernerf.IMAGES).mkdir(parents=True)
    for i in range(10):
        write_jpeg(folder / ernerf.IMAGES / f"{i}.jpg", np.zeros((16, 16, 3), np.uint8))
    write_sound(folder / ernerf.AUDIO, 0.4)
    return folder


def transforms(folder: Path, **change: object) -> Path:
    frame = {"img_id": 1, "transform_matrix": np.eye(4).tolist()}
    path = folder / ernerf.TRAIN
    write_json(path, {"focal_len": 100, "cx": 8, "cy": 8, "frames": [frame | change]} | {
        name: value for name, value in change.items() if name in ("fps", "focal_len", "frames")
    })  # fmt: skip
    return path


def test_numbers_of_pictures_are_not_counted_up_to(dataset: Path) -> None:
    pictures = dataset / ernerf.IMAGES
    for name in ("²³.jpg", "٣.jpg", f"{'9' * 40}.jpg", "a.jpg"):
        (pictures / name).write_bytes((pictures / "0.jpg").read_bytes())
    assert ernerf.read_info(dataset).num_frames == 10  # names of other things
    (pictures / "999999999.jpg").write_bytes(b"")
    with pytest.raises(AvatarError, match=r"ori_imgs/10\.jpg is missing; 999999989 of the images"):
        ernerf.read_info(dataset)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"img_id": float("inf")}, r"frames\[0\]: img_id is inf"), ({"img_id": 10**400}, "img_id is an integer of"),
        ({"img_id": -1}, "img_id is -1"), ({"img_id": 1.5}, "img_id is 1.5"), ({"img_id": "1"}, "img_id is '1'"),
        ({"transform_matrix": [[float("nan")] * 4] * 4}, "transform_matrix is nan"), ({"fps": 1e12}, "fps is"),
        ({"transform_matrix": [[1] * 4] * 3}, "not a matrix"), ({"fps": -25}, "fps is -25"),
        ({"frames": {}}, "an object"), ({"focal_len": 0}, "focal_len is 0"),
    ],
)  # fmt: skip
def test_transforms_are_checked(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(AvatarError, match=rf"transforms_train\.json.*{says}"):
        ernerf.read_transforms(transforms(tmp_path, **change))


def test_a_picture_that_claims_to_be_huge_is_refused(dataset: Path) -> None:
    path = dataset / ernerf.IMAGES / "0.jpg"
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (65_500).to_bytes(2, "big") * 2
    path.write_bytes(data)
    with pytest.raises(AvatarError, match=r"0\.jpg: width is 65500"):
        ernerf.read_info(dataset)
