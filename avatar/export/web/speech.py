"""What a web folder needs to speak audio files and the microphone: `avatar export --format web --speech-input`.

The page hears with the front of Whisper's encoder and moves the lips with the run's streaming network, with the linear
correction in place of the kernel regression that `avatar render --speech streaming` takes. Head and upper face come
from a loop of the person's own video.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar import log
from avatar.audio.encoders import whisper
from avatar.audio2motion.lip_closure import LipClosure
from avatar.audio2motion.load import load_streaming
from avatar.audio2motion.shared import SILENCE, SharedSpeech
from avatar.errors import AvatarError
from avatar.export.web import format as web
from avatar.export.web.clip import pose_arrays
from avatar.export.web.face_regression import face_inputs, fit_face, with_channels
from avatar.export.web.page import speech_code
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.motion import Motion
from avatar.motion.mouth import FACE, mouth_channels, opening_weights
from avatar.motion.statistics import MotionStats

LOOP_SECONDS, FADE_SECONDS = 20.0, 1.2
EXAMPLES, TRIED = 1000, 24  # frames that the face is fitted to, and others that it is tried on
_MEL_HOP = 0.01  # seconds
LICENCE = """\
speech.bin holds the first layers of the speech recogniser Whisper tiny.en:

Copyright (c) 2022 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def write_speech(
    folder: Path, avatar: Avatar, stats: MotionStats, coefficients: Callable[[Motion, int], Tensor]
) -> tuple[dict[str, Any], Motion, Tensor]:
    """Write speech.bin and speech.js.

    Args:
        folder: The web folder.
        avatar: The avatar.
        stats: The person's motion.
        coefficients: Gives those of a motion's frame, as the folder stores them.

    Returns:
        ``speech`` of the manifest; motion that nothing was fitted to, and the coefficients [T, M] that the page finds
        for it.

    Raises:
        AvatarError: The run hears with other encoders than Whisper, or the asset ``whisper_front`` is not available.
    """
    speech = load_streaming(avatar.run, avatar.fps).linear()
    about, heard = lip_arrays(speech)
    loop, back = base_loop(avatar, stats)
    lips = example_lips(speech, stats, EXAMPLES + TRIED)
    log.info("Fitting the face to speech that is not known yet ...")
    face = fit_face(coefficients, loop, lips[:EXAMPLES], FACE)
    arrays = stem_arrays() | heard | face.arrays() | pose_arrays(loop) | {"base": face_inputs(loop).T.numpy()}
    web.write_twice(folder, web.SPEECH, web.pack(arrays))
    web.write_twice(folder, web.SPEECH_CODE, speech_code().encode())
    (folder / web.SPEECH_LICENCE).write_text(LICENCE, encoding="utf-8")
    manifest = {"file": web.SPEECH, "code": web.SPEECH_CODE, "fps": avatar.fps, **about, "width": face.width,
                "lips": FACE, "frames": len(loop), "back": back}  # fmt: skip
    unseen = with_channels(loop[torch.linspace(0, len(loop) - 1, TRIED).long()], lips[EXAMPLES:], FACE)
    return manifest, unseen, face(face_inputs(unseen))


