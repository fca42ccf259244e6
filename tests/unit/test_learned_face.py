"""Which face of a recording is learned."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.io.video import VideoInfo
from avatar.motion.face_channels import LIPS_INNER
from avatar.preprocess import learned_face as module
from avatar.preprocess import speaker as speaker_module
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.faces import STILL, Person, ProbedFace, distinct, group, lasting, shape_change
from avatar.preprocess.ingest import frame_head
from avatar.preprocess.landmarker import Face, Landmarker
from avatar.preprocess.learned_face import PROBE_FRAMES, Probe, Samples, learned_face
from avatar.preprocess.speaker import SPANS, TALKS, Mouth, choose, span_starts, watch
from tests.media import need_landmarker, portrait, with_open_mouth
from tests.person import canonical_shape

INFO = VideoInfo(
    path=Path("v.mp4"), width=1280, height=720, rotation=0, fps=Fraction(25), start=0, duration=10, num_frames=250,
    variable_rate=False, has_audio=True,
)  # fmt: skip
SMALL = replace(INFO, width=600, height=500)  # nobody who could be learned hides in it


@functools.lru_cache
def neutral() -> np.ndarray:
    """The neutral face, one high."""
    shape = canonical_shape().astype(np.float64)
    return shape / np.ptp(shape[:, 1])


def view(
    x: float, y: float, height: float, *, mouth: float = 0.0, turn: float = 0.0, noise: float = 0.0, seed: int = 0
) -> Face:
    """A face whose middle is at x and y: lips open by ``mouth`` face heights, turned by radians, landmarks noisy."""
    points = neutral().copy()
    points[LIPS_INNER[1:10], 1] += mouth / 2
    points[LIPS_INNER[11:], 1] -= mouth / 2
    points[:, 0] = points[:, 0] * np.cos(turn) + points[:, 2] * np.sin(turn)
    points += np.random.default_rng(seed).normal(0, noise, points.shape)
    points = points * height - [*(points[:, :2].min(0) + points[:, :2].max(0)) * height / 2, 0] + [x, y, 0]
    return Face(landmarks=points.astype(np.float32), arkit=np.zeros(52, np.float32))


def speaker(x: float, y: float, height: float, count: int = PROBE_FRAMES) -> list[Face]:
    time = np.arange(count)
    return [
        view(x + 3 * np.sin(t), y, height, mouth=0.04 + 0.04 * np.sin(2.3 * t), turn=0.2 * np.sin(t / 2), seed=t)
        for t in time
    ]


def listener(x: float, y: float, height: float, count: int = PROBE_FRAMES) -> list[Face]:
    return [view(x, y + 2 * np.cos(t), height, turn=0.2 * np.sin(t / 2), seed=t) for t in range(count)]


def picture(x: float, y: float, height: float, count: int = PROBE_FRAMES, pan: float = 0.0) -> list[Face]:
    return [view(x + pan * t, y, height * (1 + 0.002 * pan * t), noise=0.002, seed=t) for t in range(count)]


def merged(*people: list[Face]) -> Samples:
    """What is found in each probe, largest first."""
    return [sorted(faces, key=lambda face: -face.height) for faces in map(list, zip(*people, strict=True))]


def chosen(
    monkeypatch: pytest.MonkeyPatch, *people: list[Face], first: Samples | None = None, **options: str
) -> module.LearnedFace:
    """Choose among people; ``first`` is what the first look finds of them."""
    whole = merged(*people)

    def watched(frames: object, info: object, found: list[Person], voice: object) -> list[Mouth]:
        """The same movement from frame to frame as from probe to probe."""
        return [Mouth(person=person, spans=[person.landmarks[:12]] * SPANS) for person in found]

    monkeypatch.setattr(Probe, "first_look", lambda self: whole if first is None else first)
    monkeypatch.setattr(Probe, "search", lambda self, samples: whole)
    monkeypatch.setattr(module, "watch", watched)
    monkeypatch.setattr(module.video, "read_frames", lambda info: iter(()))
    return learned_face(INFO, PrepareConfig(**options), lambda: np.zeros(0, np.float32))


def refused(monkeypatch: pytest.MonkeyPatch, *people: list[Face], **options: str) -> str:
    with pytest.raises(AvatarError) as error:
        chosen(monkeypatch, *people, **options)
    return str(error.value)


def test_a_face_that_looks_like_two_peoples_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [ProbedFace(landmarks=f.landmarks, arkit=f.arkit, colour=np.ones(3)) for f in speaker(400, 300, 200)]
    monkeypatch.setattr(Probe, "first_look", lambda self: [[face] for face in seen])
    for others, kinds in ((np.arange(PROBE_FRAMES) < 12, ["two-people"]), (None, [])):
        monkeypatch.setattr(module, "second_person", lambda landmarks, colours, others=others: others)
        face = learned_face(SMALL, PrepareConfig(), lambda: np.zeros(0, np.float32))
        assert [treatment.kind for treatment in face.treatments] == kinds
        assert all("in 12 of 40" in treatment.text for treatment in face.treatments)


def test_somebody_alone_who_talks_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    views = speaker(400, 300, 200)
    for name in ("search", "first_look"):
        monkeypatch.setattr(Probe, name, lambda *_: pytest.fail("looked again"))
    monkeypatch.setattr(Probe, "first_look", lambda self: [[face] for face in views])
    face = learned_face(SMALL, PrepareConfig(), lambda: pytest.fail("listened"))
    assert face.place is None and face.treatments == () and len(face.boxes) == PROBE_FRAMES


def test_a_still_picture_larger_than_the_speaker_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look finds the picture alone, because the speaker is small."""
    still, person = picture(300, 350, 340), speaker(1100, 600, 150)
    face = chosen(monkeypatch, still, person, first=merged(still))
    assert face.place is not None and abs(face.place[0] - 1100) < 5 and abs(face.height - 150) < 5
    (told,) = face.treatments
    assert told.kind == "face" and "moves and speaks" in told.text and "the still face at 300,350" in told.text
    assert "--face" in told.text


