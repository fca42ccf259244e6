"""An avatar of one photo: what is refused, what stands in for what a photo cannot say, and that it says so."""

from __future__ import annotations

import html
import json
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from avatar.assets import store as assets
from avatar.cli.main import main
from avatar.data.bundle import HEADER, run_folder, write_bundle
from avatar.data.person import PersonFolder, PersonInfo
from avatar.data.photo import INVENTED, NOD, TURN, PhotoInfo
from avatar.data.run import BAKED, photo_hash
from avatar.errors import AvatarError
from avatar.headmotion.generator import MotionGenerator
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.jobs import render_avatar
from avatar.io.audio import write_wav
from avatar.io.images import read_rgb
from avatar.methods.base import Method
from avatar.motion import Motion
from avatar.motion.blinks import find_blinks
from avatar.motion.face_channels import CHANNELS, encode, open_lips, opening_change
from avatar.motion.population import landmark_basis, stand_in
from avatar.motion.statistics import MotionStats
from avatar.paths import file_sha256, read_json
from avatar.preprocess import photo_ingest, upright
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.landmarker import Face
from avatar.preprocess.photo import check_photo, choose_face, direction, find_faces, is_photo, read_photo
from avatar.preprocess.stage import StageContext
from avatar.preprocess.upright import moved_point, quarter_turns, roll, turned
from avatar.provenance.credentials import read
from avatar.provenance.disclosure import DisclosureOptions
from avatar.train.photo import photo_cone
from tests.media import need_landmarker, portrait
from tests.person import canonical_shape, make_person, person_info

PHOTO = "cd" * 32


def face(
    x: float = 300, y: float = 300, height: float = 300, yaw: float = 0.0, pitch: float = 0.0, tilt: float = 0.0
) -> Face:
    """Landmarks of the canonical face, turned by degrees to the image's right and up, and tilted clockwise."""
    need_landmarker()
    a, b = np.radians(-yaw), np.radians(-pitch)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    c = np.radians(tilt)
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    points = canonical_shape() @ (about_z @ about_y @ about_x).T
    points *= height / max(np.ptp(points[:, 0]), np.ptp(points[:, 1]))
    points -= (points.min(0) + points.max(0)) / 2
    return Face(landmarks=(points + [x, y, 0]).astype(np.float32), arkit=np.zeros(52, np.float32))


# --- refusals -------------------------------------------------------------------------------------------------------


def test_direction_of_a_face():
    assert direction(face(yaw=20))[0] == pytest.approx(20, abs=0.5)
    assert direction(face(pitch=12))[1] == pytest.approx(12, abs=0.5)
    for tilt in (0, 20, -90, 170):
        assert roll(face(tilt=tilt)) == pytest.approx(tilt, abs=0.5)


def test_whose_avatar_it_is():
    config, path = PrepareConfig(), Path("p.jpg")
    alone, other = face(), face(900, 320, 200)
    assert choose_face(path, [alone], config) is alone
    assert choose_face(path, [alone, face(900, 320, 90)], config) is alone  # somebody in the background
    assert choose_face(path, [alone, other], replace(config, face="890,300")) is other
    assert choose_face(path, [alone, other], replace(config, face="1")) is alone
    cheek, left = face(600, 320, 300), face(480, 320, 300)  # a point of one is in the box of both
    assert cheek.box[0] < left.box[2] and choose_face(path, [left, cheek], replace(config, face="560,320")) is cheek
    for faces, chosen, words in (
        ([], None, "No face"), ([alone, other], None, "There are 2 faces"), ([face(height=120)], None, "120 pixels"),
        ([face(tilt=-38)], None, "tilted by 38 degrees"),
        ([face(yaw=31)], None, "31 degrees to the side"), ([face(pitch=-34)], None, "34 degrees down"),
        ([alone, other], "3", "no face 3"), ([alone, other], "5000,10", "no face near"),
        ([alone], "700,300", "no face near"),  # the next person's place, who was not found
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=words):
            choose_face(path, faces, replace(config, face=chosen))


