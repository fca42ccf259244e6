"""Datasets in the layout of ER-NeRF: what is written, and what is read back."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.data import PersonDataset, ernerf
from avatar.data.person import PersonFolder
from avatar.errors import AvatarError
from avatar.export import dataset as export
from avatar.geometry.cameras import NERF_ORIGIN, Camera, head_to_nerf, nerf_to_head
from avatar.geometry.mesh import IBUG_68
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.audio import load_audio, write_wav
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.facs import UNITS, action_units
from avatar.paths import read_json, write_json
from avatar.preprocess import ingest
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext
from tests.media import need_landmarker, portrait, shifted, write_sound
from tests.person import make_person

FRAMES, SIZE, TEST_START = 14, 96, 10


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person whose frame 3 was not measured, and whose sound is late by two frames: one click in frame 8."""
    folder = make_person(tmp_path_factory.mktemp("person") / "p", frames=FRAMES, size=SIZE)
    info = read_json(folder / "person.json") | {"test_start": TEST_START, "audio_delay_s": 0.08}
    write_json(folder / "person.json", info)
    motion = PersonDataset(folder).motion
    valid, arkit = motion.valid.clone(), motion.arkit.clone()
    valid[3] = False
    arkit[5, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 0.8
    motion.map(valid=valid, arkit=arkit).save(folder / "motion.safetensors")
    samples = np.zeros(FRAMES * 640, np.float32)
    samples[8 * 640] = 0.9
    write_wav(folder / "ingest/audio.wav", samples)
    return folder


@pytest.fixture(scope="module")
def exported(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "d"
    assert main(["export", "--format", "dataset", str(person), "--out", str(out)]) == 0
    return out


@pytest.fixture
def dataset(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "d"))


def test_poses_project_like_adnerf_s_tracker() -> None:
    """Its camera looks along -z: x_camera = R x + t, u = cx - f x / z, v = cy + f y / z, in metres."""
    rotation = torch.tensor([[0.1, -0.3, 0.05], [0.0, 0.0, 0.0], [-0.2, 0.4, 0.3]])
    translation = torch.tensor([[1.0, -2.0, 80.0], [0.0, 0.0, 60.0], [-5.0, 3.0, 90.0]])
    points = torch.tensor([[0.0, 1.0, -7.0], [4.0, -3.0, -2.0], [-3.0, 8.0, 1.0]])
    camera = Camera.source(1200.0, 256.0, 250.0, 512, 500)
    expected = camera.project(points @ axis_angle_to_matrix(rotation).mT + translation[:, None])
    inverse = torch.linalg.inv(head_to_nerf(rotation, translation))
    theirs = (points - NERF_ORIGIN).double() * torch.tensor([1.0, -1, -1]) / 100
    x, y, z = (theirs @ inverse[:, :3, :3].mT + inverse[:, None, :3, 3]).unbind(-1)
    found = torch.stack([256 - 1200 * x / z, 250 + 1200 * y / z], -1)
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=0)
    back_rotation, back_translation = nerf_to_head(head_to_nerf(rotation, translation))
    torch.testing.assert_close(back_rotation, rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(back_translation, translation, atol=1e-4, rtol=0)


def test_camera_is_centred_where_the_picture_was_cut_out_beside_the_middle() -> None:
    camera = Camera.source(1200.0, 100.0, 300.0, 512, 512)  # the axis is 162 pixels from the middle
    other, turn = camera.centred()
    assert (other.cx, other.cy) == (256.0, 256.0)
    depth = torch.tensor([60.0, 80.0, 100.0, 80.0, 80.0, 80.0, 80.0])
    pixels = torch.tensor([[256.0, 256], [256, 256], [256, 256], [366, 256], [146, 256], [256, 366], [256, 146]])
    rays = torch.nn.functional.pad((pixels - torch.tensor([100.0, 300.0])) / 1200, (0, 1), value=1.0)
    points = rays * depth[:, None]
    torch.testing.assert_close(camera.project(points), pixels, atol=1e-3, rtol=0)
    moved = (other.project(points.double() @ turn.T) - pixels).norm(dim=-1)
    assert moved[:3].max() < 1e-3  # the middle stays, at every depth
    assert moved[3:].max() < 110**2 * (162 / 1200) / 1200 + 1.0
    same, none = Camera.source(1200.0, 256.0, 256.0, 512, 512).centred()
    assert same.focal == 1200.0 and torch.equal(none, torch.eye(3, dtype=torch.float64))


def test_cut_out_beside_the_middle_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_person(tmp_path / "p", frames=4, size=64)
    info = read_json(folder / "person.json")
    write_json(folder / "person.json", info | {"camera": info["camera"] | {"cx": -20.0}})
    assert main(["export", "--format", "dataset", str(folder), "--out", str(tmp_path / "d")]) == 0
    assert "pixels from its place" in " ".join("".join(capfd.readouterr()).split())
    transforms = ernerf.read_transforms(tmp_path / "d" / ernerf.TRAIN)
    assert transforms.cx == 32 and transforms.focal > info["camera"]["focal"]


def test_poses_camera_and_split_come_back(person: Path, exported: Path) -> None:
    data = PersonDataset(person)
    train, val = (ernerf.read_transforms(exported / name) for name in (ernerf.TRAIN, ernerf.VAL))
    assert train.image_ids.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]  # 3 was not measured
    assert val.image_ids.tolist() == list(range(TEST_START, FRAMES))
    assert ernerf.test_start(exported) == TEST_START
    for transforms in (train, val):
        assert transforms.focal == pytest.approx(data.camera.focal)
        assert (transforms.cx, transforms.cy, transforms.fps) == (data.camera.cx, data.camera.cy, 25.0)
        rotation, translation = nerf_to_head(torch.from_numpy(transforms.poses))
        ids = torch.from_numpy(transforms.image_ids)
        torch.testing.assert_close(rotation, data.motion.head_rotation[ids], atol=1e-4, rtol=0)
        torch.testing.assert_close(translation, data.motion.head_translation[ids], atol=1e-4, rtol=0)


