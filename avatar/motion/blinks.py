"""Where somebody blinks, and how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.motion.motion import Motion

CLOSED = 0.4  # blendshape value from which an eye counts as closed
EYES = [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]
LIDS = [CHANNEL_INDEX["eye_left_open"], CHANNEL_INDEX["eye_right_open"]]
LONGEST_SECONDS = 0.5
MARGIN_SECONDS = 0.2


def find_blinks(track: Motion, segments: Sequence[tuple[int, int]]) -> list[slice]:
    """Frames of every whole blink, a fifth of a second before and after included.

    Args:
        track: The motion.
        segments: [start, end) frames without a cut inside.
    """
    closed = track.arkit[:, EYES].mean(1).numpy() >= CLOSED
    margin = max(2, round(MARGIN_SECONDS * track.fps))
    found = []
    for a, b in segments:
        edges = np.flatnonzero(np.diff(np.r_[False, closed[a:b], False].astype(int)))
        for start, end in edges.reshape(-1, 2):
            if end - start > LONGEST_SECONDS * track.fps or a + start - margin < a or a + end + margin > b:
                continue  # closed eyes, not a blink; or cut off
            found.append(slice(a + start - margin, a + end + margin))
    return found