@pytest.mark.parametrize("turns", range(4))
def test_a_photo_is_turned_until_the_head_is_upright(turns: int):
    """As a photo that lies there; it is wider than high, so that the sides can be told apart."""
    need_landmarker()
    picture = cv2.resize(portrait(), (420, 420), interpolation=cv2.INTER_CUBIC)
    photo = np.pad(picture, ((0, 0), (0, 80), (0, 0)), mode="edge")
    lies = np.ascontiguousarray(np.rot90(photo, turns))
    seen = (find_faces(lies) or [None])[0]
    back = -turns % 4
    assert quarter_turns(lies, seen) == back and quarter_turns(lies, None) == back
    x, y = moved_point(np.array([30, 20]), 500, 420, turns) - moved_point(np.array([0, 0]), 64, 64, turns)
    config = PrepareConfig(face="5,5", crop=f"{int(x)},{int(y)},64")
    upright, moved = turned(lies, back, config, face(40, 60))
    assert np.array_equal(upright, photo) and moved.crop == "30,20,64"
    height, width = lies.shape[:2]
    assert moved.wanted_face == tuple(moved_point(np.array([40, 60]), width, height, back).round())


def test_places_in_a_photo_that_is_turned_are_those_of_the_photo_as_it_lies():
    """Both those that the user gives, where no face was found at first, and those that an error lists."""
    lies, config = np.zeros((300, 400, 3), np.uint8), PrepareConfig(face="50,20")
    _, moved = turned(lies, 1, config, None)
    assert moved.face == "20,350"
    back = partial(moved_point, width=300, height=400, turns=-1)
    assert tuple(back(np.array([20, 350]))) == (50, 20)
    two = [face(100, 200), face(220, 200)]
    listed = r"once the photo is upright: one at 200,100 \(.*one at 200,220"
    with pytest.raises(AvatarError, match=listed):
        choose_face(Path("p.jpg"), two, PrepareConfig(), lambda point: point[::-1])
    with pytest.raises(AvatarError, match="no face near 5,900"):
        choose_face(Path("p.jpg"), two, PrepareConfig(face="900,5"), lambda point: point[::-1])


def test_a_small_upright_face_has_a_vote(monkeypatch: pytest.MonkeyPatch):
    """A look at all of a group finds it only where the photo is turned, and wrongly."""
    need_landmarker()
    picture = cv2.resize(portrait(), (420, 420), interpolation=cv2.INTER_CUBIC)
    (known,) = find_faces(picture)
    lying = find_faces(np.ascontiguousarray(np.rot90(picture)))
    looked = iter([lying, [], []])  # for one turn, two and three
    monkeypatch.setattr(upright, "_look", lambda image: next(looked))
    monkeypatch.setattr(upright, "_at", lambda faces, place, face: faces[0] if faces else None)
    monkeypatch.setattr(upright, "roll", lambda face: 0.0)
    assert quarter_turns(picture, known) == 0


def test_a_photo_on_its_side_is_stored_like_the_upright_one(tmp_path: Path):
    need_landmarker()
    picture = cv2.resize(portrait(), (420, 420), interpolation=cv2.INTER_CUBIC)
    frames = []
    for turns in (0, 1, 2):
        path, out = tmp_path / f"{turns}.png", tmp_path / f"out{turns}"
        Image.fromarray(np.ascontiguousarray(np.rot90(picture, turns))).save(path)
        out.mkdir()
        person = PersonFolder(tmp_path / f"{turns}.person")
        config = PrepareConfig(size=256, face=None if turns == 0 else "1")
        told = photo_ingest.run(StageContext(person=person, video=path, config=config), out).recording
        said = [treatment.text for treatment in told if treatment.kind == "turned"]
        assert said == [[], ["The photo was turned by 90 degrees to the right, so that the head is upright."],
                        ["The photo was turned by 180 degrees, so that the head is upright."]][turns]  # fmt: skip
        frames.append(cv2.imread(str(out / "frames" / "000000.jpg")).astype(float))
    for frame in frames[1:]:
        assert np.abs(frame - frames[0]).mean() < 2


