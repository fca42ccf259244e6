"""Talk with an avatar in a LiveKit room; the agent and its voice run on this machine.

    pip install 'avatar-toolkit[livekit]'
    livekit-server --dev                                       # a server of LiveKit on this machine; see its pages
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    AVATAR_RUN=runs/me python examples/agents/livekit_agent.py dev    # then join a room, and write into its chat

What you write is said. A voice agent is ``AgentSession(stt=..., llm=..., tts=...)`` with models of LiveKit's plug-ins;
the avatar and all else stay as they are.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, JobProcess, cli
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions

from avatar import Avatar
from avatar.integrations.livekit import AvatarGenerator
from avatar.io.text_to_speech import open_tts

server = AgentServer()
voice = open_tts("hibari")


def prewarm(process: JobProcess) -> None:
    """Load the avatar before somebody comes."""
    process.userdata["avatar"] = Avatar.load(os.environ["AVATAR_RUN"])


server.setup_fnc = prewarm


async def spoken(text: str) -> AsyncIterator[rtc.AudioFrame]:
    """What the voice says, piece by piece."""
    pieces = voice.speak(text)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        samples = np.rint(piece.clip(-1, 1) * 32767).astype(np.int16)
        yield rtc.AudioFrame(samples.tobytes(), voice.sample_rate, 1, len(samples))


async def answer(session: AgentSession, event: TextInputEvent) -> None:
    """Say what was written; whoever is spoken to stops talking."""
    await session.interrupt()
    session.say(event.text, audio=spoken(event.text))


async def put_a_face_on(session: AgentSession, room: rtc.Room, avatar: Avatar) -> AvatarRunner:
    """Send what the session says through an avatar, which publishes audio and video in the room."""
    generator = await AvatarGenerator.open(avatar, size=384, audio_sample_rate=voice.sample_rate)
    audio = QueueAudioOutput(sample_rate=generator.options.audio_sample_rate)
    runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
    await runner.start()
    session.output.audio = audio
    session.on("agent_state_changed", lambda event: generator.think(event.new_state == "thinking"))
    return runner


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Serve one room."""
    await ctx.connect()
    session = AgentSession()
    runner = await put_a_face_on(session, ctx.room, ctx.proc.userdata["avatar"])
    ctx.add_shutdown_callback(runner.aclose)
    await session.start(
        Agent(instructions=""),
        room=ctx.room,
        room_options=RoomOptions(
            audio_input=False, audio_output=False, text_input=TextInputOptions(text_input_cb=answer)
        ),
    )
    session.say("Hello!", audio=spoken("Hello! Write to me."))


if __name__ == "__main__":
    cli.run_app(server)
