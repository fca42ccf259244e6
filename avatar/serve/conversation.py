"""A conversation with one listener: whose turn it is, what the agent answers, and what happens when it is interrupted.

The listener gets these messages in JSON:

- ``state {state}``: one of `STATES`
- ``heard {text, segment, continues?}``: what was typed or, in words, spoken. With ``continues``, the name of an earlier
  segment, it says what that one said, and what came after a pause
- ``answer {segment, text}``: the next characters of the answer
- ``answer.done {segment, stopped}``: it was said to its end, or there was none, or it was stopped
- ``agent.failed {segment, message}``: there is no answer, or it broke off; the conversation goes on
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from avatar import log
from avatar.audio.turns import LONGEST_HANGOVER_SECONDS, LONGEST_SECONDS, TurnDetector, TurnEvent
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.agent import Agent, AgentError, AudioPiece, Echo, Piece, Transcript, Turn, Words
from avatar.serve.answer import Answer, Sentences

if TYPE_CHECKING:
    from avatar.serve.listener import Listener
    from avatar.serve.metrics import Metrics
    from avatar.serve.voice import Voice

State = Literal["idle", "listening", "thinking", "speaking", "interrupted"]
STATES: tuple[State, ...] = ("idle", "listening", "thinking", "speaking", "interrupted")
INTERRUPTED_SECONDS = 0.25  # in which the mouth closes
CLOSE_SECONDS = 5.0  # in which an agent has to be closed; one that cannot be reached is not waited for
GOES_ON_SECONDS = 1.2  # from the end of a turn: who speaks again by then had only paused, ...
GOES_ON_PLAYED_MS = 500  # ... unless so much of the answer was heard
MOST_REMEMBERED = 256  # names of segments
MOST_TURN_CHARACTERS = 4000  # of typed text
Interrupt = Callable[[], dict[str, Any]]


class Conversation:
    """Turns of one listener and one agent; all of it runs in the event loop, but `words`.

    Args:
        agent: Answers; this conversation closes it.
        listener: The avatar.
        voice: Says the text of answers.
        metrics: Gets times and counts.
        interrupt: Stops what is said, as the listener's own message does; gives the answer to that.

    Attributes:
        state: What the avatar does now.
    """

    def __init__(self, agent: Agent, listener: Listener, voice: Voice, metrics: Metrics, interrupt: Interrupt) -> None:
        self.state: State = "idle"
        self._agent, self._listener, self._voice, self._metrics = agent, listener, voice, metrics
        self._interrupt = interrupt
        self._loop = asyncio.get_running_loop()
        self._turns = TurnDetector(longest=LONGEST_HANGOVER_SECONDS)
        self._spoken: _Spoken | None = None  # the last turn, where it was spoken
        self._goes_on: _Spoken | None = None  # the turn that is continued by what is said now
        self._on = self._listening = False
        self._interrupted_until = 0.0
        self._speaking: set[str] = set()  # segments
        self._asked: list[str] = []  # segments that were asked for
        self._reply: _Reply | None = None
        self._last: _Reply | None = None  # that was over or stopped last
        self._task: asyncio.Task[None] | None = None

    @property
    def hears(self) -> bool:
        """Whether the agent takes audio."""
        return self._agent.hears

    @property
    def segment(self) -> str:
        """Segment of the answer that is under way; empty: none is."""
        return self._reply.segment if self._reply is not None else ""

    @property
    def busy(self) -> bool:
        """Whether there is something to interrupt."""
        return self._reply is not None or bool(self._speaking)

    def ask(
        self, turns: Sequence[Turn], segment: str = "", instructions: str = "", verbatim: bool = False
    ) -> str:  # fmt: skip
        """Let the agent answer; what is said now is interrupted. A segment that was asked for before changes nothing.

        Args:
            turns: What was said.
            segment: Name of the answer.
            instructions: For this answer, instead of the usual ones.
            verbatim: Say the turns themselves.

        Returns:
            The name of the answer's segment.

        Raises:
            AvatarError: A text is too long or empty.
        """
        if any(len(turn.text) > MOST_TURN_CHARACTERS for turn in turns):
            raise AvatarError(f"The text is longer than {MOST_TURN_CHARACTERS} characters.", fix="Send less.")
        if segment and segment in self._asked:
            return segment
        segment = segment or secrets.token_hex(6)
        self._asked = [*self._asked[-MOST_REMEMBERED:], segment]
        self._spoken = None
        if self.busy:
            self._listener.outbox.put(self._interrupt())
        for turn in turns:
            if turn.text and turn.role == "user":
                self._tell({"type": "heard", "segment": segment, "text": turn.text, "typed": True})
        self._start(turns, segment, instructions, verbatim)
        return segment

    def _start(self, turns: Sequence[Turn], segment: str, instructions: str = "", verbatim: bool = False) -> _Reply:
        self._reply = reply = _Reply(segment, Answer(self._voice))
        pieces = (Echo() if verbatim else self._agent).reply(turns, instructions)
        self._task = asyncio.create_task(self._run(reply, pieces, self._task))
        self._update()
        return reply

    def listen(self, on: bool) -> None:
        """Take turns with the microphone, or stop doing so.

        Raises:
            AvatarError: The agent takes no audio.
        """
        if on and not self._agent.hears:
            raise AvatarError(
                "This agent cannot hear.", fix="Type instead, or start the server with --agent-transcriber MODEL."
            )
        event = self._turns.finish()
        self._turns.clear()
        self._listening = False
        if event is not None and self._on and not on:  # what was said so far is the turn
            self._ended(event)
        self._goes_on = None
        self._on = on
        self._update()

    def hear(self, samples: np.ndarray) -> None:
        """Take audio of the microphone, float32, 16 kHz mono; a turn that begins interrupts, one that ends is asked."""
        if not self._on:
            return
        self._listener.session.hear(samples)
        for event in self._turns.push(samples):
            self._listening = event.kind == "started"
            if event.kind == "stopped":
                self._ended(event)
            else:
                self._begun(event)
            self._update()

    def _begun(self, event: TurnEvent) -> None:
        """The listener speaks: what is said is interrupted, and an answer that nobody heard is void."""
        spoken, played = self._spoken, 0
        pending = spoken is not None and self.segment == spoken.segment
        if self.busy:
            found = self._interrupt()
            played = found["played_ms"]
            self._listener.outbox.put(found)
        self._goes_on = None
        if spoken is None or len(spoken.audio) > LONGEST_SECONDS * SAMPLE_RATE:
            return
        soon = event.second - spoken.second < GOES_ON_SECONDS and played < GOES_ON_PLAYED_MS
        if soon or (pending and not played):
            self._goes_on = spoken
            self._turns.continued()

    def _ended(self, event: TurnEvent) -> None:
        """The listener has finished: the agent answers."""
        before, self._goes_on = self._goes_on, None
        turn = Turn(audio=event.audio, before=None if before is None else before.audio)
        segment = secrets.token_hex(6)
        if self._reply is not None:  # to what was typed since the turn began; there is one answer at a time
            self._listener.outbox.put(self._interrupt())
        reply = self._start([turn], segment)
        reply.continues = "" if before is None else before.segment
        assert turn.whole is not None
        self._spoken = _Spoken(segment, turn.whole, event.second)

    def listening(self, on: bool) -> None:
        """Note that the listener speaks, or has finished."""
        self._listening = on
        self._update()

    def interrupted(self, segment: str, played_ms: int) -> None:
        """Note that what was said was stopped, after ``played_ms`` of ``segment``."""
        if self._speaking:
            self._interrupted_until = time.monotonic() + INTERRUPTED_SECONDS
            self._loop.call_later(INTERRUPTED_SECONDS + 0.01, self._update)
        self._speaking.clear()
        if (reply := self._reply) is not None:
            self._reply, self._last = None, reply
            reply.stop(played_ms if reply.segment == segment else 0)
            if self._task is not None and not reply.complete:
                self._task.cancel()
            self._tell({"type": "answer.done", "segment": reply.segment, "stopped": True})
        self._update()

    async def truncate(self, segment: str, played_ms: int) -> None:
        """Note how much of the last answer the listener's own player had played."""
        if self._last is not None and self._last.segment == segment and self._last.answered:
            with suppress(AgentError):
                await self._agent.played(self._last.answer.played_text(played_ms), played_ms)

    def words(self, words: dict[str, Any]) -> None:
        """Take a message about segments, from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take, words)

    async def close(self) -> None:
        """End it."""
        if self._reply is not None:
            self._reply.stop(0)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(AgentError, asyncio.TimeoutError):
            await asyncio.wait_for(self._agent.close(), CLOSE_SECONDS)

    def _take(self, words: dict[str, Any]) -> None:
        segment = str(words.get("segment", ""))
        if words["type"] == "segment.started":
            if self._listener.says(segment):  # it may have been interrupted since its thread told so
                self._speaking.add(segment)
        else:
            self._speaking.discard(segment)
            if self._reply is not None and self._reply.segment == segment:
                self._reply.over.set()
        self._update()

    def _update(self) -> None:
        """Find the state, and tell it where it is a new one."""
        if self._interrupted_until > time.monotonic():
            state = "interrupted"
        elif self._listening:
            state = "listening"
        elif self._speaking:
            state = "speaking"
        else:
            state = "thinking" if self._reply is not None and not self._reply.over.is_set() else "idle"
        if state != self.state:
            self.state = state
            self._listener.session.think(state == "thinking")
            self._tell({"type": "state", "state": state})

    def _tell(self, words: dict[str, Any]) -> None:
        self._listener.outbox.put(words)

    async def _run(
        self, reply: _Reply, given: AsyncGenerator[Piece], before: asyncio.Task[None] | None
    ) -> None:  # fmt: skip
        """One answer, from the turn to the last word; ``before`` is that of the turn before, which was stopped."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            await self._answer(reply, given)
            if reply.begun:
                await reply.over.wait()
        except AvatarError as error:
            self._fail(reply, str(error))
            await reply.over.wait()
        except Exception as error:
            log.warn(f"An agent's answer ended by itself: {type(error).__name__}: {error}")
            self._fail(reply, "The agent's answer failed; the server's log says why.")
            await reply.over.wait()
        finally:
            reply.answer.end()
            if reply.played_ms is not None and reply.answered:
                with suppress(AgentError):
                    await self._agent.played(reply.answer.played_text(reply.played_ms), reply.played_ms)
            self._finish(reply)

    async def _answer(self, reply: _Reply, given: AsyncGenerator[Piece]) -> None:
        """Pass on what the agent gives."""
        sentences, began, silent = Sentences(), time.monotonic(), False
        async with aclosing(given) as pieces:
            async for piece in pieces:
                if isinstance(piece, Transcript):
                    silent = not piece.text
                    if piece.text:
                        more = {"continues": reply.continues} if piece.whole and reply.continues else {}
                        self._tell({"type": "heard", "segment": reply.segment, "text": piece.text, **more})
                    continue
                reply.answered = True
                if isinstance(piece, AudioPiece):
                    self._say(reply, piece.samples)
                elif isinstance(piece, Words):
                    self._tell({"type": "answer", "segment": reply.segment, "text": piece.text})
                    for sentence in sentences.push(piece.text) if piece.aloud else []:
                        self._say(reply, sentence)
                    if not piece.aloud:
                        reply.answer.caption(piece.text)
                await asyncio.sleep(0)  # what was told is sent before more is
                if reply.begun and began:
                    self._metrics.time("agent", time.monotonic() - began)
                    began = 0.0
        if silent and not reply.answered:
            return
        for sentence in sentences.finish():
            self._say(reply, sentence)
        reply.complete = True
        reply.answer.end()
        if not reply.begun:
            raise AgentError("The agent's answer is empty.", fix="Say it again, in other words.")

    def _say(self, reply: _Reply, piece: str | np.ndarray) -> None:
        reply.answer.add(piece)
        if not reply.begun:
            if not self._listener.say(reply.segment, reply.answer.pieces()):
                raise AgentError("The answer has the name of a segment that was said before.", fix="Choose another.")
            reply.begun = True

    def _fail(self, reply: _Reply, message: str) -> None:
        self._metrics.count("agent_failures_total")
        reply.complete = True
        reply.answer.end()
        if not reply.begun:
            reply.over.set()
        self._tell({"type": "agent.failed", "segment": reply.segment, "message": message})

    def _finish(self, reply: _Reply) -> None:
        if self._reply is reply:
            self._reply, self._last = None, reply
            self._update()
            self._tell({"type": "answer.done", "segment": reply.segment, "stopped": False})


class _Spoken(NamedTuple):
    """A turn that was spoken: the segment of its answer, its audio, and the second of the stream at which it ended."""

    segment: str
    audio: np.ndarray
    second: float


class _Reply:
    """An answer that is under way.

    Attributes:
        answered: Whether something of it came.
        begun: Whether something of it was given to be said.
        complete: Whether the agent has finished.
        over: Set when it was said, or stopped.
        played_ms: Where it was stopped; None: it was not.
        continues: Segment of the turn that the listener went on with; empty: of none.
    """

    def __init__(self, segment: str, answer: Answer) -> None:
        self.segment, self.answer = segment, answer
        self.answered = self.begun = self.complete = False
        self.over = asyncio.Event()
        self.played_ms: int | None = None
        self.continues = ""

    def stop(self, played_ms: int) -> None:
        """Stop it; ``played_ms`` of it were played."""
        self.played_ms = played_ms
        self.answer.close()
        self.over.set()
