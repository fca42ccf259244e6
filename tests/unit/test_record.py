"""Giving tracks: consent first, bad recordings refused in words, nothing of face and voice left, numbers that train."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp.test_utils import TestClient, TestServer

from avatar.assets import store as assets
from avatar.audio2motion.shared import SharedPrior
from avatar.cli.main import main
from avatar.corpus.find import find
from avatar.corpus.mouth import Mouth
from avatar.corpus.prepared import write_prepared
from avatar.corpus.tracks import ABOUT, BASIS, SUFFIX, Take, read_take, without_rest
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.io.video import read_info
from avatar.motion.mouth import ARTICULATION, GEOMETRY, OPENING
from avatar.paths import file_sha256, read_json, write_json
from avatar.preprocess.landmarker import Face
from avatar.record import prompts as texts
from avatar.record import recordings
from avatar.record.app import make_app
from avatar.record.checks import Finding, hear, look, worst
from avatar.record.examine import Examiner
from avatar.record.recordings import delete_leftovers, kept_for_now, place
from avatar.record.session import RecordingSession
from avatar.serve.hub import Settings
from avatar.sync.judge import REACH
from tests import media
from tests.browser import found_tools
from tests.serving import TOKEN

RATE = 25.0
SEEDS = itertools.count()  # no two takes are the same
needs_whisper = pytest.mark.skipif(not assets.available("whisper_front"), reason="the asset whisper_front is not here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings of the tests do not lie among the user's."""
    monkeypatch.setattr(recordings, "cache_dir", lambda: tmp_path / "cache")


def curve(late: float = 0.0, depth: float = 0.4) -> np.ndarray:
    """What the sync judge says of a video whose image is late by so many windows."""
    return 1 - depth * np.exp(-0.5 * ((np.arange(-REACH, REACH + 1) - late) / 1.5) ** 2)


def a_take(text: str = "A text.", seconds: float = 10.0, late: float = 0.0, depth: float = 0.4) -> Take:
    rows = round(seconds * RATE)
    rng = np.random.default_rng(next(SEEDS))
    mouth = Mouth(
        values=rng.random((rows, len(ARTICULATION))).astype(np.float32) + 0.5, seen=np.ones(rows, bool), fps=RATE,
        rows=rows, curve=curve(late, depth),
    )  # fmt: skip
    speech = rng.standard_normal((rows, 96)).astype(np.float32)
    face = {"arkit": np.zeros((rows, 52), np.float32), "head": np.zeros((rows, 3), np.float32)}
    return Take(mouth=mouth, speech=speech, text=text, **face)


class Pretends(Examiner):
    """Makes takes without tracking anything; says what it was given, and what lay on the disk meanwhile."""

    def __init__(self, made: Callable[[str], Take] = a_take) -> None:
        self.prior = SharedPrior.load()
        self.made, self.given, self.made_takes = made, [], []

    def close(self) -> None:
        pass

    def look(self, image: np.ndarray) -> list[Finding]:
        return [Finding("face", "good", f"One face in {image.shape[1]}x{image.shape[0]}.")]

    def take(self, path: Path, text: str) -> Take:
        self.given.append(path.read_bytes())
        self.made_takes.append(self.made(text))
        return self.made_takes[-1]


def session(out: Path, made: Callable[[str], Take] = a_take) -> RecordingSession:
    return RecordingSession(Pretends(made), texts.prompts(), out, "en")


# --- what is kept ---


