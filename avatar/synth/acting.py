"""What the synthetic person does: phones become lip shapes, the head moves, the eyes blink and look around."""

from __future__ import annotations

import numpy as np

from avatar.geometry.smoothstep import smooth
from avatar.motion.arkit import ARKIT, INDEX
from avatar.synth.speech import BILABIAL, RATE, Phone, Speech, smoothed

_STEP = 100  # Hz at which lips are planned

# Lip shape per phone: coefficient to target. Names without a side are set on both sides.
_VISEMES: dict[str, dict[str, float]] = {
    "": {"mouthSmile": 0.05},
    "ɑ": {"jawOpen": 0.48, "mouthLowerDown": 0.30, "mouthUpperUp": 0.10},
    "æ": {"jawOpen": 0.40, "mouthStretch": 0.60, "mouthLowerDown": 0.40, "mouthUpperUp": 0.45},
    "ɛ": {"jawOpen": 0.28, "mouthStretch": 0.45, "mouthLowerDown": 0.45, "mouthUpperUp": 0.35},
    "ɪ": {"jawOpen": 0.16, "mouthStretch": 0.45, "mouthSmile": 0.20, "mouthLowerDown": 0.50, "mouthUpperUp": 0.40},
    "i": {"jawOpen": 0.10, "mouthStretch": 0.75, "mouthSmile": 0.45, "mouthLowerDown": 0.65, "mouthUpperUp": 0.65},
    "ə": {"jawOpen": 0.22, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10},
    "ɔ": {"jawOpen": 0.36, "mouthFunnel": 0.80, "mouthPucker": 0.10},
    "ʊ": {"jawOpen": 0.15, "mouthFunnel": 0.65, "mouthPucker": 0.35},
    "u": {"jawOpen": 0.08, "mouthFunnel": 0.15, "mouthPucker": 0.95},
    "ɹ": {"jawOpen": 0.10, "mouthFunnel": 0.70, "mouthPucker": 0.20},
    "p": {"mouthPress": 0.60},
    "f": {"jawOpen": 0.03, "mouthUpperUp": 0.50, "mouthPress": 0.15},
    "θ": {"jawOpen": 0.12, "mouthLowerDown": 0.40, "mouthUpperUp": 0.25, "tongueOut": 0.40},
    "t": {"jawOpen": 0.08, "mouthLowerDown": 0.45, "mouthUpperUp": 0.30},
    "ʃ": {"jawOpen": 0.06, "mouthFunnel": 1.00},
    "k": {"jawOpen": 0.18, "mouthLowerDown": 0.20, "mouthUpperUp": 0.10},
    "w": {"jawOpen": 0.04, "mouthPucker": 1.00},
    "j": {"jawOpen": 0.10, "mouthSmile": 0.40, "mouthStretch": 0.30, "mouthLowerDown": 0.35, "mouthUpperUp": 0.25},
}
_SAME = {
    "a": "ɑ", "ɒ": "ɑ", "ʌ": "ə", "ɐ": "ə", "ᵊ": "ə", "ᵻ": "ɪ", "e": "ɛ", "o": "ɔ", "ɜ": "ɹ", "ɚ": "ɹ", "r": "ɹ",
    "b": "p", "m": "p", "v": "f", "ð": "θ", "d": "t", "n": "t", "l": "t", "s": "t", "z": "t", "T": "t", "ɾ": "t",
    "ʔ": "k", "ʒ": "ʃ", "ʧ": "ʃ", "ʤ": "ʃ", "ɡ": "k", "g": "k", "ŋ": "k",
}  # fmt: skip
_DIPHTHONGS = {"A": "ɛi", "I": "ɑɪ", "W": "ɑʊ", "Y": "ɔɪ", "O": "ɔu", "Q": "əu"}
# How firmly a sound insists on its shape while its neighbours blend in.
_FIRM = {"w": 2.0, "f": 2.5, "ʃ": 1.8, "u": 1.6, "p": 1.5, "t": 0.7, "k": 0.5, "h": 0.15, "": 1.0}
_OPENING = ("jawOpen", "mouthFunnel", "mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft",
            "mouthLowerDownRight", "mouthStretchLeft", "mouthStretchRight", "tongueOut")  # fmt: skip


