"""A bundle opens like the RUN folder that it was made from, and a hostile one does no harm."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import load, load_file, save

from avatar.checks import read_toml
from avatar.cli.main import main
from avatar.data import bundle, packed
from avatar.data.bundle import HEADER, NEEDED, run_folder, write_bundle
from avatar.data.consent import SYNTHETIC, of_folder
from avatar.data.run import COMMAND, CONFIG, ENVIRONMENT, MODEL, MOTION, PERSON, TRACKING, TRAINING
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.motion import Motion
from avatar.paths import read_json
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN folder with everything that a rendering needs."""
    from avatar.data.dataset import PersonDataset
    from avatar.methods.model_file import save_model
    from avatar.train.run import describe

    folder = tmp_path_factory.mktemp("bundle")
    person, path = make_person(folder / "person", frames=16), folder / "run"
    config = small_config(person, path, steps=2)
    path.mkdir()
    data = PersonDataset(person)
    trainer = train(config)
    describe(path, config, data)
    save_model(path / MODEL, trainer.model, data.width, data.height, 2)
    data.motion.save(path / MOTION)
    data.motion.save(path / TRACKING)
    (path / TRAINING).write_text("{}")
    SYNTHETIC.write(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVATAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(run: Path) -> list[torch.Tensor]:
    avatar = Avatar.load(run, device="cpu", precision="float32")
    motion = Motion.load(avatar.run / MOTION)
    views = avatar.camera, avatar.view(10, 0, beyond=True)
    return [avatar.render(view, motion, frame) for view in views for frame in (0, 7)]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def test_the_same_picture_to_the_bit(run, tmp_path) -> None:
    path = tmp_path / "me.avatar"
    assert main(["export", str(run), "--format", "bundle", "--out", str(path)]) == 0
    assert all(torch.equal(a, b) for a, b in zip(pictures(run), pictures(path), strict=True))
    opened = run_folder(path)
    assert opened.name == "me" and run_folder(opened) == opened and of_folder(opened) == SYNTHETIC
    (opened / MODEL).write_bytes(b"kept")  # opened once: not written again
    assert (run_folder(path) / MODEL).read_bytes() == b"kept"


def test_nothing_of_the_video_nor_of_this_machine_is_inside(run, tmp_path) -> None:
    write_bundle(run, tmp_path / "me.avatar")
    with zipfile.ZipFile(tmp_path / "me.avatar") as archive:
        names = set(archive.namelist())
        everything = b"".join(archive.read(name) for name in names)
    assert not names & {TRACKING, COMMAND, ENVIRONMENT} and names > NEEDED
    assert str(run.parent).encode() not in everything
    write_bundle(run, tmp_path / "again.avatar")
    assert (tmp_path / "me.avatar").read_bytes() == (tmp_path / "again.avatar").read_bytes()


def test_a_run_that_learned_from_other_runs_does_not_say_where_they_were(run, tmp_path) -> None:
    copy = tmp_path / "jane" / "run"
    shutil.copytree(run, copy)
    at = str(tmp_path / "jane")
    config = {"teacher": f"{at}/field", "prior": f"{at}/prior"} | read_toml(copy / CONFIG)
    config["model"] = config.get("model", {}) | {"torso": f"{at}/torso"}
    (copy / CONFIG).write_text(tomli_w.dumps(config))
    learned = read_json(copy / TRAINING) | {"teacher": {"run": f"{at}/field", "method": "nerf", "sha256": "0"}}
    (copy / TRAINING).write_text(json.dumps(learned))
    write_bundle(copy, tmp_path / "me.avatar")
    with zipfile.ZipFile(tmp_path / "me.avatar") as archive:
        everything = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, data in everything.items() if at.encode() in data]
    assert json.loads(everything[TRAINING])["teacher"] == {"method": "nerf", "sha256": "0"}


def test_a_compact_one_is_smaller_and_nearly_the_same(run, tmp_path) -> None:
    whole, small = tmp_path / "whole.avatar", tmp_path / "small.avatar"
    write_bundle(run, whole)
    assert main(["export", str(run), "--format", "bundle", "--out", str(small), "--compact"]) == 0
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    for a, b in zip(pictures(run), pictures(small), strict=True):
        assert 0 < (a.float() - b.float()).pow(2).mean().sqrt() < 2.0  # grey levels
    kept = load_file(run_folder(small) / MODEL)
    assert {n: (t.shape, t.dtype) for n, t in kept.items()} == {
        n: (t.shape, t.dtype) for n, t in load_file(run / MODEL).items()
    }


