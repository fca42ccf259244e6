"""Speech to lips of one person, the gate that shuts the lips, and the head pose that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio.features import features_at
from avatar.audio.vad import VoiceActivityDetector
from avatar.audio2motion import personal_training
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.personal_training import train_personal
from avatar.errors import AvatarError
from avatar.headmotion.loop import _smoothed, pose_track
from avatar.io.audio import chunked, write_wav
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, NUM_LANDMARKS, encode
from avatar.motion.mouth import FACE, opening_weights
from tests.person import person_info

FPS = 25.0
SECONDS = 40
FRAMES = round(SECONDS * FPS)


def voice_and_mouth(seed: int = 0, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """A voice whose pitch band follows the mouth [N], and how far the mouth is open [T] in centimetres."""
    rng = np.random.default_rng(seed)
    opening = np.zeros(frames)
    time = 10
    while time < frames - 12:
        length = int(rng.integers(4, 9))
        opening[time : time + length] += rng.uniform(0.3, 1) * np.sin(np.pi * np.arange(length) / length)
        time += length + int(rng.choice([0, 1, 20], p=[0.6, 0.3, 0.1]))
    fine = np.interp(np.arange(round(frames / FPS * 16000)) / 16000 * FPS, np.arange(frames), opening)
    phase = np.cumsum(300 + 1500 * fine) / 16000 * 2 * np.pi
    voice = 0.2 * (fine > 0.02) * np.sin(phase) + 5e-4 * rng.standard_normal(len(fine))
    return voice.astype(np.float32), opening


def track_of(opening: np.ndarray) -> Motion:
    displacement = np.zeros((len(opening), NUM_LANDMARKS, 3), np.float32)
    displacement[:, LIPS_INNER[1:10], 1] = opening[:, None]
    noise = 0.02 * torch.randn(len(opening), 1, generator=torch.Generator().manual_seed(0))
    base = Motion.zeros(len(opening), FPS)
    arkit = base.arkit.clone()
    arkit[:, INDEX["jawOpen"]] = torch.from_numpy(opening).float() * 0.6
    return base.map(face=torch.from_numpy(encode(displacement)) + noise, arkit=arkit)


def opening_of(motion: Motion) -> np.ndarray:
    return motion.face[:, FACE].numpy() @ opening_weights()


@pytest.fixture(scope="module", autouse=True)
def few_members() -> Iterator[None]:
    """What is asked here, an ensemble of three does as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal_training, "MEMBERS", 3)
        yield


@pytest.fixture(scope="module")
def speech() -> PersonalSpeech:
    voice, opening = voice_and_mouth()
    return train_personal(track_of(opening), voice, speech_encoder("mel"), steps=120, progress=lambda done, total: None)


def test_opening_weights_measure_the_gap_of_the_inner_lips() -> None:
    opening = np.linspace(0, 1, 11)
    displacement = np.zeros((11, NUM_LANDMARKS, 3), np.float32)
    half = len(LIPS_INNER) // 2
    for i, vertex in enumerate(LIPS_INNER):  # a lens: what the basis can express
        sign = 1 if i < half else -1
        displacement[:, vertex, 1] = sign * opening / 2 * abs(np.sin(2 * np.pi * i / len(LIPS_INNER)))
    gap = encode(displacement)[:, FACE] @ opening_weights()
    assert np.corrcoef(gap, opening)[0, 1] > 0.999 and gap[-1] == pytest.approx(0.95, abs=0.1)


def test_lips_follow_speech_not_heard_before(speech: PersonalSpeech) -> None:
    voice, opening = voice_and_mouth(seed=7)
    predicted = opening_of(motion_of(speech, voice))
    lags = [np.corrcoef(np.roll(predicted, lag), opening)[0, 1] for lag in range(-3, 4)]
    assert int(np.argmax(lags)) - 3 == 0 and max(lags) > 0.95
    assert 0.8 < predicted.std() / opening.std() < 1.2  # as lively as the person


def test_the_report_is_of_unseen_parts(speech: PersonalSpeech) -> None:
    assert 0.95 < speech.report["opening_correlation"] < 1


@pytest.mark.parametrize("kind", ["nothing", "hiss", "hum"])
def test_silence_and_noise_leave_the_lips_closed(speech: PersonalSpeech, kind: str) -> None:
    talking = opening_of(motion_of(speech, voice_and_mouth(seed=7)[0])).std()
    time = np.arange(8 * 16000) / 16000
    sound = {
        "nothing": np.zeros(len(time), np.float32),
        "hiss": (3e-4 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32),
        "hum": (5e-4 * np.sin(2 * np.pi * 50 * time)).astype(np.float32),
    }[kind]
    opening = opening_of(motion_of(speech, sound))
    assert opening.std() < 0.03 * talking
    assert opening.max() < 0.05  # centimetres: closed


