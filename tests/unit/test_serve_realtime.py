"""The realtime door: events as OpenAI's and Azure's clients send and expect them, and what wrong ones lead to."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import WSMsgType, WSServerHandshakeError
from aiortc import RTCPeerConnection, RTCSessionDescription

from avatar.audio.turns import HANGOVER_SECONDS
from avatar.serve import realtime, realtime_input
from avatar.serve.access import KEY_PROTOCOL
from avatar.serve.agent import AgentSettings
from avatar.serve.realtime_input import MOST_WAITING, RealtimeInput
from avatar.serve.realtime_session import RealtimeSession
from tests.agent_server import AgentServer
from tests.fake_avatar import FPS, SIZE
from tests.serving import TOKEN, served, until
from tests.unit.test_serve_agent import voice

RATE = 24000


class Client:
    """A client that speaks raw events."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_json({"type": kind, **fields})

    async def text(self, text: str, **fields: Any) -> None:
        """Send a text and ask for a response."""
        content = [{"type": "input_text", "text": text}]
        await self.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self.send("response.create", **fields)

    async def sound(self, samples: np.ndarray) -> None:
        """Append audio of 24 kHz."""
        for i in range(0, len(samples), RATE // 10):
            data = np.rint(samples[i : i + RATE // 10] * 32767).astype("<i2").tobytes()
            await self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Read until so many events of a kind have come; return the last of them."""
        while len(self.of(kind)) < count:
            message = await self.socket.receive(timeout=20)
            if message.type is not WSMsgType.TEXT:
                raise ConnectionError(f"closed: {message.data} {message.extra}")
            self.events.append(json.loads(message.data))
        return self.of(kind)[count - 1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def kinds(self) -> list[str]:
        """Kinds of events in order, those that repeat once."""
        found = [event["type"] for event in self.events]
        return [kind for i, kind in enumerate(found) if kind not in found[:i]]

    def audio(self, kind: str = "response.output_audio.delta") -> np.ndarray:
        data = b"".join(base64.b64decode(event["delta"]) for event in self.of(kind))
        return np.frombuffer(data, "<i2")


Test = Callable[[Client, Any], Coroutine[Any, Any, None]]


def connect(folder: Path, test: Test, path: str = "/v1/realtime?model=x", headers: Any = None, **settings: Any) -> None:
    async def run() -> None:
        async with served(folder, **settings) as client, client.ws_connect(path, headers=headers) as socket:
            events = Client(socket)
            await events.until("session.created")
            await asyncio.wait_for(test(events, client), 30)

    asyncio.run(run())


def test_a_text_is_spoken_in_audio_and_face_coefficients_of_the_same_length(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        created = client.events[0]["session"]
        assert created["type"] == "realtime" and created["avatar"]["character"] == "someone"
        assert created["avatar"]["digital_source_type"].endswith("/trainedAlgorithmicMedia")
        assert created["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 1000 * HANGOVER_SECONDS
        await client.send("session.update", session={"type": "realtime", "animation": {"outputs": ["blendshapes"]}})
        assert (await client.until("session.updated"))["session"]["animation"]["outputs"] == ["blendshapes"]
        await client.text("hello dear")  # nine letters are 0.9 s
        done = (await client.until("response.done"))["response"]
        await client.until("session.avatar.switch_to_idle")
        assert client.kinds()[2:] == [
            "conversation.item.added", "conversation.item.done", "response.created", "response.output_item.added",
            "response.content_part.added", "response.output_audio_transcript.delta",
            "session.avatar.switch_to_speaking", "response.output_audio.delta", "response.animation_blendshapes.delta",
            "response.output_audio.done", "response.animation_blendshapes.done",
            "response.output_audio_transcript.done", "response.content_part.done", "response.output_item.done",
            "response.done", "session.avatar.switch_to_idle",
        ]  # fmt: skip
        assert done["status"] == "completed" and done["output"][0]["content"][0]["transcript"] == "hello dear"
        seconds = np.count_nonzero(client.audio()) / RATE
        assert seconds == pytest.approx(0.9, abs=0.05)
        frames = [frame for event in client.of("response.animation_blendshapes.delta") for frame in event["frames"]]
        starts = [event["frame_index"] for event in client.of("response.animation_blendshapes.delta")]
        assert starts[0] == 0 and starts == sorted(starts) and all(len(frame) == 52 for frame in frames)
        assert len(frames) == pytest.approx(len(client.audio()) / RATE * FPS, abs=1)
        assert max(frame[17] for frame in frames) > 0.2  # the jaw
        (guest,) = server.hub.guests.values()
        assert not guest.listener.images and server.hub.metrics.value("images_total") == 0

    connect(tmp_path, test)


def test_a_microphone_that_hears_nobody_is_no_activity(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        (guest,) = server.hub.guests.values()
        before = guest.active
        await client.sound(np.zeros(RATE))
        await client.socket.send_str("{")  # no event: all that was sent before is taken when it is refused
        await client.until("error")
        assert guest.active == before
        await client.sound(np.repeat(voice(1.0), 3)[::2])
        await client.socket.send_str("{")
        await client.until("error", 2)
        assert guest.active > before

    connect(tmp_path, test)


def test_what_is_said_comes_from_items_input_or_instructions(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        await client.send("response.create")
        assert (await client.until("error"))["error"]["code"] == "missing_required_parameter"
        await client.send("response.create", response={"instructions": "aa"})
        part = {"content": [{"type": "text", "text": "cc"}]}
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "bb"}]}
        await client.until("response.done")
        await client.send("response.create", response={"input": [item]})
        await client.until("response.done", 2)
        await client.send("response.create", response={"pre_generated_assistant_message": part})
        await client.until("response.done", 3)
        await client.send("input_text.delta", id="mine", delta="d")
        await client.send("input_text.delta", id="mine", delta="d")
        await client.send("input_text.done", id="mine")
        await client.send("response.create")
        await client.until("response.done", 4)
        said = [event["response"]["output"][0]["content"][0]["transcript"] for event in client.of("response.done")]
        assert said == ["aa", "bb", "cc", "dd"]

    connect(tmp_path, test)


def test_clients_of_the_older_events_get_the_older_names(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        assert client.events[0]["session"]["input_audio_format"] == "pcm16"
        await client.text("aa")
        await client.until("response.done")
        kinds = client.kinds()
        assert {"response.audio.delta", "response.audio_transcript.delta", "conversation.item.created"} <= set(kinds)
        assert not any("output_audio" in kind or kind.startswith("conversation.item.done") for kind in kinds)

    connect(tmp_path, test, headers={"OpenAI-Beta": "realtime=v1"})


def test_a_cancelled_response_is_silent_at_once_and_the_next_one_is_spoken(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        await client.text("this would take a very long time to say")
        await client.text("too early")
        assert (await client.until("error"))["error"]["code"] == "conversation_already_has_active_response"
        await client.until("response.output_audio.delta", 3)
        await client.send("response.cancel")
        done = await client.until("response.done")
        assert done["response"]["status"] == "cancelled"
        await client.send("response.cancel")
        assert (await client.until("error", 2))["error"]["code"] == "response_cancel_not_active"
        item = client.of("response.output_item.added")[0]["item"]["id"]
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
        assert (await client.until("conversation.item.truncated"))["audio_end_ms"] == 100
        count = len(client.of("response.output_audio.delta"))
        await client.send("response.create", response={"instructions": "aaa"})
        assert (await client.until("response.done", 2))["response"]["status"] == "completed"
        after = client.of("response.output_audio.delta")[count:]
        assert {event["response_id"] for event in after} == {client.of("response.created")[-1]["response"]["id"]}
        await client.send("response.create", response={"instructions": "bbb"})
        await client.until("response.output_audio.delta", count + len(after) + 1)
        await client.send("output_audio_buffer.clear")
        cleared = await client.until("output_audio_buffer.cleared")
        assert cleared["response_id"] == client.of("response.created")[-1]["response"]["id"]

    connect(tmp_path, test)


def test_audio_is_repeated_turn_by_turn_and_speech_interrupts(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        sound = np.repeat(voice(0.8, 0.3), 3)[::2]  # 16 to 24 kHz, roughly
        silence = np.zeros(RATE, np.float32)
        await client.sound(np.concatenate([silence, sound, silence]))
        stopped = await client.until("input_audio_buffer.speech_stopped")
        started = client.of("input_audio_buffer.speech_started")[0]
        assert started["audio_start_ms"] == pytest.approx(1000, abs=60) and started["item_id"] == stopped["item_id"]
        await client.until("response.output_audio.delta", 5)
        assert client.of("input_audio_buffer.committed")[0]["item_id"] == started["item_id"]
        await client.sound(sound)
        done = await client.until("response.done")
        assert done["response"]["status"] == "cancelled"

    connect(tmp_path, test)


def test_without_turn_detection_the_client_commits(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        heard = {"turn_detection": None, "format": {"type": "audio/pcm", "rate": 24000}}
        await client.send("session.update", session={"type": "realtime", "audio": {"input": heard}})
        assert (await client.until("session.updated"))["session"]["audio"]["input"]["turn_detection"] is None
        await client.send("input_audio_buffer.commit")
        assert (await client.until("error"))["error"]["code"] == "input_audio_buffer_commit_empty"
        await client.sound(np.full(RATE, 0.25, np.float32))
        await client.send("input_audio_buffer.clear")
        await client.sound(np.full(RATE // 2, 0.25, np.float32))
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.until("response.done")
        assert np.median(client.audio()[client.audio() != 0]) == pytest.approx(8192, abs=100)
        assert np.count_nonzero(client.audio()) / RATE == pytest.approx(0.5, abs=0.06)

    connect(tmp_path, test)


def test_a_client_that_answers_by_itself_is_heard_for_ever(tmp_path: Path):
    """It has turns detected, and brings the answers: nothing of what it said may pile up."""

    def put(event: dict[str, Any]) -> None:
        pass

    heard = RealtimeInput(RealtimeSession("session", "a", FPS, (SIZE, SIZE), (), False), put, lambda samples: None)
    for turn in range(3 * MOST_WAITING):
        heard._commit(np.zeros(10, np.float32))
        if turn % 2:
            heard.wanted(
                {"response": {"pre_generated_assistant_message": {"content": [{"type": "text", "text": "a"}]}}}
            )
            assert not heard._waiting
    for _ in range(3 * MOST_WAITING):
        heard._commit(np.zeros(10, np.float32))
    assert len(heard._waiting) == MOST_WAITING


def test_moving_the_camera_leaves_images_and_audio_on():
    session = RealtimeSession("session", "a", FPS, (SIZE, SIZE), (), False)
    session.update({"avatar": {"output_protocol": "websocket", "output_audit_audio": True}})
    assert session.update({"avatar": {"scene": {"zoom": 1.5}}})["zoom"] == 1.5
    assert session.video and session.audit
    session.update({"avatar": {"output_protocol": "webrtc", "output_audit_audio": False}})
    assert not session.video and not session.audit


def test_typed_text_is_not_the_transcript_of_audio(tmp_path: Path):
    async def run() -> None:
        async with AgentServer().running() as agent:
            settings = AgentSettings(url=agent.url, model="m", transcriber="t", seconds=1.0)
            async with served(tmp_path, agent=settings) as server, server.ws_connect("/v1/realtime") as socket:
                client = Client(socket)
                sound = base64.b64encode((8000 * np.sin(np.arange(RATE) * 0.1)).astype("<i2").tobytes()).decode()
                content = [{"type": "input_text", "text": "typed words"}, {"type": "input_audio", "audio": sound}]
                item = {"type": "message", "role": "user", "content": content}
                await client.send("conversation.item.create", item=item)
                await client.send("response.create")
                await client.until("response.done")
                found = client.of("conversation.item.input_audio_transcription.completed")
                assert [event["transcript"] for event in found] == [agent.transcript]

    asyncio.run(run())


def test_with_an_agent_audio_is_transcribed_and_answered(tmp_path: Path):
    async def run() -> None:
        async with AgentServer().running() as agent:
            settings = AgentSettings(url=agent.url, model="m", transcriber="t", seconds=1.0)
            async with served(tmp_path, agent=settings) as server, server.ws_connect("/v1/realtime") as socket:
                client = Client(socket)
                await client.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
                await client.sound(np.concatenate([np.repeat(voice(0.8), 3)[::2], np.zeros(RATE, np.float32)]))
                done = (await client.until("response.done"))["response"]
                heard = client.of("conversation.item.input_audio_transcription.completed")[0]
                assert heard["transcript"] == agent.transcript
                assert heard["item_id"] == client.of("input_audio_buffer.committed")[0]["item_id"]
                assert done["output"][0]["content"][0]["transcript"] == "".join(agent.answer)
                assert agent.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
                agent.mode = "nonsense"
                await client.text("And now?")
                assert (await client.until("error"))["error"]["type"] == "server_error"
                assert (await client.until("response.done", 2))["response"]["status"] == "failed"

    asyncio.run(run())


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_avatar_connects_by_webrtc(tmp_path: Path, wrapped: bool):
    async def test(client: Client, server: Any) -> None:
        peer = RTCPeerConnection()
        frames: dict[str, list[Any]] = {"audio": [], "video": []}
        tasks: list[asyncio.Task[None]] = []

        async def read(track: Any) -> None:
            while True:
                frames[track.kind].append(await track.recv())

        peer.on("track", lambda track: tasks.append(asyncio.ensure_future(read(track))))
        for kind in ("audio", "video"):
            peer.addTransceiver(kind, "recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        sdp = peer.localDescription.sdp
        offer = base64.b64encode(json.dumps({"type": "offer", "sdp": sdp}).encode()).decode() if wrapped else sdp
        await client.send("session.avatar.connect", client_sdp=offer)
        answer = (await client.until("session.avatar.connecting"))["server_sdp"]
        answer = json.loads(base64.b64decode(answer))["sdp"] if wrapped else answer
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await client.text("aaaaaa")
        await client.until("response.done")
        await until(lambda: frames["video"] and any(f.to_ndarray().any() for f in frames["audio"]))
        assert frames["video"][0].width == SIZE and not client.of("response.output_audio.delta")
        await client.send("session.avatar.connect", client_sdp="v=0")
        assert (await client.until("error"))["error"]["type"] == "invalid_request_error"
        await peer.close()
        for task in tasks:
            task.cancel()

    connect(tmp_path, test)


def test_without_udp_images_come_as_events(tmp_path: Path):
    import av

    async def test(client: Client, server: Any) -> None:
        wanted = {"character": "someone", "output_protocol": "websocket", "scene": {"zoom": 1.2, "rotation_y": -0.1}}
        await client.send("session.update", session={"modalities": ["audio", "avatar"], "avatar": wanted})
        await client.until("response.video.delta", 3)
        images = client.of("response.video.delta")
        assert images[0]["key_frame"] and images[0]["codec"].startswith("avc1")
        decoder = av.CodecContext.create("h264", "r")
        decoded = [f for i in images for f in decoder.decode(av.Packet(base64.b64decode(i["delta"])))]  # type: ignore[attr-defined]
        assert decoded[0].width == SIZE

    connect(tmp_path, test)


# --- who gets in, and hostile input ------------------------------------------------------------------------------


def test_the_token_comes_in_a_header_the_address_or_a_subprotocol(tmp_path: Path):
    async def run() -> None:
        async with served(tmp_path, token=TOKEN) as client:
            wrong = ("realtime", KEY_PROTOCOL + "wrong-token-of-somebody")
            for options in ({}, {"headers": {"Authorization": "Bearer no"}}, {"protocols": wrong}):
                with pytest.raises(WSServerHandshakeError) as error:
                    await client.ws_connect("/v1/realtime", **options)
                assert error.value.status == 401
            assert client.hub.metrics.value("sessions_total") == 0
            right = ("realtime", KEY_PROTOCOL + TOKEN, "openai-beta.realtime-v1")
            for path, options in (
                ("/v1/realtime", {"protocols": right}), (f"/v1/realtime?access_token={TOKEN}", {}),
                ("/voice-live/realtime?api-version=1", {"headers": {"api-key": TOKEN}}),
            ):  # fmt: skip
                async with client.ws_connect(path, **options) as socket:
                    assert (await socket.receive_json())["type"] == "session.created"
                    assert socket.protocol in (None, "realtime")
            with pytest.raises(WSServerHandshakeError):
                await client.ws_connect("/v1/realtime", protocols=right, headers={"Origin": "http://evil.example"})

    asyncio.run(run())


def test_a_full_server_and_an_avatar_that_is_not_there_are_refused_before_the_handshake(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        assert (await server.get("/v1/realtime")).status == 503
        answer = await server.get("/v1/realtime?avatar=nobody")
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0

    connect(tmp_path, test, sessions=1)


GARBAGE: list[tuple[str, str]] = [
    ("{", "invalid_json"), ("[" * 5000, "invalid_json"), ("[]", "invalid_event"), ('{"type": 1}', "invalid_event"),
    ('{"type": "open.pod.bay"}', "unknown_event"), ('{"type": "session.update"}', "missing_required_parameter"),
    ('{"type": "session.update", "session": {"type": "transcription"}}', "invalid_value"),
    ('{"type": "session.update", "session": {"modalities": ["text"]}}', "invalid_value"),
    ('{"type": "session.update", "session": {"audio": 5}}', "invalid_type"),
    ('{"type": "session.update", "session": {"input_audio_format": "g711_ulaw"}}', "invalid_value"),
    ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}}}',
     "invalid_value"),
    ('{"type": "session.update", "session": {"turn_detection": {"type": "x"}}}', "invalid_value"),
    ('{"type": "session.update", "session": {"turn_detection": {"type": "server_vad", "silence_duration_ms": NaN}}}',
     "invalid_value"),
    ('{"type": "session.update", "session": {"avatar": {"character": "lisa"}}}', "invalid_value"),
    ('{"type": "session.update", "session": {"avatar": {"scene": {"zoom": 1e400}}}}', "invalid_value"),
    ('{"type": "session.update", "session": {"animation": {"outputs": ["viseme_id"]}}}', "invalid_value"),
    ('{"type": "input_audio_buffer.append", "audio": "AAA"}', "invalid_value"),
    ('{"type": "input_audio_buffer.append", "audio": {"a": 1}}', "invalid_value"),
    ('{"type": "conversation.item.create"}', "invalid_value"),
    ('{"type": "conversation.item.create", "item": {"type": "function_call_output"}}', "invalid_value"),
    ('{"type": "conversation.item.create", "item": {"role": "boss", "content": []}}', "invalid_value"),
    ('{"type": "conversation.item.create", "item": {"content": [{"type": "input_text"}]}}',
     "missing_required_parameter"),
    ('{"type": "conversation.item.create", "item": {"content": [{"type": "input_image"}]}}', "invalid_value"),
    ('{"type": "conversation.item.retrieve", "item_id": "x"}', "item_not_found"),
    ('{"type": "conversation.item.truncate", "item_id": "x"}', "invalid_value"),
    ('{"type": "response.create", "response": []}', "invalid_type"),
    ('{"type": "response.create", "response": {"input": 5}}', "invalid_value"),
    ('{"type": "input_text.done", "id": "x"}', "item_not_found"),
    ('{"type": "session.avatar.connect"}', "missing_required_parameter"),
    ('{"type": "session.avatar.connect", "client_sdp": "bm90aGluZw=="}', "invalid_value"),
]  # fmt: skip


def test_garbage_is_answered_in_events_and_the_session_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(realtime_input, "MOST_BUFFER_SECONDS", 1.0)
    monkeypatch.setattr(realtime, "MOST_EVENTS", 10_000)

    async def test(client: Client, server: Any) -> None:
        for text, _ in GARBAGE:
            await client.socket.send_str(text)
        await client.socket.send_bytes(bytes(range(256)))
        await client.until("error", len(GARBAGE) + 1)
        assert [event["error"]["code"] for event in client.of("error")[:-1]] == [code for _, code in GARBAGE]
        await client.send("session.update", session={"turn_detection": None}, event_id="mine")
        await client.sound(np.zeros(2 * RATE, np.float32))
        assert (await client.until("error", len(GARBAGE) + 2))["error"]["code"] == "input_audio_buffer_full"
        await client.send("nothing", event_id="mine")
        await until(lambda: True)
        while client.of("error")[-1]["error"]["code"] != "unknown_event":
            await client.until("error", len(client.of("error")) + 1)
        assert client.of("error")[-1]["error"]["event_id"] == "mine"
        await client.send("response.create", response={"instructions": "aa"})
        assert (await client.until("response.done"))["response"]["status"] == "completed"

    connect(tmp_path, test)


def test_a_session_that_ends_says_why(tmp_path: Path):
    async def test(client: Client, server: Any) -> None:
        error = (await client.until("error"))["error"]
        assert error["code"] == "session_expired" and "time of this session is over" in error["message"]
        with pytest.raises(ConnectionError):
            await client.until("nothing")

    connect(tmp_path, test, session_seconds=0.5)


# --- OpenAI's own client -----------------------------------------------------------------------------------------


def test_openai_s_own_client_connects_speaks_and_interrupts(tmp_path: Path):
    openai = pytest.importorskip("openai")

    async def run() -> None:
        async with served(tmp_path, token=TOKEN) as server:
            address = f"http://{server.host}:{server.port}/v1"
            client = openai.AsyncOpenAI(api_key=TOKEN, base_url=address)
            kinds: list[str] = []
            audio = b""
            async with client.realtime.connect(model="gpt-realtime") as connection:
                await connection.session.update(
                    session={
                        "type": "realtime",
                        "output_modalities": ["audio"],
                        "animation": {"outputs": ["blendshapes"]},
                    }
                )
                content = [{"type": "input_text", "text": "hello"}]
                await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
                await connection.response.create()
                async for event in connection:
                    kinds.append(event.type)
                    if event.type == "response.output_audio.delta":
                        audio += base64.b64decode(event.delta)
                    if event.type == "response.done":
                        assert event.response.status == "completed" and event.response.usage.total_tokens == 0
                        assert event.response.output[0].content[0].transcript == "hello"
                        break
                assert {"session.created", "session.updated", "response.animation_blendshapes.delta"} <= set(kinds)
                assert np.count_nonzero(np.frombuffer(audio, "<i2")) / RATE == pytest.approx(0.5, abs=0.05)
                await connection.response.create(response={"instructions": "this would take a long time"})
                async for event in connection:
                    if event.type == "response.output_audio.delta":
                        await connection.response.cancel()
                    elif event.type == "response.done":
                        assert event.response.status == "cancelled"
                        break
            await client.close()
            wrong = openai.AsyncOpenAI(api_key="wrong-key-of-somebody", base_url=address)
            with pytest.raises(Exception, match="401"):
                async with wrong.realtime.connect(model="gpt-realtime"):
                    pass
            await wrong.close()

    asyncio.run(run())