def test_everybody_in_a_group_can_be_meant():
    need_landmarker()
    one = cv2.resize(portrait(), (420, 420), interpolation=cv2.INTER_CUBIC)
    group = np.concatenate([np.concatenate([one] * 3, 1)] * 2)
    faces = find_faces(group, pointed=True)
    for x, y in ((204 + 420 * column, 187 + 420 * row) for row in (0, 1) for column in (0, 1, 2)):
        chosen = choose_face(Path("p.jpg"), faces, PrepareConfig(face=f"{x},{y}"))
        assert np.linalg.norm(chosen.centre - [x, y]) < 40
    assert len(find_faces(group)) == len(faces), "a number means the same face"
    assert len(find_faces(one)) == 1, "alone"


def test_what_is_no_photo(tmp_path: Path):
    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    small = cv2.imencode(".png", np.zeros((40, 30, 3), np.uint8))[1].tobytes()
    assert is_photo(written("a.png", small)) and is_photo(written("a.data", small))
    assert not is_photo(written("a.mp4", b"\0\0\0\x18ftypisom")) and not is_photo(tmp_path)
    assert check_photo(tmp_path / "a.png", PrepareConfig()) == (30, 40)
    for path, config, words in (
        (written("a.heic", small), PrepareConfig(), "not read"),
        (written("a.jpg", b"text"), PrepareConfig(), "damaged"),
        (tmp_path / "a.png", PrepareConfig(frame="full"), "needs a video"),
        (tmp_path / "a.png", PrepareConfig(video_track=1), "is a photo"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=words):
            check_photo(path, config)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_was_taken_out_of_a_photo_is_not_shown(tmp_path: Path, mode: str):
    pixels = np.full((40, 30, 4), 90, np.uint8)
    pixels[..., 3] = 255
    pixels[:20] = (10, 10, 10, 0)  # still there, and transparent
    pixels[20] = (90, 90, 90, 128)
    image = Image.fromarray(pixels)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    exif = Image.Exif()
    exif[0x112] = 3  # it stands on its head
    image.save(tmp_path / "p.png", exif=exif)
    found, told = read_photo(tmp_path / "p.png")
    assert (found[-20:] == 255).all() and np.abs(found[:19].astype(int) - 90).max() < 3
    assert 165 < found[19].mean() < 180 and [one.kind for one in told] == ["alpha"]
    Image.fromarray(pixels[..., :3]).save(tmp_path / "opaque.png")
    assert read_photo(tmp_path / "opaque.png")[1] == [] and (read_photo(tmp_path / "opaque.png")[0][0] == 10).all()


@pytest.mark.parametrize("consent", [[], ["--consent", "self"]])
def test_refused_photos_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], consent: list[str]):
    need_landmarker()
    huge = bytearray(cv2.imencode(".png", np.zeros((40, 30, 3), np.uint8))[1].tobytes())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    plain = cv2.imencode(".png", np.full((300, 300, 3), 90, np.uint8))[1].tobytes()
    for data, words in ((bytes(huge), "60000"), (plain, "No face"), (plain[:-60], "No face|damaged")):
        (tmp_path / "p.png").write_bytes(data)
        assert main(["create", str(tmp_path / "p.png"), "--out", str(tmp_path / "run"), *consent]) == 2
        said = " ".join(capsys.readouterr().err.split())
        expected = words.split("|") if consent else ["Nobody has stated"]
        assert any(word in said for word in expected), said
        assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


# --- people in general ----------------------------------------------------------------------------------------------


