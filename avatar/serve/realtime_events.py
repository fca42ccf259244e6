"""Events of the realtime door: what clients may send, checked, and what they get, under present or older names.

Names are those of OpenAI Realtime, and of Azure Voice Live for the avatar. Clients that speak the older form of
OpenAI's events, as Azure's do, are answered in it: ``response.audio.delta`` for ``response.output_audio.delta``.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from typing import Any, NamedTuple

import numpy as np

from avatar.errors import AvatarError
from avatar.serve.agent import Turn

RATES = (16000, 24000)  # Hz of PCM16 that may come; what goes out has the last one
MOST_EVENT_BYTES = 1 << 20
MOST_ITEM_CHARACTERS = 4000  # of text
MOST_ID = 128  # characters
OLDER = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}
NEWER_ONLY = ("conversation.item.done",)
# Those that say which item one comes after; whoever sends them adds it.
PLACED = ("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done")


class Mistake(AvatarError):
    """An event that cannot be acted on.

    Args:
        message: What is wrong.
        code: In short, for programs.
        param: The field.
        fix: What the client can do.
    """

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.code, self.param = code, param


class Event(NamedTuple):
    """An event of a client.

    Attributes:
        kind: Its type.
        name: Its ``event_id``, if it has one.
        fields: All of it.
    """

    kind: str
    name: str | None
    fields: dict[str, Any]

    @staticmethod
    def parse(text: str | bytes) -> Event:
        """Read an event.

        Raises:
            Mistake: It is no JSON object with a type.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise Mistake("The event is no JSON.", "invalid_json") from None
        kind = content.get("type") if isinstance(content, dict) else None
        if not isinstance(kind, str) or len(kind) > MOST_ID:
            raise Mistake('The event is no object with a "type".', "invalid_event", "type")
        name = content.get("event_id")
        return Event(kind, name[:MOST_ID] if isinstance(name, str) else None, content)


def new_id(kind: str) -> str:
    """A name for an event, an item or a response."""
    return f"{kind}_{secrets.token_hex(10)}"


def error_event(error: AvatarError, event: Event | None, kind: str = "invalid_request_error") -> dict[str, Any]:
    """What a client gets for a mistake, or where the server failed."""
    code, param = (error.code, error.param) if isinstance(error, Mistake) else ("failed", None)
    name = event.name if event is not None else None
    content = {"type": kind, "code": code, "message": str(error), "param": param, "event_id": name}
    return {"type": "error", "error": content}


def text_field(fields: dict[str, Any], name: str, most: int = MOST_ITEM_CHARACTERS, param: str = "") -> str:
    """A field that is a text.

    Raises:
        Mistake: It is missing, no text, or too long.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise Mistake(f'The field "{name}" is missing, or no text.', "missing_required_parameter", param or name)
    if len(value) > most:
        raise Mistake(f'The field "{name}" is longer than {most} characters.', "string_above_max_length", param or name)
    return value.encode("utf-8", "replace").decode()


def number_field(fields: dict[str, Any], name: str, low: float, high: float, default: float | None = None) -> float:
    """A field that is a number.

    Raises:
        Mistake: It is none, or out of range.
    """
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Mistake(f'The field "{name}" is no number from {low:g} to {high:g}.', param=name)
    return float(value)


def object_field(fields: dict[str, Any], name: str, param: str = "") -> dict[str, Any]:
    """A field that is an object; an empty one where it is missing or null.

    Raises:
        Mistake: It is something else.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise Mistake(f'The field "{name}" is no object.', "invalid_type", param or name)
    return value or {}


def audio_of(text: Any, param: str = "audio") -> np.ndarray:
    """Samples [N], float32 in -1 to 1, of PCM16 in base64.

    Raises:
        Mistake: It is none.
    """
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b"?"
    except (binascii.Error, ValueError):
        data = b"?"
    if len(data) % 2:
        raise Mistake(f'The field "{param}" is no PCM16 in base64.', param=param)
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def audio_text(samples: np.ndarray) -> str:
    """PCM16 in base64 of samples [N]."""
    return base64.b64encode(np.rint(samples.clip(-1, 1) * 32767).astype("<i2").tobytes()).decode()


class Item(NamedTuple):
    """An item of the conversation.

    Attributes:
        name: Its id.
        turn: What it says.
        shown: It as clients get it.
    """

    name: str
    turn: Turn
    shown: dict[str, Any]


def message_item(turn: Turn, name: str = "") -> Item:
    """An item that is a message."""
    name = name or new_id("item")
    if turn.audio is not None:
        part: dict[str, Any] = {"type": "input_audio", "transcript": None}
    else:
        part = {"type": "input_text" if turn.role != "assistant" else "output_text", "text": turn.text}
    shown = {
        "id": name, "object": "realtime.item", "type": "message", "role": turn.role, "status": "completed",
        "content": [part],
    }  # fmt: skip
    return Item(name, turn, shown)


def item_of(content: Any, rate: int, param: str = "item") -> tuple[str, str, list[str], list[np.ndarray]]:
    """Id, role, texts and audio (as sent, at ``rate``) of an item that a client sends.

    Raises:
        Mistake: It is no message of text or audio.
    """
    if not isinstance(content, dict) or content.get("type", "message") != "message":
        raise Mistake("The item is no message.", param=f"{param}.type", fix="Send items of the type message.")
    role, parts = content.get("role", "user"), content.get("content")
    if role not in ("user", "assistant", "system"):
        raise Mistake("The item's role is unknown.", param=f"{param}.role", fix="Send user, assistant or system.")
    if not isinstance(parts, list) or not 1 <= len(parts) <= 16:
        raise Mistake("The item has no content, or too much.", param=f"{param}.content")
    texts: list[str] = []
    sounds: list[np.ndarray] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "text", "output_text"):
            texts.append(text_field(part, "text", param=f"{param}.content.text"))
        elif kind == "input_audio":
            sounds.append(audio_of(part.get("audio"), f"{param}.content.audio"))
        else:
            raise Mistake("The item's content is neither text nor audio.", param=f"{param}.content.type")
    name = content.get("id")
    return (name[:MOST_ID] if isinstance(name, str) else ""), role, texts, sounds
