"""The shared prior: a mouth without its person and back, speech of any chunk size, adaptation, files, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.assets import store as assets
from avatar.audio.encoders import whisper
from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.mel import MelEncoder
from avatar.audio2motion.base import drive, motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.load import SHARED, STREAMING, load_shared, load_speech, load_streaming
from avatar.audio2motion.shared import SharedPrior, SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt
from avatar.audio2motion.shared_training import Recording, fit
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, chunked
from avatar.io.checkpoint import save_tensors
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.motion.mouth import (
    ARTICULATION,
    FACE,
    GEOMETRY,
    OPENING,
    MouthNormalizer,
    articulation,
    mouth_channels,
    opening_weights,
    with_mouth,
)

FRAMES = 500
needs_whisper = pytest.mark.skipif(not assets.available("whisper_front"), reason="the asset whisper_front is not here")


def opened(motion: Motion) -> np.ndarray:
    return motion.face[:, FACE].numpy() @ opening_weights()


def talking(amount: float = 1.0, seed: int = 0, fps: float = 25.0) -> Motion:
    """A mouth that opens and shuts by ``amount``, with the jaw, and a slow smile."""
    rng = np.random.default_rng(seed)
    swing = np.convolve(rng.standard_normal(FRAMES + 8), np.ones(9) / 9, "valid") * 3
    move = torch.from_numpy(swing[:, None] * np.sign(opening_weights()) * 0.05 * amount).float()
    base = Motion.zeros(FRAMES, fps)
    face, coefficients = base.face.clone(), base.arkit.clone()
    face[:, FACE] = move + 0.002 * torch.randn(move.shape, generator=torch.Generator().manual_seed(seed)) + 0.1
    coefficients[:, INDEX["jawOpen"]] = torch.from_numpy(0.3 + 0.1 * amount * swing).float().clamp(0, 1)
    return base.map(face=face, arkit=coefficients)


def voice(seconds: float = 20.0, seed: int = 0) -> np.ndarray:
    """Bursts of a buzz, between silences."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    loud = np.repeat(rng.random(int(seconds * 5) + 1) > 0.4, SAMPLE_RATE // 5)[: len(time)]
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    return (0.1 * loud * buzz).astype(np.float32)


def some_prior() -> SharedPrior:
    """A prior that nobody trained; hears by mel bands, so that it needs no asset."""
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 8, generator=random))[0]
    weights = 0.1 * torch.randn(8 * 8 + 1, len(ARTICULATION), generator=random)
    encoder = SpeechEncoder([MelEncoder(40)])
    return SharedPrior(encoder, torch.ones(40), torch.full((40,), 0.5), basis, weights, 5, 2, 1.0, {"id": "test"})


@pytest.fixture(scope="module")
def prior() -> SharedPrior:
    return some_prior()


def test_a_mouth_comes_back_from_its_articulation():
    motion = talking()
    person = MouthNormalizer.of(motion)
    z = person.normalise(mouth_channels(motion))
    assert np.abs(z.std(0)[OPENING] - 1) < 0.1
    back = with_mouth(person.restore(torch.from_numpy(z)), 25.0)
    assert np.corrcoef(opened(back), opened(motion))[0, 1] > 0.99
    assert abs(opened(back).std() / opened(motion).std() - 1) < 0.1


def test_people_who_move_more_or_less_are_the_same_without_themselves():
    quiet, lively = talking(0.5), talking(2.0)
    a = MouthNormalizer.of(quiet).normalise(mouth_channels(quiet))
    b = MouthNormalizer.of(lively).normalise(mouth_channels(lively))
    assert np.corrcoef(a[:, OPENING], b[:, OPENING])[0, 1] > 0.95
    assert abs(a[:, OPENING].std() - b[:, OPENING].std()) < 0.05


def test_articulation_is_the_same_in_the_mirror():
    channels = np.zeros((2, mouth_channels(talking()).shape[1]), np.float32)
    names = [*GEOMETRY, "jawOpen", "mouthSmile"]
    motion = with_mouth(torch.from_numpy(channels), 25.0)
    coefficients = motion.arkit.clone()
    coefficients[0, INDEX["mouthSmileLeft"]] = 0.5
    coefficients[1, INDEX["mouthSmileRight"]] = 0.5
    values = articulation(mouth_channels(motion.map(arkit=coefficients)))
    assert np.allclose(values[0], values[1])
    assert values[0, ARTICULATION.index("mouthSmile")] == pytest.approx(0.25)
    assert set(names) <= set(ARTICULATION)