def test_basis_opens_lips_as_far_as_it_is_told():
    basis = landmark_basis()
    opened = open_lips(torch.zeros(len(CHANNELS)), torch.tensor(0.8))
    moved = (opened @ basis).reshape(1, -1, 3).numpy()
    assert float(opening_change(torch.from_numpy(encode(moved)))[0]) == pytest.approx(0.8, abs=0.08)
    assert np.abs(moved[0, [33, 133, 168, 10]]).max() < 0.08  # eyes and forehead stay where they are


def test_stand_in_talks_blinks_and_stays_within_the_limits():
    photo = Motion.zeros(1, 25.0).map(
        head_rotation=torch.tensor([[0.05, 0.2, 0.02]]), head_translation=torch.tensor([[1.0, 2.0, 60.0]])
    )
    motion = stand_in(canonical_shape(), photo)
    motion.check_finite()
    stats = MotionStats.of(motion)
    assert stats.opened - stats.closed > 0.15
    assert 6 <= len(find_blinks(motion, [(0, len(motion))])) <= 20
    cone = photo_cone(cast(Method, _Model(photo)), 25.0)
    assert cone.limit_head(motion)[1] < 0.5  # what is generated is hardly slowed down
    assert torch.equal(stand_in(canonical_shape(), photo).face, motion.face)


class _Model:
    def __init__(self, reference: Motion) -> None:
        self._reference = reference

    def reference_motion(self, fps: float) -> Motion:
        return self._reference


def test_head_and_camera_stop_at_the_limits():
    photo = Motion.zeros(1, 25.0).map(head_translation=torch.tensor([[0.0, 0.0, 60.0]]))
    cone = photo_cone(cast(Method, _Model(photo)), 25.0)
    assert cone.clamped(40, 0, 0.0) == (TURN, 0) and cone.clamped(0, -30, 0.0) == (0, -NOD)
    for axis, most in ((1, TURN), (0, NOD)):
        turned = torch.zeros(1, 3)
        turned[0, axis] = 0.6
        limited, change = cone.limit_head(photo.map(head_rotation=turned))
        assert change > 20 and float(limited.head_rotation[0, axis].rad2deg()) == pytest.approx(most, abs=0.6)


# --- labels ---------------------------------------------------------------------------------------------------------


def test_person_json_says_that_it_was_a_photo(tmp_path: Path):
    path = tmp_path / "person.json"
    person_info(photo=PhotoInfo(sha256=PHOTO)).write(path)
    said = read_json(path)
    assert said["kind"] == "photo" and said["photo"] == {"sha256": PHOTO, "invented": list(INVENTED)}
    assert photo_hash(tmp_path) == PHOTO and PersonInfo.read(path).motion_segments(50) == [(0, 50)]
    path.write_text(json.dumps(said | {"kind": "statue"}))
    with pytest.raises(AvatarError, match="statue"):
        PersonInfo.read(path)
    person_info().write(path)
    assert "kind" not in read_json(path) and photo_hash(tmp_path) is None


def test_credentials_name_the_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for photo in (PHOTO, None):
        path = tmp_path / "image.png"
        path.write_bytes(cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
        disclosure = DisclosureOptions().open(photo=photo)
        disclosure.finish(path)
        claims = read(path)
        assert claims.state == "valid" and claims.photo == photo
        assert ("from one photo" in disclosure.comment) == (photo is not None)
        assert main(["verify", str(path)]) == 0
        assert ("made from one photo" in capsys.readouterr().out) == (photo is not None)


# --- the whole path -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made of a photo, with few Gaussians and steps: what is tested is the path."""
    need_landmarker()
    from avatar.methods.gaussian import presets

    folder = tmp_path_factory.mktemp("photo")
    image = cv2.resize(portrait(), (400, 400), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "me.jpg"), image[..., ::-1])
    whole = presets.photo()
    small = replace(
        whole, model=replace(whole.model, initial_gaussians=6000), schedule=replace(whole.schedule, steps=8)
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "photo", lambda: small)
        patch.setattr(MotionGenerator, "fit", _not_fitted)
        assert main(["create", str(folder / "me.jpg"), "--out", str(folder / "run"), "--consent", "self",
                     "--size", "208"]) == 0  # fmt: skip
    return folder / "run"


