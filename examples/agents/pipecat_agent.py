"""Talk with an avatar in the browser, through a pipecat pipeline on this machine alone.

    pip install 'avatar-toolkit[pipecat]'
    python examples/agents/pipecat_agent.py runs/me                   # then open http://127.0.0.1:7860

What you type is said. With a language model it is answered; any OpenAI-compatible server will do, such as Ollama:

    python examples/agents/pipecat_agent.py runs/me --llm http://127.0.0.1:11434/v1 --model llama3.2

A voice agent puts speech recognition before the language model. The avatar stays where it is: after text to speech.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator

import numpy as np
from aiohttp import web
from pipecat.frames.frames import Frame, InterruptionFrame, LLMMessagesAppendFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.workers.runner import WorkerRunner

from avatar import Avatar
from avatar.integrations.pipecat import AvatarVideoService
from avatar.io.text_to_speech import open_tts

SYSTEM = "You are a friendly person in a video call. Answer in one or two short sentences of plain text."
PAGE = """<!doctype html><meta charset="utf-8"><title>Avatar</title>
<style>body { font: 16px sans-serif; max-width: 32rem; margin: 2rem auto; text-align: center }
video { width: 100% }</style>
<video id="video" autoplay playsinline></video>
<form><input id="text" size="40" autofocus placeholder="Say something"><button>Send</button>
<button type="button" id="hush">Stop</button></form>
<script type="module">
const peer = new RTCPeerConnection(), channel = peer.createDataChannel("chat"), stream = new MediaStream();
const send = (message) => channel.send(JSON.stringify(message));
for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
peer.ontrack = ({ track }) => { stream.addTrack(track); video.srcObject = stream; };
await peer.setLocalDescription(await peer.createOffer());
while (peer.iceGatheringState !== "complete") await new Promise((wait) => setTimeout(wait, 20));
const { sdp, type } = peer.localDescription;
const answer = await fetch("/api/offer", { method: "POST", body: JSON.stringify({ sdp, type }) });
await peer.setRemoteDescription(await answer.json());
document.forms[0].onsubmit = (event) => {
  event.preventDefault();
  send({ type: "say", text: text.value });
  text.value = "";
};
hush.onclick = () => send({ type: "stop" });
setInterval(() => channel.readyState === "open" && channel.send("ping"), 1000);
</script>"""


class LocalTTS(TTSService):
    """Text to speech on this machine, without a key."""

    def __init__(self) -> None:
        self._engine = open_tts("hibari")
        super().__init__(
            settings=TTSSettings(model=None, voice=None, language=None), sample_rate=self._engine.sample_rate,
            push_start_frame=True, push_stop_frames=True, stop_frame_timeout_s=10,
        )  # fmt: skip

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        pieces = self._engine.speak(text)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            audio = np.rint(piece.clip(-1, 1) * 32767).astype(np.int16).tobytes()
            yield TTSAudioRawFrame(audio, self._engine.sample_rate, 1, context_id=context_id)


async def talk(connection: SmallWebRTCConnection, avatar: Avatar, options: argparse.Namespace) -> None:
    """Serve one listener until it leaves."""
    face = AvatarVideoService(avatar, size=options.size)
    width, height = face.image_size
    transport = SmallWebRTCTransport(
        connection,
        TransportParams(
            audio_out_enabled=True, video_out_enabled=True, video_out_width=width, video_out_height=height,
        ),
    )  # fmt: skip
    if options.llm:
        settings = OpenAILLMService.Settings(model=options.model, system_instruction=SYSTEM)
        key = os.environ.get("OPENAI_API_KEY", "none")
        llm = OpenAILLMService(base_url=options.llm, api_key=key, settings=settings)
        context = LLMContextAggregatorPair(LLMContext())
        brain, memory = [context.user(), llm], [context.assistant()]
    else:
        brain, memory = [], []
    pipeline = Pipeline([transport.input(), *brain, LocalTTS(), face, transport.output(), *memory])
    worker = PipelineWorker(pipeline, enable_rtvi=False)

    @transport.event_handler("on_app_message")
    async def on_app_message(_transport: SmallWebRTCTransport, message: dict, _sender: str) -> None:
        await worker.queue_frame(InterruptionFrame())  # whoever is spoken to stops talking
        if text := str(message.get("text", "")).strip():
            question = {"role": "user", "content": text}
            await worker.queue_frame(
                LLMMessagesAppendFrame([question], run_llm=True) if options.llm else TTSSpeakFrame(text)
            )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_transport: SmallWebRTCTransport, _client: SmallWebRTCConnection) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def make_app(avatar: Avatar, options: argparse.Namespace) -> web.Application:
    """The page, and the offers of browsers that opened it."""
    listeners: set[asyncio.Task[None]] = set()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def offer(request: web.Request) -> web.Response:
        content = await request.json()
        connection = SmallWebRTCConnection()
        await connection.initialize(sdp=content["sdp"], type=content["type"])
        listeners.add(task := asyncio.create_task(talk(connection, avatar, options)))
        task.add_done_callback(listeners.discard)
        return web.json_response(connection.get_answer())

    app = web.Application()
    app.add_routes([web.get("/", page), web.post("/api/offer", offer)])
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk with an avatar through a pipecat pipeline.")
    parser.add_argument("run", help="RUN folder of the avatar")
    parser.add_argument("--size", type=int, help="longer side of the image in pixels; smaller is faster")
    parser.add_argument("--llm", help="address of an OpenAI-compatible server; without it, what you type is said")
    parser.add_argument("--model", default="llama3.2", help="language model of that server")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    web.run_app(make_app(Avatar.load(options.run), options), host="127.0.0.1", port=options.port)
