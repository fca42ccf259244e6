"""Which part of a video is held out from training."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.preprocess import held_out

FPS = 25.0


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (3600, 360),
        (270, 27),
        (150, 15),
        (71.16, 15),
        (50, 15),
        (46.76, 14.04),
        (34, 10.2),
        (33, 3.3),
        (20, 2),
        (6, 0.6),
    ],
)
def test_a_tenth_is_held_out_or_enough_to_judge_lips_by(seconds: float, wanted: float) -> None:
    frames = round(seconds * FPS)
    first = held_out.first_held_out(np.ones(frames, bool), FPS)
    assert (frames - first) / FPS == pytest.approx(wanted, abs=0.6 / FPS)
    told = held_out.held_out_text(frames, first, FPS)
    assert (told is None) == (seconds >= 150 or seconds < 34)
    assert told is None or f"{wanted:.1f} s (" in told


def test_only_frames_that_show_somebody_speaking_count() -> None:
    useful = np.ones(2500, bool)
    useful[-8 * 25 :] = False  # a black outro
    assert held_out.first_held_out(useful, FPS) == 2500 - 23 * 25
    useful[-17 * 25 :] = False  # 13 s are left of what may be held out
    assert held_out.first_held_out(useful, FPS) == 2500 - 30 * 25
    useful[-21 * 25 :] = False  # 9 s: lips cannot be judged, so that no more is taken than a tenth
    assert held_out.first_held_out(useful, FPS) == 2500 - 10 * 25
    assert held_out.first_held_out(useful & False, FPS) == 2500 - 10 * 25
    assert held_out.first_held_out(np.ones(1, bool), FPS) == 0


def test_the_user_may_choose_the_length() -> None:
    for seconds, first in ((5, 1875), (0, 1999), (0.02, 1999), (900, 0)):
        assert held_out.first_held_out(np.ones(2000, bool), FPS, seconds) == first
    held_out.check_length("auto", 6.0, 200)
    held_out.check_length(3.0, 6.0, None)
    held_out.check_length(15, 19.0, None)  # a learning curve: 4 s are enough for an avatar
    for seconds, video, left in ((4, 6.0, 2), (16, 19.0, 3), (900, 19.0, 0)):
        with pytest.raises(AvatarError, match=rf"--held-out-s {seconds} leaves {left}\.0 s to learn from: the"):
            held_out.check_length(seconds, video, None)
    with pytest.raises(AvatarError, match="a split of its own, from frame 200 on"):
        held_out.check_length(2, 6.0, 200)