def _not_fitted(*_: object) -> MotionGenerator:
    raise AvatarError("It takes seconds and is tested elsewhere.")


def test_run_is_labelled(made: Path):
    digest = file_sha256(made.with_name("me.jpg"))
    for place in (made, made.with_name("run.person")):
        said = read_json(place / "person.json")
        assert said["kind"] == "photo" and said["photo"]["sha256"] == digest and said["num_frames"] == 1
    assert read_json(made / "training.json")["kind"] == "photo"
    report = (made.with_name("run.person") / "report/report.html").read_text()
    assert all(html.escape(text) in report for text in INVENTED)


def test_there_is_nothing_to_bake(made: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "--format", "baked", str(made)]) == 2
    assert "nothing to bake" in " ".join(capsys.readouterr().err.split())
    assert not (made / BAKED).exists()


def test_bundle_keeps_the_label(made: Path, tmp_path: Path):
    bundle = tmp_path / "me.avatar"
    write_bundle(made, bundle)
    assert json.loads(zipfile.ZipFile(bundle).read(HEADER))["kind"] == "photo"
    assert photo_hash(run_folder(bundle)) == file_sha256(made.with_name("me.jpg"))


def test_avatar_looks_like_the_photo_and_moves(made: Path):
    avatar = Avatar.load(made)
    motion, photo = Motion.load(made / "motion.safetensors"), Motion.load(made / "tracking.safetensors")
    real = read_rgb(made.with_name("run.person") / "ingest/frames/000000.jpg").astype(float)
    shown = avatar.render(avatar.camera, photo, 0).numpy()
    assert 10 * np.log10(255**2 / np.square(shown - real).mean()) > 18.5  # after 8 steps
    opening = opening_change(motion.face)
    shut, wide = (avatar.render(avatar.camera, motion, int(k)).int() for k in (opening.argmin(), opening.argmax()))
    assert (shut - wide).abs().amax() > 60


@pytest.mark.skipif(not assets.available("whisper_front"), reason="the asset whisper_front is not here")
def test_avatar_speaks_with_the_shared_model(made: Path):
    tone = 0.3 * np.sin(np.arange(16000) / 8).astype(np.float32)
    assert len(list(Avatar.load(made).speak([tone], Controls(pose=("still",))))) == 25


@pytest.mark.skipif(not assets.available("whisper_front"), reason="the asset whisper_front is not here")
def test_what_python_renders_carries_the_label(made: Path, tmp_path: Path):
    write_wav(tmp_path / "a.wav", 0.3 * np.sin(np.arange(4800) / 8).astype(np.float32))
    out = render_avatar(Avatar.load(made), tmp_path / "a.wav", tmp_path / "a.mp4", Controls(pose=("still",)))
    assert read(out).photo == file_sha256(made.with_name("me.jpg"))


@pytest.mark.parametrize("words", [["eval"], ["render", "--split", "test"]])
def test_what_needs_a_video_is_refused(made: Path, capsys: pytest.CaptureFixture[str], words: list[str]):
    assert main([words[0], str(made), *words[1:]]) == 2
    assert "made from one photo" in " ".join(capsys.readouterr().err.split())


def test_photo_and_video_are_trained_differently(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    person = make_person(tmp_path / "person")
    for folder, quality, words in (
        (made.with_name("run.person"), "draft", "--quality photo"), (person, "photo", "from a video"),
    ):  # fmt: skip
        assert main(["train", str(folder), "--out", str(tmp_path / "run"), "--quality", quality]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    nerf = ["--out", str(tmp_path / "run"), "--method", "nerf"]
    for command in (["create", str(made.with_name("me.jpg"))], ["train", str(made.with_name("run.person"))]):
        assert main([*command, *nerf]) == 2
        assert "The method nerf needs a video" in " ".join(capsys.readouterr().err.split())
