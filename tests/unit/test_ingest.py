"""Reading videos, choosing the crop, writing frames and sound."""

from __future__ import annotations

import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from avatar.data.person import PersonFolder
from avatar.errors import AvatarError
from avatar.io.audio_timing import TimingReport
from avatar.io.video import VideoInfo, read_audio, read_frames, read_info, sample_frames
from avatar.preprocess import ingest
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.ingest import Crop
from avatar.preprocess.landmarker import Face
from avatar.preprocess.learned_face import LearnedFace
from avatar.preprocess.stage import StageContext, stage_record
from tests.media import write_sound, write_video


def numbered(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A frame whose brightness tells its number, with a bright top left corner."""
    picture = np.full((height, width, 3), 20 + 3 * index, np.uint8)
    picture[: height // 4, : width // 4] = 255
    return picture


def number_of(picture: np.ndarray) -> int:
    return round((float(picture[picture.shape[0] // 2 :, picture.shape[1] // 2 :].mean()) - 20) / 3)


def encode(path: Path, stamps: list[int], base: Fraction = Fraction(1, 1000)) -> Path:
    """Write numbered frames with the given presentation times."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = base
        stream.options = {"crf": "1", "preset": "ultrafast"}
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def test_constant_rate_gives_every_frame_once(tmp_path: Path) -> None:
    info = read_info(encode(tmp_path / "a.mp4", [40 * k for k in range(50)]))
    assert (info.fps, info.num_frames, info.variable_rate) == (25, 50, False)
    assert [number_of(f) for f in read_frames(info)] == list(range(50))


def test_variable_rate_takes_the_nearest_frame_by_time(tmp_path: Path) -> None:
    stamps = [40 * k for k in range(20)] + [800 + 80 * k for k in range(10)] + [1600 + 20 * k for k in range(20)]
    info = read_info(encode(tmp_path / "a.mp4", stamps))
    assert info.variable_rate
    frames = [number_of(f) for f in read_frames(info)]
    assert len(frames) == info.num_frames == round(info.duration * info.fps)
    times = np.array(stamps) / 1000
    for index, number in enumerate(frames):
        wanted = np.abs(times - index / float(info.fps)).min()
        assert abs(times[number] - index / float(info.fps)) <= wanted + 0.002


def test_late_first_frame_is_the_start(tmp_path: Path) -> None:
    info = read_info(encode(tmp_path / "a.mkv", [500 + 40 * k for k in range(30)]))
    assert info.start == pytest.approx(0.5, abs=0.002)
    assert [number_of(f) for f in read_frames(info)] == list(range(30))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_flag_is_honoured(tmp_path: Path, angle: int) -> None:
    import subprocess

    from imageio_ffmpeg import get_ffmpeg_exe

    plain = encode(tmp_path / "plain.mp4", [40 * k for k in range(10)])
    turned = tmp_path / "turned.mp4"
    call = [
        get_ffmpeg_exe(),
        "-v",
        "error",
        "-display_rotation",
        str(angle),
        "-i",
        str(plain),
        "-c",
        "copy",
        str(turned),
    ]
    subprocess.run(call, check=True)
    info = read_info(turned)
    picture = next(read_frames(info))
    assert picture.shape == (info.height, info.width, 3)
    expected = np.rot90(numbered(0), angle // 90)
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("height", "tag", "written"), [(96, None, 601), (720, None, 709), (96, 709, 709), (720, 601, 601)]
)
def test_colours_are_read_with_the_matrix_that_players_take(
    tmp_path: Path, height: int, tag: int | None, written: int
) -> None:
    """Skin, encoded with a matrix that the file names or leaves open."""
    from av.video.reformatter import Colorspace

    skin = np.tile(np.array([220, 150, 120], np.uint8), (height, height, 1))
    matrix = {601: Colorspace.ITU601, 709: Colorspace.ITU709}[written]
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = height
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "1", "preset": "ultrafast"}
        stream.codec_context.colorspace = {None: 2, 709: 1, 601: 6}[tag]  # as the standard numbers them; 2 is untagged
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(skin, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    picture = next(read_frames(read_info(tmp_path / "a.mp4")))
    assert np.abs(picture[8:-8, 8:-8].astype(int) - skin[0, 0]).max() <= 4


def test_samples_are_spread_over_the_video(tmp_path: Path) -> None:
    info = read_info(encode(tmp_path / "a.mp4", [40 * k for k in range(60)]))
    numbers = [number_of(f) for f in sample_frames(info, 10)]
    assert len(numbers) == 10 and numbers == sorted(numbers)
    assert numbers[0] < 8 and numbers[-1] > 52


def test_sound_keeps_its_time(tmp_path: Path) -> None:
    sound = tmp_path / "click.wav"
    samples = np.zeros(32000, np.int16)
    samples[16000:16160] = 20000
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    path = write_video(tmp_path / "a.mp4", [numbered(k) for k in range(50)], sound, 25.0)
    info = read_info(path)
    heard = np.concatenate(list(read_audio(path, info.start, info.duration)))
    assert len(heard) == 32000
    assert abs(int(np.abs(heard.astype(int)).argmax()) - 16080) < 120


def test_missing_sound_is_padded(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", 1.0)
    heard = np.concatenate(list(read_audio(path, 0.0, 2.0)))
    assert len(heard) == 32000 and np.abs(heard[17000:].astype(int)).max() == 0
    shifted = np.concatenate(list(read_audio(path, -0.5, 1.0)))
    assert np.abs(shifted[:7900].astype(int)).max() == 0 and np.abs(shifted[8200:].astype(int)).max() > 1000


@pytest.mark.parametrize(("start", "seconds", "span", "words"), [
    (0.0, 8.0, [0.0, 3.0], "The audio ends 5.0 s before the video; silence was put in there."),
    (-2.0, 5.0, [2.0, 5.0], "The audio begins 2.0 s after the video; silence was put in there."),
    (-2.0, 7.0, [2.0, 5.0], "The audio begins 2.0 s after the video and ends 2.0 s before the video; "),
    (-0.5, 4.4, None, ""), (1.0, 2.0, None, ""),
])  # fmt: skip
def test_audio_shorter_than_the_video_is_said(
    tmp_path: Path, start: float, seconds: float, span: list[float] | None, words: str
) -> None:
    path = write_sound(tmp_path / "a.wav", 3.0)
    info = VideoInfo(
        path=path, width=64, height=64, rotation=0, fps=Fraction(25), start=start, duration=seconds,
        num_frames=round(25 * seconds), variable_rate=False, has_audio=True,
    )  # fmt: skip
    timing = TimingReport()
    told = ingest.write_audio(info, tmp_path / "audio.wav", timing)
    assert ingest.audio_span(timing, seconds) == span
    assert [t.kind for t in told] == ["audio-padded"] * (span is not None)
    assert all(words in t.text for t in told)


def face(x: float, y: float, height: float) -> Face:
    grid = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3)).astype(np.float32)
    grid[0], grid[1] = [-0.4, -0.5, 0], [0.4, 0.5, 0]
    return Face(
        landmarks=grid.clip([-0.4, -0.5, -1], [0.4, 0.5, 1]) * height + [x, y, 0], arkit=np.zeros(52, np.float32)
    )


