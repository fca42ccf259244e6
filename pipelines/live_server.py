"""Serve as `avatar serve` does, with a number drawn into every image and a record of what it shows.

Only `python -m pipelines.live_check` starts this; the command line of users has no such thing. Sessions are those of
the service, but for a row of black and white cells in the upper left corner of each image. The cells are the number of
the frame in 16 bits, and a check in 8. A page that reads it knows which frame it shows. Below ``/live-check/`` are the
record of frames, a door for audio in pieces, and the audio worklet that measures loudness.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from aiohttp import WSMsgType, web
from aiortc import rtcrtpsender

from avatar.infer import session as sessions
from avatar.infer.session import Session, Undrawn
from avatar.infer.utterances import Played, Taken, Utterances
from avatar.motion import Motion
from avatar.motion.mouth import FACE, opening_weights
from avatar.serve import app as service
from avatar.serve import character, hub, tracks, webrtc
from avatar.serve import listener as listeners

CELLS, BITS, CHECK_BITS = 26, 16, 8  # white, black, number, check
LEAST_CELL, CELLS_IN_WIDTH = 8, 32  # pixels; a cell is a 32nd of the width
KEPT = 4096  # newest frames of a session: the record must not grow, because memory is measured too
KEPT_PIECES = 100_000  # newest pieces of audio of a session, half an hour; a feed begins anew
PROBES = {name: Path(__file__).with_name(name) for name in ("live_tap.js",)}
_WEIGHTS = opening_weights()


class Row(NamedTuple):
    """What is known of a frame.

    Attributes:
        number: That in the image.
        pts: Second of the session.
        heard: Samples that were pushed into the session up to the end of this frame's audio.
        real: How many of the frame's samples were pushed; the others are silence.
        drawn: Milliseconds since 1970 at which its image was there.
        opening: Gap between the lips, centimetres.
    """

    number: int
    pts: float
    heard: int
    real: int
    drawn: float
    opening: float


def cell_size(width: int) -> int:
    """Pixels of a cell's side."""
    return max(LEAST_CELL, width // CELLS_IN_WIDTH)


def check_of(number: int) -> int:
    """Eight bits that a misread number does not have."""
    return (number ^ (number >> 8) ^ 0xA5) * 7 & 0xFF


def draw_mark(image: np.ndarray, number: int) -> None:
    """Draw a number of 16 bits into the upper left corner of an image, uint8 [H, W, 3]."""
    bits = f"10{number:0{BITS}b}{check_of(number):0{CHECK_BITS}b}"
    cell = cell_size(image.shape[1])
    row = np.repeat(np.frombuffer(bits.encode(), np.uint8) - ord("0"), cell) * 255
    image[:cell, : len(row)] = row[None, :, None]


def read_mark(image: np.ndarray) -> int | None:
    """The number in an image, uint8 [H, W, 3]; None where there is none that can be read."""
    cell = cell_size(image.shape[1])
    middles = image[cell // 2, cell // 2 : CELLS * cell : cell].astype(float).mean(-1)
    if len(middles) < CELLS or middles[0] - middles[1] < 60:
        return None
    threshold = (middles[0] + middles[1]) / 2
    value = int("".join("1" if middle > threshold else "0" for middle in middles[2:]), 2)
    number, check = value >> CHECK_BITS, value & 0xFF
    return number if check == check_of(number) else None


@dataclass(frozen=True)
class CountedTaken(Taken):
    """What belongs to one frame, with the number of samples that were pushed up to its end."""

    heard: int = 0


class CountedUtterances(Utterances):
    """Utterances that count samples, those that were pushed and those that were taken."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pushed = self.taken = 0
        _ALL.append(self)

    def push(self, samples: np.ndarray) -> int:
        count = super().push(samples)
        self.pushed += count
        return count

    def interrupt(self) -> Played:
        played = super().interrupt()
        self.taken = self.pushed
        return played

    def take(self, samples: int, now: float, at_once: bool = False) -> Taken:
        taken = super().take(samples, now, at_once)
        self.taken += taken.real
        return CountedTaken(**vars(taken), heard=self.taken)


class MarkedSession(Session):
    """A session whose images carry the number of their frame."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        ROWS[self] = deque(maxlen=KEPT)
        PIECES[self] = deque(maxlen=KEPT_PIECES)
        COUNTS[self] = _ALL.pop()

    def draw(self, frame: Undrawn, motion: Motion | None = None) -> np.ndarray:
        image = super().draw(frame, motion)
        image = image if image.flags.writeable else image.copy()
        number = frame.due.index % (1 << BITS)
        draw_mark(image, number)
        taken = frame.due.taken
        heard = taken.heard if isinstance(taken, CountedTaken) else 0
        opening = float(frame.due.lips.face[0, FACE].numpy() @ _WEIGHTS)
        row = Row(number, round(frame.pts, 4), heard, taken.real, round(1000 * time.time(), 2), round(opening, 4))
        ROWS[self].append(row)
        return image


class Piece(NamedTuple):
    """What became of a piece of a microphone's audio.

    Attributes:
        pushed: Samples that were pushed into the session up to its end.
        left_out: Its samples that were left out of a pause, so that a late microphone is on time again.
        lost: Its samples that there was no room for, or that nobody wanted.
    """

    pushed: int
    left_out: int
    lost: int


class CountedCatchingUp(listeners.CatchingUp):
    """Leaves out pauses, and counts the samples of them."""

    left_out = 0

    def kept(self, samples: np.ndarray, waiting: float) -> np.ndarray:
        found = super().kept(samples, waiting)
        self.left_out += len(samples) - len(found)
        return found


class CountedListener(listeners.Listener):
    """A listener whose pieces of audio are followed."""

    @property
    def _left_out(self) -> int:
        return self._catching_up.left_out if isinstance(self._catching_up, CountedCatchingUp) else 0

    def push_microphone(self, samples: np.ndarray) -> None:
        count, left_out = COUNTS[self.session], self._left_out
        before = count.pushed
        super().push_microphone(samples)
        left_out = self._left_out - left_out
        lost = len(samples) - left_out - (count.pushed - before)
        PIECES[self.session].append(Piece(count.pushed, left_out, lost))


_ALL: deque[CountedUtterances] = deque(maxlen=1)  # of the session that is being made
ROWS: WeakKeyDictionary[Session, deque[Row]] = WeakKeyDictionary()
PIECES: WeakKeyDictionary[Session, deque[Piece]] = WeakKeyDictionary()
COUNTS: WeakKeyDictionary[Session, CountedUtterances] = WeakKeyDictionary()
FIRST_AUDIO: list[float] = []  # second of the session of each connection's first packet of audio


class CountedTrack(tracks.SpeechTrack):
    """A track that notes at which second of the session its time stamps begin."""

    _begun = False

    async def recv(self):  # PyAV's type
        frame = await super().recv()
        if not self._begun:
            self._begun = True
            assert frame.pts is not None and frame.time_base is not None
            FIRST_AUDIO.append(float(frame.pts * frame.time_base))
        return frame


def random32() -> int:
    """aiortc's random numbers, but time stamps of RTP count from 0: so a page can tell which second is played."""
    return 0 if sys._getframe(1).f_code.co_name == "_run_rtp" else _random32()  # pyright: ignore[reportPrivateUsage]


def _session(request: web.Request) -> Session:
    guest = request.app[service.HUB].guests.get(request.match_info["session"])
    if guest is None:
        raise web.HTTPNotFound(text="There is no such session, or it is over.")
    return guest.listener.session


async def frames(request: web.Request) -> web.Response:
    """Rows of the record, from second ``since`` of the session on, and with ``pieces`` those of audio."""
    session, since = _session(request), float(request.query.get("since", "-1"))
    rows = [row for row in tuple(ROWS[session]) if row.pts > since]
    content: dict[str, Any] = {"rows": rows, "first_audio": FIRST_AUDIO[-1] if FIRST_AUDIO else 0.0}
    if "pieces" in request.query:
        content["pieces"] = list(PIECES[session])
    return web.json_response(content)


async def feed(request: web.Request) -> web.WebSocketResponse:
    """Take audio in pieces, 16 kHz mono int16, as a microphone's; the avatar says it.

    A text asks what became of the pieces; see `Piece`.
    """
    session, guest = _session(request), request.app[service.HUB].guests[request.match_info["session"]]
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    guest.listener.echo(True)
    PIECES[session].clear()
    await socket.send_json({"pushed": COUNTS[session].pushed})
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            guest.active = time.monotonic()
            guest.listener.push_microphone(np.frombuffer(message.data, "<i2").astype(np.float32) / 32768)
        elif message.type is WSMsgType.TEXT:
            await socket.send_json({"pieces": list(PIECES[session])})
    guest.listener.echo(False)
    return socket


async def probe(request: web.Request) -> web.Response:
    """The audio worklet of the measurement."""
    path = PROBES[request.match_info["name"]]
    return web.Response(body=path.read_bytes(), content_type="text/javascript", charset="utf-8")


def install() -> None:
    """Let the service make marked sessions, and answer below ``/live-check/``."""
    make_app = service.make_app

    def with_probes(served: Any) -> web.Application:
        app = make_app(served)
        app.router.add_get("/live-check/frames/{session}", frames)
        app.router.add_get("/live-check/feed/{session}", feed)
        app.router.add_get("/live-check/{name:" + "|".join(PROBES) + "}", probe)
        return app

    service.make_app = with_probes
    sessions.Utterances = CountedUtterances
    character.Session = MarkedSession
    hub.Listener, listeners.CatchingUp = CountedListener, CountedCatchingUp
    webrtc.SpeechTrack = CountedTrack
    rtcrtpsender.random32 = random32


_random32 = rtcrtpsender.random32


def main() -> int:
    """Serve with the options of `avatar serve`."""
    from avatar.cli.main import main as avatar

    install()
    return avatar(["serve", *itertools.islice(sys.argv, 1, None)])


if __name__ == "__main__":
    sys.exit(main())
