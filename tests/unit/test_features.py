"""Speech features: their time, and that streaming changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.assets import store as assets
from avatar.audio.encoders import whisper
from avatar.audio.encoders.base import SpeechEncoder, encode
from avatar.audio.encoders.mel import MelEncoder
from avatar.audio.encoders.registry import build_encoder, speech_encoder
from avatar.audio.features import FrameFeatureStream, features_at, features_look_ahead
from avatar.errors import AvatarError
from avatar.io.audio import chunked

needs_moonshine = pytest.mark.skipif(
    not assets.available("moonshine_encoder"), reason="the Moonshine encoder is not on this machine"
)


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise and a buzz in syllables, so that features have something to say."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    buzz = np.sign(np.sin(2 * np.pi * 120 * time)) * 0.1 + 0.05 * rng.standard_normal(len(time))
    return (buzz * np.abs(np.sin(2 * np.pi * 2.3 * time))).astype(np.float32)


def click(seconds: float, at: float, background: np.ndarray | None = None) -> np.ndarray:
    samples = np.zeros(round(seconds * 16000), np.float32) if background is None else background.copy()
    start = round(at * 16000)
    samples[start - 40 : start + 40] += 0.3 * np.random.default_rng(1).standard_normal(80).astype(np.float32)
    return samples


@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("offset", [0.0, 5.25, -3.5])
def test_mel_and_energy_sit_at_frame_times(fps: float, offset: float) -> None:
    at = 1.37
    both = click(3.0, at, click(3.0, 0.4))  # the first one sets the level that mel features are relative to
    sound = features_at(MelEncoder(), both, fps, offset=offset)
    late = round(0.9 * fps - offset)
    for values in (sound.energy[late:], sound.features[late:].sum(1)):
        top = int(values[2:-2].argmax()) + 2
        near = slice(top - 2, top + 3)
        weight = values[near] - values[near].min()
        frame = (weight * np.arange(near.start, near.stop)).sum() / weight.sum()
        assert (frame + late + offset) / fps == pytest.approx(at, abs=0.5 / fps)


@needs_moonshine
def test_moonshine_rows_are_centred_on_their_receptive_field() -> None:
    encoder = speech_encoder("moonshine").parts[0]
    background = speechlike(6.0)
    plain = encode(encoder, background)
    errors = []
    for at in np.linspace(2.0, 4.0, 17):
        rows = encode(encoder, click(6.0, float(at), background))
        change = np.square(rows - plain).sum(1)
        peak = change[max(0, change.argmax() - 3) : change.argmax() + 4]
        centre = (peak * np.arange(max(0, change.argmax() - 3), change.argmax() + 4)).sum() / peak.sum()
        errors.append(encoder.first + centre / encoder.rate - at)
    assert abs(np.median(errors)) < 0.010  # a quarter of a frame at 25 fps


@pytest.mark.parametrize("name", ["mel", pytest.param("moonshine", marks=needs_moonshine)])
def test_streaming_in_any_pieces_equals_the_whole(name: str) -> None:
    encoder = speech_encoder(name)
    samples = speechlike(21.3)
    whole = features_at(encoder, samples, 25.0, offset=1.5)
    for size in (377, 5000, 400000):
        stream = FrameFeatureStream(encoder, 25.0, offset=1.5)
        blocks = [*(stream.push(piece) for piece in chunked(samples, size)), stream.finish()]
        assert np.array_equal(np.concatenate([b.features for b in blocks]), whole.features)
        assert np.array_equal(np.concatenate([b.energy for b in blocks]), whole.energy)


@pytest.mark.parametrize("encoder", ["mel", pytest.param("moonshine", marks=needs_moonshine)])
def test_rows_of_an_encoder_are_the_same_however_the_audio_is_cut(encoder: str) -> None:
    samples = speechlike(9.7)
    part = speech_encoder(encoder).parts[0]
    whole = encode(part, samples)
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.integers(0, len(samples), 60))
    stream = part.open()
    rows = np.concatenate([*map(stream.push, np.split(samples, cuts)), stream.finish()])
    assert np.array_equal(rows, whole)


@pytest.mark.parametrize("encoder", ["mel", pytest.param("moonshine", marks=needs_moonshine)])
@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_features_wait_for_no_more_audio_than_they_say(encoder: str, fps: float) -> None:
    parts = speech_encoder(encoder)
    wait, stream = features_look_ahead(parts, fps), FrameFeatureStream(parts, fps)
    done, longest = 0, 0.0
    for end in range(80, 16 * 16000, 80):
        count = len(stream.push(np.zeros(80, np.float32)))
        if count:
            longest = max(longest, end / 16000 - done / fps)
        done += count
    assert 0.5 * wait < longest <= wait + 80 / 16000


@pytest.mark.parametrize(("seconds", "frames"), [(1 / 16000, 1), (0.1, 3), (1.0, 25), (1.001, 26)])
def test_as_many_frames_as_begin_within_the_sound(seconds: float, frames: int) -> None:
    assert len(features_at(speech_encoder("mel"), speechlike(seconds), 25.0)) == frames


def test_missing_sound_repeats_the_last_row() -> None:
    sound = features_at(speech_encoder("mel"), speechlike(1.0), 25.0, num_frames=60)
    assert len(sound) == 60 and np.array_equal(sound.features[40], sound.features[59])
    assert len(features_at(speech_encoder("mel"), speechlike(1.0), 25.0, num_frames=7)) == 7


def test_an_offset_is_the_same_as_moving_the_sound() -> None:
    samples = speechlike(4.0)
    late = np.concatenate([np.zeros(3200, np.float32), samples])  # 5 frames
    a = features_at(speech_encoder("mel"), samples, 25.0, 90)
    b = features_at(speech_encoder("mel"), late, 25.0, 90, offset=5)
    assert np.allclose(a.energy[5:], b.energy[5:], atol=1e-3)


def test_memory_does_not_grow_with_length() -> None:
    held = 0

    def chunks():
        for _ in range(200):
            yield np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1

    import tracemalloc

    tracemalloc.start()
    stream = FrameFeatureStream(speech_encoder("mel"), 25.0)
    for piece in chunks():
        held = max(held, len(stream.push(piece)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 300 and peak < 8e6  # the whole sound is 13 MB, its features as much again


def test_a_checkpoint_names_its_encoder() -> None:
    encoder = SpeechEncoder([MelEncoder(40)])
    again = build_encoder(encoder.config)
    assert again.dim == 40 and again.config == encoder.config
    with pytest.raises(
        AvatarError, match=r"run/speech: encoder: there is no speech encoder 'hubert'.*Known are .*moonshine"
    ):
        build_encoder({"parts": [{"name": "hubert"}]}, "run/speech")


def test_without_whisper_mel_takes_over_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise AvatarError("The pretrained part 'whisper_front' could not be fetched.")

    monkeypatch.setattr(whisper, "_stem", absent)
    assert speech_encoder("auto").name == "mel"
    assert "plain mel energies" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(AvatarError, match="could not be fetched"):
        speech_encoder("whisper")