def test_pictures_and_sound_come_back(person: Path, exported: Path) -> None:
    data = PersonDataset(person)
    info = ernerf.read_info(exported)
    assert (info.width, info.height, info.fps, info.num_frames, info.has_audio) == (SIZE, SIZE, 25, FRAMES, True)
    pictures = list(ernerf.read_frames(info))
    assert len(pictures) == FRAMES
    np.testing.assert_array_equal(pictures[7], data.image(7))
    assert len(list(ernerf.sample_frames(info, 5))) == 5 and len(list(ernerf.sample_frames(info, 40))) == FRAMES
    heard = np.concatenate(list(ernerf.read_audio(exported, 0.0, info.duration)))
    assert len(heard) == FRAMES * 640
    assert np.abs(heard).argmax() == 6 * 640  # two frames earlier than in the video


def test_sound_that_is_early_is_delayed(person: Path, tmp_path: Path) -> None:
    data = PersonDataset(person)
    data.info = dataclasses.replace(data.info, audio_delay_s=-0.12)
    export.write_audio(data, tmp_path / "aud.wav")
    samples = load_audio(tmp_path / "aud.wav")
    assert len(samples) == FRAMES * 640 and np.abs(samples).argmax() == 11 * 640


def test_classes_have_the_colours_that_the_papers_read(person: Path, exported: Path) -> None:
    masks = PersonDataset(person).masks(4)
    parsing = cv2.imread(str(exported / "parsing/4.png"))  # blue first, as their code has it
    masks["face"] *= masks["mouth"] < 0.1
    classes = {"background": (255, 255, 255), "hair": (0, 0, 0), "face": (255, 0, 0), "neck": (0, 255, 0),
               "mouth": (100, 100, 100)}  # fmt: skip
    for name, colour in classes.items():
        assert (parsing[masks[name] > 0.9] == colour).all() and (masks[name] > 0.9).any(), name