def lip_arrays(speech: SharedSpeech) -> tuple[dict[str, Any], web.Arrays]:
    """The network from features of speech to lip channels: its numbers for the manifest, and its arrays.

    Raises:
        AvatarError: It hears with other encoders than Whisper.
    """
    prior, lips = speech.prior, len(FACE)
    encoder = prior.encoder.parts[0]
    whole = isinstance(encoder, whisper.WhisperEncoder) and all(
        abs(seconds / _MEL_HOP / 2 - round(seconds / _MEL_HOP / 2)) < 1e-6 for seconds in (encoder.window, encoder.hop)
    )
    if not isinstance(encoder, whisper.WhisperEncoder) or len(prior.encoder.parts) > 1 or not whole:
        raise AvatarError(
            f"A web page cannot hear as this run does: by {prior.encoder.name}.",
            why="It hears by whisper alone, in steps of 20 ms.",
            fix="Leave out --speech-input, or train with a prior that hears so.",
        )
    closure, rest = LipClosure.of(speech.normalizer, speech.rest), speech.rest
    arrays = {
        "input_mean": prior.input_mean, "input_std": prior.input_std, "basis": prior.basis, "weights": prior.weights,
        "matrix": speech.normalizer.matrix[:, :lips], "bias": speech.normalizer.bias[:lips],
        "rest": rest[:lips], "gain": speech.gain[:lips], "direction": closure.direction[:lips],
        "opening": torch.from_numpy(opening_weights()),
    }  # fmt: skip
    if speech.correction is not None:
        arrays["correction"] = speech.correction[:, :lips]
    if prior.closure_weights is not None:
        arrays["closure"] = prior.closure_weights[:, None]
    about = {
        "channels": lips, "behind": prior.behind, "ahead": prior.ahead, "pause": speech.pause, "silence": SILENCE,
        "gap": closure.gap, "look_ahead": speech.look_ahead,
        "encoder": {"window": encoder.window, "hop": encoder.hop, "ahead": encoder.ahead, "rate": encoder.rate},
    }  # fmt: skip
    return about, {name: tensor.detach().float().numpy() for name, tensor in arrays.items()}


def stem_arrays() -> web.Arrays:
    """Whisper's front as it is stored, with numbers of 16 bits as 32."""
    stored = whisper.stored_stem()
    return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in stored.items()}


def base_loop(avatar: Avatar, stats: MotionStats) -> tuple[Motion, int]:
    """Make what moves under the lips: as `avatar render` begins, cross-faded so that it can go on without an end.

    Returns:
        Frames with the mouth at rest, and the frame that follows the last one.
    """
    count, fade = round(LOOP_SECONDS * avatar.fps), max(1, round(FADE_SECONDS * avatar.fps))
    plan = plan_motion(avatar, Controls(), frames=count, speech=_Silent(avatar, stats.rest, count))
    motion = Motion.cat(list(plan.stream([])))
    place = torch.cat([motion.head_rotation * 10, motion.head_translation, motion.torso_translation], 1)  # centimetres
    ends = range(max(2 * fade, count * 3 // 4), count + 1)
    end = min(ends, key=lambda end: float((place[end - fade : end] - place[:fade]).square().mean()))
    weight = torch.from_numpy(0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).float()
    joined = motion[end - fade : end].blend(motion[:fade], weight)
    return Motion.cat([motion[: end - fade], joined]), fade


class _Silent:
    """Lips at rest for some frames; implements `avatar.audio2motion.base.AudioToMotion` and its stream."""

    look_ahead = 0.0

    def __init__(self, avatar: Avatar, rest: Motion, count: int) -> None:
        self.fps, self._rest, self._count = avatar.fps, rest, count

    def open(self) -> _Silent:
        return self

    def push(self, samples: np.ndarray) -> Motion:
        return self._rest[:0]

    def finish(self) -> Motion:
        return self._rest[torch.zeros(self._count, dtype=torch.long)]


def example_lips(speech: SharedSpeech, stats: MotionStats, count: int) -> Tensor:
    """Lip channels [count, C]: as tracked, as the network would say them, and each on its way to rest."""
    rng = torch.Generator().manual_seed(1)
    tracked = mouth_channels(stats.track[torch.randint(len(stats.track), (count,), generator=rng)])
    spoken = speech.normalizer.restore(torch.from_numpy(speech.normalizer.normalise(tracked)))
    own = torch.rand(count, 1, generator=rng) < 0.5
    open_by = torch.rand(count, 1, generator=rng).mul(2).clamp(max=1)  # half of them are not on their way
    lips = torch.where(own, torch.from_numpy(tracked), spoken)[:, : len(FACE)]
    rest = speech.rest[: len(FACE)]
    return rest + open_by * (lips - rest)
