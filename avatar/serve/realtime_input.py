"""What a client of the realtime door gives: items of the conversation, and audio, cut into turns or committed by it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import soxr

from avatar.audio.turns import TurnDetector
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.agent import Turn
from avatar.serve.realtime_events import (
    MOST_ID,
    MOST_ITEM_CHARACTERS,
    Event,
    Item,
    Mistake,
    audio_of,
    item_of,
    message_item,
    new_id,
    number_field,
    object_field,
    text_field,
)
from avatar.serve.realtime_session import MOST_INSTRUCTIONS, RealtimeSession

MOST_WAITING = 32  # items that no response was asked for yet
MOST_ITEMS = 256  # that can be retrieved
MOST_BUFFER_SECONDS = 60.0  # of audio that was not committed
LEAST_COMMIT_SECONDS = 0.1


class Wanted(NamedTuple):
    """What a response is to answer.

    Attributes:
        items: What is new.
        instructions: For this response.
        verbatim: Whether the items are to be said as they are.
    """

    items: list[Item]
    instructions: str
    verbatim: bool


class RealtimeInput:
    """Items and audio of one client.

    Args:
        session: What the client asked for.
        put: Sends an event.
        hear: Gets the audio as it comes, float32, 16 kHz mono.
    """

    def __init__(
        self, session: RealtimeSession, put: Callable[[dict[str, Any]], None], hear: Callable[[np.ndarray], None]
    ) -> None:
        self._session, self._put, self._hear = session, put, hear
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._waiting: list[Item] = []
        self._texts: dict[str, str] = {}  # of items whose text still streams in
        self._next = new_id("item")  # id of the item that the audio will be
        self._buffer: list[np.ndarray] = []
        self._samples = 0  # of the buffer
        self._heard = 0  # samples of all audio
        self._rate, self._turns = 0, TurnDetector()
        self._offset = 0.0  # seconds of audio that the detector was not given
        self._hangover = session.hangover
        self.configure()

    def configure(self) -> None:
        """Follow a session that was updated."""
        session = self._session
        if session.input_rate != self._rate:
            self._rate = session.input_rate
            self._stream = soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32")
        if session.hangover != self._hangover:
            self._hangover, self._turns = session.hangover, TurnDetector(session.hangover)
            self._offset = self._heard / SAMPLE_RATE
        if not session.vad:
            self._turns.clear()

    # --- audio ----------------------------------------------------------------------------------------------------

    def append(self, text: Any) -> Iterator[str]:
        """Take audio; give ``started`` or ``stopped`` for each turn that begins or ends in it.

        Raises:
            Mistake: It is no audio, or too much waits to be committed.
        """
        samples = audio_of(text)
        samples = self._stream.resample_chunk(samples) if self._rate != SAMPLE_RATE else samples
        self._heard += len(samples)
        self._hear(samples)
        if not self._session.vad:
            self._offset += len(samples) / SAMPLE_RATE
            self._add(samples)
            return
        for i in range(0, len(samples), SAMPLE_RATE):
            for event in self._turns.push(samples[i : i + SAMPLE_RATE]):
                field = "audio_start_ms" if event.kind == "started" else "audio_end_ms"
                at = round(1000 * (event.second + self._offset))
                self._put({"type": f"input_audio_buffer.speech_{event.kind}", field: at, "item_id": self._next})
                if event.kind == "stopped":
                    self._commit(event.audio)
                yield event.kind

    def _add(self, samples: np.ndarray) -> None:
        if self._samples + len(samples) > MOST_BUFFER_SECONDS * SAMPLE_RATE:
            raise Mistake(
                f"More than {MOST_BUFFER_SECONDS:g} seconds of audio wait to be committed.", "input_audio_buffer_full",
                "audio", fix="Send input_audio_buffer.commit or clear.",
            )  # fmt: skip
        self._buffer.append(samples)
        self._samples += len(samples)

    def _commit(self, audio: np.ndarray) -> None:
        item = message_item(Turn(audio=audio), self._next)
        self._put({"type": "input_audio_buffer.committed", "item_id": item.name})
        self._next = new_id("item")
        if len(self._waiting) >= MOST_WAITING:  # nobody asked for an answer to what was said first
            del self._waiting[0]
        self._keep(item)

    # --- items ----------------------------------------------------------------------------------------------------

    def act(self, event: Event) -> bool:
        """Act on an event about items or the audio buffer; False where it is none.

        Raises:
            Mistake: It cannot be done.
        """
        fields = event.fields
        match event.kind:
            case "input_audio_buffer.commit":
                self._commit_now()
            case "input_audio_buffer.clear":
                self._turns.clear()
                self._buffer, self._samples = [], 0
                self._put({"type": "input_audio_buffer.cleared"})
            case "conversation.item.create":
                for item in self._read(fields.get("item")):
                    self._keep(item)
            case "conversation.item.retrieve":
                self._put({"type": "conversation.item.retrieved", "item": self._item(fields).shown})
            case "conversation.item.delete":
                item = self._item(fields)
                del self._items[item.name]
                self._waiting = [one for one in self._waiting if one.name != item.name]
                self._put({"type": "conversation.item.deleted", "item_id": item.name})
            case "input_text.delta":
                name = text_field(fields, "id", MOST_ID)
                text = self._texts.get(name, "") + text_field(fields, "delta")
                if len(text) > MOST_ITEM_CHARACTERS or len(self._texts) > MOST_WAITING:
                    raise Mistake(f"The text is longer than {MOST_ITEM_CHARACTERS} characters.", param="delta")
                self._texts[name] = text
            case "input_text.done":
                name = text_field(fields, "id", MOST_ID)
                if name not in self._texts:
                    raise Mistake("No text came for this item.", "item_not_found", "id")
                self._keep(message_item(Turn(self._texts.pop(name)), name))
            case _:
                return False
        return True

    def wanted(self, fields: dict[str, Any]) -> Wanted:
        """What ``response.create`` asks for: its own input, or the items that came since the last response.

        Raises:
            Mistake: It is not understood.
        """
        response = object_field(fields, "response")
        instructions = ""
        if response.get("instructions") is not None:
            instructions = text_field(response, "instructions", MOST_INSTRUCTIONS, "response.instructions")
        said = response.get("pre_generated_assistant_message")
        if said is not None:
            said = said | {"role": "assistant"} if isinstance(said, dict) else said
            answer = self._read(said, "response.pre_generated_assistant_message")
            self._waiting = []  # the client has answered it itself
            return Wanted(answer, "", True)
        given = response.get("input")
        if given is not None:
            if not isinstance(given, list) or len(given) > MOST_WAITING:
                raise Mistake('The field "input" is no list of items.', param="response.input")
            return Wanted([item for one in given for item in self._read(one, "response.input")], instructions, False)
        items, self._waiting = self._waiting, []
        return Wanted(items, instructions, False)

    def truncation(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``conversation.item.truncate``.

        Raises:
            Mistake: It is not understood.
        """
        return {
            "type": "conversation.item.truncated", "item_id": text_field(fields, "item_id", MOST_ID),
            "content_index": round(number_field(fields, "content_index", 0, 1000, 0)),
            "audio_end_ms": round(number_field(fields, "audio_end_ms", 0, 1e8)),
        }  # fmt: skip

    def _commit_now(self) -> None:
        event = self._turns.finish()
        audio = event.audio if event is not None else np.concatenate([np.zeros(0, np.float32), *self._buffer])
        if len(audio) < LEAST_COMMIT_SECONDS * SAMPLE_RATE:
            raise Mistake(
                "There is no audio to commit.", "input_audio_buffer_commit_empty",
                fix="Append at least 100 ms of audio first.",
            )  # fmt: skip
        self._buffer, self._samples = [], 0
        self._commit(audio)

    def _read(self, content: Any, param: str = "item") -> list[Item]:
        """An item that was sent; where it has text and audio, one for each."""
        name, role, texts, sounds = item_of(content, self._rate, param)
        if name in self._items:
            raise Mistake("An item of this id is there already.", "item_already_exists", f"{param}.id")
        turns = [Turn(" ".join(texts), role=role)] if texts else []
        for sound in sounds:
            audio = soxr.resample(sound, self._rate, SAMPLE_RATE) if self._rate != SAMPLE_RATE else sound
            turns.append(Turn(audio=audio.astype(np.float32, copy=False), role=role))
        return [message_item(turn, name if i == 0 else "") for i, turn in enumerate(turns)]

    def _keep(self, item: Item) -> None:
        if len(self._waiting) >= MOST_WAITING:
            raise Mistake(
                f"{MOST_WAITING} items wait for a response.", "too_many_items", fix="Send response.create first."
            )
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._put({"type": kind, "item": item.shown})
        self._waiting.append(item)
        self._items[item.name] = item._replace(turn=Turn(role=item.turn.role))  # audio is not kept
        while len(self._items) > MOST_ITEMS:
            self._items.popitem(last=False)

    def _item(self, fields: dict[str, Any]) -> Item:
        name = text_field(fields, "item_id", MOST_ID)
        if name not in self._items:
            raise Mistake("There is no such item.", "item_not_found", "item_id")
        return self._items[name]