def test_torso_goes_on_behind_the_head_and_nowhere_else() -> None:
    """A head (rows 20 to 59) over a neck that meets it, beside clothes; a soft edge between head and neck."""
    rows = np.arange(100)[:, None] * np.ones((1, 100))
    inside = (np.abs(np.arange(100) - 50) < 30)[None] * np.ones((100, 1))
    head = inside * (rows >= 20) * np.clip((60.5 - rows) / 2, 0, 1)
    below = np.clip(1 - head, 0, 1) * (rows >= 58)
    neck = below * (np.abs(np.arange(100) - 50) < 10)[None] * inside
    clothes = below * inside - neck
    masks = {"hair": 0 * head, "face": head, "neck": neck, "clothes": clothes, "background": 1 - head - neck - clothes}
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[..., 0] = np.where(neck > 0.5, 200, np.where(clothes > 0.5, 80, 10))
    rgba = export.cut_torso(picture, {k: v.astype(np.float32) for k, v in masks.items()}, 100.0)
    assert (rgba[70:, 25:75, 3] == 255).all() and (rgba[70:, 25:75, :3] == picture[70:, 25:75]).all()
    assert not rgba[:, :20, 3].any() and not rgba[:45, :, 3].any()
    assert (rgba[52:60, 45:55, 3] == 255).all()  # twelve hundredths of the face: no gap under the chin
    assert (rgba[52:60, 45:55, 0] > 150).all()  # in the colour of the neck
    assert not rgba[45:55, 25:35, 3].any() and (rgba[58:60, 25:35, 3] == 255).all()  # clothes: three hundredths
    assert (export.class_image(masks | {"mouth": 0 * head}, 100.0)[80, 25] == (255, 0, 0)).all()


def test_pictures_are_composed_over_the_background(person: Path, exported: Path) -> None:
    data = PersonDataset(person)
    behind = data.masks(4)["background"]
    composed = cv2.imread(str(exported / "gt_imgs/4.jpg"))[..., ::-1].astype(int)
    assert np.abs(composed - data.background_image)[behind > 0.99].mean() < 2
    assert np.abs(composed - data.image(4))[behind < 0.01].mean() < 2
    background = cv2.imread(str(exported / "bc.jpg"))[..., ::-1].astype(int)
    assert np.abs(background - data.background_image).mean() < 2