def test_small_faces_are_looked_for_everywhere_where_somebody_was_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speaker is found now and then at first, in every tile; a thing that looks like a face now and then is not."""
    still, person = picture(300, 350, 340), speaker(1100, 600, 150)
    first = [[a, b] if k % 3 == 0 else [a] for k, (a, b) in enumerate(zip(still, person, strict=True))]
    calls: list[str] = []

    def looked(everybody: Samples) -> Samples:
        def find(self: Probe, detect: object, title: str, count: int = PROBE_FRAMES) -> Samples:
            calls.append(title)
            return everybody[:: PROBE_FRAMES // count]

        monkeypatch.setattr(Probe, "find", find)
        calls.clear()
        return Probe(info=INFO).search(first)

    monkeypatch.setattr(module, "Landmarker", lambda num_faces: nullcontext())
    assert len(looked(merged(still, person))[1]) == 2 and len(calls) == 2
    seldom = [[a, b] if k % 15 == 0 else [a] for k, (a, b) in enumerate(zip(still, person, strict=True))]
    assert len(looked(seldom)[1]) == 1 and len(calls) == 1


def test_a_large_listener_does_not_hide_a_small_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look finds somebody alone who smiles and nods, in a picture with room for others."""
    smiles = [view(500, 350, 400, mouth=0.06 * (k // 8 % 2), turn=0.2 * np.sin(k / 2), seed=k) for k in range(40)]
    person = speaker(1100, 600, 150)

    def watched(frames: object, info: object, found: list[Person], voice: object) -> list[Mouth]:
        return [Mouth(person=p, spans=[p.landmarks[:8] if p.height > 300 else p.landmarks[:25]] * SPANS) for p in found]

    first = merged(smiles)
    assert module._plain(lasting(group(first)), has_audio=True)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(Probe, "first_look", lambda self: first)
    monkeypatch.setattr(Probe, "search", lambda self, samples: merged(smiles, person))
    monkeypatch.setattr(module, "watch", watched)
    monkeypatch.setattr(module.video, "read_frames", lambda info: iter(()))
    face = learned_face(INFO, PrepareConfig(), lambda: np.zeros(0, np.float32))
    assert face.place is not None and abs(face.place[0] - 1100) < 5


def test_pictures_on_slides_that_change_are_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One portrait after another in the same place looks like a face that changes its shape now and then."""
    slides = [
        view(300, 350, 340, mouth=0.05 * (k // 14), turn=0.3 * (k // 14), noise=0.001, seed=k)
        for k in range(PROBE_FRAMES)
    ]
    person = speaker(1100, 600, 150)
    assert shape_change(group(merged(slides))[0].landmarks) > STILL and group(merged(slides))[0].still
    face = chosen(monkeypatch, slides, person, first=merged(slides))
    assert face.place is not None and abs(face.place[0] - 1100) < 5


def test_a_calm_speaker_is_no_still_picture() -> None:
    """A face of few pixels that hardly moves, but for the lips."""
    calm = [view(900, 400, 110, mouth=0.012 * (k % 2), noise=0.001, seed=k) for k in range(PROBE_FRAMES)]
    people = group(merged(listener(300, 300, 220), calm))
    assert [person.still for person in people] == [False, True]
    spans = [[view(900, 400, 110, mouth=0.03 * (k % 2)).landmarks for k in range(25)]] * SPANS
    mouths = [
        Mouth(person=people[0], spans=[people[0].landmarks[:12]] * SPANS),
        Mouth(person=people[1], spans=[np.stack(span) for span in spans]),
    ]
    assert choose(mouths, Path("v.mp4"))[0] is people[1]


def test_a_face_that_is_found_twice_is_one() -> None:
    twice = [view(1120, 593, 139), view(1138, 595, 138), view(300, 300, 100)]
    assert distinct(twice) == [twice[0], twice[2]]


@pytest.mark.parametrize("pan", [0.0, 3.0])
def test_pictures_are_still_however_they_are_panned_and_enlarged(pan: float) -> None:
    (still,) = group([[face] for face in picture(300, 350, 200, pan=pan)])
    (person,) = group([[face] for face in listener(300, 350, 200)])
    assert still.still and not person.still
    assert shape_change(person.landmarks) > 2 * shape_change(still.landmarks)


def test_a_picture_that_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    still, person = picture(300, 350, 340), speaker(1100, 600, 150)
    samples = [[a, b] if 10 <= k < 25 else [b] for k, (a, b) in enumerate(zip(still, person, strict=True))]
    monkeypatch.setattr(Probe, "first_look", lambda self: samples)
    monkeypatch.setattr(Probe, "search", lambda self, samples: samples)
    people = lasting(group(samples))
    assert [person.still for person in people] == [False, True]
    monkeypatch.setattr(module, "watch", lambda *_: [Mouth(person=p, spans=[p.landmarks[:12]] * SPANS) for p in people])
    monkeypatch.setattr(module.video, "read_frames", lambda info: iter(()))
    face = learned_face(INFO, PrepareConfig(), lambda: np.zeros(0, np.float32))
    assert face.place is not None and abs(face.place[0] - 1100) < 5


def test_of_two_people_the_one_who_speaks_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    face = chosen(monkeypatch, listener(300, 300, 220), speaker(900, 300, 200))
    assert face.place is not None and abs(face.place[0] - 900) < 5


def test_a_smaller_face_that_speaks_as_well_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film on a slide may be larger than whom the voice belongs to; one too small to be learned does not matter."""
    assert "2 faces that speak" in refused(monkeypatch, speaker(300, 300, 240), speaker(1100, 600, 100))
    face = chosen(monkeypatch, speaker(300, 300, 240), speaker(1100, 600, 55))
    assert face.place is not None and abs(face.place[0] - 300) < 5
    assert "the largest" in face.treatments[0].text


def test_two_who_both_speak_are_refused_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    people = speaker(300, 300, 200), speaker(900, 310, 190)
    said = refused(monkeypatch, *people)
    assert "2 faces that speak" in said and "--face 300,300 or --face 900,310" in said
    for wanted, x in (("1", 300), ("2", 900), ("850,250", 900), ("310,500", 300)):
        face = chosen(monkeypatch, *people, face=wanted)
        assert face.place is not None and abs(face.place[0] - x) < 5
        assert f"--face {wanted}" in face.treatments[0].text
    assert "There is no face 3" in refused(monkeypatch, *people, face="3")
    said = refused(monkeypatch, *people, face="1270,710")
    assert "no face near 1270,710" in said and "the face at 900,310" in said


def test_a_speaker_who_is_too_small_is_refused_and_the_other_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, picture(300, 350, 340), speaker(1100, 600, 50))
    assert "The face at 1100,600" in said and "only 50 pixels" in said and "--face 300,350" in said
    face = chosen(monkeypatch, picture(300, 350, 340), speaker(1100, 600, 50), face="300,350")
    assert face.height > 300


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([[]] * 40, "No face was found.*--crop"),
        ([[face] for face in speaker(300, 200, 120, 15)] + [[]] * 25, "only 15 of 40"),
        ([[face] for face in speaker(300, 200, 50)], "only 50 pixels"),
    ],
)
def test_unsuitable_faces_are_refused(monkeypatch: pytest.MonkeyPatch, samples: Samples, words: str) -> None:
    monkeypatch.setattr(Probe, "first_look", lambda self: samples)
    monkeypatch.setattr(Probe, "search", lambda self, samples: samples)
    with pytest.raises(AvatarError, match=words):
        learned_face(INFO, PrepareConfig(), lambda: np.zeros(0, np.float32))


