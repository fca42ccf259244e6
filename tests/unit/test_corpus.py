"""A corpus of talking videos: found, prepared, put in step, trained on by one process or several; bad ones left out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.assets import store as assets
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.mel import MelEncoder
from avatar.audio2motion import shared_training
from avatar.audio2motion.load import STREAMING, load_shared, load_streaming
from avatar.audio2motion.shared import WEIGHTS, SharedPrior, SharedSpeech
from avatar.cli.main import main
from avatar.corpus import prepare, sync
from avatar.corpus.cache import MARKER, Cache
from avatar.corpus.find import Item, find
from avatar.corpus.measure import mean, measure
from avatar.corpus.mouth import Mouth, of_coefficients
from avatar.corpus.ranks import Ranks
from avatar.corpus.recordings import VIDEOS, Recordings, by_source, decide, scales, shares
from avatar.corpus.train import fit_on, prepare_all
from avatar.corpus.workers import spread
from avatar.data.person import PersonInfo
from avatar.errors import AvatarError
from avatar.io.checkpoint import save_tensors
from avatar.motion import arkit_files, facegood
from avatar.motion.arkit import INDEX
from avatar.motion.mouth import ARTICULATION, GEOMETRY
from avatar.paths import read_json, write_json
from avatar.sync.judge import REACH
from avatar.train.speech import load_prior, train_speech
from tests.media import need_landmarker, portrait, shifted, write_sound, write_video
from tests.mute import Mute
from tests.person import person_info
from tests.talking import talking

PUCKER, JAW_OPEN = ARTICULATION.index("mouthPucker"), ARTICULATION.index("jawOpen")
FEATURES, HEARD = 128, 768  # of the encoder that is only named, and of Whisper's
needs_whisper = pytest.mark.skipif(not assets.available("whisper_front"), reason="the asset whisper_front is not here")


class Silent:
    """An encoder that is only named."""

    dim, name = FEATURES, "none"
    config = {"name": "none"}  # noqa: RUF012


ENCODER: SpeechEncoder = Silent()  # type: ignore[assignment]


def distances(late: float, depth: float = 0.4) -> np.ndarray:
    """The sync judge's curve for a video whose picture is late by so many windows (before its zero is corrected)."""
    return 1 - depth * np.exp(-0.5 * ((np.arange(-REACH, REACH + 1) - late) / 1.5) ** 2)


def spoken(
    seed: int, seconds: float = 20.0, scale: float = 1.0, late: float = 0.0, dim: int = FEATURES
) -> tuple[Mouth, np.ndarray]:
    """A mouth that does what is heard, in everybody's way; the picture late by so many rows."""
    rows = round(seconds * 25)
    world = np.random.default_rng(0)
    way, hears = world.standard_normal((6, len(ARTICULATION))), world.standard_normal((6, dim))
    rng = np.random.default_rng(seed)
    said = rng.standard_normal((rows + 40, 6))
    said = np.stack([np.convolve(column, np.ones(5) / 2, "same") for column in said.T], 1)
    features = said @ hears + 0.05 * rng.standard_normal((rows + 40, dim))
    seen = 0.3 + 0.1 * scale * (said @ way)
    frames = np.arange(len(seen)) - late
    moved = np.stack([np.interp(frames, np.arange(len(seen)), c) for c in seen.T], 1)[20 : 20 + rows]
    mouth = Mouth(
        values=moved.astype(np.float32),
        seen=np.ones(rows, bool),
        fps=25.0,
        rows=rows,
        curve=distances(late - 0.4) if seconds >= 2 else None,
    )
    return mouth, features[20 : 20 + rows].astype(np.float32)


def make_corpus(folder: Path, cache: Cache, clips: dict[str, tuple[Mouth, np.ndarray]]) -> list[Item]:
    """Files that stand for videos, and what would have been prepared from them."""
    for name in clips:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    items = find(folder)
    for item in items:
        cache.save(cache.key(item), *clips[item.name])
    return items


def keys_of(items: list[Item], cache: Cache) -> dict[str, str]:
    return {item.name: cache.key(item) for item in items}


def said(prior: SharedPrior, dim: int = FEATURES) -> tuple[np.ndarray, np.ndarray]:
    """What a prior says of new speech, and what is true."""
    mouth, features = spoken(99, dim=dim)
    return (prior.inputs(features) @ prior.weights).numpy(), mouth.values


# --- finding ----------------------------------------------------------------------------------------------------------