def test_too_short_a_track_is_refused():
    motion = talking()
    with pytest.raises(AvatarError, match="Less than a second"):
        MouthNormalizer.of(motion.map(valid=torch.zeros(FRAMES, dtype=torch.bool)))


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_speech_is_the_same_for_any_chunk_size(prior: SharedPrior, fps: float):
    speech = prior.person(talking(), fps)
    samples = voice(3.3)
    whole = motion_of(speech, samples)
    pieces = Motion.cat(list(drive(speech, chunked(samples, 777))))
    assert len(whole) == len(pieces) == int(np.ceil(3.3 * fps - 1e-6))
    assert torch.allclose(whole.face, pieces.face, atol=1e-5)
    assert float(whole.face.std()) > 0.01


def test_lips_rest_in_silence(prior: SharedPrior):
    speech = prior.person(talking(), 25.0)
    silent = motion_of(speech, np.zeros(5 * SAMPLE_RATE, np.float32))
    assert torch.allclose(silent.face[:, FACE], speech.rest[: len(FACE)].expand(len(silent), -1), atol=1e-5)
    assert opened(silent).max() <= np.quantile(opened(talking()), 0.1) + 1e-3


def test_the_range_is_the_persons(prior: SharedPrior):
    samples = voice()
    quiet, lively = (opened(motion_of(prior.person(talking(a), 25.0), samples)).std() for a in (0.5, 2.0))
    assert 3 < lively / quiet < 5


def spoken_by(prior: SharedPrior, samples: np.ndarray) -> Motion:
    """A person whose mouth does what is heard, in a way of their own."""
    speech = prior.person(talking(), 25.0)
    way = 0.05 * torch.randn(len(prior.weights), len(speech.rest), generator=torch.Generator().manual_seed(1))
    return motion_of(dataclasses.replace(speech, correction=way), samples)


def test_adapting_learns_the_persons_own_way(prior: SharedPrior):
    samples, new = voice(20.0), voice(10.0, seed=1)
    before = prior.person(talking(), 25.0)
    after = adapt(before, spoken_by(prior, samples), samples)
    truth = spoken_by(prior, new).face
    errors = [float((motion_of(speech, new).face - truth).square().mean()) for speech in (before, after)]
    assert errors[1] < 0.05 * errors[0]
    assert after.report["error"] < 0.1


def test_half_of_what_is_learnt_comes_from_a_teacher(prior: SharedPrior):
    samples, new = voice(20.0), voice(4.0, seed=1)
    before, track = prior.person(talking(), 25.0), spoken_by(prior, samples)
    jaw = torch.zeros_like(track.face)
    jaw[:, CHANNEL_INDEX["jaw_y"]] = 0.2
    straight, teacher = (adapt(before, motion, samples) for motion in (track, track.map(face=track.face + jaw)))
    taught = adapt(before, track, samples, teacher=teacher)
    said = [motion_of(speech, new).face[:, CHANNEL_INDEX["jaw_y"]] for speech in (straight, taught, teacher)]
    speaking = said[2] - said[0] > 0.15  # lips are at rest elsewhere
    low, middle, high = (float(jaw[speaking].mean()) for jaw in said)
    assert speaking.sum() > 25 and middle == pytest.approx((low + high) / 2, abs=0.02)


@pytest.mark.parametrize("late", [5, -3])
def test_adapting_takes_the_offset_out(prior: SharedPrior, late: int):
    samples, frame = voice(20.0), SAMPLE_RATE // 25
    samples[: 3 * frame] = 0  # that nothing is lost where the sound begins before the picture
    moved = np.pad(samples, (late * frame, 0)) if late > 0 else samples[-late * frame :]
    track, before = spoken_by(prior, samples), prior.person(talking(), 25.0)
    straight, shifted = adapt(before, track, samples), adapt(before, track, moved, late / 25)
    new = voice(4.0, seed=1)
    torch.testing.assert_close(motion_of(shifted, new).face, motion_of(straight, new).face, atol=0.02, rtol=0)
    assert float((motion_of(adapt(before, track, moved), new).face - motion_of(straight, new).face).abs().max()) > 0.1


