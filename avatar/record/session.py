"""One person in front of the camera: consent, recordings prompt by prompt, and the tracks at the end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avatar import __version__, log
from avatar.checks import can_be_shown
from avatar.corpus.sync import ALONE, Offset
from avatar.corpus.tracks import Take, write_tracks
from avatar.errors import AvatarError
from avatar.record.checks import Finding
from avatar.record.examine import Examiner, in_step
from avatar.record.prompts import FIRST, LAST, Prompt
from avatar.record.recordings import kept_for_now
from avatar.record.statement import AGREEMENT, STATEMENT, as_agreed
from avatar.writing import atomic_dir

LEAST_SECONDS = 30.0  # of usable tracks, below which nothing is written: `prior train` needs as much
MOST_NAME = 100  # characters
DRIFT_SECONDS = 0.08  # of delay, or between first and last text, beyond which it is said
State = Literal["open", "waiting", "good", "refused"]


@dataclass
class Try:
    """The newest recording of a prompt.

    Attributes:
        number: Of all recordings; an older one of the same prompt does not count.
        state: "waiting": it is being tracked.
        message: What is wrong with it.
        take: What is kept of it.
    """

    number: int
    state: State = "waiting"
    message: str = ""
    take: Take | None = None


class RecordingSession:
    """What the page shows and does; safe to use from several threads.

    Args:
        examiner: Tracks and judges.
        prompts: What is to be said, in order.
        out: Folder to write.
        language: Of the sentences, two letters.

    Attributes:
        name: Of who agreed; empty without consent.
        declined: Whether consent was withheld.
        result: What was written; None before.
    """

    def __init__(self, examiner: Examiner, prompts: Sequence[Prompt], out: Path, language: str) -> None:
        self.examiner, self._out, self._language = examiner, out, language
        self._prompts = {prompt.name: prompt for prompt in prompts}
        self._tries: dict[str, Try] = {}
        self._lock = threading.RLock()
        self._count, self._closed = 0, False
        self._pool = ThreadPoolExecutor(1, "avatar-record")
        self.name = ""
        self.result: dict[str, Any] | None = None
        self.declined = False

    # --- consent ---

    def agree(self, name: str, agreed: bool) -> None:
        """Note the consent.

        Args:
            name: Of the person, or a pseudonym.
            agreed: Whether all of `AGREEMENT` was ticked.

        Raises:
            AvatarError: It was not, or the name is missing.
        """
        name = " ".join(name.split())
        if not agreed:
            raise AvatarError("Nothing is recorded without your consent.", fix="Tick all of it, or leave.")
        if len(name) > MOST_NAME or not can_be_shown(name):
            raise AvatarError("A name is missing.", fix=f"Give yours or any pseudonym, of at most {MOST_NAME} letters.")
        self.name = name

    def decline(self) -> None:
        """Note that there is no consent; what was tracked is forgotten, and what was just written is removed."""
        with self._lock:
            self._tries.clear()
            self.name, self.declined = "", True
            if self.result is not None:
                shutil.rmtree(self._out)
                self.result = None  # only now: where removing fails, leaving once more tries again

    # --- recording ---

    def look(self, image: np.ndarray) -> Future[list[Finding]]:
        """Judge an image of the camera, uint8 RGB [H, W, 3].

        Raises:
            AvatarError: There is no consent.
        """
        self._require_consent()
        return self._pool.submit(self.examiner.look, image)

    def record(self, name: str, data: bytes, suffix: str) -> None:
        """Take the recording of a prompt, and track it in the background.

        Args:
            name: Of the prompt.
            data: The video file.
            suffix: Ending of its name, which says what it is.

        Raises:
            AvatarError: There is no consent, or no such prompt.
        """
        self._require_consent()
        if name not in self._prompts:
            raise AvatarError(f"There is no prompt {name}.")
        with self._lock:
            self._count += 1
            one = self._tries[name] = Try(self._count)
        self._pool.submit(self._examine, name, one, data, suffix)

    def _examine(self, name: str, one: Try, data: bytes, suffix: str) -> None:
        try:
            with kept_for_now(data, suffix) as path:
                take = self.examiner.take(path, self._prompts[name].text)
        except AvatarError as error:
            self._refuse(one, str(error))
        except Exception as error:  # a decoder that trips over one recording must not end the session
            log.warn(f"A recording cannot be tracked: {type(error).__name__}: {error}")
            self._refuse(one, "This recording cannot be read. Say it again.")
        else:
            with self._lock:
                one.state, one.take = "good", take

    def _refuse(self, one: Try, message: str) -> None:
        with self._lock:
            one.state, one.message = "refused", message

    def _takes(self) -> dict[str, Take]:
        """What was tracked, by prompt, in their order."""
        with self._lock:
            return {n: one.take for n in self._prompts if (one := self._tries.get(n)) and one.take is not None}

    def _doubts(self) -> dict[str, str]:
        """Takes that are not in step, and why. Short ones are judged together, so they have to be enough for that."""
        takes = self._takes()
        short = sum(take.mouth.seconds for take in takes.values() if take.mouth.seconds < ALONE)
        found = {name: offset.doubt for name, offset in in_step(takes).items() if offset.doubt}
        few = {name for name in found if takes[name].mouth.seconds < ALONE} if short < ALONE else set[str]()
        return {name: doubt for name, doubt in found.items() if name not in few or name == FIRST}

    # --- what the page shows ---

    def state(self) -> dict[str, Any]:
        """Everything that the page shows, for JSON."""
        with self._lock:
            doubts = self._doubts()
            rows = [self._row(prompt, doubts.get(prompt.name, "")) for prompt in self._prompts.values()]
            waiting = sum(one.state == "waiting" for one in self._tries.values())
            return {
                "statement": [list(part) for part in STATEMENT], "agreement": list(AGREEMENT),
                "agreed": bool(self.name), "prompts": rows, "waiting": waiting, "least": LEAST_SECONDS,
                "seconds": round(sum(row["seconds"] for row in rows), 1), "result": self.result,
            }  # fmt: skip

    def _row(self, prompt: Prompt, doubt: str) -> dict[str, Any]:
        one = self._tries.get(prompt.name)
        state, message = ("open", "") if one is None else ("refused", doubt) if doubt else (one.state, one.message)
        seconds = one.take.mouth.seconds if one is not None and one.take is not None and not doubt else 0.0
        return {"name": prompt.name, "kind": prompt.kind, "text": prompt.text, "state": state, "message": message,
                "seconds": round(seconds, 2)}  # fmt: skip

    # --- the end ---

    def finish(self) -> dict[str, Any]:
        """Wait for what is being tracked, judge audio and video of all together, and write the folder.

        Returns:
            What was written, for the page.

        Raises:
            AvatarError: There is no consent, or no longer; too little can be used; the folder cannot be written.
        """
        self._require_consent()
        self._pool.submit(int).result()  # behind all that waits
        takes = self._takes()
        placed = in_step(takes) if takes else {}
        used = {name: take for name, take in takes.items() if not placed[name].doubt}
        seconds = sum(take.mouth.seconds for take in used.values())
        if seconds < LEAST_SECONDS:
            doubts = sorted({placed[name].doubt for name in takes if placed[name].doubt})
            raise AvatarError(f"Only {seconds:.0f} s can be used;", why=f"{LEAST_SECONDS:g} s are needed at least.",
                              fix=" ".join([*doubts, "Go on recording."]))  # fmt: skip
        sync = _sync(used, placed)
        left_out = [f"{takes[name].text}: {placed[name].doubt}" for name in takes if name not in used]
        result = {"folder": str(self._out), "takes": len(used), "seconds": round(seconds, 1), "left_out": left_out,
                  "sync": sync}  # fmt: skip
        with self._lock:
            self._require_consent()  # it may have been withdrawn meanwhile
            about = self._about(sync)
        with ExitStack() as held:
            with atomic_dir(self._out) as folder:
                write_tracks(folder, list(used.values()), self.examiner.prior, about)
                held.enter_context(self._lock)  # until the folder has its name: later, `decline` removes it
                self._require_consent()
            self.result = result
        return result

    def _about(self, sync: dict[str, Any]) -> dict[str, Any]:
        return {
            "statement": as_agreed(), "name": self.name, "given": date.today().isoformat(), "language": self._language,
            "made_by": f"avatar-toolkit {__version__}", "sync": sync,
        }  # fmt: skip

    def close(self) -> None:
        """Stop; what waits is dropped, and the recording that is being tracked is deleted before this returns.

        Tracks that are just being written are written before it returns, or never.
        """
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._pool.shutdown(cancel_futures=True)
            self.examiner.close()

    def _require_consent(self) -> None:
        if not self.name or self.declined or self._closed:
            raise AvatarError("Nothing is recorded without your consent.")


def _sync(takes: dict[str, Take], placed: dict[str, Offset]) -> dict[str, Any]:
    """Delay of the first and the last text, of all others, and what to think of it."""
    delays = {name: round(placed[name].audio_delay_s, 3) for name in takes}
    between = [delay for name, delay in delays.items() if name not in (FIRST, LAST)]
    found = {"first_s": delays.get(FIRST), "last_s": delays.get(LAST),
             "others_s": round(float(np.median(between)), 3) if between else None}  # fmt: skip
    known = [value for value in found.values() if value is not None]
    apart = max(known) - min(known)
    text = "Audio and video are in step."
    if abs(known[0]) > DRIFT_SECONDS:
        text = f"Audio comes {1000 * known[0]:+.0f} ms after the video; that is corrected by itself."
    if apart > DRIFT_SECONDS:
        text = f"Audio and video moved apart by {1000 * apart:.0f} ms in between; that is corrected for each text."
    return {**found, "text": text}
