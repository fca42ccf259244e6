"""`avatar render --batch`: many jobs, each avatar loaded once; all mistakes first; killed and run again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import pytest

from avatar.batch.on_ray import Waiting
from avatar.batch.run import render_batch
from avatar.batch.table import Defaults, read_table
from avatar.batch.task import mark_of
from avatar.batch.worker import Worker
from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.paths import read_json
from tests.batches import DIARY, DiaryAvatar, DrawnLoading, make_run, make_sound, make_table
from tests.docs_text import ROOT
from tests.fake_avatar import LoudnessSpeech


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs a and b and the sounds 0.wav to 3.wav, which is the current one."""
    from avatar.infer import planner

    for name in "ab":
        make_run(tmp_path / name)
    for i in range(4):
        make_sound(tmp_path / f"{i}.wav", 0.3 + 0.1 * i)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudnessSpeech())
    monkeypatch.setattr(Avatar, "load", staticmethod(lambda run, *_, **__: DrawnLoading().load(run)))
    return tmp_path


FOUR = [("a", "0.wav", "0.mp4"), ("b", "1.wav", "1.mp4"), ("a", "2.wav", "sub/2.mp4"), ("b", "3.wav", "3.mp4")]


def batch(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    assert main(["render", *options, "--batch", "jobs.csv", "--out", "out"]) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return " ".join(shown.err.split())


def diary(place: Path) -> list[str]:
    return (place / DIARY).read_text().splitlines() if (place / DIARY).exists() else []


def states(place: Path) -> dict[str, str]:
    return {job["out"]: job["state"] for job in read_json(place / "out/jobs.json")["jobs"]}


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_every_job_is_rendered_and_each_avatar_is_loaded_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(place / "jobs.csv", *FOUR)
    assert "4 of 4 jobs done" in batch(capsys)
    assert diary(place) == ["load a", "video a", "video a", "load b", "video b", "video b"]
    assert [frames(place / "out" / name) for _, _, name in FOUR] == [8, 10, 13, 15]  # 0.3 to 0.6 s at 25 fps
    report = read_json(place / "out/jobs.json")
    assert (report["done"], report["failed"], report["waiting"]) == (4, 0, 0)
    assert [(job["line"], job["frames"]) for job in report["jobs"]] == [(2, 8), (3, 10), (4, 13), (5, 15)]
    assert "4 jobs of 4 done before" in batch(capsys) and len(diary(place)) == 6
    assert read_json(place / "out/jobs.json")["jobs"] == report["jobs"]  # what took how long is not forgotten


def test_a_cell_wins_over_an_option_and_an_empty_one_does_not(place: Path) -> None:
    from avatar.infer.controls import Controls
    from avatar.infer.speaking import Speaking

    table = make_table(
        place / "jobs.csv", ("", "x.mp4", "", "Hello", "happy:0.5@0-1; sad@1-", "128", "7", "-5,10"),
        ("b", "y.mp4", "0.wav", "", "", "", "", ""), columns="run,out,audio,text,Emotion,size,seed,camera",
    )  # fmt: skip
    defaults = Defaults(
        run=Path("a"), speaking=Speaking(audio=Path("1.wav")), controls=Controls(emotion=("angry",), pose=("still",)),
        size=64,
    )  # fmt: skip
    (first, second), problems = read_table(table, place, defaults)
    assert not problems and (first.run, second.run) == (Path("a"), Path("b"))
    assert (first.speaking.text, first.speaking.audio, first.size, first.camera) == ("Hello", None, 128, "-5,10")
    assert (first.controls.emotion, first.controls.pose) == (("happy:0.5@0-1", "sad@1-"), ("still",))
    assert first.controls.seed == 7 and second.controls.emotion == ("angry",) and second.size == 64
    assert second.speaking.audio == Path("0.wav")


def test_all_mistakes_are_named_before_anything_is_rendered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bad.wav").write_text("no sound " * 50)
    (place / "7.mp4").write_bytes(b"")
    make_table(
        place / "jobs.csv", ("a", "0.wav", "", "same.mp4", ""), ("c", "0.wav", "", "1.mp4", ""),
        ("a", "none.wav", "", "2.mp4", ""), ("a", "bad.wav", "", "3.mp4", ""), ("a", "1.wav", "", "SAME.mp4", ""),
        ("a", "0.wav", "Hello", "4.mp4", ""), ("a", "", "", "5.mp4", ""), ("a", "0.wav", "", "../6.mp4", ""),
        ("a", "0.wav", "", "7.avi", ""), ("a", "0.wav", "", "8.mp4", "merry"), ("a", "", "...", "9.mp4", ""),
        ("a", "0.wav", "", "", ""), ("a", "0.wav", "", "ok.mp4", "happy"), columns="run,audio,text,out,emotion",
    )  # fmt: skip
    said = batch(capsys, code=2)
    for line, word in {
        3: "no run folder c", 4: "none.wav", 5: "bad.wav", 6: "line 2 as well", 7: "both", 8: "Nothing to say",
        9: "below --out", 10: ".mp4", 11: "merry", 12: "nothing to say", 13: "out is empty",
    }.items():  # fmt: skip
        assert word in said.split(f"Line {line}: ")[1].split("Line ")[0], line
    assert "Line 2:" not in said and "Line 14:" not in said and "11 mistakes" in said
    assert not diary(place) and not (place / "out").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("run,audio\na,0.wav\n", '"out" is missing'),
        ("run,audio,out,colour\na,0.wav,0.mp4,red\n", 'line 1: there is no column "colour"'),
        ("out,run,out\n0.mp4,a,1.mp4\n", '"out" is there twice'),
        ("run,audio,out\na,0.wav,0.mp4,-5,10\n", "line 2: there are 5 cells for 3 columns"),
        ('run,audio,out\na,"0.wav,0.mp4\n', "line 2 is not understood"),
        ("run,audio,out\n", "holds no jobs"),
        ("", '"out" is missing'),
        (b"\xff\x00\xd8", "UTF-8"),
        ("run,audio,out\na,0\0.wav,0.mp4\n", "zero bytes"),
        ("run,audio,out,seed\na,0.wav,0.mp4,x\n", 'Line 2: The seed "x" is no whole number'),
        ("audio,out\n0.wav,0.mp4\n", "Line 2: The cell of run is empty"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str | bytes, word: str) -> None:
    (tmp_path / "jobs.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        _, (said,) = read_table(tmp_path / "jobs.csv", tmp_path, Defaults())
    except AvatarError as error:
        said = str(error)
    assert word in said


def test_no_job_replaces_what_another_reads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir()
    for name in ("film.mp4", "own.mp4", "said.speech.wav", "0.mp4"):
        (place / "out" / name).write_bytes((place / "0.wav").read_bytes())
    make_table(
        place / "jobs.csv", ("0.wav", "", "film.mp4", ""), ("1.wav", "", "1.mp4", "out/film.mp4@0-1"),
        ("1.wav", "", "own.mp4", "out/own.mp4"), ("", "Hello.", "said.mp4", ""),
        ("out/said.speech.wav", "", "2.mp4", ""), ("0.wav", "", "0.mp4", ""), columns="audio,text,out,pose",
    )  # fmt: skip
    said = batch(capsys, "a", code=2)
    for line, words in {2: "that line 3 reads", 4: "out/own.mp4", 5: "said.speech.wav would replace"}.items():
        assert words in said.split(f"Line {line}: ")[1].split("Line ")[0], line
    assert "3 mistakes" in said and not diary(place)


def test_a_file_with_the_name_of_the_report_stays(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(place / "jobs.csv", FOUR[0])
    (place / "out").mkdir()
    (place / "out/jobs.json").write_text('{"jobs": []}')
    assert "is no report of a batch" in batch(capsys, code=2)
    assert (place / "out/jobs.json").read_text() == '{"jobs": []}' and not diary(place)


def test_a_folder_that_cannot_be_made_is_no_bug(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(place / "jobs.csv", ("a", "0.wav", "taken/0.mp4"), ("a", "1.wav", "1.mp4"))
    (place / "out").mkdir()
    (place / "out/taken").write_text("a file")
    batch(capsys, code=2)
    assert states(place) == {"taken/0.mp4": "failed", "1.mp4": "done"}
    assert read_json(place / "out/jobs.json")["jobs"][0]["error"].startswith("Cannot write out/taken/0.mp4:")


def test_what_the_machine_refuses_is_no_bug(place: Path) -> None:
    class Unreadable(DrawnLoading):
        def load(self, run: Path) -> DiaryAvatar:  # type: ignore[override]
            raise PermissionError(errno.EACCES, "Permission denied", "a/model.safetensors")

    (task,), _ = read_table(make_table(place / "jobs.csv", FOUR[0]), place, Defaults())
    assert Worker(Unreadable()).render(task, "").error == "a/model.safetensors cannot be used: Permission denied."


def test_a_pipe_in_place_of_a_video_is_not_waited_for(place: Path) -> None:
    os.mkfifo(place / "0.mp4")
    assert mark_of(place / "0.mp4") == ""


def test_options_that_do_not_go_with_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*options: object) -> str:
        assert main(["render", *map(str, options)]) == 2
        return " ".join(capsys.readouterr().err.split())

    many = ("--batch", tmp_path / "jobs.csv", "--out", tmp_path / "out")
    assert "--split does not go with --batch" in refused(*many, "--split", "test")
    assert "--json does not go with --batch" in refused(*many, "--json", "x.json")
    assert "--ray local" in refused(*many, "--workers", 2)
    assert "too few" in refused(*many, "--ray", "local", "--workers", 0)
    assert "--out" in refused(*many[:2])
    assert "jobs.csv" in refused(*many)
    assert "--batch" in refused(tmp_path, "--idle", 1, "--ray", "local")
    assert "no RUN" in refused("--idle", 1)
    assert not (tmp_path / "out").exists()


def test_a_job_that_fails_is_listed_and_the_others_go_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(place / "jobs.csv", *FOUR)
    (place / "a/broken").touch()
    said = batch(capsys, code=2)
    assert "2 jobs of 4 failed" in said and "jobs.json" in said
    assert states(place) == {"0.mp4": "failed", "1.mp4": "done", "sub/2.mp4": "failed", "3.mp4": "done"}
    assert "ZeroDivisionError" in read_json(place / "out/jobs.json")["jobs"][0]["error"]
    assert not (place / "out/0.mp4").exists()
    (place / "a/broken").unlink()
    (place / DIARY).unlink()
    batch(capsys)
    assert diary(place) == ["load a", "video a", "video a"] and set(states(place).values()) == {"done"}


def test_what_has_changed_is_rendered_anew(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(place / "jobs.csv", *FOUR)
    batch(capsys)
    make_sound(place / "2.wav", 0.8)  # another content
    (place / "b/model.safetensors").write_bytes(b"trained again")
    (place / DIARY).unlink()
    batch(capsys)
    assert diary(place) == ["load b", "video b", "video b", "load a", "video a"]
    assert frames(place / "out/sub/2.mp4") == 20
    (place / DIARY).unlink()
    batch(capsys, "--size", "32")
    assert diary(place).count("video a") == diary(place).count("video b") == 2


def test_killed_in_the_middle_it_does_the_rest_and_nothing_twice(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_table(place / "jobs.csv", *FOUR)
    (place / "kill").write_text("3")  # while the third video is drawn
    command = [sys.executable, "-m", "tests.batches", "render", "--batch", "jobs.csv", "--out", "out"]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    first = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.mp4") if "working" not in str(path)}
    assert {path.name for path in first} == {"0.mp4", "2.mp4"}
    assert diary(place) == ["load a", "video a", "video a", "load b", "video b"]
    (place / "out/jobs.json").unlink()  # the videos themselves say what is done
    batch(capsys)
    assert diary(place)[5:] == ["load b", "video b", "video b"]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    left = {path.relative_to(place / "out").as_posix() for path in (place / "out").rglob("*") if path.is_file()}
    assert left == {"0.mp4", "1.mp4", "sub/2.mp4", "3.mp4", "jobs.json"}


def test_workers_go_on_with_the_avatar_that_they_have(place: Path) -> None:
    table = make_table(place / "jobs.csv", *FOUR, ("b", "0.wav", "4.mp4"))
    tasks, _ = read_table(table, place / "out", Defaults())
    waiting, a, b = Waiting(tasks), Path("a"), Path("b")

    def take(loaded: Path | None, *busy: Path) -> str:
        task = waiting.take(loaded, set(busy))
        assert task is not None
        return task.name

    assert take(None) == "1.mp4"  # of the avatar with most jobs
    assert take(None, b) == "0.mp4"  # of the one that nobody works at
    assert take(b, a) == "3.mp4"
    waiting.put_back(replace(tasks[0], name="back.mp4"))
    assert take(a, b) == "back.mp4" and take(a, b) == "sub/2.mp4" and take(a, b) == "4.mp4"
    assert waiting.take(a, set()) is None and len(waiting) == 0


def test_on_ray_the_job_of_a_killed_worker_is_done_by_another(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.exceptions", reason="Ray is not installed (pip install 'avatar-toolkit[ray]')")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers
    rows = [("ab"[i % 2], f"{i % 4}.wav", f"{i}.mp4") for i in range(8)]
    table = make_table(place / "jobs.csv", *rows)
    (place / "kill").write_text("3")
    render_batch(table, Path("out"), Defaults(), DrawnLoading(), ray="local", workers=2)
    said = capsys.readouterr().err
    assert "was killed; another one renders it" in said and "8 of 8 jobs done" in said
    assert diary(place).count("video a") + diary(place).count("video b") == 9 and len(states(place)) == 8
    assert diary(place).count("load a") + diary(place).count("load b") <= 4
    render_batch(table, Path("out"), Defaults(), DrawnLoading(), ray="local", workers=2)
    assert "8 jobs of 8 done before" in capsys.readouterr().err