@needs_whisper
def test_tracks_come_back_as_training_takes_them(tmp_path: Path):
    one = session(tmp_path / "gift")
    one.agree(" A  Giver ", True)
    for name in ("first", "s1", "t1", "last"):
        one.record(name, b"film", ".webm")
    result = one.finish()
    one.close()
    about = read_json(tmp_path / "gift" / ABOUT)
    assert (about["name"], about["licence"], about["language"]) == ("A Giver", "CC0-1.0", "en")
    assert any("CC0" in line for line in about["statement"]) and about["given"] and result["takes"] == 4
    assert [take["text"] for take in about["takes"]][1] == texts.SENTENCES[0]
    path = tmp_path / "gift" / about["takes"][1]["file"]
    mouth, features = read_take(path, SharedPrior.load().encoder)
    prior, take = SharedPrior.load(), one.examiner.made_takes[1]  # type: ignore[attr-defined]
    assert features.shape == (mouth.rows, prior.encoder.dim)
    z = (torch.from_numpy(features) - prior.input_mean) / prior.input_std @ prior.basis
    np.testing.assert_allclose(z.numpy(), take.speech, atol=5e-3)  # kept with 16 bits
    np.testing.assert_allclose(mouth.values[:, OPENING], take.mouth.values[:, OPENING], atol=1e-6)
    shape = mouth.values[:, : len(GEOMETRY)] - take.mouth.values[:, : len(GEOMETRY)]
    assert np.allclose(shape, shape[0], atol=1e-6) and (np.abs(shape[0]) > 0.5).all(), "lips at rest are taken out"
    everything = b"".join(file.read_bytes() for file in (tmp_path / "gift").iterdir())
    assert b"film" not in everything and not list((tmp_path / "cache").rglob("*.webm"))


@needs_whisper
def test_what_was_changed_or_nobody_gave_is_refused(tmp_path: Path):
    one = session(tmp_path / "gift")
    one.agree("A Giver", True)
    for name in ("first", "s1", "s2", "last"):
        one.record(name, b"film", ".webm")
    one.finish()
    one.close()
    folder, encoder = tmp_path / "gift", SharedPrior.load().encoder
    path, about = folder / f"002{SUFFIX}", read_json(folder / ABOUT)

    def refused(match: str) -> None:
        with pytest.raises(AvatarError, match=match):
            read_take(path, encoder)

    for change, match in (
        ({"licence": "all rights reserved"}, "no statement"), ({"statement": []}, "no statement"),
        ({"name": ""}, "no statement"), ({"format": "avatar-tracks-0"}, "another version"),
        ({"takes": about["takes"][:1]}, "nobody said"), ({"speech": {**about["speech"], "encoder": {}}}, "encoder"),
        ({"takes": [{**take, "sha256": "0" * 64} for take in about["takes"]]}, "was changed"), ({"takes": {}}, "takes"),
    ):  # fmt: skip
        write_json(folder / ABOUT, about | change)
        refused(match)
    write_json(folder / ABOUT, about)
    (folder / BASIS).rename(folder / "away")
    refused("is missing")
    (folder / "away").rename(folder / BASIS)
    bad = replace(a_take().mouth, rows=3)
    write_prepared(path, bad, np.zeros((4, 96), np.float16), {"arkit": np.zeros((250, 52)), "head": np.zeros((250, 3))})
    named = [{**take, "sha256": file_sha256(path)} if take["file"] == path.name else take for take in about["takes"]]
    write_json(folder / ABOUT, about | {"takes": named})
    refused("its features are")
    (folder / ABOUT).unlink()
    refused("who gave the tracks")


@needs_whisper
def test_training_takes_a_folder_of_tracks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = session(tmp_path / "c/giver")
    one.agree("A Giver", True)
    for name in ("first", "s1", "s2", "s3", "last"):
        one.record(name, b"film", ".webm")
    one.finish()
    one.close()
    (tmp_path / "c/giver" / f"003{SUFFIX}").write_bytes(b"changed")
    assert (
        main(["prior", "train", str(tmp_path / "c"), "--out", str(tmp_path / "p.safetensors"), "--workers", "1"]) == 0
    )
    shown = capsys.readouterr().err
    assert "4 of 5 recordings can be used" in shown and "was changed" in shown
    rows = read_json(tmp_path / "p.report.json")["recordings"]
    assert {item.speaker for item in find(tmp_path / "c/giver")} == {"giver"}, "also where CORPUS is the folder itself"
    assert {row["speaker"] for row in rows} == {"giver"} and SharedPrior.load(tmp_path / "p.safetensors").about[
        "speakers"
    ]


