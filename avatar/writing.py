"""Writing so that nothing is lost: files and folders are whole or absent, and a folder has one writer at a time.

What is being made lies in a hidden *working folder* beside its final name, `.avatar-working-` and eight random
digits. Its maker holds a lock on it, which the system releases when the process ends, however it ends; so everyone
can tell what a killed process left from what a living one is writing. A finished file replaces the old one by one
rename. A finished folder is first marked by adding `.whole` to the name of its working folder, then exchanged with
the old one; where the system cannot exchange, the old one is moved out of the way and the new one in, and a kill
between the two leaves the final name absent. `settle` is the one place that mends this: it gives the new folder its
name, and removes whatever else a killed process left. Commands that fill a folder call it through `one_writer`; those
that read a folder of folders (`PersonDataset`, `open_run`) call it before they look what is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, final

from avatar.errors import AvatarError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

WORKING = ".avatar-working-"  # beginning of a working folder's name, which no user gives to a folder
WHOLE = ".whole"  # ending, once what is in it may be taken
LOCK = ".avatar.lock"  # in a folder that is being written to
_IDLE_SECONDS = 24 * 3600  # after which a working folder counts as left behind, where the file system has no locks
_OPEN_FILES = re.compile(r"/proc/(\d+)/(task/\d+/)?fd")  # folders whose names stand for what a process has open
_TRIES = 100  # before what another process changes again and again is given up
_SYNCS = 16  # files that are synced at once: a disk writes many in about the time of one
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)  # folders that cannot be synced, or not opened


@contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield a path to write to; what is there becomes ``path`` when the block ends without an error.

    The file has the permissions that `open` would give it.

    Raises:
        AvatarError: The disk is full or the folder cannot be written.
    """
    new = NewFile(path)
    try:
        yield new.path
        new.keep()
    except OSError as error:
        raise disk_error(error, new.target) from error
    finally:
        new.drop()


@contextmanager
def atomic_dir(path: Path) -> Generator[Path]:
    """Like :func:`atomic_file` for a folder; an existing folder at ``path`` is replaced, and stays until then."""
    target = Path(os.path.abspath(path))
    try:
        if os.path.exists(target) and not os.path.isdir(target):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        working = _Working(target.parent)
        try:
            new = working.folder / target.name
            new.mkdir()
            yield new
            _sync_all(new)
            working.rename(working.folder.with_name(working.folder.name + WHOLE))
            _sync(target.parent)
            _put(working.folder / target.name, target)
            _sync(target.parent)
        finally:
            working.close()
    except OSError as error:
        raise disk_error(error, Path(path)) from error


