"""Statistics of a person's motion: rest, range and blinks, measured on a track. Controls are relative to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.errors import AvatarError
from avatar.geometry.smoothstep import smooth
from avatar.motion.blinks import CLOSED, EYES, find_blinks
from avatar.motion.face_channels import opening_change
from avatar.motion.motion import POSE_TRACKS, Motion

REST_SHARE = 0.25  # of the frames, those with the most closed mouth; the tracker's neutral face is found the same way


@dataclass(frozen=True, kw_only=True, eq=False)  # compared and hashed as the object that it is
class MotionStats:
    """Statistics of a person's motion.

    Attributes:
        rest: One frame: mouth closed and at rest, eyes open, mean head pose and gaze.
        low, high: One frame each: 0.5 and 99.5 percentiles of ARKit coefficients, face channels and gaze.
        closed, opened: Opening of the mouth (`opening_change`) at its 10th and 95th percentiles, centimetres.
        pressed: The least opening, the 0.5 percentile.
        blinks: The person's own blinks.
        track: What all of this was measured on.
    """

    rest: Motion
    low: Motion
    high: Motion
    closed: float
    opened: float
    pressed: float
    blinks: tuple[Motion, ...]
    track: Motion

    @staticmethod
    def of(track: Motion, segments: Sequence[tuple[int, int]] | None = None) -> MotionStats:
        """Measure a track. Frames in which the face was lost count only where there are no others.

        Args:
            track: The person's motion, the longer the better.
            segments: [start, end) frames without a cut inside; by default it has no cut.

        Raises:
            AvatarError: The track is empty.
        """
        if len(track) == 0:
            raise AvatarError("A motion track without frames has no statistics.")
        seen = track[track.valid] if bool(track.valid.any()) else track
        opening = opening_change(seen.face)
        seeing = seen.arkit[:, EYES].amax(1) < CLOSED
        if not bool(seeing.any()):
            seeing = torch.ones_like(seeing)
        quiet = seeing & (opening <= opening[seeing].quantile(REST_SHARE))
        rest = {name: getattr(seen, name).mean(0, keepdim=True) for name in POSE_TRACKS}
        rest |= {name: getattr(seen, name)[quiet].median(0, keepdim=True).values for name in ("arkit", "face")}
        rest |= {"gaze": seen.gaze[seeing].median(0, keepdim=True).values}
        blinks = find_blinks(track, segments or [(0, len(track))])
        return MotionStats(
            rest=track[:1].map(**rest),
            low=_percentile(seen, 0.005),
            high=_percentile(seen, 0.995),
            closed=float(opening.quantile(0.1)),
            opened=float(opening.quantile(0.95)),
            pressed=float(opening.quantile(0.005)),
            blinks=tuple(track[blink] for blink in blinks),
            track=track,
        )

    def closedness(self, face: Float[Tensor, "*batch 38"]) -> Float[Tensor, "*batch"]:
        """1 where the lips of face channels [..., 38] touch, 0 where they are clearly apart, smooth in between."""
        opening = (opening_change(face) - self.closed) / max(self.opened - self.closed, 1e-3)
        t = ((opening - 0.05) / 0.20).clamp(0, 1)
        return 1 - smooth(t)


def _percentile(track: Motion, q: float) -> Motion:
    names = ("arkit", "face", "gaze")
    return track[:1].map(**{name: getattr(track, name).quantile(q, 0, keepdim=True) for name in names})
