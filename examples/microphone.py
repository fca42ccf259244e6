"""A live avatar that repeats what a microphone hears, with a delay of about a quarter of a second.

    arecord -q -t raw -f S16_LE -r 16000 -c 1 | python examples/microphone.py runs/me        # Linux
    sox -q -d -t raw -e signed -b 16 -r 16000 -c 1 - | python examples/microphone.py runs/me  # macOS
    python examples/microphone.py runs/me --audio speech.wav                                  # no microphone at hand

Any program that writes 16-bit samples at 16 kHz, mono, is a source. Press Escape in the window to stop.
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tyro
from tyro.conf import Positional

from avatar import Avatar, Controls, Session
from avatar.io.audio import load_audio

PIECE = 320  # samples: 20 ms


def pieces(audio: Path | None) -> Iterator[np.ndarray]:
    """Audio as it comes: from standard input, or from a file at the pace of a clock."""
    if audio is None:
        while data := sys.stdin.buffer.read(2 * PIECE):
            yield np.frombuffer(data, np.int16).astype(np.float32) / 32768
    else:
        samples, began = load_audio(audio), time.monotonic()
        for i in range(0, len(samples), PIECE):
            time.sleep(max(0.0, began + (i + PIECE) / 16000 - time.monotonic()))
            yield samples[i : i + PIECE]


def main(run: Positional[Path], audio: Path | None = None, size: int = 384) -> None:
    """Show the avatar in a window until the audio ends."""
    avatar = Avatar.load(run)
    high = round(size * avatar.camera.height / avatar.camera.width)
    session = Session(avatar, Controls(gaze=("camera",)), avatar.camera.resized(size, high))
    source = threading.Thread(target=lambda: [session.push_audio(piece) for piece in pieces(audio)], daemon=True)
    source.start()
    while source.is_alive() or session.waiting_seconds:
        for frame in session.step(time.monotonic()):
            cv2.imshow("avatar", frame.image[..., ::-1])  # frame.audio is what belongs to it, for a loudspeaker
        if cv2.waitKey(5) == 27:
            break


if __name__ == "__main__":
    tyro.cli(main)
