"""Shared speech network: one regression from speech to mouth for all people, which a person's own track makes personal.

A linear regression on features of a speech recogniser's first layers (`avatar.audio.encoders.whisper`) predicts the
mouth in units of the speaker's own rest and spread (`avatar.motion.mouth`). A `MouthNormalizer` turns that into the
mouth of one person. `avatar.audio2motion.shared_adaptation` corrects the regression by the person's own speech.

docs/notes/audio2motion.md says what the shipped prior was trained on, and how well it does on people it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.registry import build_encoder
from avatar.audio.encoders.whisper import WhisperEncoder
from avatar.audio.features import FrameFeatures, FrameFeatureStream, features_look_ahead
from avatar.audio.resampling import LinearResampler
from avatar.audio.vad import EARLY_SECONDS, VoiceActivityDetector
from avatar.audio2motion.base import VOICE_DB
from avatar.audio2motion.kernel import AHEAD, BEHIND, KernelRegression, moments_of
from avatar.audio2motion.lip_closure import LipClosure
from avatar.audio2motion.pauses import LONGEST_PAUSE, closed_mouth
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion import Motion
from avatar.motion.mouth import (
    ARTICULATION,
    CHANNELS,
    FACE,
    MouthNormalizer,
    mouth_channels,
    opening_weights,
    talking,
    with_mouth,
)

FORMAT = "avatar-shared-prior-1"
SPEECH_FORMAT = "avatar-shared-speech-1"
WEIGHTS = Path(__file__).with_name("prior.safetensors")
RATE = 25.0  # rows per second inside, whatever the avatar's rate is
GAIN = 1.25  # of a prior in units of speech: chosen on the development people, who then move as much as they do
_LIMIT = 6.0  # standard deviations of a feature
_MOST_ROWS = 1000  # before and after a moment, in what is read
PAUSES = (0.4, 0.6)  # seconds after which lips close in a pause; many people breathe in through the open mouth ...
SILENCE = 0.3  # ... and in silence
LEVEL = -16.0  # dBFS, of voices for a person whose own is not known: -12 to -24 do as well, 40 dB below it lips shut
EARLY = 0.16  # seconds before the sound at which lips part after a pause, where that much audio is known ...
_WAITS = 0.2  # ... because features wait for more than this; 0.2 s before the sound a pause must still be closed
_STREAMING_GAIN = 1.25  # rows with little look-ahead predict less movement: this restores it


@dataclass(frozen=True)
class SharedPrior:
    """The regression of all people.

    Attributes:
        encoder: Makes the features, at `RATE`.
        input_mean, input_std: [F].
        basis: [F, K] the directions in which features of speech vary most.
        weights: [R, A] of the regression from inputs to articulation, R = (behind + 1 + ahead) * K + 1.
        behind, ahead: Rows.
        gain: Restores the movement that a mean over possible mouths lacks.
        closure_weights: [R] of the head that predicts the closure probability on p, b, m; None: there is none.
        about: How it was trained; ``id`` says which one it is.
    """

    encoder: SpeechEncoder
    input_mean: Tensor
    input_std: Tensor
    basis: Tensor
    weights: Tensor
    behind: int
    ahead: int
    gain: float
    about: dict[str, Any] = field(default_factory=dict)
    closure_weights: Tensor | None = None

    @staticmethod
    def load(path: Path = WEIGHTS) -> SharedPrior:
        """The prior that comes with the package, or another.

        Raises:
            AvatarError: The file is missing, damaged, or of something else, or its encoder is not available.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise AvatarError(
                f"{path} is not an audio-to-motion prior of this version.",
                why=f"Its format is {metadata.get('format')!r}.",
            )
        return _unpack(path, tensors, metadata)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors, metadata = _pack(self)
        save_tensors(path, tensors, {"format": FORMAT, **metadata})

    def streaming(self) -> SharedPrior:
        """Return this prior with little look-ahead, 0.2 s at most, for five times the work.

        Features then see 0.04 to 0.12 s of audio after their time, instead of 0.2 to 0.6 s.
        """
        quick = WhisperEncoder(hop=0.08, ahead=0.04)
        parts = [quick if part.name == quick.name else part for part in self.encoder.parts]
        return replace(self, encoder=SpeechEncoder(parts), gain=_STREAMING_GAIN * self.gain)

    def inputs(self, features: Float[np.ndarray, "T F"]) -> Float[Tensor, "T R"]:
        """Inputs of the regression [T, R] for features [T, F] of consecutive rows."""
        return stack(project(features, self.input_mean, self.input_std, self.basis), self.behind, self.ahead)

    def gate(self, pause: float) -> VoiceActivityDetector:
        """Make the detector that closes the lips after ``pause`` seconds, for rows at `RATE`."""
        early = EARLY if features_look_ahead(self.encoder, RATE) > _WAITS else EARLY_SECONDS
        return VoiceActivityDetector(RATE, pause, ahead=0.0, silence=SILENCE, early=early)

    def person(self, motion: Motion, fps: float) -> SharedSpeech:
        """Make lips for a person of whom only a motion track is known; no audio is needed.

        Args:
            motion: Of the person, talking.
            fps: Of the avatar.

        Raises:
            AvatarError: Less than a second of the face was measured.
        """
        channels, valid = mouth_channels(motion), motion.valid.numpy()
        opening = channels[:, : len(FACE)] @ opening_weights()
        normalizer = MouthNormalizer.of(motion.map(valid=torch.from_numpy(talking(opening, valid, motion.fps))))
        rest = torch.from_numpy(closed_mouth(channels, np.ones(len(channels)), valid)).float()
        gain = torch.full((CHANNELS,), self.gain)
        return SharedSpeech(fps=fps, prior=self, normalizer=normalizer, rest=rest, gain=gain, voice_db=LEVEL)


