"""Motion of one person for another: what a face does is counted from its own rest, in units of its own range."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Int
from torch import Tensor

from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion.arkit import ARKIT, MOUTH
from avatar.motion.blinks import EYES, LIDS
from avatar.motion.edits import keep_closures
from avatar.motion.face_channels import CHANNELS, LIP_CHANNELS, open_lips, opening_change
from avatar.motion.motion import POSE_TRACKS, Motion
from avatar.motion.statistics import MotionStats

GAIN_LIMITS = (0.4, 2.5)  # a short clip says little about how far somebody moves
_NOISE = {"face": 0.02, "arkit": 0.02, "head_rotation": 0.01, "head_translation": 0.1}  # least range that counts
_LIPS = [i for i in LIP_CHANNELS if not CHANNELS[i].startswith("cheek")]
_BROWS = [i for i, name in enumerate(CHANNELS) if name.startswith(("brow", "cheek"))]
_MOUTH = list(MOUTH)
_REST = [i for i in range(len(ARKIT)) if i not in MOUTH and i not in EYES]
REGIONS = {"lips": ("face", _LIPS), "brows": ("face", _BROWS), "mouth": ("arkit", _MOUTH), "upper": ("arkit", _REST),
           "turn": ("head_rotation", [0, 1, 2]), "place": ("head_translation", [0, 1, 2])}  # fmt: skip


@functools.lru_cache(64)
def gain(source: MotionStats, target: MotionStats, region: str) -> float:
    """How many times as far the target moves a region as the source does."""
    name, columns = REGIONS[region]

    def spread(stats: MotionStats) -> float:
        values = getattr(stats.track, name)[:, columns]
        return float(((values - values.mean(0)) ** 2).sum(1).mean().sqrt()) + _NOISE[name]

    return min(max(spread(target) / spread(source), GAIN_LIMITS[0]), GAIN_LIMITS[1])


def retarget(block: Motion, source: MotionStats, target: MotionStats) -> Motion:
    """Somebody's motion as the target person would do it: face, eyes and pose.

    Lips, brows and coefficients go as far from rest as the target does, eyelids from open to closed, the mouth from
    closed to open. The head pose is that of the source, from the target's mean pose; see :func:`follow_pose`.
    """
    face, arkit = block.face.clone(), block.arkit.clone()
    for region in ("lips", "brows", "mouth", "upper"):
        name, columns = REGIONS[region]
        moved = getattr(block, name)[:, columns] - getattr(source.rest, name)[:, columns]
        values = face if name == "face" else arkit
        values[:, columns] = getattr(target.rest, name)[:, columns] + gain(source, target, region) * moved
    for values, name, columns, shut in ((face, "face", LIDS, "low"), (arkit, "arkit", EYES, "high")):
        values[:, columns] = _between(
            getattr(block, name)[:, columns],
            *(getattr(getattr(p, part), name)[:, columns] for p in (source, target) for part in ("rest", shut)),
        )
    # The gap between the lips: from closed to closed, however the two mouths rest.
    wide = (target.opened - target.closed) / max(source.opened - source.closed, 0.05)
    wide = min(max(wide, GAIN_LIMITS[0]), GAIN_LIMITS[1])
    gap = target.closed + wide * (opening_change(block.face) - source.closed)
    face = open_lips(face, gap.clamp(min=target.pressed) - opening_change(face))
    gaze = target.rest.gaze + block.gaze - source.rest.gaze
    return follow_pose(block.map(face=face, arkit=arkit.clamp(0, 1), gaze=gaze), source, target)


def _between(values: Tensor, rest: Tensor, shut: Tensor, new_rest: Tensor, new_shut: Tensor) -> Tensor:
    """Values carried from (rest, shut) to (new_rest, new_shut); they do not go much beyond shut."""
    span = shut - rest
    share = (values - rest) / torch.where(span.abs() < 1e-3, torch.full_like(span, 1e9), span)
    return new_rest + share.clamp(-0.5, 1.2) * (new_shut - new_rest)


def follow_pose(block: Motion, source: MotionStats, target: MotionStats) -> Motion:
    """Move the head as the source's moves from its mean, beginning at the target's mean.

    The torso does what the target's does at such a pose.
    """
    rest, base = source.rest, target.rest
    turn = axis_angle_to_matrix(block.head_rotation) @ axis_angle_to_matrix(rest.head_rotation).mT
    rotation = matrix_to_axis_angle(turn @ axis_angle_to_matrix(base.head_rotation))
    translation = base.head_translation + block.head_translation - rest.head_translation
    moved = torch.cat([rotation - base.head_rotation, translation - base.head_translation], 1)
    torso = moved @ _torso_follows(target)
    parts = torso.split([getattr(base, name).shape[1] for name in POSE_TRACKS[2:]], 1)
    follows = {n: getattr(base, n) + part for n, part in zip(POSE_TRACKS[2:], parts, strict=True)}
    return block.map(head_rotation=rotation, head_translation=translation, **follows)


@functools.lru_cache(8)
def _torso_follows(person: MotionStats) -> Tensor:
    """[6, 138] how a person's torso goes with the head: ridge regression."""
    track = person.track
    head = torch.cat([track.head_rotation, track.head_translation], 1).double()
    torso = torch.cat([getattr(track, name) for name in POSE_TRACKS[2:]], 1).double()
    head, torso = head - head.mean(0), torso - torso.mean(0)
    least = torch.tensor([0.01] * 3 + [0.1] * 3, dtype=head.dtype) ** 2  # radians and centimetres: less is noise
    return torch.linalg.solve(head.T @ head + len(head) * torch.diag(least), head.T @ torso).float()


def back_and_forth(track: Motion, at: Int[Tensor, " T"]) -> Motion:
    """Frames ``at`` [T] of a track played forwards, backwards, forwards ...: no jump where it begins again."""
    last = len(track) - 1
    if last < 1:
        return track[torch.zeros_like(at)]
    at = at % (2 * last)
    return track[torch.where(at > last, 2 * last - at, at)]


def restyle(block: Motion, person: MotionStats, style: MotionStats) -> Motion:
    """Give a person's motion the range of another's.

    Lips, brows and head move as far as the other's, and the brows are held as high.
    """
    face, arkit = block.face.clone(), block.arkit.clone()
    rest = person.rest
    for region in ("lips", "mouth", "upper"):
        name, columns = REGIONS[region]
        values = face if name == "face" else arkit
        moved = getattr(block, name)[:, columns] - getattr(rest, name)[:, columns]
        values[:, columns] = getattr(rest, name)[:, columns] + gain(person, style, region) * moved
    moved = block.face[:, _BROWS] - person.track.face[:, _BROWS].mean(0)
    face[:, _BROWS] = style.track.face[:, _BROWS].mean(0) + gain(person, style, "brows") * moved
    pose = {
        "head_rotation": torch.lerp(rest.head_rotation, block.head_rotation, gain(person, style, "turn")),
        "head_translation": torch.lerp(rest.head_translation, block.head_translation, gain(person, style, "place")),
    }
    return keep_closures(block, block.map(face=face, arkit=arkit.clamp(0, 1), **pose), person)
