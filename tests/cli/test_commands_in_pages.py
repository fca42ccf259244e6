"""The commands that pages show are ones that exist, with options that exist and values that can be read."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tyro

import tests.unit.dummy_encoder
import tests.unit.dummy_method  # noqa: F401  both register themselves under the name that pages use
from avatar.cli.main import COMMANDS, read_options
from avatar.errors import AvatarError
from avatar.export.registry import EXPORTERS
from avatar.io.text_to_speech import ENGINES
from tests import docs_text
from tests.docs_text import ROOT

# Options of other programs, and those that every program has.
OF_OTHERS = {"help", "version", "nnodes", "nproc-per-node", "require-hashes", "ignore-scripts", "update", "logdir"}
# Programs whose calls are not checked: those of the system.
OTHERS = {
    ".", "source", "cd", "export", "git", "apt", "apt-get", "sudo", "npm", "npx", "ssh", "curl", "uv", "uvx", "pipx",
    "sphinx-build", "tensorboard", "jupyter",
}  # fmt: skip
BUILDERS = {"podman", "docker"}
PACKAGE = ROOT / "pyproject.toml"
ALL = [*docs_text.pages(), *docs_text.notes()]


def calls(page: Path) -> list[str]:
    """All calls in the sh blocks of a page, without line breaks."""
    blocks = [code for _, code in docs_text.code_blocks(page.read_text(encoding="utf-8"), "sh", "bash")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [call.strip() for line in lines for call in line.split("&&") if call.strip() and call.strip()[0] != "#"]


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages tell readers to write is known: their own examples."""
    for registry in (EXPORTERS, ENGINES):
        monkeypatch.setattr(registry, "_known", dict(registry._known))
    module = types.ModuleType("my_package")
    monkeypatch.setitem(sys.modules, "my_package", module)  # where dataclasses look for their names
    for _, code in docs_text.code_blocks((ROOT / "docs/new_exporters.md").read_text(encoding="utf-8"), "python"):
        exec(compile(code, "docs/new_exporters.md", "exec"), vars(module))  # this repository's own page


