"""What belongs to the user is not replaced, emptied or removed by any command, and odd surroundings do no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avatar.cli.main import main
from avatar.create import person_folder
from avatar.data.outputs import refuse_to_overwrite
from avatar.data.run import open_person
from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.jobs import video_path
from avatar.infer.speaking import Speaking
from avatar.io import audio
from avatar.paths import write_json
from avatar.train.run import describe, parts_before
from avatar.writing import LOCK, one_writer
from tests.person import make_person, person_info, small_config


def said(capfd: pytest.CaptureFixture[str]) -> str:
    return " ".join(capfd.readouterr().err.split())


def test_folders_and_files_with_names_like_ours_stay(tmp_path: Path) -> None:
    (tmp_path / ".avatar-backup").mkdir()
    (tmp_path / ".avatar-backup" / "photos.txt").write_text("precious")
    (tmp_path / ".lock").write_text("of another program")
    with one_writer(tmp_path):
        write_json(tmp_path / "x.json", 1)
    assert (tmp_path / ".avatar-backup" / "photos.txt").read_text() == "precious"
    assert (tmp_path / ".lock").read_text() == "of another program" and not (tmp_path / LOCK).exists()


def test_overwriting_a_run_does_not_take_its_person_along(tmp_path, capfd) -> None:
    run = tmp_path / "run"
    config = small_config(make_person(run / "person", frames=12), run)
    (run / "config.toml").write_text("")
    (run / "model.safetensors").write_bytes(b"old")
    command = ["train", str(config.person), "--out", str(run), "--overwrite", "--quality", "draft"]
    assert main([*command, "--steps", "1", "--device", "cpu"]) == 2
    assert "which --overwrite empties" in said(capfd)
    assert (run / "model.safetensors").read_bytes() == b"old" and (run / "person" / "person.json").is_file()


def test_no_output_takes_the_place_of_a_part_of_an_avatar(tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"model")
    with pytest.raises(AvatarError, match="is a part of what is in"):
        refuse_to_overwrite(tmp_path / "model.safetensors")
    with pytest.raises(AvatarError, match="is a folder"):
        refuse_to_overwrite(tmp_path)
    refuse_to_overwrite(tmp_path / "hello.mp4")
    refuse_to_overwrite(tmp_path / "motion.safetensors")  # there is none


@pytest.mark.parametrize("controls", [{"style": "film.mp4"}, {"pose": ("film.mp4@0-1",)}, {"motion": "film.mp4"}])
def test_no_video_takes_the_place_of_a_film_that_it_follows(tmp_path: Path, monkeypatch, controls: dict) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").write_bytes(b"my own")
    paths = {name: Path(value) if isinstance(value, str) else value for name, value in controls.items()}
    with pytest.raises(AvatarError, match="is one of the inputs"):
        video_path(tmp_path, Path("film.mp4"), Speaking(audio=Path("a.wav")), Controls(**paths), None)


def test_no_record_takes_the_place_of_a_file_that_was_written_by_hand(tmp_path: Path, capfd) -> None:
    (run := tmp_path / "run").mkdir()
    (run / "person.json").write_text("{}")
    (run / "config.toml").write_text("")
    (words := tmp_path / "words.json").write_text('{"words": [[0, 1, "hello"]]}')
    (camera := tmp_path / "camera.json").write_text('[{"time": 0, "azimuth": 5}]')
    options = [str(run), "--idle", "1", "--words", str(words), "--camera", str(camera)]
    export = ["export", *options, "--format", "gif", "--out", str(tmp_path / "a.gif")]
    for command in (
        ["render", *options, "--json"],
        ["render", *options, "--print-timeline"],
        [*export, "--print-timeline"],
    ):
        for path in (words, camera):
            before = path.read_bytes()
            assert main([*command, str(path)]) == 2
            assert "is one of the inputs" in said(capfd) and path.read_bytes() == before


@pytest.mark.parametrize("out", ["mine.mp4", "mydir"])
def test_synth_replaces_no_recording(tmp_path: Path, capfd, out: str) -> None:
    path = tmp_path / out if out.endswith("mp4") else tmp_path / out / "video.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"my own")
    assert main(["synth", "--seconds", "0.5", "--size", "64", "--voice", "buzz", "--out", str(tmp_path / out)]) == 2
    assert "was not made by this command" in said(capfd) and path.read_bytes() == b"my own"


def test_create_refuses_other_files_before_it_prepares(tmp_path: Path, capfd) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    assert main(["create", str(tmp_path / "no.mp4"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "holds files that are not a run" in said(capfd) and not (tmp_path / "run.person").exists()


def test_a_run_may_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = make_person(tmp_path / "run.person", frames=12)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert person_folder(Path(".")) == person
    assert open_person(Path("."), None).folder == person


@pytest.mark.parametrize("content", [[], {"earlier": 5}, {"earlier": [1]}, "text"])
def test_a_damaged_record_of_the_machine_does_not_stop_a_resume(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "environment.json", content)
    assert isinstance(parts_before(tmp_path), list)
    data = type("Data", (), {"info": person_info(), "whole_background_path": None})
    describe(tmp_path, small_config(tmp_path / "person", tmp_path), data)


def test_the_command_of_a_run_is_kept_whatever_its_names_hold(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["avatar", "create", os.fsdecode(b"caf\xe9 1.mp4"), "--out", "größe"])
    data = type("Data", (), {"info": person_info(), "whole_background_path": None})
    describe(tmp_path, small_config(tmp_path / "person", tmp_path), data)
    kept = (tmp_path / "command.txt").read_text(encoding="utf-8")
    assert kept == "avatar create 'caf\\udce9 1.mp4' --out 'größe'\n"


def endless(path: Path, seconds: float, times: int) -> Path:
    """A sound whose time stamps stand still: the same second, again and again."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("flac", rate=8000)
        stream.layout = "mono"
        encoded = []
        for _ in range(times):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, round(8000 * seconds)), np.int16), "s16", "mono")
            frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), None
            encoded += stream.encode(frame)
        for packet in [*encoded, *stream.encode(None)]:
            packet.pts = packet.dts = 0
            container.mux(packet)
    return path


