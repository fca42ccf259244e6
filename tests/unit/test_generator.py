"""Generated head motion, gaze, brows and blinks: any length, any cut, as the person does, and never the lips."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from avatar.data.run import HEADMOTION
from avatar.errors import AvatarError
from avatar.headmotion.flow import WINDOW, FlowNet
from avatar.headmotion.generator import MotionGenerator, speech_rows
from avatar.headmotion.normalizer import CHANNELS, UpperFaceNormalizer, mirrored
from avatar.headmotion.training import Windows, fit_flow, fit_forecast, flow_loss, windows_of
from avatar.io.audio import chunked, write_wav
from avatar.motion import Motion
from avatar.motion.blinks import find_blinks
from avatar.motion.motion import POSE_TRACKS
from avatar.train.speech import train_headmotion
from tests.person import person_info
from tests.swaying import BLINKS_PER_MINUTE, FPS, swaying

STEPS = 12


@pytest.fixture(scope="module")
def person() -> tuple[Motion, np.ndarray]:
    return swaying()


@pytest.fixture(scope="module")
def generator(person: tuple[Motion, np.ndarray]) -> MotionGenerator:
    track, sound = person
    return MotionGenerator.fit(track, [(0, len(track))], sound, steps=STEPS)


def made(
    generator: MotionGenerator, sound: np.ndarray, frames: int, fps: float = FPS, chunk: int = 16000, **options: Any
):
    stream = generator.open(fps, **options)
    blocks = [stream.push(piece) for piece in chunked(sound, chunk)]
    return Motion.cat([*blocks, stream.finish(frames)])[:frames]


def assert_same(a: Motion, b: Motion) -> None:
    for name in ("arkit", "face", "gaze", *POSE_TRACKS):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-4, rtol=0)


# --- the person -----------------------------------------------------------------------------------------------------


def test_the_person_taken_out_and_put_back(person: tuple[Motion, np.ndarray]) -> None:
    track, _ = person
    segments = [(0, len(track))]
    normalizer = UpperFaceNormalizer.of(track, segments)
    z = normalizer.normalise(track, segments)
    assert z.shape == (len(track), len(CHANNELS))
    back = normalizer.restore(z, FPS)
    torch.testing.assert_close(back.head_rotation, track.head_rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.head_translation, track.head_translation, atol=1e-3, rtol=0)
    assert np.corrcoef(back.torso_translation[:, 0], track.torso_translation[:, 0])[0, 1] > 0.98
    assert not find_blinks(back, segments)  # those are put in elsewhere
    assert back.face[:, 7].std() == 0  # the mouth rests
    torch.testing.assert_close(mirrored(mirrored(z)), z)
    far = normalizer.within(10 * z)
    assert bool((far <= normalizer.high + 0.5).all()) and bool((far >= normalizer.low - 0.5).all())
    calm = 0.3 * z
    torch.testing.assert_close(
        normalizer.within(calm), calm.maximum(normalizer.low).minimum(normalizer.high), atol=0.5, rtol=0
    )


# --- what is made ---------------------------------------------------------------------------------------------------


def test_seeds_differ_and_repeat(generator: MotionGenerator, person: tuple[Motion, np.ndarray]) -> None:
    a, b, c = (made(generator, person[1], 500, seed=s) for s in (1, 1, 2))
    assert_same(a, b)
    assert np.corrcoef(a.head_rotation[:, 1], c.head_rotation[:, 1])[0, 1] < 0.8
    assert float((a.head_rotation - c.head_rotation).abs().max()) > 0.02
    assert {s.start for s in find_blinks(a, [(0, 500)])} != {s.start for s in find_blinks(c, [(0, 500)])}


@pytest.mark.parametrize("chunk", [700, 16001, 10**6])
def test_it_does_not_matter_how_the_sound_is_cut(
    generator: MotionGenerator, person: tuple[Motion, np.ndarray], chunk: int
) -> None:
    sound = person[1][:80000]
    assert_same(made(generator, sound, 200, chunk=chunk), made(generator, sound, 200))


def test_silence_goes_on_for_as_many_frames_as_are_wanted(
    generator: MotionGenerator, person: tuple[Motion, np.ndarray]
) -> None:
    sound = person[1][:48000]
    stream = generator.open(FPS)
    parts = [stream.push(sound), *(stream.finish(count) for count in (30, 101, 101, 310))]
    assert [len(part) for part in parts[1:]] == [max(0, 30 - len(parts[0])), 101 - max(30, len(parts[0])), 0, 209]
    assert_same(Motion.cat(parts), made(generator, np.pad(sound, (0, 16 * 16000)), 310))
    led = generator.open(FPS, lead=0.4)
    early = np.pad(sound, (6400, 0))
    assert_same(Motion.cat([led.push(sound), led.finish(120)]), made(generator, early, 120))


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_frames_wait_for_no_more_audio_than_the_look_ahead(generator: MotionGenerator, fps: float) -> None:
    stream, done, longest = generator.open(fps), 0, 0.0
    for end in range(160, 6 * 16000, 160):
        count = len(stream.push(np.zeros(160, np.float32)))
        if count:
            longest = max(longest, end / 16000 - done / fps)
        done += count
    assert generator.look_ahead - 0.1 < longest <= generator.look_ahead + 0.01


def test_other_frame_rates_show_the_same_motion(generator: MotionGenerator, person: tuple[Motion, np.ndarray]) -> None:
    sound = person[1][: 8 * 16000]
    at_25 = made(generator, sound, 200)
    for fps in (30.0, 50.0, 23.976):
        other = made(generator, sound, round(8 * fps), fps)
        assert other.fps == fps
        for column in range(3):
            again = np.interp(np.arange(190) / FPS, np.arange(len(other)) / fps, other.head_rotation[:, column])
            assert np.abs(again - at_25.head_rotation[:190, column].numpy()).max() < 0.01


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.5])
def test_hardly_any_sound_and_none_at_all(generator: MotionGenerator, seconds: float) -> None:
    track = made(generator, np.zeros(round(seconds * 16000), np.float32), 500)
    assert all(bool(torch.isfinite(getattr(track, n)).all()) for n in ("arkit", "face", "gaze", *POSE_TRACKS))
    assert float(track.head_rotation.std(0).min()) > 0.005  # alive


def test_it_stays_within_the_range_of_the_person(generator: MotionGenerator, person: tuple[Motion, np.ndarray]) -> None:
    track = person[0]
    long = made(generator, np.tile(person[1], 2), 3000, seed=4)  # in silence the head is held otherwise
    for name in ("head_rotation", "head_translation"):
        real, new = getattr(track, name), getattr(long, name)
        spread = real.std(0)
        assert bool((new.amax(0) < real.amax(0) + spread).all()) and bool((new.amin(0) > real.amin(0) - spread).all())
        assert bool((new.std(0) > 0.5 * spread).all()) and bool((new.std(0) < 1.5 * spread).all())
        assert bool(((new[:1000].mean(0) - new[-1000:].mean(0)).abs() < 1.5 * spread).all())  # no drift
    assert float(long.arkit.min()) >= 0 and float(long.arkit.max()) <= 1


def test_no_seam_where_windows_meet(generator: MotionGenerator, person: tuple[Motion, np.ndarray]) -> None:
    track = made(generator, person[1], 2000, seed=2)
    jerk = track.head_rotation.diff(dim=0).diff(dim=0).norm(dim=1).numpy()
    joins = np.arange(WINDOW, 2000 - 2, WINDOW)
    at_joins = np.concatenate([jerk[joins - 2], jerk[joins - 1]])
    assert np.median(at_joins) < 1.5 * np.median(jerk)


def test_blinks_are_as_frequent_as_the_persons(generator: MotionGenerator, person: tuple[Motion, np.ndarray]) -> None:
    track = made(generator, person[1], 4500, seed=5)
    blinks = find_blinks(track, [(0, len(track))])
    assert 0.6 * BLINKS_PER_MINUTE < len(blinks) / 3 < 1.5 * BLINKS_PER_MINUTE
    assert min(float(track.face[b, 35].min()) for b in blinks) < -0.6  # lids go with the coefficients


def test_the_head_nods_with_the_sound_as_much_as_asked(
    generator: MotionGenerator, person: tuple[Motion, np.ndarray]
) -> None:
    _, sound = swaying(seed=9)  # another performance
    energy = 20 * np.log10(np.abs(sound[: 800 * 640].reshape(800, 640)).max(1) + 1e-4)

    def follows(seeds: int = 3, **options: Any) -> float:
        pitch = np.mean([made(generator, sound, 800, seed=s, **options).head_rotation[:, 0] for s in range(seeds)], 0)
        return float(np.corrcoef(pitch, energy)[0, 1])

    deaf, plain = follows(guidance=0.0), follows()
    assert plain > 0.4 and abs(deaf) < 0.25
    assert follows(1, noise=0.0) > plain  # nothing is left to chance, so all seeds are alike


def test_nothing_left_to_chance_is_the_same_for_all_seeds(
    generator: MotionGenerator, person: tuple[Motion, np.ndarray]
) -> None:
    a, b = (made(generator, person[1], 750, seed=s, noise=0.0) for s in (1, 2))
    assert_same(a, b)
    assert 2 < len(find_blinks(a, [(0, 750)])) < 20  # half a minute


@pytest.mark.parametrize("options", [{"guidance": -0.1}, {"guidance": 3.1}, {"noise": 1.6}, {"noise": float("nan")}])
def test_numbers_out_of_range_are_refused(generator: MotionGenerator, options: dict[str, Any]) -> None:
    with pytest.raises(AvatarError, match="out of range"):
        generator.open(FPS, **options)


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_a_file_keeps_them(
    generator: MotionGenerator, person: tuple[Motion, np.ndarray], tmp_path: Path
) -> None:
    track, sound = person
    torch.manual_seed(5)  # what happened before does not matter
    again = MotionGenerator.fit(track, [(0, len(track))], sound, steps=STEPS)
    for name, value in generator.flow.state_dict().items():
        assert torch.equal(value, again.flow.state_dict()[name])
    generator.save(tmp_path / "g.safetensors")
    loaded = MotionGenerator.load(tmp_path / "g.safetensors")
    assert_same(made(loaded, sound, 100), made(generator, sound, 100))


def test_the_flow_learns_what_a_gaussian_cannot_say() -> None:
    """A head that mostly rests, and sometimes turns far: a Gaussian always moves a little."""

    def windows(seed: int) -> Windows:
        rng = np.random.default_rng(seed)
        z = 0.1 * rng.standard_normal((4000, len(CHANNELS)))
        for start in range(0, 4000, 100):
            z[start : start + 100] *= rng.choice([0.3, 3.0])
        z = torch.from_numpy(gaussian_filter1d(z, 4, axis=0)).float()
        speech = torch.zeros(4000, 2)
        return windows_of(z, torch.zeros_like(z), speech, torch.ones(4000, dtype=torch.bool), [(0, 4000)])

    learnt, new = windows(0), windows(1)[::8]
    base = fit_forecast(learnt)
    noise = torch.randn(len(new), len(base.size), generator=torch.Generator().manual_seed(0))
    time = torch.linspace(0, 1, len(new))

    @torch.no_grad()
    def loss(net: FlowNet) -> float:
        return float(flow_loss(net, base, new, torch.ones(len(new)), noise, time))

    before = FlowNet().eval()
    assert loss(fit_flow(before, learnt, base, True, steps=60)) < 0.95 * loss(before)


def test_a_cut_is_not_learnt(person: tuple[Motion, np.ndarray]) -> None:
    track, sound = person
    moved = track.map(head_translation=track.head_translation.clone())
    moved.head_translation[700:] += 8.0
    generator = MotionGenerator.fit(moved, [(0, 700), (700, len(moved))], sound, steps=2)
    made_speed = made(generator, sound, 1000).head_translation.diff(dim=0).norm(dim=1)
    own_speed = track.head_translation.diff(dim=0).norm(dim=1)
    assert float(made_speed.max()) < 3 * float(own_speed.max())  # the jump is 20 times as fast


def test_a_video_without_sound_is_enough(person: tuple[Motion, np.ndarray]) -> None:
    track, sound = person
    generator = MotionGenerator.fit(track, [(0, len(track))], None, steps=2)
    assert_same(made(generator, sound, 100), made(generator, np.zeros(0, np.float32), 100))  # it cannot follow it


@pytest.mark.parametrize("frames", [10, 70])
def test_too_little_motion_is_one_sentence(person: tuple[Motion, np.ndarray], frames: int) -> None:
    with pytest.raises(AvatarError, match=r"[Ll]ess than a second|too little motion"):
        MotionGenerator.fit(person[0][:frames], [(0, frames)], person[1], steps=2)


def test_training_leaves_it_in_the_run(
    person: tuple[Motion, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    track, sound = person
    write_wav(tmp_path / "sound.wav", sound)
    data: Any = SimpleNamespace(
        segments=[(0, 700), (700, 1600)], audio_path=tmp_path / "sound.wav",
        info=person_info(),
    )  # fmt: skip
    monkeypatch.setattr(MotionGenerator.fit, "__defaults__", (0.0, 0, 2))  # delay, seed, steps
    track[:60].save(tmp_path / "motion.safetensors")
    train_headmotion(data, tmp_path, seed=0)
    assert "will not generate head motion" in capsys.readouterr().err
    assert not (tmp_path / HEADMOTION).exists()
    track[:1000].save(tmp_path / "motion.safetensors")
    train_headmotion(data, tmp_path, seed=0)
    made(MotionGenerator.load(tmp_path / HEADMOTION), sound, 50)


def test_loudness_is_judged_without_waiting() -> None:
    """Silence is as quiet as can be, the voice is about 1, and no row changes by what is heard a second later."""
    energy = np.r_[np.full(50, -80.0), np.tile([-20.0, -28.0], 25), np.full(50, -45.0)].astype(np.float32)
    rows = speech_rows(energy)
    assert bool((rows[:45] == -1).all())
    assert bool((rows[56:94, 1] == 1).all()) and bool((rows[56:94:2, 0] == 1).all())
    assert bool((rows[110:150, 0] < -0.6).all())
    assert torch.equal(speech_rows(energy[:100])[:90], rows[:90])


def test_memory_does_not_grow(generator: MotionGenerator) -> None:
    stream = generator.open(FPS)
    sizes = [len(stream.push(np.zeros(16000, np.float32))) for _ in range(20)]
    assert max(sizes) <= WINDOW and sum(sizes) >= 17 * WINDOW
    windows = stream._windows
    assert max(len(windows._speech), len(windows._before), len(windows._context)) < 4 * WINDOW
