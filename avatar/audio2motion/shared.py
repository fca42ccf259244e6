"""Speech to lips for everybody: one regression for all people, which a person's own track makes personal.

A linear regression on what the first layers of a speech recogniser hear (`avatar.audio.encoders.whisper`) says what the mouth
does in units of the speaker's own rest and spread (`avatar.motion.mouth`). An `MouthNormalizer` turns that into the mouth
of one person; where the person's own speech is at hand, :meth:`PriorSpeech.adapt` corrects the regression by it.

docs/prior.md says what the shipped prior was trained on, and how well it does on people it has never seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar.audio.encoders.base import FrameFeatures, SpeechEncoder, build_encoder, features_at, stream_features
from avatar.audio.encoders.whisper import WhisperEncoder
from avatar.audio.resampling import at_rate
from avatar.audio.vad import VoiceActivityDetector
from avatar.audio2motion.lip_closure import LipClosure
from avatar.audio2motion.personal import MOST_PAUSE, choose_pause, closed_mouth
from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors
from avatar.io.audio import SAMPLE_RATE, chunked
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

FORMAT = "avatar-prior-1"
SPEECH_FORMAT = "avatar-speech-2"
WEIGHTS = Path(__file__).with_name("prior.safetensors")
RATE = 25.0  # rows per second inside, whatever the avatar's rate is
GAIN = 1.25  # of a prior in units of speech: chosen on the development people, who then move as much as they do
_LIMIT = 6.0  # standard deviations of a feature
_MOST_ROWS = 1000  # before and after a moment, in what is read
_FOLDS = 5
_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # seconds of speech that the prior counts for
_PAUSES = (0.4, 0.6)  # seconds after which lips close in a pause; many people breathe in through the open mouth ...
_SILENCE = 0.3  # ... and in silence
_LIVE_GAIN = 1.25  # rows with little sound ahead say less: what that takes of the movement
_MAX_GAIN, _GAIN_POWER = 1.5, 0.7  # all of the lost movement would exaggerate wrong guesses as well


@dataclass(frozen=True)
class SharedPrior:
    """The regression of all people.

    Attributes:
        encoder: Makes the features, at `RATE`.
        input_mean, input_std: [F].
        basis: [F, K] the directions in which features of speech vary most.
        taps: [(behind + 1 + ahead) * K + 1, A] what the rows around a moment, and a constant, say about articulation.
        behind, ahead: Rows.
        gain: What restores the movement that a mean over possible mouths lacks.
        touch: [taps] what the same rows say about whether the lips touch, 0 (surely not) to 1 (surely); None: nothing.
        about: How it was trained; ``id`` says which one it is.
    """

    encoder: SpeechEncoder
    input_mean: Tensor
    input_std: Tensor
    basis: Tensor
    taps: Tensor
    behind: int
    ahead: int
    gain: float
    about: dict[str, Any] = field(default_factory=dict)
    touch: Tensor | None = None

    @staticmethod
    def load(path: Path = WEIGHTS) -> SharedPrior:
        """The prior that comes with the package, or another.

        Raises:
            AvatarError: The file is missing, damaged, or of something else, or its encoder cannot be had.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise AvatarError(
                f"{path} is not an audio-to-motion prior.", why=f"Its format is {metadata.get('format')!r}."
            )
        return _unpack(path, tensors, metadata)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors, metadata = _pack(self)
        save_tensors(path, tensors, {"format": FORMAT, **metadata})

    def live(self) -> SharedPrior:
        """The same with little waiting, for five times the work: a frame needs 0.2 s of sound after its time at most.

        Rows then have 0.04 to 0.08 s of sound ahead of them, instead of 0.2 to 0.6 s.
        """
        quick = WhisperEncoder(hop=0.08, ahead=0.04)
        parts = [quick if part.name == quick.name else part for part in self.encoder.parts]
        return replace(self, encoder=SpeechEncoder(parts), gain=_LIVE_GAIN * self.gain)

    def heard(self, features: np.ndarray) -> Tensor:
        """[T, taps] what the regression sees, for features [T, F] of consecutive rows."""
        return stack(project(features, self.input_mean, self.input_std, self.basis), self.behind, self.ahead)

    def person(self, motion: Motion, fps: float) -> PriorSpeech:
        """Lips for a person of whom only a motion track is known; no sound is needed.

        Args:
            motion: Of the person, talking.
            fps: Of the avatar.

        Raises:
            AvatarError: Less than a second of the face was measured.
        """
        channels, valid = mouth_channels(motion), motion.valid.numpy()
        opening = channels[:, : len(FACE)] @ opening_weights()
        identity = MouthNormalizer.of(motion.map(valid=torch.from_numpy(talking(opening, valid, motion.fps))))
        rest = torch.from_numpy(closed_mouth(channels, np.ones(len(channels)), valid)).float()
        gain = torch.full((CHANNELS,), self.gain)
        return PriorSpeech(fps=fps, prior=self, identity=identity, rest=rest, gain=gain)