def test_the_shape_of_lips_at_rest_is_one_for_all_takes():
    takes = [a_take("one"), a_take("another")]
    freed = without_rest(takes)
    shift = [one.mouth.values - other.mouth.values for one, other in zip(freed, takes)]
    np.testing.assert_allclose(shift[0][0], shift[1][0], atol=1e-6)
    everything = np.concatenate([take.mouth.values for take in freed])
    np.testing.assert_allclose(np.median(everything, 0)[: len(GEOMETRY)], 0, atol=1e-6)


# --- consent, and the end ---


def test_nothing_is_recorded_without_consent(tmp_path: Path):
    one = session(tmp_path / "gift")
    for agreed, name in ((False, "Me"), (True, " "), (True, "\u200c"), (True, "x" * 101), (True, "a\0b")):
        with pytest.raises(AvatarError, match=r"consent|name is missing"):
            one.agree(name, agreed)
    for act in (lambda: one.record("first", b"film", ".webm"), lambda: one.look(np.zeros((4, 4, 3))), one.finish):
        with pytest.raises(AvatarError, match="without your consent"):
            act()
    one.agree("علی\u200cرضا", True)
    one.record("first", b"film", ".webm")
    one.decline()
    with pytest.raises(AvatarError, match="without your consent"):
        one.finish()
    one.close()
    assert not (tmp_path / "gift").exists() and one.declined


def test_too_little_and_what_is_not_in_step_is_not_written(tmp_path: Path):
    def made(text: str) -> Take:
        if text == texts.SENTENCES[0]:
            raise AvatarError("It is too dark.")
        if text == texts.SENTENCES[1]:
            raise ZeroDivisionError
        return a_take(text, 12.0, depth=0.0 if text.startswith("a meal") else 0.4)

    one = session(tmp_path / "gift", made)
    one.agree("Me", True)
    for name in ("first", "s1", "s2", "t1", "s3"):
        one.record(name, b"film", ".webm")
    with pytest.raises(AvatarError, match=r"Only 24 s can be used.*do not clearly belong together"):
        one.finish()
    rows = {row["name"]: row for row in one.state()["prompts"]}
    assert rows["s1"]["message"] == "It is too dark." and rows["s1"]["state"] == "refused"
    assert "cannot be read" in rows["s2"]["message"] and rows["s4"]["state"] == "open"
    with pytest.raises(AvatarError, match="no prompt"):
        one.record("../x", b"film", ".webm")
    one.record("s4", b"film", ".webm")
    result = one.finish()
    one.close()
    assert result["takes"] == 3 and "a meal" in result["left_out"][0] and (tmp_path / "gift" / ABOUT).is_file()


def test_the_first_text_has_to_be_in_step_and_a_repetition_counts(tmp_path: Path):
    depth = [0.0, 0.4]
    one = session(tmp_path / "gift", lambda text: a_take(text, 40.0, depth=depth.pop(0)))
    one.agree("Me", True)
    one.record("first", b"film", ".webm")
    one.record("first", b"film", ".webm")
    assert one.finish()["takes"] == 1 and one.state()["prompts"][0]["state"] == "good"
    one.close()


def test_a_move_of_the_audio_is_said(tmp_path: Path):
    one = session(tmp_path / "gift", lambda text: a_take(text, 20.0, late=5.0 if text == texts.CHECKED else 0.0))
    one.agree("Me", True)
    for name in ("first", "s1"):
        one.record(name, b"film", ".webm")
    sync = one.finish()["sync"]
    one.close()
    assert "moved apart" in sync["text"] and sync["first_s"] == pytest.approx(-0.216, abs=0.01)


# --- nothing of face and voice is left ---


def test_a_recording_is_gone_after_its_block_and_nobody_else_reads_it():
    with pytest.raises(ZeroDivisionError), kept_for_now(b"film", ".webm") as path:
        assert path.read_bytes() == b"film" and place().stat().st_mode & 0o077 == 0
        assert delete_leftovers() == (0, [path])  # of one that lives
        raise ZeroDivisionError
    assert not list(place().iterdir())


