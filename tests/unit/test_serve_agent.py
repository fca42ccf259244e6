"""A conversation with an agent: turns, states, interruptions, and agents that hang, die or answer nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from avatar.audio.turns import HANGOVER_SECONDS, TurnDetector
from avatar.cli.serve import Config, agent_settings, main
from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.io.audio import SAMPLE_RATE
from avatar.serve import agent_chat, agent_realtime
from avatar.serve.agent import AgentError, AgentSettings, Transcript, Turn, Words
from avatar.serve.agent_chat import ChatAgent
from avatar.serve.agent_realtime import RealtimeAgent
from avatar.serve.answer import Sentences
from tests.agent_server import KEY, AgentServer, Mode
from tests.serving import served, until
from tests.unit.test_serve_doors import Page

Talk = Callable[[Page, AgentServer, Any], Coroutine[Any, Any, None]]


def talk(folder: Path, test: Talk, *, realtime: bool = False, transcriber: str = "whisper", **settings: Any) -> None:
    """Run a test with a page and the agent's stand-in."""

    async def run() -> None:
        async with AgentServer().running() as server:
            url = server.url.replace("http", "ws") + "/realtime" if realtime else server.url
            agent = AgentSettings(url=url, model="m", transcriber=transcriber, key=KEY, **settings)
            async with served(folder, agent=agent) as client, client.ws_connect("/ws") as socket:
                page = Page(socket)
                await page.read(lambda: page.images)
                await asyncio.wait_for(test(page, server, client), 60)

    asyncio.run(run())


def states(page: Page) -> list[str]:
    return [words["state"] for words in page.words if words["type"] == "state"]


def answer(page: Page) -> str:
    return "".join(words["text"] for words in page.words if words["type"] == "answer")


