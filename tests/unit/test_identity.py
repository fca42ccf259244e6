"""Whether the face of a recording is one person's."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.preprocess.identity import second_person
from tests.person import canonical_shape


def views(seed: int, count: int, colour: float) -> tuple[np.ndarray, np.ndarray]:
    """Somebody with a face of his own who turns, nods and comes near; landmarks [N, 478, 3] and colours [N, 3]."""
    rng = np.random.default_rng(seed)
    own = canonical_shape() * [1.0, -1.0, -1.0] * rng.uniform(0.9, 1.1, 3)
    landmarks = []
    for turn in rng.uniform(-0.4, 0.4, count):
        cos, sin = np.cos(turn), np.sin(turn)
        points = own @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]) * rng.uniform(8, 12)
        landmarks.append(points + rng.normal(0, 0.3, points.shape) + [*rng.uniform(100, 300, 2), 0])
    return np.array(landmarks, np.float32), colour * rng.normal(1, 0.01, (count, 1)) * np.array([1.0, 0.8, 0.7])


def test_two_people_in_turn_are_noticed() -> None:
    (one, light), (other, dark) = views(1, 25, 180), views(2, 12, 120)
    found = second_person(np.concatenate([one, other]), np.concatenate([light, dark]))
    assert found is not None and found.tolist() == [False] * 25 + [True] * 12


@pytest.mark.parametrize("seed", range(4))
def test_one_person_who_moves_is_one(seed: int) -> None:
    assert second_person(*views(seed, 40, 150)) is None


def test_other_light_alone_makes_no_other_person() -> None:
    landmarks, colours = views(3, 40, 150)
    colours[20:] *= 0.6
    assert second_person(landmarks, colours) is None


def test_a_few_views_tell_nothing() -> None:
    assert second_person(*views(1, 5, 150)) is None
