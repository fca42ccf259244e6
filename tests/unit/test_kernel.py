"""The kernel regression of a person: slow noise, what a line cannot say, left-out parts, files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.audio.features import FrameFeatures
from avatar.audio2motion import kernel
from avatar.audio2motion.kernel import fit_kernel, moments_of
from avatar.audio2motion.pauses import mouth_opening
from avatar.audio2motion.shared import RATE, SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt_to_features
from avatar.errors import AvatarError
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion.mouth import FACE, mouth_channels, opening_weights
from tests.unit.test_prior import some_prior, talking

ROWS = 400


def moments(seed: int = 0) -> torch.Tensor:
    """Rows [ROWS, 3] that vary as fast as speech."""
    noise = np.random.default_rng(seed).standard_normal((ROWS + 2, 3))
    return torch.from_numpy(noise[:-2] + noise[1:-1] + noise[2:]).float()


def squared(of: np.ndarray):
    return lambda unseen: float(np.square(unseen - of).mean())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_what_no_line_can_say_is_learnt() -> None:
    x, new = moments(), moments(1)
    bent, truth = (np.abs(m[:, :1].numpy()).astype(float) for m in (x, new))
    fit = fit_kernel(x, bent, np.ones(ROWS, bool), RATE, squared(bent))
    said = fit.regression(np.ones(1))(new).numpy()
    assert correlation(said[:, 0], truth[:, 0]) > 0.9
    assert correlation(fit.unseen[:, 0], bent[:, 0]) > 0.85  # by the other fifths


def test_slow_changes_are_not_taken_for_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {}
    for drift in (0.5, 0.0):
        monkeypatch.setattr(kernel, "_DRIFT", drift)
        found = []
        for seed in range(3):
            x, new = moments(seed), moments(seed + 10)
            slow = 3 * np.sin(2 * np.pi * np.arange(ROWS)[:, None] / ROWS * 2.5 + seed)
            tracked = x[:, :1].numpy() + slow
            fit = fit_kernel(x, tracked, np.ones(ROWS, bool), RATE, squared(tracked))
            said = fit.regression(np.ones(1))(new).numpy()[:, 0]
            found.append(correlation(said, new[:, 0].numpy()))
        errors[drift] = float(np.mean(found))
    assert errors[0.5] > errors[0.0] + 0.03


def test_the_noise_is_taken_out_as_its_covariance_says() -> None:
    seconds = np.array([0.0, 0.04, 0.08, 0.5, 0.54, 3.0])
    values = np.random.default_rng(0).standard_normal((6, 2))
    slow = np.exp(-np.abs(seconds[:, None] - seconds) / kernel.DRIFT_SECONDS)
    exact = np.linalg.solve((1 - kernel._DRIFT) * np.eye(6) + kernel._DRIFT * slow, values)
    np.testing.assert_allclose(kernel._without_drift(values, seconds), exact, atol=1e-9)


def test_a_part_is_predicted_by_others_that_do_not_touch_it() -> None:
    rows = np.arange(100)
    pieces = kernel._pieces(np.array([0, 20, 40, 60, 80, 100]), rows, 5)
    assert [a for a, *_ in pieces][1:] == [b for _, b, _ in pieces][:-1]
    for fold in range(5):
        used = np.concatenate([rows[a:b] for a, b, out in pieces if fold not in out])
        assert not np.isin(used, np.arange(20 * fold - 5, 20 * fold + 25)).any()
        assert len(used) >= 70


def test_frames_without_a_face_teach_nothing() -> None:
    x, seen = moments(), np.arange(ROWS) % 3 > 0
    tracked = x[:, :1].numpy().astype(float)
    spoilt = np.where(seen[:, None], tracked, 99.0)
    fits = [fit_kernel(x, values, seen, RATE, squared(tracked[seen])) for values in (tracked, spoilt)]
    assert torch.equal(fits[0].weights, fits[1].weights)


def test_a_person_is_adapted_saved_and_read_with_it(tmp_path: Path) -> None:
    prior, track = some_prior(), talking()
    prior = dataclasses.replace(prior, weights=0 * prior.weights)
    noise = np.random.default_rng(0).standard_normal((len(track) + 2, 40)).astype(np.float32)
    features = FrameFeatures(1 + noise[:-2] + noise[1:-1] + noise[2:], np.full(len(track), -20, np.float32))
    # What a line cannot say: the mouth opens the more, the further the speech is from its mean either way.
    bent = prior.inputs(features.features)[:, 40:41].abs()
    face = track.face.clone()
    face[:, FACE] = 0.05 * bent * torch.from_numpy(np.sign(opening_weights()))
    arkit = track.arkit.mean(0).expand_as(track.arkit).clone()
    track = track.map(face=face, arkit=arkit)
    speech = adapt_to_features(prior.person(track, 25.0), track, features)
    assert speech.kernel is not None and speech.linear().kernel is None
    inputs = prior.inputs(features.features)
    said, plain = (mouth_opening(s.ungated(inputs).numpy()) for s in (speech, speech.linear()))
    real = mouth_opening(mouth_channels(track))
    assert np.square(said - real).mean() < 0.5 * np.square(plain - real).mean()
    speech.save(tmp_path / "speech.safetensors")
    again = SharedSpeech.load(tmp_path / "speech.safetensors")
    np.testing.assert_allclose(mouth_opening(again.ungated(inputs).numpy()), said, atol=1e-3)
    assert again.streaming().kernel is not None


def test_files_of_before_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "speech.safetensors"
    speech = some_prior().person(talking(), 25.0)
    speech.save(path)
    assert SharedSpeech.load(path).kernel is None
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, {**metadata, "kernel_scale": 1.0})
    with pytest.raises(AvatarError, match=r"lacks the tensor kernel\.points"):
        SharedSpeech.load(path)
    save_tensors(path, tensors, {**metadata, "kernel_scale": "wide"})
    with pytest.raises(AvatarError):
        SharedSpeech.load(path)


def test_moments_are_the_rows_in_the_middle() -> None:
    inputs = torch.arange(8 * 2 + 1).float()[None]
    assert moments_of(inputs, 5, 2).tolist() == [list(range(6, 16))]
    assert moments_of(torch.arange(7).float()[None], 1, 1).tolist() == [list(range(6))]