def boxes(*faces: Face) -> np.ndarray:
    return np.stack([f.box for f in faces])


def test_wide_picture_is_cropped_around_the_head() -> None:
    crop = ingest.frame_head(1920, 1080, boxes(*[face(900 + k, 400, 200) for k in range(10)]), 200)
    assert 2.2 * 200 <= crop.side <= 2.6 * 200
    assert abs(crop.x + crop.side / 2 - 904) < 5
    assert crop.y + 0.4 * crop.side < 400 < crop.y + 0.5 * crop.side


def test_square_picture_with_a_large_head_is_kept_whole() -> None:
    assert ingest.frame_head(512, 512, boxes(face(256, 250, 260)), 260) == Crop(0, 0, 512)


def test_crop_stays_inside_the_picture_and_follows_a_moving_head() -> None:
    corner = ingest.frame_head(1280, 720, boxes(face(80, 90, 150)), 150)
    assert corner.x == 0 and corner.y == 0
    still = ingest.frame_head(1280, 720, boxes(*[face(640, 300, 120)] * 10), 120)
    moving = ingest.frame_head(1280, 720, boxes(*[face(450 + 40 * k, 300, 120) for k in range(10)]), 120)
    assert moving.side > 1.3 * still.side
    assert moving.x < 400 and moving.x + moving.side > 850


def test_working_size_never_enlarges() -> None:
    assert ingest.working_size(Crop(10, 20, 900), 512) == (512, Crop(10, 20, 900))
    size, crop = ingest.working_size(Crop(10, 20, 300), 512)
    assert size == crop.side == 288 and crop.x >= 10 and crop.x + crop.side <= 310
    assert ingest.working_size(Crop(0, 0, 900), 500)[0] == 496


def video_of(width: int = 640, height: int = 480):
    from avatar.io.video import VideoInfo

    return VideoInfo(
        path=Path("v.mp4"), width=width, height=height, rotation=0, fps=Fraction(25), start=0, duration=10,
        num_frames=250, variable_rate=False, has_audio=True,
    )  # fmt: skip


def learned(*faces: Face) -> LearnedFace:
    return LearnedFace(boxes=boxes(*faces), height=faces[0].height, usual=(0, 0, 1))


