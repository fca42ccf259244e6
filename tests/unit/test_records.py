"""Records of measurements: which are older than the code, and that the tables in the docs say what the records say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from avatar.errors import AvatarError
from avatar.paths import write_json
from pipelines import claims, records

ROOT = Path(__file__).resolve().parents[2]
JUDGED = ("preprocess/landmarker", "preprocess/head_fit", "audio/encoders/mel", "motion/face_channels")
MARKS = re.compile(r" †( \*\*Older than the code\*\*: [^\n]*\.)?")


class Checkout:
    """A small git repository with one record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("avatar/eval/measure.py", "avatar/train/trainer.py", "avatar/viewer/start.py"):
            self.write(name)
        for folder in records.FOLDERS:
            (root / folder).mkdir(parents=True)
        self.git("init", "-q")
        self.first = self.commit()

    def write(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=some@body", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.root), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")
        return self.git("rev-parse", "HEAD")

    def record(self, name: str = "somebody-standard", **content: Any) -> records.Record:
        write_json(self.root / f"benchmarks/here/{name}.json", content)
        (found,) = records.find(self.root)
        return found

    def older(self, **content: Any) -> list[str]:
        return records.changed(self.record(**content), self.root)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return Checkout(tmp_path)


def test_a_record_is_older_where_code_that_it_measures_changed(checkout: Checkout) -> None:
    first = checkout.first
    assert checkout.older(commit=first, training={"commit": first}) == []
    checkout.write("avatar/viewer/start.py", "nothing that a record measures")
    second = checkout.commit()
    assert checkout.older(commit=first, training={"commit": first}) == []
    checkout.write("avatar/train/trainer.py", "step = 2")
    checkout.write("avatar/eval/measure.py", "metric = 2")
    third = checkout.commit()
    assert checkout.older(commit=second, training={"commit": second}) == ["avatar/train", "avatar/eval"]
    assert checkout.older(commit=third, training={"commit": second}) == ["avatar/train"]
    assert checkout.older(commit=second, training={"commit": third}) == ["avatar/eval"]
    earlier = [{"commit": first}]
    assert checkout.older(commit=third, training={"commit": third, "earlier": earlier}) == ["avatar/train"]


def test_a_record_is_not_older_for_words_about_the_code(checkout: Checkout) -> None:
    name = "avatar/train/trainer.py"
    checkout.write(name, '"""Train."""\n\n\ndef step(rate=1):\n    """Take one."""\n    return rate  # faster\n')
    first = checkout.commit()
    checkout.write(name, '"""Train it."""\n\n\ndef step(rate=1):\n    # slower\n    return rate\n')
    checkout.write("avatar/preprocess/report_findings.py", "said = 1")
    checkout.write("avatar/eval/images.py", "shown = 1")
    checkout.commit()
    assert checkout.older(commit=first, training={"commit": first}) == []
    checkout.write(name, '"""Train it."""\n\n\ndef step(rate=2):\n    # slower\n    return rate\n')
    checkout.commit()
    assert checkout.older(commit=first, training={"commit": first}) == ["avatar/train"]


def test_every_record_says_what_code_it_measures() -> None:
    """The last pattern is for `avatar bench`, whose records are named by hardware: others are watched by mistake."""
    bench = {"amd-epyc-2core"}
    names = {record.path.stem for record in records.find()}
    first = {stem: next(name for name, *_ in records.WATCHED if fnmatch(stem, name)) for stem in names}
    assert {stem for stem, name in first.items() if name == "*"} <= bench, "name its code in WATCHED"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(("few-seconds-somebody", f"avatar/{part}") for part in ("preprocess/torso.py", "train/loop.py", "eval/a.py")),
        ("few-seconds-somebody", "pipelines/few_seconds.py"),
        ("photo-people", "pipelines/photo_check.py"),
        *(("compare-somebody-draft", f"avatar/{part}") for part in ("preprocess/torso.py", "train/loop.py")),
        ("compare-somebody-draft", "pipelines/compare.py"),
        *((name, "pipelines/kept.py") for name in ("few-seconds-somebody", "photo-people", "compare-somebody-draft")),
        ("speech-tells", "avatar/audio/features.py"),
        *((name, f"avatar/{part}.py") for name in ("sync-judge", "offsets") for part in JUDGED),
        ("somebody-standard", "avatar/io/video.py"),
    ],
)  # fmt: skip
def test_a_record_without_a_training_is_older_where_any_of_its_code_changed(checkout, name: str, file: str) -> None:
    assert records.changed(checkout.record(name, commit=checkout.first), checkout.root) == []
    checkout.write(file, "changed = 1")
    checkout.commit()
    place = "/".join(Path(file).parts[:2])
    assert records.changed(checkout.record(name, commit=checkout.first), checkout.root) == [place]


