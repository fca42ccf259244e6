"""A voice with exact phone times: text in, samples and phones out.

Two voices. `neural` is the English voice inside the package hibari-tts; its network predicts how long every phone
lasts, and those durations are read out of the network, so the times are the very ones the audio was made from.
`buzz` needs nothing: a pulse train and noise through formant filters, robotic, but with exact times as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar.assets import protobuf
from avatar.errors import AvatarError

RATE = 24000
_LATE = 0.05  # seconds by which the neural voice's tokens lag its audio

_SPEED = 0.88  # a little slower than the voice's own pace: lips are seen at 25 frames per second

VOWELS = frozenset("AIWYOQiuɑɔəɛɜɪʊʌæᵊaɒᵻɐ")
BILABIAL = frozenset("pbm")
_PAUSES = frozenset(';:,.!?—…()"“”')


@dataclass(frozen=True)
class Phone:
    """One speech sound. ``symbol`` is IPA-like (the neural voice's alphabet), or "" for silence; times in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Mono float32 samples at `RATE` Hz and the phones in them, in order, without gaps."""

    samples: np.ndarray
    phones: tuple[Phone, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def speak(text: str, voice: str = "auto", seed: int = 0) -> Speech:
    """Say a text.

    Args:
        text: English.
        voice: "neural", "buzz", or "auto": neural where hibari-tts is installed, else buzz.
        seed: Fixes the noise in the audio; the phone times do not depend on it.

    Raises:
        AvatarError: The voice is unknown or not installed, or the text has nothing to say.
    """
    if voice not in ("auto", "neural", "buzz"):
        raise AvatarError(f"There is no voice '{voice}'.", fix="Choose auto, neural or buzz.")
    if voice == "auto":
        voice = "neural" if _neural_installed() else "buzz"
    sentences = list((_neural if voice == "neural" else _buzz)(text, seed))
    if not any(p.symbol for s in sentences for p in s.phones):
        raise AvatarError(f"The text {text[:40]!r} has nothing to say.", fix="Give at least one English word.")
    return join(sentences)


def join(parts: list[Speech]) -> Speech:
    """Parts one after the other."""
    phones: list[Phone] = []
    offset = 0.0
    for part in parts:
        phones += [Phone(p.symbol, p.start + offset, p.end + offset) for p in part.phones]
        offset += part.seconds
    return Speech(np.concatenate([p.samples for p in parts]), tuple(phones))


def silence(seconds: float) -> Speech:
    """Nothing, for a while."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    return Speech(samples, (Phone("", 0.0, len(samples) / RATE),))


def smoothed(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[N] signal under an odd kernel, zero outside; unlike NumPy's "same" also where the kernel is the longer one."""
    return np.convolve(np.pad(signal, len(kernel) // 2), kernel, "valid")


# --- the neural voice ---------------------------------------------------------------------------------------------


def _neural_installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("hibari") is not None


def _neural(text: str, seed: int) -> Iterator[Speech]:
    if not _neural_installed():
        raise AvatarError("The neural voice is not installed.", fix="`pip install hibari-tts`, or use --voice buzz.")
    from hibari import dsp

    voice, session, durations_name = _neural_session()
    rng = np.random.default_rng(seed)
    for sentence in voice.phonemize(text):
        symbols = ["", *[c for c in sentence if c in voice.vocab], ""]
        ids = np.array([voice.ids(sentence)], np.int64)
        names = ["lh", "theta", "ln", "lr", "phi", "f0", durations_name]
        outputs = session.run(names, {"ids": ids, "speed": np.full(1, _SPEED, np.float32)})
        *spectra, durations = (np.asarray(o) for o in outputs)
        samples = dsp.synth(*(s[0] for s in spectra), rng=rng)
        edges = np.concatenate([[0], np.cumsum(np.ravel(durations))])
        edges = edges / edges[-1] * len(samples) / RATE  # durations count steps of 25 ms, whole and exact
        yield Speech(samples.astype(np.float32), tuple(_tidy(symbols, edges)))


@functools.cache
def _neural_session():
    import onnxruntime
    from hibari import Hibari

    voice = Hibari(threads=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = Path(voice.model_path).read_bytes()
    durations = _input_of(model, "CumSum")
    # Serialised protocol buffers merge when they are joined, so one more graph output is a suffix of the file.
    output = protobuf.delimited(1, durations.encode())
    model += protobuf.delimited(7, protobuf.delimited(12, output))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return voice, session, durations


def _tidy(symbols: list[str], edges: np.ndarray) -> Iterator[Phone]:
    """Phones of the network's tokens.

    Stress marks and spaces belong to the sound after them, a length mark to the one before. A token begins about
    50 ms after its sound does (measured on the energy dip of 70 stop closures), so everything moves up by that.
    """
    phones: list[Phone] = []
    start = 0.0
    for symbol, edge in zip(symbols, edges[1:], strict=True):
        end = max(start, float(edge) - _LATE) if symbol or edge < edges[-1] else float(edge)
        if symbol in "ˈˌ " and symbol:
            continue  # its time goes to the next phone
        name = "" if symbol in _PAUSES else symbol
        if phones and (symbol == "ː" or (not name and not phones[-1].symbol)):
            phones[-1] = Phone(phones[-1].symbol, phones[-1].start, end)
        else:
            phones.append(Phone(name, start, end))
        start = end
    return (p for p in phones if p.end > p.start)


def _input_of(model: bytes, operator: str) -> str:
    """Name of the first input of the only node of that type: the durations are what the graph accumulates."""
    graph = b"".join(payload for number, payload in protobuf.blobs(model) if number == 7)
    for number, node in protobuf.blobs(graph):
        if number == 1:
            parts = list(protobuf.blobs(node))
            if (4, operator.encode()) in parts:
                return next(value.decode() for key, value in parts if key == 1)
    raise AvatarError("This version of hibari-tts does not show its phone durations.", fix="Use --voice buzz.")


# --- the voice that needs nothing ---------------------------------------------------------------------------------

_LETTERS = (
    ("tion", "ʃən"), ("ch", "ʧ"), ("sh", "ʃ"), ("th", "θ"), ("ph", "f"), ("ng", "ŋ"), ("ck", "k"), ("qu", "kw"),
    ("wh", "w"), ("ee", "i"), ("ea", "i"), ("oo", "u"), ("ou", "W"), ("ow", "O"), ("ai", "A"), ("ay", "A"),
    ("oa", "O"), ("oi", "Y"), ("oy", "Y"), ("er", "əɹ"), ("ar", "ɑɹ"), ("or", "ɔɹ"), ("igh", "I"),
    ("a", "æ"), ("e", "ɛ"), ("i", "ɪ"), ("o", "ɑ"), ("u", "ʌ"), ("y", "i"), ("c", "k"), ("j", "ʤ"), ("r", "ɹ"),
    ("g", "ɡ"), ("q", "k"), ("x", "ks"),
)  # fmt: skip
# First three formants in Hz.
_FORMANTS = {
    "i": (280, 2250, 2900), "ɪ": (400, 1950, 2550), "ɛ": (550, 1800, 2500), "æ": (690, 1700, 2450),
    "ɑ": (730, 1100, 2450), "ɔ": (580, 850, 2450), "ʊ": (450, 1050, 2300), "u": (310, 870, 2250),
    "ʌ": (620, 1200, 2400), "ə": (500, 1450, 2450), "ɜ": (490, 1350, 1700), "a": (730, 1200, 2450),
    "ɹ": (320, 1150, 1600), "l": (360, 1100, 2600), "w": (300, 650, 2200), "j": (280, 2250, 3000),
    "m": (250, 1000, 2200), "n": (250, 1500, 2500), "ŋ": (250, 2000, 2700), "b": (250, 800, 2200),
    "d": (250, 1700, 2600), "ɡ": (250, 2000, 2500),
}  # fmt: skip
_GLIDES = {"A": "ɛi", "I": "ai", "W": "au", "Y": "ɔi", "O": "ɔu", "Q": "əu"}
_NOISE = {  # centre Hz, bandwidth Hz, level
    "s": (6500, 2500, 0.25), "z": (6500, 2500, 0.15), "ʃ": (3200, 1800, 0.28), "ʒ": (3200, 1800, 0.15),
    "ʧ": (3400, 1800, 0.3), "ʤ": (3200, 1800, 0.2), "f": (5000, 5000, 0.08), "v": (5000, 5000, 0.04),
    "θ": (5500, 5000, 0.07), "ð": (5500, 5000, 0.03), "h": (1500, 2500, 0.08), "t": (4500, 3000, 0.3),
    "k": (2200, 1500, 0.3), "p": (900, 1500, 0.25),
}  # fmt: skip
_VOICED = VOWELS | frozenset("ɹlwjmnŋbdɡzʒʤvð")
_SECONDS = {**dict.fromkeys("AIWYOQ", 0.18), **dict.fromkeys("pbtdkɡ", 0.08), **dict.fromkeys("szʃʧ", 0.11)}


def _spell(word: str) -> str:
    out, i = "", 0
    while i < len(word):
        for letters, phones in _LETTERS:
            if word.startswith(letters, i):
                out += phones
                i += len(letters)
                break
        else:
            out += word[i] if word[i] in "bdfhklmnpstvwz" else ""
            i += 1
    return out


def _buzz(text: str, seed: int) -> Iterator[Speech]:
    """Source and filter: harmonics weighted by formant resonances, band noise for the rest, per 5 ms step."""
    import re

    phones: list[Phone] = [Phone("", 0.0, 0.15)]
    for token in re.findall(r"[a-z]+|[.,;:!?]", text.lower().replace("'", "")):
        spelled = _spell(token) if token.isalpha() else ""
        if token.isalpha() and not spelled:
            continue
        for symbol in spelled or [""]:
            seconds = _SECONDS.get(symbol, 0.12 if symbol in VOWELS else 0.07) if symbol else 0.3
            phones.append(Phone(symbol, phones[-1].end, phones[-1].end + seconds))
    if len(phones) == 1:
        return
    phones.append(Phone("", phones[-1].end, phones[-1].end + 0.15))
    yield Speech(_filter_bank(phones, np.random.default_rng(seed)), tuple(phones))


def _filter_bank(phones: list[Phone], rng: np.random.Generator) -> np.ndarray:
    step = RATE // 200
    total = round(phones[-1].end * RATE)
    times = np.arange(total // step + 1) * step / RATE
    formants = np.zeros((len(times), 3))
    voiced, noise = np.zeros(len(times)), np.zeros((len(times), 3))
    last = np.array(_FORMANTS["ə"], float)
    for phone in phones:
        inside = (times >= phone.start) & (times < phone.end)
        glide = _GLIDES.get(phone.symbol, phone.symbol * 2)
        if glide and glide[0] in _FORMANTS:
            mix = np.clip((times[inside] - phone.start) / (phone.end - phone.start), 0, 1)[:, None]
            last = np.array(_FORMANTS[glide[1]], float)
            formants[inside] = np.array(_FORMANTS[glide[0]]) * (1 - mix) + last * mix
        else:
            formants[inside] = last
        if phone.symbol in _VOICED:
            voiced[inside] = 1.0 if phone.symbol in VOWELS else 0.35
        if phone.symbol in _NOISE:
            noise[inside] = _NOISE[phone.symbol]
            if phone.symbol in "ptk":  # closed, then a burst
                noise[inside & (times < phone.end - 0.03), 2] = 0
    smooth = np.hanning(9) / np.hanning(9).sum()
    formants = np.stack([np.convolve(np.pad(f, 4, "edge"), smooth, "valid") for f in formants.T], 1)
    voiced = smoothed(voiced, smooth)
    pitch = 190 + 25 * np.sin(2 * np.pi * times / 1.7) - 12 * times / times[-1]
    at = np.arange(total) / step
    phase = np.cumsum(np.interp(at, np.arange(len(times)), pitch)) / RATE
    out = np.zeros(total)
    for harmonic in range(1, 24):
        distance = (harmonic * pitch[:, None] - formants) / np.array([90, 130, 190])
        gain = (np.array([1.0, 0.6, 0.3]) / (1 + distance**2)).sum(1) * voiced
        out += np.interp(at, np.arange(len(times)), gain) * np.sin(2 * np.pi * harmonic * phase)
    hiss = rng.standard_normal(total)
    spectrum, frequency = np.fft.rfft(hiss), np.fft.rfftfreq(total, 1 / RATE)
    for centre, width, _ in set(_NOISE.values()):
        active = (noise[:, 0] == centre) & (noise[:, 1] == width)
        if active.any():
            band = np.fft.irfft(spectrum * np.exp(-(((frequency - centre) / width) ** 2)), total)
            level = smoothed(np.where(active, noise[:, 2], 0), smooth)
            out += band * np.interp(at, np.arange(len(times)), level) * 3
    return (0.6 * out / max(np.abs(out).max(), 1e-6)).astype(np.float32)
