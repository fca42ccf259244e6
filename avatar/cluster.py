"""Connect to Ray, which runs parts of some commands on other machines, or in other processes of this one."""

from __future__ import annotations

import importlib
import logging
import os
import re
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from avatar.errors import AvatarError

LOCAL = "local"  # address of a cluster that is started here, and ends with the command
OLDEST = (2, 52)  # version of Ray that can ask for a token
THREADS: tuple[str, ...] = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def connected(
    address: str, processors: int | None = None, variables: Mapping[str, str] | None = None, *, logs: bool = False
) -> Generator[Any]:
    """Give the module ``ray``, connected to a cluster while the block runs.

    A new one answers this process alone, by a random token, unless the environment says what to ask for.

    Args:
        address: Of the cluster; ``auto``: the one that runs on this machine; ``local``: a new one here.
        processors: Of a new one; None: those of this machine.
        variables: Of the environment of its processes.
        logs: Show what they print.

    Raises:
        AvatarError: Ray is not installed, too old to start one, or there is no such cluster.
    """
    with _token() if address == LOCAL else nullcontext(), _joined(address, processors, variables, logs) as ray:
        yield ray


@contextmanager
def _joined(
    address: str, processors: int | None, variables: Mapping[str, str] | None, logs: bool
) -> Generator[Any]:  # fmt: skip
    try:
        importlib.import_module("ray.exceptions")  # a mere folder of the name would be imported as well
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise AvatarError("--ray needs Ray, which is not installed.", fix="pip install 'avatar-toolkit[ray]'") from None
    version = re.match(r"(\d+)\.(\d+)", getattr(ray, "__version__", ""))
    if address == LOCAL and version is not None and tuple(map(int, version.groups())) < OLDEST:
        raise AvatarError(
            f"--ray {LOCAL} needs Ray {'.'.join(map(str, OLDEST))} or newer.",
            why="Older ones let everybody in the network run programs here.",
            fix="pip install --upgrade 'avatar-toolkit[ray]'",
        )
    where: dict[str, Any] = {"num_cpus": processors, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(
            LOCAL if address == LOCAL else address, runtime_env={"env_vars": dict(variables or {})},
            log_to_driver=logs, logging_level=logging.WARNING, **where,
        )  # fmt: skip
    except Exception as error:  # Ray raises plain ones as well
        what = "Ray cannot be started here:" if address == LOCAL else f"There is no Ray cluster at {address}:"
        ray.shutdown()
        raise AvatarError(what, why=f"{str(error).rstrip('.')}.", fix="Check --ray.") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _token() -> Generator[None]:
    """Have Ray ask for a random token: its ports are open to the network, and who reaches them can run programs.

    It reads the environment when it is loaded.
    """
    wanted = {"RAY_AUTH_MODE": "token"}
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        wanted["RAY_AUTH_TOKEN"] = _random_token()
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def _random_token() -> str:
    """The token of this process: Ray keeps the first one that it reads, also for the clusters after it."""
    return secrets.token_hex(32)


def processors_of(ray: Any) -> int:
    """Count the processors of a cluster; one at least."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