def test_rounding_errs_by_half_a_step() -> None:
    spread = torch.tensor([1.0, 1e-3, 40.0, 0.0])
    tensors = {"means": torch.randn(900, 4) * spread + 5, "colors": torch.randn(900, 4) * spread, "few": torch.ones(3)}
    back = load(packed.unpacked(packed.packed(save(tensors, {"json": "{}"}))))
    assert back.keys() == tensors.keys() and torch.equal(back["few"], tensors["few"])
    for name, most in (("means", 65535), ("colors", 255)):
        span = tensors[name].amax(0) - tensors[name].amin(0)
        assert ((back[name] - tensors[name]).abs() <= 0.51 * span / most + 2e-6).all(), name
    exact = save(tensors, {"json": "{}"})
    assert packed.unpacked(exact) == exact


def test_commands_take_it_and_say_what_they_cannot(run, tmp_path, capsys) -> None:
    path = tmp_path / "me.avatar"
    write_bundle(run, path)
    assert main(["render", str(path), "--idle", "0.2", "--pose", "still"]) == 0
    assert (tmp_path / "idle.mp4").is_file()  # beside it: there is no room inside
    assert main(["export", str(path), "--format", "baked"]) == 2 and "nothing can be written into it" in said(capsys)
    assert main(["eval", str(path)]) == 2 and "needs the RUN folder" in said(capsys)
    assert main(["export", str(path), "--format", "bundle", "--out", str(tmp_path / "copy.avatar")]) == 0
    exact = path.read_bytes()
    assert main(["export", str(path), "--format", "bundle", "--compact", "--out", str(path)]) == 2
    assert "is one of the inputs" in said(capsys) and path.read_bytes() == exact
    assert main(["export", str(run), "--format", "bundle"]) == 2 and "--out is missing" in said(capsys)
    assert main(["export", str(run), "--format", "bundle", "--out", str(tmp_path / "me.zip")]) == 2


def test_without_consent_it_does_not_leave(run, tmp_path, capsys) -> None:
    import shutil

    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "consent.json").unlink()
    out = tmp_path / "me.avatar"
    assert main(["export", str(other), "--format", "bundle", "--out", str(out)]) == 2
    assert "needs a consent to 'likeness'" in said(capsys) and not out.exists()


