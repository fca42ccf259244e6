"""Images and videos of what an avatar does: alpha, colors, times and audio, decoded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.export import images, sources
from avatar.export.base import ExportSource
from avatar.export.images import Frames, Gif, WebP, limited_colors
from avatar.export.videos import Mov, Mp4, WebM
from avatar.export.view import straight_alpha
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.speaking import Speaking
from avatar.motion import Motion
from avatar.provenance import credentials
from avatar.provenance.disclosure import DisclosureOptions
from tests.person import make_person, small_config, train

FRAMES, SIZE = 10, 64


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    train(small_config(make_person(folder / "person", frames=24, size=SIZE), folder / "run", steps=2))
    return folder / "run"


@pytest.fixture(scope="module")
def source(run) -> ExportSource:
    avatar = Avatar.load(run, device="cpu", precision="float32")
    return ExportSource(folder=run, avatar=avatar, motion=Motion.load(run / "motion.safetensors")[:FRAMES])


@pytest.fixture(scope="module")
def drawn(source) -> tuple[np.ndarray, np.ndarray]:
    """Frames over the background uint8 [T, H, W, 3], and the person premultiplied over nothing [T, H, W, 4]."""
    avatar = source.avatar
    shown = [avatar.render(avatar.camera, source.motion, i).numpy() for i in range(FRAMES)]
    alone = [avatar.render_person(avatar.camera, source.motion, i).numpy() for i in range(FRAMES)]
    return np.stack(shown), np.stack(alone)


def over(image: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """A uint8 image [..., 4] with straight alpha before another."""
    alpha = image[..., 3:] / 255.0
    return image[..., :3] * alpha + behind * (1 - alpha)


def decoded(path: Path, codec: str | None = None) -> tuple[list[np.ndarray], list[float]]:
    """Frames uint8 [H, W, 4] and their times; FFmpeg's own decoder of VP9 has no alpha."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        if codec is None:
            frames = [*file.decode(stream)]
        else:
            context = av.CodecContext.create(codec, "r")
            packets = [p for p in file.demux(stream) if p.size]
            frames = [f for packet in [*packets, None] for f in context.decode(packet)]
            return [f.to_ndarray(format="rgba") for f in frames], [float(p.pts * p.time_base) for p in packets]
        return [f.to_ndarray(format="rgba") for f in frames], [f.time for f in frames]


def test_frames_over_the_background_are_what_is_rendered(source, drawn, tmp_path):
    Frames().write(source, tmp_path / "frames")
    facts = json.loads((tmp_path / "frames/sequence.json").read_text())
    assert (facts["fps"], facts["frames"], facts["width"], facts["height"]) == (25.0, FRAMES, SIZE, SIZE)
    files = sorted((tmp_path / "frames").glob("*.png"))
    behind = source.avatar.model.background.numpy() * 255
    for path, shown in zip(files, drawn[0], strict=True):
        image = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        assert np.abs(over(image, behind) - shown).max() <= 2.5
        assert image[0, 0, 3] == 0 and image[..., 3].max() > 200


def test_colors_go_on_beyond_the_outline():
    image = np.zeros((16, 16, 4), np.float32)
    image[4:12, 4:12] = [0.8, 0.1, 0.1, 1.0]
    image[4:12, 12] = [0.4, 0.05, 0.05, 0.5]  # half covered, premultiplied
    found = straight_alpha(image)
    assert (found[8, 12] == [204, 26, 26, 128]).all()
    assert found[8, 13, 3] == 0 and np.abs(found[8, 13, :3].astype(int) - [204, 26, 26]).max() <= 3


