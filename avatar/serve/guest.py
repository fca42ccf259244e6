"""One listener as the doors see it: messages in, messages out, whatever they travel by."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from avatar.audio.turns import PauseDetector
from avatar.data.run import HEADMOTION
from avatar.errors import AvatarError
from avatar.headmotion.loop import LOOPS, POSES
from avatar.infer.renderer import counts_text
from avatar.infer.video import resize
from avatar.infer.view_cone import LEAST_ZOOM
from avatar.io.audio import SAMPLE_RATE
from avatar.motion.emotion import EMOTIONS
from avatar.provenance.source_type import TRAINED
from avatar.serve.agent import Echo, Turn
from avatar.serve.conversation import Conversation
from avatar.serve.messages import Message, controls_of
from avatar.serve.voice import MOST_FILE_BYTES, decode
from avatar.viewer.controls import RANGES, Sliders, apply_controls

if TYPE_CHECKING:
    import numpy as np

    from avatar.motion import Motion
    from avatar.serve.agent import Agent
    from avatar.serve.character import Character
    from avatar.serve.listener import Listener
    from avatar.serve.metrics import Metrics
    from avatar.serve.voice import Voice

MOST_MESSAGES = 200  # a second, before the others are dropped
GOODBYE_SECONDS = 5.0  # that a client has to close its side of a connection ...
HURRIED_SECONDS = 1.0  # ... where it has come again: a network that is gone answers nothing
CHANGES_SECONDS = 0.1  # between two changes of controls
AUTOMATIC = ("ping", "shown")  # messages that a page sends although nobody is there


class Guest:
    """A listener who was let in.

    Args:
        name: Of the session; random, because who knows it may speak through it.
        listener: Its avatar.
        character: Which avatar it is.
        voice: Says texts.
        metrics: Gets what the page reports.
        agent: Answers what is asked.
        answers: Whether somebody answers, and not only `Echo`.
        face: Whether the listener may move the face by hand, and let go of the view limits.
        file_bytes: Most bytes of an audio file that is sent.

    Attributes:
        conversation: Turns of the listener and the agent.
        began, active: Seconds of the monotonic clock: when it came, and when it last did or said something.
        over: Set once the session is to end.
        reason: Why it ends; empty where the listener left.
        goodbye_seconds: How long the door waits for the client to close its connection.
    """

    def __init__(
        self, name: str, listener: Listener, character: Character, voice: Voice, metrics: Metrics,
        agent: Agent | None = None, answers: bool = False, face: bool = False, file_bytes: int = MOST_FILE_BYTES,
    ) -> None:  # fmt: skip
        self.name, self.listener, self.character = name, listener, character
        self._voice, self._metrics = voice, metrics
        self.began = self.active = time.monotonic()
        self.over, self.reason = asyncio.Event(), ""
        self.goodbye_seconds = GOODBYE_SECONDS
        self.conversation = Conversation(agent or Echo(), listener, voice, metrics, self.interrupt)
        listener.told = self.conversation.words
        self._answers, self._face, self._file_bytes = answers, face, file_bytes
        self._beyond = character.controls.beyond
        self._attends, self._speech = False, PauseDetector()
        self._view = (0.0, 0.0, 1.0)  # azimuth, elevation, zoom
        self._behaviour: dict[str, Any] | None = None  # fields of the newest change of controls
        self._changing = asyncio.Lock()
        self._newest = 0  # change of controls
        self._second, self._messages = 0, 0
        self._tasks: set[asyncio.Task[None]] = set()

    def end(self, reason: str = "", replaced: bool = False) -> None:
        """Ask the door to end the session, and say why. The avatar stops at once, so that goodbyes need not wait.

        Args:
            reason: A sentence for the client.
            replaced: Whether the same client has come again and waits for the place: the door makes it short.
        """
        if replaced:
            self.goodbye_seconds = HURRIED_SECONDS
        if not self.over.is_set():
            self.reason = reason
            self.over.set()
            self.listener.stop(wait=False)

    def hello(self, **more: Any) -> dict[str, Any]:
        """What a page has to know: the first message to it."""
        avatar = self.character.avatar
        limits = avatar.cone.limits()
        camera = resize(avatar.camera, self.character.size)
        poses = POSES if (avatar.run / HEADMOTION).is_file() else LOOPS
        return {
            "type": "hello", "digital_source_type": TRAINED, "session": self.name, "avatar": self.character.name,
            "about": counts_text(avatar.info),
            "fps": avatar.fps, "width": camera.width, "height": camera.height, "sample_rate": SAMPLE_RATE,
            "limits": {name: round(value, 1) for name, value in limits._asdict().items()},
            "measured": avatar.cone.measured, "emotions": list(EMOTIONS), "poses": list(poses),
            "text": self._voice.available and not self.character.speechless,
            "speechless": self.character.speechless, "face": RANGES if self._face else None, "beyond": self._beyond,
            "file_bytes": self._file_bytes,
            "agent": self._answers,
            "hears": self._answers and self.conversation.hears, **more,
        }  # fmt: skip

    async def handle(self, text: str | bytes) -> dict[str, Any] | None:
        """Act on a message, and return the answer if there is one; a mistake is answered in words."""
        now = time.monotonic()
        if int(now) != self._second:
            self._second, self._messages = int(now), 0
        self._messages += 1
        if self._messages > MOST_MESSAGES:
            return None
        try:
            message = Message.parse(text)
            if message.kind not in AUTOMATIC:
                self.active = now
            return await self._act(message)
        except AvatarError as error:
            return {"type": "error", "message": str(error)}

    async def _act(self, message: Message) -> dict[str, Any] | None:
        fields = message.fields
        match message.kind:
            case "say":
                return self.say(fields["text"], fields["segment"])
            case "ask":
                self.conversation.ask([Turn(_with_words(fields["text"]))], fields["segment"])
            case "listen":
                self.conversation.listen(fields["on"])
            case "interrupt":
                return self.interrupt(fields["segment"])
            case "echo":
                self._check_speech()
                self.listener.echo(fields["on"])
            case "attend":
                self._attends = fields["on"]
            case "face":
                self._move(fields)
            case "view":
                self.look(fields["azimuth"], fields["elevation"], fields["zoom"])
            case "controls":
                self._behave(fields)
            case "ping":
                return {"type": "pong", "at": fields["at"], "server": 1000 * time.time()}
            case _:
                self._metrics.time("audio_delay", fields["audio_delay"])
        return None

    def say(self, text: str, segment: str = "") -> dict[str, Any]:
        """Say a text.

        Raises:
            AvatarError: It cannot be said, or too much waits.
        """
        self._check_speech()
        segment = segment or secrets.token_hex(6)
        new = self.listener.say(segment, self._voice.say(text))
        return {"type": "segment.queued", "segment": segment, "new": new}

    async def play(self, content: bytes, segment: str = "") -> dict[str, Any]:
        """Say an audio file.

        Raises:
            AvatarError: It cannot be read, or too much waits.
        """
        self._check_speech()
        self.active = time.monotonic()
        segment = segment or secrets.token_hex(6)
        pieces = await asyncio.to_thread(decode, content)
        return {"type": "segment.queued", "segment": segment, "new": self.listener.say(segment, pieces)}

    def interrupt(self, segment: str = "") -> dict[str, Any]:
        """Stop what is said; the answer tells what was played."""
        if segment and segment == self.conversation.segment:
            segment = ""  # the answer, also while the agent still thinks
        before = self.listener.interruptions
        found = self.listener.interrupt(segment)
        unsent = round(1000 * self.listener.outbox.drop_audio() / SAMPLE_RATE)
        played_ms = max(0, found.played_ms - unsent)
        if self.listener.interruptions != before:
            self.conversation.interrupted(found.segment, played_ms)
        return {"type": "interrupted", "segment": found.segment, "played_ms": played_ms}

    def hear(self, samples: np.ndarray) -> None:
        """Take audio of the listener's microphone, float32, 16 kHz mono."""
        self.listener.push_microphone(samples)
        self.conversation.hear(samples)
        if self._attends:
            self.listener.session.hear(samples)
        self.attend(samples)

    def attend(self, samples: np.ndarray) -> None:
        """Note that the listener speaks, where they do: a microphone sends on where nobody speaks."""
        if self._speech.push(samples) or self._speech.speaking:
            self.active = time.monotonic()

    def look(self, azimuth: float, elevation: float, zoom: float) -> None:
        """Move the camera, stopped softly at the view limits unless it may go beyond."""
        avatar, character = self.character.avatar, self.character
        self._view = azimuth, elevation, zoom
        if not self._beyond:
            azimuth, elevation = avatar.cone.clamped(azimuth, elevation)
            zoom = max(zoom, LEAST_ZOOM)
        camera = avatar.camera.orbit(avatar.pivot, azimuth, elevation, zoom)
        self.listener.set(camera=resize(camera, character.size))

    def _move(self, fields: dict[str, Any]) -> None:
        """Move the face by hand, inside of the limits or not.

        Raises:
            AvatarError: Pages of this server may not.
        """
        if not self._face:
            raise AvatarError("The face is not moved by hand here.", fix="`avatar view` has sliders for it.")
        beyond = fields["beyond"]
        sliders = Sliders(**{name: fields[name] for name in RANGES})
        by_hand = (sliders.yaw, sliders.pitch, sliders.roll) != (0, 0, 0)

        def adjust(motion: Motion) -> Motion:
            moved = apply_controls(motion, **vars(sliders))
            if beyond:
                return moved
            # Only a head that is turned by hand is held before a turned camera; the person's own turns were filmed.
            place = self.listener.session.camera.position.expand(len(moved), 3) if by_hand else None
            return self.character.avatar.cone.limit_head(moved, place)[0]

        self.listener.session.adjust = adjust if sliders != Sliders() else None
        if beyond != self._beyond:
            self._beyond = beyond
            self.look(*self._view)
            self._behave(self._behaviour or Message.of({"type": "controls"}).fields)

    def _check_speech(self) -> None:
        if self.character.speechless:
            raise AvatarError(self.character.speechless)

    def _behave(self, fields: dict[str, Any]) -> None:
        """Change the controls, in the background: it takes a moment, and audio must not wait."""
        self._behaviour = fields
        task = asyncio.create_task(self._change(fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, fields: dict[str, Any]) -> None:
        """Change the controls. Of several changes at once only the newest one is made."""
        self._newest = newest = self._newest + 1
        async with self._changing:
            if newest != self._newest:
                return
            try:
                given = replace(self.character.controls, beyond=self._beyond)
                controls = controls_of(fields, given, self.listener.session.seconds)
                await asyncio.to_thread(self.listener.set, controls)
            except AvatarError as error:
                self.listener.outbox.put({"type": "error", "message": str(error)})
            await asyncio.sleep(CHANGES_SECONDS)


def _with_words(text: str) -> str:
    if not any(c.isalnum() for c in text):
        raise AvatarError("The text has nothing to answer.", fix="Send at least one word.")
    return text