def test_sound_that_stands_still_is_not_decoded_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = endless(tmp_path / "still.mkv", 1.0, 40)
    monkeypatch.setattr("avatar.io.audio_timing.MAX_OVERLAP_SECONDS", 10.0)
    with pytest.raises(AvatarError, match="time stamps of what was there before"):
        audio.load_audio(path, most_seconds=600)


def run(arguments: list[str], **options) -> subprocess.CompletedProcess[str]:
    code = "import sys, avatar.cli.main; sys.exit(avatar.cli.main.main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **options)


def test_output_that_is_closed_or_full_is_no_bug() -> None:
    code = "import sys; sys.stdout = None; import avatar.cli.main; sys.exit(avatar.cli.main.main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = run(["--help"], stdout=full)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot be written" in done.stderr


def test_help_fits_into_a_terminal_of_five_columns() -> None:
    done = run(["export", "--help"], stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "5"})
    assert done.returncode == 0


def test_a_mistyped_instruction_set_is_not_passed_over(capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.native import library

    monkeypatch.setenv("AVATAR_ISA", "avx512foo")
    library._load.cache_clear()
    try:
        assert library.library() is None or not library._load()[1]
        if library._load()[0] is None:
            assert "AVATAR_ISA=avx512foo is not one of" in said(capfd)
    finally:
        monkeypatch.undo()
        library._load.cache_clear()
        library._warn_of_environment.cache_clear()


def test_a_full_disk_is_no_bug_of_the_synthetic_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    from avatar.synth.wav import write_padded_wav

    def full(*_: object, **__: object) -> None:
        raise soundfile.LibsndfileError(2, "Error : ")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(AvatarError, match="The disk is full"):
        write_padded_wav(tmp_path / "a.wav", np.zeros(100, np.float32), 0.01)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.assets import store as assets

    (tmp_path / "file").touch()
    monkeypatch.setenv("AVATAR_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("AVATAR_ASSETS", raising=False)
    monkeypatch.setattr(assets, "_sources", lambda asset: [("here", lambda: b"x")])
    monkeypatch.setattr(assets, "_sha256", lambda data: assets.ASSETS["lpips_alex"].sha256)
    with pytest.raises(AvatarError, match="let AVATAR_CACHE name another folder"):
        assets.fetch("lpips_alex")


def test_a_mistake_in_a_users_own_file_is_not_to_be_deleted(tmp_path: Path) -> None:
    from avatar.motion import timeline

    (tmp_path / "mine.json").write_text('{"format": ')
    with pytest.raises(AvatarError, match="Correct the file") as error:
        timeline.load(tmp_path / "mine.json")
    assert "Delete" not in str(error.value)