def project(
    features: Float[np.ndarray, "T F"], mean: Float[Tensor, " F"], std: Float[Tensor, " F"], basis: Float[Tensor, "F K"]
) -> Float[Tensor, "T K"]:
    """[T, K] of features [T, F]."""
    return ((torch.from_numpy(features) - mean) / std).clamp(-_LIMIT, _LIMIT) @ basis


def stack(rows: Float[Tensor, "T K"], behind: int, ahead: int) -> Float[Tensor, "T R"]:
    """[T, (behind + 1 + ahead) * K + 1]: each row with those around it (the ends repeat), and a one."""
    padded = torch.cat([rows[:1].expand(behind, -1), rows, rows[-1:].expand(ahead, -1)])
    parts = [padded[i : i + len(rows)] for i in range(behind + 1 + ahead)]
    return torch.cat([*parts, torch.ones(len(rows), 1)], 1)


@dataclass
class SharedSpeech:
    """The shared prior speaking with one person's mouth; implements `avatar.audio2motion.base.AudioToMotion`.

    Attributes:
        fps: Frames per second of the motion.
        prior: The regression of all people.
        normalizer: The person's way of moving the mouth.
        rest: [CHANNELS] the person's closed mouth.
        gain: [CHANNELS] what restores the movement that a mean lacks.
        correction: [R, CHANNELS] weights added for the person's own speech; None: there is no correction.
        kernel: What is added instead, where there is one: it follows the person better, and brings its own gain.
        pause: Seconds of a pause after which the lips close.
        report: How well `avatar.audio2motion.shared_adaptation` did on parts that it left out.
        voice_db: Level of the voice that it was adapted to, dBFS, or `LEVEL`; None: files of before do not say.
    """

    fps: float
    prior: SharedPrior
    normalizer: MouthNormalizer
    rest: Tensor
    gain: Tensor
    correction: Tensor | None = None
    kernel: KernelRegression | None = None
    pause: float = PAUSES[0]
    report: dict[str, Any] = field(default_factory=dict)
    voice_db: float | None = None

    @property
    def look_ahead(self) -> float:
        """Seconds of audio after a frame that it waits for, at most."""
        rows = max(self.prior.ahead, self.prior.gate(self.pause).look_ahead)
        between = 0.0 if self.fps == RATE else 1 / RATE
        return features_look_ahead(self.prior.encoder, RATE) + rows / RATE + between

    @property
    def corrected(self) -> bool:
        """Whether the person's own speech corrects the prior."""
        return self.correction is not None or self.kernel is not None

    def open(self) -> SharedStream:
        """Begin an utterance; only mouth, jaw and cheeks move."""
        return SharedStream(self)

    def open_parts(self) -> SharedParts:
        """Begin an utterance whose lips the caller brings together, with :meth:`close`."""
        return SharedParts(self)

    def of_features(self, features: FrameFeatures) -> Motion:
        """The motion of a whole recording of which features at `RATE` are at hand."""
        rows, frames = _Mouth(self).rows(features, final=True), LinearResampler(RATE, self.fps)
        total = max(1, int(np.ceil(len(features) / RATE * self.fps - 1e-6)))
        spoken = torch.cat([frames.push(rows), frames.finish(total)])
        return self.close(with_mouth(spoken[:, :CHANNELS], self.fps), spoken[:, CHANNELS])

    def close(self, motion: Motion, probability: Float[Tensor, " T"]) -> Motion:
        """Bring the person's lips together by the closure ``probability`` [T]."""
        return LipClosure.of(self.normalizer, self.rest)(motion, probability)

    def streaming(self) -> SharedSpeech:
        """Return this network with the prior of :meth:`SharedPrior.streaming`.

        Adapting the streaming prior to the person follows the person better.
        """
        kernel = self.kernel and replace(self.kernel, gain=_STREAMING_GAIN * self.kernel.gain)
        return replace(self, prior=self.prior.streaming(), gain=_STREAMING_GAIN * self.gain, kernel=kernel)

    def linear(self) -> SharedSpeech:
        """Return this network with the linear correction, which is all that a web page runs."""
        return replace(self, kernel=None)

    def ungated(self, inputs: Float[Tensor, "T R"]) -> Float[Tensor, "T C"]:
        """Channels [T, CHANNELS] of inputs [T, R], with the gain, without the gate."""
        gain = self.gain if self.kernel is None else self.kernel.gain
        return self.normalizer.bias + gain * (self.predicted(inputs) - self.normalizer.bias)

    def predicted(self, inputs: Float[Tensor, "T R"]) -> Float[Tensor, "T C"]:
        """Channels [T, CHANNELS] of inputs [T, R], without the gain."""
        channels = self.normalizer.restore(inputs @ self.prior.weights)
        if self.kernel is not None:
            return channels + self.kernel(moments_of(inputs, self.prior.behind, self.prior.ahead))
        return channels if self.correction is None else channels + inputs @ self.correction

    def save(self, path: Path | str) -> None:
        """Write one safetensors file that holds the prior as well: a run stays itself when the package moves on."""
        tensors, metadata = _pack(self.prior)
        tensors |= {f"normalizer.{k}": v for k, v in self.normalizer.tensors().items()} | {
            "rest": self.rest,
            "gain": self.gain,
        }
        if self.correction is not None:
            tensors["correction"] = self.correction
        more: dict[str, Any] = {"fps": self.fps, "pause": self.pause, "report": self.report}
        if self.voice_db is not None:
            more["voice_db"] = self.voice_db
        if self.kernel is not None:
            tensors |= self.kernel.tensors()
            more["kernel_scale"] = self.kernel.scale
        save_tensors(Path(path), tensors, {"format": SPEECH_FORMAT, **metadata, **more})

    @staticmethod
    def load(path: Path | str) -> SharedSpeech:
        """Read what :meth:`save` wrote.

        Raises:
            AvatarError: The file is missing, damaged or of another version, or its encoder is not available.
        """
        tensors, metadata = load_tensors(Path(path))
        if metadata.get("format") != SPEECH_FORMAT:
            raise AvatarError(f"{path} is not a speech network of this version.", fix="Train again.")
        prior, about = _unpack(path, tensors, metadata), Record(metadata, path)
        kinds, channels = str(len(ARTICULATION)), str(CHANNELS)
        shapes = {
            "normalizer.centre": kinds, "normalizer.spread": kinds, "normalizer.matrix": f"{kinds} {channels}",
            "normalizer.bias": channels, "rest": channels, "gain": channels,
        }  # fmt: skip
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        correction = tensors.get("correction")
        if correction is not None:
            shapes["correction"] = f"{len(prior.weights)} {channels}"
        check_tensors(tensors, path, shapes)
        kernel = None
        if "kernel_scale" in metadata:  # files of before have none
            width = prior.basis.shape[1] * (min(prior.behind, BEHIND) + 1 + min(prior.ahead, AHEAD))
            scale = about.number("kernel_scale", 1e-9, 1e9)
            kernel = KernelRegression.unpack(tensors, path, scale, width, CHANNELS)
        return SharedSpeech(
            fps=about.frame_rate(),
            prior=prior,
            normalizer=MouthNormalizer(
                *(tensors[f"normalizer.{name}"] for name in ("centre", "spread", "matrix", "bias"))
            ),
            rest=tensors["rest"],
            gain=tensors["gain"],
            correction=correction,
            kernel=kernel,
            pause=about.number("pause", 0, LONGEST_PAUSE),
            report=about.record("report").data,
            voice_db=about.number("voice_db", *VOICE_DB) if "voice_db" in metadata else None,  # or of before
        )


