"""The files of a web folder: the one place that says what `avatar export --format web` writes and `player.js` reads.

    index.html           a page with one <avatar-player>
    player.js            ES module: the element and the engine
    three-spark.js       the avatar in a scene of three.js with Spark; playcanvas.js in one of PlayCanvas
    avatar.json          manifest, below
    avatar.bin           the Gaussians
    background.webp      behind the person
    clips/NAME.bin       what the avatar does in a clip
    clips/NAME.opus|m4a  its audio, if it has any; a browser takes the first one that it can play
    speech.bin           with `--speech-input`: what hears, and moves the lips; LICENSE-whisper.txt belongs to it
    speech.js            the code for it, which runs in a worker
    order.bin            for `--add` only: which Gaussian of the model each one is; players do not read it
    package.json         makes the folder an npm package; README.md says how to use it
    *.json.js, *.bin.js, speech.js.js
                         the same files once more as `avatarFile(name, base64)`: browsers let a page that was opened
                         from disk load scripts, images and audio, but fetch nothing

A `.bin` is a gzip of a safetensors file: eight bytes of length, a JSON header, arrays. Planes are channel-major, so
that numbers that look alike stand together. N Gaussians, the first K of which a face moves; M modes; T frames.

avatar.bin
    position u16 [3, N], position_range f32 [2, 3]   low + value / 65535 * (high - low), canonical centimetres
    scale    u8  [3, N], scale_range f32 [2]         low + value / 255 * (high - low), log centimetres
    color    u8  [3, N], color_range f32 [2]         the same, RGB
    opacity  u8  [N]                                 (value + 0.5) / 256; a change is added to its logit
    weight   u8  [N]                                 skinning weight times 255: 255 follows the head, 0 the torso
    rotation i8  [4, N]                              wxyz times 127, to be normalised
    mode     i8  [M, 10, K], mode_step f32 [M, 10]   value * step / gain * coefficient is added to attribute 0..9:
                                                     position 3, log scale 3, opacity logit 1, color 3
    gain     u8  [K]                                 2 ** ((value - 128) / 16): steps are finer where it shows more
order.bin
    order    u32 [N]                                 index into the Gaussians of the model
clips/NAME.bin
    coefficient i16 [M, T], coefficient_step f32 [M] each row is a difference from the frame before; times the step
    pose f32 [12, T]     head rotation (axis-angle), head translation, torso rotation, torso translation
    warp i16 [132, T], warp_step f32 [1]             torso warp as `avatar.geometry.warp` has it, differences as above
speech.bin                                           C lip channels, I inputs, S examples, L frames
    conv1.*, conv2.*, position, layers.*             the front of Whisper as `avatar.audio.encoders.whisper` has it
    input_mean, input_std [F], basis [F, D], weights [R, A], correction [R, C], closure [R, 1], matrix [A, C],
    bias, rest, gain, direction, opening [C]         `SharedSpeech` and its prior; of the channels, those of the lips
    base f32 [I, L]                                  face channels, gaze and head rotation under the lips: a loop
    pose, warp, warp_step                            its head and torso, as in a clip
    face_unit f32 [4, I]                             mean, scale, low and high: units are (input - mean) * scale
    face_linear [I + 1, M], face_example [S, I], face_weight [S, M]
                                                     coefficients: units, 1 times linear, plus the examples' weights
                                                     times exp(-d^2 / (2 width^2)), d from the units within low, high

avatar.json
    format, name, fps, model (SHA-256 of the model), gaussians, digitalSourceType (IPTC: made by a trained model)
    camera: width, height, focal, cx, cy (pixels), eps2d (square pixels)
    pivot [3], limits {left, right, down, up}: the point that views turn around, and the good ones in degrees
    skinning: head_rotation, head_translation, torso_pivot [3], warp_box [2][2], warp_grid [rows, columns]
    background, clips: [{name, title, file, frames, audio: [files]}]
    speech: {file, code, fps, encoder {window, hop, ahead, rate}, channels, behind, ahead, pause, silence, gap,
             look_ahead, width, lips [C], frames, back}   lips: which inputs the channels are; back: follows the loop
    controls: [{name, title, low, high, coefficients [M]}]   added to those of a clip, times the slider

What the numbers do, frame by frame, is `avatar.methods.gaussian.playback`: change, warp, skinning, projection, blending
back to front by the depth of the means, alpha cut at 1/255.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from avatar.errors import AvatarError

FORMAT = "avatar-web-1"
MANIFEST, GAUSSIANS, ORDER, BACKGROUND, CLIPS = "avatar.json", "avatar.bin", "order.bin", "background.webp", "clips"
SPEECH, SPEECH_CODE, SPEECH_LICENCE = "speech.bin", "speech.js", "LICENSE-whisper.txt"
TWIN = ".js"  # what is added to a file's name for the script that holds it
_GZIP_LEVEL = 9
_MOST_BYTES = 2**28  # of a file that is read back, unpacked

Arrays = dict[str, np.ndarray]


def pack(arrays: Arrays) -> bytes:
    """The bytes of a `.bin` file; the same arrays always give the same bytes."""
    return gzip.compress(
        save({name: np.ascontiguousarray(array) for name, array in arrays.items()}), _GZIP_LEVEL, mtime=0
    )


def unpack(path: Path) -> Arrays:
    """Read a `.bin` file.

    Raises:
        AvatarError: It is missing or damaged.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError
        return load(data)
    except (OSError, EOFError, ValueError, SafetensorError):
        raise AvatarError(f"{path} is missing or damaged.", fix="Export the folder again, with --overwrite.") from None


def write_twice(folder: Path, name: str, data: bytes) -> None:
    """Write a file, and beside it the script that brings it to a page which was opened from disk."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    encoded = base64.b64encode(data).decode()
    path.with_name(path.name + TWIN).write_text(f'avatarFile({json.dumps(name)},"{encoded}");\n')


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write avatar.json."""
    write_twice(folder, MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def to_levels(values: np.ndarray, low: float, high: float, levels: int) -> np.ndarray:
    """Whole numbers 0 to ``levels`` of values in [low, high]; those outside become the nearest."""
    return np.rint((np.clip(values, low, high) - low) / max(high - low, 1e-12) * levels)


def from_levels(stored: np.ndarray, low: float, high: float, levels: int) -> np.ndarray:
    """Values float32 of what :func:`to_levels` gave."""
    return (low + stored.astype(np.float32) / levels * (high - low)).astype(np.float32)


def differences(steps: np.ndarray) -> np.ndarray:
    """Differences i16 along time of whole numbers [C, T], which a reader sums up, modulo 2^16."""
    return np.diff(steps.astype(np.int64), axis=1, prepend=0).astype(np.int16)
