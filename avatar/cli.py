"""The one console script. Commands import their code only when they run, so that ``avatar --help`` is instant."""

from __future__ import annotations

import importlib
import os
import sys

# name: (module with `Config` and `main(config)`, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("avatar.synth.demo", "make a synthetic subject, train its avatar, let it speak (no input needed)"),
    "create": ("avatar.train.create", "video in, avatar out: prepare + train + eval"),
    "prepare": ("avatar.preprocess.command", "track a video of one person into a PERSON folder"),
    "train": ("avatar.train.command", "train an avatar from a PERSON folder"),
    "prior": ("avatar.corpus.command", "train the audio-to-motion prior on your own videos (train), measure it (eval)"),
    "render": ("avatar.infer.command", "let an avatar speak an audio file, from any viewpoint"),
    "motion": ("avatar.infer.motion_command", "write what an avatar does as ARKit coefficients or a motion file"),
    "bake": ("avatar.infer.bake", "make an avatar faster to play: its motion as a linear basis"),
    "view": ("avatar.viewer.command", "free view in the browser (loopback only by default)"),
    "eval": ("avatar.eval.command", "measure an avatar on the held-out part of its video"),
    "synth": ("avatar.synth.command", "make a video of a synthetic subject with exact ground truth"),
    "export-dataset": ("avatar.data.export", "write a PERSON folder as a dataset of ER-NeRF and TalkingGaussian"),
    "assets": ("avatar.assets", "show, fetch and verify the pretrained parts"),
    "bench": ("avatar.bench", "time the kernels and the whole frame on this machine"),
    "doctor": ("avatar.doctor", "check the installation"),
}


def _help() -> str:
    from avatar import __version__

    lines = [f"avatar {__version__}: person-specific talking avatars.", "", "usage: avatar COMMAND [options]", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "avatar COMMAND --help lists the options of a command. First steps: avatar demo"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a bug, 2 the user's mistake, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
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
        print(f"avatar: there is no command '{name}'.{hint} `avatar --help` lists them.", file=sys.stderr)
        return 2
    return _run(name, rest)


def _run(name: str, rest: list[str]) -> int:
    # Between its loops OpenMP lets its threads spin, on the cores that the native kernels' own threads need next. With
    # a short spin a training step takes three quarters of the time. Read by the library when torch loads it.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    import tyro

    from avatar.errors import AvatarError
    from avatar.log import console

    module = importlib.import_module(COMMANDS[name][0])
    try:
        config = tyro.cli(module.Config, args=rest, prog=f"avatar {name}", description=module.__doc__)
        module.main(config)
    except AvatarError as error:
        console.print(f"avatar {name}: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("\nInterrupted. Run the same command again to go on where it stopped.")
        return 130
    except SystemExit as stop:  # tyro: 0 after --help, 2 on a bad option
        return stop.code if isinstance(stop.code, int) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
