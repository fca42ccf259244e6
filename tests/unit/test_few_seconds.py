"""Avatars from few seconds: what is cut, and that finished steps are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avatar.data.run import CONFIG, ENVIRONMENT, PERSONAL, TRAINING
from avatar.errors import AvatarError
from avatar.eval import per_frame
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.io.video import read_frames, read_info
from avatar.io.video_writer import VideoWriter
from avatar.paths import read_json, write_json
from avatar.preprocess.ingest import Crop, working_size
from pipelines import few_seconds, kept
from pipelines.records import Record
from tests.films import moving, number_of
from tests.person import ingest_result, write_result


def _video(path):
    """100 numbered frames with audio whose level says the second."""
    levels = np.repeat(np.arange(1, 5) / 8, SAMPLE_RATE)
    write_wav(path.with_suffix(".wav"), levels * np.where(np.arange(len(levels)) // 20 % 2, 1, -1))
    with VideoWriter(path, 96, 64, 25, path.with_suffix(".wav"), crf=4) as writer:
        for image in moving(100):
            writer.write(image)
    return path


def test_the_first_and_the_last_seconds_are_kept_and_nothing_between(tmp_path):
    few_seconds.cut(_video(tmp_path / "all.mp4"), tmp_path / "some.mp4", 1.0, 2.0)
    images = list(read_frames(read_info(tmp_path / "some.mp4")))
    assert [number_of(image) for image in images] == [*range(25), *range(50, 100)]
    audio = load_audio(tmp_path / "some.mp4")
    middles = [float(np.abs(audio[round((s + 0.5) * SAMPLE_RATE) :][:1000]).mean()) for s in range(3)]
    assert abs(len(audio) / SAMPLE_RATE - 3) < 0.1
    np.testing.assert_allclose(np.divide(middles, middles[0]), [1, 3, 4], rtol=0.1)
    few_seconds.cut(tmp_path / "all.mp4", tmp_path / "fewer.mp4", 0.4, 2.0)
    fewer = list(read_frames(read_info(tmp_path / "fewer.mp4")))
    assert np.array_equal(images[25:], fewer[10:]), "what is held out is the same to the last bit"


@pytest.mark.parametrize(("side", "size"), [(300, 256), (300, 512), (288, 512)])
def test_a_crop_that_is_asked_for_again_shows_the_same_at_the_same_size(tmp_path, side, size):
    stored, crop = working_size(Crop(11, 0, side), size)
    place = (crop.x, crop.y, crop.side, crop.side)
    write_result(tmp_path, ingest_result(width=stored, height=stored, crop=place, head=(11, 0, side)))
    _, again, _, same = few_seconds.framed_as(tmp_path)
    assert working_size(Crop(*map(int, again.split(","))), same) == (stored, crop)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A measurement whose commands are quick stand-ins, and the list of those that ran."""
    ran = []

    def command(*words, cost=None, resumes=False):
        words = [str(word) for word in words]
        ran.append(words)
        if cost is not None:
            kept.begin(cost, resumes=resumes)
            kept.end(cost, {"seconds": 1.0, "cpu_seconds": 9.0, "peak_memory_bytes": 5e8})
        if words[0] == "prepare":
            shown = ingest_result(width=48, height=48, crop=(20, 0, 60, 60), head=(18, 0, 64))
            write_result(few_seconds.Path(words[3]), shown)
        if words[0] == "train":
            run = few_seconds.Path(words[1]).with_suffix(".run")
            write_json(run / TRAINING, {"steps": 7})
            write_json(run / ENVIRONMENT, {"commit": "trained"})
            (run / PERSONAL).touch()
        if words[0] == "eval":
            lips = {"psnr": 30.0, "ssim": 0.9, "mouth_correlation": 0.5}
            numbers = {"fps": 25.0, "head_only": {"tracked": lips, "audio": lips}, "lips": {"too_short": True}}
            write_json(few_seconds.Path(words[-1]), numbers | {"commit": "measured"})
            csv = few_seconds.Path(words[words.index("--per-frame") + 1])
            taught = (few_seconds.Path(words[1]) / PERSONAL).is_file()
            drawn = {"psnr": np.full(250, 30.0 + float(csv.name[0]) + taught), "lmd_raw": np.zeros(250)}
            drawn["opening"] = np.arange(250.0) ** 2
            series = {"real": {"opening": np.arange(250.0)}, "tracked": drawn, "audio": drawn}
            per_frame.write(csv, series, 25 * int(csv.name[0]), 25.0)

    monkeypatch.setattr(few_seconds, "command", command)
    config = few_seconds.Config(
        video=_video(tmp_path / "all.mp4"), out=tmp_path / "out", seconds=(1.0, 30.0), held_out_s=2.0, size=56,
        json=tmp_path / "few.json",
    )  # fmt: skip
    return config, ran


