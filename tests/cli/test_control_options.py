"""The controls as options: what they change in what is rendered or written, and how their mistakes are told."""

from __future__ import annotations

import builtins
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch

from avatar.cli.main import main
from avatar.motion import Motion
from avatar.motion.arkit import INDEX, MOUTH
from avatar.motion.face_channels import LIP_CHANNELS
from tests.fake_avatar import FPS, FakeAvatar, LoudnessSpeech
from tests.swaying import swaying
from tests.talking import talking

JAW = INDEX["jawOpen"]
LIVE_LINK = ("export", "--format", "live-link")


class LoudSpeech(LoudnessSpeech):
    """The jaw of the coefficients moves the lips, too."""

    def motion(self, level: np.ndarray) -> Motion:
        from avatar.motion.arkit_map import FaceMap

        block = super().motion(level)
        return block.map(face=FaceMap.generic()(block.arkit))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import avatar.infer.avatar as avatar_module
    from avatar.infer import planner

    folder = tmp_path / "run"
    folder.mkdir()
    talking()[0][:100].save(folder / "motion.safetensors")
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(FakeAvatar))
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudSpeech())
    return folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two seconds; loud in the first half of each."""
    t = np.arange(32000) / 16000
    path = tmp_path / "speech.wav"
    soundfile.write(path, (0.5 * np.sin(2000 * t) * (t % 1 < 0.5)).astype(np.float32), 16000)
    return path


def write(run: Path, *options: object, out: str = "out.safetensors") -> Motion:
    path = run.parent / out
    assert main([str(a) for a in ["export", run, "--format", "motion", "--out", path, *options]]) == 0
    return Motion.load(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return " ".join(shown.err.split())


def test_render_shows_what_the_controls_say(run: Path, sound: Path, tmp_path: Path):
    """A fake avatar shows the jaw as brightness: louder in the second second, silent before and after the sound."""
    out = tmp_path / "o.mp4"
    options = ["--audio", sound, "--lip-scale", "1.6@0.95-2", "--idle", 1, "--pose", "still", "--out", out]
    assert main([str(a) for a in ["render", run, *options]]) == 0
    with av.open(str(out)) as file:
        frames = np.array([f.to_ndarray(format="rgb24").mean() for f in file.decode(video=0)])
    with av.open(str(out)) as file:
        samples = np.concatenate([f.to_ndarray().mean(0) for f in file.decode(audio=0)])
        rate = file.streams.audio[0].rate
    assert len(frames) == 4 * FPS
    plain, louder = frames[28:35].mean(), frames[53:60].mean()
    assert louder > 1.3 * plain > 50 and frames[:10].max() < 5 and frames[-10:].max() < 5
    assert np.abs(samples[: int(0.9 * rate)]).max() < 0.02 < np.abs(samples[int(1.1 * rate) : int(1.4 * rate)]).max()


def test_controls_reach_the_written_motion(run: Path, sound: Path):
    plain = write(run, "--audio", sound)
    assert len(plain) == 50 and plain.fps == FPS
    loud = write(run, "--audio", sound, "--lip-scale", 2)
    assert float(loud.arkit[:, JAW].max()) > 1.5 * float(plain.arkit[:, JAW].max())
    happy = write(run, "--audio", sound, "--emotion", "happy:0.7@0.5-1", "--emotion", "sad/upper")
    gained = happy.arkit[:, INDEX["mouthSmileLeft"]] - plain.arkit[:, INDEX["mouthSmileLeft"]]
    assert float(gained[15:24].min()) > 0.5 and float(gained[35:].max()) < 0.01
    still = write(run, "--audio", sound, "--pose", "still")
    assert float(still.head_rotation.std(0).max()) < 1e-5 < float(plain.head_rotation.std(0).min())
    doubled = write(run, "--audio", sound, "--pose-scale", 2)
    torch.testing.assert_close(doubled.head_rotation.std(0), 2 * plain.head_rotation.std(0), atol=1e-4, rtol=0)
    looking = write(run, "--audio", sound, "--gaze", "10,-5", "--gaze", "free@1-")
    assert np.degrees(looking.gaze[:20].numpy()) == pytest.approx(np.tile([10, -5], (20, 1)), abs=1e-3)
    torch.testing.assert_close(looking.gaze[30:], plain.gaze[30:])
    assert len(write(run, "--audio", sound, "--fps", 50)) == 100
    assert torch.equal(write(run, "--audio", sound).face, plain.face)


def test_a_pose_file_is_followed(run: Path, sound: Path, tmp_path: Path):
    other = talking(seed=5)[0]
    other.save(tmp_path / "other.safetensors")
    moved = write(run, "--audio", sound, "--pose", tmp_path / "other.safetensors")
    for axis in range(3):
        assert np.corrcoef(moved.head_rotation[:, axis], other.head_rotation[:50, axis])[0, 1] > 0.99
    switched = write(run, "--audio", sound, "--pose", f"{tmp_path / 'other.safetensors'}@1.2-", "--pose-scale", 1)
    torch.testing.assert_close(switched.head_rotation[35:], moved.head_rotation[35:])
    torch.testing.assert_close(switched.head_rotation[:5], write(run, "--audio", sound).head_rotation[:5])


@pytest.mark.parametrize(("kind", "name"), [("live-link", "face.csv"), ("arkit-json", "face.json")])
def test_what_is_written_as_coefficients_can_be_rendered(run: Path, sound: Path, tmp_path: Path, kind: str, name: str):
    path = tmp_path / name
    options = ["--audio", sound, "--out", path, "--seed", 3, "--gaze", "12,-6@0.5-"]
    assert main([str(a) for a in ["export", run, "--format", kind, *options]]) == 0
    if kind == "live-link":
        assert len(list(csv.reader(path.read_text().splitlines()))) == 51
    direct, back = write(run, "--audio", sound, "--seed", 3, "--gaze", "12,-6@0.5-"), write(run, "--motion", path)
    torch.testing.assert_close(back.gaze, direct.gaze, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.arkit, direct.arkit, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.head_rotation, direct.head_rotation, atol=1e-4, rtol=0)
    assert main([str(a) for a in ["render", run, "--motion", path, "--out", tmp_path / "o.mp4", "--frames", 9]]) == 0


def test_words_and_the_timeline(run: Path, sound: Path, tmp_path: Path):
    words, line = tmp_path / "words.json", tmp_path / "line.json"
    words.write_text('{"unit": "seconds", "words": [[0.0, 0.5, "one"], [1.0, 1.5, "two"]]}')
    options = ["--lip-scale", "2@two", "--words", words, "--blink", 0, "--print-timeline", line]
    direct = write(run, "--audio", sound, *options)
    assert float(direct.arkit[27:35, JAW].mean()) > 1.5 * float(direct.arkit[2:10, JAW].mean())
    assert [s["control"] for s in json.loads(line.read_text())["spans"]] == ["lip-scale", "blink"]
    torch.testing.assert_close(write(run, "--audio", sound, "--timeline", line).face, direct.face)
    assert float(direct.arkit[:, INDEX["eyeBlinkLeft"]].max()) < 0.2


def test_idle_alone(run: Path):
    waiting = write(run, "--idle", 4, "--pose", "still", "--blink", 60)
    assert len(waiting) == 4 * FPS
    assert float(waiting.torso_translation[:, 1].std()) > 0.03  # it breathes
    assert 3 <= int((waiting.arkit[:, INDEX["eyeBlinkLeft"]] > 0.4).int().diff().clamp(min=0).sum()) <= 4
    assert float(waiting.arkit[:, JAW].std()) < 1e-3


def test_a_motion_of_somebody_else_is_fitted(run: Path, tmp_path: Path):
    other = talking(seed=5, scale=0.5)[0]
    other.save(tmp_path / "other.safetensors")
    asis = write(run, "--motion", tmp_path / "other.safetensors")
    torch.testing.assert_close(asis.face, other.face)
    fitted = write(run, "--motion", tmp_path / "other.safetensors", "--retarget", "yes")
    assert float(fitted.arkit[:, JAW].max()) > 1.4 * float(asis.arkit[:, JAW].max())
    styled = write(run, "--motion", run / "motion.safetensors", "--style", tmp_path / "other.safetensors")
    assert float(styled.arkit[:, JAW].max()) < 0.8 * float(Motion.load(run / "motion.safetensors").arkit[:, JAW].max())


def test_a_text_is_spoken(run: Path, tmp_path: Path):
    pytest.importorskip("hibari", reason="hibari-tts is not installed")
    spoken = write(run, "--text", "Hello there.", out="said.safetensors")
    assert len(spoken) > 0.5 * FPS and float(spoken.arkit[:, JAW].max()) > 0.1
    with av.open(str(tmp_path / "said.speech.wav")) as file:
        assert file.streams.audio[0].rate == 24000


@pytest.mark.parametrize("command", [["render"], ["export", "--format", "live-link", "--out", "o.csv"]])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--emotion", "furious"], "Known are happy, sad"),
        (["--emotion", "happy:0.7@soon"], "'soon' is neither"),
        (["--lip-scale", "9"], "lip-scale"),
        (["--pose", "dancing"], "dancing"),
        (["--blink", "often"], "blink"),
        (["--gaze", "up"], "camera or free"),
        (["--idle", "-1"], "--idle"),
        (["--emotion-limit", "nan"], "--emotion-limit"),
        (["--style", "nobody.mp4"], "nobody.mp4"),
        (["--words", "none.json", "--lip-scale", "2@a"], "none.json"),
        (["--timeline", "none.json"], "none.json"),
        (["--retarget", "yes"], "--retarget"),
        (["--seed", "-1"], "--seed"),
        (["--motion", "none.csv"], "none.csv"),
        (["--pose", "generated", "--pose-guidance", "5"], "0 to 3"),
        (["--pose", "generated", "--pose-guidance", "-1"], "0 to 3"),
        (["--pose", "generated", "--pose-noise", "nan"], "--pose-noise nan is no number"),
        (["--pose", "generated", "--pose-noise", "1.6"], "0 to 1.5"),
        (["--pose-guidance", "2"], "belongs to --pose generated"),
        (["--pose", "generated"], "holds no headmotion.safetensors"),
    ],
)
def test_bad_options(run: Path, sound: Path, capsys: pytest.CaptureFixture[str], command: list[str],
                     options: list[str], word: str):  # fmt: skip
    assert word in refused(capsys, *command, run, "--audio", sound, *options)


@pytest.mark.parametrize("kind", ["empty", "short", "nan"])
def test_bad_sound(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str):
    path = tmp_path / "bad.wav"
    if kind == "empty":
        path.touch()
    else:
        samples = np.zeros(1600 if kind == "short" else 16000, np.float32)
        samples[100] = np.nan if kind == "nan" else 0.1
        soundfile.write(path, samples, 16000, "FLOAT")
    arguments = [str(a) for a in ["export", run, "--format", "live-link", "--audio", path, "--out", tmp_path / "o.csv"]]
    if kind == "short":  # a tenth of a second is a short sound, not a mistake
        assert main(arguments) == 0  # three frames begin in it
        assert len((tmp_path / "o.csv").read_text().splitlines()) == 4
    else:
        assert "bad.wav" in refused(capsys, *arguments)
        assert not (tmp_path / "o.csv").exists()


def test_bad_motion_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.csv"
    path.write_text("Time,jawOpen\n0,0.1\n0.04,0.2\n")
    assert "lacks the channels eyeBlinkLeft" in refused(capsys, "render", run, "--motion", path)
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 10)
    assert "bad.safetensors" in refused(capsys, "render", run, "--motion", tmp_path / "bad.safetensors")
    assert "one of the inputs" in refused(capsys, *LIVE_LINK, run, "--motion", path, "--out", path)
    assert "must end in" in refused(capsys, *LIVE_LINK, run, "--out", "a.fbx", "--idle", 1)
    assert "Nothing to say" in refused(capsys, *LIVE_LINK, run, "--out", "a.csv")


def test_without_the_voice_the_command_to_install_it_is_told(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("hibari"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install hibari-tts" in refused(capsys, "render", run, "--text", "Hello")


def test_a_voice_that_is_not_there(run: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("hibari", reason="hibari-tts is not installed")
    assert "heart" in refused(capsys, "render", run, "--text", "Hello", "--voice", "nobody")


# --- generated motion -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What generates the motion of somebody who sways, learnt in no time."""
    from avatar.headmotion.generator import MotionGenerator

    track, voice = swaying(20)
    path = tmp_path_factory.mktemp("learnt") / "headmotion.safetensors"
    MotionGenerator.fit(track, [(0, len(track))], voice, steps=2).save(path)
    return path