def a_frame_with_specks(speck: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A head on shoulders, with a square of skin below the jaw line in its hair; and where that square is."""
    y, x = np.mgrid[:200, :200]
    masks = {name: np.zeros((200, 200), np.float32) for name in ("face", "hair", "neck", "clothes", "mouth")}
    masks["hair"][20:130, 50:150] = 1
    masks["face"][40:120, 70:130], masks["hair"][40:120, 70:130] = 1, 0
    masks["neck"][130:160, 80:120] = 1
    masks["clothes"][160:] = 1
    place = (abs(y - 60) <= speck // 2) & (abs(x - 60) <= speck // 2)
    masks["neck"][place], masks["hair"][place] = 0.95, 0.05
    masks["background"] = 1 - sum(masks[name] for name in ("face", "hair", "neck", "clothes"))
    return masks, place


@pytest.mark.parametrize(("speck", "stays"), [(1, False), (3, False), (5, True), (15, True)])
def test_a_speck_of_skin_in_the_hair_is_not_grown_into_a_disc(speck: int, stays: bool) -> None:
    masks, place = a_frame_with_specks(speck)
    alpha = export.cut_torso(np.full((200, 200, 3), 90, np.uint8), masks, 80.0)[..., 3]
    assert (alpha[place] > 127).all() if stays else not alpha[:115].any()
    assert (alpha[130:160, 80:120] == 255).all() and (alpha[160:] == 255).all()
    assert (alpha[122:130, 85:115] == 255).all()  # behind the chin, as ever
    painted = export.class_image(masks, 80.0)
    assert (painted[place] == ((0, 255, 0) if stays else (0, 0, 0))).all()
    assert (painted[140, 100] == (0, 255, 0)).all() and (painted[100, 100] == (0, 0, 255)).all()


def test_a_speck_beside_the_neck_leaves_no_hole_behind_the_head() -> None:
    masks, _ = a_frame_with_specks(1)
    masks["neck"][123:125, 100:102], masks["face"][123:125, 100:102] = 1, 0
    masks["hair"][123:125, 100:102] = 0
    alpha = export.cut_torso(np.full((200, 200, 3), 90, np.uint8), masks, 80.0)[..., 3]
    assert (alpha[122:130, 85:115] == 255).all()


def test_shoulders_that_hair_parts_stay_both() -> None:
    masks, _ = a_frame_with_specks(1)
    masks["neck"][:], masks["hair"][130:, 80:120], masks["clothes"][160:, 80:120] = 0, 1, 0
    alpha = export.cut_torso(np.full((200, 200, 3), 90, np.uint8), masks, 80.0)[..., 3]
    assert (alpha[165:, :75] == 255).all() and (alpha[165:, 125:] == 255).all()


def test_torso_of_a_frame_without_one_is_empty() -> None:
    masks = {name: np.zeros((8, 8), np.float32) for name in ("neck", "clothes", "hair")}
    rgba = export.cut_torso(np.full((8, 8, 3), 9, np.uint8), masks | {"face": np.ones((8, 8), np.float32)}, 4.0)
    assert rgba.shape == (8, 8, 4) and not rgba.any()


def test_landmarks_and_teeth(person: Path, exported: Path) -> None:
    data = PersonDataset(person)
    assert len(set(IBUG_68)) == 68
    points = np.loadtxt(exported / "ori_imgs/6.lms")
    np.testing.assert_allclose(points, data.landmarks[6, list(IBUG_68), :2], atol=1e-5)
    left_in_picture, right_in_picture = points[36:42, 0].mean(), points[42:48, 0].mean()
    brows, eyes, nose, mouth, chin = (
        points[k, 1].mean() for k in (range(17, 27), range(36, 48), [33], range(48, 68), [8])
    )
    assert left_in_picture < right_in_picture and brows < eyes < nose < mouth < chin
    teeth = np.load(exported / "teeth_mask/6.npy")
    assert teeth.shape == (SIZE, SIZE) and teeth.dtype == bool and not teeth.any()
    assert "data_utils/easyportrait/create_teeth_mask.py" in (exported / "README.txt").read_text()


def test_action_units_have_openface_s_columns(exported: Path) -> None:
    with (exported / "au.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES
    blink = np.array([float(row[" AU45_r"]) for row in rows])
    assert blink.argmax() == 5 and 3 < blink[5] <= 5 and blink[0] == 0
    parted = np.array([float(row[" AU25_r"]) for row in rows])
    assert np.ptp(parted) > 1 and parted.min() >= 0 and parted.max() <= 5
    assert rows[3][" success"].strip() == "0" and rows[4]["frame"] == "5" and float(rows[5][" timestamp"]) == 0.2


def test_each_action_unit_follows_its_coefficients() -> None:
    arkit = np.full((40, 52), 0.1)
    units = [name for name in UNITS if name != "AU25"]
    for index, name in enumerate(units):
        for part in UNITS[name]:
            arkit[index, ARKIT.index(part)] = 1.0
    found = action_units(arkit, np.linspace(0, 0.25, 40))
    assert list(found) == list(UNITS)
    for index, name in enumerate(units):
        assert found[name][index] == pytest.approx(5) and np.count_nonzero(found[name]) == 1
    assert found["AU25"][0] == 0 and found["AU25"][-1] == pytest.approx(5)


def test_a_dataset_is_not_overwritten_unasked(person: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (dataset / "mine.txt").write_text("x")
    assert main(["export", "--format", "dataset", str(person), "--out", str(dataset)]) == 2
    assert "already holds a dataset" in capfd.readouterr().err and (dataset / "mine.txt").exists()
    assert main(["export", "--format", "dataset", str(person), "--out", str(dataset), "--overwrite"]) == 0
    assert not (dataset / "mine.txt").exists() and ernerf.test_start(dataset) == TEST_START


def test_other_folders_are_never_overwritten(person: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").mkdir()
    _transforms(tmp_path / "theirs", ernerf.TRAIN, [0])  # a dataset, but not one of ours: it may be all that there is
    for target in (person, tmp_path / "other", tmp_path / "theirs"):
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("x")
        assert main(["export", "--format", "dataset", str(person), "--out", str(target), "--overwrite"]) == 2
        assert "did not write" in capfd.readouterr().err and (target / "mine.txt").exists()
    assert main(["export", "--format", "dataset", str(tmp_path / "none"), "--out", str(tmp_path / "d")]) == 2
    assert "not a prepared person" in capfd.readouterr().err and not (tmp_path / "d").exists()


def test_another_rate_and_no_sound_are_said_and_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_person(tmp_path / "p", frames=6, size=64, fps=30.0)
    write_json(folder / "person.json", read_json(folder / "person.json") | {"has_audio": False})
    (folder / "ingest/audio.wav").unlink()
    assert main(["export", "--format", "dataset", str(folder), "--out", str(tmp_path / "d")]) == 0
    said = " ".join("".join(capfd.readouterr()).split())
    assert "30 frames per second" in said and "no aud.wav" in said
    assert "Convert the video to 25" in said  # `avatar prepare` keeps the rate of a video
    info = ernerf.read_info(tmp_path / "d")
    assert info.fps == 30 and not info.has_audio and not list((tmp_path / "d").glob("aud*"))


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_person(tmp_path / "p", frames=4, size=64)
    (folder / "ingest/frames/000002.jpg").write_bytes(b"damaged")
    assert main(["export", "--format", "dataset", str(folder), "--out", str(tmp_path / "d")]) == 2
    assert "000002.jpg is damaged" in " ".join(capfd.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def _transforms(folder: Path, name: str, ids: list[int]) -> None:
    pose = np.eye(4).tolist()
    frames = [{"img_id": i, "aud_id": i, "transform_matrix": pose} for i in ids]
    write_json(folder / name, {"focal_len": 1200.0, "cx": 48.0, "cy": 48.0, "frames": frames})


def _break(dataset: Path, how: str) -> None:
    if how == "no pictures":
        shutil.rmtree(dataset / "ori_imgs")
    elif how == "empty pictures":
        shutil.rmtree(dataset / "ori_imgs")
        (dataset / "ori_imgs").mkdir()
    elif how == "gap":
        (dataset / "ori_imgs/5.jpg").unlink()
    elif how == "no sound":
        (dataset / "aud.wav").unlink()
    elif how == "long sound":
        write_wav(dataset / "aud.wav", np.ones(16000 * 10, np.float32))
    elif how == "bad sound":
        (dataset / "aud.wav").write_text("no sound at all")
    elif how == "bad json":
        (dataset / "transforms_train.json").write_text('{"frames": [')
    elif how == "other json":
        (dataset / "transforms_train.json").write_text("[1, 2]")
    elif how == "no rate":
        info = read_json(dataset / "transforms_train.json")
        write_json(dataset / "transforms_train.json", info | {"fps": 0})
    elif how == "half a split":
        (dataset / "transforms_val.json").unlink()
    elif how == "no poses":
        (dataset / "transforms_train.json").write_text('{"focal_len": 1, "cx": 1, "cy": 1, "frames": [{"img_id": 1}]}')


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no pictures", "has no ori_imgs"),
        ("empty pictures", "holds no images"),
        ("gap", "5.jpg is missing"),
        ("no sound", "has no aud.wav"),
        ("long sound", "aud.wav lasts 10.0 s"),
        ("bad sound", "aud.wav is not an audio file"),
        ("bad json", "transforms_train.json cannot be read as JSON"),
        ("other json", "transforms_train.json is a list, not a JSON object"),
        ("no poses", "transforms_train.json: frames[0] lacks transform_matrix"),
        ("no rate", "transforms_train.json: fps is 0, not a number from 1 to 1000"),
        ("half a split", "transforms_val.json does not exist"),
    ],
)
def test_bad_datasets_are_refused(
    dataset: Path, how: str, says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ingest, "MIN_SECONDS", 0.1)
    _break(dataset, how)
    assert main(["prepare", str(dataset), "--out", str(dataset.parent / "p")]) == 2
    assert says in " ".join(capfd.readouterr().err.split()) and not (dataset.parent / "p").exists()


def test_unlike_and_damaged_pictures_are_named(dataset: Path) -> None:
    info = ernerf.read_info(dataset)
    cv2.imwrite(str(dataset / "ori_imgs/9.jpg"), np.zeros((SIZE, SIZE + 2, 3), np.uint8))
    with pytest.raises(AvatarError, match=r"9\.jpg has 98x96 pixels"):
        list(ernerf.read_frames(info))
    (dataset / "ori_imgs/9.jpg").write_bytes(b"not a picture")
    with pytest.raises(AvatarError, match=r"9\.jpg is damaged"):
        list(ernerf.read_frames(info))


def test_split_that_cannot_be_kept(dataset: Path) -> None:
    _transforms(dataset, ernerf.VAL, [*range(10, FRAMES), 99])
    with pytest.raises(AvatarError, match=r"transforms_val.json names the image ori_imgs/99.jpg"):
        ernerf.test_start(dataset)
    _transforms(dataset, ernerf.VAL, [2, 5, 8])  # between the training frames
    assert ernerf.test_start(dataset) is None
    (dataset / ernerf.VAL).unlink()
    with pytest.raises(AvatarError, match=r"transforms_val.json does not exist"):
        ernerf.test_start(dataset)
    (dataset / ernerf.TRAIN).unlink()
    assert ernerf.test_start(dataset) is None


def test_numbers_may_start_anywhere(tmp_path: Path) -> None:
    (tmp_path / "ori_imgs").mkdir()
    for k in range(100, 112):
        cv2.imwrite(str(tmp_path / f"ori_imgs/{k}.jpg"), np.full((16, 20, 3), k, np.uint8))
    _transforms(tmp_path, ernerf.TRAIN, list(range(100, 108)))
    _transforms(tmp_path, ernerf.VAL, [110, 111])
    info = ernerf.read_info(tmp_path)
    assert ernerf.test_start(tmp_path) == 10 and (info.num_frames, info.width, info.height) == (12, 20, 16)
    assert [round(float(p.mean())) for p in ernerf.read_frames(info)] == list(range(100, 112))
    assert not info.has_audio


def test_fingerprint_covers_all_that_is_read(dataset: Path, tmp_path: Path) -> None:
    before = ingest.fingerprint(dataset)
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    (copy / "bc.jpg").unlink()  # not read
    assert ingest.fingerprint(copy) == before
    _transforms(copy, ernerf.VAL, [12, 13])
    split = ingest.fingerprint(copy)
    cv2.imwrite(str(copy / "ori_imgs/0.jpg"), np.zeros((SIZE, SIZE, 3), np.uint8))
    assert len({before, split, ingest.fingerprint(copy)}) == 3


def test_prepare_takes_a_dataset(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Pictures, sound and split arrive; a second run has nothing to do; another split is another source."""
    need_landmarker()
    folder = tmp_path / "d"
    (folder / "ori_imgs").mkdir(parents=True)
    face = portrait()
    for k in range(130):
        moved = shifted(face, 3 * np.sin(k / 7), 2 * np.cos(k / 5))
        cv2.imwrite(str(folder / f"ori_imgs/{k}.jpg"), moved[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    write_sound(folder / "aud.wav", 5.2)
    _transforms(folder, ernerf.TRAIN, list(range(100)))
    _transforms(folder, ernerf.VAL, list(range(100, 130)))
    command = ["prepare", str(folder), "--out", str(tmp_path / "p"), "--stages", "ingest"]
    assert main(command) == 0
    result = json.loads((tmp_path / "p/ingest/stage.json").read_text())["result"]
    assert (result["num_frames"], result["fps"], result["test_start"]) == (130, 25.0, 100)
    assert (result["width"], result["height"]) == (256, 256)
    person = PersonFolder(tmp_path / "p")
    assert StageContext(person=person, video=folder, config=PrepareConfig()).test_start == 100
    stored = cv2.imread(str(tmp_path / "p/ingest/frames/000007.jpg")).astype(int)
    assert np.abs(stored - cv2.imread(str(folder / "ori_imgs/7.jpg"))).mean() < 2
    assert len(load_audio(tmp_path / "p/ingest/audio.wav")) == 130 * 640
    capfd.readouterr()
    assert main(command) == 0
    assert "done before" in "".join(capfd.readouterr())
    _transforms(folder, ernerf.VAL, list(range(110, 130)))
    assert main(command) == 2
    assert "another video" in capfd.readouterr().err