def test_recordings_are_found_wherever_they_lie(tmp_path: Path):
    for name in ("a.mp4", "ann/x.MOV", "ann/sub/x.mkv", "ann/.x.mp4", "ann/notes.txt", "bob/x.bs.npy", "bob/x.flac",
                 "bob/y.csv", "bob/y.wav", "bob/times.csv", "bob/lonely.json", "bob/z.csv", "bob/z.mov"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Timecode,JawOpen" if name[4] in "yz" else '{"names": ["jawOpen"]}')
    (tmp_path / "bob/times.csv").write_text("word,start")
    (tmp_path / "bob/z.csv").write_bytes("Timecode;JawOpen".encode("utf-16"))
    os.symlink(tmp_path, tmp_path / "ann/loop")
    found = {item.name: item for item in find(tmp_path)}
    assert list(found) == ["a.mp4", "ann/sub/x.mkv", "ann/x.MOV", "bob/lonely.json", "bob/x.bs.npy", "bob/y.csv",
                           "bob/z.csv", "bob/z.mov"]  # fmt: skip
    assert found["a.mp4"].speaker == "a.mp4" and found["ann/x.MOV"].speaker == "ann"
    assert found["ann/sub/x.mkv"].speaker == "ann/sub"
    sounds = {name: item.audio and item.audio.name for name, item in found.items() if not item.video}
    assert sounds == {"bob/lonely.json": None, "bob/x.bs.npy": "x.flac", "bob/y.csv": "y.wav", "bob/z.csv": "z.mov"}
    assert [path.name for path in found["bob/x.bs.npy"].files] == ["x.bs.npy", facegood.NAMES_FILE, "x.flac"]


# --- the cache --------------------------------------------------------------------------------------------------------


def test_recordings_are_known_by_their_content(tmp_path: Path):
    cache = Cache.open(tmp_path / "cache", {"name": "none"})
    items = make_corpus(tmp_path / "c", cache, {"a/x.mp4": spoken(1, 3.0), "b/x.mp4": spoken(2, 4.0)})
    a, b = (cache.key(item) for item in items)
    assert a != b and cache.mouth(a).seconds == 3 and cache.mouth(b).seconds == 4
    assert cache.features(a).shape == (75, FEATURES)
    (tmp_path / "c/b/x.mp4").rename(tmp_path / "c/a/renamed.mkv")
    assert [cache.key(item) for item in find(tmp_path / "c")] == [b, a]


def test_a_refusal_is_kept_unless_it_may_pass(tmp_path: Path):
    cache = Cache.open(tmp_path, {})
    cache.refuse("aa1", "no face")
    cache.refuse("bb2", "a bug", final=False)
    assert cache.done("aa1") and not cache.done("bb2") and not cache.done("cc3")
    assert cache.reason("bb2") == "a bug"
    with pytest.raises(AvatarError, match="lacks a recording"):
        cache.reason("cc3")
    cache.save("bb2", *spoken(1, 2.0))
    assert cache.done("bb2") and cache.reason("bb2") == ""


def test_a_cache_of_something_else_is_refused(tmp_path: Path):
    folder = tmp_path / "cache"
    Cache.open(folder, {"name": "a", "layers": (1, 2)})
    Cache.open(folder, {"name": "a", "layers": (1, 2)})
    with pytest.raises(AvatarError, match="Another encoder"):
        Cache.open(folder, {"name": "b"})
    write_json(folder / MARKER, {"format": "avatar-corpus-0"})
    with pytest.raises(AvatarError, match="another version"):
        Cache.open(folder, {"name": "b"})
    (folder / MARKER).rename(folder / "other.txt")
    with pytest.raises(AvatarError, match="holds other files"):
        Cache.open(folder, {"name": "b"})
    assert [path.name for path in folder.iterdir()] == ["other.txt"]
    with pytest.raises(AvatarError, match="is a file"):
        Cache.open(folder / "other.txt", {})


# --- preparing --------------------------------------------------------------------------------------------------------


def film(path: Path, frames: Callable[[int], np.ndarray], seconds: float = 1.5, loud: float = 0.3, sound: bool = True):
    path.parent.mkdir(parents=True, exist_ok=True)
    voice = write_sound(path.with_suffix(".tmp.wav"), seconds, loud) if sound else None
    write_video(path, [frames(k) for k in range(round(seconds * 10))], voice, 10.0)
    path.with_suffix(".tmp.wav").unlink(missing_ok=True)


def person(size: float = 1.0) -> Callable[[int], np.ndarray]:
    face = portrait()
    return lambda k: shifted(face, 3 * np.sin(k / 7), 2 * np.cos(k / 5), size)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos, and one for each way to be bad."""
    need_landmarker()
    folder = tmp_path_factory.mktemp("filmed")
    film(folder / "ann/x.mp4", person())
    film(folder / "bob/x.mp4", person(0.9))
    film(folder / "bad/dumb.mp4", person(), sound=False)
    film(folder / "bad/silent.mp4", person(), loud=0.0)
    film(folder / "bad/short.mp4", person(), seconds=0.6)
    film(folder / "bad/wall.mp4", lambda k: np.full((96, 128, 3), 40 + k, np.uint8))
    film(folder / "bad/small.mp4", lambda k: np.pad(person(0.5)(k), ((0, 0), (0, 1), (0, 0)))[:, :256])
    film(folder / "bad/two.mp4", lambda k: np.tile(person()(k), (1, 2, 1)))
    (folder / "bad/torn.mp4").write_bytes((folder / "ann/x.mp4").read_bytes()[:3000])
    return folder


@needs_whisper
def test_bad_recordings_are_left_out_and_the_reason_is_said(filmed: Path, tmp_path: Path, capsys):
    assert main(["prior", "train", str(filmed), "--out", str(tmp_path / "p.safetensors"), "--workers", "1"]) == 2
    shown = capsys.readouterr().err
    assert "Only 0 s of video can be used" in shown and "Traceback" not in shown
    report = read_json(tmp_path / "p.report.json")
    why = {row["file"]: row["left_out"] for row in report["recordings"]}
    reasons = {"dumb": "no audio", "silent": "silent", "short": "0.6 s", "wall": "No face", "two": "two faces",
               "torn": "no moving image", "small": "pixels high"}  # fmt: skip
    for name, reason in reasons.items():
        assert reason in why[f"bad/{name}.mp4"], why
        assert f"bad/{name}.mp4" in shown
    assert "too short to tell" in why["ann/x.mp4"]  # 1.5 s, and nothing else of the speaker
    assert report["hardware"]["cores"] and not (tmp_path / "p.safetensors").exists()


@needs_whisper
def test_two_workers_prepare_and_a_killed_command_goes_on(filmed: Path, tmp_path: Path, monkeypatch, capsys):
    from avatar.audio.encoders.whisper import WhisperEncoder

    cache = Cache.open(tmp_path / "cache", SpeechEncoder([WhisperEncoder(ahead=0.2)]).config)
    items = [item for item in find(filmed) if item.name in ("ann/x.mp4", "bob/x.mp4", "bad/torn.mp4")]
    keys = prepare_all(items, cache, Ranks(), workers=2)
    assert keys == keys_of(items, cache)
    good = keys["ann/x.mp4"]
    mouth, features = cache.mouth(good), cache.features(good)
    assert mouth.filmed and mouth.seen.all() and np.isfinite(mouth.values).all() and mouth.curve is None
    assert mouth.rows == 37 and features.shape == (37, HEARD) and mouth.values.shape == (15, len(ARTICULATION))

    (path,) = (tmp_path / "cache").glob(f"*/{good}.safetensors")
    path.unlink()  # as if the command had been killed before
    worked = []
    tools = prepare._tools(json.dumps(cache.encoder))
    real = tools.video
    monkeypatch.setattr(tools, "video", lambda item: (worked.append(item.name), real(item))[1])
    capsys.readouterr()
    assert prepare_all(items, cache, Ranks(), workers=1) == keys
    assert worked == ["ann/x.mp4"] and "2 of 3 recordings were prepared before" in capsys.readouterr().err
    np.testing.assert_allclose(cache.mouth(good).values, mouth.values, atol=1e-6)
    np.testing.assert_allclose(cache.features(good), features, atol=1e-4)


def test_a_bug_in_one_recording_stops_no_other_and_is_tried_again(tmp_path: Path, monkeypatch):
    class Tools:
        def load_tracker(self):
            pass

        def video(self, item: Item):
            if item.name == "a.mp4":
                raise ZeroDivisionError("oops")
            return spoken(1, 3.0)

    monkeypatch.setattr(prepare, "_tools", lambda encoder: Tools())
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text(name)
    items, cache = find(tmp_path), Cache.open(tmp_path / "cache", {})
    os.chmod(tmp_path / "b.mp4", 0o644)
    keys = prepare_all(items, cache, Ranks(), workers=1)
    assert cache.reason(keys["a.mp4"]) == "ZeroDivisionError: oops" and not cache.done(keys["a.mp4"])
    assert cache.done(keys["b.mp4"])
    (tmp_path / "b.mp4").unlink()
    keys = prepare_all(items, cache, Ranks(), workers=1)
    assert "cannot be read" in cache.reason(keys["b.mp4"])


def test_a_tracker_that_cannot_be_had_is_no_fault_of_the_video(tmp_path: Path, monkeypatch):
    def missing() -> None:
        raise AvatarError("The face landmarker cannot be had.")

    monkeypatch.setattr(prepare, "FaceTracker", missing)
    monkeypatch.setattr(prepare, "build_encoder", lambda config: ENCODER)
    (tmp_path / "a.mp4").write_text("a")
    cache = Cache.open(tmp_path / "cache", {"name": "gone"})
    with pytest.raises(AvatarError, match="cannot be had"):
        prepare_all(find(tmp_path), cache, Ranks(), workers=1)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [MARKER]


# --- coefficients -----------------------------------------------------------------------------------------------------


def test_coefficients_teach_what_they_name(tmp_path: Path):
    motion, _ = talking()
    arkit_files.save(motion, tmp_path / "a.csv")
    arkit, seen, fps = arkit_files.coefficients(tmp_path / "a.csv")
    assert fps == 25 and seen.all() and np.allclose(arkit, motion.arkit.numpy(), atol=1e-5)
    values = of_coefficients(arkit)
    unknown = [name for name, column in zip(ARTICULATION, values.T, strict=True) if np.isnan(column).any()]
    assert unknown == [*GEOMETRY, "opening"]
    assert np.allclose(values[:, JAW_OPEN], arkit[:, INDEX["jawOpen"]])

    lines = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()]
    left_out = {lines[0].index("MouthSmileLeft"), lines[0].index("JawOpen")}
    rows = [[cell for i, cell in enumerate(row) if i not in left_out] for row in lines]
    (tmp_path / "b.csv").write_text("\n".join(map(",".join, rows)))
    fewer = of_coefficients(arkit_files.coefficients(tmp_path / "b.csv")[0])
    now = [name for name, column in zip(ARTICULATION, fewer.T, strict=True) if np.isnan(column).any()]
    assert set(now) - set(unknown) == {"mouthSmile", "jawOpen"}
    (tmp_path / "c.csv").write_text("Time,Other\n0,1\n0.04,2\n")
    with pytest.raises(AvatarError, match="no channel of ARKit"):
        arkit_files.coefficients(tmp_path / "c.csv")


NAMES = [f"{source}_{side}" for source in facegood._ARKIT_OF for side in "lr"] + ["tongue_u"]


def test_facegood_is_read_by_its_names(tmp_path: Path):
    weights = np.zeros((40, len(NAMES)), np.float32)
    weights[:, [NAMES.index("mouth_pucker_l"), NAMES.index("mouth_pucker_r")]] = 0.6
    np.save(tmp_path / "x.bs.npy", weights)
    write_json(tmp_path / facegood.NAMES_FILE, NAMES)
    arkit = facegood.load(tmp_path / "x.bs.npy")
    assert arkit[0, INDEX["mouthPucker"]] == pytest.approx(0.6) and arkit[0].sum() == pytest.approx(0.6)
    assert "mouthPucker" in facegood.KNOWN and "mouthClose" not in facegood.KNOWN
    np.save(tmp_path / "y.bs.npy", weights[:, :5])
    np.save(tmp_path / "z.bs.npy", weights * np.nan)
    (tmp_path / "w.bs.npy").write_bytes(b"junk")
    for name, message in (("y", "does not name"), ("z", "not numbers"), ("w", "cannot be read")):
        with pytest.raises(AvatarError, match=message):
            facegood.load(tmp_path / f"{name}.bs.npy")


@needs_whisper
def test_coefficients_are_prepared_with_their_sound(tmp_path: Path):
    from avatar.audio.encoders.whisper import WhisperEncoder

    folder = tmp_path / "c"
    folder.mkdir()
    arkit_files.save(talking()[0][:75], folder / "a.csv")
    write_sound(folder / "a.wav", 2.5)
    np.save(folder / "x.bs.npy", np.random.default_rng(0).random((60, len(NAMES))).astype(np.float32))
    write_json(folder / facegood.NAMES_FILE, NAMES)
    write_sound(folder / "x.wav", 4.0)
    arkit_files.save(talking()[0][:75], folder / "lonely.csv")
    cache = Cache.open(tmp_path / "cache", SpeechEncoder([WhisperEncoder(ahead=0.2)]).config)
    items = find(folder)
    entries = {entry.name: entry for entry in decide(items, prepare_all(items, cache, Ranks(), workers=1), cache)}
    assert not entries["a.csv"].refused and entries["a.csv"].seconds == pytest.approx(2.48)
    assert len(entries["a.csv"].known) == 16 and entries["x.bs.npy"].seconds == 2
    assert set(entries["x.bs.npy"].known) < set(entries["a.csv"].known)
    assert "mouthClose" not in entries["x.bs.npy"].known and "mouthPucker" in entries["x.bs.npy"].known
    assert "no audio of the same name" in entries["lonely.csv"].refused


# --- sync -------------------------------------------------------------------------------------------------------------


def filmed_mouth(seconds: float, curve: np.ndarray | None) -> Mouth:
    rows = round(seconds * 25)
    values = np.zeros((rows, len(ARTICULATION)), np.float32)
    return Mouth(values=values, seen=np.ones(rows, bool), fps=25.0, rows=rows, curve=curve)


def test_doubtful_videos_are_told_from_sure_ones():
    rng = np.random.default_rng(0)
    noise = 1 - 0.03 * rng.standard_normal(2 * REACH + 1)
    mouths = {
        "sure": filmed_mouth(20, distances(3.0)),
        "noise": filmed_mouth(20, noise),
        "apart": filmed_mouth(20, distances(REACH + 2)),
        "tiny": filmed_mouth(1.2, None),
    }
    found = sync.offsets(mouths, {name: name for name in mouths})
    assert found["sure"].audio_delay_s == pytest.approx(-3.4 / 25, abs=0.01) and not found["sure"].doubt
    assert "do not clearly belong together" in found["noise"].doubt
    assert "apart" in found["apart"].doubt and "too short to tell" in found["tiny"].doubt


def test_short_videos_of_a_speaker_share_one_offset():
    rng = np.random.default_rng(0)
    one = [distances(2.0, 0.15) + 0.06 * rng.standard_normal(2 * REACH + 1) for _ in range(40)]
    mouths = {f"{i}": filmed_mouth(3, curve) for i, curve in enumerate(one)} | {"tiny": filmed_mouth(1.5, None)}
    alone = sync.offsets(mouths, {name: name for name in mouths})
    together = sync.offsets(mouths, dict.fromkeys(mouths, "ann"))
    assert sum(bool(offset.doubt) for offset in alone.values()) > 20
    assert len(set(together.values())) == 1
    assert together["tiny"].audio_delay_s == pytest.approx(-2.4 / 25, abs=0.01) and not together["tiny"].doubt


def test_in_step_is_where_the_sound_is():
    mouth, _ = spoken(1, late=4.0)
    still, _ = spoken(1)
    values, seen = mouth.in_step(-4 / 25)
    assert np.abs(values[10:-10] - still.values[10:-10]).max() < 1e-5
    assert seen[:-6].all() and not seen[-3:].any()  # what was said last is not in the picture
    half = Mouth(values=mouth.values[::2], seen=mouth.seen[::2], fps=12.5, rows=mouth.rows)
    assert np.abs(half.in_step(-4 / 25)[0][10:-10] - values[10:-10]).mean() < 0.06


# --- training ---------------------------------------------------------------------------------------------------------


def people(cache: Cache, folder: Path, dim: int = FEATURES) -> list[Item]:
    """Three speakers, each with another range and another offset."""
    clips = {f"s{i % 3}/{i}.mp4": spoken(i, 12.0, 1 + i % 3, 2 * (i % 3), dim) for i in range(1, 7)}
    return make_corpus(folder, cache, clips)


def trained(items: list[Item], cache: Cache, ranks: Ranks = Ranks()) -> SharedPrior:  # noqa: B008
    return fit_on(decide(items, keys_of(items, cache), cache), cache, ENCODER, "test", ranks)


def test_a_prior_is_learnt_across_speakers_and_offsets(tmp_path: Path):
    cache = Cache.open(tmp_path / "cache", ENCODER.config)
    items = people(cache, tmp_path / "c")
    prior = trained(items, cache)
    heard, true = said(prior)
    assert all(np.corrcoef(a, b)[0, 1] > 0.97 for a, b in zip(heard.T, true.T, strict=True))
    assert prior.about["seconds"] == {"videos": 72, "coefficients": 0} and prior.about["speakers"] == 3
    mouth, features = spoken(50, late=3.0)
    row = measure(prior, mouth, features, -3 / 25)
    assert row["opening"] > 0.97 and row["opening_lag"] == 0
    assert measure(prior, mouth, features, -5 / 25)["opening_lag"] == 2
    beyond = measure(prior, mouth, features, -7 / 25)
    assert beyond["opening_lag"] is None  # 4 frames: the border of the range tells nothing
    assert mean({"a": row, "b": beyond})["opening_lag"] == 0


def test_the_same_file_twice_counts_once(tmp_path: Path):
    cache = Cache.open(tmp_path / "cache", ENCODER.config)
    items = people(cache, tmp_path / "c")
    before = trained(items, cache)
    (tmp_path / "c/zoe").mkdir()
    (tmp_path / "c/zoe/copy.mp4").write_bytes((tmp_path / "c/s1/1.mp4").read_bytes())
    items = find(tmp_path / "c")
    (copy,) = [e for e in decide(items, keys_of(items, cache), cache) if e.name == "zoe/copy.mp4"]
    assert copy.refused == "It is the same as s1/1.mp4."
    assert torch.equal(trained(items, cache).weights, before.weights)


def test_frames_without_a_face_teach_nothing(tmp_path: Path):
    cache = Cache.open(tmp_path / "cache", ENCODER.config)
    items = people(cache, tmp_path / "c")
    clean = trained(items, cache)
    mouth, features = spoken(1, 12.0, scale=2, late=2)
    seen = mouth.seen.copy()
    seen[100:220] = False
    wrong = mouth.values.copy()
    wrong[100:220] = 1.0
    cache.save(cache.key(items[2]), dataclasses.replace(mouth, values=wrong, seen=seen), features)
    assert items[2].name == "s1/1.mp4"
    assert np.abs(said(trained(items, cache))[0] - said(clean)[0]).mean() < 0.05


def test_coefficients_change_only_what_they_name(tmp_path: Path):
    cache = Cache.open(tmp_path / "cache", ENCODER.config)
    items = people(cache, tmp_path / "c")
    before = said(trained(items, cache))[0]
    mouth, features = spoken(20, 60.0)
    values = np.full_like(mouth.values, np.nan)
    values[:, [PUCKER, JAW_OPEN]] = -mouth.values[:, [PUCKER, JAW_OPEN]]  # to be seen in the result
    (tmp_path / "c/s1/face.csv").write_text("JawOpen,MouthPucker")
    items = find(tmp_path / "c")
    (item,) = [item for item in items if not item.video]
    cache.save(cache.key(item), Mouth(values=values, seen=mouth.seen, fps=25.0, rows=mouth.rows), features)
    sources = by_source(decide(items, keys_of(items, cache), cache))
    assert list(sources) == ["coefficients jawOpen, mouthPucker", VIDEOS] or len(sources) == 2
    assert shares(sources)["jawOpen"] == {VIDEOS: 1800.0, "coefficients jawOpen, mouthPucker": 1500.0}
    assert shares(sources)["opening"] == {VIDEOS: 1800.0}
    after = said(trained(items, cache))[0]
    changed = [i for i in range(len(ARTICULATION)) if np.abs(after[:, i] - before[:, i]).max() > 1e-5]
    assert changed == [JAW_OPEN, PUCKER]
    assert after[:, PUCKER].std() < 0.5 * before[:, PUCKER].std()


def test_a_prior_goes_on_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = Cache.open(tmp_path / "cache", ENCODER.config)
    entries = decide(items := people(cache, tmp_path / "c"), keys_of(items, cache), cache)
    alone = trained(items, cache)
    touch = torch.full((len(alone.weights),), 0.1)
    still = dataclasses.replace(
        alone, weights=0 * alone.weights, gain=1.7, closure_weights=touch, about={"id": "still"}
    )

    def on(base: SharedPrior, seconds: float) -> SharedPrior:
        monkeypatch.setattr(shared_training, "BASE_SECONDS", seconds)
        return fit_on(entries, cache, ENCODER, "test", Ranks(), base)

    true = said(alone)[0]
    learnt, half, held = (on(still, seconds) for seconds in (0.1, 100.0, 1e7))
    assert np.corrcoef(said(learnt)[0].ravel(), true.ravel())[0, 1] > 0.97
    assert said(held)[0].std() < 0.2 * said(half)[0].std() < 0.2 * said(learnt)[0].std()
    assert torch.equal(held.basis, alone.basis) and torch.equal(held.closure_weights, touch) and held.gain == 1.7
    assert held.about["base"] == "still" and held.about["speakers"] == 3
    np.testing.assert_allclose(said(on(alone, 1e7))[0], true, atol=0.1)
    (source,) = by_source(entries).values()
    recordings = {"videos": Recordings(source, scales(source, cache), cache)}
    known = {"": {"videos": 1.0}, "jawOpen": {}}
    with pytest.raises(AvatarError, match="jawOpen"):
        shared_training.fit(recordings, known, ENCODER, {})
    part = shared_training.fit(recordings, known, ENCODER, {}, base=still)
    assert not part.weights[:, JAW_OPEN].any() and bool(part.weights[:, PUCKER].any())


TRAIN_TWICE = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "avatar"]


@needs_whisper
def test_two_processes_get_what_one_gets(tmp_path: Path):
    from avatar.audio.encoders.whisper import WhisperEncoder

    cache = Cache.open(tmp_path / "cache", SpeechEncoder([WhisperEncoder(ahead=0.2)]).config)
    people(cache, tmp_path / "c", HEARD)
    options = ["prior", "train", str(tmp_path / "c"), "--cache", str(tmp_path / "cache"), "--workers", "1", "--out"]
    assert main([*options, str(tmp_path / "one.safetensors")]) == 0
    (tmp_path / "c/junk.mp4").write_text("no video")  # new: one of the two prepares it
    result = subprocess.run(
        [sys.executable, *TRAIN_TWICE, *options, str(tmp_path / "two.safetensors")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr.count("is trained") == 1 and "left out: junk.mp4" in result.stderr
    assert "3 of 4 recordings were prepared before" in result.stderr
    one, two = (SharedPrior.load(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert {**one.about, "id": ""} == {**two.about, "id": ""} and one.about["seconds"]["videos"] == 72
    torch.testing.assert_close(two.input_mean, one.input_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said(two, HEARD)[0], said(one, HEARD)[0], atol=2e-4)
    assert read_json(tmp_path / "two.report.json")["prior"]["seconds"] == {"videos": 72, "coefficients": 0}


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_work_is_done_whoever_does_it(workers: int):
    done = spread(math.factorial, list(range(9)), workers)
    assert sorted(done) == sorted(map(math.factorial, range(9)))
    with pytest.raises(AvatarError, match="does not exist"):
        list(spread(read_json, [Path("nowhere.json")] * 3, workers))


def test_a_killed_worker_is_noticed():
    with pytest.raises(AvatarError, match="fewer --workers"):
        list(spread(os._exit, [9, 9], 2))


def test_ray_does_the_same():
    pytest.importorskip("ray.exceptions", reason="Ray is not installed (pip install 'avatar-toolkit[ray]')")
    done = spread(math.factorial, list(range(9)), 2, "local")
    assert sorted(done) == sorted(map(math.factorial, range(9)))
    with pytest.raises(AvatarError, match="does not exist"):
        list(spread(read_json, [Path("nowhere.json")], 2, "local"))


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AvatarError, match=r"avatar-toolkit\[ray\]"):
        list(spread(math.factorial, [1], 1, "local"))


# --- the commands -----------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["prior", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return " ".join(shown.err.split())


@needs_whisper
def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.mp4").write_text("no video")
    out = ("--out", tmp_path / "p.safetensors", "--workers", 1)
    assert "does not exist" in refused(capsys, "train", tmp_path / "nowhere", *out)
    assert "is not a folder" in refused(capsys, "train", tmp_path / "file", *out)
    assert "no recording" in refused(capsys, "train", tmp_path / "empty", *out)
    assert "is a folder" in refused(capsys, "train", tmp_path / "c", "--out", tmp_path)
    assert "too few" in refused(capsys, "train", tmp_path / "c", *out[:2], "--workers", 0)
    for base, message in (("none", "does not exist"), ("file", "cannot be read")):
        assert message in refused(capsys, "train", tmp_path / "c", *out, "--base", tmp_path / base)
    assert "leave it out" in refused(capsys, "train", tmp_path / "c", *out, "--base", WEIGHTS, "--from-scratch")
    assert not (tmp_path / "p.cache").exists()
    shown = refused(capsys, "train", tmp_path / "c", *out)
    assert "left out: a.mp4" in shown and "Only 0 s of video" in shown
    write_json(tmp_path / "p.cache" / MARKER, {"format": "avatar-corpus-0"})
    assert "another version" in refused(capsys, "train", tmp_path / "c", *out)
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "other"})
    assert "not an audio-to-motion prior" in refused(capsys, "eval", tmp_path / "other.safetensors", tmp_path / "file")
    assert "does not exist" in refused(capsys, "eval", WEIGHTS, tmp_path / "b.mp4")
    assert "cannot be measured" in refused(capsys, "eval", WEIGHTS, tmp_path / "c/a.mp4")


@needs_whisper
def test_eval_measures_what_was_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from avatar.audio.encoders.whisper import WhisperEncoder

    encoder = SpeechEncoder([WhisperEncoder(ahead=0.2)])
    cache = Cache.open(tmp_path / "cache", encoder.config)
    items = people(cache, tmp_path / "c", HEARD)
    prior = fit_on(decide(items, keys_of(items, cache), cache), cache, encoder, "test", Ranks())
    prior.save(tmp_path / "p.safetensors")
    make_corpus(tmp_path / "new", cache, {"new.mp4": spoken(40, late=4.0, dim=HEARD)})
    options = ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "e.json"), "--workers", "1"]
    assert main(["prior", "eval", str(tmp_path / "p.safetensors"), str(tmp_path / "new/new.mp4"), *options]) == 0
    result = read_json(tmp_path / "e.json")
    (row,) = result["videos"].values()
    assert list(result["videos"]) == ["new/new.mp4"] and result["mean"] == row and result["hardware"]["cores"]
    assert (
        row["opening"] > 0.95 and row["opening_lag"] == 0 and row["audio_delay_s"] == pytest.approx(-4 / 25, abs=0.012)
    )
    assert "opening" in capsys.readouterr().err


# --- using it ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Person:
    """What `train_speech` asks of a prepared person."""

    folder: Path
    info: PersonInfo
    fps: float = 25.0
    test_start: int = 75

    @property
    def audio_path(self) -> Path:
        return self.folder / "ingest" / "audio.wav"


def small_prior(path: Path) -> SharedPrior:
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 8, generator=random))[0]
    weights = 0.1 * torch.randn(8 * 8 + 1, len(ARTICULATION), generator=random)
    encoder = SpeechEncoder([MelEncoder(40)])
    prior = SharedPrior(encoder, torch.ones(40), torch.full((40,), 0.5), basis, weights, 5, 2, 1.0, {"id": "mine"})
    prior.save(path)
    return prior


@pytest.mark.parametrize("voiced", [False, True])
def test_a_run_keeps_the_prior_that_was_chosen(voiced: bool, tmp_path: Path, monkeypatch):
    small_prior(tmp_path / "mine.safetensors")
    person = Person(tmp_path / "person", person_info(num_frames=83, test_start=75, has_audio=voiced))
    for name in ("person/ingest", "run"):
        (tmp_path / name).mkdir(parents=True)
    write_sound(person.audio_path, 4.0)
    for name in ("person", "run"):
        talking()[0][:90].save(tmp_path / name / "motion.safetensors")
    own = Mute(person.fps)
    monkeypatch.setattr("avatar.audio2motion.personal_training.train_personal", lambda *_, **__: own)
    prior = load_prior(tmp_path / "mine.safetensors")
    train_speech(person, tmp_path / "run", prior, encoder="mel", seed=0, keep=True)
    speech = load_shared(tmp_path / "run", person.fps)
    assert isinstance(speech, SharedSpeech) and speech.prior.about == {"id": "mine"}
    assert ("seconds" in speech.report) == voiced
    live = load_streaming(tmp_path / "run", person.fps)
    assert (tmp_path / "run" / STREAMING).is_file() == voiced
    assert live.prior.about == {"id": "mine"} and ("seconds" in live.report) == voiced
    assert own.opened == voiced  # the ensemble teaches the live lips


def test_a_bad_prior_is_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "other"})
    for name, message in (("other", "not an audio-to-motion prior"), ("none", "does not exist")):
        options = ["--out", str(tmp_path / "run"), "--prior", str(tmp_path / f"{name}.safetensors")]
        for command, source in (("train", tmp_path / "person"), ("create", tmp_path / "v.mp4")):
            assert main([command, str(source), *options]) == 2
            assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists() and not (tmp_path / "run.person").exists()
