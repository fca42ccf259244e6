"""How well lips follow the held-out audio of a run when it is softer or louder than the person's recording.

``python -m pipelines.audio_level RUN [RUN ...]``: correlation of the lip opening with the tracked one, for each gain in
dB, of files that `avatar render` would speak, and of the same files taken as they are.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from avatar.audio2motion.base import AudioToMotion, drive
from avatar.audio2motion.load import load_speech
from avatar.audio2motion.pauses import opening_correlation
from avatar.data.run import open_person
from avatar.errors import AvatarError
from avatar.infer.replay import audio_second
from avatar.infer.sources import AudioFile
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.motion import Motion
from avatar.motion.mouth import mouth_channels

GAINS = (0.0, -40.0, -25.0, -15.0, -6.0, 6.0, 12.0)  # dB; louder ones clip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure lips of soft and loud audio."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """RUN folders, trained with audio."""
    speech: str = "auto"
    """The speech network: auto, personal, shared or streaming."""


def measure(run: Path, which: str) -> dict[float, dict[str, float | None]]:
    """By the gain in dB: the correlation with the level brought to the person's, and with the audio as it is.

    Raises:
        AvatarError: The run cannot be read, or its video has no audio.
    """
    data = open_person(run)
    if not data.info.has_audio:
        raise AvatarError(f"{run} was trained on a video without audio.", fix="Give another run.")
    model, first = load_speech(run, data.fps, which), data.test_start
    begin = round(audio_second(data, first) * SAMPLE_RATE)
    samples = load_audio(data.audio_path)[max(0, begin) :]
    motion = data.motion[first : data.num_frames]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for gain in GAINS:
            path = Path(folder) / f"{gain:g}.wav"
            write_wav(path, np.clip(samples * np.float32(10 ** (gain / 20)), -1, 1))
            audio = AudioFile(path)
            found[gain] = {
                "at the person's level": _follows(model, audio, motion, audio.voice_db),
                "as it is": _follows(model, AudioFile(path), motion, None),
            }
    return found


def _follows(model: AudioToMotion, audio: AudioFile, motion: Motion, voice_db: float | None) -> float | None:
    """Correlation of the opening with the tracked one; None where the lips do not move at all."""
    spoken = Motion.cat(list(drive(model, audio, voice_db)))
    count = min(len(spoken), len(motion))
    seen = motion.valid[:count].numpy()
    found = opening_correlation(*(mouth_channels(part[:count])[seen] for part in (spoken, motion)))
    return round(found, 3) or None


def main(config: Config) -> None:
    """Print one line of JSON for each run."""
    for run in config.runs:
        about: dict[str, Any] = {"run": run.name, "speech": config.speech}
        print(json.dumps(about | {"gains": measure(run, config.speech)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
