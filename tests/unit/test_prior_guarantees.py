"""What the prior guarantees whatever it hears: lips that meet, rest in silence and noise, bounded memory, errors."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio.encoders.mel import MelEncoder
from avatar.audio.vad import VoiceActivityDetector
from avatar.audio2motion.base import drive, motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.lip_closure import LipClosure, fit_bilabial_closure
from avatar.audio2motion.pauses import choose_pause
from avatar.audio2motion.shared import SharedPrior, SharedSpeech
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, chunked, stream_audio, write_wav
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.mouth import ARTICULATION, FACE, MouthNormalizer, mouth_channels
from pipelines.prior_free_talk import same_middle
from tests.unit.test_prior import opened, talking, voice

BANDS, KEPT = 40, 8


@pytest.fixture(scope="module")
def prior() -> SharedPrior:
    """Opens the mouth with loudness; that lips touch is said by the lowest band."""
    basis = torch.linalg.qr(torch.randn(BANDS, KEPT, generator=torch.Generator().manual_seed(0)))[0]
    weights = 0.1 * torch.randn(8 * KEPT + 1, len(ARTICULATION), generator=torch.Generator().manual_seed(1))
    encoder = SpeechEncoder([MelEncoder(BANDS)])
    return SharedPrior(encoder, torch.ones(BANDS), torch.full((BANDS,), 0.5), basis, weights, 5, 2, 1.0)


@pytest.fixture(scope="module")
def speech(prior: SharedPrior) -> SharedSpeech:
    return prior.person(talking(), 25.0)


# --- lips that meet ---------------------------------------------------------------------------------------------------


def test_closing_shuts_lips_in_the_persons_way_and_leaves_closed_ones_alone(speech: SharedSpeech):
    motion = talking(seed=3)
    close = LipClosure.of(speech.normalizer, speech.rest)
    shut = close(motion, torch.ones(len(motion)))
    assert np.allclose(opened(shut), np.minimum(opened(motion), close.gap), atol=1e-4)
    jaw = INDEX["jawOpen"]
    per_centimetre = np.polyfit(opened(motion), motion.arkit[:, jaw].numpy(), 1)[0]
    raised = np.polyfit(opened(motion) - opened(shut), (motion.arkit - shut.arkit)[:, jaw].numpy(), 1)[0]
    assert raised == pytest.approx(per_centimetre, rel=0.1)  # the jaw comes up with the lips, as this person's does
    half = opened(close(motion, torch.full((len(motion),), 0.5)))
    assert np.allclose(half, (opened(motion) + opened(shut)) / 2, atol=1e-4)
    assert torch.equal(close(motion, torch.zeros(len(motion))).face, motion.face)


def touching(prior: SharedPrior) -> SharedPrior:
    """Lips touch, always."""
    touch = torch.zeros(len(prior.weights))
    touch[-1] = 2.0
    return dataclasses.replace(prior, closure_weights=touch)


class _Open:
    """Says that the mouth is open."""

    fps, look_ahead = 25.0, 0.0

    def __init__(self) -> None:
        self._samples = 0

    def open(self) -> _Open:
        return _Open()

    def push(self, samples: np.ndarray) -> Motion:
        self._samples += len(samples)
        return Motion.zeros(0, self.fps)

    def finish(self) -> Motion:
        count = round(self._samples / SAMPLE_RATE * self.fps)
        return talking(3.0)[:count].map(valid=torch.ones(count, dtype=torch.bool))


def test_lips_that_touch_are_brought_together_in_the_prior_and_in_the_mean(prior: SharedPrior):
    samples = voice(8.0)
    plain = prior.person(talking(), 25.0)
    sure = touching(prior).person(talking(), 25.0)
    gap = LipClosure.of(plain.normalizer, plain.rest).gap
    assert opened(motion_of(plain, samples)).max() > gap + 0.05
    assert opened(motion_of(sure, samples)).max() <= gap + 1e-4
    assert opened(motion_of(Ensemble([_Open(), plain]), samples)).max() > gap + 0.05
    assert opened(motion_of(Ensemble([_Open(), sure]), samples)).max() <= gap + 1e-4


def test_what_says_that_lips_touch_is_kept_in_files(prior: SharedPrior, tmp_path):
    touching(prior).save(tmp_path / "prior.safetensors")
    again = SharedPrior.load(tmp_path / "prior.safetensors")
    assert again.closure_weights is not None
    assert float(again.closure_weights[-1]) == 2.0 and float(again.closure_weights.sum()) == 2.0
    again.person(talking(), 25.0).save(tmp_path / "speech.safetensors")
    assert SharedSpeech.load(tmp_path / "speech.safetensors").prior.closure_weights is not None
    prior.save(tmp_path / "none.safetensors")
    assert SharedPrior.load(tmp_path / "none.safetensors").closure_weights is None


def test_touch_is_learnt_from_times_of_closures():
    random = torch.Generator().manual_seed(0)

    def recording(seed: int) -> tuple[torch.Tensor, np.ndarray]:
        rng = np.random.default_rng(seed)
        closures = np.sort(rng.choice(600, 40, replace=False)).astype(float)
        heard = torch.randn(600, 12, generator=random)
        near = np.abs(np.arange(600)[:, None] - closures).min(1) < 0.6
        heard[torch.from_numpy(near), 3] += 4.0
        return torch.cat([heard, torch.ones(600, 1)], 1), closures

    touch = fit_bilabial_closure([[recording(0), recording(1)], [recording(2)]])
    heard, closures = recording(3)
    said = (heard @ touch).clamp(0, 1).numpy()
    at = np.zeros(600, bool)
    at[closures.astype(int)] = True
    assert said[at].mean() > 0.8 and said[~at].mean() < 0.1


# --- the person -------------------------------------------------------------------------------------------------------


def test_pauses_of_a_track_say_nothing_of_how_the_person_speaks(prior: SharedPrior):
    motion = talking()
    face = motion.face.clone()
    face[200:] = face[int(opened(motion).argmin())]  # silent, and closed, for most of the time
    paused, spoken = prior.person(motion.map(face=face), 25.0).normalizer, prior.person(motion[:200], 25.0).normalizer
    everything = MouthNormalizer.of(motion.map(face=face))
    i = ARTICULATION.index("opening")
    error = (paused.centre[i] - spoken.centre[i]).abs() / spoken.spread[i]
    assert error < 0.3
    assert (everything.centre[i] - spoken.centre[i]).abs() / spoken.spread[i] > 0.8


def test_a_still_mouth_makes_a_still_speaker(prior: SharedPrior):
    speech = prior.person(Motion.zeros(100, 25.0), 25.0)
    assert np.abs(opened(motion_of(speech, voice(2.0)))).max() < 0.05


def test_the_gate_leaves_pauses_to_a_person_who_moves_in_them():
    rng = np.random.default_rng(0)
    free = mouth_channels(talking()).astype(np.float64)
    rest, busy = free[int(opened(talking()).argmin())], np.repeat(rng.random(50) > 0.4, 10)
    gates = {0.4: busy.astype(float), 1.0: np.ones(len(busy))}
    assert choose_pause(free, free, rest, gates) == 1.0
    assert choose_pause(free, rest + busy[:, None] * (free - rest), rest, gates) == 0.4
    assert choose_pause(free, free, rest, {pause: 0 * gate for pause, gate in gates.items()}) == 0.4


# --- rest -------------------------------------------------------------------------------------------------------------


def steady(kind: str, seconds: float = 6.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sounds = {
        "nothing": np.zeros(len(time)),
        "white noise": 0.1 * rng.standard_normal(len(time)),
        "rumble": 0.1 * np.convolve(rng.standard_normal(len(time)), np.exp(-np.arange(60) / 15), "same"),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time),
        "hum": 0.3 * np.sign(np.sin(2 * np.pi * 50 * time)),
        "offset": np.full(len(time), 0.5),
    }
    return sounds[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["nothing", "white noise", "rumble", "tone", "hum", "offset"])
def test_the_mouth_rests_in_steady_sound(speech: SharedSpeech, kind: str):
    motion = motion_of(speech, steady(kind))
    assert torch.allclose(motion.face[:, FACE], speech.rest[: len(FACE)].expand(len(motion), -1), atol=1e-5)


def test_an_offset_of_the_microphone_changes_nothing_much(speech: SharedSpeech):
    samples = voice(5.0)
    plain, moved = (opened(motion_of(speech, sound)) for sound in (samples, samples + 0.05))
    assert np.corrcoef(plain, moved)[0, 1] > 0.9


def test_a_clipped_voice_still_moves_the_mouth_within_the_persons_range(speech: SharedSpeech):
    track = opened(motion_of(speech, np.clip(50 * voice(5.0), -1, 1)))
    plain = opened(motion_of(speech, voice(5.0)))
    assert plain.std() / 3 < track.std() < 3 * plain.std()


def melody() -> np.ndarray:
    """Four seconds of struck chords, then two of silence."""
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    struck = np.exp(-4 * time) * np.minimum(1, time / 0.01)
    pitches = 220 * 2 ** (np.array([0, 5, 7, 12, 9, 4, 2, 0]) / 12)
    chords = [sum(np.sin(2 * np.pi * k * f * time) / k for k in (1, 2, 3, 5)) * struck for f in pitches]
    return np.r_[0.2 * np.concatenate(chords), np.zeros(2 * SAMPLE_RATE)].astype(np.float32)


def test_music_moves_the_mouth_no_further_than_speech_and_ends_with_it(speech: SharedSpeech):
    track, talk = opened(motion_of(speech, melody())), opened(motion_of(speech, voice(5.0)))
    assert len(track) == 150 and np.isfinite(track).all()
    assert track.max() <= 1.5 * talk.max() and track.min() >= talk.min() - 0.5 * np.ptp(talk)
    assert np.ptp(track[-25:]) == 0


def test_the_gate_waits_in_silence_as_long_as_it_is_told():
    energy = np.full(100, -75.0)
    energy[:50] = -20 + 6 * np.sin(np.arange(50))
    closes = [
        int((VoiceActivityDetector(25.0, 0.4, 0.0, silence=s).judge(energy)[1] > 0.5)[50:].sum()) for s in (0.1, 0.4)
    ]
    assert closes[1] - closes[0] == round(0.3 * 25)


def test_lips_part_as_early_as_they_are_told_and_no_earlier():
    energy = np.full(100, -75.0)
    energy[:20], energy[60:] = -20 + 6 * np.sin(np.arange(20)), -20 + 6 * np.sin(np.arange(40))
    for early in (0.08, 0.16):
        gate = VoiceActivityDetector(25.0, 0.4, 0.0, early=early).judge(energy)[1]
        first = 60 - round(early * 25)
        assert not gate[40:first].any()
        assert gate[first] == 0.5 and (gate[first + 1 :] == 1).all()


def test_a_prior_that_waits_for_audio_parts_the_lips_earlier_and_a_streaming_one_waits_no_longer():
    prior = SharedPrior.load()
    assert prior.gate(0.4).look_ahead == 4  # 0.16 s: pauses are closed until 0.2 s before the next sound
    assert prior.streaming().gate(0.4).look_ahead == 2


def test_half_a_minute_of_one_person_does_not_move_the_middle_of_all(prior: SharedPrior):
    random = torch.Generator().manual_seed(0)
    heard = torch.cat([torch.randn(300, len(prior.weights) - 1, generator=random) + 0.3, torch.ones(300, 1)], 1)
    other = prior.weights + 0.1 * torch.randn(prior.weights.shape, generator=random)
    moved = same_middle(other, prior.weights, heard)
    assert torch.allclose((heard @ moved).mean(0), (heard @ prior.weights).mean(0), atol=1e-4)
    assert torch.equal(moved[:-1], other[:-1])


# --- long, and bad ----------------------------------------------------------------------------------------------------


def test_time_costs_no_memory_and_pauses_end_alike(speech: SharedSpeech):
    part = np.concatenate([voice(2.0), np.zeros(SAMPLE_RATE, np.float32)])
    frames = 3 * 25  # of each part
    sizes: list[int] = []

    def sound() -> Iterator[np.ndarray]:
        for _ in range(8):
            sizes.append(tracemalloc.get_traced_memory()[0])
            yield from chunked(part, 4000)

    tracemalloc.start()
    face = torch.cat([block.face for block in drive(speech, sound())])
    tracemalloc.stop()
    assert len(face) == 8 * frames
    assert max(sizes[2:]) - min(sizes[2:]) < 100_000
    ends = face[frames - 3 :: frames]
    assert torch.allclose(ends, ends[:1].expand_as(ends), atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.full(1600, np.nan, np.float32), "not numbers"),
        (np.full(1600, np.inf, np.float32), "not numbers"),
        (np.zeros((1600, 2), np.float32), "one channel"),
        (np.zeros(1600, np.int16), "whole numbers"),
        (np.full(1600, 12000, np.float32), "within -1 and 1"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_sentence(speech: SharedSpeech, bad: np.ndarray, sentence: str):
    for network in (speech, Ensemble([speech, speech])):
        stream = drive(network, itertools.chain(chunked(voice(2.0)), [bad]))
        with pytest.raises(AvatarError, match=sentence):
            list(stream)


@pytest.mark.parametrize("count", [1, 160, 1600])
def test_a_blink_of_sound_is_enough(speech: SharedSpeech, count: int):
    motion = motion_of(speech, voice(2.0)[:count])
    assert len(motion) == max(1, int(np.ceil(count / SAMPLE_RATE * 25)))
    assert torch.isfinite(motion.face).all()


def test_no_sound_at_all_is_no_motion(speech: SharedSpeech):
    assert list(drive(speech, iter([]))) == []
    assert list(drive(Ensemble([speech, speech]), iter([np.zeros(0, np.float32)]))) == []


@pytest.mark.parametrize("rate", [8000, 44100])
def test_files_of_any_rate_say_the_same(speech: SharedSpeech, tmp_path, rate: int):
    import soxr

    samples = voice(4.0)
    write_wav(tmp_path / "sound.wav", soxr.resample(samples, SAMPLE_RATE, rate), rate)
    again = Motion.cat(list(drive(speech, stream_audio(tmp_path / "sound.wav"))))
    assert len(again) == 100
    assert np.corrcoef(opened(again), opened(motion_of(speech, samples)))[0, 1] > 0.99
