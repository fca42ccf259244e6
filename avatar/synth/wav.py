"""Write synthetic speech as wav files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from avatar.synth import speech
from avatar.writing import atomic_file


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write [N] float32 at ``speech.RATE`` as 16-bit WAV.

    Raises:
        OSError: The disk is full.
    """
    import soundfile

    try:
        soundfile.write(str(path), samples, speech.RATE, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def say_into_file(text: str, seed: int, path: Path) -> None:
    """Write text, spoken with silence before and after it, as 16-bit wav."""
    said = speech.join([speech.silence(0.3), speech.speak(text, seed=seed), speech.silence(0.5)])
    with atomic_file(path) as temporary:
        write_wav(temporary, said.samples)


def write_padded_wav(path: Path, samples: np.ndarray, seconds: float) -> None:
    """Write samples as 16-bit wav of a given length, cut or followed by silence."""
    whole = np.zeros(round(seconds * speech.RATE), np.float32)
    whole[: min(len(samples), len(whole))] = samples[: len(whole)]
    with atomic_file(path) as temporary:
        write_wav(temporary, whole)
