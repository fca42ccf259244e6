"""Words and sizes: short sentences in pages and help, field terms in public names, modules for one sitting."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import docs_text
from tests.docs_text import ROOT

MOST_WORDS = 40  # of a sentence
MOST_FIRST_WORDS = 20  # of the first sentence of a help text or a public docstring
MOST_LINES = 450  # of a file
MOST_FUNCTION_LINES = 60

PACKAGE = ROOT / "avatar"


@dataclass(frozen=True, kw_only=True)
class Retired:
    """A word that a field term has replaced.

    Attributes:
        old: Pattern of the old name.
        new: What to write instead.
        kinds: Of which names it is refused: "module", "class", "function", "argument", "field", "value"; all if empty.
        whole: Whether the pattern is a whole name; otherwise it is one word of a name.
        under: Only in this folder of the project.
    """

    old: str
    new: str
    kinds: frozenset[str] = frozenset()
    whole: bool = True
    under: str = "avatar"


def _kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


# Not checked as names, because they are right elsewhere: size, largest, start, stop and interval; settle (of files);
# look (of look_ahead); Stage (of preparation); own (of --pose own); paint as a function and a module (of the synthetic
# subject).
RETIRED = (
    # One word of any public name.
    Retired(old="pictures?", new="image, or frame of a video", whole=False),
    Retired(old="sounds?", new="audio", whole=False),
    Retired(old="plate", new="background", whole=False),
    Retired(old="rig", new="skinning_weight, or skinning", whole=False),
    Retired(old="taps", new="weights", whole=False),
    Retired(old="heard", new="features", whole=False),
    Retired(old="told", new="condition", whole=False),
    Retired(old="late", new="audio_delay_s (> 0: audio after video)", whole=False),
    Retired(old="films?", new="recorder", whole=False),
    Retired(old="retracks?|retracked", new="face_tracker", whole=False),
    Retired(old="peer", new="head-only", whole=False),
    Retired(old="ours", new="full-frame", whole=False),
    # Whole names.
    Retired(old="prior", new="audio2motion or headmotion", kinds=_kinds("package")),
    Retired(old="similarity", new="ssim", kinds=_kinds("module")),
    Retired(old="loss", new="l1_ssim", kinds=_kinds("module"), under="avatar/native"),
    Retired(old="marching", new="march_rays", kinds=_kinds("module")),
    Retired(old="Together", new="Ensemble"),
    Retired(old="together", new="ensemble", kinds=_kinds("module")),
    Retired(old="SpeechGate", new="VoiceActivityDetector"),
    Retired(old="Closing", new="LipClosure"),
    Retired(old="closing|closure", new="lip_closure or bilabial_closure", kinds=_kinds("module", "field", "argument")),
    Retired(old="Profile", new="MotionStats"),
    Retired(old="Manner", new="UpperFaceNormalizer"),
    Retired(old="Identity", new="MouthNormalizer"),
    Retired(old="DensityControl", new="gsplat's name of a strategy"),
    Retired(old="Stage", new="MotionEdit", kinds=_kinds("class"), under="avatar/motion"),
    Retired(old="Performance", new="MotionPlan"),
    Retired(old="perform", new="plan_motion"),
    Retired(old="respond", new="Session"),
    Retired(old="speak_held_out", new="drive_held_out"),
    Retired(old="drives", new="driving"),
    Retired(old="paint", new="color_prior", kinds=_kinds("field", "argument")),
    Retired(old="pose_gaussians", new="skin_gaussians"),
    Retired(old="moves", new="transforms", kinds=_kinds("argument"), under="avatar/native"),
    Retired(old="turns", new="quats", kinds=_kinds("argument"), under="avatar/native"),
    Retired(old="shifts", new="offsets", kinds=_kinds("argument"), under="avatar/native"),
    Retired(old="av_offset|av_offset_frames", new="audio_delay_s (> 0: audio after video)"),
    Retired(old="prior", new="shared", kinds=_kinds("value")),
    Retired(old="live", new="streaming", kinds=_kinds("value")),
)  # fmt: skip

# Of pages, outside of code. Not "live" (live audio), "own" and "late", which are plain English there.
RETIRED_PROSE = re.compile(r"\b(pictures?|sounds?|plate|rig|heard|hears|told|retrack\w*)\b", re.IGNORECASE)

# "FILE: kind name" -> why it stays.
NAMES_ALLOWED: dict[str, str] = {}
# "FILE: function" -> why its docstring begins with a longer sentence.
FIRST_ALLOWED: dict[str, str] = {
    "avatar/motion/motion.py: blend": "a line that says what the weight means",
}
# "FILE" or "FILE: function" -> why it is that long.
LONG_ALLOWED: dict[str, str] = {
    "avatar/native/_abi.py": "generated from the C header",
    "avatar/native/_abi_cuda.py": "generated from the C header",
    "pipelines/mutations_list.py": "a list of breaks, an entry each",
}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# (a) sentences


def documented_fields(node: ast.ClassDef) -> list[ast.Expr]:
    """The strings below the fields of a class, which tyro shows as help."""
    found = []
    for field, after in zip(node.body, node.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found += [after] * isinstance(after.value.value, str)
    return found


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def help_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of the help that a file holds: what stands in its option dataclasses and above a command."""
    tree = parsed(path)
    if path.parent.name == "cli" and (text := ast.get_docstring(tree)):
        yield 1, text
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and is_dataclass(node) and (fields := documented_fields(node)):
            if text := ast.get_docstring(node):
                yield node.body[0].lineno, text
            for field in fields:
                assert isinstance(field.value, ast.Constant)
                yield field.lineno, str(field.value.value)


