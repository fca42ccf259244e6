"""Frames come out upright, with square pixels, in SDR BT.709, progressive and of one size, and it is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.io.video import VideoInfo, read_frames, read_info, sample_frames
from tests.films import coded, film, moving, woven

ONE = 1 << 16  # of the display matrix
FAR = 1 << 30


def kinds(info: VideoInfo) -> list[str]:
    return [treatment.kind for treatment in info.treatments]


def error(image: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(image.astype(int) - expected).mean())


# -- orientation -----------------------------------------------------------------------------------------------------

# Where the display matrix puts the columns and rows of a frame, and the same done to an array.
ORIENTATIONS = {
    "as it is": ((1, 0, 0, 1), lambda a: a),
    "mirrored": ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda a: a[::-1]),
    "clockwise": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    "counter-clockwise": ((0, -1, 1, 0), lambda a: np.rot90(a)),
    "transposed": ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda a: np.rot90(a, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_whole_display_matrix_is_applied(tmp_path: Path, name: str, suffix: str) -> None:
    (a, b, c, d), expected = ORIENTATIONS[name]
    plain = next(read_frames(read_info(film(tmp_path / "plain.mp4", moving(10)))))
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, FAR]
    info = read_info(film(tmp_path / f"v{suffix}", moving(10), matrix=matrix))
    images = list(read_frames(info))
    assert images[0].shape == (info.height, info.width, 3)
    assert np.array_equal(images[0], expected(plain))
    assert np.array_equal(next(sample_frames(info, 3)).shape, images[0].shape)
    assert ("mirrored" in kinds(info)) == (a * d - b * c < 0)
    assert ("turned" in kinds(info)) == (name not in ("as it is", "mirrored"))


def test_a_small_slant_is_left_and_said_and_a_large_one_is_refused(tmp_path: Path) -> None:
    def slanted(degrees: float) -> Path:
        cos, sin = (round(ONE * f(np.radians(degrees))) for f in (np.cos, np.sin))
        return film(tmp_path / f"{degrees}.mp4", moving(10), matrix=[cos, sin, 0, -sin, cos, 0, 0, 0, FAR])

    info = read_info(slanted(93))
    assert info.rotation == 90 and kinds(info) == ["turned", "slant"]
    with pytest.raises(AvatarError, match=r"turned by 4\d degrees"):
        read_info(slanted(42))


# -- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel", "size"),
    [(Fraction(4, 3), (128, 64)), (Fraction(3, 4), (96, 85)), (Fraction(64, 45), (137, 64)), (Fraction(10), (96, 64))],
)
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_are_made_square_before_the_picture_is_turned(
    tmp_path: Path, pixel: Fraction, size: tuple[int, int], turned: bool
) -> None:
    matrix = [0, ONE, 0, -ONE, 0, 0, 0, 0, FAR] if turned else None
    info = read_info(film(tmp_path / "v.mp4", moving(10), pixel=pixel, matrix=matrix))
    assert (info.width, info.height) == (size[::-1] if turned else size)
    assert next(read_frames(info)).shape == (info.height, info.width, 3)
    assert ("square-pixels" in kinds(info)) == (pixel < 4) and ("pixel-shape" in kinds(info)) == (pixel > 4)


def parts(path: Path, *films: tuple[int, int, int, Fraction]) -> Path:
    """Transport streams of the given counts, widths, heights and pixels, joined."""
    data = b""
    for count, width, height, pixel in films:
        one = film(
            path.with_name("part.ts"), moving(count, width=width, height=height), pixel=pixel,
            options={"qp": "10", "preset": "veryfast", "bf": "2"},
        )  # fmt: skip
        data += one.read_bytes()
    path.write_bytes(data)
    return path


def test_all_frames_are_brought_to_the_size_that_most_have(tmp_path: Path) -> None:
    square = Fraction(1)
    info = read_info(parts(tmp_path / "v.ts", (20, 96, 64, square), (40, 192, 128, square)))
    assert (info.width, info.height) == (192, 128) and "one-size" in kinds(info)
    images = list(read_frames(info))
    assert len(images) == 60 and {image.shape for image in images} == {(128, 192, 3)}
    assert images[5][:, :4].mean() > 40  # scaled, without edges


def test_another_shape_keeps_its_proportions(tmp_path: Path) -> None:
    info = read_info(parts(tmp_path / "v.ts", (40, 128, 64, Fraction(1)), (20, 64, 128, Fraction(1))))
    assert (info.width, info.height) == (128, 64)
    tall = list(read_frames(info))[-5]
    assert tall[:, :40].max() < 8 and tall[:, 88:].max() < 8 and tall[:, 52:76].mean() > 40  # 32 wide, in the middle
    assert any("black edges" in treatment.text for treatment in info.treatments)


def test_pixels_that_change_their_shape_are_followed(tmp_path: Path) -> None:
    info = read_info(parts(tmp_path / "v.ts", (20, 96, 128, Fraction(4, 3)), (20, 128, 128, Fraction(1))))
    assert (info.width, info.height) == (128, 128)
    assert all(image[:, :3].mean() > 40 for image in read_frames(info))  # nothing needs edges


# -- colours ---------------------------------------------------------------------------------------------------------

PATCHES = np.array(
    [[229, 153, 131], [60, 90, 160], [20, 20, 20], [128, 128, 128], [200, 200, 200], [90, 60, 50], [180, 40, 60]]
)
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])


def hdr(levels: np.ndarray, kind: str, white: float) -> np.ndarray:
    """Signal in 0..1 of SDR levels [N, 3] as BT.2408 puts them into HDR: display light, ``white`` cd/m2 for 255."""
    light = (levels / 255) ** 2.4 @ TO_2020.T * white
    if kind == "PQ":
        y = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    display = light / 1000
    scene = display * np.maximum(display @ LUMINANCE, 1e-9)[:, None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def patches(signal: np.ndarray) -> np.ndarray:
    """Columns of 16 pixels of each colour."""
    return np.repeat(np.repeat(signal[None], 32, 0), 16, 1)


def columns(image: np.ndarray) -> np.ndarray:
    return image.reshape(32, -1, 16, 3)[8:24, :, 4:12].mean((0, 2))


@pytest.mark.parametrize(("kind", "transfer"), [("PQ", 16), ("HLG", 18)])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("tagged", [True, False])
def test_hdr_becomes_the_sdr_that_it_was_made_from(
    tmp_path: Path, kind: str, transfer: int, bits: int, tagged: bool
) -> None:
    levels = np.concatenate([PATCHES, [[255, 255, 255]]])
    frames = [coded(patches(hdr(levels, kind, 203)), bits) for _ in range(5)]
    tags = {"color_trc": transfer} | ({"color_primaries": 9, "colorspace": 9} if tagged else {})
    info = read_info(film(tmp_path / "v.mkv", frames, codec="ffv1", pixel_format=f"yuv444p{bits}le", tags=tags))
    image = columns(next(read_frames(info)))
    assert np.abs(image[:-1] - levels[:-1]).max() < 5
    assert image[-1] == pytest.approx(249, abs=5)  # highlights above white need room
    assert kinds(info) == ["tone-mapped"] and kind in info.treatments[0].text


@pytest.mark.parametrize(("kind", "transfer"), [("PQ", 16), ("HLG", 18)])
def test_colours_that_only_the_container_says_are_known(tmp_path: Path, kind: str, transfer: int) -> None:
    frames = [coded(patches(hdr(PATCHES, kind, 203)))] * 3
    options = {"preset": "ultrafast", "x265-params": "qp=4:log-level=none"}
    path = film(tmp_path / "silent.mkv", frames, codec="libx265", pixel_format="yuv444p10le", options=options)
    with av.open(str(path)) as source, av.open(str(tmp_path / "v.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    info = read_info(tmp_path / "v.mkv")
    assert kinds(info) == ["tone-mapped"] and kind in info.treatments[0].text
    assert np.abs(columns(next(read_frames(info))) - PATCHES).max() < 6


def test_highlights_keep_their_order(tmp_path: Path) -> None:
    levels = np.repeat(np.array([200.0, 255, 300]), 3).reshape(-1, 3)
    frames = [coded(patches(hdr(levels, "PQ", 203)))] * 3
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    image = columns(next(read_frames(read_info(
        film(tmp_path / "v.mkv", frames, codec="ffv1", pixel_format="yuv444p10le", tags=tags)
    ))))  # fmt: skip
    assert (np.diff(image.mean(1)) > 0).all() and image.max() <= 255


def test_sdr_that_was_put_at_100_nits_is_not_dark(tmp_path: Path) -> None:
    levels = np.concatenate([PATCHES, [[255, 255, 255]]])
    frames = [coded(patches(hdr(levels, "PQ", 100)))] * 3
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    info = read_info(film(tmp_path / "v.mkv", frames, codec="ffv1", pixel_format="yuv444p10le", tags=tags))
    assert np.abs(columns(next(read_frames(info)))[:-1] - levels[:-1]).max() < 5
    assert "white at 100" in info.treatments[0].text


def test_a_dim_recording_with_a_few_highlights_stays_dim(tmp_path: Path) -> None:
    levels = np.array([[60.0, 50, 40], [189.0, 189, 189], [255.0, 255, 255]])
    which = np.zeros((320, 320), int)
    which[:16], which[100:108, 100:108] = 1, 2
    signal = hdr(levels, "PQ", 203)[which]
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    info = read_info(film(tmp_path / "v.mkv", [coded(signal)] * 3, codec="ffv1", pixel_format="yuv444p10le", tags=tags))
    assert np.abs(next(read_frames(info))[300, 20].astype(int) - levels[0]).max() < 4


def test_a_dim_recording_stays_dim(tmp_path: Path) -> None:
    levels = np.array([[60.0, 50, 40]] * 30 + [[150.0, 140, 130]] * 6 + [[180.0, 180, 180]])
    signal = np.repeat(np.repeat(hdr(levels, "HLG", 203)[None], 296, 0), 8, 1)
    signal[24:, -8:] = signal[24:, :8]  # the brightest colour is two thousandths
    tags = {"color_trc": 18, "color_primaries": 9, "colorspace": 9}
    info = read_info(film(tmp_path / "v.mkv", [coded(signal)] * 3, codec="ffv1", pixel_format="yuv444p10le", tags=tags))
    assert np.abs(next(read_frames(info))[100, 20].astype(int) - levels[0]).max() < 4


def test_wide_primaries_of_sdr_are_converted(tmp_path: Path) -> None:
    signal = ((PATCHES / 255) ** 2.4 @ TO_2020.T) ** (1 / 2.4)
    tags = {"color_trc": 14, "color_primaries": 9, "colorspace": 9}
    info = read_info(
        film(tmp_path / "v.mkv", [coded(patches(signal))] * 3, codec="ffv1", pixel_format="yuv444p10le", tags=tags)
    )
    assert np.abs(columns(next(read_frames(info))) - PATCHES).max() < 4
    assert kinds(info) == ["primaries"] and "BT.2020" in info.treatments[0].text


@pytest.mark.parametrize(
    "tags",
    [
        {}, {"color_trc": 1, "color_primaries": 1, "colorspace": 1},
        {"color_trc": 6, "color_primaries": 5, "colorspace": 6},
        {"color_trc": 6, "color_primaries": 6, "colorspace": 6},
    ],
)  # fmt: skip
def test_ordinary_colours_are_left_alone(tmp_path: Path, tags: dict[str, int]) -> None:
    image = patches(PATCHES / 255)
    kr, kb = (0.2126, 0.0722) if tags.get("colorspace") == 1 else (0.299, 0.114)
    info = read_info(
        film(tmp_path / "v.mkv", [coded(image, 8, kr, kb)] * 3, codec="ffv1", pixel_format="yuv444p", tags=tags)
    )
    assert np.abs(columns(next(read_frames(info))) - PATCHES).max() <= 2
    assert info.treatments == ()


def test_colours_that_cannot_be_converted_are_refused(tmp_path: Path) -> None:
    path = film(
        tmp_path / "v.mkv", [coded(patches(PATCHES / 255))] * 3, codec="ffv1", pixel_format="yuv444p10le",
        tags={"color_trc": 16, "color_primaries": 9, "colorspace": 14},
    )  # fmt: skip
    with pytest.raises(AvatarError, match=r"v\.mkv are coded as ICtCp.*Export it"):
        read_info(path)


# -- fields ----------------------------------------------------------------------------------------------------------


def combs(image: np.ndarray) -> float:
    """How much neighbouring lines differ, beyond those two apart."""
    grey = image.astype(int)[..., 1]
    return float(np.abs(np.diff(grey, axis=0)).mean() - np.abs(grey[2:] - grey[:-2]).mean())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("flagged", [True, False])
def test_interlaced_frames_are_deinterlaced(tmp_path: Path, top_first: bool, flagged: bool) -> None:
    frames = moving(80, noise=0.5, width=128, height=128)
    options = {"qp": "2", "preset": "ultrafast"}
    if flagged:
        options["x264-params"] = f"{'tff' if top_first else 'bff'}=1"
    path = film(tmp_path / "v.mp4", woven(frames, top_first), options=options)
    info = read_info(path)
    images = list(read_frames(info))
    assert kinds(info) == ["deinterlaced"] and ("top" if top_first else "bottom") in info.treatments[0].text
    assert len(images) == info.num_frames == 40 and info.fps == 25
    assert np.mean([combs(image) for image in images]) < 1
    assert np.mean([combs(image) for image in woven(frames, top_first)]) > 3
    # every frame shows the moment of its first field
    assert np.mean([error(images[k], frames[2 * k]) for k in range(5, 35)]) < 4


def test_interlaced_parts_between_progressive_ones_are_deinterlaced(tmp_path: Path) -> None:
    frames = moving(60, noise=0.5, width=128, height=128)
    plain = {"qp": "2", "preset": "ultrafast"}
    parts = (woven(frames), plain | {"x264-params": "tff=1"}), (frames, plain)
    data = [film(tmp_path / "part.ts", part, options=options).read_bytes() for part, options in parts]
    (tmp_path / "v.ts").write_bytes(b"".join(data))
    info = read_info(tmp_path / "v.ts")
    images = list(read_frames(info))
    assert kinds(info) == ["joined", "deinterlaced"] and "in some parts" in info.treatments[1].text
    assert np.mean([combs(image) for image in images[:30]]) < 1
    assert max(error(image, frame) for image, frame in zip(images[30:], frames, strict=True)) < 2


def test_progressive_frames_that_are_marked_as_interlaced_are_kept(tmp_path: Path) -> None:
    frames = moving(40, noise=0.5, width=128, height=128)
    options = {"qp": "2", "preset": "ultrafast", "x264-params": "tff=1"}
    info = read_info(film(tmp_path / "v.mp4", frames, options=options))
    assert kinds(info) == ["interlaced-flag"]
    assert max(error(image, frame) for image, frame in zip(read_frames(info), frames, strict=True)) < 2