def test_one_person_in_two_shots_is_one_person() -> None:
    """Cuts with a change of zoom, and back."""
    near, far = speaker(600, 350, 400), speaker(500, 300, 180)
    (person,) = lasting(group([[near[k] if k // 8 % 2 else far[k]] for k in range(PROBE_FRAMES)]))
    assert len(person.views) == PROBE_FRAMES
    (person,) = lasting(group([[far[k] if k < PROBE_FRAMES // 4 else near[k]] for k in range(PROBE_FRAMES)]))
    assert np.allclose(person.usual, (600, 350, 400), rtol=0.1), "where most of them are, not in between"


def test_a_guest_in_a_cutaway_does_not_enlarge_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two probes of 40 show somebody else at the left edge: alone, and beside a picture that is not learned."""
    info = replace(INFO, width=1920, height=1080)
    person = speaker(1000, 400, 200)
    with_guest = [view(150, 420, 210, seed=k) if k in (13, 27) else face for k, face in enumerate(person)]
    still = picture(1700, 800, 220)
    sides = []
    for people in ([person], [with_guest], [person, still], [with_guest, still]):
        face = chosen(monkeypatch, *people)
        assert abs(face.usual[0] - 1000) < 5
        sides.append(frame_head(info.width, info.height, face.boxes, face.height).side)
    assert sides[1] == sides[0] < 520 and sides[3] == sides[2] < 520


def test_the_whole_way_of_one_person_is_in_the_crop() -> None:
    """Who walks on between the probes, and who sits elsewhere for a fifth of the time, is the same person."""
    walks = [view(300 + 250 * (k if k < 4 else 0), 350, 200, seed=k) for k in range(PROBE_FRAMES)]
    moves = [view(900 if k > 32 else 300, 350, 200, seed=k) for k in range(PROBE_FRAMES)]
    leans = [view(400, 350, 200 + 110 * (k == 20), seed=k) for k in range(PROBE_FRAMES)]
    for views in (walks, moves, leans):
        person = Person(views=dict(enumerate(views)))
        np.testing.assert_array_equal(person.own_boxes, person.boxes)


def test_the_last_part_is_watched_to_its_end_at_every_frame_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    (face,) = speaker(600, 350, 400)[:1]
    monkeypatch.setattr(speaker_module, "SPANS", 2)
    monkeypatch.setattr(speaker_module, "Landmarker", lambda **_: nullcontext())
    monkeypatch.setattr(speaker_module, "_found", lambda *_: [face])
    monkeypatch.setattr(speaker_module, "follow", lambda *_: face)
    for fps in (25, 30, 50, 60):
        info = replace(INFO, fps=Fraction(fps), num_frames=8 * fps)
        frames = iter([np.zeros((4, 4, 3), np.uint8)] * info.num_frames)
        (mouth,) = watch(frames, info, [Person(views={0: face})], np.zeros(0, np.float32))
        assert len(mouth.spans) == 2, fps


def test_mouths_are_watched_in_frames_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large still portrait, and the same one, smaller and turned about, whose lips move."""
    need_landmarker()
    monkeypatch.setattr(speaker_module, "SPANS", 2)
    still, fps = portrait(), 10
    frames = []
    for k in range(4 * fps):
        small = cv2.resize(with_open_mouth(still, 5 + 5 * np.sin(2.4 * k)), (192, 192), interpolation=cv2.INTER_AREA)
        frames.append(np.concatenate([still, np.pad(small[:, ::-1], ((0, 64), (0, 64), (0, 0)), mode="edge")], 1))
    info = replace(INFO, width=512, height=256, fps=Fraction(fps), num_frames=len(frames))
    with Landmarker(num_faces=4) as landmarker:
        people = group([landmarker.detect(frame) for frame in frames[::8]])
    voice = np.zeros(4 * 16000, np.float32)
    mouths = watch(iter(frames), info, people, voice)
    moved = {mouth.person.centre[0] > 256: mouth.movement for mouth in mouths}
    assert moved[True] > 2 * TALKS > 4 * moved[False]
    person, why = choose(mouths, Path("v.mp4"))
    assert person.centre[0] > 256 and "moves and speaks" in why


def test_the_loudest_second_of_each_part_is_watched() -> None:
    voice = np.zeros(8 * 16000, np.float32)
    voice[int(2.5 * 16000) : int(3.5 * 16000)] = voice[int(6.25 * 16000) : int(7.25 * 16000)] = 0.1
    assert span_starts(8.0, voice, 2) == [2.5, 6.25]
    silent = span_starts(8.0, np.zeros(0, np.float32), 2)
    assert len(silent) == 2 and silent[0] < 3 < 4 < silent[1]
    assert len(span_starts(3.2, voice, 8)) == 3
