"""A voice agent with a face in one file: you write, the face answers in a window, and stops when you write again.

    python examples/voice_agent.py runs/me

Put a language model into ``answer``. Whole agents of pipecat and LiveKit are in ``examples/agents``.
"""

import sys
import threading
import time
from pathlib import Path

import cv2
import soxr
import tyro
from tyro.conf import Positional

from avatar import Avatar, Controls, Session
from avatar.io.text_to_speech import TextToSpeech, open_tts


def answer(text: str) -> str:
    """What the agent says; a language model belongs here."""
    return f"You said: {text}"


def say(session: Session, voice: TextToSpeech, text: str, stopped: threading.Event) -> None:
    """Push the audio of a text, piece by piece, as a service on the network would send it."""
    for piece in voice.speak(text):
        samples = soxr.resample(piece, voice.sample_rate, 16000)
        while len(samples) and not stopped.wait(0.01):  # a minute may wait: the rest follows as it is said
            samples = samples[session.push_audio(samples) :]
    if not stopped.is_set():
        session.end_utterance()


def converse(session: Session, voice: TextToSpeech) -> None:
    """Answer each line; a new one interrupts what is being said."""
    stopped = threading.Event()
    for line in sys.stdin:
        stopped.set()
        if (played := session.interrupt()).seconds:
            print(f"(stopped after {played.seconds:.1f} s)")
        stopped = threading.Event()
        threading.Thread(target=say, args=(session, voice, answer(line.strip()), stopped), name="agent").start()


def main(run: Positional[Path], tts: str = "hibari") -> None:
    """Show the agent in a window until standard input ends."""
    session = Session(Avatar.load(run), Controls(gaze=("camera",), emotion=("happy:0.2",)), flush_seconds=None)
    threading.Thread(target=converse, args=(session, open_tts(tts)), name="agent", daemon=True).start()
    while session.waiting_seconds or any(thread.name == "agent" for thread in threading.enumerate()):
        for frame in session.step(time.monotonic()):
            cv2.imshow("agent", frame.image[..., ::-1])  # frame.audio belongs to it: send or play both
        cv2.waitKey(5)


if __name__ == "__main__":
    tyro.cli(main)
