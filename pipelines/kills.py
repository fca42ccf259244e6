"""Kill commands without warning, give them again, and compare what comes out with what an undisturbed one makes.

A child process is killed (SIGKILL) at a random moment, or just before its n-th change of a folder: a rename, an
exchange, a removal, a new folder, a sync. Aimed kills find what random ones miss, because a rename takes microseconds.
Every other kill is on a system that cannot exchange two folders. Then the command is given again, as its user would,
sometimes killed once more, and the result must equal the undisturbed one: the same files, tensors, permissions, nothing
hidden, apart from dates and timings. Half the cases begin where an older result lies under the same name.

Children are forked, so that a case costs what the command does and not what Python imports; nothing is computed before
the fork. Everything is made here from a synthetic subject of five seconds, and training is cut to a few steps.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # forks need it

import hashlib
import importlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from avatar import log, writing
from avatar.environment import environment
from avatar.paths import write_json
from pipelines.kills_children import Ended, Moment, Task, command, follow_advice, run

Command = Literal["prepare", "train", "create", "render", "prior"]
LOADED = (  # before the forks: what the commands import
    "torch._dynamo", "av", "cv2", "mediapipe", "onnxruntime", "scipy.spatial", "skimage", "matplotlib.figure",
    "avatar.cli.main", "avatar.cli.prepare", "avatar.preprocess.pipeline",
    "avatar.cli.create", "avatar.cli.train", "avatar.train.trainer", "avatar.train.run", "avatar.cli.render",
    "avatar.infer.planner", "avatar.cli.eval", "avatar.eval.measure", "avatar.preprocess.face_tracker",
    "avatar.cli.prior", "avatar.corpus.prepare", "avatar.corpus.recordings", "avatar.headmotion.generator",
    "avatar.audio2motion.personal_training", "avatar.audio2motion.shared_training",
    "avatar.synth.make", "avatar.methods.gaussian.init", "avatar.methods.gaussian.method", "avatar.io.video_writer",
    *(f"avatar.preprocess.{stage}" for stage in
      ("ingest", "track", "refine", "parse", "pose", "background", "torso", "sync", "report")),
)  # fmt: skip
AGAIN = 0.25  # share of the cases in which the second run is killed as well


@dataclass(frozen=True, kw_only=True)
class Config:
    """Kill, give again, compare."""

    commands: tuple[Command, ...] = ("prepare", "train", "create", "render", "prior")
    """Which commands to kill."""
    kills: int = 50
    """Kills per command, half of them at random moments and half aimed; reruns that are killed do not count."""
    seed: int = 0
    """Of the moments."""
    out: Path | None = None
    """Folder for everything; by default one that is removed at the end."""
    json: Path | None = None
    """Where the counts and the failures go."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, and where it begins.

    Attributes:
        name: For the result.
        first: What the child does, see :func:`command`.
        again: What it does when the command is given again.
        before: Makes what lies in the folder of the case before.
        check: Complains, after a kill, about what must not have changed.
    """

    name: str
    first: Task
    again: Task
    before: Callable[[Path], object] = lambda folder: None
    check: Callable[[Path], str] = lambda folder: ""


# --- what is run --------------------------------------------------------------------------------------------------


def make_video(folder: Path) -> None:
    """Film the synthetic subject."""
    from avatar.synth.make import make_subject

    make_subject(folder, seconds=5, size=192, fps=6, voice="buzz", supersample=1, quiet=True)


def make_corpus(folder: Path, video: Path) -> None:
    """A speaker whose recordings are in the cache already, and a video that is still to be prepared."""
    import numpy as np

    from avatar.audio2motion.shared import WEIGHTS, SharedPrior
    from avatar.corpus.cache import Cache
    from avatar.corpus.find import find
    from avatar.corpus.mouth import Mouth
    from avatar.motion.mouth import ARTICULATION
    from avatar.sync.judge import REACH

    rng = np.random.default_rng(0)
    encoder = SharedPrior.load(WEIGHTS).encoder
    (folder / "corpus" / "ann").mkdir(parents=True)
    cache = Cache.open(folder / "prior.cache", encoder.config)
    for name in ("a", "b"):
        (folder / "corpus" / "ann" / f"{name}.mp4").write_text(name)
    for item in find(folder / "corpus"):
        rows = 500
        values = 0.3 + 0.1 * rng.standard_normal((rows, len(ARTICULATION))).astype(np.float32)
        curve = 1 - 0.4 * np.exp(-0.5 * ((np.arange(-REACH, REACH + 1) + 0.4) / 1.5) ** 2)
        mouth = Mouth(values=values, seen=np.ones(rows, bool), fps=25.0, rows=rows, curve=curve)
        cache.save(cache.key(item), mouth, rng.standard_normal((rows, encoder.dim)).astype(np.float32))
    (folder / "corpus" / "bob").mkdir()
    shutil.copyfile(video, folder / "corpus" / "bob" / "new.mp4")


def copied(source: Path, name: str) -> Callable[[Path], object]:
    """A beginning: a copy of a file or folder."""

    def before(folder: Path) -> None:
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copyfile(source, folder / name)

    return before


def whole(name: str, old: Path) -> Callable[[Path], str]:
    """A check: a file is the old one, or whole and new."""

    def check(folder: Path) -> str:
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if path.read_bytes() != old.read_bytes():
            import av

            with av.open(str(path)) as video:
                if sum(1 for _ in video.decode(video=0)) < 8:
                    return f"{name} is cut off"
        return ""

    return check


def resumable(name: str) -> Callable[[Path], str]:
    """A check: a run that has a model has a checkpoint, which was written before it."""

    def check(folder: Path) -> str:
        lost = (folder / name / "model.safetensors").is_file() and not checkpoints(folder)
        return "the checkpoint is gone" if lost else ""

    return check


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, those included that have not got their name yet."""
    found = folder.rglob("checkpoints/**/last/state.safetensors")
    return [
        path
        for path in found
        if not path.parts[-3].startswith(writing.WORKING) or path.parts[-3].endswith(writing.WHOLE)
    ]


