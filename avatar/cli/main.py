"""The one console script. Commands import their code only when they run, so that ``avatar --help`` is instant."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from typing import Any

from avatar.cli.errors import command_code, exit_code

LEAST_COLUMNS = 40  # of a terminal; the help of a command cannot be laid out in a few

# name: (module with `Config` and `main(config)`, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("avatar.cli.demo", "make a synthetic subject, train its avatar, let it speak (no input needed)"),
    "create": ("avatar.cli.create", "video in, avatar out: prepare + train + eval"),
    "prepare": ("avatar.cli.prepare", "track a video of one person into a PERSON folder"),
    "train": ("avatar.cli.train", "train an avatar from a PERSON folder"),
    "prior": (
        "avatar.cli.prior",
        "train the shared audio-to-motion prior, measure it, or record tracks for it",
    ),
    "render": ("avatar.cli.render", "let an avatar speak an audio file, from any viewpoint"),
    "bake": ("avatar.cli.bake", "turn a radiance field into Gaussians that play faster"),
    "export": ("avatar.cli.export", "write an avatar, what it does or its person for other programs"),
    "view": ("avatar.cli.view", "free view in the browser (loopback only by default)"),
    "serve": ("avatar.cli.serve", "serve live avatars to browsers and programs (loopback only by default)"),
    "eval": ("avatar.cli.eval", "measure an avatar on the held-out part of its video"),
    "verify": ("avatar.cli.verify", "say what a video or an image claims about how it was made"),
    "consent": ("avatar.cli.consent", "show or state the consent of the person"),
    "synth": ("avatar.cli.synth", "make a video of a synthetic subject with exact ground truth"),
    "assets": ("avatar.cli.assets", "show, fetch and verify the pretrained parts"),
    "bench": ("avatar.cli.bench", "time the kernels and the whole frame on this machine"),
    "doctor": ("avatar.cli.doctor", "check the installation"),
    "completion": ("avatar.cli.completion", "print what lets bash, zsh or fish complete these commands"),
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
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    if not argv:
        from avatar.cli.greeting import greeting

        print(greeting())
        return 0
    if argv[0] in ("-h", "--help", "help"):
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
    columns = shutil.get_terminal_size().columns
    if columns < LEAST_COLUMNS or "COLUMNS" in os.environ:  # where it is 0, nothing at all would be shown
        os.environ["COLUMNS"] = str(max(columns, LEAST_COLUMNS))

    def run() -> None:
        from avatar.cli.options import check_numbers

        module = importlib.import_module(COMMANDS[name][0])
        config = read_options(module, name, rest)
        check_numbers(config)
        asks = (COMMANDS, read_options) if name == "completion" else ()  # about all the others
        module.main(config, *asks)

    return command_code(name, run)


def read_options(module: Any, name: str, argv: list[str]) -> Any:
    """The configuration of a command: by its module's own ``parse``, where it has one."""
    from avatar.cli import options

    prog, description = f"avatar {name}", module.__doc__ or ""
    argv = options.plain_names(argv)
    parse = getattr(module, "parse", None)
    groups = getattr(module, "GROUPS", None)
    try:
        if parse is not None:
            return parse(argv, prog, description)
        return options.parse(module.Config, argv, prog=prog, description=description, groups=groups)
    except SystemExit as stop:
        dashed = next((word for word in argv if len(word) > 2 and word[0] == "-" and word[1].isalpha()), None)
        if stop.code == 2 and dashed is not None:
            from avatar.log import word

            print(f"If {dashed} is the name of a file or a folder, write {word(dashed)}", file=sys.stderr)
        raise


if __name__ == "__main__":
    sys.exit(main())
