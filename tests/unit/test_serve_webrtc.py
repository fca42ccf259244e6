"""The WebRTC door: signalling as SmallWebRTC has it, the codec that was asked for, both tracks on one time line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import h264, vpx

from avatar.io.audio import SAMPLE_RATE
from avatar.serve import webrtc
from avatar.serve.outbox import AudioPart
from avatar.serve.tracks import MOST_HOLD_SECONDS, PACKET, SpeechTrack
from tests.serving import served, until


class Tone(MediaStreamTrack):
    """A microphone."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def recv(self) -> Any:
        await asyncio.sleep(0.02)
        samples = (9000 * np.sin(np.arange(self._count, self._count + 960) * 0.05)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, self._count, Fraction(1, 48000)
        self._count += 960
        return frame


class Caller:
    """A browser, as far as the server sees it."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection()
        self.words: list[dict[str, Any]] = []
        self.frames: dict[str, list[Any]] = {"audio": [], "video": []}
        self.tasks: list[asyncio.Task[None]] = []
        self.channel = self.peer.createDataChannel("words")
        self.channel.on("message", lambda text: self.words.append(json.loads(text)))
        self.peer.addTrack(Tone())
        self.peer.addTransceiver("video", "recvonly")
        self.peer.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self._read(track))))
        self.id = ""

    async def _read(self, track: Any) -> None:
        while True:
            self.frames[track.kind].append(await track.recv())

    async def call(self, client: Any) -> str:
        """Connect; return the SDP of the answer."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = self.peer.localDescription
        answer = await client.post("/api/offer", json={"sdp": offer.sdp, "type": offer.type, "request_data": None})
        content = await answer.json()
        assert answer.status == 200, content
        self.id = content["pc_id"]
        await self.peer.setRemoteDescription(RTCSessionDescription(content["sdp"], content["type"]))
        await until(lambda: self.channel.readyState == "open" and self.frames["video"])
        return content["sdp"]

    def said(self, kind: str) -> dict[str, Any] | None:
        return next((words for words in self.words if words.get("type") == kind), None)

    def send(self, **words: Any) -> None:
        self.channel.send(json.dumps(words))

    async def close(self) -> None:
        await self.peer.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def call(folder: Path, test: Callable[[Any, Caller, str], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        async with served(folder, **settings) as client:
            caller = Caller()
            try:
                await asyncio.wait_for(test(client, caller, await caller.call(client)), 30)
            finally:
                await caller.close()
            await until(lambda: not client.hub.guests)

    asyncio.run(run())


def loud(frames: list[Any]) -> list[Any]:
    return [frame for frame in frames if np.abs(frame.to_ndarray()).max() > 3000]


def first_codec(sdp: str) -> str:
    """The codec that video is sent with: the first one of its line."""
    video = sdp[sdp.index("m=video") :]
    number = video.split("\r\n")[0].split()[3]
    return next(line.split()[1].split("/")[0] for line in video.split("\r\n") if line.startswith(f"a=rtpmap:{number} "))


def test_a_browser_gets_images_at_once_a_text_and_an_interruption(tmp_path: Path):
    async def test(client: Any, caller: Caller, sdp: str) -> None:
        assert first_codec(sdp) == "VP8"
        hello = await until(lambda: caller.said("hello"))
        assert hello["door"] == "webrtc" and hello["session"] == caller.id
        assert not loud(caller.frames["audio"])
        caller.send(type="say", text="word " * 100, segment="long")
        await until(lambda: loud(caller.frames["audio"]))
        caller.send(type="interrupt")
        stopped = await until(lambda: caller.said("interrupted"))
        assert stopped["segment"] == "long" and stopped["played_ms"] > 0
        await until(lambda: not loud(caller.frames["audio"][-5:]))
        starts = [frame.pts for frame in caller.frames["video"]]
        assert starts == sorted(starts) and len(set(starts)) == len(starts)

    call(tmp_path, test)


def test_nothing_waits_for_a_listener_whose_candidates_are_still_gathered(tmp_path: Path, monkeypatch: Any):
    answer_offer, waiting = webrtc.answer_offer, []

    async def slow(client: Any, sdp: str) -> dict[str, str]:
        answer = await answer_offer(client, sdp)
        await asyncio.sleep(0.5)  # a dozen frames
        waiting.append(client.guest.listener.outbox.seconds)
        return answer

    async def test(client: Any, caller: Caller, sdp: str) -> None:
        assert waiting == [0.0]

    monkeypatch.setattr(webrtc, "answer_offer", slow)
    call(tmp_path, test)


def test_a_microphone_is_repeated(tmp_path: Path):
    async def test(client: Any, caller: Caller, sdp: str) -> None:
        caller.send(type="echo", on=True)
        await until(lambda: loud(caller.frames["audio"]))

    call(tmp_path, test)


def test_the_codec_that_is_asked_for_is_negotiated(tmp_path: Path):
    async def test(client: Any, caller: Caller, sdp: str) -> None:
        assert first_codec(sdp) == "H264"

    call(tmp_path, test, codec="h264")


def test_a_client_of_pipecat_is_answered(tmp_path: Path):
    async def test(client: Any, caller: Caller, sdp: str) -> None:
        await until(lambda: caller.said("hello"))
        caller.channel.send("ping: 1234")
        caller.channel.send('{"type":"signalling","message":{"type":"trackStatus","receiver_index":0,"enabled":true}}')
        caller.send(label="rtvi-ai", type="client-ready", id="7", data={})
        ready = await until(lambda: caller.said("bot-ready"))
        assert (ready["label"], ready["id"]) == ("rtvi-ai", "7")
        candidate = {
            "candidate": "candidate:1 1 udp 2122260223 127.0.0.1 50000 typ host",
            "sdp_mid": "0",
            "sdp_mline_index": 0,
        }
        end = {"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0}
        answer = await client.patch("/api/offer", json={"pc_id": caller.id, "candidates": [candidate, end]})
        assert answer.status == 200 and (await answer.json())["status"] == "success"
        for wrong in ({"candidate": "nonsense"}, {"candidate": 5}, "x"):
            answer = await client.patch("/api/offer", json={"pc_id": caller.id, "candidates": [wrong]})
            assert answer.status == 422
        assert not caller.said("error")

    call(tmp_path, test)


def test_a_server_that_stops_says_goodbye(tmp_path: Path):
    async def test(client: Any, caller: Caller, sdp: str) -> None:
        await until(lambda: caller.said("hello"))
        client.hub.close()
        assert "shutting down" in (await until(lambda: caller.said("goodbye")))["message"]

    call(tmp_path, test)


def test_aiortc_has_the_constants_that_are_set():
    for module in (vpx, h264):
        assert module.DEFAULT_BITRATE and module.MAX_BITRATE  # type: ignore[attr-defined]


def part(start: float, samples: np.ndarray) -> AudioPart:
    return AudioPart(start, samples, False, -10.0)  # its time has come long ago


async def received(track: SpeechTrack, count: int) -> list[Any]:
    return [await track.recv() for _ in range(count)]


def test_time_stamps_of_audio_follow_the_session_also_where_its_time_jumps():
    async def test() -> None:
        track = SpeechTrack()
        samples = np.linspace(-0.5, 0.5, 1600).astype(np.float32)
        for i in range(0, 1600, 533):  # 30 frames/s: no whole number of packets
            track.put(part(i / SAMPLE_RATE, samples[i : i + 533]))
        frames = await received(track, 5)
        assert [frame.pts for frame in frames] == [i * PACKET for i in range(5)]
        out = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        np.testing.assert_allclose(out / 32767, samples, atol=1e-4)
        track.put(part(3.0, samples[:PACKET]))
        assert (await received(track, 1))[0].pts == 3 * SAMPLE_RATE
        track.stop()

    asyncio.run(test())


def test_audio_waits_for_images_but_not_for_ever_and_an_interruption_fades():
    async def test() -> None:
        track = SpeechTrack()
        track.hold_for([5.0] * 1000)
        assert track.hold == pytest.approx(MOST_HOLD_SECONDS, abs=1e-3)
        track.hold_for([0.02] * 1000)
        assert track.hold == pytest.approx(0.02, abs=1e-3)
        track.put(part(0.0, np.full(3 * PACKET, 0.5, np.float32)))
        track.flush()
        first, *rest = [frame.to_ndarray()[0] for frame in await received(track, 3)]
        assert first[0] > 16000 and (np.diff(first.astype(int)) <= 0).all() and not first[PACKET // 2 :].any()
        assert not any(samples.any() for samples in rest)
        track.stop()

    asyncio.run(test())