class Inputs:
    """Files that cases begin from, made when they are first asked for.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _made(self, name: str, task: Callable[[Path], object]) -> Path:
        path = self._folder / name
        if not path.exists():
            done = run(lambda: task(path), self._folder / f"{path.stem}.txt")
            if done.code != 0:
                raise SystemExit((self._folder / f"{path.stem}.txt").read_text())
        return path

    @property
    def video(self) -> Path:
        return self._made("subject", make_video) / "video.mp4"

    @property
    def person(self) -> Path:
        return self._made("person", lambda path: command(prepare(self.video, path))())

    @property
    def other_person(self) -> Path:
        return self._made("other", lambda path: command([*prepare(self.video, path), "--mask-stride", "5"])())

    @property
    def run(self) -> Path:
        return self._made("run", lambda path: command(train(self.person, path))())

    @property
    def other_run(self) -> Path:
        return self._made("run1", lambda path: command([*train(self.person, path), "--seed", "1"])())

    @property
    def video_before(self) -> Path:
        arguments = [*render(self.run, self.video, self._folder / "before.mp4"), "--camera", "9,0"]
        return self._made("before.mp4", lambda path: command(arguments)())

    @property
    def corpus(self) -> Path:
        return self._made("prior", lambda path: make_corpus(path, self.video))


def prepare(video: Path, out: Path) -> list[str]:
    return ["prepare", str(video), "--out", str(out), "--size", "128"]


def train(person: Path, out: Path) -> list[str]:
    return ["train", str(person), "--out", str(out), "--quality", "draft"]


def render(run: Path, sound: Path, out: Path) -> list[str]:
    return ["render", str(run), "--audio", str(sound), "--out", str(out), "--frames", "8"]


def cases(name: Command, inputs: Inputs, folder: Path) -> list[Case]:
    """The cases of a command, all in ``folder``: from nothing, and over what is there."""
    if name == "prepare":
        task = command(prepare(inputs.video, folder / "person"))
        over = copied(inputs.other_person, "person")
        return [
            Case(name="prepare", first=task, again=task),
            Case(name="prepare with other options", first=task, again=task, before=over),
        ]
    if name == "train":
        arguments = train(inputs.person, folder / "run")
        first, over = command(arguments), command([*arguments, "--overwrite"])
        again = follow_advice(command([*arguments, "--resume"]), first, folder / "run")
        return [
            Case(name="train", first=first, again=again, check=resumable("run")),
            Case(name="train --overwrite", first=over, again=over, before=copied(inputs.other_run, "run")),
        ]
    if name == "create":
        arguments = ["create", str(inputs.video), "--out", str(folder / "run"), "--quality", "draft", "--size", "128"]
        task = command(arguments)
        return [Case(name="create", first=task, again=task, check=resumable("run"))]
    if name == "render":
        arguments = [*render(inputs.run, inputs.video, folder / "out.mp4"), "--json", str(folder / "out.json")]
        task = command(arguments)
        over = copied(inputs.video_before, "out.mp4")
        check = whole("out.mp4", inputs.video_before)
        return [
            Case(name="render", first=task, again=task),
            Case(name="render over a video", first=task, again=task, before=over, check=check),
        ]
    corpus = inputs.corpus
    arguments = ["prior", "train", str(corpus / "corpus"), "--out", str(folder / "prior.safetensors"), "--workers", "1"]
    prepared = copied(corpus / "prior.cache", "prior.cache")
    task = command(arguments)
    return [Case(name="prior train", first=task, again=task, before=prepared)]


# --- comparing ----------------------------------------------------------------------------------------------------

TIMES = {"seconds", "date", "command", "speed", "peak_memory_bytes", "frames_per_second", "render_milliseconds",
         "commit", "earlier"}  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder with its permissions and its content, without what tells the time or the command line."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "log" in path.relative_to(folder).parts[:-1]:  # TensorBoard's: one more file each time
            continue
        content = "" if path.is_dir() else hashlib.sha256(normal(path)).hexdigest()[:16]
        found[name] = f"{path.stat().st_mode:o} {content}"
    return found


def normal(path: Path) -> bytes:
    """The content of a file without times."""
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(path), "numpy") as file:
            about = {key: _timeless_text(value) for key, value in (file.metadata() or {}).items()}
            names = sorted(file.keys())
            tensors = b"".join(key.encode() + file.get_tensor(key).tobytes() for key in names)
        return json.dumps(about, sort_keys=True).encode() + tensors
    if path.name == "command.txt":
        return b""
    text = path.read_bytes()
    if path.name == "config.toml":
        return re.sub(rb"(?m)^(resume|overwrite) = .*$", b"", text)
    if path.suffix == ".html":
        return re.sub(rb"Measured .*?</code>|[\d.]+ (frames/s|GB|s\b|ms|minutes)", b"", text, flags=re.DOTALL)
    return text


def _timeless(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _timeless(value) for key, value in data.items() if key not in TIMES}
    return [_timeless(value) for value in data] if isinstance(data, list) else data


def _timeless_text(text: str) -> Any:
    try:
        return _timeless(json.loads(text))
    except ValueError:
        return text


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """What differs between two trees, in words."""
    names = sorted(expected.keys() | found.keys())
    pairs = [(name, expected.get(name, "absent"), found.get(name, "absent")) for name in names]
    wrong = [f"{name}: {one} / {other}" for name, one, other in pairs if one != other]
    return "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")


# --- the whole ----------------------------------------------------------------------------------------------------


def attack(case: Case, folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill a command again and again, and count what comes of it.

    Args:
        case: The command.
        folder: Emptied before each case.
        kills: How many of the first runs are to be killed; a run that ends before its moment does not count.
        rng: Chooses the moments.
    """
    output = folder.with_name("output.txt")

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case.before(folder)

    begin()
    calm = run(case.first, output)
    if calm.code != 0:
        raise SystemExit(f"{case.name} fails even when nobody kills it:\n{output.read_text()}")
    expected = tree(folder)
    counts: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    while counts["killed at random"] + counts["killed aimed"] < kills and counts["cases"] < 2 * kills + 2:
        row = choose(counts["cases"], rng, calm)
        begin()
        problem, task = "", case.first
        for number, moment in enumerate(row):
            ended = run(task, output, moment)
            kind = "killed again" if number else "killed at random" if moment.change == 0 else "killed aimed"
            counts[kind if ended.code == -signal.SIGKILL else "ended before"] += 1
            if ended.code not in (0, -signal.SIGKILL):
                problem = f"exit code {ended.code}: {output.read_text()[-600:]}"
            problem = problem or case.check(folder)
            task = case.again
        kept = checkpoints(folder)
        ended = run(task, output)
        said = output.read_text()
        if ended.code != 0:
            problem = problem or f"given again: exit code {ended.code}: {said[-600:]}"
        if kept and "begins anew" in said:
            problem = problem or "training began anew though there was a checkpoint"
        problem = problem or difference(expected, tree(folder))
        counts["cases"] += 1
        log.info(f"{case.name} {counts['cases']}: {', '.join(map(told, row))}: {problem or 'as undisturbed'}")
        if problem:
            failures.append({"moments": [moment._asdict() for moment in row], "problem": problem})
    undisturbed = {"seconds": round(calm.seconds, 2), "changes": calm.changes}
    return {"undisturbed": undisturbed, **counts, "failures": failures}


