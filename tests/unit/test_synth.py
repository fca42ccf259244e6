"""The synthetic person: is the truth it writes the truth of the picture, the sound and the file?"""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import encode, mouth_opening
from avatar.synth import speech
from avatar.synth.acting import lips
from tests.media import need_landmarker


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    need_landmarker()
    from avatar.synth.make import make_subject

    folder = tmp_path_factory.mktemp("subject")
    return make_subject(folder, 3.0, 192, seed=0, voice="buzz", text="Mama may bake a pie. Papa moves.", supersample=1)


@pytest.fixture(scope="module")
def subject():
    need_landmarker()
    from avatar.synth.subject import Subject

    return Subject(0, detail=0.5)


def _decode(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


# --- voice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", ["buzz", "neural"])
def test_phones_tile_the_sound(voice):
    if voice == "neural":
        pytest.importorskip("hibari", reason="the neural voice is not installed")
    said = speech.speak("Please buy my big blue map. Peter picked it.", voice)
    assert said.phones[0].start == 0
    assert said.phones[-1].end == pytest.approx(said.seconds, abs=0.01)
    for a, b in zip(said.phones, said.phones[1:], strict=False):
        assert a.end == pytest.approx(b.start) and b.end > b.start
    assert sum(p.symbol in "pbm" and p.symbol != "" for p in said.phones) >= 7


def test_neural_stops_are_silent_where_their_times_say():
    """Times and sound belong together: p and b are quieter at their closure than the vowels around them."""
    pytest.importorskip("hibari", reason="the neural voice is not installed")
    said = speech.speak("Copper, pepper, happy, apple, paper, rapid. Puppy and copper. Open the paper cup.")
    power = np.convolve(said.samples**2, np.ones(240) / 240, "same")

    def level(phone: speech.Phone, shift: float) -> float:
        a = int((phone.start + shift) * speech.RATE)
        return float(np.sqrt(power[a : a + int(0.05 * speech.RATE)].min()))

    stops = [p for k, p in enumerate(said.phones) if p.symbol == "p" and k and said.phones[k - 1].symbol]
    assert len(stops) >= 8
    here, later = (np.median([level(p, s) for p in stops]) for s in (0.0, 0.09))
    assert here < 0.25 * later


def test_the_same_seed_says_the_same():
    a, b = (speech.speak("Good morning.", "buzz", seed=3) for _ in range(2))
    assert np.array_equal(a.samples, b.samples) and a.phones == b.phones


@pytest.mark.parametrize(("text", "voice"), [("...", "buzz"), ("Hello", "tenor")])
def test_nothing_to_say_is_the_users_mistake(text, voice):
    with pytest.raises(AvatarError):
        speech.speak(text, voice)


# --- face ---------------------------------------------------------------------------------------------------------


def test_lips_touch_on_every_bilabial_and_in_silence(subject):
    said = speech.join([speech.speak("Mama may bake a pie by a map. Papa moves.", "buzz"), speech.silence(0.6)])
    closed = [p for p in said.phones if p.symbol in "pbm" and p.symbol]
    middles = np.array([p.start + 0.03 for p in closed] + [said.seconds - 0.1])
    vowels = np.array([(p.start + p.end) / 2 for p in said.phones if p.symbol in ("æ", "ɑ", "A")])
    gaze = np.zeros(2)

    def gap(times: np.ndarray) -> np.ndarray:
        return mouth_opening(np.stack([subject.landmarks(a, gaze) for a in lips(said, times)]))

    assert gap(middles).max() < 0.02
    assert gap(vowels).min() > 0.25


def test_blink_closes_the_eye(subject):
    from avatar.synth.shapes import LIDS

    arkit = np.zeros(52)
    arkit[[INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 1
    face = subject.landmarks(arkit, np.zeros(2))
    for lids in LIDS.values():
        assert np.abs(face[list(lids["upper"]), 1] - face[list(lids["lower"]), 1]).max() < 0.05
        assert subject.shape[lids["lower"][4], 1] - subject.shape[lids["upper"][4], 1] > 0.6


def test_gaze_moves_the_iris_to_the_persons_left_and_up(subject):
    rest = subject.landmarks(np.zeros(52), np.zeros(2))
    moved = subject.landmarks(np.zeros(52), np.array([0.3, 0.2]))
    for iris in (468, 473):
        assert moved[iris, 0] - rest[iris, 0] > 0.2 and moved[iris, 1] - rest[iris, 1] < -0.1


def test_the_mouth_corner_of_a_left_smile_is_the_persons_left(subject):
    arkit = np.zeros(52)
    arkit[INDEX["mouthSmileLeft"]] = 1
    shift = subject.landmarks(arkit, np.zeros(2)) - subject.landmarks(np.zeros(52), np.zeros(2))
    assert shift[291, 1] < -0.4 and np.abs(shift[61]).max() < 0.05


# --- files --------------------------------------------------------------------------------------------------------


def test_truth_is_consistent_and_survives_the_disk(made):
    truth = Motion.load(made.video.with_name("truth.safetensors"))
    assert len(truth) == 75 == len(_decode(made.video)) == len(made.landmarks)
    assert torch.equal(truth.head_rotation, made.truth.head_rotation)
    # the stored landmarks are the projection of shape + coefficients under the stored pose
    from avatar.synth.subject import Subject

    person = Subject(0, detail=0.25)
    face = np.stack([person.landmarks(a, g) for a, g in zip(truth.arkit.numpy(), truth.gaze.numpy(), strict=True)])
    world = np.einsum("tij,tvj->tvi", axis_angle_to_matrix(truth.head_rotation).numpy(), face)
    world += truth.head_translation.numpy()[:, None]
    pixels = world[..., :2] / world[..., 2:] * made.focal + (made.cx, made.cy)
    assert np.abs(pixels - made.landmarks).max() < 0.02
    assert np.abs(encode(face - made.shape) - truth.face.numpy()).max() < 1e-4


def test_the_picture_shows_the_truth(made):
    """MediaPipe, which knows nothing of the truth, finds the landmarks, the lips and the head pose near it."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    from avatar.assets.store import fetch

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(fetch("face_landmarker"))),
        output_facial_transformation_matrixes=True,
        running_mode=vision.RunningMode.VIDEO,
    )
    found, turns = [], []
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for t, picture in enumerate(_decode(made.video)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            result = landmarker.detect_for_video(image, t * 40)
            assert result.face_landmarks, f"no face in frame {t}"
            found.append([(p.x * made.width, p.y * made.height) for p in result.face_landmarks[0]])
            matrix = np.array(result.facial_transformation_matrixes[0])[:3, :3]
            turns.append(matrix / np.linalg.norm(matrix[:, 0]) * np.outer([1, -1, -1], [1, -1, -1]))
    found = np.array(found)
    face_height = np.ptp(made.landmarks[:, :, 1], axis=1).mean()
    inner = [1, 4, 33, 133, 263, 362, 61, 291, 13, 14, 98, 327]
    error = np.linalg.norm(found - made.landmarks, axis=-1)[:, inner].mean()
    assert error < 0.03 * face_height
    assert np.corrcoef(mouth_opening(found), mouth_opening(made.landmarks))[0, 1] > 0.85
    truth = axis_angle_to_matrix(made.truth.head_rotation).numpy()
    cosine = (np.einsum("tij,tij->t", np.array(turns), truth) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 4


def test_the_video_has_the_sound(made):
    with av.open(str(made.video)) as container:
        samples = np.concatenate([f.to_ndarray().mean(0) for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert rate == speech.RATE and len(samples) / rate == pytest.approx(3.0, abs=0.1)
    import soundfile
    from scipy.signal import correlate

    wav, _ = soundfile.read(made.audio)
    n = min(len(wav), len(samples))
    lag = np.argmax(correlate(samples[:n], wav[:n], method="fft")) - (n - 1)
    assert abs(lag) / rate < 0.01


def test_the_same_seed_films_the_same(tmp_path, monkeypatch):
    need_landmarker()
    from avatar.io.video_writer import VideoWriter
    from avatar.synth.make import make_subject

    # What goes into the encoder is compared: x264 itself may choose differently from run to run.
    films: list[list[np.ndarray]] = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image: (films[-1].append(image.copy()), write(self, image)))
    results = []
    for k, seed in enumerate((0, 0, 1)):
        films.append([])
        results.append(make_subject(tmp_path / str(k), 0.4, 96, seed=seed, voice="buzz", text="Mama.", supersample=1))
    a, b, other = results
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])
    assert a.audio.read_bytes() == b.audio.read_bytes()
    assert torch.equal(a.truth.face, b.truth.face)
    assert not np.array_equal(a.shape, other.shape)


# --- flaws, which other tests build on ----------------------------------------------------------------------------


def _flawed(folder, seconds=0.6, size=96, **flaws):
    need_landmarker()
    from avatar.synth.make import Flaws, make_subject

    return make_subject(
        folder, seconds, size, voice="buzz", text="Mama may bake a pie.", supersample=1, flaws=Flaws(**flaws)
    )


def test_without_sound_and_silent(tmp_path):
    none = _flawed(tmp_path / "none", audio="none")
    assert none.audio is None
    with av.open(str(none.video)) as container:
        assert not container.streams.audio
    silent = _flawed(tmp_path / "silent", audio="silent")
    with av.open(str(silent.video)) as container:
        assert max(np.abs(f.to_ndarray()).max() for f in container.decode(audio=0)) < 1e-3


def test_offset_moves_the_sound_only(tmp_path):
    import soundfile

    def onset(path) -> float:
        with av.open(str(path)) as container:
            samples = np.concatenate([f.to_ndarray().mean(0) for f in container.decode(audio=0)])
        return float(np.flatnonzero(np.abs(samples) > 0.05)[0]) / speech.RATE

    plain, late = _flawed(tmp_path / "a", 1.2), _flawed(tmp_path / "b", 1.2, audio_delay_s=0.2)
    assert onset(late.video) - onset(plain.video) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(plain.truth.arkit, late.truth.arkit)
    assert np.array_equal(soundfile.read(plain.audio)[0], soundfile.read(late.audio)[0])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_flag_restores_the_picture(tmp_path, degrees):
    upright = _decode(_flawed(tmp_path / "a", 0.2).video)[0]
    turned = _flawed(tmp_path / "b", 0.2, rotation=degrees)
    with av.open(str(turned.video)) as container:
        frame = next(container.decode(video=0))
        stored, flag = frame.to_ndarray(format="rgb24"), frame.rotation
    shown = np.rot90(stored, flag // 90)  # PyAV: counter-clockwise turn that shows the frame upright
    assert np.abs(shown.astype(float) - upright).mean() < 6
    assert np.abs(stored.astype(float) - upright).mean() > 12


def test_variable_rate_keeps_every_frame_and_the_sound(tmp_path):
    made = _flawed(tmp_path, 1.0, variable_rate=True)
    with av.open(str(made.video)) as container:
        times = [f.time for f in container.decode(video=0)]
        assert container.streams.audio
    steps = np.diff(times)
    assert len(times) == 25 and steps.std() > 0.003 and times[-1] == pytest.approx(24 / 25, abs=0.03)


def test_cuts_jump_and_are_listed(tmp_path):
    made = _flawed(tmp_path, 1.2, cut_every=0.4)
    assert made.cuts == (10, 20)
    jump = np.linalg.norm(np.diff(made.landmarks.mean(1), axis=0), axis=-1)
    assert min(jump[9], jump[19]) > 4 * np.median(jump)


def test_people_and_sizes(tmp_path):
    wide = _flawed(tmp_path / "wide", 0.2)
    from avatar.synth.make import Flaws, make_subject

    empty = make_subject(tmp_path / "e", 0.2, 96, voice="buzz", text="Mama.", flaws=Flaws(faces=0), supersample=1)
    two = make_subject(
        tmp_path / "t", 0.2, width=161, height=97, voice="buzz", text="Mama.", flaws=Flaws(faces=2), supersample=1
    )
    small = make_subject(
        tmp_path / "s", 0.2, 256, voice="buzz", text="Mama.", flaws=Flaws(face_scale=0.25), supersample=1
    )
    assert _decode(empty.video)[0].std() < _decode(wide.video)[0].std() / 2
    assert _decode(two.video)[0].shape[:2] in ((97, 161), (98, 162))
    assert 20 < np.ptp(small.landmarks[0, :, 0]) < 40


def test_nonsense_is_refused(tmp_path):
    from avatar.synth.make import Flaws, make_subject

    for options in ({"seconds": -1.0}, {"size": 8}, {"fps": 0.0}, {"flaws": Flaws(rotation=45)}):
        with pytest.raises(AvatarError):
            make_subject(tmp_path, **{"seconds": 0.2, **options})


def test_command_line(tmp_path):
    need_landmarker()
    from avatar.cli.main import main

    file = tmp_path / "clip.mp4"
    arguments = ["synth", "--out", str(file), "--seconds", "0.2", "--size", "96", "--voice", "buzz", "--text", "Mama."]
    assert main(arguments) == 0
    assert file.is_file() and (tmp_path / "clip.truth" / "truth.safetensors").is_file()
    assert main(["synth", "--out", str(tmp_path / "x"), "--size", "4"]) == 2


def test_a_film_that_fails_leaves_no_video(tmp_path, monkeypatch):
    from avatar.synth import make

    def three(*_):
        yield from np.zeros((3, 96, 96, 3), np.uint8)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(make, "_film", three)
    with pytest.raises(RuntimeError):
        make.make_subject(tmp_path, seconds=0.4, size=96, voice="buzz", text="Mama.", quiet=True)
    assert not (tmp_path / "video.mp4").exists()


def test_demo_refuses_a_folder_in_use(tmp_path):
    from avatar.cli.main import main

    (tmp_path / "thesis.txt").write_text("important")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.txt"]
