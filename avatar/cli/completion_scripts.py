"""Completion scripts for shells, from the commands and their options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from avatar.cli.options import Known

Texts = Mapping[str, str]  # one line on each command
Options = Mapping[str, Sequence[Known]]  # of each command
_HELP = Known(("--help", "-h"), (), "nothing", "Show the options.")


def _calls(options: Options) -> Iterator[tuple[str, str, list[Known]]]:
    """Command, subcommand (or nothing) and options of everything that can be called."""
    for command, known in options.items():
        for subcommand in dict.fromkeys(option.subcommand for option in known) or [""]:
            yield command, subcommand, [*(o for o in known if o.subcommand == subcommand), _HELP]


def _subcommands(known: Sequence[Known]) -> list[str]:
    return [name for name in dict.fromkeys(option.subcommand for option in known) if name]


def _short(text: str) -> str:
    """The first sentence of a help text, without marks that shells read."""
    sentence = re.split(r"(?<=[.;:])\s", re.sub(r"\s*\([^)]*\)", "", text), maxsplit=1)[0].rstrip(".;: ")
    return re.sub(r"[^\w\s.,;/+-]", "", sentence)[:100].strip()


def bash(texts: Texts, options: Options) -> str:
    """For bash 3.2 and later. Where nothing is to be said, bash completes names of files."""
    cases, values = [], []
    for command, subcommand, known in _calls(options):
        call = f"{command} {subcommand}".strip()
        flags = " ".join(flag for option in known for flag in option.flags)
        positional = " ".join(choice for option in known if not option.flags for choice in option.choices)
        cases.append(f'    "{call}") options="{flags}"; words="{positional}" ;;')
        for option in known:
            if option.choices and option.flags:
                pattern = "|".join(f'"{call} {flag}"' for flag in option.flags)
                values.append(f'    {pattern}) choices="{" ".join(option.choices)}" ;;')
        free = [o for o in known if o.flags and not o.choices and o.takes != "nothing"]
        if patterns := "|".join(f'"{call} {flag}"' for option in free for flag in option.flags):
            values.append(f"    {patterns}) return ;;")
    inner = [f'    {c}) inner="{" ".join(_subcommands(o))}" ;;' for c, o in options.items() if _subcommands(o)]
    return "\n".join([
        "# bash completion of avatar, of `avatar completion bash`",
        "_avatar() {",
        "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} call=${COMP_WORDS[1]}",
        "  local options= words= choices= inner=",
        "  COMPREPLY=()",
        "  if [ \"$cur\" = = ]; then cur=; elif [ \"$prev\" = = ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi",
        "  if [ $COMP_CWORD -eq 1 ]; then",
        f'    COMPREPLY=($(compgen -W "{" ".join(texts)} --help --version" -- "$cur"))',
        "    return",
        "  fi",
        '  case "$call" in',
        *inner,
        "  esac",
        '  if [ -n "$inner" ]; then',
        '    if [ $COMP_CWORD -eq 2 ]; then COMPREPLY=($(compgen -W "$inner --help" -- "$cur")); return; fi',
        '    call="$call ${COMP_WORDS[2]}"',
        "  fi",
        '  case "$call $prev" in',
        *values,
        "  esac",
        '  if [ -n "$choices" ]; then COMPREPLY=($(compgen -W "$choices" -- "$cur")); return; fi',
        '  case "$call" in',
        *cases,
        "  esac",
        '  case "$cur" in',
        '    -*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;',
        '    *) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;',
        "  esac",
        "}",
        "complete -o bashdefault -o default -F _avatar avatar",
        "",
    ])  # fmt: skip


def zsh(texts: Texts, options: Options) -> str:
    """For zsh: as a file _avatar in its fpath, or by `source`."""
    lines = [
        "#compdef avatar", "# zsh completion of avatar, of `avatar completion zsh`", "_avatar() {",
        "  local -a commands inner", "  local call=$words[2]", "  commands=(",
        *(f"    '{name}:{_short(text)}'" for name, text in texts.items()), "  )",
        "  if (( CURRENT == 2 )); then _describe command commands; return; fi", "  shift words; (( CURRENT -= 1 ))",
        "  case $call in",
    ]  # fmt: skip
    for command, known in options.items():
        if names := _subcommands(known):
            lines += [
                f"    {command})", f"      inner=({' '.join(names)})",
                "      if (( CURRENT == 2 )); then _describe subcommand inner; return; fi",
                '      call="$call $words[2]"; shift words; (( CURRENT -= 1 )) ;;',
            ]  # fmt: skip
    lines += ["  esac", "  case $call in"]
    for command, subcommand, known in _calls(options):
        call = f"'{command} {subcommand}'" if subcommand else command
        lines.append(f"    {call}) _arguments -S \\")
        last = [option for option in known if not option.flags][-1:]
        lines += [f"      '{spec}' \\" for option in known for spec in _zsh_specs(option, option in last)]
        lines[-1] = lines[-1].removesuffix(" \\") + " ;;"
    lines += ["  esac", "}", 'if [ "$funcstack[1]" = _avatar ]; then _avatar "$@"; else compdef _avatar avatar; fi', ""]
    return "\n".join(lines)


def _zsh_specs(option: Known, last: bool) -> list[str]:
    """How `_arguments` is told of an option; ``last``: of the last positional one, which alone may be repeated."""
    text = _short(option.text)
    value = ":value:"
    if option.choices:
        value = f":value:({' '.join(option.choices)})"
    elif option.takes == "file":
        value = ":file:_files"
    if not option.flags:
        return [f"*{value}" if last else value]
    return [f"*{flag}[{text}]{'' if option.takes == 'nothing' else value}" for flag in option.flags]


def fish(texts: Texts, options: Options) -> str:
    """For fish: as ~/.config/fish/completions/avatar.fish."""
    lines = [
        "# fish completion of avatar, of `avatar completion fish`",
        "function __avatar_call", "  set -l said (commandline -opc)", '  test "$said[2..-1]" = "$argv"', "end",
        "function __avatar_in", "  set -l said (commandline -opc)", "  set -l last (math 1 + (count $argv))",
        "  test (count $said) -ge $last", '  and test "$said[2..$last]" = "$argv"', "end",
    ]  # fmt: skip
    lines += [f"complete -c avatar -n __avatar_call -f -a {name} -d '{_short(text)}'" for name, text in texts.items()]
    for command, known in options.items():
        lines += [f"complete -c avatar -n '__avatar_call {command}' -f -a {name}" for name in _subcommands(known)]
    for command, subcommand, known in _calls(options):
        begin = f"complete -c avatar -n '__avatar_in {command}{' ' if subcommand else ''}{subcommand}'"
        for option in known:
            takes = {"nothing": "", "value": " -x", "file": " -r -F"}[option.takes]
            values = f" -x -a '{' '.join(option.choices)}'" if option.choices else takes
            if not option.flags:
                lines += [f"{begin} -f -a '{' '.join(option.choices)}'"] if option.choices else []
            lines += [f"{begin} {_fish_flag(flag)}{values} -d '{_short(option.text)}'" for flag in option.flags]
    return "\n".join([*lines, ""])


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


WRITERS: dict[str, Callable[[Texts, Options], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