def told(moment: Moment) -> str:
    """A moment in words."""
    when = f"before change {moment.change}" if moment.change else f"after {moment.seconds:.2f} s"
    return when + ("" if moment.exchange else " without exchange")


def choose(index: int, rng: random.Random, calm: Ended) -> list[Moment]:
    """When the n-th case is killed: by turns at random and aimed, and every two turns with and without exchange."""

    def one(aimed: bool) -> Moment:
        if aimed:
            return Moment(change=rng.randint(1, calm.changes - 1), exchange=index % 4 < 2)
        return Moment(seconds=rng.uniform(0, calm.seconds), exchange=index % 4 < 2)

    return [one(index % 2 == 0)] + ([one(rng.random() < 0.5)] if rng.random() < AGAIN else [])


def main(config: Config) -> int:
    """Attack each command; 0 when every rerun gave the undisturbed result."""
    for module in LOADED:
        importlib.import_module(module)
    folder = config.out or Path(tempfile.mkdtemp(prefix="avatar-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {**environment(), "kills_per_command": config.kills, "seed": config.seed, "cases": {}}
    inputs, failures = Inputs(folder), 0
    for name in config.commands:
        todo = cases(name, inputs, folder / "case")
        for index, case in enumerate(todo):
            count = config.kills // len(todo) + (index < config.kills % len(todo))
            rng = random.Random(f"{config.seed} {case.name}")
            counts = attack(case, folder / "case", count, rng)
            result["cases"][case.name] = counts
            failures += len(counts["failures"])
            if config.json is not None:
                write_json(config.json, result)
    if config.out is None:
        shutil.rmtree(folder)
    table = {name: {k: v for k, v in counts.items() if k != "failures"} | {"failures": len(counts["failures"])}
             for name, counts in result["cases"].items()}  # fmt: skip
    print(json.dumps(table, indent=2))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