@pytest.fixture
def generating(run: Path, learnt: Path) -> Path:
    shutil.copy(learnt, run)
    return run


def test_a_generated_pose_moves_everything_but_the_lips(generating: Path, sound: Path):
    loop, one, two = (
        write(generating, "--audio", sound, "--pose", pose, "--seed", seed)
        for pose, seed in (("own", 0), ("generated", 0), ("generated", 1))
    )
    again = write(generating, "--audio", sound, "--pose", "generated")
    assert torch.equal(one.head_rotation, again.head_rotation)
    assert len(one) == len(loop) == 50
    mouth, lips = list(MOUTH), list(LIP_CHANNELS)
    for made in (one, two):
        assert torch.equal(made.face[:, lips], loop.face[:, lips])
        assert torch.equal(made.arkit[:, mouth], loop.arkit[:, mouth])
    for name in ("head_rotation", "head_translation", "torso_translation", "gaze"):
        assert float((getattr(one, name) - getattr(two, name)).abs().max()) > 0.01
        assert float((getattr(one, name) - getattr(loop, name)).abs().max()) > 0.01


def test_generated_for_some_time_and_while_waiting(generating: Path, sound: Path, tmp_path: Path):
    whole = write(generating, "--audio", sound, "--pose", "generated")
    part = write(
        generating,
        "--audio",
        sound,
        "--pose",
        "generated@1.2-",
        "--timeline",
        timeline_of(tmp_path, "generated", 0, 0.1),
    )
    plain = write(generating, "--audio", sound)
    torch.testing.assert_close(part.head_rotation[35:], whole.head_rotation[35:])
    torch.testing.assert_close(part.head_rotation[0], whole.head_rotation[0])
    torch.testing.assert_close(part.gaze, plain.gaze)  # a pose for some time is the head's and the body's
    waiting = write(generating, "--audio", sound, "--pose", "generated", "--idle", 2)
    assert len(waiting) == 150 and float(waiting.head_rotation.std(0).min()) > 0.003
    assert len(write(generating, "--pose", "generated", "--idle", 3)) == 75  # nothing is said at all
    other = talking(seed=5)[0]
    other.save(tmp_path / "other.safetensors")
    driven = write(generating, "--motion", tmp_path / "other.safetensors", "--pose", "generated")
    torch.testing.assert_close(driven.face, other.face)
    assert float((driven.head_rotation - other.head_rotation).abs().max()) > 0.01


