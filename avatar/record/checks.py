"""Whether a recording will do: one face, large enough and in the light, and a voice neither too quiet nor clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from avatar.audio.levels import frame_levels
from avatar.preprocess.landmarker import Face

State = Literal["good", "note", "bad"]
LEAST_FACE = 100  # pixels from forehead to chin; from there on the lips are tracked well
RIVAL = 0.5  # of the face's height, from which a second face counts
DARK, BRIGHT = 50.0, 225.0  # grey levels: median over the face
ONE_SIDED = 2.0  # times as bright as the other half of the face
QUIET_DB, FAINT_DB = -45.0, -35.0  # dBFS of the loud parts
NOISY_DB = 15.0  # that the loud parts are above the quiet ones, at least
CLIPPED_AT, CLIPPED_SHARE = 0.99, 2e-4  # of full scale, of the samples
_LEVEL_RATE = 25.0  # levels per second
_EDGE = 0.01  # of the image's side, by which landmarks may lie outside


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        name: Of the check.
        state: "bad": it cannot be used so.
        text: A sentence for people.
        value: The number behind it.
    """

    name: str
    state: State
    text: str
    value: float = 0.0


def look(image: np.ndarray, faces: list[Face]) -> list[Finding]:
    """Judge an image.

    Args:
        image: uint8 RGB [H, W, 3].
        faces: In it, largest first.
    """
    if not faces:
        grey = float(np.median(image))
        dark = " It is very dark: switch a light on." if grey < DARK / 2 else " Sit in front of the camera."
        return [Finding("face", "bad", f"No face is seen.{dark}", 0.0)]
    return [_face(image, faces), _light(image, faces[0])]


def _face(image: np.ndarray, faces: list[Face]) -> Finding:
    face, (high, wide) = faces[0], image.shape[:2]
    height = face.height
    if len(faces) > 1 and faces[1].height >= RIVAL * height:
        return Finding("face", "bad", "Two faces are seen. Only you may be in the image.", height)
    if height < LEAST_FACE:
        return Finding("face", "bad", f"Your face is only {height:.0f} pixels high, {LEAST_FACE} are needed. "
                       "Come closer to the camera.", height)  # fmt: skip
    x0, y0, x1, y1 = face.box
    if min(x0, wide - x1) < -_EDGE * wide or min(y0, high - y1) < -_EDGE * high:
        return Finding("face", "bad", "Your face is cut off. Move into the middle of the image.", height)
    return Finding("face", "good", f"One face, {height:.0f} pixels high.", height)


def _light(image: np.ndarray, face: Face) -> Finding:
    high, wide = image.shape[:2]
    x0, y0, x1, y1 = (round(float(v)) for v in face.box)
    part = image[max(0, y0) : max(1, min(high, y1)), max(0, x0) : max(1, min(wide, x1))].astype(np.float32)
    grey = part @ np.array([0.299, 0.587, 0.114], np.float32)
    level = float(np.median(grey))
    if level < DARK:
        return Finding("light", "bad", "It is too dark. Switch a light on in front of you.", level)
    if level > BRIGHT:
        return Finding("light", "bad", "It is too bright. Turn the light away from your face.", level)
    half = grey.shape[1] // 2
    sides = sorted(float(np.median(side)) for side in (grey[:, :half], grey[:, half:]) if side.size)
    if sides[-1] > ONE_SIDED * max(sides[0], 1.0):
        return Finding("light", "note", "The light comes from one side. A lamp in front of you is better.", level)
    return Finding("light", "good", "The light is good.", level)


def hear(samples: np.ndarray) -> list[Finding]:
    """Judge what the microphone gave.

    Args:
        samples: [N] 16 kHz mono, at the level at which they came.
    """
    count = max(1, int(len(samples) / 16000 * _LEVEL_RATE))
    levels = frame_levels([samples], count, _LEVEL_RATE)
    loud, quiet = (float(v) for v in np.percentile(levels, [95, 10]))
    clipped = float(np.mean(np.abs(samples) >= CLIPPED_AT)) if len(samples) else 0.0
    return [_level(loud), _clipping(clipped), _noise(loud - quiet)]


def _level(loud: float) -> Finding:
    if loud < QUIET_DB:
        return Finding("level", "bad", f"It is too quiet ({loud:.0f} dB). Come closer to the microphone or turn it up.",
                       loud)  # fmt: skip
    if loud < FAINT_DB:
        return Finding("level", "note", f"You are rather quiet ({loud:.0f} dB). Come closer to the microphone.", loud)
    return Finding("level", "good", f"The level is good ({loud:.0f} dB).", loud)


def _clipping(share: float) -> Finding:
    if share > CLIPPED_SHARE:
        return Finding("clipping", "bad", "It is too loud: the audio is clipped. Turn the microphone down.", share)
    return Finding("clipping", "good", "Nothing is clipped.", share)


def _noise(range_db: float) -> Finding:
    if range_db < NOISY_DB:
        return Finding("noise", "note", "There is noise, or you made no pause.", range_db)
    return Finding("noise", "good", "There is little noise.", range_db)


def worst(findings: list[Finding]) -> str:
    """The sentence of the first finding that is bad; empty where none is."""
    return next((finding.text for finding in findings if finding.state == "bad"), "")
