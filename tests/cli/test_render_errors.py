"""`avatar render`: every mistake is one sentence and exit code 2, before anything slow; and it renders with fakes."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch

from avatar.audio2motion import load as speak
from avatar.audio2motion.ensemble import Ensemble
from avatar.cli.main import main
from avatar.data.consent import SYNTHETIC
from avatar.data.run import FORMAT, open_person
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.infer import replay
from avatar.infer.camera_path import CameraPath
from avatar.infer.pipeline import Worker, in_order, prefetch
from avatar.infer.replay import drive_held_out
from avatar.io.video_writer import VideoWriter
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.motion.mouth import with_lips
from avatar.provenance import credentials
from avatar.provenance.source_type import COMPOSITE
from tests.fake_avatar import FPS, SIZE, FakeAvatar, LoudnessSpeech
from tests.person import person_info


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `avatar render` and return its one sentence; it must exit with 2 and without a traceback."""
    assert main(["render", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return " ".join(shown.err.split())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.sin(np.arange(16000) / 20).astype(np.float32), 16000)
    return path


def test_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    said = refused(capsys, tmp_path / "nothing", "--audio", sound)
    assert "nothing" in said and "avatar create" in said


def test_run_without_a_model(run: Path, capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    assert "model" in refused(capsys, run, "--audio", sound)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "no samples", "playlist"])
def test_bad_sound(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / "bad.wav"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no sound " * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0, np.float32), 16000)
    elif kind == "playlist":
        soundfile.write(tmp_path / "secret.wav", np.zeros(16000, np.float32) + 0.1, 16000)
        path.write_text("ffconcat version 1.0\nfile secret.wav\n")
    assert "bad.wav" in refused(capsys, run, "--audio", path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "--audio"),
        (["--audio", "a.wav", "--split", "test"], "exclude"),
        (["--audio", "a.wav", "--drive", "audio"], "--split"),
        (["--audio", "a.wav", "--size", "7"], "--size"),
        (["--audio", "a.wav", "--frames", "0"], "--frames"),
        (["--audio", "a.wav", "--out", "a.avi"], ".mp4"),
        (["--audio", "a.wav", "--camera", "left"], "left"),
        (["--audio", "a.wav", "--camera", "10"], "azimuth"),
        (["--audio", "a.wav", "--camera", "10,nan"], "range"),
        (["--audio", "a.wav", "--camera", "10,200"], "elevation"),
        (["--audio", "a.wav", "--camera", "10,0,0"], "zoom"),
        (["--audio", "a.wav", "--camera", "missing.json"], "missing.json"),
        (["--motion", "missing.safetensors"], "missing.safetensors"),
        (["--audio", "a.wav", "--pose", "dancing"], "dancing"),
        (["--nonsense"], "nonsense"),
        (["--dub"], "--audio"),
        (["--dub", "--split", "test"], "--dub goes with --audio"),
        (["--dub", "--audio", "a.wav", "--motion", "b.safetensors"], "--dub goes with --audio"),
        (["--dub", "--audio", "a.wav", "--emotion", "happy"], "as it was filmed"),
    ],
)
def test_bad_options(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], word: str) -> None:
    assert word in refused(capsys, run, *options)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{}", "list"),
        ("[]", "list"),
        ("not json", "cannot be read as JSON"),
        ('[{"azimuth": 3}]', "time"),
        ('[{"time": 0, "roll": 3}]', "roll"),
        ('[{"time": 0, "zoom": "big"}]', "zoom is 'big', not a number"),
        ('[{"time": 0}, {"time": 1e308}]', "time is 1e.308"),
        ('[{"time": 0}, {"time": 1' + "0" * 400 + "}]", "time is an integer of"),
        ('[{"time": 0}, {"time": 1e-300}, {"time": 1, "azimuth": 5}]', "increase by 0.001 s"),
        ('[{"time": 0, "azimuth": 500}]', "azimuth"),
        ('[{"time": 1}, {"time": 1}]', "increase"),
    ],
)
def test_bad_camera_files(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "path.json"
    path.write_text(content)
    with pytest.raises(AvatarError, match=word):
        CameraPath.parse(str(path))


def test_camera_paths(tmp_path: Path) -> None:
    assert CameraPath.parse(None).at(3) == (0, 0, 1)
    assert CameraPath.parse("15,-5").at(9) == (15, -5, 1)
    assert CameraPath.parse("15,-5,1.5").at(0) == (15, -5, 1.5)
    orbit = CameraPath.parse("orbit")
    assert orbit.at(0) == pytest.approx((0, 0, 1)) and orbit.at(2)[0] == pytest.approx(20, abs=0.1)
    assert orbit.at(10) == pytest.approx(orbit.at(2), abs=1e-6)  # it goes round
    path = tmp_path / "path.json"
    path.write_text(json.dumps([{"time": 1, "azimuth": 10}, {"time": 3, "azimuth": 20, "zoom": 2}]))
    keyed = CameraPath.parse(str(path))
    assert keyed.at(0) == (10, 0, 1) and keyed.at(9) == (20, 0, 2)
    assert 10 < keyed.at(2)[0] < 20
    source = Camera.source(100.0, 24, 24, SIZE, SIZE)
    pivot = torch.tensor([1.0, 2.0, 50.0])
    turned = CameraPath.parse("15,-5,1.5").camera(source, pivot, 0)
    torch.testing.assert_close(turned.project(pivot[None]), source.project(pivot[None]))  # stays in place
    assert CameraPath.parse(None).camera(source, pivot, 0) is source


def loud_seconds(path: Path, seconds: float, loud: list[tuple[float, float]]) -> Path:
    t = np.arange(round(16000 * seconds)) / 16000
    samples = np.zeros(len(t), np.float32)
    for a, b in loud:
        samples[(t >= a) & (t < b)] = 0.9 * np.sin(t[(t >= a) & (t < b)] * 2000)
    soundfile.write(path, samples, 16000)
    return path


def brightness(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.array([f.to_ndarray(format="rgb24").mean() for f in file.decode(video=0)])


@pytest.fixture
def drive(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A motion file whose jaw opens slowly, for ``run``, whose avatar is a fake."""
    import avatar.infer.avatar as avatar_module

    motion = Motion.zeros(30, FPS)
    motion.arkit[:, INDEX["jawOpen"]] = torch.linspace(0, 1, 30)
    motion.save(tmp_path / "drive.safetensors")
    Motion.zeros(100, FPS).save(run / "motion.safetensors")
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(FakeAvatar))
    return tmp_path / "drive.safetensors"


def test_motion_file_is_rendered_with_sound(run: Path, drive: Path, tmp_path: Path, sound: Path) -> None:
    out = tmp_path / "new" / "folder" / "out.mp4"
    arguments = ["render", run, "--motion", drive, "--audio", sound, "--out", out]
    assert main([str(a) for a in [*arguments, "--camera", "orbit", "--size", 64]]) == 0
    values = brightness(out)
    assert len(values) == 30 and np.all(np.diff(values) > 0) and values[-1] > 180
    with av.open(str(out)) as file:
        assert file.streams.audio and file.streams.video[0].width == 64
    record = tmp_path / "speed.json"
    assert main([str(a) for a in [*arguments[:4], "--frames", 7, "--json", record]]) == 0
    assert len(brightness(run / "drive.mp4")) == 7
    told = json.loads(record.read_text())
    assert told["frames"] == 7 and told["seconds"] > 0 and told["hardware"]["cores"] >= 1


def test_lips_come_from_the_sound_and_the_rest_from_the_person(tmp_path: Path) -> None:
    base = Motion.zeros(50, FPS)
    base.arkit[:, INDEX["eyeBlinkLeft"]] = torch.linspace(0, 1, 50)
    base.arkit[:, INDEX["jawOpen"]] = 0.7
    base.face[:, CHANNEL_INDEX["eye_left_open"]] = 0.3
    base.head_rotation[:, 1] = torch.linspace(0, 0.2, 50)
    speech = Motion.zeros(50, FPS)
    speech.arkit[:, INDEX["jawOpen"]] = 0.2
    speech.face[:, CHANNEL_INDEX["jaw_y"]] = 0.5
    both = with_lips(base, speech)
    assert both.arkit[:, INDEX["jawOpen"]].unique().tolist() == pytest.approx([0.2])
    assert both.face[0, CHANNEL_INDEX["jaw_y"]] == 0.5 and both.face[0, CHANNEL_INDEX["eye_left_open"]] > 0.2
    torch.testing.assert_close(both.head_rotation, base.head_rotation)
    torch.testing.assert_close(both.arkit[:, INDEX["eyeBlinkLeft"]], base.arkit[:, INDEX["eyeBlinkLeft"]])
    assert base.arkit[0, INDEX["jawOpen"]] == pytest.approx(0.7)  # the original is left alone


@pytest.mark.parametrize("offset", [0, 5, -3])
def test_held_out_sound_meets_its_picture(tmp_path: Path, offset: int) -> None:
    """Loud in frames 60 to 69 of the picture; the sound is ``offset`` frames late in the file."""
    shift = offset / FPS
    sound = loud_seconds(tmp_path / "audio.wav", 4.0, [(60 / FPS + shift, 70 / FPS + shift)])
    motion = Motion.zeros(100, FPS)
    motion.head_rotation[:, 0] = torch.arange(100) / 1000

    class Person:
        audio_path, fps, info = sound, FPS, person_info(fps=FPS, audio_delay_s=offset / FPS)

    Person.motion = motion  # type: ignore[attr-defined]
    person: Any = Person
    blocks = list(drive_held_out(person, LoudnessSpeech(), 50, 100))
    track = Motion.cat(blocks)
    assert len(track) == 50 and len(blocks) > 1
    jaw = track.arkit[:, INDEX["jawOpen"]].numpy()
    assert np.flatnonzero(jaw > 0.5).tolist() == list(range(10, 20))
    torch.testing.assert_close(track.head_rotation, motion.head_rotation[50:])
    assert float(track.arkit[:, INDEX["eyeBlinkLeft"]].max()) == 0


@pytest.mark.parametrize(("spoken", "frames"), [(2.0, 50), (9.0, 100)])
def test_a_dubbed_video_has_new_lips_and_is_the_filmed_one_otherwise(
    run: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoken: float, frames: int
) -> None:
    """The audio is loud in frames 30 to 39; the film's own mouth is wide open all the time."""
    film = Motion.zeros(100, FPS)
    film.head_rotation[:, 0] = torch.arange(100) / 1000
    film.arkit[:, INDEX["jawOpen"]] = 0.9
    person = SimpleNamespace(motion=film, num_frames=100, camera_moves=False, info=person_info(fps=FPS))
    monkeypatch.setattr(replay, "open_person", lambda *_: person)
    monkeypatch.setattr(replay, "load_speech", lambda *_: LoudnessSpeech())
    drawn: list[Motion] = []
    monkeypatch.setattr(FakeAvatar, "render", _noting(drawn, FakeAvatar.render))
    sound = loud_seconds(tmp_path / "new.wav", spoken, [(30 / FPS, 40 / FPS)])
    out = tmp_path / "dubbed.mp4"
    assert main(["render", str(run), "--dub", "--audio", str(sound), "--out", str(out)]) == 2, "nobody agreed to it"
    SYNTHETIC.write(run)
    assert main(["render", str(run), "--dub", "--audio", str(sound), "--out", str(out)]) == 0
    track = Motion.cat(drawn)
    torch.testing.assert_close(track.head_rotation, film.head_rotation[:frames])
    jaw = track.arkit[:, INDEX["jawOpen"]].numpy()
    assert np.flatnonzero(jaw > 0.5).tolist() == list(range(30, 40)) and len(jaw) == frames
    claims = credentials.read(out)
    assert claims.state == "valid" and claims.source_type == COMPOSITE


@pytest.mark.parametrize(("words", "network"), [((), "auto"), (("--speech", "shared"), "shared")])
def test_a_replay_speaks_with_the_network_that_is_asked_for(
    run: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], network: str
) -> None:
    sound = loud_seconds(tmp_path / "audio.wav", 1.0, [(0.6, 0.7)])
    person = SimpleNamespace(
        motion=Motion.zeros(20, FPS), num_frames=20, test_start=10, fps=FPS, camera_moves=False, audio_path=sound,
        info=person_info(fps=FPS),
    )  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(replay, "open_person", lambda *_: person)
    monkeypatch.setattr(replay, "load_speech", lambda _, fps, which="auto": (asked.append(which), LoudnessSpeech())[1])
    arguments = ["render", run, "--split", "test", "--drive", "audio", *words, "--out", tmp_path / "out.mp4"]
    assert main([str(a) for a in arguments]) == 0
    assert asked == [network] and len(brightness(tmp_path / "out.mp4")) == 10


def _noting(drawn: list[Motion], render: Any) -> Any:
    def noted(self: FakeAvatar, camera: Any, motion: Motion, index: int, *rest: Any, **named: Any) -> Any:
        drawn.append(motion[index : index + 1])
        return render(self, camera, motion, index, *rest, **named)

    return noted


def test_the_speech_network_of_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.audio2motion import personal, shared

    with pytest.raises(AvatarError, match="--speech shared"):
        speak.load_speech(run, FPS, "personal")
    with pytest.raises(AvatarError, match="auto, personal, shared, streaming"):
        speak.load_speech(run, FPS, "prior")
    own, adapted, shipped, quick = (LoudnessSpeech() for _ in range(4))
    monkeypatch.setattr(personal.PersonalSpeech, "load", lambda path: own)
    monkeypatch.setattr(own, "share", 0.5, raising=False)
    monkeypatch.setattr(shared.SharedSpeech, "load", lambda path: adapted if path.name == speak.SHARED else quick)
    prior = SimpleNamespace(person=lambda motion, fps: shipped)
    monkeypatch.setattr(shared.SharedPrior, "load", lambda: prior)
    Motion.zeros(50, FPS).save(run / "motion.safetensors")

    def chosen(which: str = "auto") -> Any:
        return speak.load_speech(run, FPS, which)

    assert chosen() is shipped and chosen("shared") is shipped
    (run / speak.PERSONAL).touch()
    assert chosen() is own and chosen("shared") is shipped
    (run / speak.SHARED).touch()
    both = chosen()
    assert isinstance(both, Ensemble) and both.members == (own, adapted)
    assert chosen("personal") is own and chosen("shared") is adapted
    (run / speak.STREAMING).touch()
    assert chosen("streaming") is quick


def test_the_person_is_found_again(run: Path, tmp_path: Path) -> None:
    with pytest.raises(AvatarError, match="--person"):
        open_person(run, None)
    (run / "config.toml").write_text(f'format = "{FORMAT}"\nperson = "/somewhere/else/anna"\n')
    with pytest.raises(AvatarError, match="/somewhere/else/anna"):
        open_person(run, None)
    folder = tmp_path / "anna"
    folder.mkdir()
    (folder / "person.json").write_text('{"format": "avatar-person-4", "width": 4}')
    with pytest.raises(AvatarError, match=r"person\.json lacks height"):  # found beside the run, and opened
        open_person(run, None)


def test_threads_keep_order_and_pass_errors_on() -> None:
    assert list(prefetch(range(50), depth=2)) == list(range(50))

    def failing() -> Any:
        yield 1
        raise AvatarError("the sound broke")

    with pytest.raises(AvatarError, match="the sound broke"):
        list(prefetch(failing()))
    out: list[int] = []
    with Worker(out.append, depth=2) as worker:
        for i in range(50):
            worker.put(i)
    assert out == list(range(50))

    def full(_: int) -> None:
        raise AvatarError("the disk is full")

    with pytest.raises(AvatarError, match="the disk is full"), Worker(full, depth=2) as worker:
        for i in range(50):
            worker.put(i)
    with pytest.raises(ZeroDivisionError), Worker(out.append) as worker:
        worker.put(1 // 0)
    early = prefetch(iter(range(10**9)))
    assert next(early) == 0
    early.close()  # type: ignore[attr-defined]


def test_frames_drawn_at_once_come_in_order() -> None:
    waiting = threading.Barrier(3, timeout=10)  # broken unless three are under way together

    def slow(i: int) -> int:
        waiting.wait()
        time.sleep(0.01 * (i % 3 == 0))
        return i

    assert list(in_order(slow, range(30), 3)) == list(range(30))
    taken: list[int] = []
    early = in_order(lambda i: i, (taken.append(i) or i for i in range(10**9)), 2)
    assert [next(early) for _ in range(5)] == [0, 1, 2, 3, 4] and len(taken) <= 10
    early.close()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // (7 - i), range(50), 2))


def test_a_video_is_the_same_however_many_frames_are_drawn_at_once(
    run: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    written: dict[int, list[np.ndarray]] = {1: [], 3: []}
    write = VideoWriter.write
    for count, images in written.items():
        monkeypatch.setattr(FakeAvatar, "frames_at_once", count)
        monkeypatch.setattr(VideoWriter, "write", lambda self, image, to=images: (to.append(image), write(self, image)))
        arguments = ["render", run, "--motion", drive, "--out", tmp_path / f"{count}.mp4", "--no-credentials", "a test"]
        assert main([str(a) for a in arguments]) == 0
    assert len(written[1]) == 30 and np.ptp([image.mean() for image in written[1]]) > 100  # they differ, in order
    np.testing.assert_array_equal(written[1], written[3])
    assert torch.get_num_threads() == threads