def test_the_users_square_is_cut_out_as_it_is() -> None:
    config = PrepareConfig(crop="101,50,300")
    crop = ingest.choose_crop(video_of(), learned(face(250, 200, 120)), config)
    assert crop == Crop(101, 50, 300)
    size, trimmed = ingest.working_size(crop, config.size)
    assert (size, trimmed) == (288, Crop(107, 56, 288))
    assert [t.kind for t in ingest.crop_treatments(trimmed, size, config)] == ["crop"]
    assert [t.kind for t in ingest.crop_treatments(Crop(0, 0, 900), 512, PrepareConfig())] == ["reduced"]
    assert ingest.crop_treatments(Crop(0, 0, 288), 288, PrepareConfig()) == ()


def test_the_face_must_be_whole_in_the_users_square() -> None:
    with pytest.raises(AvatarError, match=r"not whole in --crop 240,50,300: it reaches from 202,140 to 298,260"):
        ingest.choose_crop(video_of(), learned(face(250, 200, 120)), PrepareConfig(crop="240,50,300"))


def test_the_crop_keeps_clear_of_other_faces_where_it_can() -> None:
    other, alone = np.array([[60.0, 100.0, 220.0, 330.0]]), learned(face(330, 220, 140))
    crop = ingest.choose_crop(video_of(), alone, PrepareConfig())
    beside = replace(alone, others=other)
    moved = ingest.choose_crop(video_of(), beside, PrepareConfig())
    assert crop.x < 220 and moved == Crop(220, crop.y, crop.side)
    behind = replace(alone, others=np.array([[300.0, 100.0, 420.0, 200.0]]))  # overlaps the face itself
    assert ingest.choose_crop(video_of(), behind, PrepareConfig()) == crop


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "400,0,300"}, "--crop 400,0,300 reaches out.*640x480"), ({"crop": "0,200,300"}, "reaches out"),
        ({"face": "640,10"}, "--face 640,10 is not in the picture.*640x480"),
        ({"face": "10,480"}, "not in the picture"),
    ],
)  # fmt: skip
def test_places_outside_the_picture_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(AvatarError, match=words):
        ingest.check_place(video_of(), PrepareConfig(**options))


@pytest.mark.parametrize("delay", [600.0, -600.0, 4.0, -2.6])
def test_a_delay_that_leaves_hardly_any_audio_is_refused(delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(video_of(), duration=5)
    monkeypatch.setattr(ingest, "read_source", lambda *_: info)
    with pytest.raises(AvatarError, match=r"s of v.mp4 with audio.*the video is 5.0 s long"):
        ingest.check_source(info.path, PrepareConfig(audio_delay_s=delay))


@pytest.mark.parametrize("delay", [1.9, -1.9, 0.2, "auto"])
def test_a_delay_that_leaves_seconds_of_audio_is_taken(delay: Any) -> None:
    ingest.check_delay(replace(video_of(), duration=5), PrepareConfig(audio_delay_s=delay))
    ingest.check_delay(video_of(), PrepareConfig(audio_delay_s=600.0, audio=False))


def test_places_inside_the_picture_are_taken() -> None:
    ingest.check_place(video_of(), PrepareConfig(crop="340,180,300", face="639,479"))
    ingest.check_place(video_of(), PrepareConfig(face="700"))  # a number, not a place


@pytest.mark.parametrize("name", ["audio_track", "video_track"])
def test_a_dataset_has_no_tracks_to_choose(tmp_path: Path, name: str) -> None:
    with pytest.raises(AvatarError, match=f"--{name.replace('_', '-')} chooses a track of a video"):
        ingest.read_source(tmp_path, PrepareConfig(**{name: 1}))


def test_options_that_choose_from_the_recording_are_part_of_the_key(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [numbered(k) for k in range(3)], None, 25.0)
    keys = set()
    for options in ({}, {"audio_track": 1}, {"video_track": 1}, {"face": "1"}, {"crop": "0,0,64"}, {"frame": "full"}):
        ctx = StageContext(person=PersonFolder(tmp_path), video=path, config=PrepareConfig(**options))
        keys.add(stage_record(ingest, ctx)["key"])
    assert len(keys) == 6


def test_frames_are_written_upright_and_nearly_lossless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 255, (64, 96, 3)).astype(np.uint8), (0, 0), 3)
    path = write_video(tmp_path / "a.mp4", [smooth] * 10, None, 25.0)
    info = read_info(path)
    source = next(read_frames(info))
    framing = ingest.frame_head_only(Crop(16, 0, 64), PrepareConfig(size=64))
    assert ingest.write_frames(info, framing, tmp_path) == (10, [])
    written = cv2.imread(str(tmp_path / "frames" / "000003.jpg"))[..., ::-1]
    assert written.shape == (64, 64, 3)
    assert np.abs(written.astype(int) - source[:, 16:80]).mean() < 1.5