def test_what_is_watched_as_a_whole_has_one_name(checkout: Checkout) -> None:
    for file in ("avatar/eval/a.py", "avatar/train/a.py", "tests/unit/test_a.py", "pipelines/mutations_list.py"):
        checkout.write(file, "changed = 1")
    checkout.commit()
    older = records.changed(checkout.record("mutations", commit=checkout.first), checkout.root)
    assert older == ["avatar", "pipelines/mutations_list.py", "tests"]


def test_a_record_of_gaussians_is_not_older_for_a_change_of_the_radiance_field(checkout: Checkout) -> None:
    commits = {"commit": checkout.first, "training": {"commit": checkout.first}}
    checkout.write("avatar/methods/nerf/rays.py", "field = 2")
    checkout.commit()
    assert checkout.older(**commits, model={"method": "gaussian"}) == []
    assert checkout.older(**commits, model={"method": "nerf"}) == ["avatar/methods"]
    checkout.write("avatar/methods/gaussian/model.py", "gaussians = 2")
    checkout.commit()
    assert checkout.older(**commits, model={"method": "gaussian"}) == ["avatar/methods"]


def test_what_cannot_be_known_counts_as_older(checkout: Checkout) -> None:
    assert checkout.older(date="2026-01-01") == ["names no commit"]
    assert checkout.older(commit="0" * 40) == ["0000000000 is not in this history"]
    assert checkout.older(commit=f"{checkout.first}+changes") == ["measured with uncommitted changes"]
    (checkout.root / "benchmarks/list.json").write_text("[]")
    with pytest.raises(AvatarError, match="not a record"):
        records.find(checkout.root)


def test_the_tables_are_written_between_their_markers(checkout: Checkout) -> None:
    blocks = {
        "benchmarks/README.md": ("records",),
        "docs/notes/status.md": ("bars", "numbers"),
        "docs/notes/sync_judge.md": ("judged",),
    }
    for name, inside in blocks.items():
        checkout.write(name, "".join(f"before\n<!-- {b}: by a command -->\nold\n<!-- end of {b} -->\n" for b in inside))
    metrics = {"psnr": 30.0, "sync_confidence": 0.35, "intervals": {"psnr": [29.0, 31.0]}}
    checkout.record(
        commit=checkout.first, date="2027-01-02T03:04:05Z", frames=375, fps=25.0, width=512, height=512,
        model={"gaussians": 3, "bytes": 1000}, full_frame={"tracked": metrics},
        ablations={"tracked_torso_at_rest": metrics}, real={"sync_confidence": 0.19},
    )  # fmt: skip
    for _ in range(2):
        records.main(records.Config(root=checkout.root))
    readme, status, card = ((checkout.root / name).read_text() for name in blocks)
    assert "| 0.19, - | 0.35, - | - | - |" in card.replace("-, -", "-")
    assert "old" not in readme.split() and readme.count("375 frames, 15.0 s") == 1
    assert "somebody, full-frame, tracked torso at rest | 30.00 ±1.00" in status and status.count("before") == 2
    assert f"evaluated 2027-01-02 at `{checkout.first[:10]}`" in status
    checkout.write("docs/notes/status.md", "no markers")
    with pytest.raises(AvatarError, match="0 blocks"):
        records.main(records.Config(root=checkout.root))


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [
        (34.2, [33.7, 34.9], "met"),
        (34.2, [33.2, 35.2], "not shown"),
        (34.2, None, "not shown"),
        (33.5, [33.0, 34.0], "missed"),
    ],
)
def test_a_bar_is_met_only_where_the_interval_clears_it(value, interval, verdict) -> None:
    most, least = (
        claims.Bar(what="", protocol="head_only", drive="audio", metric="psnr", bound=sign * 33.6, least=sign > 0)
        for sign in (-1, 1)
    )
    assert least.verdict(value, interval) == verdict
    assert most.verdict(-value, None if interval is None else [-x for x in interval[::-1]]) == verdict


