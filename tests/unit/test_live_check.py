"""What `python -m pipelines.live_check` counts on: numbers in images, and what is computed of what was noted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar.infer.video import resize
from pipelines import live_numbers as numbers
from tests.fake_avatar import FakeAvatar, LoudnessSpeech
from tests.serving import fake_session

av = pytest.importorskip("av")
pytest.importorskip("aiortc")

from pipelines import live_agent, live_bars, live_check, live_film, live_server, live_steps  # noqa: E402


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


def row(number: int, heard: int, drawn: float, real: int = 640, opening: float = 0.0) -> list[float]:
    return [number, number / 25, heard, real, drawn, opening]


def test_latency_is_that_of_the_first_image_that_reaches_a_piece() -> None:
    rows = [row(7, 1000 + 320, 50), row(8, 1000 + 640, 90), row(10, 1000 + 1600, 170)]
    images = [[7, 100.0], [8, 140.0], [10, 220.0], [99, 230.0]]  # frame 9 was left out
    shown = numbers.shown_rows(images, rows)
    assert numbers.latencies(shown, [20.0, 40.0, 60.0, 80.0, 100.0, 120.0], 1000) == [80, 100, 160, 140, 120]


def test_numbers_that_begin_anew_are_told_apart_by_time() -> None:
    rows = [row(7, 320, 50), row(7, 9999, 5000)]
    assert [found[2] for _, found in numbers.shown_rows([[7, 100.0], [7, 5100.0]], rows)] == [320, 9999]


def test_silence_and_a_closed_mouth_are_found_after_an_interruption() -> None:
    levels = [[float(at), -20.0 if at < 1080 else -90.0] for at in range(900, 1500, 10)]
    assert numbers.silence_after(levels, 1000, 1500) == 70
    assert numbers.silence_after(levels, 1200, 1500) is None, "it was silent already"
    shown = [(float(at), row(n, 0, at, opening=0.1 + max(0.0, 0.5 - n / 10))) for n, at in enumerate(range(0, 400, 40))]
    assert numbers.closed_after(shown, 90, 0.1, 400) == 110
    assert numbers.closed_after(shown, 330, 0.1, 400) is None, "it was closed already"


def test_offsets_are_positive_where_audio_comes_after_video() -> None:
    reports = [{"video": {"estimatedPlayoutTimestamp": 540}, "audio": {"estimatedPlayoutTimestamp": 500}}, {}]
    assert numbers.playout_offsets(reports) == [40]
    shown = [(1000.0, row(50, 0, 900))]  # second 2 of the session
    stamps = [[1000.0, 0.0, 990.0, 48000 * 1.45]]  # second 0.5 + 1.45 was played 10 ms earlier
    assert numbers.stamp_offsets(stamps, shown, 0.5) == pytest.approx([40])


def test_turns_are_what_is_loud_between_long_pauses() -> None:
    levels = [[float(at), -20.0 if at < 500 or 800 <= at < 1500 or at >= 4000 else -90.0] for at in range(0, 4300, 100)]
    assert numbers.loud_spans(levels) == [(0, 1400), (4000, 4200)]


def test_a_conversation_is_timed_from_the_end_of_the_question() -> None:
    from pipelines.live_steps import Watch

    nobody: Any = None
    voice = [[float(at), -20.0 if 1000 <= at <= 3000 or 8000 <= at <= 9000 else -90.0] for at in range(0, 16000, 20)]
    levels = [[float(at), -20.0 if 4200 <= at <= 8060 or at >= 10500 else -90.0] for at in range(0, 16000, 20)]
    rows = [row(n, 0, 40 * n, opening=0.5 if 4240 <= 40 * n <= 8160 else 0.0) for n in range(300)]
    watch = Watch(
        nobody, nobody, images=[[n, 40 * n + 10.0] for n in range(300)], rows=rows, levels=levels, voice=voice
    )
    found = live_film.timed(watch)
    assert found["question_to_sound_ms"] == 1200 and found["question_to_open_mouth_ms"] == 1250
    assert found["interruption_to_silence_ms"] == 60 and found["interruption_to_closed_mouth_ms"] == 210
    assert found["second_question_to_sound_ms"] == 1500 and found["lips_while_listening_cm"] == 0
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


def test_rates_and_slopes() -> None:
    found = numbers.rates([0, 40, 80, 400, 440])
    assert found == {"frames_per_second": 9.09, "longest_gap_ms": 320, "gaps_over_200_ms": 1}
    assert numbers.slope_per_hour([0, 1800, 3600], [5, 6, 7]) == pytest.approx(2)
    times = list(range(0, 3600, 60))
    noise = np.random.default_rng(0).normal(0, 5, len(times))
    low, high = numbers.slope_interval(times, (np.asarray(times) / 300 + noise).tolist())
    assert 4 < low < 12 < high < 22
    assert numbers.summary([]) is None


def test_intervals_of_latency_hold_for_sessions() -> None:
    rng = np.random.default_rng(0)
    sessions = [list(200 + 40 * n + rng.normal(0, 5, 1000)) for n in range(3)]
    one, all_of_them = numbers.intervals(sessions[:1]), numbers.intervals(sessions)
    assert 199 < one["p50"][0] < one["p50"][1] < 201 and 207 < one["p95"][0] < one["p95"][1] < 210
    assert all_of_them["p50"][0] < 205 and all_of_them["p50"][1] > 275, "sessions differ more than pieces of one"
    assert numbers.intervals([[]]) == {}


def test_sessions_are_counted_together_and_the_worst_one_is_not_hidden() -> None:
    def session(latency: float, worst: float, rate: float) -> dict[str, Any]:
        return {"latency_ms": numbers.summary([latency] * 10), "lips_ms": {"worst": worst, "mean_size": 1.0},
                "frames_per_second": rate, "longest_gap_ms": 60.0, "underruns": 1}  # fmt: skip

    found = live_steps.together([session(200, 30, 25), session(260, 20, 24.5)], [[200.0] * 10, [260.0] * 10])
    assert found["latency_ms"]["p50"] == 230 and found["latency_ms"]["interval_95"]["p50"] == [200, 260]
    assert found["lips_ms"]["worst"] == 30 and found["frames_per_second"] == 24.5 and found["underruns"] == 2
    assert found["latency_p50_of_sessions_ms"] == [200, 260] and len(found["sessions"]) == 2


def test_the_table_has_what_was_measured_and_whether_it_is_kept() -> None:
    steps = {"talk-webrtc": {"latency_ms": {"p50": 310.0}, "frames_per_second": 24.9}, "interruption": {"failed": "no"}}
    rows = {row["what"]: row["kept"] for row in live_bars.table(steps)}
    assert rows == {"latency by WebRTC, p50, ms": False, "frames/s by WebRTC": True}
    assert {bar.path.split()[0] for bar in live_bars.BARS} <= set(live_check.STEPS)


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