@pytest.mark.parametrize(("exporter", "codec", "most"), [(WebM, "libvpx-vp9", 12), (Mov, None, 3)])
def test_a_video_with_alpha_has_the_person_alone_and_the_audio(source, drawn, tmp_path, exporter, codec, most):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    tone[: 16000 // 5] = 0
    soundfile.write(tmp_path / "tone.wav", tone, 16000)
    said = ExportSource(
        folder=source.folder, avatar=source.avatar, motion=source.motion, audio=tmp_path / "tone.wav", audio_start=0.1
    )
    path = tmp_path / f"a{exporter.suffixes[0]}"
    exporter().write(said, path)
    frames, times = decoded(path, codec)
    assert times == pytest.approx(np.arange(FRAMES) / 25, abs=1e-3)
    alpha = drawn[1][..., 3:]
    found = np.stack(frames).astype(float)
    assert np.abs(found[..., 3:] - 255 * alpha).mean() < most / 4
    shown = over(np.stack(frames), np.zeros(3))
    assert np.abs(shown - 255 * drawn[1][..., :3].clip(0, 1)).mean() < most
    with av.open(str(path)) as file:
        sound = np.concatenate([f.to_ndarray().astype(float).ravel() for f in file.decode(file.streams.audio[0])])
        rate = file.streams.audio[0].rate
    loud = np.abs(sound) > 0.1 * np.abs(sound).max()
    assert loud.argmax() / rate == pytest.approx(0.1, abs=0.02)  # it began at 0.2 s of the file, 0.1 s were left out
    assert len(sound) / rate == pytest.approx(FRAMES / 25, abs=0.08)


def test_an_mp4_is_opaque(source, drawn, tmp_path):
    Mp4(frames=3).write(source, tmp_path / "a.mp4")
    frames, _ = decoded(tmp_path / "a.mp4")
    assert len(frames) == 3 and np.abs(frames[2][..., :3].astype(float) - drawn[0][2]).mean() < 4
    Mp4(frames=2, background="00b140", size=96).write(source, tmp_path / "b.mp4")
    frames, _ = decoded(tmp_path / "b.mp4")
    assert frames[0].shape[:2] == (96, 96) and np.abs(frames[0][2, 2, :3].astype(int) - [0, 177, 64]).max() < 12


def test_a_webp_keeps_alpha_and_times(source, drawn, tmp_path):
    WebP(fps=30).write(source, tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as file:
        delays = []
        for index in range(file.n_frames):
            file.seek(index)
            file.load()
            delays.append(file.info["duration"])
    assert len(delays) == 12 and sum(delays) == 400 and {*delays} == {33, 34}
    first = next(iio.imiter(tmp_path / "a.webp"))
    assert np.abs(first[..., 3] - 255.0 * drawn[1][0][..., 3]).max() < 2


def test_a_gif_has_few_colors_and_the_right_rate(source, drawn, tmp_path):
    Gif(size=SIZE, fps=30).write(source, tmp_path / "a.gif")  # 33 ms cannot be said: 3 hundredths
    found = iio.imread(tmp_path / "a.gif", index=None)
    assert iio.immeta(tmp_path / "a.gif")["duration"] == 30 and len(found) == round(FRAMES / 25 * 100 / 3)
    assert np.abs(cv2.GaussianBlur(found[0][..., :3], (0, 0), 1.5).astype(float)
                  - cv2.GaussianBlur(drawn[0][0], (0, 0), 1.5)).max() < 25  # fmt: skip
    Gif(size=SIZE, background="none").write(source, tmp_path / "b.gif")
    alone = iio.imread(tmp_path / "b.gif", index=None, mode="RGBA")
    Gif(size=SIZE, frames=1).write(source, tmp_path / "one.gif")
    assert len(iio.imread(tmp_path / "one.gif", index=None)) == 1
    assert {*np.unique(alone[..., 3]).tolist()} == {0, 255} and alone[0, 0, 0, 3] == 0
    shown = straight_alpha(drawn[1][-1])[..., 3] >= 128
    assert ((alone[-1][..., 3] == 255) == shown).mean() > 0.999, "nothing of earlier frames is left"
    wide = np.zeros((8, 256, 3), np.uint8)
    wide[..., 0] = np.arange(256)
    assert len(np.unique(limited_colors([wide, wide[::-1]])[0].reshape(-1, 3), axis=0)) <= 256


def test_rare_colors_stay_in_a_gif():
    rng = np.random.default_rng(0)
    skin = np.clip(rng.normal([150, 110, 90], 12, (96, 96, 3)), 0, 255).astype(np.uint8)
    skin[40:44, 40:52] = [200, 70, 100]
    lips = limited_colors([skin])[0][40:44, 40:52].reshape(-1, 3).mean(0)
    assert np.abs(lips - [200, 70, 100]).max() < 12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s, out: Mp4(background="none").write(s, out / "a.mp4"), "mp4 has no transparency"),
        (lambda s, out: Gif(fps=60).write(s, out / "a.gif"), "--fps 60 is out of range for a GIF"),
        (lambda s, out: Frames(background="blue").write(s, out / "f"), '--background "blue" is not understood'),
        (lambda s, out: WebM(size=8).write(s, out / "a.webm"), "--size 8 is out of range"),
        (lambda s, out: WebM(camera="up").write(s, out / "a.webm"), '--camera "up" is not understood'),
        (lambda s, out: WebP(quality=101).write(s, out / "a.webp"), "--quality is 101"),
        (lambda s, out: Frames(frames=0).write(s, out / "f"), "--frames 0 is out of range"),
    ],
)
def test_mistakes_are_named(source, tmp_path, make: Callable[[ExportSource, Path], None], words):
    with pytest.raises(AvatarError) as error:
        make(source, tmp_path)
    assert words in str(error.value) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("exporter", [Frames, Gif, WebP, Mov, Mp4])
