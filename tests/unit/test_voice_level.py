"""Audio that is softer or louder than the person's recording moves the lips as one of the same level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio2motion.base import drive, gain_for, levelled, motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.personal_training import train_personal
from avatar.audio2motion.shared import SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.sources import AudioFile
from avatar.infer.utterances import Utterances
from avatar.io.audio import write_wav
from avatar.io.listening import AudioContent, moments_db, voice_level
from avatar.io.tracks import choose_audio
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.synth import speech as synthetic
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.talking import talking
from tests.unit.test_personal import track_of, voice_and_mouth
from tests.unit.test_prior import some_prior

JAW = INDEX["jawOpen"]
KNOWN = -20.0


class Knowing(LoudnessSpeech):
    """Was trained on a voice of -20 dB."""

    voice_db = KNOWN


def voice(seconds: float = 4.0, db: float = KNOWN) -> np.ndarray:
    """A voice at a level."""
    said = synthetic.speak("Mama may bake a big pie. Papa moves the blue boat.", "buzz").samples
    said = said[: round(seconds * 16000)]
    level = voice_level(moments_db(said))
    assert level is not None
    return (said * 10 ** ((db - level) / 20)).astype(np.float32)


def jaw_of(blocks: list[Motion]) -> np.ndarray:
    return Motion.cat(blocks).arkit[:, JAW].numpy()


def test_the_level_of_a_voice_is_that_of_its_loud_moments() -> None:
    samples = voice(db=-23)
    assert voice_level(moments_db(samples)) == pytest.approx(-23, abs=0.1)
    paused = np.concatenate([samples, np.zeros(5 * 16000, np.float32), samples, np.full(16000, 0.3, np.float32)])
    assert voice_level(moments_db(paused)) == pytest.approx(-23, abs=0.1), "pauses and an offset count for nothing"
    for nothing in (np.zeros(0, np.float32), np.zeros(16000, np.float32), np.full(16000, 1e-4, np.float32)):
        assert voice_level(moments_db(nothing)) is None


@pytest.mark.parametrize(
    ("known", "voice_db", "factor"),
    [(KNOWN, -40, 10), (KNOWN, 0, 0.1), (KNOWN, -22, 1), (KNOWN, -18, 1), (KNOWN, None, 1), (None, -40, 1),
     (KNOWN, -100, 100)],
)  # fmt: skip
def test_a_gain_makes_up_for_what_differs_clearly(known: Any, voice_db: Any, factor: float) -> None:
    model: Any = LoudnessSpeech()
    assert gain_for(model, voice_db) == 1, "models of others need not know a level"
    model.voice_db = known
    assert gain_for(model, voice_db) == pytest.approx(factor)
    assert np.abs(levelled(np.array([-1, 0.001, 1], np.float32), 100)).max() == 1


@pytest.mark.parametrize("db", [KNOWN - 25, KNOWN, KNOWN + 6])
def test_a_file_moves_the_lips_as_loud_as_it_is_meant(db: float, tmp_path: Path) -> None:
    talking()[0].save(tmp_path / "motion.safetensors")
    write_wav(tmp_path / "said.wav", voice(db=db))
    file, avatar, speech = AudioFile(tmp_path / "said.wav"), FakeAvatar(tmp_path), Knowing()
    assert file.voice_db == pytest.approx(db, abs=0.3)
    frames = file.frames(FPS)
    plan = plan_motion(avatar, Controls(), frames=frames, speech=speech, voice_db=file.voice_db)
    spoken = jaw_of(list(plan.stream(file)))
    wanted = jaw_of([motion_of(Knowing(), voice())])
    np.testing.assert_allclose(spoken[5:], wanted[5:], atol=0.02, rtol=0.05)  # but for the first, which ease there
    alone = jaw_of(list(drive(Knowing(), AudioFile(tmp_path / "said.wav"), file.voice_db)))
    np.testing.assert_allclose(alone, wanted, atol=0.02, rtol=0.05)


def test_what_is_no_voice_is_not_made_louder(tmp_path: Path) -> None:
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(48000)
    write_wav(tmp_path / "hiss.wav", hiss.astype(np.float32))
    assert AudioFile(tmp_path / "hiss.wav").voice_db is None


def spoken_live(pieces: list[np.ndarray], burst: bool) -> list[np.ndarray]:
    """How far the jaw opens in each of several utterances; ``burst``: all audio of one comes at once."""
    speech: Any = Knowing()
    utterances = Utterances(speech, FPS, Motion.zeros(1, FPS), 100 * 16000)
    opened, now = [], 0.0
    for samples in pieces:
        lips = []
        parts = [samples] if burst else np.split(samples, range(FRAME, len(samples), FRAME))
        for part in parts:
            utterances.push(part)
            now += 1 / FPS
            lips.append(utterances.take(FRAME, now, at_once=True).lips)
        utterances.end()
        for _ in range(len(samples) // FRAME + 10):
            now += 1 / FPS
            lips.append(utterances.take(FRAME, now, at_once=True).lips)
        opened.append(jaw_of([motion for motion in lips if motion is not None]))
    return opened


def test_live_speakers_are_brought_to_the_level_by_what_they_said() -> None:
    soft, wanted = voice(db=KNOWN - 20), jaw_of([motion_of(Knowing(), voice())])
    first, second = (float(opened.max()) for opened in spoken_live([soft, soft], burst=False))
    assert first == pytest.approx(0.1 * wanted.max(), rel=0.1), "nothing is known of the speaker yet"
    assert second == pytest.approx(wanted.max(), rel=0.1)
    [at_once] = spoken_live([soft], burst=True)
    assert at_once.max() == pytest.approx(wanted.max(), rel=0.1), "what waits tells it as well"
    [short] = spoken_live([soft[:16000]], burst=True)
    assert short.max() < 0.2 * wanted.max(), "a second is too little to tell"


@pytest.mark.parametrize("db", [-58.0, -45.0])
def test_the_noise_of_a_room_is_no_voice(db: float) -> None:
    """Somebody is silent for a while, with the microphone on, and then speaks at the level that is known."""
    hiss = np.random.default_rng(0).standard_normal(5 * 16000).astype(np.float32) * 10 ** (db / 20)
    quiet = voice(db=KNOWN)
    _, spoken = spoken_live([hiss, quiet], burst=False)
    assert spoken.max() == pytest.approx(jaw_of([motion_of(Knowing(), quiet)]).max(), rel=0.05)


def test_networks_know_the_level_that_they_were_trained_on(tmp_path: Path) -> None:
    samples, opening = voice_and_mouth(frames=300)
    expected = voice_level(moments_db(samples[: 250 * FRAME]))
    personal = train_personal(
        track_of(opening)[:250], samples, speech_encoder("mel"), steps=1, progress=lambda done, total: None
    )
    motion = track_of(opening)[:250]
    shared = adapt(some_prior().person(motion, FPS), motion, samples)
    for network, kind in ((personal, PersonalSpeech), (shared, SharedSpeech)):
        assert network.voice_db == pytest.approx(expected)
        network.save(tmp_path / "speech.safetensors")
        assert kind.load(tmp_path / "speech.safetensors").voice_db == pytest.approx(expected)
        replace(network, voice_db=None).save(tmp_path / "speech.safetensors")  # as files of before
        assert kind.load(tmp_path / "speech.safetensors").voice_db is None
    assert Ensemble([replace(personal, voice_db=None), shared]).voice_db == pytest.approx(expected)
    assert torch.isfinite(motion_of(Ensemble([personal, shared]), samples[:16000]).face).all()


def syllables(seconds: float, db: float) -> np.ndarray:
    """What a whisper is: noise that comes and goes four times a second, at a level."""
    time = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).standard_normal(len(time)) * np.sin(np.pi * 4 * time) ** 4
    level = voice_level(moments_db(noise.astype(np.float32)))
    assert level is not None
    return (noise * 10 ** ((db - level) / 20)).astype(np.float32)


def test_a_whisper_has_a_level_and_notes_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "whisper.wav", syllables(4.0, -50.0))
    assert AudioFile(tmp_path / "whisper.wav").voice_db == pytest.approx(-50, abs=0.5)
    assert "lips follow a whisper" in " ".join(capsys.readouterr().err.split())
    time = np.arange(8000) / 16000
    chords = [sum(np.sin(2 * np.pi * f * time) for f in (c, 1.25 * c, 1.5 * c)) for c in (220, 262, 196, 294) * 2]
    struck = np.concatenate([0.01 * np.exp(-4 * time) * np.minimum(1, time / 0.01) * chord for chord in chords])
    for name, beat in (("music", 0.0), ("band", 0.02)):
        write_wav(tmp_path / f"{name}.wav", (struck + beat * np.roll(syllables(4.0, -16.0), 500)).astype(np.float32))
        assert AudioFile(tmp_path / f"{name}.wav").voice_db is None
    assert choose_audio(tmp_path / "music.wav", listen=True).content is AudioContent.SOUND


@pytest.mark.parametrize("db", [-51.0, -55.0])
def test_who_has_no_recording_with_audio_takes_a_voice_at_any_level(db: float, tmp_path: Path) -> None:
    """Photos, silent videos, and lips of the prior alone."""
    motion = talking()[0]
    speech = some_prior().person(motion, FPS)
    assert speech.voice_db is not None
    soft, loud = (Motion.cat(list(drive(speech, [voice(db=level)], level))) for level in (db, speech.voice_db))
    torch.testing.assert_close(soft.face, loud.face, atol=1e-3, rtol=0)
    assert float(soft.face.std()) > 0.01
    speech.save(tmp_path / "speech.safetensors")
    assert SharedSpeech.load(tmp_path / "speech.safetensors").voice_db == speech.voice_db
    assert speech.streaming().voice_db == speech.voice_db