def test_each_length_is_measured_once_and_is_of_the_record(asked):
    config, ran = asked
    for _ in range(2):
        few_seconds.main(config)
    # Of 2 and 1 s: the video has no more, and all is kept.
    assert [words[0] for words in ran] == ["prepare", "train", "eval", "eval"] * 2
    framed = [words[6:] for words in ran if words[0] == "prepare"]
    assert framed == [["--size", "56"], ["--crop", "20,0,60", "--size", "48"]]  # what all of it showed
    found = read_json(config.json)["seconds"]
    assert list(found) == ["1", "2"]
    assert found["1"]["head_only, tracked"]["psnr"] == 30.0 and "ssim" not in found["1"]["head_only, tracked"]
    less = found["1"]["minus the whole video"]["tracked"]
    assert less["psnr"] == -1 and less["intervals"]["psnr"] == [-1, -1] and "lmd_raw" not in less
    gained = found["1"]["full_frame, audio, minus the prior alone"]
    assert gained["psnr"] == 1 and gained["intervals"] == {"psnr": [1, 1]}
    assert found["2"]["processor_seconds"] == {"prepare": 9.0, "train": 9.0} and found["2"]["steps"] == 7
    other = per_frame.read(config.out / "1.csv").series
    other["real"]["opening"] += 100.0  # as of another crop
    per_frame.write(config.out / "1.csv", other, 25, 25.0)
    with pytest.raises(AvatarError, match=r"1\.csv is of another video"):
        few_seconds.lost(config, 1.0, 2.0, 25.0)


def test_numbers_of_lips_of_too_little_speech_are_left_out(asked):
    config, _ = asked
    few_seconds.main(config)
    found = read_json(config.json)["seconds"]["1"]
    less, gained = found["minus the whole video"]["audio"], found["full_frame, audio, minus the prior alone"]
    for numbers in (found["head_only, audio"], less, gained):
        assert numbers["mouth_correlation"] == "too short"
        assert "mouth_correlation" not in numbers.get("intervals", {})
    assert found["head_only, tracked"]["mouth_correlation"] == 0.5, "its lips are not from audio"


def test_what_a_resumed_training_took_is_not_known_where_its_first_part_was_lost(asked):
    config, ran = asked
    few_seconds.main(config)
    (config.out / "1.train.cost.json").unlink()
    (config.out / "1.run" / CONFIG).touch()
    few_seconds.main(config)
    assert [words[0] for words in ran[8:]] == ["train", "eval", "eval"] and "--resume" in ran[8]
    assert not any("--resume" in words for words in ran[:8])
    assert read_json(config.json)["seconds"]["1"]["processor_seconds"] == {"prepare": 9.0, "train": None}


def test_other_options_are_refused_and_other_frames_are_measured(asked, tmp_path):
    config, ran = asked
    few_seconds.main(config)
    for other in ({"quality": "standard"}, {"size": None}, {"held_out_s": 1.0}):
        with pytest.raises(AvatarError, match=f"made with {next(iter(other))}"):
            few_seconds.main(replace(config, **other))
    with VideoWriter(tmp_path / "other/all.mp4", 96, 64, 25, config.video.with_suffix(".wav"), crf=20) as writer:
        for image in moving(100):
            writer.write(image)
    with pytest.raises(AvatarError, match="made with sha256"):
        few_seconds.main(replace(config, video=tmp_path / "other/all.mp4"))
    few_seconds.main(replace(config, frames=3))
    assert [words[0] for words in ran[8:]] == ["eval"] * 4 and all("--frames" in words for words in ran[8:])


def test_the_record_is_of_the_commits_of_its_kept_steps(asked):
    config, _ = asked
    few_seconds.main(config)
    record = Record(path=config.json, content=read_json(config.json))
    assert "trained" in record.trained and "measured" in record.measured
    prepared = read_json(config.out / "1.prepare.cost.json")["commits"]
    assert set(filter(None, prepared)) <= set(record.trained)
