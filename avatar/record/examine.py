"""From the recording of a prompt to what is kept of it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from avatar.audio2motion.shared import SharedPrior, project
from avatar.corpus.prepare import Tools
from avatar.corpus.sync import Offset, offsets
from avatar.corpus.tracks import Take
from avatar.errors import AvatarError
from avatar.geometry.se3 import matrix_to_axis_angle
from avatar.io.audio import load_audio
from avatar.io.video import VideoInfo, read_info, sample_frames
from avatar.preprocess.face_tracker import Track
from avatar.record.checks import Finding, hear, look, worst
from avatar.sync.judge import MIN_FPS

LOOKS = 3  # frames of a recording whose light and face are judged


class Examiner:
    """Tracks recordings and judges them; loads everything once. Use it from one thread.

    Args:
        prior: In whose basis speech is told.

    Raises:
        AvatarError: A pretrained part is not available.
    """

    def __init__(self, prior: SharedPrior) -> None:
        self.prior = prior
        self._tools = Tools(prior.encoder)
        self._tools.load_tracker()

    def close(self) -> None:
        """Let go of what was loaded."""
        self._tools.close()

    def look(self, image: np.ndarray) -> list[Finding]:
        """Judge one image, uint8 RGB [H, W, 3]."""
        return look(image, self._tools.several.detect(image))

    def take(self, path: Path, text: str) -> Take:
        """Track a recording.

        Args:
            path: The video.
            text: What was to be said.

        Raises:
            AvatarError: It cannot be used; the sentence says what to do about it.
        """
        info = read_info(path)
        if float(info.fps) < MIN_FPS:
            raise AvatarError(f"The camera gave only {float(info.fps):.0f} frames per second.",
                              fix="Close other programs, and give your face more light.")  # fmt: skip
        if not info.has_audio:
            raise AvatarError("The microphone gave nothing.")
        said = hear(load_audio(path, start=info.start))
        seen = self._seen(info)
        if reason := worst([*seen, *said]):
            raise AvatarError(reason)
        track = self._tools.track(path)
        mouth, features = self._tools.listen(track)
        prior = self.prior
        speech = project(features, prior.input_mean, prior.input_std, prior.basis).numpy()
        checks = {finding.name: _written(finding) for finding in [*seen, *said]}
        share = round(float(mouth.seen.mean()), 3)
        return Take(
            mouth=mouth, speech=speech, arkit=_filled(track.arkit), head=_filled(head_turns(track, self._tools.shape)),
            text=text, checks=checks | {"face_seen": share},
        )  # fmt: skip

    def _seen(self, info: VideoInfo) -> list[Finding]:
        """What is worst of each check in a few frames."""
        order = {"bad": 0, "note": 1, "good": 2}
        found: dict[str, Finding] = {}
        for frame in sample_frames(info, LOOKS):
            for finding in self.look(frame):
                known = found.get(finding.name)
                if known is None or order[finding.state] < order[known.state]:
                    found[finding.name] = finding
        return list(found.values())


def _written(finding: Finding) -> dict[str, str | float]:
    """A finding as it stands in the record."""
    return {key: value for key, value in asdict(finding).items() if key != "name"} | {"value": round(finding.value, 4)}


def _filled(values: np.ndarray) -> np.ndarray:
    """Rows [T, C] with those that are NaN interpolated."""
    known = np.isfinite(values).all(1)
    frames = np.arange(len(values))
    return np.stack([np.interp(frames, frames[known], column[known]) for column in values.T], 1).astype(np.float32)


def head_turns(track: Track, shape: np.ndarray) -> np.ndarray:
    """How the head is turned, from one affine camera per frame, as the lips are measured.

    Args:
        track: Landmarks in pixels.
        shape: [478, 3] a face at rest, head axes, centimetres.

    Returns:
        [T, 3] axis-angle in radians, head axes to camera; NaN where no face is seen.
    """
    from avatar.preprocess.head_fit import rigid_points

    rigid = rigid_points(shape)
    base = np.concatenate([shape[rigid], np.ones((len(rigid), 1))], 1)
    turns = np.full((len(track.landmarks), 3), np.nan, np.float32)
    seen = np.flatnonzero(np.isfinite(track.landmarks[:, rigid, :2]).all((1, 2)))
    axes = (np.linalg.pinv(base) @ track.landmarks[seen][:, rigid, :2].astype(np.float64))[:, :3].transpose(0, 2, 1)
    u, size, vt = np.linalg.svd(axes, full_matrices=False)  # [N, 2, 3]: the nearest two orthonormal rows
    good = size[:, 1] > 1e-6
    rows = u[good] @ vt[good]
    matrix = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    turns[seen[good]] = matrix_to_axis_angle(torch.from_numpy(matrix)).float().numpy()
    return turns


def in_step(takes: dict[str, Take]) -> dict[str, Offset]:
    """How far audio and video of each take of one person are apart, judged as `prior train` will."""
    return offsets({name: take.mouth for name, take in takes.items()}, dict.fromkeys(takes, "giver"))