def test_lips_close_in_a_silence_between_words(speech: PersonalSpeech) -> None:
    voice = voice_and_mouth(seed=7)[0].copy()
    voice[10 * 16000 : 13 * 16000] = 0
    opening = opening_of(motion_of(speech, voice))
    assert np.abs(opening[round(10.5 * FPS) : round(12.8 * FPS)]).max() < 0.05
    assert opening[: round(9.5 * FPS)].max() > 0.3 and opening[round(13.5 * FPS) :].max() > 0.3


def test_streaming_in_any_pieces_equals_the_whole(speech: PersonalSpeech) -> None:
    voice = voice_and_mouth(seed=7)[0][: 20 * 16000]
    whole = motion_of(speech, voice)
    assert len(whole) == 500
    for size in (4000, len(voice)):
        stream = speech.open()
        blocks = [*(stream.push(piece) for piece in chunked(voice, size)), stream.finish()]
        assert torch.allclose(Motion.cat(blocks).face, whole.face, atol=1e-6)
    features = features_at(speech.encoder, voice, FPS)
    assert torch.allclose(speech.predict(features.features, features.energy).face, whole.face, atol=1e-6)


def test_frames_come_out_as_soon_as_their_look_ahead_is_there(speech: PersonalSpeech) -> None:
    stream, piece, done, longest = speech.open(), 160, 0, 0.0
    rng = np.random.default_rng(0)
    for end in range(piece, 6 * 16000, piece):
        count = len(stream.push(0.1 * rng.standard_normal(piece).astype(np.float32)))
        if count:
            longest = max(longest, end / 16000 - done / FPS)
        done += count
    assert done > 3 * FPS
    assert speech.look_ahead - 0.1 < longest <= speech.look_ahead + piece / 16000


def test_the_networks_run_once_over_all_new_frames(speech: PersonalSpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = type(speech.members[0]).forward
    monkeypatch.setattr(
        type(speech.members[0]), "forward", lambda self, x: calls.append(x.shape[1]) or forward(self, x)
    )
    stream = speech.open()
    for piece in chunked(voice_and_mouth(seed=7)[0][: 10 * 16000]):  # a second each
        stream.push(piece)
    assert len(calls) <= 9 * len(speech.members) and max(calls) >= 25


def test_saved_and_loaded_it_says_the_same(speech: PersonalSpeech, tmp_path: Path) -> None:
    speech.save(tmp_path / "speech.safetensors")
    again = PersonalSpeech.load(tmp_path / "speech.safetensors")
    voice = voice_and_mouth(seed=7)[0][:48000]
    assert torch.equal(motion_of(again, voice).face, motion_of(speech, voice).face)
    assert (again.report, again.pause, again.fps) == (speech.report, speech.pause, FPS)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "speech.safetensors").write_bytes(content)
    with pytest.raises(AvatarError, match=r"speech\.safetensors"):
        PersonalSpeech.load(tmp_path / "speech.safetensors")


def person(folder: Path, change: Callable[[Motion], Motion] = lambda m: m, frames: int = FRAMES) -> Path:
    voice, opening = voice_and_mouth(frames=frames)
    write_wav(folder / "ingest" / "audio.wav", voice)
    for name in ("pose", "."):
        change(track_of(opening)).save(folder / name / "motion.safetensors")
    person_info(num_frames=frames, test_start=round(0.9 * frames)).write(folder / "person.json")
    return folder


def test_held_out_frames_change_nothing_and_the_seed_decides() -> None:
    def scrambled(motion: Motion) -> Motion:
        face = motion.face.clone()
        face[360:] = 5
        return motion.map(face=face)

    voice, opening = voice_and_mouth(frames=400)
    quiet = {"steps": 3, "progress": lambda done, total: None}

    def weight(motion: Motion, seed: int) -> torch.Tensor:
        network = train_personal(motion[:360], voice, speech_encoder("mel"), seed=seed, **quiet)
        return network.members[0].enter.weight

    first, second = weight(track_of(opening), 1), weight(scrambled(track_of(opening)), 1)
    assert torch.equal(first, second) and not torch.equal(first, weight(track_of(opening), 2))


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_sound_that_is_late_is_heard_in_step(speed: float) -> None:
    voice, opening = voice_and_mouth()
    late = np.pad(voice, (5 * 640, 0))
    targets, valid = opening[:, None], np.ones(FRAMES, bool)
    straight, shifted = (
        personal_training._copy(
            personal_training._Track(sound, speech_encoder("mel"), FPS, offset, targets, valid), speed
        )
        for sound, offset in ((voice, 0.0), (late, 5.0))
    )
    assert np.corrcoef(straight.energy[10:-10], shifted.energy[10:-10])[0, 1] > 0.99
    assert np.array_equal(straight.targets, shifted.targets)


def test_too_little_tracked_face_is_refused() -> None:
    voice, opening = voice_and_mouth()
    motion = track_of(opening)
    with pytest.raises(AvatarError, match="Less than 3 s"):
        train_personal(motion.map(valid=torch.arange(len(motion)) < 20), voice, speech_encoder("mel"))


