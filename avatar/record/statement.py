"""What somebody is told before anything is recorded, and agrees to; it goes into the tracks word by word."""

from __future__ import annotations

STATEMENT = (
    ("What is recorded",
     "Your camera and your microphone, only while a red frame is around your image. They go to the program that you "
     "started on this computer, and nowhere else. Nothing is uploaded."),
    ("What is kept",
     "Numbers. About 30 times a second: how your mouth opens, widens and rounds, 52 numbers for the parts of your face "
     "(jaw, cheeks, brows, lids, gaze), and how your head is turned. 25 times a second: 96 speech features, which the "
     "first layers of a speech recogniser (Whisper) give. Also the sentences that you read, the name that you give "
     "below, the date, and what the checks said."),
    ("What is not kept",
     "Images and audio. Each recording is deleted as soon as its numbers are made. Should this program be killed "
     "before, its next start deletes what was left and says so."),
    ("What these numbers tell",
     "How your face looks is not in them: nobody can make your face from them. Speech features are another matter. "
     "In a trial, a simple program got about two thirds of the changes of the audio's spectrum back from them. So "
     "what you say can be read out of them, and perhaps be made audible again. How much that would resemble your voice "
     "is not known. Whoever has other recordings of you may recognise you. So say nothing that is private."),
    ("What you give",
     "You put the tracks into the public domain (CC0 1.0, creativecommons.org/publicdomain/zero/1.0). Anybody may use "
     "them for anything, such as training models that move the lips of avatars, without asking or naming you. "
     "This cannot be taken back from those who have a copy. Nobody gets one until you pass the folder on."),
)  # fmt: skip
AGREEMENT = (
    "I am the person who is recorded, and I am of age.",
    "I have read this, and I give the tracks under CC0 1.0.",
)


def as_agreed() -> list[str]:
    """The statement as lines, for the record."""
    return [*(f"{heading}: {text}" for heading, text in STATEMENT), *AGREEMENT]
