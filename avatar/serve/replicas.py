"""The replicas of a service: started, watched, started again where they die, and as many as there are listeners for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from avatar import log
from avatar.errors import AvatarError

POLL_SECONDS = 1.0
DEAF_SECONDS = 30.0  # without an answer, before a replica is ended
EMPTY_SECONDS = 300.0  # without a listener, before a replica that is not needed is ended
STOP_SECONDS = 2.0  # for a replica to hear that it is to end
MOST_UNBORN = 3  # replicas that die while they start, before it is given up
AGAIN_SECONDS = 2.0  # before a replica that died is started again; doubles each time, up to a minute


class Backend(Protocol):
    """Runs replicas; `avatar.serve.on_ray.RayBackend` is one."""

    async def start(self, name: str) -> tuple[Any, str, int]:
        """Start a replica: what it is to the backend, its address and port.

        Raises:
            AvatarError: It cannot serve what it is to serve.
            ReplicaDied: It ended before it listened.
        """
        ...

    async def wait(self, replica: Any) -> None:
        """Return when a replica has ended because it was stopped.

        Raises:
            ReplicaDied: It ended by itself.
        """
        ...

    async def stop(self, replica: Any) -> None:
        """Ask a replica to end all its sessions, and itself."""
        ...

    async def kill(self, replica: Any) -> None:
        """End what is left of a replica at once."""
        ...


class ReplicaDied(Exception):
    """A replica ended by itself."""


@dataclass(eq=False)
class Running:
    """A replica that listens.

    Attributes:
        name: Sessions of it have names that begin with this and a dot.
        handle: What it is to the backend.
        host, port: Where it listens.
        free: Places for listeners, as far as it is known.
        avatars: Names of those it serves.
        answered: Second of the monotonic clock at which it last answered.
        used: The same, at which it last had a listener.
        turn: Number of the listener that it was given last; of replicas with the same room, the lowest is next.
        stopping: Whether it was asked to end.
    """

    name: str
    handle: Any
    host: str
    port: int
    free: int
    answered: float
    used: float
    avatars: tuple[str, ...] = ()
    turn: int = 0
    stopping: bool = False


class Replicas:
    """Keeps replicas running.

    Args:
        backend: Runs them.
        least, most: How many there are.
        sessions: Listeners at once of each.
        ask: Asks a replica for its avatars and its free places, ``{"avatars": [...], "free": n}``.
        clock: Seconds that do not go backwards.
    """

    def __init__(
        self, backend: Backend, *, least: int, most: int, sessions: int,
        ask: Callable[[Running], Any], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._backend, self._least, self._most, self._sessions = backend, least, most, sessions
        self._ask, self._clock = ask, clock
        self._names = map("r{}".format, itertools.count(1))
        self._turns = itertools.count(1)
        self._running: dict[str, Running] = {}
        self._kept: dict[str, asyncio.Task[None]] = {}
        self._unborn = 0  # replicas that died before they listened
        self._watching: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self.closing = False

    async def start(self) -> None:
        """Start the replicas, and return when the first one listens.

        Raises:
            AvatarError: It cannot serve what it is to serve.
        """
        self._first = asyncio.get_running_loop().create_future()
        for _ in range(self._least):
            self._add()
        self._watching = asyncio.create_task(self._watch())
        await self._first

    async def close(self, seconds: float = 5.0) -> None:
        """End all replicas, with a word to their listeners."""
        self.closing = True
        if self._watching is not None:
            self._watching.cancel()
        for running in self.running:
            await self._stop(running)
        if self._kept:
            await asyncio.wait(self._kept.values(), timeout=seconds)
        for task in self._kept.values():
            task.cancel()
        await asyncio.gather(*self._kept.values(), return_exceptions=True)

    @property
    def running(self) -> list[Running]:
        """Those that listen."""
        return list(self._running.values())

    def of(self, session: str) -> Running | None:
        """Find the replica of a session by its name; None where it is gone."""
        return self._running.get(session.partition(".")[0]) if "." in session else None

    def by_room(self) -> list[Running]:
        """Those that take listeners, the one with most free places first."""
        return sorted((one for one in self.running if not one.stopping), key=lambda one: (-one.free, one.turn))

    def give(self, running: Running) -> None:
        """Note that a replica was given a listener; it says so itself only later."""
        running.free -= 1
        running.turn = next(self._turns)

    def _add(self) -> None:
        name = next(self._names)
        self._kept[name] = task = asyncio.create_task(self._keep(name))
        task.add_done_callback(lambda _: self._kept.pop(name, None))

    async def _keep(self, name: str) -> None:
        """Run a replica, and start it again when it dies."""
        pause = AGAIN_SECONDS
        while not self.closing:
            handle = None
            try:
                handle, host, port = await self._backend.start(name)
                now = self._clock()
                self._running[name] = Running(name, handle, host, port, self._sessions, answered=now, used=now)
                await self._refresh(self._running[name])
                pause = AGAIN_SECONDS
                if self._first is not None and not self._first.done():
                    self._first.set_result(None)
                await self._backend.wait(handle)
                return
            except ReplicaDied as error:
                self._unborn += handle is None
                if self._unborn >= MOST_UNBORN:
                    fix = "The same avatar-toolkit[ray,serve] must be installed on all its machines."
                    self._give_up(AvatarError("No replica starts on the Ray cluster:", why=str(error), fix=fix))
                if not self.closing:
                    log.warn(f"The replica {name} has ended: {error} Another one is started.")
            except AvatarError as error:
                self._give_up(error)
                log.warn(f"The replica {name} cannot serve: {error}")
            finally:
                self._running.pop(name, None)
                if handle is not None:
                    await asyncio.shield(self._backend.kill(handle))
            await asyncio.sleep(pause)
            pause = min(60.0, 2 * pause)

    def _give_up(self, error: AvatarError) -> None:
        """Let `start` fail, if nothing was ever served."""
        if self._first is not None and not self._first.done():
            self.closing = True
            self._first.set_exception(error)

    async def _watch(self) -> None:
        while True:
            now = self._clock()  # before they are asked: whoever answers then is not deaf, however late this goes on
            await asyncio.gather(*map(self._refresh, self.running))
            for running in self.running:
                if now - running.answered > DEAF_SECONDS:
                    log.warn(f"The replica {running.name} does not answer, and is ended.")
                    running.answered = now
                    await self._backend.kill(running.handle)
            await self._scale(now)
            await asyncio.sleep(POLL_SECONDS)

    async def _refresh(self, running: Running) -> None:
        with suppress(Exception):  # what does not answer is noticed by the time since it did
            answer = await self._ask(running)
            running.answered = self._clock()
            running.free, running.avatars = int(answer["free"]), tuple(answer["avatars"])
            if running.free < self._sessions:
                running.used = running.answered

    async def _scale(self, now: float) -> None:
        """Start a replica before the last place is taken; end one that has been empty for long."""
        taking = self.by_room()
        spare = max(1, self._sessions // 2)
        free = sum(running.free for running in taking)
        starting = len(self._kept) - len(self._running)
        if free < spare and not starting and len(self._kept) < self._most:
            self._add()
        empty = [one for one in taking if now - one.used > EMPTY_SECONDS]
        if empty and len(taking) > self._least and free - self._sessions >= spare:
            await self._stop(empty[-1])

    async def _stop(self, running: Running) -> None:
        running.stopping = True
        with suppress(asyncio.TimeoutError):  # it hangs
            await asyncio.wait_for(self._backend.stop(running.handle), STOP_SECONDS)
