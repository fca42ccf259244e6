"""One response of the realtime door: its events, from the first one to ``response.done``."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr

from avatar.io.audio import SAMPLE_RATE
from avatar.serve.outbox import AudioPart
from avatar.serve.realtime_events import RATES, Item, audio_text

ITEM = "item_of_"  # before a response's name: its item
_NO_TOKENS = {
    "total_tokens": 0, "input_tokens": 0, "output_tokens": 0,
    "input_token_details": {"cached_tokens": 0, "text_tokens": 0, "audio_tokens": 0},
    "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
}  # fmt: skip
_REASONS = {"cancelled": {"reason": "client_cancelled"}, "failed": {}, "completed": {}}


class RealtimeResponse:
    """A response that is under way.

    Args:
        name: Its id, which is also the name of the segment.
        items: What it answers.
        conversation: Id of the conversation.
        older: Whether the client knows the older form of items.

    Attributes:
        begun: Whether something of it was said.
        error: Why it failed; empty where it did not.
    """

    def __init__(self, name: str, items: list[Item], conversation: str, older: bool = False) -> None:
        self.name, self.begun, self.error = name, False, ""
        self._conversation, self._kind = conversation, "audio" if older else "output_audio"
        self._aloud = False
        self._unheard = [item for item in items if item.turn.audio is not None]
        self._text = ""
        self._frames = 0  # of face coefficients that were sent
        self._shapes: np.ndarray | None = None  # the last ones
        self._stream = soxr.ResampleStream(SAMPLE_RATE, RATES[-1], 1, dtype="float32")
        self._place = {"response_id": name, "item_id": ITEM + name, "output_index": 0, "content_index": 0}

    def shown(self, status: str) -> dict[str, Any]:
        """The response as the client gets it."""
        done = status != "in_progress"
        details: dict[str, Any] | None = None
        if done and status != "completed":
            details = {"type": status, **_REASONS[status]}
            if self.error:
                details["error"] = {"type": "server_error", "code": "agent_failed", "message": self.error}
        return {
            "id": self.name, "object": "realtime.response", "status": status, "status_details": details,
            "conversation_id": self._conversation, "output": [self._item(status)] if done and self.begun else [],
            "output_modalities": ["audio"], "modalities": ["text", "audio"], "metadata": None,
            "usage": _NO_TOKENS if done else None,
        }  # fmt: skip

    def transcribed(self, text: str) -> list[dict[str, Any]]:
        """Tell what the client's audio said; typed text the client knows."""
        if not self._unheard:
            return []
        item = self._unheard.pop(0)
        seconds = 0.0 if item.turn.audio is None else len(item.turn.audio) / SAMPLE_RATE
        return [{
            "type": "conversation.item.input_audio_transcription.completed", "item_id": item.name, "content_index": 0,
            "transcript": text, "usage": {"type": "duration", "seconds": seconds},
        }]  # fmt: skip

    def begin(self) -> list[dict[str, Any]]:
        """Begin the item, once."""
        if self.begun:
            return []
        self.begun = True
        item = self._item("in_progress")
        part = {"type": "audio", "transcript": ""}
        return [
            {"type": "response.output_item.added", "response_id": self.name, "output_index": 0, "item": item},
            {"type": "conversation.item.added", "item": item},
            {"type": "response.content_part.added", "part": part} | self._place,
        ]

    def text(self, text: str) -> list[dict[str, Any]]:
        """Tell the next characters of the answer."""
        self._text += text
        return [*self.begin(), {"type": "response.output_audio_transcript.delta", "delta": text} | self._place]

    def audio(self, part: AudioPart, fps: float, aloud: bool) -> list[dict[str, Any]]:
        """Give the audio of a frame, and the face that belongs to it.

        Args:
            part: The audio.
            fps: Frames per second.
            aloud: Whether the audio itself is sent.
        """
        events, self._aloud = self.begin(), aloud
        samples = self._stream.resample_chunk(part.samples)
        if aloud and len(samples):
            events.append({"type": "response.output_audio.delta", "delta": audio_text(samples)} | self._place)
        if part.shapes is not None:
            count = max(1, round(len(part.samples) * fps / SAMPLE_RATE))
            before = part.shapes if self._shapes is None else self._shapes
            # Where frames were too late to be composed, they lie between the last one and this one.
            shares = np.arange(1, count + 1)[:, None] / count
            frames = np.round(before + shares * (part.shapes - before), 4).tolist()
            shapes = {"type": "response.animation_blendshapes.delta", "frames": frames, "frame_index": self._frames}
            events.append(shapes | self._place)
            self._frames, self._shapes = self._frames + count, part.shapes
        return events

    def end(self, status: str) -> list[dict[str, Any]]:
        """End it."""
        events: list[dict[str, Any]] = []
        if self.begun:
            rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
            if status == "completed" and self._aloud and len(rest):
                events.append({"type": "response.output_audio.delta", "delta": audio_text(rest)} | self._place)
            events.append({"type": "response.output_audio.done"} | self._place)
            if self._shapes is not None:
                events.append({"type": "response.animation_blendshapes.done"} | self._place)
            transcript = {"type": "response.output_audio_transcript.done", "transcript": self._text}
            part = {"type": "audio", "transcript": self._text}
            item = self._item(status)
            events += [
                transcript | self._place,
                {"type": "response.content_part.done", "part": part} | self._place,
                {"type": "response.output_item.done", "response_id": self.name, "output_index": 0, "item": item},
                {"type": "conversation.item.done", "item": item},
            ]
        return [*events, {"type": "response.done", "response": self.shown(status)}]

    def _item(self, status: str) -> dict[str, Any]:
        kinds = {"in_progress": "in_progress", "completed": "completed"}
        content = [{"type": self._kind, "transcript": self._text}] if status != "in_progress" else []
        return {
            "id": ITEM + self.name, "object": "realtime.item", "type": "message", "role": "assistant",
            "status": kinds.get(status, "incomplete"), "content": content,
        }  # fmt: skip