def timeline_of(folder: Path, pose: str, start: float, end: float) -> Path:
    path = folder / "line.json"
    span = {"control": "pose", "value": pose, "start": start, "end": end, "fade": 0.1}
    path.write_text(json.dumps({"format": "avatar-timeline-1", "spans": [span]}))
    return path


def test_guidance_and_noise(generating: Path, sound: Path):
    def pose(*options: object) -> torch.Tensor:
        return write(generating, "--audio", sound, "--pose", "generated", *options).head_rotation

    assert torch.equal(pose("--pose-noise", 0, "--seed", 1), pose("--pose-noise", 0, "--seed", 2))
    assert not torch.equal(pose("--pose-guidance", 3), pose("--pose-guidance", 0))


def test_very_short_sounds(generating: Path, tmp_path: Path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(1600, np.float32), 16000)
    made = write(generating, "--audio", path, "--pose", "generated")
    assert len(made) == 3 or len(made) == 2
    assert bool(torch.isfinite(made.head_rotation).all())


def test_a_run_that_cannot_generate(run: Path, sound: Path, capsys: pytest.CaptureFixture[str]):
    told = refused(capsys, *LIVE_LINK, run, "--audio", sound, "--out", "o.csv", "--pose", "generated")
    assert "headmotion.safetensors" in told and "--resume" in told and "--pose own" in told
    (run / "headmotion.safetensors").write_bytes(b"no")
    told = refused(capsys, *LIVE_LINK, run, "--audio", sound, "--out", "o.csv", "--pose", "generated")
    assert "headmotion.safetensors cannot be read" in told
    shutil.copy(run / "motion.safetensors", run / "headmotion.safetensors")
    refused(capsys, *LIVE_LINK, run, "--audio", sound, "--out", "o.csv", "--pose", "generated")
