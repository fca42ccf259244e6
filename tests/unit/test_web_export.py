"""`avatar export --format web`: what is in the folder, how close it is to the avatar, and what is refused."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.data.consent import SYNTHETIC, Consent, consent_hash
from avatar.errors import AvatarError
from avatar.export import sources
from avatar.export.base import ExportSource
from avatar.export.web import clip, controls, folder, page, shown, splats
from avatar.export.web import format as web
from avatar.export.web.basis import fit_basis
from avatar.export.write import export_avatar
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.speaking import Speaking
from avatar.io.audio import load_audio, write_wav
from avatar.methods.animated import draw_splats
from avatar.methods.base import Method
from avatar.motion import Motion
from avatar.motion.statistics import MotionStats
from avatar.provenance.folder import read_folder
from avatar.provenance.source_type import CAPTURED, TRAINED
from tests.web import small_run

FRAMES = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def avatar(run) -> Avatar:
    return Avatar.load(run, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def motion(run) -> Motion:
    return Motion.load(run / "motion.safetensors")[:FRAMES]


@pytest.fixture(scope="module")
def made(run, avatar, motion, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "My Avatar"
    audio = out.parent / "hello you.wav"
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16000 * 2) / 16000).astype(np.float32)
    tone[:8000] = 0
    write_wav(audio, tone)
    source = ExportSource(folder=run, avatar=avatar, motion=motion, audio=audio, audio_start=0.25)
    return export_avatar(source, "web", out, title='A <b>"name"</b>')


def test_the_folder_plays_without_a_server(made):
    manifest = json.loads((made / "avatar.json").read_text())
    assert manifest["format"] == web.FORMAT and manifest["name"] == 'A <b>"name"</b>'
    (one,) = manifest["clips"]
    assert one["name"] == "hello-you" and one["title"] == "hello you" and one["frames"] == FRAMES
    html = (made / "index.html").read_text()
    assert "A &lt;b&gt;" in html and "<b>" not in html and "{{title" not in html
    module = (made / "player.js").read_text()
    assert "import " not in module.replace("may not import it", "") and module.count("export ") == 1
    assert "customElements.define" in html, "a page that was opened from disk cannot import the module"
    for name in ("avatar.json", "avatar.bin", one["file"]):
        call = (made / f"{name}.js").read_text()
        named, data = json.loads(f"[{call[call.index('(') + 1 : call.rindex(')')]}]")
        assert named == name and base64.b64decode(data) == (made / name).read_bytes()
    package = json.loads((made / "package.json").read_text())
    assert package["name"] == "my-avatar" and package["private"], "a likeness is not published by accident"
    assert (made / "background.webp").read_bytes()[8:12] == b"WEBP"


def test_the_folder_says_that_a_model_made_it(made, run, tmp_path, capsys):
    claims = read_folder(made)
    assert claims["background.webp"].state == "valid" and claims["background.webp"].source_type == CAPTURED
    assert claims["background.webp"].consent == consent_hash(run)
    assert claims["index.html"].metadata_source_type == claims["avatar.json"].metadata_source_type == TRAINED
    page_text = (made / "index.html").read_text()
    (said,) = re.findall(r'<script type="application/ld\+json">(.*?)</script>', page_text)
    assert json.loads(said)["name"] == 'A <b>"name"</b>', "no name ends the script"
    assert json.loads(said)["digitalSourceType"] == "https://schema.org/TrainedAlgorithmicMediaDigitalSource"
    assert "AI-generated" in page_text
    assert main(["verify", str(made)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "background.webp: as it was signed; put together from what a camera saw" in lines
    assert "index.html: no content credentials; says, unsigned: made by a trained model (AI)" in lines
    copy = shutil.copytree(made, tmp_path / "copy")
    data = bytearray((copy / "background.webp").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "background.webp").write_bytes(data)
    assert main(["verify", str(copy)]) == 2
    assert "not as it was signed: background.webp" in " ".join(capsys.readouterr().err.split())
    (copy / "background.webp").unlink()
    assert main(["verify", str(copy)]) == 2, "nothing is signed any more"


def test_npm_installs_the_folder_and_node_imports_it(made, tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")
    where = {"cwd": tmp_path, "env": os.environ | {"npm_config_cache": str(tmp_path / "cache")}, "check": True}
    packed = subprocess.run([npm, "pack", "--dry-run", "--json", str(made)], capture_output=True, **where).stdout
    (tmp_path / "package.json").write_text('{"name": "app", "private": true}')
    subprocess.run([npm, "install", "--offline", "--no-audit", "--no-fund", str(made)], capture_output=True, **where)
    names = {one["path"] for one in json.loads(packed)[0]["files"]}
    assert {"player.js", "three-spark.js", "playcanvas.js", "avatar.json", "avatar.bin", "clips/hello-you.bin"} <= names
    assert not [name for name in names if name.endswith((".bin.js", ".json.js"))], "they are for pages from disk"
    code = 'import { Performer } from "my-avatar"; console.log(typeof Performer.load);'
    said = subprocess.run(["node", "--input-type=module", "-e", code], capture_output=True, text=True, **where).stdout
    assert said == "function\n", "it can be imported where there is no browser"


def test_what_is_stored_is_what_the_avatar_does(made, avatar, motion):
    """Quantised, fitted and read back, frames are those of the model; without the basis they are not."""
    gaussians = avatar.model.animated()
    arrays = web.unpack(made / "avatar.bin")
    order = torch.from_numpy(web.unpack(made / "order.bin")["order"].astype(np.int64))
    stored = splats.StoredGaussians(arrays, order, gaussians)
    spoken = web.unpack(made / "clips/hello-you.bin")
    coefficients = (
        np.cumsum(spoken["coefficient"].astype(np.int16), 1, dtype=np.int16) * spoken["coefficient_step"][:, None]
    )
    warp = np.cumsum(spoken["warp"], 1, dtype=np.int16) * spoken["warp_step"]
    np.testing.assert_allclose(warp.T, motion.torso_warp.numpy(), atol=web_step(spoken["warp_step"]))
    pose = torch.from_numpy(spoken["pose"].T)
    assert torch.equal(pose[:, :3], motion.head_rotation) and torch.equal(pose[:, 3:6], motion.head_translation)
    for frame in (0, 5, FRAMES - 1):
        exact = draw_splats(gaussians.posed(motion, frame), avatar.camera)[0]
        changes = stored.changes(torch.from_numpy(coefficients[:, frame]).float())
        played, still = (
            draw_splats(stored.rest.posed(motion, frame, change), avatar.camera)[0] for change in (changes, 0 * changes)
        )
        errors = [float((image - exact).square().mean()) for image in (played, still)]
        assert errors[0] < 1e-4, "40 dB"
        assert errors[1] > 3 * errors[0], "what a face does is in the coefficients"


def web_step(step: np.ndarray) -> float:
    return 0.51 * float(step[0])


def test_animated_gaussians_are_those_of_the_model(avatar, motion):
    gaussians = avatar.model.animated()
    exact, taken = avatar.model.splats(motion, 3), gaussians.posed(motion, 3)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(taken, name), getattr(exact, name))


def test_a_basis_with_more_modes_is_closer(avatar, motion):
    gaussians = avatar.model.animated()
    frames = [(motion, index) for index in range(FRAMES - 2)]
    errors = []
    for modes in (1, 3, 8):
        basis = fit_basis(gaussians, frames, torch.ones(len(gaussians)), modes)
        arrays, order = splats.stored(gaussians, basis, torch.ones(len(gaussians), dtype=torch.bool), 0.02)
        stored = splats.StoredGaussians(arrays, order, gaussians)
        change = stored.changes(stored.coefficients(motion, FRAMES - 1))  # a frame it was not fitted to
        moved = stored.rest.means + change[:, :3]
        exact = (gaussians.means + gaussians.changes(motion, FRAMES - 1)[:, :3])[order]
        errors.append(float((moved - exact).norm()))
    assert errors[0] > 1.5 * errors[1] and errors[1] > errors[2]


def test_compact_is_smaller_and_opens_no_hole(run, motion, made, tmp_path):
    avatar = Avatar.load(run, device="cpu", precision="float32")
    faint = torch.arange(40)
    with torch.no_grad():
        avatar.model.gaussians.opacities[faint] = -9
    source = ExportSource(folder=run, avatar=avatar, motion=motion)
    small = export_avatar(source, "web", tmp_path / "small", compact=True)
    assert (small / "avatar.bin").stat().st_size < 0.85 * (made / "avatar.bin").stat().st_size
    manifest = json.loads((small / "avatar.json").read_text())
    assert manifest["compact"] and manifest["clips"][0]["audio"] == [], "nothing is said"
    gaussians, frames = avatar.model.animated(), [(motion, 0), (motion, 7)]
    keep = torch.zeros(len(gaussians), dtype=torch.bool)
    keep[torch.from_numpy(web.unpack(small / "order.bin")["order"].astype(np.int64))] = True
    assert not keep[faint].any() and shown.hole(gaussians, frames, [avatar.camera], keep) <= 1.5 * shown.HOLE
    _, most = shown.shown(gaussians, frames, [avatar.camera])
    keep[most.topk(len(most) // 3).indices] = False
    assert shown.hole(gaussians, frames, [avatar.camera], keep) > 0.1, "a hole is noticed"


def test_the_audio_is_as_long_as_the_motion_and_begins_with_it(made):
    manifest = json.loads((made / "avatar.json").read_text())
    assert manifest["clips"][0]["audio"] == ["clips/hello-you.opus", "clips/hello-you.m4a"]
    for name in manifest["clips"][0]["audio"]:
        samples = load_audio(made / name)
        assert -40 < len(samples) - FRAMES / 25 * 16000 < 0.021 * 16000, "Opus fills its last 20 ms"
        loud = np.flatnonzero(np.abs(samples) > 0.1)
        assert abs(loud[0] - 0.25 * 16000) < 40, "the tone begins half a second into the file, the clip a quarter"


def test_audio_is_cut_or_followed_by_silence():
    blocks = [np.ones((2, 5), np.float32), np.ones((2, 5), np.float32)]
    assert np.concatenate(list(clip.exactly(iter(blocks), 7)), 1).shape == (2, 7)
    long = np.concatenate(list(clip.exactly(iter(blocks), 12)), 1)
    assert long.shape == (2, 12) and long.sum() == 20


def test_another_clip_is_added_to_the_same_avatar(run, made, motion, tmp_path, capsys):
    other = tmp_path / "copy"
    shutil.copytree(made, other)
    motion[:4].save(tmp_path / "nod.safetensors")
    command = [
        "export",
        str(run),
        "--format",
        "web",
        "--out",
        str(other),
        "--motion",
        str(tmp_path / "nod.safetensors"),
    ]
    assert main([*command, "--add", "--clip", "A nod"]) == 0
    manifest = json.loads((other / "avatar.json").read_text())
    assert [one["name"] for one in manifest["clips"]] == ["hello-you", "A-nod"]
    assert web.unpack(other / "clips/A-nod.bin")["pose"].shape == (12, 4)
    assert (other / "avatar.bin").read_bytes() == (made / "avatar.bin").read_bytes()
    assert json.loads((other / "avatar.json.js").read_text().split(",", 1)[0].split("(")[1]) == "avatar.json"
    before = sorted(path.name for path in other.rglob("*"))
    manifest["model"] = "another"
    (other / "avatar.json").write_text(json.dumps(manifest))
    for options, words in (
        (["--add"], "holds another avatar"), ([], "already holds an avatar"),
        (["--add", "--overwrite"], "exclude each other"),
    ):  # fmt: skip
        assert main([*command, *options]) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in other.rglob("*")) == before


def test_clips_of_the_same_name_stay_beside_each_other(run, made, motion, tmp_path, caplog):
    other = shutil.copytree(made, tmp_path / "copy")
    motion[:4].save(tmp_path / "Ça va.safetensors")
    moved = ["--motion", str(tmp_path / "Ça va.safetensors")]
    command = ["export", str(run), "--format", "web", "--add", "--out", str(other), *moved]
    assert main(command) == main(command) == 0
    clips = json.loads((other / "avatar.json").read_text())["clips"]
    assert [one["title"] for one in clips] == ["hello you", "Ça va", "Ça va 2"]
    assert [one["name"] for one in clips] == ["hello-you", "Ça-va", "Ça-va-2"]
    assert all((other / one["file"]).is_file() for one in clips)
    assert "There is a clip Ça-va, so this one is Ça-va-2." in caplog.text and "MB, clip Ça-va-2." in caplog.text
    assert main([*command, "--clip", "Ça va"]) == 0
    clips = json.loads((other / "avatar.json").read_text())["clips"]
    assert [one["name"] for one in clips] == ["hello-you", "Ça-va-2", "Ça-va"], "that of --clip is replaced"
    assert clips[0]["audio"] and main([*command, "--clip", "Hello you"]) == 0
    clips = json.loads((other / "avatar.json").read_text())["clips"]
    named = {Path(one["file"]).name for one in clips} | {Path(one).name for clip in clips for one in clip["audio"]}
    left = {path.name for path in (other / "clips").iterdir()}
    assert left == named | {f"{one}.js" for one in left if one.endswith(".bin")}, (
        "nothing of what was replaced is published"
    )


@pytest.mark.parametrize(("speaking", "controls", "title"), [
    (Speaking(text="Good\n bye"), Controls(), "Good bye"), (Speaking(text="字" * 50), Controls(), "字" * 39 + "…"),
    (Speaking(audio=Path("a/hello.wav")), Controls(motion=Path("nod.csv")), "hello"),
    (Speaking(), Controls(motion=Path("nod.csv")), "nod"), (Speaking(), Controls(idle=1), "idle"),
], ids=("text", "long text", "audio", "motion", "idle"))  # fmt: skip
def test_a_clip_is_called_after_what_is_said_or_done(speaking, controls, title):
    assert sources._title(speaking, controls) == title


def test_a_number_is_added_to_a_name_that_is_taken():
    clips = [{"name": name} for name in ("Hello", "hello-2", "bye")]
    assert folder.Named.beside("hello", clips) == ("hello 3", "hello-3"), "some disks do not tell a from A"
    assert folder.Named.beside("hello", clips[2:]) == ("hello", "hello")


def test_what_cannot_be_written_is_said_in_a_sentence(run, tmp_path, capsys):
    command = ["export", str(run), "--format", "web"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all I have")
    for options, words in (
        (["--out", str(tmp_path / "mine"), "--idle", "1", "--overwrite"], "did not write"),
        (["--out", str(tmp_path / "new"), "--idle", "1", "--add"], "no web folder"),
        (["--out", str(tmp_path / "new")], "Nothing to say"),
    ):
        assert main([*command, *options]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_without_consent_it_is_not_published(run, tmp_path, capsys):
    Consent(relation="self", scope=("likeness", "live")).write(run)
    try:
        assert main(["export", str(run), "--format", "web", "--idle", "1", "--out", str(tmp_path / "web")]) == 2
    finally:
        SYNTHETIC.write(run)
    assert "needs a consent to 'publish'" in capsys.readouterr().err and not (tmp_path / "web").exists()


def test_a_whole_frame_is_shown_as_render_shows_it(run, avatar, motion, tmp_path):
    """A person who was prepared with --frame full: camera and background are larger than what was trained."""
    whole = copy.copy(avatar)
    whole.view_camera = avatar.camera.resized(192, 192).cropped(-40, 0, 200, 192)
    whole.view_background = lambda camera: np.full((192, 240, 3), 50, np.uint8)
    source = ExportSource(folder=run, avatar=whole, motion=motion[:2])
    out = export_avatar(source, "web", tmp_path / "whole", compact=True)
    camera = json.loads((out / "avatar.json").read_text())["camera"]
    assert (camera["width"], camera["height"], camera["cx"], camera["enlarged"]) == (240, 192, 136.0, 2.0)
    image = cv2.imread(str(out / "background.webp"))
    assert image is not None and image.shape == (192, 240, 3) and abs(int(image.mean()) - 50) < 3


def test_a_whole_frame_keeps_the_gaussians_that_show(run, avatar, motion, made, tmp_path):
    """However little of the frame the person fills: what is looked at is as large as in the trained images."""
    whole = copy.copy(avatar)
    side = 10 * avatar.camera.width
    whole.view_camera = avatar.camera.cropped(-side // 2, -side // 2, side // 2, side // 2)
    whole.view_background = lambda camera: np.zeros((side, side, 3), np.uint8)
    out = export_avatar(ExportSource(folder=run, avatar=whole, motion=motion), "web", tmp_path / "whole")
    alone, kept = ({*web.unpack(path / "order.bin")["order"].tolist()} for path in (made, out))
    assert len(alone - kept) < 0.01 * len(alone) and len(alone) < len(avatar.model.animated())


def test_a_method_without_gaussians_says_so():
    with pytest.raises(AvatarError, match="The method fog has no Gaussians"):
        Method.animated(SimpleNamespace(name="fog"))


def test_a_damaged_folder_is_refused(run, avatar, motion, made, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(made, other)
    source = ExportSource(folder=run, avatar=avatar, motion=motion)
    for name, data in (("order.bin", web.pack({"order": np.zeros(3, np.uint32)})), ("avatar.bin", b"no gzip")):
        (other / name).write_bytes(data)
        with pytest.raises(AvatarError, match="damaged"):
            export_avatar(source, "web", other, add=True)
    (other / "avatar.json").write_text('{"format": "avatar-web-1"}')
    with pytest.raises(AvatarError, match="damaged"):
        export_avatar(source, "web", other, add=True)


def test_controls_move_what_they_are_named_after(run):
    stats = MotionStats.of(Motion.load(run / "motion.safetensors"))
    found = {control.name: control for control in controls.controls_of(stats)}
    assert set(found) == {"mouth", "smile", "brows", "anger", "blink", "look_side", "look_up"}
    from avatar.motion.face_channels import opening_change

    assert opening_change(found["mouth"].face) > 0.3, "centimetres"
    assert found["blink"].face.abs().sum() >= 0 and float(found["look_side"].gaze[1]) == 0
    assert float(opening_change(found["mouth"].moved(stats.rest, 0.5).face)[0]) > opening_change(stats.rest.face)[0]


def test_differences_are_summed_up_again():
    steps = np.array([[0, 5, -3, 32767, -32768, 7], [1, 1, 1, 1, 1, 1]])
    assert np.array_equal(np.cumsum(web.differences(steps), 1, dtype=np.int16), steps)
    values = np.linspace(-2, 3, 50)
    assert np.abs(web.from_levels(web.to_levels(values, -2, 3, 255), -2, 3, 255) - values).max() < 0.5 * 5 / 255 + 1e-6


def test_names_for_files_and_packages():
    assert folder.clip_name("Gru\u0308ße an/alle..") == "Grüße-an-alle" and folder.clip_name("/..") == "clip"
    assert folder.clip_name("こんにちは、世界") == "こんにちは-世界" and folder.clip_name("नमस्ते!") == "नमस्ते"
    long = [folder.clip_name(text) for text in (300 * "a", 300 * "字", 300 * "😀" + "b")]
    assert long == [80 * "a", 40 * "字", "b"], "a file system takes 255 bytes"
    assert page.package_name("Ich & Du") == "ich-du" and page.package_name("…") == "avatar"


def test_modules_of_the_player_share_no_name():
    """They become one module, in which a name that is declared twice is an error."""
    import re

    declared = re.findall(
        r"^(?:async )?(?:class|function|const|let) (?:\[|\{ )?([A-Za-z_]\w*)", page.module(), re.MULTILINE
    )
    assert len(declared) > 20 and len(set(declared)) == len(declared)