def test_what_a_killed_command_left_is_deleted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = (
        "from avatar.record.recordings import kept_for_now\n"
        "with kept_for_now(b'film', '.webm'):\n  print(1, flush=True)\n  input()"
    )
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"AVATAR_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        process.send_signal(signal.SIGKILL)
    assert len(list(place().rglob("*.webm"))) == 1
    from avatar.record.start import tell_leftovers

    tell_leftovers()
    assert "1 recording(s) of a face and a voice" in " ".join(capsys.readouterr().err.split())
    assert not list(place().rglob("*.webm"))
    tell_leftovers()
    assert not capsys.readouterr().err


# --- checks ---


def face(height: float = 150.0, x: float = 160.0, y: float = 120.0) -> Face:
    corner = np.array([[-0.4, -0.5, 0], [0.4, 0.5, 0]], np.float32) * height
    return Face(landmarks=corner + np.array([x, y, 0], np.float32), arkit=np.zeros(52, np.float32))


@pytest.mark.parametrize(
    ("grey", "faces", "sentence"),
    [
        (120, [], "No face is seen"),
        (5, [], "very dark"),
        (120, [face(), face(120)], "Two faces"),
        (120, [face(60)], "only 60 pixels high"),
        (120, [face(x=30)], "cut off"),
        (20, [face()], "too dark"),
        (250, [face()], "too bright"),
    ],
)
def test_an_image_that_will_not_do_is_told_why(grey: int, faces: list[Face], sentence: str):
    assert sentence in worst(look(np.full((240, 320, 3), grey, np.uint8), faces))


def test_a_good_image_passes_and_light_from_one_side_is_a_note():
    image = np.full((240, 320, 3), 130, np.uint8)
    assert [finding.state for finding in look(image, [face(), face(40)])] == ["good", "good"]
    image[:, :160] = 40
    assert "one side" in look(image, [face()])[1].text and not worst(look(image, [face()]))


def test_a_voice_that_will_not_do_is_told_why():
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    voice = (np.sin(2 * np.pi * 140 * time) * (np.sin(2 * np.pi * 0.5 * time) > 0)).astype(np.float32)
    states = {gain: [finding.state for finding in hear(gain * voice)] for gain in (0.3, 0.02, 0.002)}
    assert states[0.3] == ["good", "good", "good"] and states[0.02][0] == "note"
    assert "too quiet" in worst(hear(0.002 * voice)) and "too quiet" in worst(hear(voice[:0]))
    assert "clipped" in worst(hear(np.clip(4 * voice, -1, 1)))
    assert hear(0.3 * voice + 0.1 * np.sin(2 * np.pi * 90 * time))[2].state == "note"