def _gate(pause: float) -> VoiceActivityDetector:
    return VoiceActivityDetector(RATE, pause, ahead=0.0, silence=_SILENCE)


def project(features: np.ndarray, mean: Tensor, std: Tensor, basis: Tensor) -> Tensor:
    """[T, K] of features [T, F]."""
    return ((torch.from_numpy(features) - mean) / std).clamp(-_LIMIT, _LIMIT) @ basis


def stack(rows: Tensor, behind: int, ahead: int) -> Tensor:
    """[T, (behind + 1 + ahead) * K + 1]: each row with those around it (the ends repeat), and a one."""
    padded = torch.cat([rows[:1].expand(behind, -1), rows, rows[-1:].expand(ahead, -1)])
    parts = [padded[i : i + len(rows)] for i in range(behind + 1 + ahead)]
    return torch.cat([*parts, torch.ones(len(rows), 1)], 1)


@dataclass
class PriorSpeech:
    """The shared prior speaking with one person's mouth; implements `avatar.audio2motion.base.AudioToMotion`.

    Attributes:
        fps: Frames per second of the motion.
        prior: The regression of all people.
        identity: The person's way of moving.
        rest: [CHANNELS] the person's closed mouth.
        gain: [CHANNELS] what restores the movement that a mean lacks.
        readout: [taps, CHANNELS] what the person's own speech corrected; None: nothing.
        pause: Seconds of a pause after which the lips close.
        report: How well :meth:`adapt` did on parts that it left out.
    """

    fps: float
    prior: SharedPrior
    identity: MouthNormalizer
    rest: Tensor
    gain: Tensor
    readout: Tensor | None = None
    pause: float = _PAUSES[0]
    report: dict[str, Any] = field(default_factory=dict)

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Blocks of motion for a stream of 16 kHz mono sound; only mouth, jaw and cheeks move."""
        for motion, touch in self.parted(chunks):
            yield self.close(motion, touch)

    def close(self, motion: Motion, touch: Tensor) -> Motion:
        """Motion with the person's lips brought together as much as ``touch`` [T] says."""
        return LipClosure.of(self.identity, self.rest)(motion, touch)

    def parted(self, chunks: Iterable[np.ndarray]) -> Iterator[tuple[Motion, Tensor]]:
        """:meth:`stream` before lips that touch are brought together, and how surely they touch [n]."""
        counted = _Counted(chunks)
        blocks = stream_features(self.prior.encoder, counted, RATE)
        for rows in at_rate(self._mouths(blocks), RATE, self.fps, lambda: counted.frames(self.fps)):
            yield with_mouth(rows[:, :CHANNELS], self.fps), rows[:, CHANNELS]

    def speak(self, samples: np.ndarray) -> Motion:
        """The motion for a whole sound [N]."""
        return Motion.cat(list(self.stream(chunked(samples))))

    def live(self) -> PriorSpeech:
        """The same by :meth:`SharedPrior.live`. Adapting what hears live follows the person better than this does."""
        return replace(self, prior=self.prior.live(), gain=_LIVE_GAIN * self.gain)

    def _mouths(self, blocks: Iterable[FrameFeatures]) -> Iterator[Tensor]:
        """Blocks [n, CHANNELS + 1] at `RATE`, the same however they are cut: channels, and how surely lips touch."""
        prior, gate = self.prior, _gate(self.pause)
        held = np.zeros((0, len(prior.input_mean)), np.float32)
        opens = np.zeros(0, np.float32)  # the gate, from row `left` of `held` on
        left = 0  # rows of `held` that are context on the left

        def mouth(stop: int) -> Tensor:
            nonlocal held, opens, left
            heard = prior.heard(held)[left:stop]
            out = self.rest + torch.from_numpy(opens[: stop - left, None]) * (self.free(heard) - self.rest)
            touch = torch.zeros(len(heard)) if prior.touch is None else (heard @ prior.touch).clamp(0, 1)
            opens = opens[stop - left :]
            drop = max(0, stop - prior.behind)
            held, left = held[drop:], stop - drop
            return torch.cat([out, touch[:, None]], 1)

        for block in blocks:
            held = np.concatenate([held, block.features])
            opens = np.concatenate([opens, *(row[2] for row in gate.push(block.features[:, :0], block.energy))])
            ready = min(len(held) - prior.ahead, left + len(opens))
            if ready > left:
                yield mouth(ready)
        opens = np.concatenate([opens, *(row[2] for row in gate.finish())])
        if len(held) > left:
            yield mouth(len(held))

    def free(self, heard: Tensor) -> Tensor:
        """Channels [T, CHANNELS] without the gate."""
        return self.identity.bias + self.gain * (self._expected(heard) - self.identity.bias)

    def _expected(self, heard: Tensor) -> Tensor:
        channels = self.identity.restore(heard @ self.prior.taps)
        return channels if self.readout is None else channels + heard @ self.readout

    def adapt(self, motion: Motion, samples: np.ndarray, offset: float = 0.0) -> PriorSpeech:
        """A copy that also learnt from the person's own speech, seconds or minutes of it.

        A ridge regression towards the prior: how strongly it is held back is chosen on fifths that are left out, and
        nothing is corrected where that does not help.

        Args:
            motion: T frames, at any rate.
            samples: 16 kHz mono, from frame 0 on; what comes after the track is not heard.
            offset: Frames by which the sound is late.
        """
        track = motion.resample(RATE)
        sound = _moved(samples, offset / motion.fps)[: round(len(motion) / motion.fps * SAMPLE_RATE)]
        features = features_at(self.prior.encoder, sound, RATE)
        heard = self.prior.heard(features.features)[: len(track)]
        track = track[: len(heard)]
        valid = track.valid.numpy()
        base = replace(self, readout=None)
        x = heard.double().numpy()[valid]
        real = mouth_channels(track)[valid].astype(np.float64)
        expected = base._expected(heard).double().numpy()[valid]
        missing = real - expected
        scale = real.std(0) + 1e-3
        power = float(np.square(x[:, :-1]).mean()) * RATE
        index = np.arange(len(x))
        folds = list(itertools.pairwise(np.linspace(0, len(x), _FOLDS + 1).astype(int)))

        def solve(chosen: np.ndarray, seconds: float) -> np.ndarray:
            seen = x[chosen]
            ridge = np.full(x.shape[1], power * seconds)
            ridge[-1] = RATE  # the constant: a second of the prior's mean
            return np.linalg.solve(seen.T @ seen + np.diag(ridge), seen.T @ missing[chosen])

        def left_out(seconds: float | None) -> np.ndarray:
            """What is predicted of each fifth by the others."""
            if seconds is None:
                return expected
            gap = round(RATE / 2)
            parts = [x[a:b] @ solve((index < a - gap) | (index >= b + gap), seconds) for a, b in folds]
            return expected + np.concatenate(parts)

        errors = {s: float(np.square((left_out(s) - real) / scale).mean()) for s in (None, *_RIDGES)}
        best = min(errors, key=lambda key: errors[key])
        unseen = left_out(best)
        lost = real.std(0) / (unseen.std(0) + 1e-6)
        gain = np.clip(lost**_GAIN_POWER, 1, _MAX_GAIN)
        middle = self.identity.bias.numpy()
        gates = {pause: _gate(pause).judge(features.energy)[1][: len(track)][valid] for pause in _PAUSES}
        pause = choose_pause(middle + gain * (unseen - middle), real, self.rest.numpy(), gates)
        return replace(
            base,
            readout=None if best is None else torch.from_numpy(solve(np.ones(len(x), bool), best)).float(),
            gain=torch.from_numpy(gain).float(),
            pause=pause,
            report={"seconds": round(len(x) / RATE, 1), "ridge": best, "error": round(errors[best] / errors[None], 3)},
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file that holds the prior as well: a run stays itself when the package moves on."""
        tensors, metadata = _pack(self.prior)
        tensors |= {f"identity.{k}": v for k, v in self.identity.tensors().items()} | {
            "rest": self.rest,
            "gain": self.gain,
        }
        if self.readout is not None:
            tensors["readout"] = self.readout
        more = {"fps": self.fps, "pause": self.pause, "report": self.report}
        save_tensors(Path(path), tensors, {"format": SPEECH_FORMAT, **metadata, **more})

    @staticmethod
    def load(path: Path | str) -> PriorSpeech:
        """Read what :meth:`save` wrote.

        Raises:
            AvatarError: The file is missing, damaged or of another version, or its encoder cannot be had.
        """
        tensors, metadata = load_tensors(Path(path))
        if metadata.get("format") != SPEECH_FORMAT:
            raise AvatarError(f"{path} is not a speech network of this version.", fix="Train again.")
        prior, about = _unpack(path, tensors, metadata), Record(metadata, path)
        kinds, channels = str(len(ARTICULATION)), str(CHANNELS)
        shapes = {
            "identity.centre": kinds, "identity.spread": kinds, "identity.matrix": f"{kinds} {channels}",
            "identity.bias": channels, "rest": channels, "gain": channels,
        }  # fmt: skip
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        readout = tensors.get("readout")
        if readout is not None:
            shapes["readout"] = f"{len(prior.taps)} {channels}"
        check_tensors(tensors, path, shapes)
        return PriorSpeech(
            fps=about.frame_rate(),
            prior=prior,
            identity=MouthNormalizer(*(tensors[f"identity.{name}"] for name in ("centre", "spread", "matrix", "bias"))),
            rest=tensors["rest"],
            gain=tensors["gain"],
            readout=readout,
            pause=about.number("pause", 0, MOST_PAUSE),
            report=about.record("report").data,
        )


_TENSORS = ("input_mean", "input_std", "basis", "taps")
_NUMBERS = ("behind", "ahead", "gain", "about")


def _pack(prior: SharedPrior) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata = {"encoder": prior.encoder.config, "articulation": list(ARTICULATION)}
    metadata["prior"] = {name: getattr(prior, name) for name in _NUMBERS}
    tensors = {f"prior.{name}": getattr(prior, name) for name in _TENSORS}
    return tensors if prior.touch is None else tensors | {"prior.touch": prior.touch}, metadata


def _unpack(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> SharedPrior:
    about = Record(metadata, path)
    if about.names("articulation") != list(ARTICULATION):
        raise AvatarError(f"{path} speaks of another mouth than this version.", fix="Train it again.")
    said = about.record("prior")
    behind, ahead = (said.whole(name, 0, _MOST_ROWS) for name in ("behind", "ahead"))
    shapes = {"input_mean": "F", "input_std": "F", "basis": "F K", "taps": f"R {len(ARTICULATION)}"}
    if "prior.touch" in tensors:
        shapes["touch"] = "R"
    sizes = check_tensors(tensors, path, {f"prior.{name}": shape for name, shape in shapes.items()})
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    encoder = build_encoder(metadata.get("encoder"), path)
    if sizes["F"] != encoder.dim or sizes["R"] != (behind + 1 + ahead) * sizes["K"] + 1:
        raise AvatarError(f"{path}: its tensors do not fit its encoder and its rows.", fix="Train it again.")
    if not bool((tensors["prior.input_std"] > 0).all()):
        raise AvatarError(f"{path}: prior.input_std is not positive.", fix="Train it again.")
    return SharedPrior(
        encoder=encoder, touch=tensors.get("prior.touch"), behind=behind, ahead=ahead, gain=said.number("gain", 0, 100),
        about=said.record("about", {}).data, **{name: tensors[f"prior.{name}"] for name in _TENSORS},
    )  # fmt: skip


def _moved(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Sound that starts so much later in it, silence where there is none."""
    shift = round(seconds * SAMPLE_RATE)
    return samples[shift:] if shift >= 0 else np.pad(samples, (-shift, 0))


class _Counted:
    """Chunks, and how many samples there were so far."""

    def __init__(self, chunks: Iterable[np.ndarray]) -> None:
        self._chunks, self.count = chunks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in self._chunks:
            self.count += len(chunk)
            yield chunk

    def frames(self, fps: float) -> int:
        """How many begin within what has been heard; one at least."""
        return max(1, int(np.ceil(self.count / SAMPLE_RATE * fps - 1e-6)))
