"""An answer on its way to the mouth: text is cut into sentences, and each is spoken while the next one is written."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from avatar.io.audio import SAMPLE_RATE
from avatar.serve.voice import Voice

LEAST_SENTENCE = 10  # characters; what is shorter waits for the next one
MOST_SENTENCE = 240  # characters; then it is cut at a comma or a blank
_END = re.compile(r"""[.!?…][.!?…"'”’)\]]*(?=\s)|[。！？]|\n""")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|z\.B|[ei]\.[eg])\.$")
_MARKUP = re.compile(r"[*_`#~|<>\[\]{}\\]+")  # what nobody says
_CUT = re.compile(r".*[,;:–]\s|.*\s", re.DOTALL)


class Sentences:
    """Cut text that comes in pieces into sentences."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """Take a piece; return the sentences that are complete with it."""
        self._rest += text
        found: list[str] = []
        at = 0
        for match in _END.finditer(self._rest):
            sentence = self._rest[at : match.end()]
            line = match.group() == "\n"
            if not line and (len(sentence.strip()) < LEAST_SENTENCE or _ABBREVIATION.search(sentence)):
                continue
            found.append(sentence)
            at = match.end()
        self._rest = self._rest[at:]
        while len(self._rest) > MOST_SENTENCE:
            cut = _CUT.match(self._rest[:MOST_SENTENCE])
            end = cut.end() if cut else MOST_SENTENCE
            found.append(self._rest[:end])
            self._rest = self._rest[end:]
        return _speakable(found)

    def finish(self) -> list[str]:
        """Return what is left."""
        rest, self._rest = self._rest, ""
        return _speakable([rest])


def _speakable(sentences: list[str]) -> list[str]:
    """Without markup, and without what has nothing to say."""
    cleaned = (" ".join(_MARKUP.sub(" ", sentence).split()) for sentence in sentences)
    return [sentence for sentence in cleaned if any(c.isalnum() for c in sentence)]


class _Said(NamedTuple):
    """From which sample on something was said."""

    start: int
    text: str


class Answer:
    """A queue of sentences and audio, read by the thread that pushes segments.

    Args:
        voice: Says sentences.
    """

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._queue: queue.SimpleQueue[str | np.ndarray | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._said: list[_Said] = []
        self._captions = ""  # text that came with audio
        self._samples = 0

    def add(self, piece: str | np.ndarray) -> None:
        """Say a sentence, or audio [N], float32, 16 kHz mono, after what was added before."""
        self._queue.put(piece)

    def caption(self, text: str) -> None:
        """Note text that goes with the audio."""
        self._captions += text

    def end(self) -> None:
        """Nothing more comes."""
        self._queue.put(None)

    def close(self) -> None:
        """Stop; nobody hears the rest."""
        self._closed.set()
        self._queue.put(None)

    def pieces(self) -> Iterator[np.ndarray]:
        """Audio [N], float32, 16 kHz mono, piece by piece; waits for what is added."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, str):
                self._said.append(_Said(self._samples, item))
                sounds = self._voice.say(item)
            else:
                sounds = iter((item,))
            for sound in sounds:
                if self._closed.is_set():
                    return
                self._samples += len(sound)
                yield sound
            if self._closed.is_set():
                return

    def played_text(self, milliseconds: int) -> str:
        """Text of what was played in that time: sentences that had begun, or a share of the captions."""
        samples = milliseconds * SAMPLE_RATE / 1000
        if samples <= 0:
            return ""
        if self._said:
            return " ".join(said.text for said in self._said if said.start < samples)
        share = min(1.0, samples / max(1, self._samples))
        return self._captions[: round(share * len(self._captions))]
