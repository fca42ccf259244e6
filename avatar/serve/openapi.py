"""The OpenAPI description of the HTTP API."""

from __future__ import annotations

from typing import Any

from avatar import __version__

_SESSION = {"name": "session", "in": "path", "required": True, "schema": {"type": "string"},
            "description": "Name of the session, from its `hello` message or the answer to its offer."}  # fmt: skip
_SEGMENT = {
    "type": "string",
    "maxLength": 64,
    "description": "Name of the segment; a second one of it changes nothing.",
}


def description() -> dict[str, Any]:
    """The description, version 3.1."""
    say = {"text": {"type": "string"}, "segment": _SEGMENT}
    view = {name: {"type": "number"} for name in ("azimuth", "elevation", "zoom")}
    controls = {
        "emotion": {"type": "string"}, "strength": {"type": "number"}, "pose": {"type": "string"},
        "gaze": {"description": "camera, free, or [x, y] in degrees"}, "pose_scale": {"type": "number"},
        "lip_scale": {"type": "number"}, "blink": {"description": "blinks per minute, or own"},
        "timeline": {"type": "array", "items": {"type": "object"},
                     "description": "timed controls {control, value, start, end, fade}, in seconds from now"},
    }  # fmt: skip
    offer = {name: {"type": "string"} for name in ("sdp", "type", "pc_id")} | {"restart_pc": {"type": "boolean"}}
    candidates = {"pc_id": {"type": "string"}, "candidates": {"type": "array", "items": {"type": "object"}}}
    audio = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
    query = {"name": "segment", "in": "query", "required": False, "schema": _SEGMENT}
    session = "/api/sessions/{session}"
    return {
        "openapi": "3.1.0",
        "info": {"title": "avatar serve", "version": __version__},
        "security": [{"token": []}, {}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/healthz": {"get": _operation("Say whether the server runs.")},
            "/metrics": {"get": _operation("Give counters and times of stages as Prometheus text.")},
            "/api/avatars": {"get": _operation("List the avatars, and how many places are free.")},
            "/api/ice": {"get": _operation("Give the STUN and TURN servers for a peer connection.")},
            "/api/offer": {
                "post": _operation("Open a WebRTC session, or renegotiate it.", _json(offer)),
                "patch": _operation("Add ICE candidates to a session.", _json(candidates)),
            },
            f"{session}/text": {"post": _operation("Say a text.", _json(say), _SESSION)},
            f"{session}/ask": {"post": _operation("Ask the agent in writing.", _json(say), _SESSION)},
            f"{session}/audio": {"post": _operation("Say an audio file of at most 20 MiB.", audio, _SESSION, query)},
            f"{session}/interrupt": {
                "post": _operation("Stop what is said; tells what was played.", _json({"segment": _SEGMENT}), _SESSION)
            },
            f"{session}/controls": {"post": _operation("Set emotion, gaze and motion.", _json(controls), _SESSION)},
            f"{session}/view": {"post": _operation("Move the camera, in degrees.", _json(view), _SESSION)},
        },
    }


def _json(properties: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"type": "object", "properties": properties}}}


def _operation(summary: str, content: dict[str, Any] | None = None, *parameters: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": "Done."}, "401": {"description": "The token is missing or wrong."}}
    if content is not None:
        answers["422"] = {"description": "The request is not understood; the answer says why."}
        answers["503"] = {"description": "The server is full; Retry-After says when to try again."}
    body = {} if content is None else {"requestBody": {"content": content}}
    return {"summary": summary, "responses": answers, "parameters": list(parameters), **body}
