"""Reads models in CTranslate2's format, without that library: the front of Whisper's encoder is all that is needed."""

from __future__ import annotations

import numpy as np

WHISPER_LAYERS = 2
WHISPER_POSITIONS = 100  # rows of the longest window
_KINDS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def variables(data: bytes) -> dict[str, np.ndarray]:
    """Name to float32 array. The format: version, name and revision of the model, number of variables; then each.

    Raises:
        ValueError: The data ends early, or is something else.
    """
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(data):
            raise ValueError("the model ends early")
        return data[at - size : at]

    def number(size: int) -> int:
        return int.from_bytes(take(size), "little")

    def text() -> str:
        return take(number(2))[:-1].decode()

    number(4)  # version of the format
    text()  # name of the model
    number(4)  # its revision
    raw: dict[str, np.ndarray] = {}
    for _ in range(number(4)):
        name = text()
        shape = [number(4) for _ in range(number(1))]
        kind = number(1)
        if kind not in _KINDS:
            raise ValueError(f"{name} has a type that is not known")
        raw[name] = np.frombuffer(take(number(4)), _KINDS[kind]).reshape(shape)
    out = {}
    for name, array in raw.items():
        scale = raw.get(f"{name}_scale")
        value = array.astype(np.float32)
        out[name] = value if scale is None else value / scale.reshape(-1, *[1] * (array.ndim - 1))
    return out


def whisper_front(data: bytes) -> dict[str, np.ndarray]:
    """The convolutions and first layers of a Whisper encoder, named as in `avatar.audio.encoders.whisper`.

    Matrices are 8-bit numbers with a scale per row (NAME and NAME:scale), vectors half floats.

    Args:
        data: A ``model.bin``.

    Raises:
        ValueError: It is not a Whisper model.
    """
    found = variables(data)
    parts = {"position": "position_encodings/encodings", "conv1.*": "conv1/*", "conv2.*": "conv2/*"}
    for i in range(WHISPER_LAYERS):
        for ours, theirs in (
            ("norm", "self_attention/layer_norm"), ("project", "self_attention/linear_0"),
            ("merge", "self_attention/linear_1"), ("norm2", "ffn/layer_norm"), ("widen", "ffn/linear_0"),
            ("narrow", "ffn/linear_1"),
        ):  # fmt: skip
            parts[f"layers.{i}.{ours}.*"] = f"layer_{i}/{theirs}/*"
    state: dict[str, np.ndarray] = {}
    try:
        for ours, theirs in parts.items():
            if not ours.endswith("*"):
                state[ours] = found[f"encoder/{theirs}"][:WHISPER_POSITIONS]
                continue
            names = ("gamma", "beta") if "layer_norm" in theirs else ("weight", "bias")
            for part, name in zip(("weight", "bias"), names, strict=True):
                state[ours.replace("*", part)] = found[f"encoder/{theirs.replace('*', name)}"]
    except KeyError as error:
        raise ValueError(f"the model has no {error}") from None
    packed: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if array.ndim == 1:
            packed[name] = array.astype(np.float16)
            continue
        scale = np.maximum(np.abs(array.reshape(len(array), -1)).max(1), np.float32(1e-8)) / np.float32(127)
        packed[f"{name}:scale"] = scale
        packed[name] = np.rint(array / scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
    return packed
