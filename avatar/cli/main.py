"""The one console script. Commands import their code only when they run, so that ``avatar --help`` is instant."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

DEBUG = "AVATAR_DEBUG"  # environment variable: show the traceback of what nobody expected
LEAST_COLUMNS = 40  # of a terminal; the help of a command cannot be laid out in a few
_LARGEST = 2.0**53  # of any number that is an option
# Of options that mean the same in every command; a command may allow less.
_RANGES = {
    "fps": (1.0, 1000.0), "size": (2.0, 16_384.0), "seconds": (0.0, 86_400.0), "seed": (0.0, 2.0**32 - 1),
    "threads": (0.0, 1024.0), "workers": (0.0, 1024.0), "steps": (0.0, 1e7),
}  # fmt: skip

# name: (module with `Config` and `main(config)`, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("avatar.cli.demo", "make a synthetic subject, train its avatar, let it speak (no input needed)"),
    "create": ("avatar.cli.create", "video in, avatar out: prepare + train + eval"),
    "prepare": ("avatar.cli.prepare", "track a video of one person into a PERSON folder"),
    "train": ("avatar.cli.train", "train an avatar from a PERSON folder"),
    "prior": ("avatar.cli.prior", "train the audio-to-motion prior on your own videos (train), measure it (eval)"),
    "render": ("avatar.cli.render", "let an avatar speak an audio file, from any viewpoint"),
    "export": ("avatar.cli.export", "write an avatar, what it does or its person for other programs"),
    "view": ("avatar.cli.view", "free view in the browser (loopback only by default)"),
    "eval": ("avatar.cli.eval", "measure an avatar on the held-out part of its video"),
    "synth": ("avatar.cli.synth", "make a video of a synthetic subject with exact ground truth"),
    "assets": ("avatar.cli.assets", "show, fetch and verify the pretrained parts"),
    "bench": ("avatar.cli.bench", "time the kernels and the whole frame on this machine"),
    "doctor": ("avatar.cli.doctor", "check the installation"),
}


def _help() -> str:
    from avatar import __version__

    lines = [f"avatar {__version__}: person-specific talking avatars.", "", "usage: avatar COMMAND [options]", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "avatar COMMAND --help lists the options of a command. First steps: avatar demo"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a bug, 2 the user's mistake, 130 interrupted.

    141, as a shell says it, where the program that reads the output has gone away.
    """
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:  # closed from the beginning
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_output()
        return 141
    except OSError as error:  # of what the output goes to; everything else is dealt with where it happens
        _forget_output()
        with suppress(OSError, ValueError, AttributeError):
            print(f"avatar: the output cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        from avatar import __version__

        print(__version__)
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean `avatar {close[0]}`?" if close else ""
        print(f"avatar: there is no command {name!r}.{hint} `avatar --help` lists them.", file=sys.stderr)
        return 2
    return _run(name, rest)


def _run(name: str, rest: list[str]) -> int:
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    from avatar.errors import AvatarError, printable
    from avatar.log import console, on_terminal

    def tell(text: str) -> None:
        console.print(f"avatar {name}: {printable(text)}", style="red", markup=False, soft_wrap=True)

    module = importlib.import_module(COMMANDS[name][0])
    try:
        with on_terminal():
            config = read_options(module, name, rest)
            check_numbers(config)
            module.main(config)
    except AvatarError as error:
        tell(str(error))
        return 2
    except KeyboardInterrupt:
        console.print("\nInterrupted. Run the same command again to go on where it stopped.")
        return 130
    except SystemExit as stop:  # tyro: 0 after --help, 2 on a bad option
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # the machine, not the program
            tell(f"{error.filename} cannot be used: {error.strerror or error}.")
            return 2
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        if os.environ.get(DEBUG):
            raise
        tell(bug_report(error))
        return 1
    return 0


def read_options(module: Any, name: str, argv: list[str]) -> Any:
    """The configuration of a command: by its module's own ``parse``, where it has one."""
    from avatar.cli import options

    prog, description = f"avatar {name}", module.__doc__ or ""
    parse = getattr(module, "parse", None)
    if parse is not None:
        return parse(argv, prog, description)
    groups = getattr(module, "GROUPS", None)
    return options.parse(module.Config, argv, prog=prog, description=description, groups=groups)


def bug_report(error: Exception) -> str:
    """One line about an exception that nobody expected: where it was, the last file that was read, what to do."""
    import traceback

    from avatar import __version__, checks
    from avatar.checks import describe

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}avatar{os.sep}" in frame.filename] or frames
    place = f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else "unknown place"
    read = f", after reading {checks.last_read}" if checks.last_read else ""
    return (
        f"this is a bug in avatar {__version__}, not a mistake of yours ({type(error).__name__} at {place}{read}: "
        f"{describe(error)}). Please report it to its maintainers with the command, the file if you may share it, and "
        f"what {DEBUG}=1 in the environment shows."
    )


def check_numbers(config: Any, prefix: str = "") -> None:
    """Refuse options that no command can mean: numbers that are not finite or of absurd size.

    Args:
        config: The configuration of a command, a dataclass of options and of parts like itself.
        prefix: What the names of its options begin with.

    Raises:
        AvatarError: There is one.
    """
    from avatar.checks import number
    from avatar.errors import AvatarError

    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            check_numbers(value, prefix if "OmitArgPrefixes" in str(field.type) else f"{name}.")
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, bool) or not isinstance(item, int | float):
                continue
            if not abs(item) <= _LARGEST:  # false for NaN
                raise AvatarError(f"--{name} {item} is no number of possible size.")
            if not prefix and field.name in _RANGES:
                number(item, f"--{name}", *_RANGES[field.name])


def _forget_output() -> None:
    """Let the interpreter end in silence: what it still holds for the output can go nowhere."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