def test_papers_bars_are_judged_on_sound_and_on_people_at_their_size() -> None:
    assert {bar.drive for bar in claims.BARS if bar.paper} == {"audio"}
    good = {"psnr": 36.0, "lpips": 0.05, "intervals": {"psnr": [35.5, 36.5], "lpips": [0.04, 0.06]}}
    content = {"date": "2027", "frames": 375, "fps": 25.0, "width": 512, "height": 512, "head_only": {"audio": good}}
    content |= {"model": {"gaussians": 30000, "bytes": 5_900_000}, "training": {"steps": 10, "seconds": 90.0}}
    small = content | {"width": 256, "height": 256}
    found = {
        name: records.Record(path=Path("benchmarks/here") / f"{name}-standard.json", content=record)
        for name, record in {"a": content, "b": small, "synthetic": content}.items()
    }
    table = claims.bars(found, {Path("benchmarks/here/a-standard.json"): ["avatar/eval"]})
    assert "| 36.00 (35.50 to 36.50): met | - | - |" in table
    assert "| **0.0500 (0.0400 to 0.0600): missed by 0.0240** | - | - |" in table
    assert "| a † | b | synthetic |" in table and "**Older than the code**: avatar/eval." in table
    assert "375 frames, 15.0 s held out; 30000 Gaussians, 5.9 MB, 10 steps in 1.5 min on the clock" in table


def _of(name: str, **changes: Any) -> dict[str, records.Record]:
    """A record that clears the bars of PSNR by far, and keeps numbers of lips."""
    table = {"psnr": 34.0, "lmd": 1.5, "sync_distance": 0.5, "sync_confidence": 0.3}
    table |= {"intervals": {"psnr": [33.5, 34.5], "lmd": [1.0, 2.0]}}
    content = {"date": "2027", "frames": 375, "fps": 25.0, "width": 256, "height": 256, "real": table}
    content |= {"model": {"gaussians": 3, "bytes": 1000}, "full_frame": {"tracked": table, "audio": table}} | changes
    return {name: records.Record(path=Path(f"benchmarks/here/{name}-standard.json"), content=content)}


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({}, "34.00 (33.50 to 34.50): met"),
        ({"date": "2026-11-30T15:17:24Z"}, "34.00 (33.50 to 34.50, too narrow): not shown"),
        ({"date": "2026-11-30T15:17:25Z"}, "34.00 (33.50 to 34.50): met"),
        ({"frames": 249}, "34.00 (no interval): not shown"),
        ({"frames": 250}, "34.00 (33.50 to 34.50): met"),
        ({"frames": 299, "fps": 29.97}, "34.00 (no interval): not shown"),
    ],
)
def test_intervals_that_are_refused_today_show_nothing(changes: dict[str, Any], cell: str) -> None:
    people = _of("somebody", **changes)
    assert f"| at least 31 | {cell} |" in claims.bars(people, {})
    half = "34.00 ±0.50" if "no interval" not in cell else "34.00"
    assert f"| somebody, full-frame, tracked | {half} |" in claims.numbers(people, {})


