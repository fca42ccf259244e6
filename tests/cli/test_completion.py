"""Scripts for bash, zsh and fish complete what the commands really take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from avatar.cli import completion, completion_scripts, options
from avatar.cli.main import COMMANDS, main, read_options
from avatar.cli.options import Known
from avatar.export.registry import EXPORTERS


def known_options(command: str) -> list[Known]:
    return completion.known_options(command, COMMANDS[command][0], read_options)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The scripts, as files."""
    folder = tmp_path_factory.mktemp("completion")
    texts = {name: text for name, (_, text) in COMMANDS.items()}
    known = {name: known_options(name) for name in COMMANDS}
    for shell, write in completion_scripts.WRITERS.items():
        (folder / shell).write_text(write(texts, known))
    return {shell: folder / shell for shell in completion_scripts.WRITERS}


def run(shell: str, *arguments: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell}")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout.splitlines()


def in_bash(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word, as it asks the function that it was told of."""
    code = 'source "$1"; shift; read -r _ _ _ _ _ _ call _ <<< "$(complete -p avatar)"; COMP_WORDS=("$@"); '
    code += 'COMP_CWORD=$(($# - 1)); "$call"; printf "%s\\n" "${COMPREPLY[@]}"'
    return [line for line in run("bash", "--norc", "-uc", code, "bash", str(script), *words) if line]


CASES: list[tuple[tuple[str, ...], set[str]]] = [
    (("avatar", "re"), {"render"}),
    (("avatar", "render", "me", "--devi"), {"--device"}),
    (("avatar", "render", "me", "--device", "c"), {"cpu", "cuda"}),
    (("avatar", "train", "--quality", ""), {"draft", "standard", "high"}),
    (("avatar", "prior", "t"), {"train"}),
    (("avatar", "prior", "train", "--from"), {"--from-scratch"}),
    (("avatar", "completion", ""), {"bash", "zsh", "fish"}),
    (("avatar", "create", "--no-ev"), {"--no-eval"}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "offered"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_bash_completes(scripts: dict[str, Path], words: tuple[str, ...], offered: set[str]) -> None:
    assert set(in_bash(scripts["bash"], *words)) == offered


def test_bash_completes_values_after_an_equals_sign_and_leaves_files_to_itself(scripts: dict[str, Path]) -> None:
    assert in_bash(scripts["bash"], "avatar", "export", "me", "--format", "=", "gl") == ["glb"]
    assert in_bash(scripts["bash"], "avatar", "render", "me", "--audio", "sp") == []
    assert run("bash", "--norc", "-c", f"source {scripts['bash']}; complete -p avatar")[0].split()[1:5] == [
        "-o", "bashdefault", "-o", "default",
    ]  # fmt: skip


def test_fish_completes(scripts: dict[str, Path]) -> None:
    lines = [f"complete -C '{' '.join(words)}'; echo --" for words, _ in CASES]
    said = "\n".join(run("fish", "--no-config", "-c", "; ".join([f"source {scripts['fish']}", *lines])))
    for (words, offered), part in zip(CASES, said.split("--\n")):
        found = {line.split("\t")[0] for line in part.removesuffix("--").splitlines()}
        assert offered <= found, words


def test_zsh_and_bash_take_the_scripts(scripts: dict[str, Path]) -> None:
    assert run("bash", "-n", str(scripts["bash"])) == []
    assert run("zsh", "-fn", str(scripts["zsh"])) == []


def test_the_script_of_zsh_says_what_it_should(scripts: dict[str, Path]) -> None:
    text = scripts["zsh"].read_text()
    assert text.startswith("#compdef avatar\n") and text.count("'") % 2 == 0
    assert "'*--device[Where to render]:value:(auto cpu cuda)'" in text and "inner=(train eval record)" in text
    assert re.findall(r"^    '(\w+):", text, re.MULTILINE) == list(COMMANDS)


def test_one_argument_at_most_may_be_repeated_in_zsh(scripts: dict[str, Path]) -> None:
    """Where two are said to be, the Tab key shows an error of `_arguments`."""
    calls = re.split(r"_arguments -S", scripts["zsh"].read_text())[1:]
    assert max(len(re.findall(r"^ +'\*:", call, re.MULTILINE)) for call in calls) == 1
    (evaluated,) = (call for call in calls if "\n      ':file:_files'" in call)
    assert evaluated.count("'*:file:_files'") == 1


def test_every_option_of_the_help_is_known(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("render", "create", "bench"):
        assert main([command, "--help"]) == 0
        shown = set(re.findall(r"^\W*(--[a-z][\w.-]*)", capsys.readouterr().out, re.MULTILINE))
        known = {flag for option in known_options(command) for flag in option.flags}
        assert shown - known <= {"--help"} and len(shown) > 10, (command, shown - known)


def test_options_of_all_formats_and_methods_are_known() -> None:
    exported = {flag: option for option in known_options("export") for flag in option.flags}
    assert exported["--format"].choices == tuple(EXPORTERS.names()) and "--size" in exported
    trained = {flag for option in known_options("train") for flag in option.flags}
    assert {"--model.max-gaussians", "--model.log2-table"} <= trained
    assert any(flag not in trained_by("gaussian") for flag in trained)  # what only nerf has


def trained_by(method: str) -> set[str]:
    with pytest.raises(options.Listed) as answer:
        read_options(__import__("avatar.cli.train", fromlist=["main"]), "train", ["--method", method, options.LIST])
    return {flag for option in answer.value.options for flag in option.flags}


def test_kinds_of_options_are_told_apart() -> None:
    known = {option.flags[:1]: option for option in known_options("create")}
    assert known[("--eval",)] == Known(
        ("--eval", "--no-eval"), (), "nothing", "Measure the avatar on the held-out part at the end."
    )
    assert known[("--out",)].takes == "file" and known[("--size",)].takes == "value"
    assert known[()].takes == "file"  # the video, which is positional


def test_the_command_prints_a_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "known_options", lambda *_: [])
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.endswith("complete -o bashdefault -o default -F _avatar avatar\n")
    assert main(["completion", "tcsh"]) == 2


def test_a_help_text_cannot_leave_its_quotes(tmp_path: Path) -> None:
    evil: Any = Known(("--x",), (), "value", 'It\'s `a` [b]: $(touch gone); "c".')
    for shell, write in completion_scripts.WRITERS.items():
        (tmp_path / shell).write_text(write({"demo": "it's"}, {"demo": [evil]}))
        run(shell, "-n", str(tmp_path / shell))
