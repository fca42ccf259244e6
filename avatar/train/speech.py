"""Fit what speaks and moves for a person: speech networks, and the generator of head motion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.audio2motion.shared import SharedPrior
    from avatar.data import PersonDataset

LIVE_SECONDS = 120.0  # of the person, for streaming lips: adapting them costs five times as much, a minute is enough


def load_prior(path: Path | None) -> SharedPrior | None:
    """Load the shared audio-to-motion model to adapt, or the shipped one; None, with a warning, where there is none.

    Raises:
        AvatarError: ``path`` cannot be read or is something else.
    """
    from avatar.audio2motion.shared import SharedPrior

    if path is not None:
        return SharedPrior.load(path)
    try:
        return SharedPrior.load()
    except AvatarError as error:
        log.warn(f"the avatar will speak without the prior shared by all people: {error}")
        return None


def train_speech(data: PersonDataset, folder: Path, prior: SharedPrior | None, *, seed: int, keep: bool) -> None:
    """Fit a personal speech network, and adapt the shared model to the person, offline and streaming.

    Args:
        data: The person.
        folder: RUN folder, which holds the training motion.
        prior: The shared model to adapt, if there is one.
        seed: Of the training of the personal network.
        keep: Store ``prior`` with the run also where the video has no audio to adapt it with.
    """
    from avatar.audio2motion.load import ADAPTED, LIVE, OWN
    from avatar.audio2motion.personal import motion_path, train_personal
    from avatar.io.audio import load_audio
    from avatar.motion import Motion

    if data.audio_features is None:
        log.warn("the video has no sound: the prior shared by all people will speak for this avatar.")
        if keep and prior is not None:
            prior.person(Motion.load(folder / "motion.safetensors"), data.fps).save(folder / ADAPTED)
        return
    train_personal(data.folder, seed=seed).save(folder / OWN)
    if prior is None:
        return
    motion = Motion.load(motion_path(data.folder))[: data.test_start]
    sound, late = load_audio(data.audio_path), data.info["av_offset_frames"]
    prior.person(motion, data.fps).adapt(motion, sound, late).save(folder / ADAPTED)
    part = motion[: round(LIVE_SECONDS * data.fps)]
    prior.live().person(motion, data.fps).adapt(part, sound, late).save(folder / LIVE)


def train_generator(data: PersonDataset, folder: Path, *, seed: int) -> None:
    """Fit the generator of this person's head motion, gaze, brows and blinks (`--pose generated`)."""
    from avatar.headmotion.generator import FILE, MotionGenerator
    from avatar.io.audio import load_audio
    from avatar.motion import Motion

    motion = Motion.load(folder / "motion.safetensors")
    segments = [(a, min(b, len(motion))) for a, b in data.segments if a < len(motion)]
    samples = load_audio(data.audio_path) if data.info["has_audio"] else None
    try:
        generator = MotionGenerator.fit(motion, segments, samples, data.info["av_offset_frames"], seed)
    except AvatarError as error:
        log.warn(f"the avatar will not generate head motion: {error}")
        return
    generator.save(folder / FILE)