def edited(source: Path, target: Path, change) -> Path:
    """A copy of a bundle whose entries, bytes by name, were changed, and whose header was not."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def with_header(entries: dict[str, bytes], change) -> None:
    header = json.loads(entries[HEADER])
    change(header)
    entries[HEADER] = json.dumps(header).encode()


def add(entries: dict[str, bytes], name: str, data: bytes) -> None:
    entries[name] = data
    listed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with_header(entries, lambda header: header["files"].update({name: listed}))


def replaced_model(entries: dict[str, bytes]) -> None:
    entries.pop(MODEL)
    add(entries, MODEL, pickle.dumps(print))


def bomb(entries: dict[str, bytes]) -> None:
    entries[MODEL] = bytes(50_000_000)  # deflates to 50 kB; the header says less


HOSTILE = {
    "a path that escapes": (lambda e: add(e, "../escaped.json", b"{}"), "no part of an avatar"),
    "an absolute path": (lambda e: add(e, "/tmp/escaped.json", b"{}"), "no part of an avatar"),
    "a program": (lambda e: add(e, "setup.py", b"print()"), "no part of an avatar"),
    "more than the header says": (lambda e: e.update({"background.png": b"x"}), "other files than it says"),
    "less than the header says": (lambda e: e.pop(MODEL), "other files than it says"),
    "another hash": (lambda e: e.update({PERSON: e[PERSON][:-1] + b" "}), "another hash"),
    "a bomb": (bomb, "another size than it says"),
    "a size that lies": (
        lambda e: with_header(e, lambda h: h["files"][MODEL].update(bytes=len(e[MODEL]) + 1)),
        "another size than it says",
    ),
    "a size that nothing shrinks to": (
        lambda e: with_header(e, lambda h: h["files"][MODEL].update(bytes=1 << 29)), "100 times its own bytes"
    ),
    "a size beyond all": (
        lambda e: with_header(e, lambda h: h["files"][MODEL].update(bytes=1 << 40)), "files"
    ),
    "a pickle": (replaced_model, "holds no tensors"),
    "a header that is no JSON": (lambda e: e.update({HEADER: b"\xff{"}), "me.avatar"),
    "a header without files": (lambda e: with_header(e, lambda h: h.pop("files")), "files"),
    "a long header": (lambda e: e.update({HEADER: b" " * 100_000}), "another size"),
    "no header": (lambda e: e.pop(HEADER), "it lacks bundle.json"),
    "another version": (lambda e: with_header(e, lambda h: h.update(format="avatar-bundle-9")), "another version"),
    "no model": (lambda e: (e.pop(MODEL), with_header(e, lambda h: h["files"].pop(MODEL))), "lacks model"),
    "many entries": (lambda e: e.update({f"{i}.json": b"" for i in range(99)}), "no bundle of this toolkit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nothing is wrong with."""
    path = tmp_path_factory.mktemp("good") / "good.avatar"
    write_bundle(run, path)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bundles(good, tmp_path, cache, capsys, name) -> None:
    change, words = HOSTILE[name]
    path = edited(good, tmp_path / "me.avatar", change)
    before = set(tmp_path.parent.rglob("*"))
    assert main(["render", str(path), "--idle", "1"]) == 2
    assert words in said(capsys)
    added = {path for path in set(tmp_path.parent.rglob("*")) - before if cache not in path.parents and path != cache}
    assert not added and not list(cache.rglob("*.safetensors")) and not Path("/tmp/escaped.json").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_limit_is_not_unpacked(tmp_path, monkeypatch, method) -> None:
    """A header of a few hundred bytes may hold gigabytes, which the standard library unpacks at once."""
    path = tmp_path / "me.avatar"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(HEADER, bytes(1 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("an entry was unpacked"))
    with pytest.raises(AvatarError, match="packed in another way"):
        run_folder(path)


def test_rounded_tensors_stay_as_large_as_they_are() -> None:
    tensors = {"a": torch.zeros(300, 1, dtype=torch.uint8), "a.low": torch.zeros(200), "a.step": torch.ones(200)}
    with pytest.raises(ValueError, match="channels"):
        packed.unpacked(save(tensors, {"packed": '{"a": "float32"}'}))


def test_the_name_of_a_bundle_does_not_lead_out_of_its_folder(run, tmp_path, cache) -> None:
    write_bundle(run, tmp_path / "...avatar")
    write_bundle(run, tmp_path / "me.avatar")
    kept = run_folder(tmp_path / "me.avatar")
    opened = run_folder(tmp_path / "...avatar")
    assert (opened / MODEL).is_file() and (kept / MODEL).is_file() and opened.parent.parent == cache / "bundles"


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_bundle(run, tmp_path, cache) -> None:
    write_bundle(run, tmp_path / "me.avatar")
    cache.write_text("a file")
    with pytest.raises(AvatarError, match=r"cannot be written.*AVATAR_CACHE"):
        run_folder(tmp_path / "me.avatar")


def test_broken_files(good, tmp_path, capsys) -> None:
    whole, path = good.read_bytes(), tmp_path / "me.avatar"
    middle = bytearray(whole)
    middle[len(middle) // 2] ^= 255
    for content in (b"", b"PK", whole[:-1], whole[: len(whole) // 2], bytes(middle), whole + b"x", bytes(500)):
        path.write_bytes(content)
        with pytest.raises(AvatarError, match=r"me\.avatar"):
            run_folder(path)


def test_a_run_that_is_not_finished_makes_no_bundle(run, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    for name in (CONFIG, PERSON, MODEL):
        (tmp_path / "run" / name).write_bytes((run / name).read_bytes())
    with pytest.raises(AvatarError, match=r"lacks motion\.safetensors"):
        bundle.write_bundle(tmp_path / "run", tmp_path / "me.avatar")
