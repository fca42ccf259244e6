"""The sync judge: offsets found and other sound told apart on mouths it has not seen, bad input refused; training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.preprocess.face_tracker import Track, track_video
from avatar.sync import evaluation as sync_evaluation
from avatar.sync import training as sync_training
from avatar.sync.judge import (
    BANDS,
    CHANNELS,
    REACH,
    ROWS,
    WEIGHTS,
    SyncJudge,
    SyncNet,
    SyncScore,
    best_delay,
    mouth_motion,
)
from avatar.sync.training import Recording
from tests.talking import seen_speaking

TEXT = (
    "The weather tomorrow will be warm and mostly dry. Please remember to bring a map, because nobody knows the way.",
    "Five people were waiting for the bus above the old bridge. My brother bought a purple jumper and some apples.",
)


@pytest.fixture(scope="module")
def judge() -> SyncJudge:
    return SyncJudge.load()


@dataclass
class Clip:
    landmarks: np.ndarray
    audio: np.ndarray
    fps: float


def plan_motion(text: str, fps: float = 25.0, late: float = 0.0, seed: int = 0) -> Clip:
    """A face in the picture that says a text, late by so many frames, tracked with noise."""
    return Clip(*seen_speaking(text, fps, late, seed), fps)


@pytest.mark.parametrize(("fps", "late"), [(25.0, 0.0), (25.0, 6.0), (25.0, -5.0), (30.0, 4.0), (50.0, -8.0)])
def test_the_offset_is_found(judge: SyncJudge, fps: float, late: float) -> None:
    clip = plan_motion(TEXT[0], fps, late)
    score = judge.score(clip.landmarks, clip.audio, fps)
    assert score.audio_delay_s == pytest.approx(-late / fps, abs=0.04)
    assert score.confidence > 0.2


def test_a_least_distance_at_the_border_is_no_delay(judge: SyncJudge) -> None:
    rising = np.linspace(0.5, 1, 2 * REACH + 1)
    for curve in (rising, rising[::-1]):
        assert best_delay(curve).audio_delay_s is None
    assert best_delay(np.roll(rising, 1)).audio_delay_s is not None


def test_other_sound_is_told_apart(judge: SyncJudge) -> None:
    one, two = plan_motion(TEXT[0]), plan_motion(TEXT[1], seed=1)
    right = judge.score(one.landmarks, one.audio, 25.0)
    wrong = judge.score(one.landmarks, two.audio, 25.0)
    assert right.confidence > 2 * wrong.confidence and right.distance < wrong.distance
    assert judge.matched(one.landmarks, one.audio, 25.0) > 2 * judge.matched(one.landmarks, two.audio, 25.0)


def test_matched_falls_where_picture_and_sound_are_apart(judge: SyncJudge) -> None:
    at_once, late = plan_motion(TEXT[0]), plan_motion(TEXT[0], late=6.0)
    assert judge.matched(at_once.landmarks, at_once.audio, 25.0) == pytest.approx(
        1 - judge.score(at_once.landmarks, at_once.audio, 25.0).distance
    )
    assert judge.matched(late.landmarks, late.audio, 25.0) < 0.5 * judge.matched(at_once.landmarks, at_once.audio, 25.0)


def test_the_same_clip_gets_the_same_score(judge: SyncJudge) -> None:
    clip = plan_motion(TEXT[0])
    assert judge.score(clip.landmarks, clip.audio, 25.0) == judge.score(clip.landmarks, clip.audio, 25.0)


def test_place_size_and_tilt_of_the_face_do_not_matter(judge: SyncJudge) -> None:
    clip = plan_motion(TEXT[0])
    tilt = np.array([[0.96, 0.28], [-0.28, 0.96]])
    moved = (0.4 * clip.landmarks @ tilt + (300, 50)).astype(np.float32)
    deep = np.concatenate([moved, np.ones((*moved.shape[:2], 1), np.float32)], -1)
    expected, found = judge.score(clip.landmarks, clip.audio, 25.0), judge.score(deep, clip.audio, 25.0)
    assert found.confidence == pytest.approx(expected.confidence, abs=0.01)
    assert found.audio_delay_s == pytest.approx(expected.audio_delay_s, abs=0.002)


def test_frames_without_a_face_are_left_out(judge: SyncJudge) -> None:
    clip = plan_motion(TEXT[0], late=3.0)
    clip.landmarks[20:50] = np.nan
    clip.landmarks[60] = 7.0  # all points in one place: no face either
    score = judge.score(clip.landmarks, clip.audio, 25.0)
    assert score.audio_delay_s == pytest.approx(-0.12, abs=0.04)


def _changed(**changes: object) -> Clip:
    rng = np.random.default_rng(0)
    shape = load_tensors(WEIGHTS)[0]["shape"].numpy()
    landmarks = 10 * np.repeat(shape[None, :, :2], 100, 0) + rng.normal(0, 0.3, (100, 478, 2))
    clip = Clip(landmarks.astype(np.float32), rng.normal(0, 0.1, 64000).astype(np.float32), 25.0)
    for name, value in changes.items():
        setattr(clip, name, value(getattr(clip, name)) if callable(value) else value)
    return clip


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (_changed(landmarks=lambda x: x[:, :468]), "Landmarks are"),
        (_changed(landmarks=lambda x: x[..., 0]), "Landmarks are"),
        (_changed(landmarks=lambda x: x[:0]), "too short"),
        (_changed(landmarks=lambda x: x[:45]), "too short"),
        (_changed(audio=lambda x: x[:16000]), "too short"),
        (_changed(landmarks=lambda x: np.full_like(x, np.nan)), "face was found in 0%"),
        (_changed(landmarks=lambda x: np.zeros_like(x)), "face was found in 0%"),
        (_changed(landmarks=lambda x: np.where(np.arange(100)[:, None, None] < 60, np.nan, x)), "face was found in"),
        (_changed(audio=lambda x: np.stack([x, x])), "mono"),
        (_changed(audio=lambda x: np.where(np.arange(len(x)) == 9, np.nan, x)), "not numbers"),
        (_changed(audio=lambda x: 0 * x), "silent"),
        (_changed(audio=lambda x: x[:0]), "silent"),
        (_changed(fps=0.0), "frames per second"),
        (_changed(fps=float("nan")), "frames per second"),
    ],
)
def test_what_cannot_be_judged_is_refused(judge: SyncJudge, clip: Clip, message: str) -> None:
    with pytest.raises(AvatarError, match=message):
        judge.score(clip.landmarks, clip.audio, clip.fps)


def test_a_face_at_rest_has_no_motion_however_it_is_turned() -> None:
    shape = load_tensors(WEIGHTS)[0]["shape"].numpy()
    rng = np.random.default_rng(0)
    axes = rng.normal(0, 1, (8, 3, 2)) + 20 * np.eye(3, 2)
    motion, seen = mouth_motion(shape @ axes + rng.normal(0, 50, (8, 1, 2)), shape)
    assert seen.all() and np.abs(motion).max() < 1e-6


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "avatar-model"})
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name, message in (("other", "not a sync judge"), ("broken", "cannot be read"), ("none", "does not exist")):
        with pytest.raises(AvatarError, match=message):
            SyncJudge.load(tmp_path / f"{name}.safetensors")


def test_the_package_holds_small_weights() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000


# --- training and evaluation --------------------------------------------------------------------------------------


def babble(seconds: float, seed: int) -> Recording:
    """A mouth whose every channel follows its own bands of the sound."""
    rng = np.random.default_rng(seed)
    windows = round(seconds * 25)
    steps = np.convolve(rng.standard_normal(windows * ROWS + 8), np.ones(9) / 3, "valid")
    turns = np.convolve(rng.standard_normal(windows * ROWS + 8), np.ones(9) / 3, "valid")
    bands = np.linspace(-1, 1, BANDS)
    mel = 0.4 * (steps[:, None] * bands + turns[:, None] * (1 - 2 * bands**2))
    signals = np.stack([steps, turns]).reshape(2, windows, ROWS).mean(-1)
    motion = (np.random.default_rng(0).normal(0, 0.2, (len(CHANNELS), 2)) @ signals).T
    return Recording(motion=motion.astype(np.float32), mel=mel.astype(np.float32))


@torch.no_grad()
def curve(net: SyncNet, recording: Recording) -> list[float]:
    mouth = net.mouth(torch.from_numpy(recording.motion)[None])[0]
    sound = net.audio(torch.from_numpy(recording.mel)[None])[0]
    return [float(torch.diagonal(mouth @ sound.mT, k).mean()) for k in range(-REACH, REACH + 1)]


def test_training_learns_what_belongs_together_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_training, "_BATCH", 4)
    source = [(1.0, [babble(30, seed) for seed in range(3)])]
    net = sync_training.train(source, 25)
    assert int(np.argmax(curve(net, babble(20, 9)))) == REACH
    again = sync_training.train(source, 2), sync_training.train(source, 2)
    assert all(torch.equal(a, b) for a, b in zip(again[0].parameters(), again[1].parameters(), strict=True))
    sync_training.save(tmp_path / "judge.safetensors", net, np.zeros((478, 3)), {"steps": 25})
    assert isinstance(SyncJudge.load(tmp_path / "judge.safetensors"), SyncJudge)


def test_training_refuses_recordings_that_are_too_short() -> None:
    with pytest.raises(AvatarError, match="Join short ones"):
        sync_training.train([(1.0, [babble(3, 0)])], 1)


def test_the_loss_is_least_where_mouth_and_sound_agree() -> None:
    rng = torch.Generator().manual_seed(0)
    sound = torch.nn.functional.normalize(torch.randn(4, 130, 32, generator=rng), dim=-1)
    scale = torch.full((3,), 10.0)
    losses = {k: float(sync_training.contrast(sound[:, REACH + k :][:, :100], sound, scale)) for k in (-4, 0, 4)}
    assert losses[0] < 0.5 * min(losses[-4], losses[4])


def test_variation_of_the_sound_keeps_its_size() -> None:
    mel = torch.from_numpy(babble(6, 0).mel)[None].repeat(5, 1, 1)
    varied = sync_training.vary_audio(mel, np.random.default_rng(0))
    assert varied.shape == mel.shape and bool(torch.isfinite(varied).all())
    assert not torch.equal(varied[0], varied[1])


class ClockJudge:
    """Reads the true offset: landmarks and sound carry the time at which they were recorded."""

    def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> SyncScore:
        seconds = float(np.median(audio[audio != 0] * 1000 - np.flatnonzero(audio) / 16000)) - landmarks[0, 0, 0]
        confidence = 1.0 if abs(seconds) < 1 else 0.0
        return SyncScore(confidence=confidence, audio_delay_s=-seconds, distance=1 - confidence)


def test_the_evaluation_of_a_perfect_judge_is_perfect() -> None:
    def video(seconds: float, begin: float) -> Track:
        at = np.zeros((round(seconds * 25), 478, 2), np.float32)
        at[:, 0, 0] = begin + np.arange(len(at)) / 25
        tone = np.where(np.arange(round(seconds * 16000)) % 2, 1, 0)
        audio = (begin + np.arange(len(tone)) / 16000) / 1000 * tone
        return Track(landmarks=at, arkit=np.zeros((len(at), 52)), audio=audio, fps=25.0)

    videos = {"a": video(14, 100), "b": video(10, 200), "short": video(2.5, 300), "tiny": video(1, 400)}
    clips = sync_evaluation.judge_clips(ClockJudge(), videos, 4.0)  # type: ignore[arg-type]
    found = sync_evaluation.summary(clips, {"a": 0.0, "b": 0.08})
    assert found["clips"] == 6 + 4 + 1
    assert (
        found["agrees_with_video"]
        == found["follows_shift"]
        == found["auc"]
        == found["auc_confidence"]
        == found["accuracy"]
        == 1
    )
    assert found["known_delay"] == {"a": 1, "b": 0}
    assert sync_evaluation.summary([])["auc"] is None


def test_the_area_under_the_curve() -> None:
    assert sync_evaluation.auc([2, 3], [1, 2]) == 0.875
    assert sync_evaluation.auc([], [1]) is None


def test_a_network_of_another_size_survives_saving(tmp_path: Path) -> None:
    net = SyncNet(width=8, embedding=4, mouth_kernels=(3,), audio_kernels=(3, 3))
    sync_training.save(tmp_path / "small.safetensors", net, np.zeros((478, 3)), {})
    SyncJudge.load(tmp_path / "small.safetensors")


def test_a_video_is_tracked_with_its_sound(tmp_path):
    from avatar.io.audio import SAMPLE_RATE, write_wav
    from avatar.io.video_writer import VideoWriter

    class Fake:
        def track(self, image):
            return np.full((478, 2), float(image.mean()), np.float32), np.zeros(52, np.float32)

    write_wav(tmp_path / "a.wav", np.zeros(SAMPLE_RATE, np.float32))
    with VideoWriter(tmp_path / "v.mp4", 64, 64, 25.0, tmp_path / "a.wav", 0.0) as writer:
        for level in range(0, 250, 10):
            writer.write(np.full((64, 64, 3), level, np.uint8))
    track = track_video(tmp_path / "v.mp4", Fake(), tmp_path / "kept")
    assert track.landmarks.shape == (25, 478, 2) and track.arkit.shape == (25, 52) and track.fps == 25
    assert np.all(np.diff(track.landmarks[:, 0, 0]) > 5) and abs(len(track.audio) / SAMPLE_RATE - 1) < 0.1
    (tmp_path / "v.mp4").rename(tmp_path / "other.mp4")
    again = track_video(tmp_path / "other.mp4", None, tmp_path / "kept")  # type: ignore[arg-type]
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(track).items())