def lips(speech: Speech, times: np.ndarray) -> np.ndarray:
    """Mouth coefficients of a speech.

    Shapes blend by dominance: a weighted running mean of the targets over some 100 ms (after Cohen and Massaro 1993).
    Afterwards every p, b and m is sealed exactly: nothing opens the lips.

    Args:
        speech: Audio with phone times.
        times: [T] seconds.

    Returns:
        float64 [T, 52], 0 to 1.
    """
    grid = np.arange(int(np.ceil(speech.seconds * _STEP)) + 2) / _STEP
    target, weight = np.zeros((len(grid), len(ARKIT))), np.ones(len(grid))
    weight *= 1e-3
    for phone in _parts(speech.phones):
        inside = (grid >= phone.start) & (grid < phone.end)
        shape = _shape(phone.symbol)
        target[inside], weight[inside] = shape, _FIRM.get(_SAME.get(phone.symbol, phone.symbol), 1.0)
    loud = _loudness(speech, grid)
    target[:, INDEX["jawOpen"]] *= 0.90 + 0.40 * loud
    kernel = np.exp(-0.5 * (np.arange(-16, 17) / 4.6) ** 2)
    total = smoothed(weight, kernel)
    smooth = np.stack([smoothed(c * weight, kernel) for c in target.T], 1) / total[:, None]
    seal = _seal(speech.phones, times)
    out = np.stack([np.interp(times, grid, c) for c in smooth.T], 1)
    for name in _OPENING:
        out[:, INDEX[name]] *= 1 - seal
    for name, amount in (("mouthPressLeft", 0.60), ("mouthPressRight", 0.60)):
        out[:, INDEX[name]] = np.maximum(out[:, INDEX[name]], seal * amount)
    return np.clip(out, 0, 1)


def _parts(phones: tuple[Phone, ...]) -> list[Phone]:
    """Diphthongs become their two halves."""
    out: list[Phone] = []
    for p in phones:
        if p.symbol in _DIPHTHONGS:
            middle = p.start + 0.55 * (p.end - p.start)
            first, second = _DIPHTHONGS[p.symbol]
            out += [Phone(first, p.start, middle), Phone(second, middle, p.end)]
        else:
            out.append(p)
    return out


def _shape(symbol: str) -> np.ndarray:
    out = np.zeros(len(ARKIT))
    for name, value in _VISEMES.get(_SAME.get(symbol, symbol), {"jawOpen": 0.15}).items():
        for full in (name,) if name in INDEX else (f"{name}Left", f"{name}Right"):
            out[INDEX[full]] = value
    return out


def _loudness(speech: Speech, grid: np.ndarray) -> np.ndarray:
    """0 to 1: speech loudness relative to the loudest part, smoothed over 80 ms."""
    hop = RATE // _STEP
    count = len(grid)
    padded = np.zeros(count * hop)
    padded[: min(len(speech.samples), len(padded))] = speech.samples[: len(padded)]
    rms = np.sqrt((padded.reshape(count, hop) ** 2).mean(1))
    rms = smoothed(rms, np.hanning(11) / np.hanning(11).sum())
    return np.clip(rms / max(np.percentile(rms, 98), 1e-6), 0, 1)


def _seal(phones: tuple[Phone, ...], times: np.ndarray) -> np.ndarray:
    """[T] 1 while the lips must touch: all of m, the closure of p and b; 40 ms ramps around it."""
    out = np.zeros(len(times))
    for phone in phones:
        if phone.symbol in BILABIAL:
            end = phone.end if phone.symbol == "m" else min(phone.end, phone.start + 0.075)
            end = max(min(end, phone.start + 0.16), phone.start + 0.045)  # at least one frame at 25 per second
            outside = np.maximum(phone.start - times, times - end) / 0.045
            out = np.maximum(out, 0.5 + 0.5 * np.cos(np.pi * np.clip(outside, 0, 1)))
    return out


def smooth_noise(count: int, fps: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """[count] band-limited noise that wanders over about ``seconds``, within -1 to 1 and filling most of it."""
    sigma = seconds * fps / 2.5
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    noise = np.convolve(rng.standard_normal(count + 2 * reach), kernel, "valid")
    noise -= noise.mean() if count > 4 * sigma else 0
    return np.tanh(noise / (1.3 * np.sqrt((kernel**2).sum())))


def blinks(count: int, fps: float, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """[count] lid closure 0 to 1, and the seconds at which the eyes are fully closed."""
    times, out, centres = np.arange(count) / fps, np.zeros(count), []
    at = rng.uniform(0.6, 1.6)
    while at < count / fps - 0.3:
        since = times - at
        closing = np.clip(1 + since / 0.09, 0, 1)
        opening = np.clip(1 - (since - 0.05) / 0.17, 0, 1)
        shape = np.minimum(closing, opening)
        out = np.maximum(out, smooth(shape))
        centres.append(float(at + 0.02))
        at += rng.uniform(1.8, 4.5)
    return out, centres
