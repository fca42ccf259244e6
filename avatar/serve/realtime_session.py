"""What a client of the realtime door asked for with ``session.update``, and the session as it is shown to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from avatar.audio.turns import HANGOVER_SECONDS
from avatar.provenance.source_type import TRAINED
from avatar.serve.realtime_events import RATES, Mistake, number_field, object_field, text_field

VAD_TYPES = ("server_vad", "semantic_vad", "azure_semantic_vad", "azure_semantic_vad_multilingual")
MOST_INSTRUCTIONS = 8000  # characters


@dataclass
class RealtimeSession:
    """How one client wants to be served.

    Attributes:
        name: Of the session.
        character: Which avatar it is.
        fps: Frames per second of the avatar.
        size: Width and height of its image.
        ice_servers: STUN and TURN servers for the client.
        older: Whether the client gets events under their older names.
        input_rate: Hz of the audio that comes.
        vad: Whether turns are detected; otherwise the client commits audio.
        hangover: Seconds of silence that end a turn.
        create, interrupt: Whether the end of a turn asks for an answer, and its begin interrupts.
        instructions: For the agent; empty: those of the server.
        shapes: Whether face coefficients are sent.
        video: Whether images are sent over this WebSocket.
        audit: Whether audio is sent over it, too, where it goes by WebRTC.
    """

    name: str
    character: str
    fps: float
    size: tuple[int, int]
    ice_servers: tuple[dict[str, str], ...] = ()
    older: bool = False
    input_rate: int = RATES[-1]
    vad: bool = True
    hangover: float = HANGOVER_SECONDS
    create: bool = True
    interrupt: bool = True
    instructions: str = ""
    shapes: bool = False
    video: bool = False
    audit: bool = False

    def update(self, fields: dict[str, Any]) -> dict[str, float]:
        """Take the field ``session`` of an update; what is not in it stays, and nothing changes where it is wrong.

        Returns:
            The view that was asked for: ``azimuth``, ``elevation`` and ``zoom``; empty: none was.

        Raises:
            Mistake: It is not understood, or cannot be done.
        """
        new = RealtimeSession(**vars(self))
        view = new._take(fields)
        vars(self).update(vars(new))
        return view

    def _take(self, fields: dict[str, Any]) -> dict[str, float]:
        if fields.get("type") not in (None, "realtime"):
            raise Mistake("Only sessions of the type realtime are served.", param="session.type")
        if "type" not in fields and {"modalities", "input_audio_format", "output_audio_format"} & set(fields):
            self.older = True
        for name in ("output_modalities", "modalities"):
            wanted = fields.get(name)
            if wanted is not None and (not isinstance(wanted, list) or "audio" not in wanted):
                raise Mistake(
                    "An avatar answers with audio.", param=f"session.{name}", fix=f'Send "{name}": ["audio"].'
                )
        if fields.get("instructions") is not None:
            self.instructions = text_field(fields, "instructions", MOST_INSTRUCTIONS, "session.instructions")
        audio = object_field(fields, "audio", "session.audio")
        heard, said = object_field(audio, "input", "session.audio.input"), object_field(audio, "output")
        self._take_formats(fields, heard, said)
        for place in (fields, heard):
            if "turn_detection" in place:
                self._take_turns(place["turn_detection"])
        outputs = object_field(fields, "animation", "session.animation").get("outputs")
        if outputs is not None:
            if not isinstance(outputs, list) or any(output != "blendshapes" for output in outputs):
                raise Mistake(
                    "This animation output is unknown.", param="session.animation.outputs", fix='Send ["blendshapes"].'
                )
            self.shapes = bool(outputs)
        return self._take_avatar(object_field(fields, "avatar", "session.avatar"))

    def _take_formats(self, fields: dict[str, Any], heard: dict[str, Any], said: dict[str, Any]) -> None:
        for name in ("input_audio_format", "output_audio_format"):
            if fields.get(name) not in (None, "pcm16"):
                raise Mistake("The audio format is unknown.", param=f"session.{name}", fix='Send "pcm16".')
        if fields.get("input_audio_sampling_rate") is not None:
            self.input_rate = _rate(fields["input_audio_sampling_rate"], "session.input_audio_sampling_rate", RATES)
        for place, name, rates in ((heard, "input", RATES), (said, "output", RATES[-1:])):
            form = object_field(place, "format", f"session.audio.{name}.format")
            if not form:
                continue
            if form.get("type") != "audio/pcm":
                raise Mistake(
                    "The audio format is unknown.", param=f"session.audio.{name}.format", fix='Send "audio/pcm".'
                )
            rate = _rate(form.get("rate", RATES[-1]), f"session.audio.{name}.format.rate", rates)
            if name == "input":
                self.input_rate = rate

    def _take_turns(self, wanted: Any) -> None:
        self.vad = wanted is not None
        if wanted is None:
            return
        if not isinstance(wanted, dict) or wanted.get("type") not in VAD_TYPES:
            raise Mistake(
                "This turn detection is unknown.", param="session.turn_detection.type", fix="Send server_vad."
            )
        self.hangover = number_field(wanted, "silence_duration_ms", 100, 10_000, 1000 * HANGOVER_SECONDS) / 1000
        self.create = wanted.get("create_response") is not False
        self.interrupt = wanted.get("interrupt_response") is not False

    def _take_avatar(self, wanted: dict[str, Any]) -> dict[str, float]:
        if not wanted:
            return {}
        name = wanted.get("character") or self.character
        if name != self.character:
            raise Mistake(
                f"This session's avatar is {self.character}.", param="session.avatar.character",
                fix="Choose another one when you connect: /v1/realtime?avatar=NAME.",
            )  # fmt: skip
        protocol = wanted.get("output_protocol")
        if protocol not in (None, "webrtc", "websocket"):
            raise Mistake(
                "This output protocol is unknown.", param="session.avatar.output_protocol",
                fix="Send webrtc or websocket.",
            )  # fmt: skip
        if protocol is not None:
            self.video = protocol == "websocket"
        if wanted.get("output_audit_audio") is not None:
            self.audit = wanted["output_audit_audio"] is True
        scene = object_field(wanted, "scene", "session.avatar.scene")
        if not scene:
            return {}
        turned = {axis: number_field(scene, axis, -math.pi, math.pi, 0.0) for axis in ("rotation_x", "rotation_y")}
        return {
            "azimuth": -math.degrees(turned["rotation_y"]), "elevation": math.degrees(turned["rotation_x"]),
            "zoom": number_field(scene, "zoom", 0.5, 3.0, 1.0),
        }  # fmt: skip

    def shown(self) -> dict[str, Any]:
        """The session as the client gets it."""
        turns = {
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
            "silence_duration_ms": round(1000 * self.hangover), "create_response": self.create,
            "interrupt_response": self.interrupt,
        } if self.vad else None  # fmt: skip
        common: dict[str, Any] = {
            "id": self.name, "object": "realtime.session", "model": self.character, "instructions": self.instructions,
            "tools": [], "tool_choice": "auto",
            "animation": {"outputs": ["blendshapes"] if self.shapes else [], "frame_rate": self.fps},
            "avatar": {
                "character": self.character, "customized": True, "ice_servers": [_azure(s) for s in self.ice_servers],
                "output_protocol": "websocket" if self.video else "webrtc", "output_audit_audio": self.audit,
                "video": {"resolution": {"width": self.size[0], "height": self.size[1]}},
                "digital_source_type": TRAINED,
            },
        }  # fmt: skip
        if self.older:
            return common | {
                "modalities": ["text", "audio"], "voice": "default", "input_audio_format": "pcm16",
                "input_audio_sampling_rate": self.input_rate, "output_audio_format": "pcm16",
                "input_audio_transcription": None, "turn_detection": turns, "temperature": 0.8,
                "max_response_output_tokens": "inf",
            }  # fmt: skip
        heard = {
            "format": {"type": "audio/pcm", "rate": self.input_rate}, "turn_detection": turns, "transcription": None,
            "noise_reduction": None,
        }  # fmt: skip
        said = {"format": {"type": "audio/pcm", "rate": RATES[-1]}, "voice": "default", "speed": 1.0}
        return common | {
            "type": "realtime", "output_modalities": ["audio"], "audio": {"input": heard, "output": said},
            "max_output_tokens": "inf", "truncation": "auto",
        }  # fmt: skip


def _rate(value: Any, param: str, known: tuple[int, ...]) -> int:
    if isinstance(value, bool) or value not in known:
        raise Mistake("This sample rate is not served.", param=param, fix=f"Send {' or '.join(map(str, known))}.")
    return int(value)


def _azure(server: dict[str, str]) -> dict[str, Any]:
    """An ICE server as Azure's clients take it: with a list of addresses."""
    return server | {"urls": [server["urls"]]}