def test_the_gate_bridges_stops_and_shuts_in_pauses() -> None:
    energy = np.full(200, -70.0)
    energy[50:100] = -20 + 5 * np.sin(np.arange(50))
    energy[70:72] = -65  # a stop
    energy[100:120] = -45  # the room, then silence

    def gated(pause: float) -> np.ndarray:
        gate = VoiceActivityDetector(FPS, pause)
        return np.concatenate([rows.gate for rows in (gate.push(energy), gate.finish())])

    opens = gated(0.1)
    assert opens[:45].max() == 0 and opens[50] > 0.5 and opens[53:100].min() == 1
    assert opens[102] > 0 and opens[110:].max() == 0  # held for a tenth of a second, shut in three
    patient = gated(1.0)
    assert patient[100:120].min() == 1  # a pause with the room in it ...
    assert patient[128:].max() == 0  # ... but not silence


def head(frames: int = 1000) -> tuple[Motion, list[tuple[int, int]]]:
    """A swaying head with a blink every three seconds, cut in the middle, where it jumps."""
    time = torch.arange(frames) / FPS
    base = Motion.zeros(frames, FPS)
    rotation = torch.stack([0.05 * torch.sin(1.3 * time), 0.1 * torch.sin(0.7 * time), 0.02 * torch.sin(2 * time)], 1)
    rotation[frames // 2 :] += 0.1
    arkit = base.arkit.clone()
    for start in range(30, frames - 10, 75):
        arkit[start : start + 4, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 0.9
    face = base.face.clone()
    face[:, CHANNEL_INDEX["eye_left_open"]] = -0.5 * arkit[:, INDEX["eyeBlinkLeft"]]
    track = base.map(head_rotation=rotation, arkit=arkit, face=face)
    return track, [(0, frames // 2), (frames // 2, frames)]


def blinks_per_minute(motion: Motion) -> float:
    closed = (motion.arkit[:, INDEX["eyeBlinkLeft"]] > 0.4).int()
    return float((closed.diff() == 1).sum()) / (len(motion) / motion.fps / 60)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_own_pose_goes_on_without_jumps_and_with_own_blinks(fps: float) -> None:
    train, segments = head()
    track = pose_track(train, segments, 20000, fps, "own", seed=3)
    own_speed = train[:500].head_rotation.diff(dim=0).norm(dim=1).max() * FPS
    assert len(track) == 20000 and track.fps == fps
    assert track.head_rotation.diff(dim=0).norm(dim=1).max() * fps < 2 * own_speed  # at the cut: 40 times
    assert 12 < blinks_per_minute(track) < 28  # own: 20
    assert track.head_rotation.std(0)[1] > 0.5 * train.head_rotation.std(0)[1]  # it moves


def test_own_pose_is_repeatable_and_not_periodic() -> None:
    train, segments = head()
    a, b, c = (pose_track(train, segments, 5000, FPS, "own", seed=s) for s in (0, 0, 1))
    assert torch.equal(a.head_rotation, b.head_rotation) and not torch.equal(a.head_rotation, c.head_rotation)


@pytest.mark.parametrize("mode", ["own", "still"])
def test_a_pose_is_the_same_however_long_it_goes_on(mode: str) -> None:
    train, segments = head()
    short, long = (pose_track(train, segments, frames, FPS, mode, seed=2) for frames in (333, 3000))
    assert len(short) == 333
    for name in ("head_rotation", "torso_rotation", "arkit", "face", "gaze"):
        torch.testing.assert_close(getattr(short, name), getattr(long, name)[:333], rtol=0, atol=0)


@pytest.mark.parametrize("frames", [1, 2, 9, 300])
def test_places_are_smoothed_as_scipy_does_it(frames: int) -> None:
    places = np.random.default_rng(frames).normal(scale=20, size=(frames, 3)).astype(np.float32)
    smooth = _smoothed(places)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth, gaussian_filter1d(places, 2, axis=0), rtol=1e-6, atol=1e-6)


def test_still_pose_only_blinks() -> None:
    train, segments = head()
    track = pose_track(train, segments, 20000, FPS, "still")
    assert float(track.head_rotation.std(0).max()) < 1e-6
    assert torch.allclose(track.head_rotation[0], train.head_rotation.mean(0), atol=0.02)
    assert 10 < blinks_per_minute(track) < 30
    lid = CHANNEL_INDEX["eye_left_open"]
    assert float(track.face[:, lid].min()) < -0.3  # lids go with the blendshape


@pytest.mark.parametrize("segments", [[(0, 3)], [(i, i + 10) for i in range(0, 100, 10)], [(0, 1)]])
def test_pose_from_hardly_any_footage(segments: list[tuple[int, int]]) -> None:
    train = head()[0][: segments[-1][1]]
    track = pose_track(train, segments, 333, FPS, "own")
    assert len(track) == 333 and bool(torch.isfinite(track.head_rotation).all())


def test_unknown_pose_is_one_sentence() -> None:
    with pytest.raises(AvatarError, match="no head pose 'dance'"):
        pose_track(*head(), 10, FPS, "dance")
