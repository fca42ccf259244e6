"""The doors of the live service: who gets in, what comes out, and what hostile input does to the others."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import wave
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.serve import websocket
from avatar.serve.access import check_settings
from avatar.serve.encoder import Encoder
from avatar.serve.hub import Settings
from avatar.serve.messages import Message
from avatar.serve.voice import decode
from avatar.serve.websocket import AUDIO, BEFORE, HEADER, IMAGE, KEY_FRAME, VOID
from tests.fake_avatar import FPS, FRAME, SIZE
from tests.serving import TOKEN, served, until

Test = Callable[[Any], Coroutine[Any, Any, None]]


def serve(folder: Path, test: Test, **settings: Any) -> None:
    async def run() -> None:
        async with served(folder, **settings) as client:
            await asyncio.wait_for(test(client), 30)

    asyncio.run(run())


def wav(seconds: float, channels: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(44100)
        samples = (8000 * np.sin(np.arange(round(44100 * seconds)) * 0.05)).astype("<i2")
        out.writeframes(np.repeat(samples, channels).tobytes())
    return file.getvalue()


class Page:
    """What a page takes in."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.words: list[dict[str, Any]] = []
        self.audio: list[tuple[float, np.ndarray]] = []
        self.before: list[tuple[float, np.ndarray]] = []  # audio before its time
        self.void = 0  # how often such audio was taken back
        self.images: list[tuple[float, bool, bytes]] = []

    async def read(self, condition: Callable[[], Any]) -> Any:
        """Take in what comes until something is true."""
        while not (found := condition()):
            message = await self.socket.receive(timeout=15)
            if message.type is WSMsgType.TEXT:
                self.words.append(json.loads(message.data))
            elif message.type is WSMsgType.BINARY:
                kind, flags, pts, _ = HEADER.unpack(message.data[: HEADER.size])
                rest = message.data[HEADER.size :]
                if kind == AUDIO and flags & BEFORE:
                    self.before.append((pts, np.frombuffer(rest, "<i2")))
                elif kind == AUDIO:
                    self.audio.append((pts, np.frombuffer(rest, "<i2")))
                    self.void += bool(flags & VOID)
                else:
                    assert kind == IMAGE
                    self.images.append((pts, bool(flags & KEY_FRAME), rest))
            else:
                raise ConnectionError(f"closed: {message.data}")
        return found

    def said(self, kind: str) -> dict[str, Any] | None:
        return next((words for words in self.words if words["type"] == kind), None)


