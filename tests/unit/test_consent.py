"""The record of consent: where it comes from, where it goes, and what needs it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from avatar.cli.consent import answered
from avatar.cli.main import main
from avatar.data import consent
from avatar.data.consent import SCOPES, SYNTHETIC, Consent, keep, of_folder, require, require_stated
from avatar.data.person import MARKER
from avatar.data.run import CONFIG
from avatar.errors import AvatarError
from avatar.paths import file_sha256, write_json
from avatar.preprocess import pipeline
from avatar.preprocess.ingest import fingerprint
from avatar.train.run import open_run
from tests.person import make_person, small_config, train

AGREED = Consent(relation="authorised", name="A. Person", given="2026-05-01", scope=("likeness", "live"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def record(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(AGREED.as_json() | changes))
    return path


def test_a_record_is_read_as_it_was_written(tmp_path) -> None:
    for written in (AGREED, SYNTHETIC, Consent(), consent.own()):
        written.write(tmp_path)
        assert of_folder(tmp_path) == written
    assert "video" not in consent.own().statement  # it may be a photo
    assert consent.own().scope == SCOPES and consent.own().given == date.today().isoformat()


def test_what_is_covered() -> None:
    yesterday, today = date.today() - timedelta(days=1), date.today()
    assert AGREED.covers("live") and not AGREED.covers("publish")
    assert not Consent(scope=SCOPES).covers("live")
    for expires, covered in ((yesterday, False), (today, True)):
        timed = Consent(relation="self", scope=SCOPES, expires=expires.isoformat())
        assert timed.covers("live") is covered
    assert SYNTHETIC.covers("publish")


def test_a_use_that_nobody_agreed_to_is_refused_with_a_way_out(tmp_path) -> None:
    with pytest.raises(AvatarError, match=r"Nobody has stated.*avatar consent .* --state self"):
        require(tmp_path, "live", "to serve")
    AGREED.write(tmp_path)
    assert require(tmp_path, "live", "to serve") == AGREED
    with pytest.raises(AvatarError, match="agreed to likeness, live"):
        require(tmp_path, "publish", "to export it")
    Consent(relation="self", scope=SCOPES, expires="2020-01-01").write(tmp_path)
    with pytest.raises(AvatarError, match="expired on 2020-01-01"):
        require(tmp_path, "live", "to serve")


def test_the_command_shows_and_states_it(tmp_path, capsys) -> None:
    person = make_person(tmp_path / "person", frames=12)
    assert main(["consent", str(person)]) == 0 and "Consent: not stated." in said(capsys)
    assert main(["consent", str(person), "--state", "self"]) == 0
    assert "of the person who uses it" in said(capsys)
    assert main(["consent", str(person), "--state", str(record(tmp_path / "r.json"))]) == 0
    assert "of another person, who agreed (A. Person), for likeness, live." in said(capsys)
    for bad in ("nobody", str(tmp_path)):
        assert main(["consent", str(person), "--state", bad]) == 2
    assert of_folder(person) == AGREED
    assert main(["consent", str(tmp_path)]) == 2 and "no PERSON and no RUN" in said(capsys)


def test_records_that_cannot_be(tmp_path) -> None:
    for changes, words in (
        ({"format": "x"}, "no record of consent"), ({"scope": ["likeness", "war"]}, "one of likeness"),
        ({"subject": {"relation": "friend"}}, "one of self"), ({"expires": "soon"}, "2027-01-31"),
        ({"evidence": {"sha256": "12"}}, "no SHA-256"), ({"evidence": {"file": "none.mp4"}}, "not beside it"),
        ({"scope": "live"}, "scope"), ({"subject": {}}, "relation"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=words):
            consent.read(record(tmp_path / "r.json", **changes))
    (tmp_path / "proof.mp4").write_bytes(b"proof")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/link.mp4").symlink_to(tmp_path / "proof.mp4")
    for elsewhere in ("../proof.mp4", str(tmp_path / "proof.mp4"), "link.mp4"):
        with pytest.raises(AvatarError, match="not beside it"):
            consent.read(record(tmp_path / "inner/r.json", evidence={"file": elsewhere}))
    found = consent.read(record(tmp_path / "r.json", evidence={"file": "proof.mp4"}))
    assert found.evidence == file_sha256(tmp_path / "proof.mp4")


def test_what_is_given_wins_and_what_is_there_stays(tmp_path, capsys) -> None:
    video, person = tmp_path / "me.mp4", tmp_path / "person"
    person.mkdir()
    keep(person, None, video)
    assert not of_folder(person).stated and "not stated" in said(capsys)
    keep(person, None, video)
    assert said(capsys) == ""  # said once
    record(tmp_path / f"me{consent.BESIDE}")
    keep(person, None, video)
    assert of_folder(person) == AGREED
    keep(person, consent.own(), video)
    keep(person, None, video)
    assert of_folder(person) == consent.own()


def test_the_question_is_asked_only_at_a_terminal_and_only_once(tmp_path, monkeypatch, capsys) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def ask(answer: str) -> Consent | None:
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        return answered(None, video, tmp_path / "person")

    video = tmp_path / "me.mp4"
    video.write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n"))
    assert answered(None, video, tmp_path / "person") is None and "Who is" not in said(capsys)
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True, raising=False)
    assert ask("s\n") == consent.own() and ask("p\n") == SYNTHETIC and ask("\n") is None and ask("") is None
    assert ask("S\n") == ask("Self\n") == consent.own() and ask("P\n") == SYNTHETIC
    assert ask(f"{record(tmp_path / 'r.json')}\n") == AGREED
    assert ask(f"'{tmp_path / 'r.json'}'\n") == AGREED, "as terminals paste a file"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ask("~/r.json\n") == AGREED
    with pytest.raises(AvatarError, match="no record of consent"):
        ask("maybe\n")
    assert "Who is in this video?" in said(capsys)
    write_json(tmp_path / "person" / MARKER, {"source_sha256": fingerprint(video)})
    AGREED.write(tmp_path / "person")
    assert ask("s\n") is None and "Who is" not in said(capsys)
    assert answered("self", video, tmp_path / "person") == consent.own()
    video.write_bytes(b"another")  # somebody else, it may be
    assert ask("s\n") == consent.own() and "Who is" in said(capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal("s\n"))
    assert answered(None, Path("."), tmp_path / "new") == consent.own()  # a dataset; it has no name to put a record by


def test_what_somebody_stated_does_not_go_over_to_another_video(tmp_path, monkeypatch) -> None:
    """`prepare --force` of another video: the record beside it counts, or nothing is stated."""
    alice, bob, person = tmp_path / "alice.mp4", tmp_path / "bob.mp4", tmp_path / "person"
    alice.write_bytes(b"alice")
    bob.write_bytes(b"bob")
    monkeypatch.setattr("avatar.preprocess.ingest.check_source", lambda *_: SimpleNamespace(duration=60, path=alice))
    monkeypatch.setattr(pipeline, "STAGES", ())
    pipeline.prepare(alice, person, stages=(), consent=consent.own())
    assert of_folder(person) == consent.own()
    pipeline.prepare(alice, person, stages=(), force=True)
    assert of_folder(person) == consent.own(), "of the same video it stays"
    pipeline.prepare(bob, person, stages=(), force=True)
    assert not of_folder(person).stated
    consent.own().write(person)
    record(tmp_path / f"alice{consent.BESIDE}")
    pipeline.prepare(alice, person, stages=(), force=True)
    assert of_folder(person) == AGREED


def test_a_photo_needs_its_own_record(tmp_path) -> None:
    person, photo = tmp_path / "person", tmp_path / "stranger.jpg"
    photo.write_bytes(b"stranger")
    write_json(person / MARKER, {"source_sha256": "of another photo"})
    consent.own().write(person)
    with pytest.raises(AvatarError, match="Nobody has stated"):
        pipeline.prepare(photo, person, force=True)
    assert of_folder(person) == consent.own(), "nothing was changed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": {"relation": "not stated"}}, "Nobody has stated"),
        ({"expires": "2026-05-02"}, "has expired on 2026-05-02"),
        ({"format": "no record"}, "is no record of consent"),
    ],
)
def test_a_record_beside_a_photo_has_to_say_yes(tmp_path, changes, words) -> None:
    photo = tmp_path / "me.jpg"
    record(tmp_path / "me.consent.json")
    require_stated(None, None, photo)
    record(tmp_path / "me.consent.json", **changes)
    with pytest.raises(AvatarError, match=words):
        require_stated(None, None, photo)
    require_stated(None, AGREED, photo)


def test_it_goes_from_the_person_into_the_run(tmp_path) -> None:
    person = make_person(tmp_path / "person", frames=12)
    AGREED.write(person)
    train(small_config(person, tmp_path / "run", steps=1))
    from avatar.data.dataset import PersonDataset
    from avatar.train.run import describe

    (tmp_path / "run").mkdir(exist_ok=True)
    describe(tmp_path / "run", small_config(person, tmp_path / "run"), PersonDataset(person))
    assert of_folder(tmp_path / "run") == AGREED
    consent.own().write(tmp_path / "run")
    describe(tmp_path / "run", small_config(person, tmp_path / "run"), PersonDataset(person))
    assert of_folder(tmp_path / "run") == consent.own(), "what was stated of the avatar stays"
    AGREED.write(person)  # narrower, and stated later
    describe(tmp_path / "run", small_config(person, tmp_path / "run"), PersonDataset(person))
    assert of_folder(tmp_path / "run") == AGREED


def test_a_training_that_begins_anew_asks_its_own_person(tmp_path) -> None:
    """The run was stopped before its first checkpoint, and now learns somebody else of whom nothing is stated."""
    begun = small_config(make_person(tmp_path / "alice", frames=12), tmp_path / "run", steps=1)
    folder = open_run(begun)
    (folder / CONFIG).touch()
    consent.own().write(folder)
    open_run(replace(begun, person=make_person(tmp_path / "bob", frames=12), resume=True))
    assert not of_folder(folder).stated


def test_serving_beyond_this_machine_needs_it(tmp_path, capsys) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text('format = "avatar-run-2"\n')
    (run / "model.safetensors").write_bytes(b"")
    for command in (["serve", str(run), "--token", "x" * 20], ["view", str(run)]):
        assert main([*command, "--host", "0.0.0.0"]) == 2
        assert "needs a consent to 'live'" in said(capsys), command
