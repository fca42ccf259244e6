"""Controls on a talking person: each does what it says, lips still close, and blocks may be cut anywhere."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.camera_path import CameraPath
from avatar.infer.controls import Controls
from avatar.infer.layers import MotionLayers
from avatar.infer.planner import PausedSpeech
from avatar.motion import Motion, timeline
from avatar.motion.arkit import ARKIT, INDEX, MOUTH
from avatar.motion.arkit_map import FaceMap
from avatar.motion.blinks import EYES, LIDS
from avatar.motion.edits import Blinks, Gaze, scale_lips, scale_pose
from avatar.motion.emotion import EMOTIONS, Expression, Mix
from avatar.motion.face_channels import CHANNEL_INDEX, LIP_CHANNELS, UPPER_CHANNELS, opening_change
from avatar.motion.statistics import MotionStats
from tests.talking import FPS, talking

TOUCH = 0.06  # centimetres between lips that touch: a tenth of the width of a lip


@pytest.fixture(scope="module")
def said() -> tuple[Motion, np.ndarray]:
    return talking()


@pytest.fixture(scope="module")
def motion(said: tuple[Motion, np.ndarray]) -> Motion:
    return said[0]


@pytest.fixture(scope="module")
def profile(motion: Motion) -> MotionStats:
    return MotionStats.of(motion)


def seconds(motion: Motion) -> torch.Tensor:
    return torch.arange(len(motion), dtype=torch.float64) / motion.fps


def openings(motion: Motion) -> np.ndarray:
    return opening_change(motion.face).numpy()


def gaps(motion: Motion) -> np.ndarray:
    """[T, 7] between the inner lips, from near the right corner to near the left one."""
    phase = 2 * np.pi * np.arange(2, 9) / 20
    sines = np.stack([np.sin(k * phase) for k in (1, 2, 3)])
    return 2 * motion.face[:, [CHANNEL_INDEX[f"lip_inner_y_sin{k}"] for k in (1, 2, 3)]].numpy() @ sines


def widest(motion: Motion) -> float:
    return float(np.quantile(openings(motion), 0.95))


# --- lips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_lips_open_as_much_more_and_still_close(said: tuple[Motion, np.ndarray], profile: MotionStats, scale: float):
    motion, closed = said
    louder = scale_lips(motion, scale, profile)
    assert widest(louder) == pytest.approx(scale * widest(motion), rel=0.1)
    assert np.corrcoef(openings(louder), openings(motion))[0, 1] > 0.99
    assert gaps(motion)[closed].max() < TOUCH  # the test itself
    assert gaps(louder)[closed].max() < TOUCH
    assert openings(louder).min() > openings(motion).min() - 0.02  # and do not pass through each other
    torch.testing.assert_close(louder.face[:, list(UPPER_CHANNELS)], motion.face[:, list(UPPER_CHANNELS)])


def test_lip_scale_one_changes_nothing(motion: Motion, profile: MotionStats):
    same = scale_lips(motion, 1.0, profile)
    torch.testing.assert_close(same.face, motion.face, atol=1e-5, rtol=0)
    torch.testing.assert_close(same.arkit, motion.arkit)


# --- expression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMOTIONS)
def test_an_emotion_moves_its_coefficients_and_the_face(
    said: tuple[Motion, np.ndarray], profile: MotionStats, name: str
):
    motion, closed = said
    shown = Expression(Mix.parse(f"{name}:0.7"), profile, FaceMap.fit(motion))(motion, torch.ones(len(motion)))
    moved = (shown.arkit - motion.arkit).mean(0)
    for part, value in EMOTIONS[name].items():
        sides = [part] if part in INDEX else [f"{part}Left", f"{part}Right"]
        for side in sides:
            assert moved[INDEX[side]] > 0.5 * 0.7 * value * (part not in ("jawOpen", "mouthUpperUp"))
    assert (shown.face - motion.face).norm(dim=1).median() > 0.1
    assert gaps(shown)[closed].max() < TOUCH
    assert float(shown.arkit.max()) <= 1


def test_the_face_shows_what_the_emotion_is(motion: Motion, profile: MotionStats):
    """In the geometry, that is: corners go up and apart in a smile, and down in sorrow; brows rise, or come down."""
    face_map = FaceMap.fit(motion)

    def change(text: str) -> dict[str, float]:
        shown = Expression(Mix.parse(text), profile, face_map, limit=3)(profile.rest, torch.ones(1))
        return {name: float((shown.face - profile.rest.face)[0, i]) for name, i in CHANNEL_INDEX.items()}

    def corners_rise(c: dict[str, float]) -> float:  # y of the corners against that of the middle of the lips
        return -(c["lip_outer_y_cos2"])

    happy, sad = change("happy"), change("sad")
    assert corners_rise(happy) > 0.1 and corners_rise(sad) < -0.05
    assert -happy["lip_outer_x_cos1"] > 0.1  # the contour begins at the right corner: x there is negative
    brows = [f"brow_{side}_{part}_y" for side in ("left", "right") for part in ("inner", "outer")]
    assert all(change("surprised")[name] < -0.1 for name in brows)
    assert all(change("angry")[name] > 0.1 for name in brows if "inner" in name)


def test_regions_mixtures_and_limits(motion: Motion, profile: MotionStats):
    face_map, full = FaceMap.fit(motion), torch.ones(1)

    def face(text: str, limit: float = 1.0) -> torch.Tensor:
        return (Expression(Mix.parse(text), profile, face_map, limit)(profile.rest, full).face - profile.rest.face)[0]

    lips, rest = list(LIP_CHANNELS), list(UPPER_CHANNELS)
    assert face("surprised/upper")[lips].abs().max() < 0.02 < face("surprised/upper")[rest].abs().max()
    assert face("sad/lower")[rest].abs().max() < 1e-6
    mixed = Mix.parse("happy:0.5+surprised:0.3").arkit()
    torch.testing.assert_close(mixed, Mix.parse("happy:0.5").arkit() + Mix.parse("surprised:0.3").arkit())
    assert face("surprised", 0.1)[rest].norm() < 0.3 * face("surprised", 2)[rest].norm()
    assert face("happy", 0).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("text", "word"),
    [("furious", "happy, sad"), ("happy:much", "strength"), ("happy:-1", "strength"), ("happy/left", "upper"),
     ("", "happy"), ("happy:0.5+", "happy"), ("happy:nan", "strength")],
)  # fmt: skip
def test_bad_emotions_are_named(text: str, word: str):
    with pytest.raises(AvatarError, match=word):
        Mix.parse(text)


def test_the_map_of_a_person_is_learned_where_there_is_data(motion: Motion):
    """Somebody whose jaw goes down half as far as the canonical one, and who never smiles."""
    small = FaceMap.generic().matrix.clone()
    small[INDEX["jawOpen"]] *= 0.5
    track = motion.map(face=motion.arkit @ small + 0.05)
    fitted = FaceMap.fit(track)
    assert float((fitted(track.arkit) - track.face).abs().mean()) < 0.02
    jaw = CHANNEL_INDEX["jaw_y"]
    assert fitted.matrix[INDEX["jawOpen"], jaw] < 0.85 * FaceMap.generic().matrix[INDEX["jawOpen"], jaw]
    frown = INDEX["mouthFrownLeft"]
    torch.testing.assert_close(fitted.matrix[frown], FaceMap.generic().matrix[frown])


def test_the_stored_map_is_that_of_the_canonical_face():
    from pipelines.arkit_map import table
    from tests.media import need_landmarker

    need_landmarker()
    np.testing.assert_allclose(FaceMap.generic().matrix.numpy(), table(), atol=6e-4)


# --- pose, blinks, gaze ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_pose_scale_is_about_the_mean_pose(motion: Motion, profile: MotionStats, scale: float):
    scaled = scale_pose(motion, scale, profile)
    for name in ("head_rotation", "head_translation", "torso_translation"):
        torch.testing.assert_close(
            getattr(scaled, name).std(0), scale * getattr(motion, name).std(0), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(getattr(scaled, name).mean(0), getattr(motion, name).mean(0), atol=1e-4, rtol=0)


def count_blinks(track: Motion) -> int:
    shut = track.arkit[:, EYES].mean(1).numpy() > 0.4
    return int(np.sum(shut[1:] & ~shut[:-1]))


@pytest.mark.parametrize("rate", [0, 6, 20, 40])
def test_blinks_come_at_the_rate_asked_for(motion: Motion, profile: MotionStats, rate: float):
    assert len(profile.blinks) > 2
    minutes = 3
    long = motion[torch.arange(round(minutes * 60 * FPS)) % len(motion)]
    blinking = Blinks(rate, profile, seed=1)(long, seconds(long))
    assert abs(count_blinks(blinking) - rate * minutes) <= 1
    if rate:
        own = max(float(b.face[:, LIDS].min()) for b in profile.blinks)
        assert float(blinking.face[:, LIDS].min()) < 0.7 * own  # the lids close, too
    else:
        assert float(blinking.face[:, LIDS].min()) > float(profile.rest.face[0, LIDS].min()) - 1e-4
    other = [c for c in range(motion.arkit.shape[1]) if c not in EYES]
    torch.testing.assert_close(blinking.arkit[:, other], long.arkit[:, other])


def test_somebody_who_never_blinked_can(motion: Motion):
    awake = motion.map(arkit=motion.arkit.index_fill(1, torch.tensor(EYES), 0.05))
    blinking = Blinks(20, MotionStats.of(awake))(awake, seconds(awake))
    assert count_blinks(blinking) == pytest.approx(20 * len(motion) / FPS / 60, abs=1.5)
    assert float(blinking.face[:, LIDS].min()) < -0.3


def test_eyes_look_where_they_are_told(motion: Motion, profile: MotionStats):
    looking = Gaze(profile, (12.0, -8.0))(motion, seconds(motion))
    np.testing.assert_allclose(np.degrees(looking.gaze.numpy()), np.tile([12.0, -8.0], (len(motion), 1)), atol=1e-4)
    left, down = INDEX["eyeLookOutLeft"], INDEX["eyeLookDownLeft"]
    assert (looking.arkit - motion.arkit)[:, [left, down]].mean(0).min() > 0.1
    assert (looking.face - motion.face)[:, LIDS].mean() < 0  # the lids go down with the eyes


def test_eyes_hold_a_moving_camera_while_the_head_turns(motion: Motion, profile: MotionStats):
    source, path = Camera.source(500.0, 100, 100, 200, 200), CameraPath.parse("orbit")
    pivot = profile.rest.head_translation[0]

    def place(t: float) -> torch.Tensor:
        return path.camera(source, pivot, t).position

    held = Gaze(profile, None, place)(motion, seconds(motion))
    yaw, pitch = held.gaze.double().unbind(1)
    eyes = torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), -yaw.cos() * pitch.cos()], 1)
    seen = (axis_angle_to_matrix(held.head_rotation.double()) @ eyes[..., None])[..., 0]
    wanted = torch.stack([place(t) for t in seconds(motion).tolist()]) - motion.head_translation
    angle = torch.rad2deg(torch.acos(torch.cosine_similarity(seen, wanted.double(), 1).clamp(-1, 1)))
    assert float(angle.quantile(0.9)) < 1.5
    assert float(motion.head_rotation.std(0).norm()) > 0.05 < float(held.gaze.std(0).norm())
    aside = Gaze(profile, None, lambda _: torch.tensor([300.0, 0.0, 70.0]))(motion, seconds(motion))
    assert float(aside.gaze[:, 0].max()) <= math.radians(30) + 1e-6  # beyond that the head would have to turn


# --- time -----------------------------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_how_blocks_are_cut(motion: Motion, profile: MotionStats):
    expression = Expression(Mix.parse("happy:0.7"), profile, FaceMap.fit(motion))
    span = timeline.Span(control="emotion", value="", start=1.0, end=3.0, fade=0.3)
    edits = [
        lambda block, _: scale_lips(block, 1.4, profile),
        lambda block, t: expression(block, span.weight(t)),
        Blinks(25, profile, seed=2),
        Gaze(profile, None, lambda t: torch.tensor([10 * t, 0.0, 0.0])),
    ]

    def run(sizes: list[int]) -> Motion:
        layers = MotionLayers(
            fps=FPS, lead=10, base=None, sources=(), pose_edits=(), face_edits=edits, idle=lambda block, _: block
        )
        return Motion.cat([layers.compose(motion[a:b], int(a)) for a, b in pairwise(np.cumsum([0, *sizes]))])

    whole, pieces = run([200]), run([1, 3, 50, 146])
    for name in ("arkit", "face", "gaze", "head_rotation"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), atol=1e-5, rtol=0)


def test_a_span_has_full_effect_inside_and_none_outside():
    span = timeline.Span(control="emotion", value="", start=1.0, end=3.0, fade=0.5)
    weights = span.weight(torch.tensor([0.4, 0.75, 1.0, 2.0, 3.0, 3.25, 3.6], dtype=torch.float64))
    torch.testing.assert_close(weights, torch.tensor([0, 0.5, 1, 1, 1, 0.5, 0]), atol=1e-6, rtol=0)
    assert timeline.Span(control="gaze", value="").weight(torch.tensor([-5.0, 1e6])).tolist() == [1, 1]


def test_idle_begins_and_ends_without_a_jump(motion: Motion, profile: MotionStats):
    class Lips:
        """Begins and ends in the middle of a word."""

        def push(self, samples: np.ndarray) -> Motion:
            return motion[30:60]

        def finish(self) -> Motion:
            return motion[60:90]

    rest = profile.rest
    speech = PausedSpeech(Lips(), rest, 40, 100, FPS)
    track = Motion.cat([speech.push(np.zeros(1)), speech.finish()])
    assert len(track) == 140
    torch.testing.assert_close(track.face[40:100], motion.face[30:90])
    torch.testing.assert_close(track.face[[0, -1]], rest.face[[0, 0]])
    step = track.face[:, list(LIP_CHANNELS)].diff(dim=0).norm(dim=1).numpy()
    inside = step[41:98].max()
    assert max(step[25:42].max(), step[97:115].max()) <= inside
    alone = PausedSpeech(None, rest, 0, 500, FPS).finish()
    assert len(alone) == 500 and float(alone.face.std(0).max()) < 1e-6


def test_options_become_spans():
    words = [(0.5, 0.8, "hello"), (1.0, 1.4, "there"), (2.0, 2.3, "Hello")]
    assert [(s.start, s.end) for s in timeline.from_option("lip-scale", "1.5", words)] == [(-math.inf, math.inf)]
    assert [(s.start, s.end) for s in timeline.from_option("lip-scale", "1.5@2.0-3.5")] == [(2.0, 3.5)]
    assert [(s.start, s.end) for s in timeline.from_option("gaze", "5,-3@4-")] == [(4.0, math.inf)]
    assert [(s.start, s.end) for s in timeline.from_option("lip-scale", "2@hello", words)] == [(0.5, 0.8), (2.0, 2.3)]
    for control, text, word in (
        ("lip-scale", "2@bye", "No words"), ("lip-scale", "4", "from 0 to 3"), ("lip-scale", "loud", "number"),
        ("blink", "-2", "from 0 to 60"), ("gaze", "left", "camera"), ("gaze", "80,0", "camera"),
        ("gaze", "80,0", "by 30 degrees to the side at most, and by 25"),
        ("pose-scale", "nan", "number"), ("lip-scale", "1@3-2", "before"), ("emotion", "glad@1-2", "Known are"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=word):
            timeline.from_option(control, text)


def test_a_timeline_survives_its_file(tmp_path: Path):
    spans = [
        *timeline.from_option("emotion", "happy:0.5+sad:0.2/upper@1-2.5"),
        *timeline.from_option("pose", "still"),
        *timeline.from_option("blink", "12@-4"),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(timeline.to_json(spans)))
    assert timeline.load(path) == spans


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[]", "not a timeline"),
        ('{"format": "other"}', "not a timeline"),
        ("{", "cannot be read as JSON"),
        ([3], "span 0 is not an object"),
        ([{"control": "blink", "value": 3}, {"control": "smile", "value": 1}], "span 1: there is no control 'smile'"),
        ([{"control": "blink"}], "span 0: control or value"),
        ([{"control": "blink", "value": 3, "from": 2}], "span 0: unknown from"),
        ([{"control": "blink", "value": 3, "start": "2"}], "span 0: (start|end|fade) is"),
        ([{"control": "blink", "value": 3, "start": 2, "end": 1}], "span 0: the start"),
        ([{"control": "emotion", "value": "glad"}], "span 0: There is no emotion 'glad'"),
    ],
)
def test_bad_timelines_name_the_entry(tmp_path: Path, content: object, word: str):
    path = tmp_path / "t.json"
    spans = {"format": timeline.FORMAT, "spans": content}
    path.write_text(content if isinstance(content, str) else json.dumps(spans))
    with pytest.raises(AvatarError, match=word):
        timeline.load(path)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"blink": "20"}, "blink=('20',)"),  # not 2 and 0
        ({"lip_scale": "12"}, "lip_scale=('12',)"),
        ({"blink": (20,)}, "blink=('20',)"),
        ({"pose": (Path("nod.csv"),)}, "pose=('nod.csv',)"),
        ({"pose": Path("nod.csv")}, "pose=('nod.csv',)"),
        ({"gaze": None}, "gaze="),
    ],
)
def test_timed_controls_are_tuples_of_strings(wrong: dict[str, Any], right: str):
    for ask in (Controls(**wrong).check, Controls(**wrong).spans):
        with pytest.raises(AvatarError, match="no tuple of strings") as refused:
            ask()
        assert right in str(refused.value)
    kind: Any = Controls
    kind(blink=["20"], pose=["still"]).check()  # a list does no harm


@pytest.mark.parametrize(
    ("content", "word"),
    [("[]", "not a file of words"), ('{"words": [[1, 2]]}', "word 0"), ('{"unit": "frames", "words": []}', "seconds")],
)
def test_bad_words(tmp_path: Path, content: str, word: str):
    path = tmp_path / "w.json"
    path.write_text(content)
    with pytest.raises(AvatarError, match=word):
        timeline.load_words(path)


def test_mouth_and_lips_go_together(motion: Motion, profile: MotionStats):
    """What is written for other programs says the same as what is rendered."""
    louder = scale_lips(motion, 1.6, profile)
    jaw = INDEX["jawOpen"]
    assert float(louder.arkit[:, jaw].quantile(0.9)) > 1.3 * float(motion.arkit[:, jaw].quantile(0.9))
    assert [i for i in range(len(ARKIT)) if not torch.equal(louder.arkit[:, i], motion.arkit[:, i])] == [
        i for i in MOUTH if float(motion.arkit[:, i].std()) > 0
    ]
