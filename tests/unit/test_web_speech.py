"""`avatar export --format web --speech-input`: what JavaScript hears and shows, against Python, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.mel import MelEncoder
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.load import load_streaming
from avatar.audio2motion.shared import SharedSpeech
from avatar.data.consent import Consent
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.web import folder, page, speech
from avatar.export.web import format as web
from avatar.export.web.face_regression import FaceRegression, face_inputs
from avatar.export.write import export_avatar
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.io.audio import load_audio, write_wav
from avatar.motion import Motion
from avatar.motion.mouth import FACE
from avatar.motion.statistics import MotionStats
from tests.browser import found_tools
from tests.web import babble, small_ears, small_run, small_speech

pytest.importorskip("aiohttp")

from pipelines import web_steps
from pipelines.live_browser import Browser, Page

node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not here")
# Reads a folder as the page does, and hears as its worker does; frames of lips, and coefficients that they lead to.
DRIVER = """
const fs = require("fs"), [folder, rate, length] = process.argv.slice(1);
globalThis.fetch = async (url) => new Response(fs.readFileSync(folder + new URL(url).pathname));
const { Speaker } = new Function(fs.readFileSync(`${folder}/speech.js`, "utf8") + "; return { Speaker };")();
const page = new Function(fs.readFileSync(`${folder}/page.js`, "utf8") + "; return { Voice, Spoken, readArrays };")();
(async () => {
  const about = JSON.parse(fs.readFileSync(`${folder}/avatar.json`, "utf8")).speech;
  const arrays = await page.readArrays("http://here/", about.file), heard = new Speaker({ arrays, about });
  const samples = new Float32Array(fs.readFileSync(`${folder}/samples.f32`).buffer);
  globalThis.Worker = class { postMessage() {} };
  URL.createObjectURL = () => "";
  const spoken = new page.Spoken(new page.Voice(arrays, about, ""), Infinity), size = Number(length), lips = [];
  let wait = 0; // seconds of audio after a frame's time, at most
  for (let id = 0; id < 2; id += 1) { // the second utterance knows nothing of the first
    for (let from = 0; from < samples.length; from += size) {
      const piece = samples.slice(from, from + size), final = from + size >= samples.length;
      const { frames, count } = heard.answer({ id, samples: piece, rate: Number(rate), final });
      if (!id) continue;
      if (count && !final) wait = Math.max(wait, (from + size) / Number(rate) - spoken.frames / about.fps);
      [lips.push(...frames), spoken.add(frames, count)];
    }
  }
  const faces = Array.from({ length: spoken.frames }, (_, n) => Array.from(spoken.at(n).coefficients));
  const poses = Array.from({ length: spoken.frames }, (_, n) => Array.from(spoken.at(n).pose));
  console.log(JSON.stringify({ lips, faces, poses, wait, frames: spoken.frames }));
})();
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def made(run, tmp_path_factory) -> Iterator[Path]:
    """A web folder that speaks, with a loop that soon begins again."""
    monkeypatch = pytest.MonkeyPatch()
    small_ears(monkeypatch)
    monkeypatch.setattr(speech, "EXAMPLES", 60)
    monkeypatch.setattr(folder, "SAMPLES", 24)
    monkeypatch.setattr(speech, "LOOP_SECONDS", 1.6)
    monkeypatch.setattr(speech, "FADE_SECONDS", 0.3)
    avatar = Avatar.load(run, device="cpu", precision="float32")
    track = Motion.load(run / "motion.safetensors")
    small_speech(track, avatar.fps).save(run / "streaming.safetensors")
    source = ExportSource(folder=run, avatar=avatar, motion=track[:8])
    yield export_avatar(source, "web", tmp_path_factory.mktemp("out") / "web", speech_input=True)
    monkeypatch.undo()


