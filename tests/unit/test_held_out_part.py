"""Which part of a video is held out from training."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.preprocess import held_out

FPS = 25.0


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(3600, 360), (270, 27), (150, 15), (71.16, 15), (50, 15), (46.76, 14.04), (20, 6), (6, 1.8)],
)
def test_short_videos_hold_out_more_than_a_tenth(seconds: float, wanted: float) -> None:
    frames = round(seconds * FPS)
    first = held_out.first_held_out(np.ones(frames, bool), FPS)
    assert (frames - first) / FPS == pytest.approx(wanted, abs=0.5 / FPS)
    told = held_out.held_out_text(frames, first, FPS)
    assert (told is None) == (seconds >= 150)
    if told is not None:
        assert f"{wanted:.1f} s (" in told and ("too little" in told) == (wanted < 10)


def test_only_frames_that_show_somebody_speaking_count() -> None:
    useful = np.ones(2500, bool)
    useful[-8 * 25 :] = False  # a black outro
    assert held_out.first_held_out(useful, FPS) == 2500 - 23 * 25
    useful[-40 * 25 :] = False  # nobody is there for longer than may be held out
    assert held_out.first_held_out(useful, FPS) == 2500 - 30 * 25
    assert held_out.first_held_out(useful & False, FPS) == 2500 - 30 * 25


def test_the_user_may_choose_the_length() -> None:
    for seconds, first in ((5, 1875), (0, 1999), (0.02, 1999), (900, 0)):
        assert held_out.first_held_out(np.ones(2000, bool), FPS, seconds) == first
    held_out.check_length("auto", 6.0, 200)
    held_out.check_length(3.0, 6.0, None)
    with pytest.raises(AvatarError, match=r"--held-out-s 4 is more than half of the video, which is 6\.0 s long"):
        held_out.check_length(4, 6.0, None)
    with pytest.raises(AvatarError, match="a split of its own, from frame 200 on"):
        held_out.check_length(2, 6.0, 200)