def test_files_say_that_a_program_made_them(source, tmp_path, exporter):
    options = DisclosureOptions(label="corner")
    path = tmp_path / f"a{''.join(exporter.suffixes)}"
    exporter(frames=2, size=SIZE, disclosure=options).write(source, path)
    assert credentials.read(path / "000000.png" if exporter is Frames else path).state == "valid"
    with pytest.raises(AvatarError, match="needs a reason"):
        exporter(disclosure=DisclosureOptions(no_credentials=" ")).write(source, tmp_path / "none")


def test_too_long_and_a_method_without_alpha_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", FRAMES * SIZE * SIZE - 1)
    with pytest.raises(AvatarError, match=r"too much for a GIF.*--format webm"):
        Gif(size=SIZE).write(source, tmp_path / "a.gif")
    (tmp_path / "a.webp").write_text("older")
    with pytest.raises(AvatarError, match="too much for a WebP"):
        WebP().write(source, tmp_path / "a.webp")
    monkeypatch.setattr(source.avatar.model.__class__, "parts", frozenset({"head"}))
    with pytest.raises(AvatarError, match=r"without the background.*--background own"):
        Frames().write(source, tmp_path / "frames")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.webp"] and (tmp_path / "a.webp").read_text() == "older"


def test_formats_are_listed_and_the_command_line_renders(run, tmp_path, capsys):
    from avatar.export.registry import EXPORTERS

    assert main(["export", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f" {name}" in shown for name in EXPORTERS.names())
    out = tmp_path / "a.webm"
    command = ["export", str(run), "--format", "webm", "--motion", str(run / "motion.safetensors"), "--frames", "2",
               "--camera", "5,0", "--device", "cpu", "--out", str(out)]  # fmt: skip
    assert main(command) == 0 and len(decoded(out)[0]) == 2
    assert torch.is_grad_enabled()


def test_eyes_look_at_the_camera_that_is_shown(run, tmp_path, monkeypatch, caplog):
    """Where its path is limited, at that of the limited one, and that is said once."""
    command = ["export", str(run), "--format", "frames", "--motion", str(run / "motion.safetensors"), "--frames", "2",
               "--camera", "80,0", "--gaze", "camera", "--device", "cpu", "--out", str(tmp_path / "a")]  # fmt: skip
    assert main(command) == 0
    assert caplog.text.count("was limited to") == 1
    motions: list[Motion] = []
    monkeypatch.setattr(sources, "write", lambda _, source, path: motions.append(source.motion))
    right = Avatar.load(run, device="cpu").cone.limits().right
    for camera, beyond in (("80,0", False), (f"{right},0", False), ("80,0", True)):
        controls = Controls(motion=run / "motion.safetensors", gaze=("camera",), beyond=beyond)
        sources.export(Frames(camera=camera), run, tmp_path / "more", Speaking(), controls, "cpu")
    limited, at_the_limit, beyond = (motion.gaze for motion in motions)
    torch.testing.assert_close(limited, at_the_limit)
    assert (limited - beyond).abs().max() > 0.1