def heard(made: Path, samples: np.ndarray, rate: int = 16000, piece: int = 1000) -> dict[str, np.ndarray]:
    """What the page makes of samples."""
    samples.astype(np.float32).tofile(made / "samples.f32")
    (made / "page.js").write_text(page.code(modules=("read", "clip", "voice")))
    command = ["node", "-e", DRIVER, str(made), str(rate), str(piece)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return {name: np.array(value, np.float32) for name, value in found.items()}


@node
def test_the_page_moves_the_lips_as_the_streaming_network_does(made, run):
    samples = babble(3.03)
    exact = motion_of(streaming(run), samples).face[:, FACE]
    assert exact.std(0).max() > 0.02 and (exact == exact[0]).all(1).sum() < len(exact) / 2, "the mouth moves"
    piece, look_ahead = 300, json.loads((made / "avatar.json").read_text())["speech"]["look_ahead"]
    for length in (piece, len(samples)):
        found = heard(made, samples, piece=length)
        assert found["wait"] <= look_ahead + piece / 16000 + 1e-6, "no frame waits longer than it must"
        lips = found["lips"].reshape(-1, len(FACE))
        assert lips.shape == exact.shape
        np.testing.assert_allclose(lips, exact, atol=1e-4, rtol=0)


@node
def test_other_sample_rates_make_the_same_lips(made, run):
    samples = babble(2.0)
    exact = motion_of(streaming(run), samples).face[:, FACE].numpy()
    lips = heard(made, soxr.resample(samples, 16000, 44100), rate=44100, piece=882)["lips"].reshape(-1, len(FACE))
    count = min(len(lips), len(exact))
    assert abs(len(lips) - len(exact)) <= 1
    missed = (lips[:count] - exact[:count])[:-2]  # the end of the audio is cut in the middle of the voice
    assert np.abs(missed).max() < 0.05 * exact.std(0).max()


@node
def test_the_page_shows_the_loop_with_these_lips(made, run):
    found = heard(made, babble(3.03))
    about, arrays = json.loads((made / "avatar.json").read_text())["speech"], web.unpack(made / "speech.bin")
    frames, back = about["frames"], about["back"]
    assert found["frames"] > frames + 5, "the loop begins again"
    at = [n if n < frames else back + (n - back) % (frames - back) for n in range(int(found["frames"]))]
    np.testing.assert_allclose(found["poses"], arrays["pose"].T[at], atol=1e-6)
    inputs = torch.from_numpy(arrays["base"].T[at].copy())
    inputs[:, FACE] = torch.from_numpy(found["lips"].reshape(-1, len(FACE)))
    names = ("face_linear", "face_example", "face_weight")
    numbers = [*arrays["face_unit"], *(arrays[name] for name in names)]
    face = FaceRegression(*map(torch.from_numpy, numbers), about["width"])
    np.testing.assert_allclose(found["faces"], face(inputs), atol=1e-3)


def test_the_loop_begins_as_render_does_and_goes_on_without_a_jump(made, run):
    avatar = Avatar.load(run, device="cpu", precision="float32")
    stats = MotionStats.of(Motion.load(run / "motion.safetensors"))
    loop, back = speech.base_loop(avatar, stats)
    quiet = np.zeros(round(16000 * len(loop) / avatar.fps), np.float32)
    rendered = plan_motion(avatar, Controls(), frames=len(loop), speech=streaming(run))
    head = Motion.cat(list(rendered.stream([quiet]))).head_rotation
    begins = len(loop) - round(speech.FADE_SECONDS * avatar.fps)
    assert torch.equal(loop.head_rotation[:begins], head[:begins])
    ends, far = head[back - 1], (head[-1] - head[back - 1]).norm()
    assert far > 0 and (loop.head_rotation[-1] - ends).norm() < 0.1 * far, "it ends just before it goes on"
    assert (face_inputs(loop)[:, FACE] == stats.rest.face[:, FACE]).all()


def test_the_regression_follows_what_is_not_linear():
    rng = torch.Generator().manual_seed(0)

    def bent(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0] + 0.5 * x[:, 1].abs(), (x[:, 0] * x[:, 1]).tanh()], 1)

    x = torch.randn(500, 3, generator=rng)
    face = FaceRegression.fit(x[:400], bent(x[:400]))
    missed = (face(x[400:]) - bent(x[400:])).square().mean() / bent(x[400:]).var(0).mean()
    assert missed < 0.02, "a linear one misses a third"
    far = torch.tensor([[100.0, 0, 0]])
    assert abs(float(face(far)[0, 0]) - 100) < 10, "beyond its examples it goes on as a line"


def test_a_run_that_hears_otherwise_is_refused(made, run):
    model = streaming(run)
    for encoder in (SpeechEncoder([MelEncoder(32)]), SpeechEncoder([*model.prior.encoder.parts, MelEncoder(32)])):
        with pytest.raises(AvatarError, match="Leave out --speech-input"):
            speech.lip_arrays(replace(model, prior=replace(model.prior, encoder=encoder)))


