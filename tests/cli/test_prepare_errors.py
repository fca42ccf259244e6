"""Bad input of `avatar prepare`: one clear sentence, exit code 2, nothing lost."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar.cli.main import main
from avatar.data.person import PersonFolder
from avatar.data.results import SyncResult
from avatar.paths import write_json
from avatar.preprocess import ingest, learned_face, speaker, track
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext, run_stage
from avatar.writing import WORKING
from tests.media import FPS, need_landmarker, portrait, shifted, talking, talking_frames, write_sound, write_video

SOME = "--stages=ingest,track"


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the face in few frames: there are as many faces in all."""
    monkeypatch.setattr(learned_face, "PROBE_FRAMES", 12)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run `avatar prepare` with these arguments and return what it says when it must refuse them."""
    assert main(["prepare", *map(str, arguments)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "Traceback" not in said
    return said


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking(tmp_path_factory.mktemp("video") / "me.mp4")


@pytest.fixture(scope="module")
def hum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "hum.wav", 6.0)


def test_missing_file(capfd, tmp_path: Path) -> None:
    said = refused(capfd, tmp_path / "none.mp4", "--out", tmp_path / "p")
    assert "none.mp4 does not exist" in said and not (tmp_path / "p").exists()


def test_folder_instead_of_file(capfd, tmp_path: Path) -> None:
    assert "folder" in refused(capfd, tmp_path, "--out", tmp_path / "p")


def test_empty_file(capfd, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "is empty" in refused(capfd, tmp_path / "a.mp4", "--out", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_not_a_video(capfd, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is a letter. " * 500)
    assert "cannot be opened as a video" in refused(capfd, tmp_path / "a.mp4", "--out", tmp_path / "p")


def test_sound_file_is_not_a_video(capfd, tmp_path: Path, hum: Path) -> None:
    assert "no video track" in refused(capfd, hum, "--out", tmp_path / "p")


def test_file_without_its_end(capfd, tmp_path: Path, video: Path) -> None:
    """The index of this one is at the front, so that it opens and then ends too early."""
    data = video.read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(0.6 * len(data))])
    assert "is cut off" in refused(capfd, tmp_path / "a.mp4", "--out", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_file_without_its_index(capfd, tmp_path: Path, video: Path) -> None:
    data = video.read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: data.index(b"moov")] + data[data.index(b"mdat") - 4 :])
    assert "cut off" in refused(capfd, tmp_path / "a.mp4", "--out", tmp_path / "p")


def test_too_short(capfd, tmp_path: Path) -> None:
    path = talking(tmp_path / "a.mp4", seconds=3)
    assert "3.0 s long" in refused(capfd, path, "--out", tmp_path / "p")


def test_too_few_frames_per_second(capfd, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [portrait()] * 12, None, fps=2)
    assert "only 2 frames per second" in refused(capfd, path, "--out", tmp_path / "p", "--no-audio")


def test_no_sound_track(capfd, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [portrait()] * 60, None)
    said = refused(capfd, path, "--out", tmp_path / "p")
    assert "no audio track" in said and "--no-audio" in said


def test_silent_sound(capfd, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [portrait()] * 60, write_sound(tmp_path / "s.wav", 6.0, amplitude=0.0))
    said = refused(capfd, path, "--out", tmp_path / "p", SOME)
    assert "silent" in said and "--no-audio" in said


def test_a_refusal_leaves_folders_alone_that_were_there(capfd, tmp_path: Path, monkeypatch) -> None:
    path = write_video(tmp_path / "a.mp4", [portrait()] * 60, write_sound(tmp_path / "s.wav", 6.0, amplitude=0.0))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert "silent" in refused(capfd, path, "--out", tmp_path / "link", SOME)
    monkeypatch.chdir(tmp_path / "there")
    assert "silent" in refused(capfd, path, "--out", ".", SOME)
    assert (tmp_path / "link").is_symlink() and not any((tmp_path / "there").iterdir())


def test_no_face(capfd, tmp_path: Path, hum: Path) -> None:
    need_landmarker()
    wall = np.full((256, 256, 3), 120, np.uint8)
    path = write_video(tmp_path / "a.mp4", [wall] * 60, hum)
    assert "No face was found" in refused(capfd, path, "--out", tmp_path / "p", SOME)


def test_face_in_under_half_of_the_frames(capfd, tmp_path: Path, hum: Path) -> None:
    need_landmarker()
    wall = np.full((256, 256, 3), 120, np.uint8)
    path = write_video(tmp_path / "a.mp4", [portrait()] * 20 + [wall] * 40, hum)
    assert "at least half" in refused(capfd, path, "--out", tmp_path / "p", SOME)


def test_two_faces_of_equal_size(capfd, tmp_path: Path, hum: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_landmarker()
    monkeypatch.setattr(speaker, "SPANS", 1)
    both = np.concatenate([portrait(), portrait()[:, ::-1]], 1)
    path = write_video(tmp_path / "a.mp4", [both] * 60, hum)
    said = refused(capfd, path, "--out", tmp_path / "p", SOME)
    assert "2 faces of about equal size" in said and "--face" in said


def test_small_face(capfd, tmp_path: Path, hum: Path) -> None:
    need_landmarker()
    path = write_video(tmp_path / "a.mp4", [shifted(portrait(), 0, 0, 0.4)] * 60, hum)
    assert "pixels high" in refused(capfd, path, "--out", tmp_path / "p", SOME)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--sise=512", "--sise"),
        ("--size=10", "too small"),
        ("--mask-stride=-1", "negative"),
        ("--held-out-s=-1", "no length"),
        ("--held-out-s=nan", "no number of possible size"),
        ("--held-out-s=60", "leaves 0.0 s to learn from"),
        ("--audio-delay-s=late", "late"),
        ("--audio-delay-s=nan", "no number of possible size"),
        ("--audio-delay-s=-601", "from -600 to 600"),
        ("--stages=ingest,polish", "no stage 'polish'"),
        ("--face=left", "--face left is not understood"),
        ("--face=1,2,3", "such as 310,200"),
        ("--face=0", "count from 1"),
        ("--face=300,10", "not in the picture"),
        ("--crop=10,10", "such as 100,50,400"),
        ("--crop=-1,0,200", "not understood"),
        ("--crop=0,0,10", "at least 64"),
        ("--crop=100,0,200", "reaches out of the picture"),
        ("--audio-track=0", "count from 1"),
        ("--video-track=0", "count from 1"),
        ("--video-track=2", "no video track 2"),
    ],
)
def test_unknown_options_and_values(capfd, tmp_path: Path, video: Path, option: str, words: str) -> None:
    assert words in refused(capfd, video, "--out", tmp_path / "p", option)
    assert not (tmp_path / "p").exists()


def test_output_folder_with_something_else(capfd, tmp_path: Path, video: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "diary.txt").write_text("dear")
    before = tree(tmp_path / "p")
    assert "not a PERSON folder" in refused(capfd, video, "--out", tmp_path / "p", SOME)
    assert tree(tmp_path / "p") == before


@pytest.mark.parametrize("command", ["prepare", "create"])
def test_a_person_of_another_version_is_not_made_anew_in_silence(capfd, tmp_path: Path, video: Path, command) -> None:
    person = tmp_path / "p.person"
    source = {"source": str(video), "source_sha256": ingest.fingerprint(video)}
    write_json(person / "prepare.json", {"format": "avatar-prepare-1"} | source)
    write_json(person / "person.json", {"format": "avatar-person-1"})
    before = tree(person)
    assert main([command, str(video), "--out", str(person if command == "prepare" else tmp_path / "p")]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "was prepared by another version" in said and f"--out {person} --force" in said
    assert tree(person) == before


def test_output_folder_of_another_video(capfd, tmp_path: Path, video: Path) -> None:
    need_landmarker()
    person = tmp_path / "p"
    assert main(["prepare", str(video), "--out", str(person), "--stages=ingest"]) == 0
    before = tree(person)
    other = talking(tmp_path / "other.mp4", seconds=5.5)
    said = refused(capfd, other, "--out", person, SOME)
    assert "another video" in said and "--force" in said
    assert tree(person) == before


def test_video_is_no_output_folder(capfd, tmp_path: Path, video: Path) -> None:
    before = video.read_bytes()
    assert "is a file" in refused(capfd, video, "--out", video)
    assert video.read_bytes() == before


def test_disk_full_then_resumed(capfd, tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_landmarker()
    person = tmp_path / "p"
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(ingest, "_write_frame", full)
        assert "disk is full" in refused(capfd, video, "--out", person, SOME)
    assert not (person / "ingest").exists()
    assert main(["prepare", str(video), "--out", str(person), SOME]) == 0
    assert len(list((person / "ingest" / "frames").iterdir())) == 6 * FPS


def test_killed_halfway_goes_on(capfd, tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_landmarker()
    person = tmp_path / "p"
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(track, "run", killed)
        assert main(["prepare", str(video), "--out", str(person), SOME]) == 130
        assert "again" in capfd.readouterr().err
    stamp = (person / "ingest" / "stage.json").stat().st_mtime_ns
    (person / f"{WORKING}leftover" / "track").mkdir(parents=True)  # of a kill -9
    assert main(["prepare", str(video), "--out", str(person), SOME]) == 0
    assert (person / "ingest" / "stage.json").stat().st_mtime_ns == stamp
    assert json.loads((person / "track" / "stage.json").read_text())["result"]["valid_share"] == 1.0
    assert not (person / f"{WORKING}leftover").exists()


def test_what_is_put_together_goes_with_the_stage_it_came_from(tmp_path: Path) -> None:
    """A kill after one stage was made anew must not leave a person.json that speaks of the old one."""

    def done(*_: object) -> SyncResult:
        return SyncResult(has_audio=False, audio_delay_s=0.0)

    stage = SimpleNamespace(NAME="sync", INPUTS=(), VERSION=1, options=lambda _: {}, run=done)
    ctx = StageContext(person=PersonFolder(tmp_path), video=tmp_path / "v.mp4", config=PrepareConfig())
    for ran in (True, False):
        write_json(tmp_path / "person.json", {})
        assert run_stage(stage, ctx) is ran  # type: ignore[arg-type]
        assert (tmp_path / "person.json").exists() is not ran


def test_changed_option_runs_what_depends_on_it(tmp_path: Path, video: Path) -> None:
    need_landmarker()
    person = tmp_path / "p"
    sizes = []
    for size in ("256", "128"):
        assert main(["prepare", str(video), "--out", str(person), SOME, f"--size={size}"]) == 0
        sizes.append(float(np.ptp(np.load(person / "track" / "landmarks.npy")[0, :, 1])))
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.1)


def test_video_without_sound_can_be_prepared(tmp_path: Path) -> None:
    need_landmarker()
    path = write_video(tmp_path / "a.mp4", talking_frames(60), None)
    assert main(["prepare", str(path), "--out", str(tmp_path / "p"), SOME, "--no-audio"]) == 0
    assert not (tmp_path / "p" / "ingest" / "audio.wav").exists()