def test_adapting_to_a_mouth_that_does_not_follow_the_sound_changes_nothing(prior: SharedPrior):
    before, new = prior.person(talking(), 25.0), voice(20.0, seed=3)
    after = adapt(before, talking(seed=5), voice())
    assert not after.corrected and (after.pause, after.voice_db) == (before.pause, before.voice_db)
    assert torch.equal(motion_of(after, new).face, motion_of(before, new).face)


def test_files_come_back(prior: SharedPrior, tmp_path: Path):
    samples = voice(3.0)
    speech = adapt(prior.person(talking(), 30.0), talking(), voice())
    speech.save(tmp_path / SHARED)
    again = load_shared(tmp_path, 30.0)
    assert isinstance(again, SharedSpeech) and again.fps == 30.0 and again.prior.about == {"id": "test"}
    assert torch.allclose(motion_of(again, samples).face, motion_of(speech, samples).face, atol=2e-2)
    prior.save(tmp_path / "mine.safetensors")
    assert SharedPrior.load(tmp_path / "mine.safetensors").about == {"id": "test"}


def test_wrong_files_are_refused(tmp_path: Path):
    with pytest.raises(AvatarError, match="does not exist"):
        SharedPrior.load(tmp_path / "none.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "other"})
    with pytest.raises(AvatarError, match="not an audio-to-motion prior"):
        SharedPrior.load(tmp_path / "other.safetensors")


class _Clock(torch.nn.Module):
    """Stands in for the network: each of its rows is the sample in its middle."""

    width = 64

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return samples[:, 160::320, None].expand(-1, -1, 64)


def streamed(encoder: whisper.WhisperEncoder, samples: np.ndarray, size: int) -> np.ndarray:
    stream = encoder.open()
    return np.concatenate([*(stream.push(piece) for piece in chunked(samples, size)), stream.finish()])


def test_short_windows_give_rows_of_the_right_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whisper, "_stem", _Clock)
    encoder = whisper.WhisperEncoder(hop=0.08, ahead=0.04)
    ramp = np.arange(3 * SAMPLE_RATE + 100, dtype=np.float32) / SAMPLE_RATE  # says what time it is
    rows = streamed(encoder, ramp, 1234)
    assert rows.shape == (76, 128)
    times = np.arange(76) / 25
    assert np.abs(rows[5:70, [0, 64]].mean(1) - times[5:70]).max() < 1e-4
    assert np.array_equal(rows, streamed(encoder, ramp, len(ramp)))


def test_two_networks_encode_a_window_once(monkeypatch: pytest.MonkeyPatch):
    """The personal network takes rows of the middle, the shared one later ones, of the same windows."""

    class Counting(_Clock):
        count = 0

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return super().forward(samples)

    stem = Counting()
    monkeypatch.setattr(whisper, "_stem", lambda: stem)
    ramp = np.arange(10 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    streams = [whisper.WhisperEncoder(ahead=ahead).open() for ahead in (0.2, 0.6)]
    pushed = [np.concatenate([stream.push(ramp), stream.finish()]) for stream in streams]
    assert pushed[0].shape == pushed[1].shape and stem.count <= 10 / 0.4 + 2  # and two for the end
    assert np.array_equal(streamed(whisper.WhisperEncoder(), ramp.astype(np.float64), 1234), pushed[1])


@needs_whisper
def test_a_run_without_sound_speaks_by_the_shipped_prior(tmp_path: Path):
    talking().save(tmp_path / "motion.safetensors")
    motion = motion_of(load_shared(tmp_path, 25.0), voice(4.0))
    assert len(motion) == 100
    assert opened(motion).std() > 0.1 * opened(talking()).std()


def waited(speech: SharedSpeech, samples: np.ndarray, size: int) -> np.ndarray:
    """Seconds of audio after the time of each frame that were pushed before it came out; the end is left out."""
    stream, pushed = speech.open(), 0
    late: list[float] = []
    for chunk in chunked(samples, size):
        pushed += len(chunk)
        count = len(stream.push(chunk))
        late += [pushed / SAMPLE_RATE - (len(late) + i) / speech.fps for i in range(count)]
    return np.array(late)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 60.0])
