"""Connect to Ray, which runs parts of some commands on other machines, or in other processes of this one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from avatar.errors import AvatarError

LOCAL = "local"  # address of a cluster that is started here, and ends with the command
THREADS: tuple[str, ...] = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def connected(
    address: str, processors: int | None = None, variables: Mapping[str, str] | None = None, *, logs: bool = False
) -> Generator[Any]:
    """Give the module ``ray``, connected to a cluster while the block runs.

    Args:
        address: Of the cluster; ``auto``: the one that runs on this machine; ``local``: a new one here.
        processors: Of a new one; None: those of this machine.
        variables: Of the environment of its processes.
        logs: Show what they print.

    Raises:
        AvatarError: Ray is not installed, or there is no such cluster.
    """
    try:
        importlib.import_module("ray.exceptions")  # a mere folder of the name would be imported as well
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise AvatarError("--ray needs Ray, which is not installed.", fix="pip install 'avatar-toolkit[ray]'") from None
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


def processors_of(ray: Any) -> int:
    """Count the processors of a cluster; one at least."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