def voice(seconds: float, level: float = 0.2) -> np.ndarray:
    """Something that a turn detector takes for a voice: a vowel in syllables."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * 300 * t) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)


async def speak(page: Page, seconds: float, pause: float = 1.0) -> None:
    """Say something into the microphone, then be silent."""
    sound = np.concatenate([voice(seconds), np.zeros(round(pause * SAMPLE_RATE), np.float32)])
    for i in range(0, len(sound), 3200):
        await page.socket.send_bytes(np.rint(sound[i : i + 3200] * 32767).astype("<i2").tobytes())


# --- turns and sentences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [160, 320, 1000, 100_000])
def test_turns_are_found_in_noise_however_the_audio_is_cut(size: int):
    noise = np.random.default_rng(0).normal(0, 0.005, 7 * SAMPLE_RATE).astype(np.float32)
    noise[2 * SAMPLE_RATE : 4 * SAMPLE_RATE] += voice(2.0)
    click = np.random.default_rng(1).normal(0, 0.3, 400).astype(np.float32)
    noise[SAMPLE_RATE : SAMPLE_RATE + 400] += click
    detector = TurnDetector()
    events = [event for i in range(0, len(noise), size) for event in detector.push(noise[i : i + size])]
    assert [event.kind for event in events] == ["started", "stopped"]
    assert events[0].second == pytest.approx(2.0, abs=0.06)
    assert events[1].second == pytest.approx(4.0 + HANGOVER_SECONDS, abs=0.06)
    length = len(events[1].audio) / SAMPLE_RATE
    assert 2.0 + HANGOVER_SECONDS + 0.2 < length < 2.0 + HANGOVER_SECONDS + 0.5


def test_a_room_that_becomes_loud_is_no_turn_for_long():
    noise = np.random.default_rng(0).normal(0, 1, 20 * SAMPLE_RATE).astype(np.float32)
    noise *= np.where(np.arange(len(noise)) < 3 * SAMPLE_RATE, 0.001, 0.05)
    events = TurnDetector().push(noise)
    assert [event.kind for event in events] == ["started", "stopped"] and events[1].second < 3 + 6


def test_text_that_streams_becomes_sentences():
    text = "Hello, Dr. Who! It is **3.5 degrees** in Rome, e.g. now. Ok. Well?\n- One\n- Two " + "word, " * 60
    for size in (1, 3, 1000):
        sentences = Sentences()
        found = [s for i in range(0, len(text), size) for s in sentences.push(text[i : i + size])] + sentences.finish()
        assert found[:3] == ["Hello, Dr. Who!", "It is 3.5 degrees in Rome, e.g. now.", "Ok. Well?"]
        assert max(map(len, found)) <= 240 and " ".join(found).count("word") == 60


# --- conversations -----------------------------------------------------------------------------------------------


def test_a_typed_question_is_answered_before_the_answer_is_complete(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        assert page.words[0]["agent"] and page.words[0]["hears"]
        server.mode = "late"
        await page.socket.send_json({"type": "ask", "text": "Who are you?", "segment": "q"})
        await page.read(lambda: any(samples.any() for _, samples in page.audio))
        await page.read(lambda: len(states(page)) > 1)  # it may come a moment later
        assert answer(page) == "a b c d ee. f" and states(page) == ["thinking", "speaking"]
        server.go.set()
        await page.read(lambda: page.said("segment.done"))
        await page.read(lambda: states(page)[-1] == "idle")
        assert states(page) == ["thinking", "speaking", "idle"]
        assert answer(page) == "a b c d ee. f g h i jj."
        spoken = np.concatenate([samples for _, samples in page.audio])
        assert np.count_nonzero(spoken) > 0.9 * 0.1 * 14 * SAMPLE_RATE  # a tenth of a second for each letter
        assert page.said("heard") == {"type": "heard", "segment": "q", "text": "Who are you?", "typed": True}
        assert server.keys == [f"Bearer {KEY}"] and server.asked[0]["stream"]
        assert server.asked[0]["messages"][-1] == {"role": "user", "content": "Who are you?"}
        await page.socket.send_json({"type": "ask", "text": "Who are you?", "segment": "q"})  # twice changes nothing
        await page.socket.send_json({"type": "ask", "text": "And now?"})
        await until(lambda: len(server.asked) == 2)
        assert [m["role"] for m in server.asked[1]["messages"]] == ["system", "user", "assistant", "user"]

    talk(tmp_path, test)


def test_the_microphone_takes_turns_and_barges_in(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.answer = ["A long answer goes on and on. ", "It takes its time to be said. ", "More of it. "]
        session = next(iter(client.hub.guests.values())).listener.session
        heard: list[np.ndarray] = []
        thought: list[bool] = []
        session.hear, session.think = heard.append, thought.append
        await speak(page, 1.0)  # nobody listens yet
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0)
        await page.read(lambda: page.said("heard"))
        assert 1.9 < sum(map(len, heard)) / SAMPLE_RATE < 2.1, "the avatar nods at what the listener says"
        assert page.said("heard")["text"] == server.transcript and 1.4 < server.seconds[0] < 2.0  # type: ignore[index]
        await page.read(lambda: sum(samples.any() for _, samples in page.audio) > 18)  # more than half a second of it
        await speak(page, 1.0, pause=0.1)
        await page.read(lambda: page.said("interrupted"))
        await page.read(lambda: states(page)[-1] == "listening")
        assert states(page) == ["listening", "thinking", "speaking", "interrupted", "listening"]
        assert thought == [False, True, False, False, False]
        count = len(page.audio)
        await page.read(lambda: len(page.audio) > count + 3)
        assert not any(samples.any() for _, samples in page.audio[-3:])
        await speak(page, 0.1)
        await until(lambda: len(server.asked) == 2)
        first, heard = server.asked[1]["messages"][-2:]
        assert first["role"] == "assistant" and first["content"] == "A long answer goes on and on."
        assert heard["content"] == server.transcript

    talk(tmp_path, test)


def test_who_goes_on_after_a_pause_is_answered_once_to_all_of_it(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.mode = "late"
        server.answer = ["", "", "Hello there. "]  # it says nothing yet
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0)
        first = await page.read(lambda: page.said("heard"))
        await until(lambda: server.asked)
        server.transcript = "what time is it in Rome"
        await speak(page, 1.0, pause=1.2)
        await page.read(lambda: sum(words["type"] == "heard" for words in page.words) == 2)
        server.go.set()
        await page.read(lambda: page.said("segment.started"))
        again = [words for words in page.words if words["type"] == "heard"][-1]
        assert again["text"] == server.transcript and again["continues"] == first["segment"]
        assert server.seconds[1] > 2 * server.seconds[0] - 0.5, "the whole of it is transcribed"
        assert [m["role"] for m in server.asked[-1]["messages"]] == ["system", "user"], "the first part is no turn"
        assert server.asked[-1]["messages"][-1]["content"] == server.transcript
        assert "interrupted" not in states(page)

    talk(tmp_path, test)


def test_what_is_said_over_an_answer_that_was_heard_is_another_turn(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.answer = ["A long answer goes on and on. ", "It takes its time to be said. "]
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0)
        await page.read(lambda: sum(samples.any() for _, samples in page.audio) > 18)
        await speak(page, 1.0, pause=1.2)
        await until(lambda: len(server.asked) == 2)
        assert [m["role"] for m in server.asked[1]["messages"]] == ["system", "user", "assistant", "user"]
        assert not any("continues" in words for words in page.words)

    talk(tmp_path, test)


def test_the_pause_that_ends_a_turn_grows_with_those_of_the_speaker():
    def turns(pause: float, count: int) -> tuple[float, int]:
        sound = np.concatenate([np.concatenate([voice(0.8), np.zeros(round(pause * SAMPLE_RATE), np.float32)])] * count)
        detector = TurnDetector(longest=1.0)
        events = detector.push(np.concatenate([np.zeros(SAMPLE_RATE, np.float32), sound]))
        return detector.hangover, sum(event.kind == "started" for event in events)

    assert turns(0.25, 6) == (HANGOVER_SECONDS, 1)
    hangover, count = turns(0.56, 8)
    assert 0.64 < hangover <= 0.75 and count == 1
    assert turns(2.0, 4) == (HANGOVER_SECONDS, 4), "a turn's end is no pause"
    detector = TurnDetector(longest=1.0)
    for _ in range(4):  # each end was a pause, as somebody who knows says
        detector.push(np.concatenate([voice(0.8), np.zeros(round(0.9 * SAMPLE_RATE), np.float32), voice(0.4)]))
        detector.continued()
        detector.push(np.zeros(2 * SAMPLE_RATE, np.float32))
    assert detector.hangover == 1.0


def test_a_question_that_is_typed_while_the_listener_speaks_gives_way_to_what_is_said(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.mode, server.answer = "late", ["", "", "Hello there. "]
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0, pause=0)
        await page.read(lambda: states(page) == ["listening"])
        await page.socket.send_json({"type": "ask", "text": "Who are you?", "segment": "typed"})
        await until(lambda: server.asked)
        await speak(page, 0.5)
        await page.read(lambda: {"type": "answer.done", "segment": "typed", "stopped": True} in page.words)
        server.go.set()
        await page.read(lambda: page.said("segment.done"))
        await page.read(lambda: states(page)[-1] == "idle")
        assert page.said("segment.done")["segment"] != "typed"  # type: ignore[index]
        assert server.asked[-1]["messages"][-1]["content"] == server.transcript

    talk(tmp_path, test)


def test_nothing_that_was_heard_is_no_turn(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.transcript = " "
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0, pause=0)
        await page.read(lambda: states(page) == ["listening"])
        await page.socket.send_json({"type": "listen", "on": False})  # this ends the turn, too
        await page.read(lambda: states(page) == ["listening", "thinking", "idle"])
        assert not server.asked and not page.said("heard") and not page.said("agent.failed")

    talk(tmp_path, test)


def test_an_agent_that_cannot_hear_says_so(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        assert page.words[0]["agent"] and not page.words[0]["hears"]
        await page.socket.send_json({"type": "listen", "on": True})
        await page.read(lambda: "--agent-transcriber" in (page.said("error") or {}).get("message", ""))

    talk(tmp_path, test, transcriber="")


HTTP_FAULTS: dict[Mode, str] = {
    "hang": "within 0.5 seconds", "die": "broke off", "comments": "within 1 seconds", "nonsense": "no chat completion",
    "refuse": "Wrong key: [key]", "empty": "empty",
}  # fmt: skip
REALTIME_FAULTS: dict[Mode, str] = {
    "hang": "within 0.5 seconds", "die": "broke off", "nonsense": "no realtime event",
}  # fmt: skip


@pytest.mark.parametrize("realtime", [False, True])
def test_an_agent_that_fails_is_said_in_words_and_the_conversation_goes_on(tmp_path: Path, realtime: bool):
    faults = REALTIME_FAULTS if realtime else HTTP_FAULTS

    async def fail(page: Page, mode: Mode, word: str) -> None:
        await page.socket.send_json({"type": "ask", "text": "Hello?", "segment": mode})
        await page.read(lambda: {"type": "answer.done", "segment": mode, "stopped": False} in page.words)
        failed = next(w for w in page.words if w["type"] == "agent.failed" and w["segment"] == mode)
        assert word in failed["message"] and KEY not in failed["message"]
        said = {"type": "segment.done", "segment": mode} in page.words
        assert said == (mode in ("hang", "die"))  # what came before is said to its end
        assert states(page)[-1] == "idle"

    async def test(page: Page, server: AgentServer, client: Any) -> None:
        for mode, word in faults.items():
            server.mode = mode
            await fail(page, mode, word)
        server.mode = "normal"
        await page.socket.send_json({"type": "ask", "text": "And now?", "segment": "again"})
        await page.read(lambda: {"type": "segment.done", "segment": "again"} in page.words)
        text = await (await client.get("/metrics")).text()
        assert f"avatar_agent_failures_total {len(faults)}" in text

    talk(tmp_path, test, realtime=realtime, seconds=0.5)


def test_nobody_at_the_agent_s_address_is_said_in_words(tmp_path: Path):
    async def run() -> None:
        agent = AgentSettings(url="http://127.0.0.1:9/v1", model="m")
        async with served(tmp_path, agent=agent) as client, client.ws_connect("/ws") as socket:
            page = Page(socket)
            await socket.send_json({"type": "ask", "text": "Hello?"})
            failed = await page.read(lambda: page.said("agent.failed"))
            assert "cannot be reached" in failed["message"] and "--agent" in failed["message"]

    asyncio.run(run())


def test_a_stop_while_the_agent_thinks_ends_the_turn(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        server.mode, server.answer = "late", ["", "", "Hello there. "]
        await page.socket.send_json({"type": "ask", "text": "Hello?", "segment": "q"})
        await page.read(lambda: states(page) == ["thinking"])
        await until(lambda: server.asked)
        await page.socket.send_json({"type": "interrupt", "segment": "q"})
        await page.read(lambda: states(page)[-1] == "idle")
        server.go.set()
        await page.socket.send_json({"type": "ask", "text": "Hello again?", "segment": "r"})
        await page.read(lambda: page.said("segment.done"))
        assert page.said("segment.done")["segment"] == "r"  # type: ignore[index]

    talk(tmp_path, test)


def test_a_realtime_agent_hears_and_its_audio_is_spoken(tmp_path: Path):
    async def test(page: Page, server: AgentServer, client: Any) -> None:
        await page.socket.send_json({"type": "listen", "on": True})
        await speak(page, 1.0)
        await page.read(lambda: page.said("segment.started"))
        assert page.said("heard")["text"] == server.transcript  # type: ignore[index]
        await page.read(lambda: any(samples.any() for _, samples in page.audio))
        await page.socket.send_json({"type": "interrupt"})
        await until(lambda: server.events[-1]["type"] == "conversation.item.truncate")
        kinds = [event["type"] for event in server.events]
        assert kinds[0] == "session.update" and kinds[-2] == "response.create" and server.keys == [f"Bearer {KEY}"]
        assert kinds[1] == "input_audio_buffer.clear" and kinds[-3] == "input_audio_buffer.commit"
        assert server.events[-1]["item_id"] == "item_resp_1" and 0 <= server.events[-1]["audio_end_ms"] < 2000
        await page.socket.send_json({"type": "ask", "text": "More?", "segment": "more"})
        await page.read(lambda: {"type": "segment.done", "segment": "more"} in page.words)
        assert server.events[-2]["item"]["content"] == [{"type": "input_text", "text": "More?"}]

    talk(tmp_path, test, realtime=True)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("names", [False, True])
def test_after_an_answer_that_a_realtime_agent_refuses_the_next_one_is_spoken(names: bool, stopped: bool):
    async def run() -> None:
        async with AgentServer().running() as server:
            server.mode, server.names = "busy", names
            url = server.url.replace("http", "ws") + "/realtime"
            agent = RealtimeAgent(AgentSettings(url=url, model="m", seconds=5.0))
            try:
                first = asyncio.ensure_future(anext(agent.reply([Turn("One?")])))
                await until(lambda: any(event["type"] == "response.create" for event in server.events))
                if stopped:  # before it is refused
                    first.cancel()
                    await asyncio.gather(first, return_exceptions=True)
                server.mode = "normal"
                server.go.set()
                if not stopped:
                    with pytest.raises(AgentError, match="Busy"):
                        await first
                pieces = [piece async for piece in agent.reply([Turn("Two?")])]
                assert "".join(piece.text for piece in pieces if isinstance(piece, Words)) == "a b c d ee. f g h i jj."
                assert len(server.keys) == 1, "the connection lives on"
            finally:
                await agent.close()

    asyncio.run(run())


@pytest.mark.parametrize("late", [0.0, 0.2, -1.0])
def test_a_transcript_is_of_its_own_turn_however_late_it_comes(late: float, monkeypatch: pytest.MonkeyPatch):
    """The other side transcribes beside the answer: what was said may come after it, or in the next one."""
    monkeypatch.setattr(agent_realtime, "LATE_SECONDS", 1.0 if late > 0 else 0.05)

    async def run() -> None:
        async with AgentServer().running() as server:
            server.late_transcript = late
            url = server.url.replace("http", "ws") + "/realtime"
            agent = RealtimeAgent(AgentSettings(url=url, model="m", seconds=5.0, transcriber="t"))
            audio = np.zeros(SAMPLE_RATE // 2, np.float32)
            try:
                for _ in range(2):
                    pieces = [piece async for piece in agent.reply([Turn(audio=audio)])]
                    heard = [piece.text for piece in pieces if isinstance(piece, Transcript)]
                    assert heard == ([server.transcript] if late >= 0 else [])
                pieces = [piece async for piece in agent.reply([Turn("typed")])]
                assert not any(isinstance(piece, Transcript) for piece in pieces)
            finally:
                await agent.close()

    asyncio.run(run())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(agent_chat, "MOST_TURNS", 6)

    async def run() -> None:
        async with AgentServer().running() as server:
            agent = ChatAgent(AgentSettings(url=server.url, model="m"))
            for i in range(8):
                assert [piece async for piece in agent.reply([Turn(f"Question {i}")])]
            assert len(agent.history) == 6 and agent.history[-2]["content"] == "Question 7"
            await agent.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"url": "localhost:11434"}, "no address"), ({"url": "http://user:pass@host/v1"}, "AVATAR_AGENT_KEY"),
        ({"url": "http://host/v1"}, "--agent-model"), ({"url": "ws://host/v1", "key": "a b"}, "blanks"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], word: str):
    with pytest.raises(AvatarError, match=word):
        AgentSettings(**settings).check()
    assert KEY not in repr(AgentSettings(url="ws://host/v1", key=KEY))


def test_the_key_comes_from_the_environment_and_options_need_an_agent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AVATAR_AGENT_KEY", KEY)
    found = agent_settings(Config(runs=(), agent="https://host/v1", agent_model="m"))
    assert found is not None and found.key == KEY and not found.realtime and agent_settings(Config(runs=())) is None
    with pytest.raises(AvatarError, match="--agent"):
        agent_settings(Config(runs=(), agent_model="m"))


def test_a_timeline_is_not_printed_for_a_service():
    """It would not be written, and nobody would be told."""
    asked = Controls(print_timeline=Path("timeline.json"))
    with pytest.raises(AvatarError, match="--print-timeline"):
        main(Config(runs=(Path("runs/me"),), controls=asked))