def test_live_speech_waits_for_no_more_than_a_fifth_of_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float
):
    monkeypatch.setattr(whisper, "_stem", _Clock)
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(128, 8, generator=random))[0].contiguous()  # as a file gives it
    weights = 0.1 * torch.randn(8 * 8 + 1, len(ARTICULATION), generator=random)
    encoder = SpeechEncoder([whisper.WhisperEncoder(ahead=0.2)])
    whole = SharedPrior(encoder, torch.ones(128), torch.ones(128), basis, weights, 5, 2, 1.0)
    live = whole.streaming().person(talking(), fps)
    samples = voice(2.0)
    enough = samples[: round(1.25 * SAMPLE_RATE)]  # frames, rows and chunks meet again after a second at most
    late = waited(live, enough, 40)
    assert len(late) > 1.0 * fps
    assert late.max() <= 0.2 + 1e-6
    assert waited(live, samples[: SAMPLE_RATE // 2], 16).max() <= 0.2 + 16 / SAMPLE_RATE
    assert waited(live, enough, 320).max() <= 0.22 + 1e-6  # a microphone's chunks of 20 ms
    adapted = adapt(live, talking(), samples)
    adapted.save(tmp_path / STREAMING)
    for run in (load_streaming(tmp_path, fps), whole.person(talking(), fps).streaming()):
        assert waited(run, enough, 320).max() <= 0.22 + 1e-6
    assert load_speech(tmp_path, fps, "streaming").look_ahead < 0.203
    again = motion_of(load_streaming(tmp_path, fps), samples)
    torch.testing.assert_close(again.face, motion_of(adapted, samples).face)
    offline = whole.person(talking(), fps)
    longest = waited(offline, samples, 320).max()
    assert offline.look_ahead - 0.13 < longest <= offline.look_ahead + 320 / SAMPLE_RATE


class _Steps:
    """Says the number of the frame, times ``factor``, in blocks of ``size`` frames."""

    look_ahead = 0.0

    def __init__(self, factor: float, size: int, fps: float = 25.0) -> None:
        self.factor, self.size, self.fps = factor, size, fps

    def open(self) -> _StepsStream:
        return _StepsStream(self)


class _StepsStream:
    def __init__(self, steps: _Steps) -> None:
        self._steps, self._samples, self._done = steps, 0, 0

    def push(self, samples: np.ndarray) -> Motion:
        self._samples += len(samples)
        ready = int(self._samples / SAMPLE_RATE * self._steps.fps) - self._done
        return self._frames(ready - ready % self._steps.size)

    def finish(self) -> Motion:
        return self._frames(int(self._samples / SAMPLE_RATE * self._steps.fps) - self._done)

    def _frames(self, count: int) -> Motion:
        numbers = self._steps.factor * torch.arange(self._done, self._done + count).float()[:, None]
        self._done += count
        base = Motion.zeros(count, self._steps.fps)
        return base.map(face=numbers.expand(-1, 38), arkit=numbers.expand(-1, 52))


def test_together_they_say_the_mean_however_each_is_cut():
    both = Ensemble([_Steps(1.0, 7), _Steps(3.0, 40)])
    motion = Motion.cat(list(drive(both, chunked(np.zeros(4 * SAMPLE_RATE, np.float32), 900))))
    assert torch.equal(motion.face[:, 0], 2 * torch.arange(100).float())
    assert torch.equal(motion.arkit[:, 5], 2 * torch.arange(100).float())
    with pytest.raises(AvatarError, match="one frame rate"):
        Ensemble([_Steps(1.0, 7), _Steps(1.0, 7, 30.0)])


def test_training_finds_what_moves_the_mouth_of_everybody():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((40, len(ARTICULATION))).astype(np.float32)

    def recorded(extra: float) -> Recording:
        features = rng.standard_normal((800, 40)).astype(np.float32)
        return Recording(features, (features @ truth + extra * rng.standard_normal((800, 1))).astype(np.float32) / 6)

    shares = {"": {"a": 1.0}, "mouthPucker": {"a": 0.5, "b": 0.5}}
    prior = fit({"a": [recorded(0)], "b": [recorded(1)]}, shares, SpeechEncoder([MelEncoder(40)]), {"id": "x"})
    new = recorded(0)
    said = (prior.inputs(new.features) @ prior.weights).numpy()
    assert all(np.corrcoef(a, b)[0, 1] > 0.95 for a, b in zip(said.T, new.target.T, strict=True))
    with pytest.raises(AvatarError, match="no recording"):
        fit({"a": []}, shares, SpeechEncoder([MelEncoder(40)]), {})
