"""What a command ends with: the exit code, and one sentence where something went wrong."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avatar.errors import AvatarError

DEBUG = "AVATAR_DEBUG"  # environment variable: show the traceback of what nobody expected
AGAIN = " Run the same command again to go on where it stopped."
RESUME = " Run the same command again with --resume to go on where it stopped."
# Other commands begin anew.
GO_ON: dict[str, str] = {
    **dict.fromkeys(("create", "demo", "prepare", "prior"), AGAIN), **dict.fromkeys(("bake", "train"), RESUME),
}  # fmt: skip
_LACKS_LIBRARY = re.compile(r"([^\s:'\"]+): cannot open shared object file")


def exit_code(run: Callable[[], int]) -> int:
    """Run a program, and survive that its output can go nowhere, or knows few characters.

    Returns:
        Its exit code; 141, as a shell says it, where the program that reads the output has gone away; 2 where the
        output cannot be written; 130 where it was interrupted before its command began.
    """
    with suppress(AttributeError, ValueError):  # closed from the beginning, or replaced by something else
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        code = run()
        if sys.stdout is not None:  # closed from the beginning
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_output()
        return 141
    except KeyboardInterrupt:
        with suppress(OSError, ValueError, AttributeError):
            print("\nInterrupted.", file=sys.stderr)
        return 130
    except OSError as error:  # of what the output goes to; everything else is dealt with where it happens
        _forget_output()
        with suppress(OSError, ValueError, AttributeError):
            print(f"avatar: the output cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 2


def command_code(name: str, run: Callable[[], None]) -> int:
    """Run one command, and tell in a sentence what went wrong.

    Returns:
        0 done, 1 a bug, 2 the user's mistake or the machine's, 130 interrupted.
    """
    from avatar import errors
    from avatar.errors import AvatarError, printable
    from avatar.log import console, on_terminal

    def tell(text: str) -> None:
        console.print(f"avatar {name}: {printable(text)}", style="red", markup=False, soft_wrap=True)

    try:
        with on_terminal():
            run()
    except AvatarError as error:
        tell(str(error))
        if error.see:
            console.print(f"See: {errors.TROUBLESHOOTING}#{error.see}", style="dim", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(f"\nInterrupted.{GO_ON.get(name, '')}")
        return 130
    except SystemExit as stop:  # tyro: 0 after --help, 2 on a bad option
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:
        raise
    except Exception as error:
        if (lack := missing_library(error)) is not None:
            tell(str(lack))
            return 2
        if isinstance(error, OSError) and error.filename is not None:  # the machine, not the program
            tell(f"{error.filename} cannot be used: {error.strerror or error}.")
            return 2
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        if os.environ.get(DEBUG):
            import traceback

            traceback.print_exc()
        else:
            tell(bug_report(error))
        return 1
    return 0


def missing_library(error: Exception) -> AvatarError | None:
    """What a user reads where a package finds no library of the system; None where it is something else."""
    from avatar.doctor.checks import SYSTEM_LIBRARIES
    from avatar.errors import AvatarError

    found = _LACKS_LIBRARY.search(str(error)) if isinstance(error, ImportError | OSError) else None
    if found is None:
        return None
    return AvatarError(
        f"The library {found.group(1)} cannot be opened.", why="A package that is installed loads it.",
        fix=f"Those that OpenCV and MediaPipe load come with `{SYSTEM_LIBRARIES}`. `avatar doctor` names the package "
        "that needs another one: install that package again.",
    )  # fmt: skip


def bug_report(error: Exception) -> str:
    """One line about an exception that nobody expected: where it was, the last file that was read, what to do.

    What a plug-in raised, or was raised below it, is said of its package.
    """
    import traceback

    from avatar import __version__, checks
    from avatar.checks import describe
    from avatar.registry import plug_ins

    frames = traceback.extract_tb(error.__traceback__)
    packages = plug_ins()
    for (frame, _), at in reversed(list(zip(traceback.walk_tb(error.__traceback__), frames, strict=True))):
        package = packages.get(str(frame.f_globals.get("__name__")).partition(".")[0])
        if package is not None:
            return (
                f"this is a bug in the package {package}, not in avatar and not a mistake of yours "
                f"({type(error).__name__} at {os.path.basename(at.filename)}:{at.lineno}: {describe(error)}). Please "
                f"report it to the maintainers of {package} with the command and what {DEBUG}=1 in the environment "
                f"shows."
            )
    own = [frame for frame in frames if f"{os.sep}avatar{os.sep}" in frame.filename] or frames
    place = f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else "unknown place"
    read = f", after reading {checks.last_read}" if checks.last_read else ""
    return (
        f"this is a bug in avatar {__version__}, not a mistake of yours ({type(error).__name__} at {place}{read}: "
        f"{describe(error)}). Please report it to its maintainers with the command, the file if you may share it, and "
        f"what {DEBUG}=1 in the environment shows."
    )


def _forget_output() -> None:
    """Let the interpreter end in silence: what it still holds for the output can go nowhere."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