@final
class NewFile:
    """A file in the making, for writers that are open for longer than a block. :func:`atomic_file` is the short form.

    Args:
        target: Its final name. What is no file of its own, such as ``/dev/stdout``, is written into, not replaced.

    Attributes:
        path: Where to write.

    Raises:
        AvatarError: The folder cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = Path(target)
        self._stream = _is_stream(self.target)
        try:
            folder = Path(tempfile.gettempdir()) if self._stream else self.target.parent
            self._working = _Working(folder)
        except OSError as error:
            raise disk_error(error, self.target) from error
        self.path = self._working.folder / self.target.name

    def keep(self) -> None:
        """Give the file its name.

        Raises:
            OSError: The disk is full, or a folder has the name.
        """
        if self._stream:
            with open(self.path, "rb") as source, _open_stream(self.target) as sink:
                shutil.copyfileobj(source, sink)
            return
        with suppress(PermissionError):  # of a file system without permissions
            self.path.chmod(self._working.folder.stat().st_mode & 0o666)  # safetensors makes its files private
        _sync(self.path)
        os.replace(self.path, self.target)
        _sync(self.target.parent)

    def drop(self) -> None:
        """Remove what was not kept."""
        self._working.close()


def _is_stream(target: Path) -> bool:
    """Whether a target is to be written into: what is no file, and a name that stands for what is open already.

    `/dev/stdout` leads to a file where the shell sends the output to one; replacing the name would break it for all.
    """
    if os.path.isdir(target):
        return False
    places = [os.path.dirname(path) for path in _links(target)]
    named = any(place in ("/dev", "/dev/fd") or _OPEN_FILES.fullmatch(place) for place in places)
    return named or (os.path.exists(target) and not os.path.isfile(target))


def _open_stream(target: Path) -> IO[bytes]:
    """Open what is to be written into; a file that this process has open goes on where it stands."""
    for path in _links(target):
        folder, number = os.path.split(path)
        process = _OPEN_FILES.fullmatch(folder)
        if process is not None and process[1] == str(os.getpid()) and number.isdigit():
            return os.fdopen(os.dup(int(number)), "wb")
    return open(target, "wb")


def _links(path: Path) -> Iterator[str]:
    """The path, and what it leads to link by link; the folder of each is its real one."""
    name = os.path.abspath(path)
    for _ in range(_TRIES):
        folder, last = os.path.split(name)
        name = os.path.join(os.path.realpath(folder), last)
        yield name
        if not os.path.islink(name):
            return
        name = os.path.join(os.path.dirname(name), os.readlink(name))


def settle(folder: Path) -> None:
    """Mend what killed processes left in a folder and in its subfolders; what a living one is writing stays.

    A whole folder whose name is free gets its name, everything else is removed. What cannot be changed is left alone.
    """
    _settle(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(WORKING):
                _settle(Path(entry))


def contents(folder: Path) -> list[Path]:
    """What is in a folder, apart from locks and working folders; nothing where it does not exist."""
    if not folder.is_dir():
        return []
    return [entry for entry in folder.iterdir() if entry.name != LOCK and not entry.name.startswith(WORKING)]


_writing: dict[str, int] = {}  # lock files that this process holds, and the threads that asked for them


@contextmanager
def one_writer(path: Path, *, inside: bool = True) -> Generator[None]:
    """Keep other processes from writing to a folder (or a file) while the block runs, and settle what they left.

    The lock ends with the process, killed or not. Within one thread it may be taken again. On a file system without
    locks there is a warning, and the block runs all the same.

    Args:
        path: The folder, made where it is missing; one that is still empty at the end is removed again.
        inside: Whether the lock lies in the folder. For a file, or a folder that is replaced as a whole: beside it.

    Raises:
        AvatarError: Another process is writing there, or it cannot be written.
    """
    path = Path(path)
    folder = path if inside else Path(os.path.abspath(path)).parent
    lock = Path(os.path.realpath(folder)) / (LOCK if inside else f".{path.name}{LOCK}")
    if _writing.get(str(lock)) == threading.get_ident():
        yield
        return
    made = not os.path.exists(folder)
    if not made and not os.path.isdir(folder):
        raise AvatarError(f"{folder} is a file, not a folder.", fix="Choose another --out.")
    held = _take(lock, path)
    _writing[str(lock)] = threading.get_ident()
    try:
        settle(folder) if inside else _settle(folder)
        yield
    finally:
        del _writing[str(lock)]
        with suppress(OSError):
            lock.unlink()  # while it is held, so that it is nobody else's
        if held is not None:
            os.close(held)
        if made:
            with suppress(OSError):
                folder.rmdir()


def disk_error(error: OSError, path: Path) -> AvatarError:
    """Turn an operating-system error on ``path`` into a sentence."""
    if error.errno == errno.ENOSPC:
        return AvatarError(
            f"The disk is full while writing {path}.",
            fix="Free some space and run the same command again: finished parts are kept.",
            see="the-disk-is-full",
        )
    return AvatarError(f"Cannot write {path}:", why=f"{error.strerror or error}.", fix="Choose another output folder.")


# --- working folders ----------------------------------------------------------------------------------------------


class _Working:
    """A hidden folder in ``parent``, locked until :meth:`close`, which removes it. Killed makers' are removed first."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _settle(parent)
        for _ in range(_TRIES):
            self.folder = parent / f"{WORKING}{secrets.token_hex(4)}"
            with suppress(FileExistsError, FileNotFoundError, BlockingIOError):  # taken, or cleared before the lock
                self.folder.mkdir()
                self._lock = _lock(self.folder, os.O_RDONLY)
                return
        raise OSError(errno.EAGAIN, f"no working folder can be made in {parent}")

    def rename(self, name: Path) -> None:
        self.folder = self.folder.rename(name)

    def close(self) -> None:
        if self.folder.exists():
            _clear(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _settle(parent: Path) -> None:
    """Clear the working folders in one folder whose makers are dead."""
    with suppress(OSError):
        with os.scandir(parent) as entries:
            left = [Path(e) for e in entries if e.name.startswith(WORKING) and e.is_dir(follow_symlinks=False)]
        for working in left:
            with suppress(OSError):  # its maker lives, or another process clears it
                lock = _lock(working, os.O_RDONLY)
                try:
                    _clear(working, remove=lock is not None or _idle(working))
                finally:
                    if lock is not None:
                        os.close(lock)


def _clear(working: Path, remove: bool = True) -> None:
    """Name what is whole in a working folder if the name is free, then remove the rest."""
    if working.name.endswith(WHOLE):
        for made in working.iterdir():
            target = working.with_name(made.name)
            if not made.name.startswith(WORKING) and not os.path.lexists(target):
                made.rename(target)
                _sync(target.parent)
        if remove:
            working = working.rename(working.with_name(working.name.removesuffix(WHOLE)))  # half removed is not whole
    if remove:
        shutil.rmtree(working, ignore_errors=True)


def _put(new: Path, target: Path) -> None:
    """Rename a folder onto another, which takes its place in the working folder."""
    if not os.path.lexists(target):
        new.rename(target)
    elif not exchange(new, target):
        target.rename(new.with_name(WORKING))  # never taken for what is whole
        new.rename(target)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2  # of Linux
    except (OSError, AttributeError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def _idle(working: Path) -> bool:
    """Whether nothing in a folder has changed for a day."""
    return time.time() - max(p.lstat().st_mtime for p in (working, *working.rglob("*"))) > _IDLE_SECONDS


def _sync_all(folder: Path) -> None:
    """Have a folder and everything in it on the disk."""
    files, folders = [], []
    for where, _, names in os.walk(folder):
        folders.append(Path(where))
        files += [path for name in names if not (path := Path(where, name)).is_symlink()]
    with ThreadPoolExecutor(_SYNCS) as pool:
        for part in (files, folders):
            list(pool.map(_sync, part))


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, where the file system can."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


# --- locks --------------------------------------------------------------------------------------------------------


def _take(lock: Path, what: Path) -> int | None:
    """Lock a lock file and write into it whose it is."""
    for _ in range(_TRIES):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            held = _lock(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)  # a link may lead to a file that is precious
        except BlockingIOError:
            who = ""
            with suppress(OSError):
                who = lock.read_bytes()[:100].decode(errors="replace")
            raise AvatarError(
                f"Another process{f' ({who})' if who else ''} is writing to {what}.",
                fix="Wait until it has ended, or choose another --out.",
                see="another-process-is-writing",
            ) from None
        except FileNotFoundError:  # released, and removed, between opening and locking
            continue
        except OSError as error:
            raise disk_error(error, what) from error
        if held is None:
            from avatar import log

            log.warn(f"this file system has no locks: let nothing else write to {what} meanwhile.")
        else:
            with suppress(OSError):
                os.truncate(held, 0)
                os.write(held, f"number {os.getpid()} on {socket.gethostname()}".encode())
        return held
    raise disk_error(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), what)


def _lock(path: Path, flags: int) -> int | None:
    """Lock a file or folder until it is closed or the process ends; None where the file system has no locks.

    Raises:
        BlockingIOError: Another process or thread has locked it.
        FileNotFoundError: It is not there, or no longer.
        OSError: It cannot be opened.
    """
    if fcntl is None:
        return None
    file = os.open(path, flags, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise
    except OSError:  # network file systems may have no locks, or none on folders
        os.close(file)
        return None
    try:
        same = os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return file
