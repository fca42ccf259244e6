"""Listening is alive: nods follow the pauses of whoever speaks, lips stay closed, nothing jumps, a seed decides."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.audio.turns import PauseDetector
from avatar.infer.controls import Controls
from avatar.infer.listening import Attention, Attitude
from avatar.infer.session import Session
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.edits import gaze_to
from avatar.motion.face_channels import opening_change
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.talking import talking

SECONDS = 9.0  # of those tests that look at motion


def voice(seconds: float) -> np.ndarray:
    """A vowel in syllables, with a little noise."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    vowel = 0.2 * np.sin(2 * np.pi * 300 * t) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
    return (vowel + np.random.default_rng(0).normal(0, 1e-4, len(t))).astype(np.float32)


def speech(seconds: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Phrases and pauses: the samples, and the seconds at which phrases end."""
    rng = np.random.default_rng(seed)
    parts, ends, at = [], [], 0.0
    while at < seconds:
        phrase, pause = rng.uniform(0.9, 3.5), rng.uniform(0.3, 0.55)
        parts += [voice(phrase), np.random.default_rng(1).normal(0, 1e-4, round(pause * SAMPLE_RATE))]
        ends.append(at + phrase)
        at += phrase + pause
    samples = np.concatenate(parts).astype(np.float32)[: round(seconds * SAMPLE_RATE)]
    return samples, np.array([end for end in ends if end < seconds])


def made(folder: Path, **controls: Any) -> Session:
    if not (folder / "motion.safetensors").exists():
        talking()[0][:200].save(folder / "motion.safetensors")
    return Session(FakeAvatar(folder), Controls(**controls), speech=LoudnessSpeech(), flush_seconds=None)  # type: ignore[arg-type]


def motions(session: Session, heard: np.ndarray, begin: int = 0) -> Motion:
    """What the session does while it hears audio, a frame's worth before each frame."""
    blocks = []
    for i in range(len(heard) // FRAME):
        session.hear(heard[i * FRAME : (i + 1) * FRAME])
        blocks += [session.pose(due) for due in session.take((begin + i) / FPS)]
    return Motion.cat(blocks)


@functools.cache
def attended() -> tuple[list[Attitude], np.ndarray]:
    """What the avatar does in two minutes of listening, and the seconds at which phrases end."""
    samples, ends = speech(120.0)
    return attitudes(samples), ends


def attitudes(samples: np.ndarray, seed: int = 0) -> list[Attitude]:
    """What the avatar does while it hears audio, without a face."""
    attention = Attention(FPS, seed)
    return [attention.step(samples[i : i + FRAME], False) for i in range(0, len(samples) // FRAME * FRAME, FRAME)]


@functools.cache
def listened(folder: Path) -> tuple[Motion, Motion]:
    """The motion of somebody who is spoken to, and of the same one who is not."""
    samples, _ = speech(SECONDS)
    return motions(made(folder), samples), motions(made(folder), 0 * samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("listening")


def lowered(motion: Motion, quiet: Motion) -> np.ndarray:
    """Degrees [T] by which listening lowers the head."""
    return np.rad2deg((motion.head_rotation - quiet.head_rotation)[:, 0].numpy())


def nods(pitch: np.ndarray) -> list[tuple[int, int]]:
    """First and last frame of each nod."""
    moving = np.flatnonzero(np.abs(pitch) > 0.3)
    cuts = np.flatnonzero(np.diff(moving) > 12)
    return list(zip(moving[np.r_[0, cuts + 1]], moving[np.r_[cuts, len(moving) - 1]]))


def test_nods_follow_the_ends_of_phrases():
    shown, ends = attended()
    minutes = len(shown) / FPS / 60
    pitch = np.array([attitude.nod for attitude in shown])
    found = nods(pitch)
    begins = np.array([begin for begin, _ in found])
    assert 4 * minutes <= len(found) <= 12 * minutes * 0.85  # 85 % of the time is speech
    assert np.diff(begins).min() >= 4.0 * FPS and all(last - first < 1.1 * FPS for first, last in found)
    assert all(3.5 < pitch[first : last + 1].max() < 7.2 for first, last in found)
    at = np.zeros(len(pitch))
    at[(ends * FPS).astype(int).clip(max=len(at) - 1)] = 1

    def peak(train: np.ndarray) -> tuple[float, float]:
        lags = np.arange(0, round(2 * FPS))
        scores = [float(pitch[lag:] @ train[: len(train) - lag]) for lag in lags]
        return max(scores), int(np.argmax(scores)) / FPS

    score, lag = peak(at)
    rng = np.random.default_rng(0)
    chance = [peak(rng.permutation(at))[0] for _ in range(100)]
    assert 0.2 <= lag <= 0.9 and (score - np.mean(chance)) / np.std(chance) > 5


def test_nothing_jumps_into_or_out_of_listening(folder: Path):
    motion, quiet = listened(folder)
    speeds = np.abs(np.diff(lowered(motion, quiet))) * FPS
    assert speeds.max() < 75  # degrees a second: a brisk nod
    moved = (motion.head_translation - quiet.head_translation).norm(dim=1)
    assert moved.max() < 1.5 and moved.diff().abs().max() * FPS < 12  # centimetres
    face = (motion.face - quiet.face).diff(dim=0).abs().max() * FPS
    assert face < 3.5, "centimetres a second; eyelids follow the eyes"
    gaze = torch.rad2deg(motion.gaze - quiet.gaze).diff(dim=0).abs().max()
    assert gaze < 10, "degrees a frame: eyes are quick, but do not jump"


def test_lips_stay_closed_and_smile_a_little(folder: Path):
    motion, quiet = listened(folder)
    spoken = opening_change(talking()[0].face).std()
    assert opening_change(motion.face).std() < 0.02 * spoken
    assert (opening_change(motion.face) - opening_change(quiet.face)).abs().max() < 0.02
    smile = (motion.arkit - quiet.arkit)[:, INDEX["mouthSmileLeft"]]
    assert 0.04 < smile[80:].mean() < 0.12 and smile.max() < 0.15
    assert nods(lowered(motion, quiet))


def test_eyes_hold_the_listener_most_of_the_time_and_some_nods_raise_the_brows(folder: Path):
    found, _ = attended()
    assert 0.8 < np.mean([attitude.look > 0.99 for attitude in found[50:]]) < 0.92
    raised = nods(30 * np.array([attitude.brows for attitude in found]))
    assert 0.15 < len(raised) / len(nods(np.array([attitude.nod for attitude in found]))) < 0.5
    motion, _ = listened(folder)
    away = (motion.gaze - gaze_to(motion, torch.zeros(len(motion), 3))).norm(dim=1)
    assert (away[50:] < 0.02).float().mean() > 0.6


def test_it_blinks_a_little_more_while_it_listens(folder: Path):
    attention, heard = Attention(FPS, 1), voice(120.0)
    blinks = [attention.step(heard[i * FRAME : (i + 1) * FRAME], False).blink for i in range(len(heard) // FRAME)]
    assert 3 <= sum(a == 0 < b for a, b in pairwise(blinks)) <= 12 and min(blinks) == 0
    idle = Attention(FPS, 1)
    assert not any(idle.step(heard[:0], False).blink for _ in range(3000))
    reactions = Session(FakeAvatar(folder), speech=LoudnessSpeech())._reactions  # type: ignore[arg-type]
    eyes = [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]
    rest, shut = talking()[0][:1], []
    for n in range(21):
        shut.append(float(reactions(rest, Attitude(blink=0.04 * n)).arkit[0, eyes].max() - rest.arkit[0, eyes].max()))
    assert max(shut) > 0.3 and abs(shut[0]) < 1e-6 and abs(shut[-1]) < 1e-6
    closed = rest.map(arkit=rest.arkit.index_fill(1, torch.tensor(eyes), 1.0))
    for n in range(21):
        torch.testing.assert_close(reactions(closed, Attitude(blink=0.04 * n)).face, closed.face)


def test_a_seed_decides_and_another_one_does_otherwise():
    samples, _ = speech(30.0)
    assert attitudes(samples, 3) == attitudes(samples, 3) != attitudes(samples, 4)


def test_it_does_not_nod_while_it_speaks_nor_where_it_is_to_be_still(folder: Path):
    samples, _ = speech(6.0)

    def said(heard: np.ndarray) -> Motion:
        session = made(folder)
        session.push_audio(voice(7.0))
        return motions(session, heard)

    assert np.abs(lowered(said(samples), said(0 * samples))).max() < 0.1
    still = motions(made(folder, pose=("still",)), samples)
    assert still.head_rotation.std(0).max() < 1e-3


def test_it_looks_aside_while_it_thinks_and_back_when_it_speaks(folder: Path):
    session = made(folder)
    nothing = np.zeros(3 * SAMPLE_RATE, np.float32)
    motions(session, nothing[: 10 * FRAME])
    session.think(True)
    thinks = motions(session, nothing, 10)
    beside = torch.rad2deg(thinks.gaze - gaze_to(thinks, torch.zeros(len(thinks), 3)))
    aside = (beside > 3).all(1)  # to its left and up
    assert not aside[:6].any() and 0.25 < aside.float().mean() < 0.8 and beside.max() < 13
    session.push_audio(voice(2.0))
    session.think(False)
    speaks = motions(session, nothing, 85)
    calm = motions(made(folder), np.zeros(170 * FRAME, np.float32))[-len(speaks) :]
    assert len(speaks) == 75
    torch.testing.assert_close(speaks.gaze[20:40], calm.gaze[10:30], atol=0.5, rtol=0)


def test_an_interruption_raises_the_brows(folder: Path):
    session = made(folder)
    session.push_audio(voice(3.0))
    motions(session, np.zeros(25 * FRAME, np.float32))
    session.interrupt()
    brow = motions(session, np.zeros(30 * FRAME, np.float32), 25).arkit[:, INDEX["browOuterUpLeft"]]
    assert 0.12 < brow.max() - brow[-1] < 0.3 and brow.diff().abs().max() < 0.08


@pytest.mark.parametrize("size", [100, 320, 1600, 200_000])
def test_a_pause_is_found_after_a_phrase_and_not_after_a_word(size: int):
    quiet = np.random.default_rng(2).normal(0, 1e-4, round(0.5 * SAMPLE_RATE)).astype(np.float32)
    short, gap = voice(0.5), quiet[: round(0.12 * SAMPLE_RATE)]
    sound = np.concatenate([quiet, short, quiet, voice(0.8), quiet, short, gap, short, quiet])
    detector = PauseDetector()
    assert sum(detector.push(sound[i : i + size]) for i in range(0, len(sound), size)) == 2