def mistake(call: str) -> str | None:
    """What is wrong with a call, in words."""
    words = shlex.split(call, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *rest = words or [""]
    if program == "torchrun":
        program, rest = "python", rest[rest.index("-m") :]
    check = CHECKS.get(program)
    if check is None:
        return None if program in OTHERS else f"nothing checks calls of {program}"
    return check(rest)


def _avatar(words: list[str]) -> str | None:
    if words[:1] in ([], ["--help"], ["--version"]):
        return None
    name, *options = words
    if name not in COMMANDS:
        return f"there is no command {name}"
    try:
        read_options(importlib.import_module(COMMANDS[name][0]), name, options)
    except SystemExit as stop:
        return f"exit code {stop.code}" if stop.code else None
    except AvatarError as error:
        return str(error)
    return None


def _python(words: list[str]) -> str | None:
    if words[:1] != ["-m"]:
        return None if words and (ROOT / words[0]).is_file() else f"there is no {words[:1]}"
    name, *options = words[1:]
    if name == "avatar":
        return _avatar(options)
    if not name.startswith("pipelines."):
        return None if name in ("venv", "pytest", "http.server") else f"nothing checks python -m {name}"
    if not (ROOT / f"{name.replace('.', '/')}.py").is_file():
        return f"there is no {name}"
    module = importlib.import_module(name)
    try:
        if hasattr(module, "Config"):
            tyro.cli(module.Config, args=options)
    except SystemExit as stop:
        return f"exit code {stop.code}" if stop.code else None
    return None


def _pip(words: list[str]) -> str | None:
    known = set(re.findall(r"^(\w+) = \[", PACKAGE.read_text(encoding="utf-8"), re.MULTILINE))
    extras = [extra for word in words for found in re.findall(r"\[([\w,-]+)\]", word) for extra in found.split(",")]
    missing = [extra for extra in extras if extra not in known]
    return f"there is no extra {', '.join(missing)}" if missing else None


def _container(words: list[str]) -> str | None:
    return None if words[:1] in (["build"], ["run"]) and (ROOT / "Containerfile").is_file() else "cannot be built"


CHECKS: dict[str, Callable[[list[str]], str | None]] = {
    "avatar": _avatar, "python": _python, "python3": _python, "pip": _pip, **dict.fromkeys(BUILDERS, _container)
}  # fmt: skip


@pytest.mark.parametrize(
    "page", [page for page in ALL if calls(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_calls_of_a_page_are_understood(page: Path, capsys: pytest.CaptureFixture):
    wrong = []
    for call in calls(page):
        if reason := mistake(call):
            printed = capsys.readouterr()
            wrong.append(f"{call}: {reason} {printed.err or printed.out}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_call_is_found(capsys: pytest.CaptureFixture):
    assert mistake("avatar render RUN --audio a.wav --camera orbit") is None
    for call in (
        "avatar rendre RUN", "avatar render RUN --adio a.wav", "avatar train P --out R --steps many",
        "avatar export RUN --format nothing", "python -m pipelines.nothing", "python -m pipelines.records --nothing 1",
        "pip install '.[nothing]'", "python examples/nothing.py", "AVATAR_X=1 nothing --at all",
    ):  # fmt: skip
        assert mistake(call), call
    capsys.readouterr()


def test_calls_stand_in_blocks_of_sh():
    """So that the test above sees them."""
    wrong = [
        f"{page.relative_to(ROOT)}:{line}"
        for page in ALL
        for line, code in docs_text.code_blocks(page.read_text(encoding="utf-8"), "", "text", "console")
        if re.match(r"(\$ )?(avatar|pip|python3?) ", code)
    ]
    assert not wrong, "\n".join(wrong)


def known_options() -> set[str]:
    """The last part of every option's name: fields of all dataclasses of the package and its recipes."""
    found = set()
    for path in [*(ROOT / "avatar").rglob("*.py"), *(ROOT / "pipelines").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = (n.target for n in node.body if isinstance(n, ast.AnnAssign))
                names = [target.id for target in fields if isinstance(target, ast.Name)]
                found |= {name.replace("_", "-") for name in names}
    for path in (ROOT / "pipelines").glob("*.py"):  # those that run without the package
        found |= set(re.findall(r"add_argument\(\"--([a-z-]+)\"", path.read_text(encoding="utf-8")))
    return found | {f"no-{name}" for name in found}


def spans() -> Iterator[tuple[Path, str]]:
    """Pieces of code in the sentences of pages that are no changelog, and of forms."""
    outside = [ROOT / "SECURITY.md", *(ROOT / ".github").rglob("*.md"), *(ROOT / ".github").rglob("*.yml")]
    for page in [*docs_text.pages(), *(ROOT / "docs/notes").glob("*.md"), *outside]:
        if not page.name.startswith("new_"):  # these name options that only a plug-in brings
            for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
                yield page, code


def test_options_that_pages_name_exist():
    known = known_options() | OF_OTHERS | {"follow-tags", "hard", "packages-of"}
    wrong = [
        f"{page.relative_to(ROOT)}: there is no {option}"
        for page, code in spans()
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*(?:\.[a-z][\w-]*)*", code)
        if option != "--no-" and option[2:].rpartition(".")[2] not in known
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_that_pages_name_exist():
    wrong = [
        f"{page.relative_to(ROOT)}: there is no {code}"
        for page, code in spans()
        if (name := re.match(r"avatar ([a-z]+)\b", code)) and name[1] not in COMMANDS
    ]
    assert not wrong, "\n".join(wrong)


def test_calls_are_found_as_they_are_written(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\npip install . && avatar demo --out x  # a comment\n# nothing\n```\n"
        "- item\n\n  ```bash\n  avatar a \\\n    --b\n  ```\n"
    )
    assert [shlex.split(call, comments=True) for call in calls(page)] == [
        ["pip", "install", "."], ["avatar", "demo", "--out", "x"], ["avatar", "a", "--b"]
    ]  # fmt: skip