def test_a_page_that_says_what_visitors_say_needs_consent_to_that(made, run, tmp_path):
    consent = Consent(relation="self", name="A", given="2026-01-01", scope=("likeness", "publish"))
    shutil.copytree(run, tmp_path / "run")
    consent.write(tmp_path / "run")
    avatar = Avatar.load(tmp_path / "run", device="cpu", precision="float32")
    source = ExportSource(folder=avatar.run, avatar=avatar, motion=Motion.load(run / "motion.safetensors")[:4])
    with pytest.raises(AvatarError, match="live"):
        export_avatar(source, "web", tmp_path / "web", speech_input=True)
    assert not (tmp_path / "web").exists()


def test_a_folder_learns_to_speak_with_another_clip(made, run, tmp_path):
    avatar = Avatar.load(run, device="cpu", precision="float32")
    source = ExportSource(folder=run, avatar=avatar, motion=Motion.load(run / "motion.safetensors")[:4])
    mute = export_avatar(source, "web", tmp_path / "web")
    assert not list(mute.glob("speech*")) and "speech" not in json.loads((mute / "avatar.json").read_text())
    export_avatar(source, "web", mute, clip="more", add=True, speech_input=True)
    names = {"speech.bin", "speech.bin.js", "speech.js", "speech.js.js"}
    assert {path.name for path in mute.glob("speech*")} == names and (mute / "LICENSE-whisper.txt").is_file()
    assert json.loads((mute / "avatar.json").read_text())["speech"]["lips"] == FACE
    assert (mute / "speech.js").read_bytes() == (made / "speech.js").read_bytes()


PLAYER = "document.querySelector('avatar-player')"
RECORDED = """new Promise((done) => {
  const context = new AudioContext(), tone = context.createOscillator(), end = context.createMediaStreamDestination();
  const recorder = new MediaRecorder(end.stream), pieces = [];
  tone.connect(end);
  tone.start();
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.onstop = () => done(new Blob(pieces));
  recorder.start(200); // in pieces, so that none says how long all are
  setTimeout(() => recorder.stop(), 1000);
})"""


def test_a_browser_speaks_a_file_and_along_with_the_microphone(made, run, tmp_path):
    tools = found_tools()
    write_wav(tmp_path / "babble.wav", babble(2.0))
    content = base64.b64encode((tmp_path / "babble.wav").read_bytes()).decode()
    exact = motion_of(streaming(run), load_audio(tmp_path / "babble.wav")).face[:, FACE]

    async def look() -> None:
        async with Browser(tools) as browser, browser.started(*web_steps.GRAPHICS) as chromium:
            with web_steps.served(made) as url:
                for address in (url, f"{made.as_uri()}/"):
                    async with browser.page(chromium, f"{address}index.html") as page:
                        await page.wait(f"{PLAYER}?.engine?.frame >= 0")
                        await page.run(
                            f"{PLAYER}.speak(Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0)).buffer)"
                        )
                        lips = await page.run(f"{PLAYER}.engine.motion.rows.map((row) => Array.from(row))")
                        np.testing.assert_allclose(lips, exact, atol=1e-3)
                        await page.run(f"{RECORDED}.then((audio) => {PLAYER}.speak(audio))")
                        assert 0.5 < await page.run(f"{PLAYER}.duration") < 2
                        await microphone(page)
                        assert await page.words() == []

    async def microphone(page: Page) -> None:
        """Listen, refuse what is no audio, and go back to the clip."""
        await page.run(f"{PLAYER}.listen()")
        await page.wait(f"{PLAYER}.engine.frame > 5 && {PLAYER}.duration === Infinity")
        tried = "then(() => '', (error) => error.message)"
        assert "cannot play that audio" in await page.run(f"{PLAYER}.speak(new ArrayBuffer(100)).{tried}")
        await page.run(f"{PLAYER}.stop()")
        assert await page.run(f"[{PLAYER}.paused, {PLAYER}.engine.clip.name, {PLAYER}.ui.stop.hidden]") == [
            True,
            "motion",
            True,
        ]
        await page.run(
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }"
        )
        await page.run(f"{PLAYER}.ui.microphone.click()")
        await page.wait(f"{PLAYER}.ui.note.textContent === 'There is no microphone.'")
        await page.run(f"{PLAYER}.engine.manifest.speech = null")
        assert "without --speech-input" in await page.run(f"{PLAYER}.speak(new Blob([])).{tried}")

    asyncio.run(asyncio.wait_for(look(), 120))


def streaming(run: Path) -> SharedSpeech:
    return load_streaming(run, Avatar.load(run, device="cpu").fps)
