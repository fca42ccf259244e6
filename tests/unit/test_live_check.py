"""What `python -m pipelines.live_check` counts on: numbers in images, and what is computed of what was noted."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from avatar.infer.video import resize
from pipelines import live_numbers as numbers
from tests.fake_avatar import FakeAvatar, LoudnessSpeech
from tests.serving import fake_session

av = pytest.importorskip("av")
pytest.importorskip("aiortc")

from pipelines import live_agent, live_bars, live_check, live_film, live_server, live_steps, live_watch  # noqa: E402
from pipelines.live_browser import Feeder  # noqa: E402


@pytest.mark.parametrize("width", [256, 512])
def test_a_mark_is_read_back_after_the_codec(width: int) -> None:
    from avatar.serve.encoder import Encoder

    image = np.random.default_rng(0).integers(0, 255, (width, width, 3)).astype(np.uint8)
    encoder, decoder = Encoder("vp8", 25, 500_000), av.CodecContext.create("vp8", "r")
    assert live_server.read_mark(image) is None
    for number in (0, 1, 0xABCD, 0xFFFF):
        live_server.draw_mark(image, number)
        (frame,) = decoder.decode(av.Packet(encoder.encode(image).data))
        assert live_server.read_mark(frame.to_ndarray(format="rgb24")) == number
    image[: live_server.cell_size(width), 10 * live_server.cell_size(width) :] = 0
    assert live_server.read_mark(image) is None, "a number that was damaged is none"


def test_a_marked_session_notes_which_audio_an_image_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server.sessions, "Utterances", live_server.CountedUtterances)
    fake_session(tmp_path)
    avatar: Any = FakeAvatar(tmp_path)
    session = live_server.MarkedSession(avatar, None, resize(avatar.camera, 256), speech=LoudnessSpeech())
    fps, images = session.fps, []
    for n in range(40):
        if n == 5:
            session.push_audio(np.full(8000, 0.5, np.float32))
            session.end_utterance()
        images += [session.draw(frame) for frame in session.take(n / fps)]
    rows = live_server.ROWS[session]
    assert [live_server.read_mark(image) for image in images] == [row.number for row in rows] == [*range(40)]
    heard = [row.heard for row in rows]
    assert heard[4] == 0 and heard[-1] == live_server.COUNTS[session].pushed == 8000
    assert heard == sorted(heard) and sum(row.real for row in rows) == 8000
    session.push_audio(np.full(1600, 0.5, np.float32))
    session.interrupt()
    assert live_server.COUNTS[session].taken == live_server.COUNTS[session].pushed, "what was dropped is not waited for"


def test_a_conversation_is_timed_from_the_end_of_the_question() -> None:
    from pipelines.live_watch import Watch

    nobody: Any = None
    voice = [[float(at), -20.0 if 1000 <= at <= 3000 or 8000 <= at <= 9000 else -90.0] for at in range(0, 16000, 20)]
    levels = [[float(at), -20.0 if 4200 <= at <= 8060 or at >= 10500 else -90.0] for at in range(0, 16000, 20)]
    rows = [[n, n / 25, 0, 640, 40 * n, 0.5 if 4240 <= 40 * n <= 8160 else 0.0] for n in range(300)]
    images = [[n, 40 * n + 10.0] for n in range(300)]
    watch = Watch(nobody, nobody, images=images, rows=rows, levels=levels, voice=voice, until=16000.0)
    found = live_film.timed(watch)
    assert found["question_to_sound_ms"] == 1200 and found["question_to_open_mouth_ms"] == 1250
    assert found["interruption_to_silence_ms"] == 60 and found["interruption_to_closed_mouth_ms"] == 210
    assert found["second_question_to_sound_ms"] == 1500 and found["lips_while_listening_cm"] == 0
    assert found["interruption_mouth_closed"] and found["frames_per_second"] == 18.75, "it froze after 12 of 16 s"
    watch.voice = watch.voice[:300]
    assert live_film.timed(watch) == {"turns_of_the_microphone": 1}


def test_sounds_are_mixed_each_from_where_it_begins() -> None:
    import base64

    def sound(begin: float, rate: int) -> dict[str, Any]:
        data = np.full(rate, 4000, "<i2")  # a second
        return {"begin": begin, "rate": rate, "data": base64.b64encode(data.tobytes()).decode()}

    both = live_film.mixed(sound(2000, 16000), None, sound(2500, 48000))
    assert both is not None and (both["begin"], both["rate"]) == (2000, 16000) and live_film.mixed(None) is None
    samples = np.frombuffer(base64.b64decode(both["data"]), "<i2")
    assert len(samples) == 24000 and abs(samples[4000] - 4000) < 50 and abs(samples[12000] - 8000) < 50


def test_the_stand_in_of_an_agent_answers_turn_by_turn() -> None:
    from avatar.serve.agent import AgentSettings, Turn, Words
    from avatar.serve.agent_chat import ChatAgent

    async def run() -> list[str]:
        async with live_agent.StandIn([("one", "First answer."), ("two", "Second answer.")]).running() as url:
            agent = ChatAgent(AgentSettings(url=url, model="m", transcriber="t"))
            said = []
            for _ in range(3):
                pieces = [piece async for piece in agent.reply([Turn(audio=np.zeros(3200, np.float32))])]
                said.append("".join(piece.text for piece in pieces if isinstance(piece, Words)).strip())
            await agent.close()
            return said

    assert asyncio.run(run()) == ["First answer.", "Second answer.", "Second answer."]

    async def goes_on() -> list[str]:
        async with live_agent.StandIn([("one", "First answer."), ("two", "Second answer.")]).running() as url:
            agent, first = ChatAgent(AgentSettings(url=url, model="m", transcriber="t")), np.zeros(3200, np.float32)
            said: list[str] = []
            for turn in (Turn(audio=first), Turn(audio=first, before=first)):
                said += [piece.text async for piece in agent.reply([turn]) if not isinstance(piece, Words)]
            await agent.close()
            return [*said, *(one["content"].strip() for one in agent.history)]

    assert asyncio.run(goes_on()) == ["one", "one", "one", "First answer."], "a turn that goes on is one turn"


def test_an_hour_that_ends_early_says_why() -> None:
    class Gone:
        minutes = 60.0

        @asynccontextmanager
        async def page(self, door: str) -> AsyncGenerator[Any]:
            raise aiohttp.ClientConnectionError("nobody answers")
            yield

    found = asyncio.run(live_steps.hour(Gone()))  # pyright: ignore[reportArgumentType]
    assert found["ended"] == "ClientConnectionError: nobody answers" and found["measured_minutes"] == 0
    rows = live_bars.table({"hour": found | numbers.memory_slope([(0, 10**9), (60, 10**9)])})
    assert [(one["measured"], one["kept"]) for one in rows] == [(0, False), ("not measured", False)]
    assert numbers.memory_slope([(0, 10**9)]) == {}


def test_a_page_is_looked_at_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def look(self: live_watch.Watch, _: object) -> None:
        await asyncio.sleep(0.02)  # a page that is slow to answer is not given up in the middle
        looks.append(time.monotonic())

    monkeypatch.setattr(live_watch.Watch, "look", look)
    monkeypatch.setattr(live_watch, "POLL_SECONDS", 0.01)
    nobody: Any = None

    async def run() -> float:
        async with live_watch.watching(nobody, nobody):
            await asyncio.sleep(0.025)
            end = time.monotonic()
        return end

    assert asyncio.run(run()) < looks[-1]


def test_what_was_watched_ends_with_the_last_look_that_was_complete() -> None:
    class Page:
        session = "name"

        async def run(self, code: str) -> dict[str, Any]:
            images = [[0, 1.0]] if "take" in code else []
            return {"images": images, "levels": [], "voice": [], "sync": [], "unread": 0, "ahead": 0.5}

    async def rows(_: web.Request) -> web.Response:
        return web.json_response({"rows": [], "first_audio": 0})

    async def run() -> tuple[live_watch.Watch, float]:
        app = web.Application()
        app.router.add_get("/live-check/frames/name", rows)
        async with serving_app(app) as server:
            watch = live_watch.Watch(server, Page())  # pyright: ignore[reportArgumentType]
            async with aiohttp.ClientSession() as client:
                begin = 1000 * time.time()
                await watch.look(client)
                until = watch.until
                assert begin <= until <= 1000 * time.time() and len(watch.images) == 1
                watch.forget()
                assert watch.began == until and not watch.images
                watch.page.session = "another"
                with pytest.raises(RuntimeError, match="session is gone"):
                    await watch.look(client)
        return watch, until

    watch, until = asyncio.run(run())
    assert watch.until == until


def spans_of(count: int, ms: float, shown: bool = True) -> list[numbers.Span]:
    return [numbers.Span(20.0 * n, ms, shown) for n in range(count)]


def test_sessions_are_counted_together_and_the_worst_one_is_not_hidden() -> None:
    def session(latency: float, worst: float | None, rate: float) -> dict[str, Any]:
        lips = {} if worst is None else {"worst": worst, "mean_size": 1.0}
        return {"latency_ms": numbers.summary([latency] * 10), "lips_ms": lips, "images_shown": round(60 * rate),
                "frames_per_second": rate, "longest_gap_ms": 60.0, "underruns": 1}  # fmt: skip

    found = live_steps.together([session(200, 30, 25), session(260, 20, 24.5)], [spans_of(10, 200), spans_of(10, 260)])
    assert found["latency_ms"]["p50"] == 230 and "interval_95" not in found["latency_ms"]
    assert found["lips_ms"]["worst"] == 30 and found["frames_per_second"] == 24.5 and found["underruns"] == 2
    assert found["latency_p50_of_sessions_ms"] == [200, 260] and len(found["sessions"]) == 2
    assert found["sessions_without_image"] == 0 and found["latency_ms"]["never_shown"] == 0
    black = [session(200, 30, 25), session(9000, None, 0)]
    found = live_steps.together(black, [spans_of(10, 200), spans_of(10, 9000, shown=False)])
    assert found["sessions_without_image"] == 1 and found["latency_ms"]["never_shown"] == 10
    assert found["latency_ms"]["p50"] == 4600 and found["frames_per_second"] == 0 and found["lips_ms"] == {}
    many = [session(200 + n, 30, 25) for n in range(5)]
    assert live_steps.together(many, [spans_of(10, 200 + n) for n in range(5)])["latency_ms"]["interval_95"]["p50"]


@asynccontextmanager
async def serving_app(app: web.Application) -> AsyncGenerator[Any]:
    """A server as `live_browser.Server`, of an app."""
    runner = web.AppRunner(app)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield SimpleNamespace(url=url, token="", memory=lambda: 0)
    finally:
        await runner.cleanup()


def test_the_server_says_what_became_of_each_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.serve.metrics import Metrics

    for owner, name in ((live_server.hub, "Listener"), (live_server.listeners, "CatchingUp"),
                        (live_server.sessions, "Utterances"), (live_server.character, "Session"),
                        (live_server.webrtc, "SpeechTrack"), (live_server.service, "make_app"),
                        (live_server.rtcrtpsender, "random32")):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))  # install is undone after the test
    live_server.install()
    fake_session(tmp_path)
    avatar: Any = FakeAvatar(tmp_path)
    camera = resize(avatar.camera, 256)
    session = live_server.character.Session(avatar, None, camera, speech=LoudnessSpeech(), flush_seconds=None)
    listener = live_server.hub.Listener(session, Metrics())  # it is not started: what it gets waits
    guest = SimpleNamespace(listener=listener, active=0.0)

    async def run() -> tuple[Feeder, list[list[int]]]:
        app = web.Application()
        hub: Any = SimpleNamespace(guests={"name": guest})
        app[live_server.service.HUB] = hub
        app.router.add_get("/live-check/feed/{session}", live_server.feed)
        app.router.add_get("/live-check/frames/{session}", live_server.frames)
        listener.push_microphone(np.ones(320, np.float32))  # nobody asked for it
        assert live_server.PIECES[session][-1] == (0, 0, 320)
        async with serving_app(app) as server:
            feeder = Feeder(server, "name", np.zeros(32000, np.float32))
            await feeder.run(1)
            async with aiohttp.ClientSession() as client:
                async with client.get(f"{server.url}/live-check/frames/name", params={"pieces": "1"}) as answer:
                    return feeder, (await answer.json())["pieces"]

    try:
        feeder, pieces = asyncio.run(run())
    finally:
        listener.stop(wait=False)
    assert pieces == feeder.pieces and len(pieces) == len(feeder.sent) == 50, "those of an earlier feed are forgotten"
    left_out = [left for _, left, _ in pieces]
    assert pieces[0] == [320, 0, 0] and set(left_out) == {0, 320} and not any(lost for *_, lost in pieces)
    assert pieces[-1][0] == 320 * left_out.count(0) == live_server.COUNTS[session].pushed


def test_a_film_has_the_images_and_the_audio(tmp_path: Path) -> None:
    import base64

    import cv2

    paths = [tmp_path / f"{n}.jpg" for n in range(3)]
    for n, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((live_film.HEIGHT, live_film.WIDTH, 3), 60 * n, np.uint8))
    sound = {"begin": 1100.0, "rate": 48000, "data": base64.b64encode(np.full(24000, 9000, "<i2").tobytes()).decode()}
    live_film.write_film(tmp_path / "a.mp4", [(1000.0 + 200 * n, str(path)) for n, path in enumerate(paths)], sound)
    with av.open(str(tmp_path / "a.mp4")) as film:
        means = [frame.to_ndarray(format="gray").mean() for frame in film.decode(video=0)]
    with av.open(str(tmp_path / "a.mp4")) as film:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    assert len(means) == 10 and means[0] < 10 and 50 < means[-1] < 70
    assert abs(audio[:3000]).max() < 0.05 < abs(audio[8000:20000]).min(), "audio that began later is later"


def test_a_missing_program_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.errors import AvatarError
    from pipelines.live_browser import Tools

    monkeypatch.setenv("PATH", "")
    with pytest.raises(AvatarError, match="no node"):
        Tools(None, None)
    for name in ("node", "chromium"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "chromium").rename(tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AvatarError, match="no Chromium"):
        Tools(None, None)
    with pytest.raises(AvatarError, match="playwright-core is not"):
        Tools(tmp_path / "other", tmp_path)


def test_a_page_of_any_live_service_is_connected(tmp_path: Path) -> None:
    """Only the service of these checks has the worklet that measures audio."""
    from pipelines.live_browser import Page

    asked: list[str] = []

    class Plain:
        async def ask(self, command: str, *_: object, **options: Any) -> object:
            asked.append(options.get("code", command))
            if "liveProbe" in asked[-1]:
                raise RuntimeError("Unable to load a worklet's module.")
            return "WebRTC" if asked[-1] == "window.avatarState.door" else "id"

    page = Page(Plain(), "page1")  # pyright: ignore[reportArgumentType]
    assert asyncio.run(page.connected()) == "WebRTC" and page.session == "id" and "act" in asked
    with pytest.raises(RuntimeError, match="worklet"):
        asyncio.run(page.listen())


def test_bars_are_of_steps_that_there_are() -> None:
    assert {bar.path.split()[0] for bar in live_bars.BARS} <= set(live_check.STEPS)


def test_a_step_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def good(bench: object) -> dict[str, Any]:
        return {"value": 1}

    async def bad(bench: object) -> dict[str, Any]:
        raise RuntimeError("the page is gone")

    class NoBrowser:
        version = "0"

        def __init__(self, *_: object) -> None: ...
        async def __aenter__(self) -> NoBrowser:
            return self

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(live_check, "STEPS", {"hour": bad, "faults": good})
    monkeypatch.setattr(live_check, "Browser", NoBrowser)
    monkeypatch.setattr(live_check, "Tools", NoBrowser)
    monkeypatch.setattr(live_check, "speech_of", lambda *_: np.zeros(16000, np.float32))
    config = live_check.Config(run=tmp_path, steps=("hour", "faults"))
    record: dict[str, Any] = {"steps": {}}
    kept: list[int] = []
    asyncio.run(live_check.measure(config, tmp_path, record, lambda: kept.append(len(record["steps"]))))
    assert record["steps"]["hour"]["failed"] == "RuntimeError: the page is gone"
    assert record["steps"]["faults"]["value"] == 1 and kept == [1, 2]
    assert {(row["measured"], row["kept"]) for row in record["table"]} == {("not measured", False)}
