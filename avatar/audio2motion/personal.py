"""Personal speech network: a few small temporal networks from one person's speech to that person's mouth.

Their mean drives the mouth. In silence a gate leads the mouth to the person's closed lips. Training is in
`avatar.audio2motion.personal_training`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.registry import build_encoder
from avatar.audio.features import FrameFeatures, FrameFeatureStream, features_look_ahead
from avatar.audio.vad import VoiceActivityDetector
from avatar.audio2motion.base import VOICE_DB
from avatar.audio2motion.pauses import LONGEST_PAUSE
from avatar.checks import FRAME_RATES, Record, parse_json, written_number
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors, load_state
from avatar.io.checkpoint import read_safetensors, write_safetensors
from avatar.motion import Motion, arkit, face_channels
from avatar.motion.mouth import FACE, MOUTH, with_mouth

FORMAT = "avatar-speech-1"
_HIDDEN, _LAYERS, _KERNEL = 64, 4, 5
REACH = _LAYERS * (_KERNEL // 2)  # frames of context on each side
MOST_SHARE = 0.5  # of the personal network in the ensemble; the shared one is never worth less
_TENSORS = ("input_mean", "input_std", "output_mean", "output_std", "gain", "rest")


class MouthNet(nn.Module):
    """Temporal convolutions from speech features to mouth channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, _HIDDEN)
        self.convs = nn.ModuleList(nn.Conv1d(_HIDDEN, _HIDDEN, _KERNEL, padding=_KERNEL // 2) for _ in range(_LAYERS))
        self.leave = nn.Linear(_HIDDEN, outputs)

    def forward(self, x: Float[Tensor, "B T inputs"]) -> Float[Tensor, "B T outputs"]:
        """[B, T, inputs] to [B, T, outputs], both standardised."""
        x = functional.dropout(x, 0.2, self.training)
        x = functional.gelu(self.enter(x)).transpose(1, 2)
        for conv in self.convs:
            x = x + functional.gelu(conv(functional.dropout(x, 0.3, self.training)))
        return self.leave(x.transpose(1, 2))


@dataclass
class PersonalSpeech:
    """A person's audio-to-motion network; implements `avatar.audio2motion.base.AudioToMotion`.

    Attributes:
        fps: Frames per second of the motion.
        encoder: Makes the speech features.
        members: The networks, from standardised features to standardised mouth channels.
        input_mean, input_std: [F].
        output_mean, output_std, gain, rest: [C], over `FACE` and then `MOUTH` channels; ``gain`` restores the
            variance that averaging takes, ``rest`` is the person's closed mouth.
        pause: Seconds of a pause after which the person's lips close (`avatar.audio.vad`).
        report: How well it predicts parts of the video it was not trained on.
        voice_db: Level of the voice that it was trained on, dBFS; None: not known.
        share: Weight in the ensemble with the shared network, 0 to 0.5.
    """

    fps: float
    encoder: SpeechEncoder
    members: list[MouthNet]
    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor
    gain: Tensor
    rest: Tensor
    pause: float
    report: dict[str, Any]
    voice_db: float | None = None
    share: float = MOST_SHARE

    @property
    def look_ahead(self) -> float:
        """Seconds of audio after a frame that it waits for, at most."""
        frames = VoiceActivityDetector(self.fps, self.pause).look_ahead + REACH
        return features_look_ahead(self.encoder, self.fps) + frames / self.fps

    def open(self) -> PersonalStream:
        """Begin an utterance; only mouth, jaw and cheeks move."""
        return PersonalStream(self)

    def predict(self, features: Float[np.ndarray, "T F"], energy: Float[np.ndarray, " T"]) -> Motion:
        """The motion for features [T, F] and energy [T] at the person's frame rate."""
        return _Mouth(self).frames(FrameFeatures(features, energy), final=True)

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; its metadata says how the features are made."""
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        for i, member in enumerate(self.members):
            tensors |= {f"members.{i}.{k}": v.contiguous() for k, v in member.state_dict().items()}
        metadata = {
            "format": FORMAT,
            "fps": repr(self.fps),
            "encoder": json.dumps(self.encoder.config),
            "face": json.dumps([face_channels.CHANNELS[i] for i in FACE]),
            "arkit": json.dumps([arkit.ARKIT[i] for i in MOUTH]),
            "pause": repr(self.pause),
            "report": json.dumps(self.report),
        }
        if self.voice_db is not None:
            metadata["voice_db"] = repr(self.voice_db)
        if self.share != MOST_SHARE:
            metadata["share"] = repr(self.share)
        write_safetensors(Path(path), tensors, metadata)

    @staticmethod
    def load(path: Path | str) -> PersonalSpeech:
        """Read what :meth:`save` wrote.

        Raises:
            AvatarError: The file is missing, damaged or of another version, or its encoder is not available.
        """
        path = Path(path)
        if not path.is_file():
            raise AvatarError(f"The speech network {path} does not exist.", fix="Train with `avatar train`.")
        tensors, metadata = read_safetensors(path, "a speech network")
        channels = [*(face_channels.CHANNELS[i] for i in FACE), *(arkit.ARKIT[i] for i in MOUTH)]
        about = {
            name: parse_json(metadata.get(name, "null"), f"{path}: {name}")
            for name in ("face", "arkit", "encoder", "report")
        }
        if metadata.get("format") != FORMAT or [about["face"], about["arkit"]] != [
            channels[: len(FACE)],
            channels[len(FACE) :],
        ]:
            raise AvatarError(f"{path} is not a speech network of this version.", fix="Train again.")
        outputs = str(len(channels))
        sizes = check_tensors(tensors, path, {name: "F" if "input" in name else outputs for name in _TENSORS})
        members = []
        for i in range(sum(name.endswith("enter.weight") for name in tensors)):
            net = MouthNet(sizes["F"], len(channels))
            prefix = f"members.{i}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_state(net, state, f"{path}, member {i}")
            members.append(net.eval())
        encoder = build_encoder(about["encoder"], path)
        if not members or encoder.dim + 1 != sizes["F"]:  # and loudness relative to the voice
            raise AvatarError(f"{path} holds no network for the features of its encoder.", fix="Train again.")
        return PersonalSpeech(
            fps=written_number(metadata.get("fps", ""), f"{path}: fps", *FRAME_RATES),
            encoder=encoder,
            members=members,
            pause=written_number(metadata.get("pause", ""), f"{path}: pause", 0, LONGEST_PAUSE),
            report=Record(about["report"], f"{path}: report").data,
            voice_db=written_number(metadata["voice_db"], f"{path}: voice_db", *VOICE_DB)
            if "voice_db" in metadata  # files of before have none
            else None,
            share=written_number(metadata["share"], f"{path}: share", 0, MOST_SHARE)
            if "share" in metadata
            else MOST_SHARE,
            **{name: tensors[name].float() for name in _TENSORS},
        )


class PersonalStream:
    """One utterance on its way through a `PersonalSpeech`."""

    def __init__(self, speech: PersonalSpeech) -> None:
        self._features = FrameFeatureStream(speech.encoder, speech.fps)
        self._mouth = _Mouth(speech)

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N]; return the frames [n >= 0] that they complete."""
        return self._mouth.frames(self._features.push(samples), final=False)

    def finish(self) -> Motion:
        """Return the remaining frames."""
        return self._mouth.frames(self._features.finish(), final=True)


class _Mouth:
    """Runs the networks once over all frames that have become ready, with as much context as they reach."""

    def __init__(self, speech: PersonalSpeech) -> None:
        self._speech = speech
        self._activity = VoiceActivityDetector(speech.fps, speech.pause)
        self._waiting = np.zeros((0, len(speech.input_mean) - 1), np.float32)  # features of frames not yet judged
        self._inputs = torch.zeros(0, len(speech.input_mean))
        self._gate = torch.zeros(0)
        self._left = 0  # rows of `_inputs` that are context on the left

    def frames(self, new: FrameFeatures, *, final: bool) -> Motion:
        """Return the motion [n >= 0] of the frames that are ready now.

        Args:
            new: Features and energy of further frames.
            final: No more frames follow: all that are left are ready.
        """
        self._add(new.features, *self._activity.push(new.energy)[1:])
        if final:
            self._add(new.features[:0], *self._activity.finish()[1:])
        stop = len(self._inputs) - (0 if final else REACH)
        if stop <= self._left:
            return Motion.zeros(0, self._speech.fps)
        motion = self._motion(self._left, stop)
        drop = max(0, stop - REACH)
        self._inputs, self._gate, self._left = self._inputs[drop:], self._gate[drop:], stop - drop
        return motion

    def _add(self, features: np.ndarray, loudness: np.ndarray, gate: np.ndarray) -> None:
        self._waiting = np.concatenate([self._waiting, features])
        judged, self._waiting = self._waiting[: len(gate)], self._waiting[len(gate) :]
        rows = torch.from_numpy(np.c_[judged, loudness].astype(np.float32))
        self._inputs = torch.cat([self._inputs, rows])
        self._gate = torch.cat([self._gate, torch.from_numpy(gate)])

    def _motion(self, start: int, stop: int) -> Motion:
        speech = self._speech
        with torch.no_grad():
            x = ((self._inputs - speech.input_mean) / speech.input_std).clamp(-6, 6)[None]
            y = torch.stack([member(x)[0] for member in speech.members]).mean(0)[start:stop]
        y = y * speech.gain * speech.output_std + speech.output_mean
        return with_mouth(speech.rest + self._gate[start:stop, None] * (y - speech.rest), speech.fps)
