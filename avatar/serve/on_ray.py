"""Serve on a Ray cluster: replicas are actors, and this process is their front."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from avatar import log
from avatar.cluster import LOCAL, THREADS, connected
from avatar.errors import AvatarError
from avatar.serve.access import check_settings
from avatar.serve.front import make_front
from avatar.serve.replica import Cast, Replica
from avatar.serve.replicas import ReplicaDied

if TYPE_CHECKING:
    from avatar.serve.hub import Settings
    from avatar.serve.start import Place

AT_ONCE = 4  # calls that an actor takes: one waits for its end


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where replicas run.

    Attributes:
        address: Of a Ray cluster; see `avatar.cluster.connected`.
        least, most: How many replicas there are.
        processors: Of each; so many threads render in it.
    """

    address: str = LOCAL
    least: int = 2
    most: int = 2
    processors: int = 1

    def check(self) -> None:
        """Refuse numbers out of range.

        Raises:
            AvatarError: One is.
        """
        if not 1 <= self.least <= self.most <= 1000:
            raise AvatarError(
                f"--replicas {self.least} and --max-replicas {self.most} do not go together.",
                fix="Give 1 or more, and no smaller maximum.",
            )
        if not 1 <= self.processors <= 256:
            raise AvatarError(f"--replica-cpus {self.processors} is out of range.", fix="It goes from 1 to 256.")


class RayBackend:
    """Runs replicas as Ray actors.

    Args:
        ray: The module, connected.
        cluster: Where they run.
        cast: What they serve.
        settings: How. Their token is that of the front alone.
    """

    def __init__(self, ray: Any, cluster: Cluster, cast: Cast, settings: Settings) -> None:
        self._ray, self._cast, self._settings = ray, cast, settings
        self._here = cluster.address == LOCAL
        self._actor = ray.remote(
            num_cpus=cluster.processors, num_gpus=1 if cast.device == "cuda" else 0, max_concurrency=AT_ONCE
        )(Replica)

    async def start(self, name: str) -> tuple[Any, str, int]:
        actor = self._actor.remote(self._cast, replace(self._settings, prefix=f"{name}."))
        try:
            host, port = await actor.start.remote(self._here)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, AvatarError):
                raise error.cause from None
            raise ReplicaDied(_why(error)) from None
        except self._ray.exceptions.RayError as error:
            raise ReplicaDied(_why(error)) from None
        return actor, host, port

    async def wait(self, replica: Any) -> None:
        try:
            await replica.run.remote()
        except self._ray.exceptions.RayError as error:
            raise ReplicaDied(_why(error)) from None

    async def stop(self, replica: Any) -> None:
        try:
            await replica.stop.remote()
        except self._ray.exceptions.RayError:
            return  # it has ended

    async def kill(self, replica: Any) -> None:
        self._ray.kill(replica)


def serve_on_ray(cluster: Cluster, cast: Cast, settings: Settings, place: Place) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        cluster: Where the replicas run.
        cast: What they serve.
        settings: How; ``sessions`` are those of each replica.
        place: Where the front listens.

    Raises:
        AvatarError: The settings are unsafe, the address is taken, Ray or its cluster is missing, or no avatar loads.
    """
    from avatar.serve.start import run

    cluster.check()
    check_settings(settings)
    place.listen().close()  # a port that is taken is told before Ray is started
    threads = dict.fromkeys(THREADS, str(cluster.processors))
    inner = replace(settings, token=secrets.token_urlsafe(24), host="127.0.0.1", origins=())
    with connected(cluster.address, cluster.most * cluster.processors, threads, logs=True) as ray:
        where = "this machine" if cluster.address == LOCAL else cluster.address
        log.info(f"Starting {cluster.least} replicas on {where}.")
        backend = RayBackend(ray, cluster, cast, inner)
        run(lambda: make_front(backend, settings, inner.token, cluster.least, cluster.most), settings, place)


def _why(error: Exception) -> str:
    """The first sentence of the last line: Ray writes pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1].split('. ')[0].rstrip('.')}." if lines else f"{type(error).__name__}."
