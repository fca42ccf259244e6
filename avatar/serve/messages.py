"""The messages that a page or a program sends, checked field by field before anything acts on them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from avatar.checks import can_be_shown
from avatar.errors import AvatarError
from avatar.headmotion.loop import POSES
from avatar.infer.controls import Controls
from avatar.motion.emotion import EMOTIONS, Mix
from avatar.motion.timeline import Span, spans_of
from avatar.serve.listener import MICROPHONE
from avatar.viewer.controls import RANGES

MOST_MESSAGE_BYTES = 64 << 10
MOST_NAME = 64  # characters
MOST_SPANS = 100  # of a timeline
ZOOM = (0.5, 3.0)


@dataclass(frozen=True)
class Message:
    """A checked message.

    Attributes:
        kind: One of `KINDS`.
        fields: What it says; every number is finite and in range.
    """

    kind: str
    fields: dict[str, Any]

    KINDS: ClassVar = (
        "say", "ask", "listen", "interrupt", "controls", "view", "face", "echo", "attend", "ping", "shown",
    )  # fmt: skip

    @staticmethod
    def parse(text: str | bytes) -> Message:
        """Read a message.

        Raises:
            AvatarError: It is no JSON, of no known type, or a field is missing or out of range.
        """
        if len(text) > MOST_MESSAGE_BYTES:
            raise AvatarError(f"A message has more than {MOST_MESSAGE_BYTES >> 10} KiB.")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise AvatarError("A message is no JSON.") from None
        return Message.of(content)

    @staticmethod
    def of(content: Any) -> Message:
        """Check a message that was decoded; see :meth:`parse`."""
        if not isinstance(content, dict) or not isinstance(content.get("type"), str):
            raise AvatarError('A message is no object with a "type".')
        kind = content["type"]
        if kind not in Message.KINDS:
            raise AvatarError(f"There is no message of type {kind[:MOST_NAME]!r}.", fix=f"Send {_list(Message.KINDS)}.")
        return Message(kind, _READERS[kind](content))


@dataclass(frozen=True, kw_only=True)
class LiveControls(Controls):
    """Controls of a session.

    Attributes:
        later: Timed controls over those of the options; seconds of the session.
    """

    later: tuple[Span, ...] = ()

    def spans(self) -> list[Span]:
        """All timed controls; see `Controls.spans`."""
        return [*super().spans(), *self.later]


def controls_of(fields: dict[str, Any], given: Controls, now: float) -> LiveControls:
    """The controls of a message of type ``controls``, over those that were given on the command line.

    Args:
        fields: Of the message.
        given: On the command line.
        now: Second of the session from which the message's timeline counts.
    """
    added: dict[str, tuple[str, ...]] = {}
    if fields["emotion"]:
        plain = fields["emotion"] in EMOTIONS
        added["emotion"] = (f"{fields['emotion']}:{fields['strength']:g}" if plain else fields["emotion"],)
    if fields["gaze"] is not None:
        added["gaze"] = (fields["gaze"],)
    for name in ("pose", "blink"):
        if fields[name]:
            added[name] = (fields[name],)
    for name in ("pose_scale", "lip_scale"):
        if fields[name] != 1:
            added[name] = (f"{fields[name]:g}",)
    options: dict[str, Any] = {name: getattr(given, name) for name in given.__dataclass_fields__}
    options |= {name: (*options[name], *values) for name, values in added.items()}
    later = tuple(replace(span, start=max(0.0, span.start) + now, end=span.end + now) for span in fields["timeline"])
    kind: Any = LiveControls
    return kind(**options, later=later)


def _say(content: dict[str, Any]) -> dict[str, Any]:
    return {"text": _text(content, "text"), "segment": _name(content, "segment")}


def _interrupt(content: dict[str, Any]) -> dict[str, Any]:
    return {"segment": _name(content, "segment")}


def _controls(content: dict[str, Any]) -> dict[str, Any]:
    gaze = content.get("gaze")
    if isinstance(gaze, list) and len(gaze) == 2:
        x, y = (_finite(value, "gaze", -45, 45) for value in gaze)
        gaze = f"{x:g},{y:g}"
    elif gaze not in (None, "camera", "free"):
        raise AvatarError('The field "gaze" is not understood.', fix='Send "camera", "free" or [x, y] in degrees.')
    return {
        "emotion": _emotion(content), "blink": _blink(content), "timeline": _timeline(content),
        "strength": _number(content, "strength", 0, 1.5, 0.7),
        "pose": _one_of(content, "pose", ("", *POSES)), "gaze": gaze,
        "pose_scale": _number(content, "pose_scale", 0, 3, 1), "lip_scale": _number(content, "lip_scale", 0, 3, 1),
    }  # fmt: skip


def _emotion(content: dict[str, Any]) -> str:
    """One emotion, or a mix as the option takes it."""
    value = content.get("emotion", "")
    if isinstance(value, str) and value in ("", *EMOTIONS):
        return value
    if not isinstance(value, str) or len(value) > MOST_NAME or not set(value) & set(":+/"):
        raise AvatarError('The field "emotion" is not understood.', fix=f"Send {_list(tuple(EMOTIONS))}, or nothing.")
    Mix.parse(value)
    return value


def _blink(content: dict[str, Any]) -> str:
    """Blinks per minute, as text; empty: as started."""
    value = content.get("blink", "")
    if value in ("", "own", None):
        return value or ""
    return f"{_finite(value, 'blink', 0, 60):g}"


def _timeline(content: dict[str, Any]) -> list[Span]:
    """Timed controls, in seconds from now."""
    entries = content.get("timeline", [])
    if not isinstance(entries, list) or len(entries) > MOST_SPANS:
        raise AvatarError(f'The field "timeline" is no list of at most {MOST_SPANS} spans.')
    spans = spans_of(entries, 'The field "timeline"')
    for span in spans:
        if span.control == "pose" and span.value not in POSES:  # a name from a message never becomes a path
            raise AvatarError('A pose in the field "timeline" is not understood.', fix=f"Send {_list(POSES)}.")
    return spans


def _view(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "azimuth": _number(content, "azimuth", -180, 180, 0), "elevation": _number(content, "elevation", -90, 90, 0),
        "zoom": _number(content, "zoom", *ZOOM, 1),
    }  # fmt: skip


def _face(content: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(content.get("beyond", False), bool):
        raise AvatarError('The field "beyond" is neither true nor false.')
    return {name: _number(content, name, *bounds, 0) for name, bounds in RANGES.items()} | {
        "beyond": content.get("beyond", False)
    }


def _echo(content: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(content.get("on"), bool):
        raise AvatarError('The field "on" is neither true nor false.')
    return {"on": content["on"]}


def _ping(content: dict[str, Any]) -> dict[str, Any]:
    return {"at": _number(content, "at", 0, 1e18, 0)}


def _shown(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "pts": _number(content, "pts", 0, 1e9, 0), "audio_delay": _number(content, "audio_delay", -10, 10, 0),
        "sent": _number(content, "sent", 0, 1e18, 0),
    }  # fmt: skip


_READERS = {
    "say": _say, "ask": _say, "listen": _echo, "interrupt": _interrupt, "controls": _controls, "view": _view,
    "face": _face, "echo": _echo, "attend": _echo, "ping": _ping, "shown": _shown,
}  # fmt: skip


def _text(content: dict[str, Any], field: str) -> str:
    value = content.get(field)
    if not isinstance(value, str):
        raise AvatarError(f'The field "{field}" is missing, or no text.')
    return value.encode("utf-8", "replace").decode()


def _name(content: dict[str, Any], field: str) -> str:
    value = content.get(field, "")
    if not isinstance(value, str) or len(value) > MOST_NAME or (value and not can_be_shown(value)):
        raise AvatarError(f'The field "{field}" is no name of at most {MOST_NAME} characters.')
    if value == MICROPHONE:
        raise AvatarError(f'A segment of the name "{value}" is the microphone.', fix="Choose another name.")
    return value


def _one_of(content: dict[str, Any], field: str, known: tuple[str, ...]) -> str:
    value = content.get(field, "")
    if value not in known:
        raise AvatarError(f'The field "{field}" is not understood.', fix=f"Send {_list(known[1:])}, or nothing.")
    return value


def _number(content: dict[str, Any], field: str, low: float, high: float, default: float) -> float:
    return _finite(content.get(field, default), field, low, high)


def _finite(value: Any, field: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise AvatarError(f'The field "{field}" is no number.')
    if not low <= value <= high:  # infinite as well, and whole numbers that no float holds
        raise AvatarError(f'The field "{field}" is out of range.', fix=f"It goes from {low:g} to {high:g}.")
    return float(value)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