@needs_whisper
def test_a_real_recording_is_tracked_and_a_bad_one_refused(tmp_path: Path):
    media.need_landmarker()
    examiner, loud = Examiner(SharedPrior.load()), media.write_sound(tmp_path / "loud.wav", 1.2)
    frames = [media.shifted(frame, 0, 0, 1.3) for frame in media.talking_frames(12)]
    take = examiner.take(media.write_video(tmp_path / "good.mp4", frames, loud), "A text.")
    assert take.speech.shape == (take.mouth.rows, 96) and take.arkit.shape == (len(take.mouth.values), 52)
    assert np.isfinite(take.head).all() and np.abs(take.head).max() < 0.6  # nearly frontal, and upright
    assert take.checks["light"]["state"] == "good" and take.checks["face_seen"] == 1.0
    quiet = media.write_sound(tmp_path / "quiet.wav", 1.0, 0.002)
    still = frames[:1] * 10
    dark, black = [still[0] // 5] * 10, [still[0] * 0] * 10
    for shown, voice, sentence in ((still, quiet, "too quiet"), (dark, loud, "too dark"), (black, loud, "No face")):
        path = media.write_video(tmp_path / "bad.mp4", shown, voice)
        with pytest.raises(AvatarError, match=sentence):
            examiner.take(path, "A text.")
    path = media.write_video(tmp_path / "slow.mp4", still[:5], loud, 5.0)
    assert float(read_info(path).fps) == 5
    with pytest.raises(AvatarError, match="only 5 frames per second"):
        examiner.take(path, "A text.")
    examiner.close()


# --- what is said ---


def test_sentences_of_a_file_take_the_place_of_the_own_ones(tmp_path: Path):
    path = tmp_path / "deutsch.txt"
    path.write_text(
        "Guten Tag, wie geht es Ihnen?\n\n  Die  Sonne scheint heute den ganzen Tag.\n" + "Noch ein Satz.\n" * 5
    )
    found = texts.prompts(path)
    assert [p.text for p in found if p.kind == "sentence"][1] == "Die Sonne scheint heute den ganzen Tag."
    assert found[0].text == found[-1].text and 110 <= len(found[0].text) < 150
    assert len({prompt.name for prompt in found}) == len(found)
    path.write_text("من می\u200cخواهم.\n\u200fשלום\n" + "ខ្ញុំ\u200bចង់\n", encoding="utf-8")  # with joiners and marks
    assert len([p for p in texts.prompts(path) if p.kind == "sentence"]) == 3
    for content, match in (
        ("\n \n", "no sentence"), ("x" * 401, "401 characters"), ("a\n" * 1001, "1001 sentences"),
        ("a\x1b[31m", "does not fit"), ("a\n\u200b", "does not fit"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(AvatarError, match=match):
            texts.prompts(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(AvatarError, match="cannot be read"):
        texts.prompts(path)


def test_the_own_sentences_fit_the_prompter():
    assert len(set(texts.SENTENCES)) == 36 and all(len(text) < 70 for text in texts.SENTENCES)


def test_mistakes_at_the_command_line_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    for options, sentence in (
        (("--out", tmp_path / "full"), "is there already"), (("--out", tmp_path / "full/file"), "is there already"),
        (("--out", tmp_path / "new", "--port", 0), "out of range"),
        (("--out", tmp_path / "new", "--language", "German"), "two letters"),
        (("--out", tmp_path / "new", "--text", tmp_path / "none.txt"), "no text"),
    ):  # fmt: skip
        assert main(["prior", "record", *map(str, options)]) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert sentence in shown and "Traceback" not in shown
    assert not (tmp_path / "new").exists()


# --- the page ---

Test = Callable[[Any, RecordingSession], Coroutine[Any, Any, None]]


def serve(out: Path, test: Test, end: Callable[[], object] = lambda: None) -> None:
    async def run() -> None:
        one = session(out)
        async with TestClient(TestServer(make_app(one, Settings(token=TOKEN), end=end))) as client:
            await asyncio.wait_for(test(client, one), 60)

    asyncio.run(run())


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def test_only_the_own_page_with_its_token_is_answered(tmp_path: Path):
    async def test(client: Any, one: RecordingSession) -> None:
        for path in ("/", "/page/main.js", "/page/place.js", "/page/style.css"):
            assert (await client.get(path)).status == 200
        assert (await client.get("/page/..%2Fapp.py")).status in (401, 404)
        assert (await client.get("/api/state")).status == 401
        for headers in ({"Origin": "https://evil.example"}, {"Host": "a b"}):
            assert (await client.get("/api/state", headers=HEADERS | headers)).status == 403
        answer = await client.post("/api/takes/first", data=b"film", headers=HEADERS | {"Content-Type": "video/webm"})
        assert answer.status == 422 and "consent" in (await answer.json())["error"]
        assert not one.examiner.given  # type: ignore[attr-defined]

    serve(tmp_path / "gift", test)


def test_hostile_bodies_are_answered_in_words(tmp_path: Path):
    async def test(client: Any, one: RecordingSession) -> None:
        one.agree("Me", True)
        jpeg = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
        answer = await client.post("/api/frame", data=jpeg, headers=HEADERS)
        assert (await answer.json())["findings"][0]["text"] == "One face in 32x24."
        huge = jpeg.replace((24).to_bytes(2, "big") + (32).to_bytes(2, "big"), b"\xff\xff\xff\xff", 1)
        bodies = (
            ("frame", b"x"), ("frame", huge), ("frame", jpeg[:200]), ("consent", b"{"), ("consent", b"[]"),
            ("consent", b'{"name": 3, "agreed": true}'), ("takes/first", b"x"), ("takes/no", b"x"),
        )  # fmt: skip
        for path, body in bodies:
            answer = await client.post(f"/api/{path}", data=body, headers=HEADERS)
            assert answer.status == 422 and (await answer.json())["error"], (path, body[:9])

    serve(tmp_path / "gift", test)


# Sees to it that a take is "said" without a person: Space begins and ends it.
SAY = [["key", "Space"], ["pause", 1700], ["key", "Space"]]


@needs_whisper
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_person_agrees_reads_repeats_and_gives(tmp_path: Path):
    from pipelines.live_browser import Browser, Page

    tools = found_tools()

    def made(text: str) -> Take:
        if text == texts.SENTENCES[0] and not tried.count(text):
            tried.append(text)
            raise AvatarError("It is too dark. Switch a light on.")
        return a_take(text, 12.0)

    tried: list[str] = []
    notice = "document.querySelector('#notices').innerText"

    async def give(page: Page, one: RecordingSession) -> None:
        state = "window.recordState().state"
        await page.wait(f"window.recordState && {state}", 40)
        assert await page.run("!document.querySelector('#consent').hidden && document.querySelector('#studio').hidden")
        await page.run("window.real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices); undefined")
        gone = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }"
        await page.run(f"{gone}; undefined")
        await page.act(
            ["fill", "#name", "A Giver"], *(["check", f"#agreement label:nth-child({n}) input"] for n in (1, 2))
        )
        await page.act(["click", "#agree .main"])
        await page.wait(f"{notice}.includes('No camera or no microphone was found')", 20)
        await page.run("navigator.mediaDevices.getUserMedia = window.real; undefined")
        await page.act(["click", "#open"])
        await page.wait("window.recordState().findings.some((one) => one.text.startsWith('One face in'))", 40)
        await page.act(*SAY)  # the first text
        await page.wait("window.recordState().current === 's1'", 40)
        await page.act(*SAY)
        await page.wait(f"{notice}.includes('Switch a light on')", 40)
        await page.act(["click", "#repeat"])
        assert await page.run("document.querySelector('#text').innerText") == texts.SENTENCES[0]
        await page.act(*SAY, ["click", "[data-kind=topic]"])
        await page.wait(f"{state}.seconds > 20 && window.recordState().current === 't1'", 40)
        await page.act(*SAY)
        await page.wait(f"{state}.seconds > 30", 40)
        await page.act(["click", "#finish"])
        assert await page.run("window.recordState().current") == "last"
        await page.act(*SAY)
        await page.wait(f"{state}.waiting === 0 && {state}.seconds > 45", 40)
        await page.act(["click", "#finish"])
        await page.wait("!document.querySelector('#done').hidden", 40)
        assert "48 s of tracks of 4 recordings" in await page.run("document.querySelector('#done').innerText")
        given = one.examiner.given  # type: ignore[attr-defined]
        assert len(given) == 5 and all(film.startswith(b"\x1a\x45\xdf\xa3") and len(film) > 5000 for film in given)
        assert not [word for word in await page.words() if word.startswith("error")]

    async def run() -> None:
        one = session(tmp_path / "gift", made)
        app = make_app(one, Settings(token=TOKEN), end=lambda: None)
        async with TestClient(TestServer(app)) as client, Browser(tools) as browser, browser.started() as started:
            async with browser.page(started, f"{client.make_url('/')}#token={TOKEN}") as page:
                await give(page, one)

    asyncio.run(run())
    assert read_json(tmp_path / "gift" / ABOUT)["name"] == "A Giver"
    assert not list((tmp_path / "cache").rglob("*.webm"))


def test_who_does_not_agree_ends_the_command(tmp_path: Path):
    ended: list[int] = []

    async def test(client: Any, one: RecordingSession) -> None:
        answer = await client.post("/api/decline", headers=HEADERS)
        assert answer.status == 200 and one.declined
        for _ in range(100):
            await asyncio.sleep(0.02)
            if ended:
                return

    serve(tmp_path / "gift", test, lambda: ended.append(1))
    assert ended and not (tmp_path / "gift").exists()