_TENSORS = ("input_mean", "input_std", "basis", "weights")
_NUMBERS = ("behind", "ahead", "gain", "about")


def _pack(prior: SharedPrior) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata = {"encoder": prior.encoder.config, "articulation": list(ARTICULATION)}
    metadata["prior"] = {name: getattr(prior, name) for name in _NUMBERS}
    tensors = {f"prior.{name}": getattr(prior, name) for name in _TENSORS}
    return tensors if prior.closure_weights is None else tensors | {
        "prior.closure_weights": prior.closure_weights
    }, metadata


def _unpack(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> SharedPrior:
    about = Record(metadata, path)
    if about.names("articulation") != list(ARTICULATION):
        raise AvatarError(
            f"{path} was written by another version: its mouth has other channels.", fix="Train it again."
        )
    numbers = about.record("prior")
    behind, ahead = (numbers.whole(name, 0, _MOST_ROWS) for name in ("behind", "ahead"))
    shapes = {"input_mean": "F", "input_std": "F", "basis": "F K", "weights": f"R {len(ARTICULATION)}"}
    if "prior.closure_weights" in tensors:
        shapes["closure_weights"] = "R"
    sizes = check_tensors(tensors, path, {f"prior.{name}": shape for name, shape in shapes.items()})
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    encoder = build_encoder(metadata.get("encoder"), path)
    if sizes["F"] != encoder.dim or sizes["R"] != (behind + 1 + ahead) * sizes["K"] + 1:
        raise AvatarError(f"{path}: its tensors do not fit its encoder and its rows.", fix="Train it again.")
    if not bool((tensors["prior.input_std"] > 0).all()):
        raise AvatarError(f"{path}: prior.input_std is not positive.", fix="Train it again.")
    return SharedPrior(
        encoder=encoder, closure_weights=tensors.get("prior.closure_weights"), behind=behind, ahead=ahead,
        gain=numbers.number("gain", 0, 100),
        about=numbers.record("about", {}).data, **{name: tensors[f"prior.{name}"] for name in _TENSORS},
    )  # fmt: skip


class SharedStream:
    """One utterance on its way through a `SharedSpeech`."""

    def __init__(self, speech: SharedSpeech) -> None:
        self._speech, self._parts = speech, SharedParts(speech)

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N]; return the frames [n >= 0] that they complete."""
        return self._speech.close(*self._parts.push(samples))

    def finish(self) -> Motion:
        """Return the remaining frames."""
        return self._speech.close(*self._parts.finish())


class SharedParts:
    """The motion before lips are brought together, and the closure probability [n], of one utterance."""

    def __init__(self, speech: SharedSpeech) -> None:
        self._fps = speech.fps
        self._features = FrameFeatureStream(speech.prior.encoder, RATE)
        self._mouth = _Mouth(speech)
        self._frames = LinearResampler(RATE, speech.fps)

    def push(self, samples: np.ndarray) -> tuple[Motion, Tensor]:
        """Take samples [N]; return the frames [n >= 0] that they complete."""
        rows = self._mouth.rows(self._features.push(samples), final=False)
        return self._split(self._frames.push(rows))

    def finish(self) -> tuple[Motion, Tensor]:
        """Return the remaining frames."""
        rows = self._mouth.rows(self._features.finish(), final=True)
        frames = self._frames.push(rows)
        total = self._features.frames_at(self._fps)
        return self._split(torch.cat([frames, self._frames.finish(total)]))

    def _split(self, frames: Tensor) -> tuple[Motion, Tensor]:
        return with_mouth(frames[:, :CHANNELS], self._fps), frames[:, CHANNELS]


class _Mouth:
    """Rows [n, CHANNELS + 1] at `RATE`: channels, and the closure probability. The last row repeats at the end."""

    def __init__(self, speech: SharedSpeech) -> None:
        self._speech = speech
        self._activity = speech.prior.gate(speech.pause)
        self._features = np.zeros((0, len(speech.prior.input_mean)), np.float32)
        self._gate = np.zeros(0, np.float32)  # from row `_left` of the features on
        self._left = 0  # rows of the features that are context on the left

    def rows(self, new: FrameFeatures, *, final: bool) -> Tensor:
        """Return the rows [n, CHANNELS + 1] that are ready now.

        Args:
            new: Features and energy of further rows.
            final: No more rows follow: all that are left are ready.
        """
        ahead = 0 if final else self._speech.prior.ahead
        self._features = np.concatenate([self._features, new.features])
        gates = [self._gate, self._activity.push(new.energy).gate]
        self._gate = np.concatenate([*gates, self._activity.finish().gate] if final else gates)
        stop = min(len(self._features) - ahead, self._left + len(self._gate))
        if stop <= self._left:
            return torch.zeros(0, CHANNELS + 1)
        rows = self._rows(self._left, stop)
        self._gate = self._gate[stop - self._left :]
        drop = max(0, stop - self._speech.prior.behind)
        self._features, self._left = self._features[drop:], stop - drop
        return rows

    def _rows(self, start: int, stop: int) -> Tensor:
        speech, prior = self._speech, self._speech.prior
        inputs = prior.inputs(self._features)[start:stop]
        gate = torch.from_numpy(self._gate[: stop - start, None])
        channels = speech.rest + gate * (speech.ungated(inputs) - speech.rest)
        weights = prior.closure_weights
        closure = torch.zeros(len(inputs)) if weights is None else (inputs @ weights).clamp(0, 1)
        return torch.cat([channels, closure[:, None]], 1)