def test_the_bars_of_a_person_hold_for_all_records_of_that_person() -> None:
    people = _of("anchor_en_71s-yaw-held-out") | _of("somebody") | _of("anchor_en_71second")
    bars = claims.bars(people, {})
    assert "| at least 31; anchor_en_71s 32 |" in bars
    low = {"psnr": 31.5, "intervals": {"psnr": [31.2, 31.8]}}
    people = {name: next(iter(_of(name, full_frame={"tracked": low}).values())) for name in people}
    row = next(line for line in claims.bars(people, {}).splitlines() if line.startswith("| PSNR"))
    verdicts = [cell.partition(": ")[2].strip("* ") for cell in row.split("|")[4:-1]]
    assert verdicts == ["missed by 0.50", "met", "met"]


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({"lips": {"too_short": True}}, True),
        ({"lips": {"too_short": False}, "frames": 260}, False),
        ({"frames": 249}, True),
        ({"lips": None, "frames": 250}, False),
    ],
)
def test_numbers_of_lips_of_too_little_speech_are_not_published(changes: dict[str, Any], short: bool) -> None:
    people = _of("somebody", **changes)
    rows = {line.split("|")[1].strip(): line for line in claims.numbers(people, {}).splitlines()}
    said, judged = rows["somebody, full-frame, audio"], claims.judged(people, {})
    assert ("| too short |" in said) == short and ("1.50 ±0.50" in said) == (not short)
    assert ("| 0.30, 0.50 | 0.30, 0.50 | too short |" in judged) == short
    for name in ("somebody, full-frame, tracked", "somebody, real video"):
        assert "| 1.50" in rows[name], "its lips are not from audio"


def test_a_record_of_kept_steps_is_older_where_code_changed_since_any_of_them(checkout: Checkout) -> None:
    first = checkout.first
    checkout.write("avatar/eval/measure.py", "metric = 2")
    second = checkout.commit()
    now = {"commit": second, "training": {"gaussian": [{"commit": second}]}}

    def older(**kept: Any) -> list[str]:
        return records.changed(checkout.record("compare-somebody-draft", **now | kept), checkout.root)

    assert older(measured={"gaussian": {"commit": second}}) == []
    assert older(measured={"gaussian": {"commit": first}}) == ["avatar/eval"]
    checkout.write("avatar/train/trainer.py", "step = 2")
    third = checkout.commit()
    now = {"commit": third, "training": {"gaussian": [{"commit": second}, {"commit": third}]}}
    assert older(measured={"gaussian": {"commit": third}}) == ["avatar/train"]


def test_the_docs_say_what_the_records_say() -> None:
    """Whether a record is older than the code depends on the day, and is left out of the comparison."""
    found = records.find()
    readme = (ROOT / "benchmarks/README.md").read_text()
    missing = [record.path.stem for record in found if f"[{record.path.stem}](" not in readme]
    assert not missing, "run `python -m pipelines.records`"
    status = MARKS.sub("", (ROOT / "docs/notes/status.md").read_text())
    card = MARKS.sub("", (ROOT / "docs/notes/sync_judge.md").read_text())
    people = claims.measured(found)
    assert claims.judged(people, {}) in card, "run `python -m pipelines.records`"
    assert claims.bars(people, {}) in status and claims.numbers(people, {}) in status, (
        "run `python -m pipelines.records`"
    )


def test_a_record_is_not_older_where_the_same_numbers_came_out_later(checkout: Checkout) -> None:
    first = checkout.first
    commits = {"commit": first, "training": {"commit": first}}
    checkout.write("avatar/train/trainer.py", "step = 2")
    second = checkout.commit()

    def prove(before: str, after: str, *names: str) -> None:
        line = json.dumps({"before": before, "after": after, "records": names})
        checkout.write(str(records.PROOFS), f"{line}\n")

    assert "(equal.jsonl)" not in records.table(records.find(checkout.root), checkout.root), "a link to nothing"
    prove(first, second, "others-*")
    assert "(equal.jsonl)" in records.table(records.find(checkout.root), checkout.root)
    assert checkout.older(**commits) == ["avatar/train"]
    prove(second, second, "*-standard")
    assert checkout.older(**commits) == ["avatar/train"]
    prove(first, second, "*-standard")
    assert checkout.older(**commits) == []
    assert f"(the same numbers at `{second[:10]}`)" in records.table(records.find(checkout.root), checkout.root)
    checkout.write("avatar/eval/measure.py", "metric = 2")
    checkout.commit()
    assert checkout.older(**commits) == ["avatar/eval"]
