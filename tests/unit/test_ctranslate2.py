"""CTranslate2's format, and what is kept of a Whisper model in it."""

import struct

import numpy as np
import pytest

from avatar.assets.ctranslate2 import variables, whisper_front

KINDS = {"float32": 0, "int8": 1, "float16": 4}


def model(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a model with these variables."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        out += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", KINDS[array.dtype.name], array.nbytes) + array.tobytes()
    return out


def whisper(width: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"position_encodings/encodings": (150, width), "conv1/weight": (width, 80, 3), "conv1/bias": (width,),
              "conv2/weight": (width, width, 3), "conv2/bias": (width,)}  # fmt: skip
    for i in range(3):
        for norm in ("self_attention", "ffn"):
            shapes |= {f"layer_{i}/{norm}/layer_norm/{part}": (width,) for part in ("gamma", "beta")}
        matrices = {"self_attention/linear_0": (3, 1), "self_attention/linear_1": (1, 1), "ffn/linear_0": (4, 1),
                    "ffn/linear_1": (1, 4)}  # fmt: skip
        for name, (rows, columns) in matrices.items():
            shapes[f"layer_{i}/{name}/weight"] = rows * width, columns * width
            shapes[f"layer_{i}/{name}/bias"] = (rows * width,)
    return {f"encoder/{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_variables_are_read_and_scaled() -> None:
    half = np.array([[1, 2], [3, 4]], np.float16)
    small = np.array([[10, -20], [30, 40]], np.int8)
    found = variables(model({"half": half, "small": small, "small_scale": np.array([10, 2], np.float32)}))
    assert np.array_equal(found["half"], [[1, 2], [3, 4]])
    assert np.array_equal(found["small"], [[1, -2], [15, 20]])


def test_the_front_keeps_two_layers_within_the_8_bits() -> None:
    arrays = whisper()
    front = whisper_front(model(arrays))
    assert not any(".2." in name for name in front)
    scale = front["layers.1.widen.weight:scale"][:, None]
    real = arrays["encoder/layer_1/ffn/linear_0/weight"]
    assert np.abs(front["layers.1.widen.weight"] * scale - real).max() <= scale.max() / 2 + 1e-6
    assert front["layers.0.norm.weight"].dtype == np.float16
    assert front["position"].shape == (100, 8)


def test_what_is_no_whisper_model_is_refused() -> None:
    whole = model(whisper())
    with pytest.raises(ValueError, match="ends early"):
        whisper_front(whole[:-100])
    with pytest.raises(ValueError, match="has no"):
        whisper_front(model({"encoder/conv1/bias": np.zeros(8, np.float32)}))