def test_a_page_has_no_long_sentence():
    wrong = [
        f"{relative(page)}:{line}: {docs_text.words(sentence)} words: {sentence}"
        for page in docs_text.pages()
        for line, sentence in docs_text.long_sentences(page.read_text(encoding="utf-8"), MOST_WORDS)
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_and_notes_are_in_field_terms():
    wrong = [
        f"{relative(page)}:{line}: {found[0]!r} in: {block}"
        for page in [*docs_text.pages(), *docs_text.notes()]
        for line, block in docs_text.blocks(page.read_text(encoding="utf-8"))
        if (found := RETIRED_PROSE.search(docs_text.plain(block)))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_changelog_has_no_long_sentence():
    fragments = [path for path in docs_text.notes() if path.name == "CHANGELOG.md" or path.parent.name == "changelog"]
    wrong = [
        f"{relative(page)}:{line}: {docs_text.words(sentence)} words: {sentence}"
        for page in fragments
        for line, sentence in docs_text.long_sentences(page.read_text(encoding="utf-8"), MOST_WORDS)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_help_has_no_long_sentence():
    wrong = [
        f"{relative(path)}:{line}: {docs_text.words(sentence)} words: {sentence}"
        for path in sources("avatar")
        for first, text in help_texts(path)
        for line, sentence in docs_text.long_sentences(docs_text.docstring_blocks(text), MOST_WORDS, first)
    ]
    assert not wrong, "\n".join(wrong)


def public_docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and docstring of the public classes, functions and methods of a module."""

    def within(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if (text := ast.get_docstring(node)) and f"{relative(path)}: {node.name}" not in FIRST_ALLOWED:
                yield node.body[0].lineno, text
            if isinstance(node, ast.ClassDef):
                yield from within(node.body)

    return within(parsed(path).body)


def first_sentence(text: str) -> str:
    return next(
        (s for _, block in docs_text.blocks(docs_text.docstring_blocks(text)) for s in docs_text.sentences(block)), ""
    )


def test_help_and_docstrings_begin_with_a_short_sentence():
    wrong = sorted(
        {
            f"{relative(path)}:{line}: {docs_text.words(sentence)} words: {sentence}"
            for path in sources("avatar")
            for line, text in (*help_texts(path), *public_docstrings(path))
            if docs_text.words(sentence := first_sentence(text)) > MOST_FIRST_WORDS
        }
    )
    assert not wrong, "\n".join(wrong)


# (b) names


@dataclass(frozen=True)
class Name:
    path: Path
    line: int
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{relative(self.path)}: {self.kind} {self.name}"


def split(name: str) -> list[str]:
    """The words of a name: ``SyncJudge``, ``sync_judge`` and ``sync-judge`` are two."""
    return [w.lower() for part in re.split(r"[_\W]+", name) for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)]


def public_names(path: Path) -> Iterator[Name]:
    """What a module makes public: itself, classes, functions, their arguments, fields, and the values of options."""
    if path.name == "__init__.py":
        yield Name(path, 1, "package", path.parent.name)
    elif not path.stem.startswith("_"):
        yield Name(path, 1, "module", path.stem)
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "Literal":
            for value in ast.walk(node.slice):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield Name(path, node.lineno, "value", value.value)
    yield from _members(path, tree.body)


def _members(path: Path, body: list[ast.stmt], inside: bool = False) -> Iterator[Name]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield Name(path, node.lineno, "class", node.name)
            yield from _members(path, node.body, inside=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") and not node.name.startswith("__"):
                continue
            yield Name(path, node.lineno, "function", node.name)
            given = node.args
            for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
                if argument is not None and not argument.arg.startswith("_"):
                    yield Name(path, argument.lineno, "argument", argument.arg)
        elif inside and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield from [Name(path, node.lineno, "field", node.target.id)] * (not node.target.id.startswith("_"))


def retired(name: Name) -> Retired | None:
    """The word of the table that a name still has."""
    for word in RETIRED:
        if (word.kinds and name.kind not in word.kinds) or not relative(name.path).startswith(word.under + "/"):
            continue
        if any(re.fullmatch(word.old, part) for part in ([name.name] if word.whole else split(name.name))):
            return word
    return None


def test_public_names_are_field_terms():
    wrong = [
        f"{relative(name.path)}:{name.line}: {name.kind} {name.name}: write {word.new}"
        for path in sources("avatar")
        for name in public_names(path)
        if (word := retired(name)) and str(name) not in NAMES_ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_a_retired_word_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "avatar/native").mkdir(parents=True)
    path = tmp_path / "avatar/native/loss.py"
    path.write_text(
        "class Together:\n    sound_path: str\n    _plate: int\n"
        "def pose_gaussians(moves, template): ...\n"
        "def _picture(sounds): ...\n"
        "def say(how: Literal['prior', 'shared']): ...\n"
    )
    found = [f"{name.kind} {name.name}" for name in public_names(path) if retired(name)]
    assert sorted(found) == [
        "argument moves", "class Together", "field sound_path", "function pose_gaussians", "module loss", "value prior",
    ]  # fmt: skip


# (c) sizes


def long_parts() -> Iterator[tuple[str, str]]:
    """Name and message of all files and functions that are too long."""
    for path in sources("avatar", "pipelines", "cuda_ext"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            yield relative(path), f"{relative(path)}:1: {lines} lines"
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    name = f"{relative(path)}: {node.name}"
                    yield name, f"{relative(path)}:{node.lineno}: {node.name} has {lines} lines"


def test_files_and_functions_can_be_read_at_one_sitting():
    wrong = [message for name, message in long_parts() if not {name, name.split(":")[0]} & set(LONG_ALLOWED)]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_allowed_in_vain():
    """A reason for what is no longer there goes as well."""
    names = {str(name) for path in sources("avatar") for name in public_names(path) if retired(name)}
    assert set(NAMES_ALLOWED) <= names
    assert {key.split(":")[0] for key in LONG_ALLOWED} <= {
        relative(p) for p in sources("avatar", "pipelines", "cuda_ext")
    }


# how sentences are read


def test_sentences_are_read_as_a_reader_would():
    text = (
        "# A heading without an end\n\nOne two, e.g. three `four five`\nsix [seven eight](a.b.c). Nine!\n\n"
        "```sh\nnot a word\n```\n- ten\n  eleven\n- twelve\n\n| a b | c |\n|---|---|\n| d. E | f |\n"
    )
    found = [(line, s) for line, block in docs_text.blocks(text) for s in docs_text.sentences(block)]
    counts = [(line, docs_text.words(s)) for line, s in found]
    assert counts == [
        (1, 5), (3, 8), (3, 1), (9, 2), (11, 1), (13, 2), (13, 1), (15, 1), (15, 1), (15, 1)
    ]  # fmt: skip
    assert [n for n, _ in docs_text.long_sentences("a " * 41 + ".\n\n" + "b " * 40 + ".", MOST_WORDS)] == [1]