def test_a_page_gets_images_at_once_and_the_audio_of_a_text_on_one_time_line(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            hello = await page.read(lambda: page.said("hello"))
            assert hello["digital_source_type"].endswith("/trainedAlgorithmicMedia")
            assert (hello["width"], hello["height"], hello["fps"]) == (SIZE, SIZE, FPS) and hello["text"]
            await page.read(lambda: page.images)
            assert page.images[0][1] and not any(samples.any() for _, samples in page.audio)
            await socket.send_json({"type": "say", "text": "hello there", "segment": "one"})
            await page.read(lambda: page.said("segment.done"))
            await socket.send_json({"type": "say", "text": "hello there", "segment": "one"})
            again = await page.read(lambda: next((w for w in page.words if w.get("new") is False), None))
            assert again["segment"] == "one"
            spoken = np.concatenate([samples for _, samples in page.audio])
            assert abs(np.count_nonzero(spoken) - SAMPLE_RATE) < 0.02 * SAMPLE_RATE  # ten letters are a second
            for (start, samples), (after, _) in zip(page.audio, page.audio[1:]):
                assert after == pytest.approx(start + len(samples) / SAMPLE_RATE)
            begin, end = page.audio[0][0], page.audio[-1][0] + len(page.audio[-1][1]) / SAMPLE_RATE
            shown = [pts for pts, _, _ in page.images]  # of the frames' times; on a busy machine not of all
            assert all(begin <= pts <= end + 1 / FPS and pts * FPS == pytest.approx(round(pts * FPS)) for pts in shown)

    serve(tmp_path, test)


def test_what_comes_out_can_be_decoded_and_shows_the_jaw(tmp_path: Path):
    import av

    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            await socket.send_json({"type": "say", "text": "aaaaaaaaaa"})
            await page.read(lambda: page.said("segment.done"))
            decoder = av.CodecContext.create("h264", "r")
            frames = [frame for _, _, data in page.images for frame in decoder.decode(av.Packet(data))]  # type: ignore[attr-defined]
            levels = [int(frame.to_ndarray(format="rgb24").mean()) for frame in frames]
            assert len(frames) >= len(page.images) - 1 and max(levels) - min(levels) > 20

    serve(tmp_path, test)


def test_a_file_is_spoken_and_an_interruption_says_what_was_played(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            session = (await page.read(lambda: page.said("hello")))["session"]
            answer = await client.post(f"/api/sessions/{session}/audio?segment=file", data=io.BytesIO(wav(30.0)))
            assert answer.status == 200 and (await answer.json())["segment"] == "file"
            await page.read(lambda: page.said("segment.started"))
            await page.read(lambda: any(samples.any() for _, samples in page.audio))
            answer = await client.post(f"/api/sessions/{session}/interrupt", json={})
            stopped = await answer.json()
            assert stopped["segment"] == "file" and 0 < stopped["played_ms"] < 10000
            count = len(page.audio)
            await page.read(lambda: len(page.audio) > count + 8)
            assert not any(samples.any() for _, samples in page.audio[-5:])

    serve(tmp_path, test)


def test_a_microphone_is_repeated(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            await socket.send_json({"type": "echo", "on": True})
            for _ in range(25):
                await socket.send_bytes(np.full(320, 6000, "<i2").tobytes())
            await page.read(lambda: any((samples == 6000).any() for _, samples in page.audio))

    serve(tmp_path, test)


def test_the_view_stops_at_the_limits(tmp_path: Path):
    from avatar.infer.view_cone import view_of

    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            await socket.send_json({"type": "view", "azimuth": 80, "elevation": 0})
            (guest,) = client.hub.guests.values()
            session, avatar = guest.listener.session, guest.character.avatar
            azimuth, _ = await until(lambda: (v := view_of(session._camera, avatar.pivot))[0] > 1 and v)
            assert azimuth == pytest.approx(avatar.cone.limits().right, abs=0.1)

    serve(tmp_path, test)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_an_encoder_begins_with_a_key_frame_and_gives_one_when_it_is_asked(codec: Any):
    encoder = Encoder(codec, FPS, 300_000)
    images = np.random.default_rng(0).integers(0, 255, (4, 33, 40, 3), dtype=np.uint8)
    keys = []
    for i, image in enumerate(images):
        if i == 2:
            encoder.want_key()
        keys.append(encoder.encode(image).key)
    assert keys == [True, False, True, False] and encoder.encode(images[0][:20]).key


# --- who gets in -------------------------------------------------------------------------------------------------

OTHER = {"Origin": "http://evil.example"}


def test_without_a_token_only_this_machine_s_own_pages_get_in(tmp_path: Path):
    async def test(client: Any) -> None:
        own = f"http://{client.host}:{client.port}"
        for path in ("/", "/api/avatars", "/metrics", "/healthz", "/page/main.js"):
            assert (await client.get(path, headers={"Origin": own})).status == 200
            assert (await client.get(path, headers=OTHER)).status == 403
            assert (await client.get(path, headers={"Host": "evil.example"})).status == 403
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect("/ws", headers=OTHER)
        for path in ("/page/..%2f..%2fapp.py", "/page/%2e%2e/app.py", "/page/nothing.js", "/nothing"):
            assert (await client.get(path)).status == 404
        assert "default-src 'self'" in (await client.get("/")).headers["Content-Security-Policy"]

    serve(tmp_path, test)


def test_a_page_of_an_origin_that_is_allowed_may_read_answers_and_no_other_page(tmp_path: Path):
    allowed = {"Origin": "https://pages.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}

    async def test(client: Any) -> None:
        asks = await client.options("/api/offer", headers=allowed | asked)
        assert asks.status == 204 and asks.headers["Access-Control-Allow-Origin"] == allowed["Origin"]
        assert "PATCH" in asks.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in asks.headers["Access-Control-Allow-Headers"]
        token = {"Authorization": f"Bearer {TOKEN}"}
        for headers, status in ((token, 422), ({}, 401)):
            answer = await client.post("/api/offer", json={}, headers=allowed | headers)
            assert answer.status == status and answer.headers["Access-Control-Allow-Origin"] == allowed["Origin"]
        for headers in (OTHER, {}):
            answer = await client.options("/api/offer", headers=headers | asked)
            assert answer.status >= 400 and "Access-Control-Allow-Origin" not in answer.headers

    serve(tmp_path, test, origins=("https://pages.example",), token=TOKEN)


def test_with_a_token_nothing_is_done_without_it(tmp_path: Path):
    async def test(client: Any) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/ws", "/metrics", "/api/avatars", "/api/ice"):
                assert (await client.get(path, headers=headers)).status == 401
            assert (await client.post("/api/offer", json={}, headers=headers)).status == 401
        assert (await client.get("/ws?access_token=wr\u00f6ng")).status == 401
        assert client.hub.metrics.value("sessions_total") == 0 and not client.hub.guests
        assert (await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status == 200
        async with client.ws_connect(f"/ws?access_token={TOKEN}") as socket:
            assert (await socket.receive_json())["type"] == "hello"

    serve(tmp_path, test, token=TOKEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_another_address_needs_a_token(host: str):
    with pytest.raises(AvatarError, match="--token is needed"):
        check_settings(Settings(host=host))
    check_settings(Settings(host=host, token=TOKEN))
    with pytest.raises(AvatarError, match="shorter"):
        check_settings(Settings(host=host, token="short"))


def test_a_full_server_says_so_and_a_place_that_is_free_again_is_given(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            await socket.receive_json()
            for request in (client.get("/ws"), client.post("/api/offer", json={"sdp": "v=0", "type": "offer"})):
                answer = await request
                assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
                assert "full" in (await answer.json())["error"]
        await until(lambda: not client.hub.guests)
        async with client.ws_connect("/ws") as socket:
            assert (await socket.receive_json())["type"] == "hello"

    serve(tmp_path, test, sessions=1)


def test_many_connects_at_once_leave_the_server_whole(tmp_path: Path):
    async def test(client: Any) -> None:
        async def connect() -> int:
            try:
                async with client.ws_connect("/ws") as socket:
                    words = await socket.receive_json(timeout=20)
                    return 200 if words["type"] == "hello" else 1013
            except WSServerHandshakeError as error:
                return error.status

        results = await asyncio.gather(*(connect() for _ in range(40)))
        assert set(results) <= {200, 503, 1013} and results.count(200) >= 1
        await until(lambda: not client.hub.guests)
        assert (await client.get("/healthz")).status == 200

    serve(tmp_path, test, sessions=2)


@pytest.mark.parametrize("realtime", [False, True])
def test_audio_does_not_wait_for_the_encoder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, realtime: bool):
    encode, go = Encoder.encode, threading.Event()

    def slowly(self: Encoder, image: np.ndarray) -> Any:
        go.wait(20)
        return encode(self, image)

    monkeypatch.setattr(Encoder, "encode", slowly)

    async def plain(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: len(page.audio) > 12)
            assert not page.images
            go.set()
            await page.read(lambda: page.images)
        await until(lambda: "avatar_images_skipped_total" in client.hub.metrics.text())

    async def events(client: Any) -> None:
        async with client.ws_connect("/v1/realtime") as socket:
            video = {"type": "realtime", "avatar": {"output_protocol": "websocket"}}
            await socket.send_json({"type": "session.update", "session": video})
            await socket.send_json({"type": "response.create", "response": {"instructions": "Hello there everybody"}})
            kinds: list[str] = []
            while kinds.count("response.output_audio.delta") < 5:
                kinds.append((await socket.receive_json(timeout=15))["type"])
            assert "response.video.delta" not in kinds
            go.set()
            while kinds[-1] != "response.video.delta":
                kinds.append((await socket.receive_json(timeout=15))["type"])

    try:
        serve(tmp_path, events if realtime else plain)
    finally:
        go.set()


# --- hostile input -----------------------------------------------------------------------------------------------

GARBAGE = [
    "", "{", "[]", "null", '{"type": 1}', '{"type": "open"}', '{"type": "say"}', '{"type": "say", "text": 1}',
    '{"type": "view", "azimuth": "x"}', '{"type": "view", "azimuth": NaN}', '{"type": "view", "zoom": 1e400}',
    '{"type": "view", "azimuth": 1e9}', '{"type": "controls", "pose": "/etc/passwd"}', "[" * 50000,
    '{"type": "controls", "emotion": "happy:9"}', '{"type": "controls", "gaze": [1]}', '{"type": "echo", "on": 1}',
    '{"type": "controls", "gaze": {"a": 1}}', '{"type": "controls", "emotion": ["happy"]}',
    '{"type": "interrupt", "segment": 5}', '{"type": "say", "text": "' + "a" * 3000 + '"}',
    '{"type": "say", "text": "?!", "segment": "\\u0000"}', '{"type": "say", "text": "\\ud800"}',
    '{"type": "ping", "at": true}',
]  # fmt: skip


def test_garbage_is_answered_in_words_and_the_session_goes_on(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            for text in GARBAGE:
                await socket.send_str(text)
            await page.read(lambda: sum(words["type"] == "error" for words in page.words) == len(GARBAGE))
            await socket.send_bytes(b"\x01")
            await socket.send_bytes(bytes(range(256)) * 8)
            count = len(page.images)
            await page.read(lambda: len(page.images) > count + 2)

    serve(tmp_path, test)


def test_what_is_too_large_or_unreadable_is_refused(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            session = (await socket.receive_json())["session"]
            path = f"/api/sessions/{session}/audio"
            assert (await client.post(path, data=io.BytesIO(bytes((20 << 20) + 1)))).status == 413

            async def endless() -> Any:
                for _ in range(400):
                    yield bytes(1 << 16)

            assert (await client.post(path, data=endless())).status == 413
            for body in (
                b"",
                b"#EXTM3U\nfile:///etc/passwd\n",
                b"ffconcat version 1.0\nfile /etc/passwd\n",
                bytes(5000),
            ):
                answer = await client.post(path, data=body)
                assert answer.status == 422 and "error" in await answer.json()
            assert (await client.post("/api/sessions/nobody/audio", data=io.BytesIO(wav(1)))).status == 404
            assert (await client.post(f"/api/sessions/{session}/text", data=b"[" * 9)).status == 422
            assert (await client.post("/api/offer", data=io.BytesIO(bytes((1 << 20) + 1)))).status == 413
            for sdp in ("", "v=0", "v=0\r\nm=\r\n", "x" * 10000, "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"):
                answer = await client.post("/api/offer", json={"sdp": sdp, "type": "offer"})
                assert answer.status == 422 and "offer" in (await answer.json())["error"]
            assert client.hub.metrics.value("sessions_total") == 2  # the last offer had the look of one
            answer = await client.patch("/api/offer", json={"pc_id": "x", "candidates": [{"candidate": "x"}]})
            assert answer.status == 422
            await until(lambda: len(client.hub.guests) == 1)
            assert not socket.closed

    serve(tmp_path, test)


def test_a_huge_message_ends_only_its_own_session(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as other, client.ws_connect("/ws", max_msg_size=0) as socket:
            page = Page(other)
            await page.read(lambda: page.images)
            await socket.send_bytes(bytes(websocket.MOST_MESSAGE_BYTES + 1))
            with pytest.raises(ConnectionError):
                await Page(socket).read(lambda: False)
            count = len(page.images)
            await page.read(lambda: len(page.images) > count + 3)

    serve(tmp_path, test)


def test_a_client_that_vanishes_frees_its_place(tmp_path: Path):
    async def test(client: Any) -> None:
        async with ClientSession() as session:
            socket_ = await session.ws_connect(client.make_url("/ws"))
            await socket_.receive_json()
            transport = socket_._response.connection.transport  # type: ignore[union-attr]
            transport.abort()
        await until(lambda: not client.hub.guests)

    serve(tmp_path, test)


def test_a_slow_reader_is_let_go_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "SEND_SECONDS", 0.5)

    async def test(client: Any) -> None:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((client.host, client.port))
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        slow.sendall(f"GET /ws HTTP/1.1\r\nHost: {client.host}\r\nUpgrade: websocket\r\n"
                     f"Connection: Upgrade\r\n{key}\r\n\r\n".encode())  # fmt: skip
        (guest,) = await until(lambda: list(client.hub.guests.values()))
        for _ in range(200):  # much at once, as after a stall
            guest.listener.outbox.put({"type": "filler", "text": "x" * 100_000})
            await asyncio.sleep(0)
        async with client.ws_connect("/ws") as other:
            page = Page(other)
            await until(lambda: client.hub.metrics.value("slow_listeners_total") == 1)
            await page.read(lambda: len(page.images) > 3)
        slow.close()

    serve(tmp_path, test)


def test_a_session_ends_after_its_time_and_when_the_server_stops(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            words = await page.read(lambda: page.said("goodbye"))
            assert "time of this session is over" in words["message"]
        client.hub.close()
        assert (await client.get("/healthz")).status == 503 and (await client.get("/ws")).status == 503

    serve(tmp_path, test, session_seconds=0.5)


def test_a_server_that_stops_draws_no_more_and_makes_no_session_for_who_waits(tmp_path: Path):
    async def test(client: Any) -> None:
        hub = client.hub
        async with client.ws_connect("/ws") as first:
            await Page(first).read(lambda: hub.guests)
            (guest,) = hub.guests.values()
            await hub._making.acquire()  # somebody else's session is being made
            async with client.ws_connect("/ws") as second:
                await until(lambda: hub._taken == 2)
                hub.close()
                await until(lambda: not guest.listener._threads.alive, seconds=3)  # although nobody reads its goodbye
                hub._making.release()
                waited = Page(second)
                words = await waited.read(lambda: waited.said("goodbye"))
                assert "shutting down" in words["message"] and hub.metrics.value("sessions_total") == 1

    serve(tmp_path, test)


def test_metrics_and_description_are_there(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: len(page.images) > 3)
            text = await (await client.get("/metrics")).text()
            for line in ("avatar_sessions_total 1", 'avatar_stage_seconds{stage="draw",quantile="0.95"}'):
                assert line in text
            described = await (await client.get("/openapi.json")).json()
            assert "/api/offer" in described["paths"]

    serve(tmp_path, test)


def test_files_are_decoded_in_memory_and_no_further_than_they_may():
    samples = np.concatenate(list(decode(wav(2.0))))
    assert samples.dtype == np.float32 and abs(len(samples) - 2 * SAMPLE_RATE) < 100 and 0.2 < samples.max() < 0.3
    assert len(np.concatenate(list(decode(wav(2.0), most_seconds=0.5)))) == SAMPLE_RATE // 2
    assert FRAME * FPS == SAMPLE_RATE
    many = np.concatenate(list(decode(wav(2.0, channels=10))))
    assert len(many) == len(samples) and np.abs(many - samples).max() < 1e-3


def test_a_message_is_checked_field_by_field():
    assert Message.parse('{"type": "view", "azimuth": 5}').fields == {"azimuth": 5.0, "elevation": 0.0, "zoom": 1.0}
    joined = '{"type": "say", "text": "", "segment": "می\\u200cرود"}'  # a joiner of Persian, which is not printable
    assert Message.parse(joined).fields["segment"] == "می\u200cرود"
    for text in GARBAGE[:20]:
        with pytest.raises(AvatarError):
            Message.parse(text)
