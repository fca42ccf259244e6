"""The same motion with less taken from the held-out frames: what the numbers of an image owe to them.

Drives follow the held-out video closely. Its torso was registered frame by frame (6 numbers and 132 of the clothes'
warp), and its head poses were corrected through the renderer of the very model that is scored. Each ablation withholds
one of these, or both:

- ``torso_at_rest``: the torso of every frame is the median of the training frames;
- ``tracker_poses``: head poses as `avatar prepare` tracked them, before any avatar was rendered.

The full frame is measured, images only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avatar.data.person import PersonFolder
from avatar.errors import AvatarError
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.data import PersonDataset

TORSO_TRACKS = ("torso_rotation", "torso_translation", "torso_warp")
HEAD_TRACKS = ("head_rotation", "head_translation")
METRICS = ("psnr", "psnr_face", "ssim", "ssim_face", "lpips")
TITLES = {
    "tracked_torso_at_rest": "tracked, torso at rest",
    "tracked_tracker_poses": "tracked, poses of tracker",
    "audio_torso_at_rest_tracker_poses": "audio, both",
}


def ablated(data: PersonDataset, driving: dict[str, Motion], first: int, last: int) -> dict[str, Motion]:
    """Drives with less of the held-out frames, by the names of `TITLES`.

    Args:
        data: The person, with the poses that training corrected.
        driving: Name to motion of the frames ``first`` to ``last`` (exclusive); those named ``tracked`` and ``audio``
            are ablated.
        first, last: Frames of the person.

    Raises:
        AvatarError: PERSON's own motion has another length.
    """
    rest = torso_at_rest(data)[first:last]
    poses = tracker_poses(data)[first:last]
    result: dict[str, Motion] = {}
    if (tracked := driving.get("tracked")) is not None:
        result["tracked_torso_at_rest"] = _replaced(tracked, rest, TORSO_TRACKS)
        result["tracked_tracker_poses"] = _replaced(tracked, poses, HEAD_TRACKS)
    if (audio := driving.get("audio")) is not None:
        still = _replaced(audio, rest, TORSO_TRACKS)
        result["audio_torso_at_rest_tracker_poses"] = _replaced(still, poses, HEAD_TRACKS)
    return result


def torso_at_rest(data: PersonDataset) -> Motion:
    """All frames with the training frames' median torso, in the filming camera's image, which follows the person."""
    training = data.motion[data.train_frames]
    medians = {name: getattr(training, name).median(0).values.expand(data.num_frames, -1) for name in TORSO_TRACKS}
    return data.motion.map(**medians)


def tracker_poses(data: PersonDataset) -> Motion:
    """PERSON's motion as `avatar prepare` wrote it."""
    path = PersonFolder(data.folder).motion_path
    motion = Motion.load(path)
    if len(motion) != data.num_frames:
        raise AvatarError(
            f"{path} has {len(motion)} frames of motion, the person {data.num_frames}.",
            fix="Prepare the video again.",
        )  # fmt: skip
    return motion


def _replaced(motion: Motion, other: Motion, tracks: tuple[str, ...]) -> Motion:
    return motion.map(**{name: getattr(other, name) for name in tracks})
