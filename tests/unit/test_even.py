"""Points that cover a density evenly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from avatar.geometry.even import candidates, evenly

RNG = np.random.default_rng(0)


def test_points_leave_no_gap_and_are_as_dense_as_asked():
    places = RNG.uniform(0, 1, (candidates(2000), 2))
    places = places[(places[:, 0] < 0.5) | (RNG.uniform(size=len(places)) < 0.25)]  # four times as dense on the left
    count = 1000
    points = places[evenly(places, count)]
    assert len(np.unique(points, axis=0)) == count
    assert (points[:, 0] < 0.5).mean() == pytest.approx(0.8, abs=0.04)
    left = points[points[:, 0] < 0.5]
    spacing = np.sqrt(0.5 / len(left))
    everywhere = RNG.uniform(0, (0.48, 1), (5000, 2))
    gap = np.quantile(KDTree(left).query(everywhere)[0], 0.99) / spacing
    at_random = KDTree(RNG.uniform(0, (0.5, 1), (len(left), 2))).query(everywhere)[0]
    assert gap < 0.8 < 1.0 < np.quantile(at_random, 0.99) / spacing


def test_many_places_at_one_point_still_give_as_many():
    places = np.concatenate([np.zeros((500, 2)), RNG.uniform(0, 1, (20, 2))])
    assert len(evenly(places, 40)) == 40


def test_few_places_are_all_that_there_is():
    places = RNG.uniform(0, 1, (5, 3))
    assert sorted(evenly(places, 9)) == list(range(5))
