"""Fit what speaks and moves for a person: speech networks, and the generator of head motion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.data.run import HEADMOTION, MOTION, PERSONAL, SHARED, STREAMING
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.audio2motion.shared import SharedPrior
    from avatar.data import PersonDataset
    from avatar.motion import Motion

# Of the person's face, for streaming lips: their features cost five times as much, and a minute is enough.
STREAMING_SECONDS = 120.0
# Of it, for all others: what an hour would add is little, and it would take gigabytes.
ADAPTING_SECONDS = 1200.0


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


def train_speech(
    data: PersonDataset, folder: Path, prior: SharedPrior | None, *, encoder: str, seed: int, keep: bool
) -> None:
    """Fit a personal speech network, and adapt the shared model to the person, offline and streaming.

    A personal network that does not follow the lips on parts left out is not kept where there is a prior.

    Args:
        data: The person.
        folder: RUN folder, which holds the training motion.
        prior: The shared model to adapt, if there is one.
        encoder: Speech encoder of the personal network; see `avatar.audio.encoders.registry.speech_encoder`.
        seed: Of the training of the personal network.
        keep: Store ``prior`` with the run also where the video has no audio to adapt it with.

    Raises:
        AvatarError: The encoder is not available; or too little of the face was tracked, and there is no prior.
    """
    from avatar.audio.encoders.registry import speech_encoder
    from avatar.audio2motion.ensemble import Ensemble
    from avatar.audio2motion.personal_training import TooLittleFace, train_personal
    from avatar.audio2motion.shared_adaptation import adapt
    from avatar.io.audio import load_audio
    from avatar.motion import Motion

    if not data.info.has_audio:
        if data.info.photo is None:
            log.warn("the video has no audio: the speech network shared by all people will drive this avatar.")
        if keep and prior is not None:
            prior.person(Motion.load(folder / MOTION), data.fps).save(folder / SHARED)
        return
    motion = _tracked_motion(data)[: data.test_start]
    samples, delay = load_audio(data.audio_path), data.info.audio_delay_s
    part, personal = first_seen(motion, round(ADAPTING_SECONDS * data.fps)), None
    try:
        personal = train_personal(part, samples, speech_encoder(encoder), delay, seed=seed)
    except TooLittleFace as error:
        if prior is None:  # then nothing would drive the lips
            raise
        log.warn(f"the speech network shared by all people will drive this avatar: {error}")
    if personal is not None and (prior is None or personal.share > 0):
        personal.save(folder / PERSONAL)
    else:
        (folder / PERSONAL).unlink(missing_ok=True)
    if prior is None:
        return
    adapted = adapt(prior.person(motion, data.fps), part, samples, delay)
    adapted.save(folder / SHARED)
    together = Ensemble.of(personal, adapted) if personal is not None and personal.share > 0 else None
    if personal is not None and together is None:
        log.warn(_says_useless(personal.report["opening_correlation"], adapted.corrected))
    part = first_seen(motion, round(STREAMING_SECONDS * data.fps))
    adapt(prior.streaming().person(motion, data.fps), part, samples, delay, together).save(folder / STREAMING)


def _says_useless(correlation: float, corrected: bool) -> str:
    """Say that the personal network is not used, and why that may be."""
    text = f"lips and audio go together too little to teach a speech network (correlation {correlation:.2f}): "
    if corrected:
        return text + "the speech network shared by all people, adapted to this person, will drive this avatar."
    return text + (
        "the speech network shared by all people will drive this avatar. Check that this person speaks in the audio."
    )


def first_seen(motion: Motion, frames: int) -> Motion:
    """The beginning of a track, until the face was seen in so many frames; all where it never is.

    A video may begin with a title, which teaches nothing.
    """
    enough = (motion.valid.cumsum(0) >= frames).nonzero()
    return motion[: int(enough[0]) + 1] if len(enough) else motion


def train_headmotion(data: PersonDataset, folder: Path, *, seed: int) -> None:
    """Fit the generator of this person's head motion, gaze, brows and blinks (`--pose generated`)."""
    from avatar.headmotion.generator import MotionGenerator
    from avatar.io.audio import load_audio
    from avatar.motion import Motion
    from avatar.motion.gaps import measured_segments

    motion = Motion.load(folder / MOTION)
    segments = measured_segments(motion, data.info.motion_segments(len(motion)))
    samples = load_audio(data.audio_path) if data.info.has_audio else None
    try:
        generator = MotionGenerator.fit(motion, segments, samples, data.info.audio_delay_s, seed)
    except AvatarError as error:
        log.warn(f"the avatar will not generate head motion: {error}")
        return
    generator.save(folder / HEADMOTION)


def _tracked_motion(data: PersonDataset) -> Motion:
    """The motion of head and face, torso left out; where there is none, that of the PERSON folder.

    Frames for which the video has no audio are not valid: a mouth that moves in silence would teach the opposite.
    """
    import torch

    from avatar.audio.levels import frames_with_audio
    from avatar.data import person
    from avatar.data.results import IngestResult
    from avatar.motion import Motion

    folder = person.PersonFolder(data.folder)
    own, tracked = Motion.load(folder.motion_path), folder.stage("pose") / person.MOTION
    if not tracked.is_file():
        return own
    valid = own.valid
    span = folder.result(IngestResult).audio_span if folder.is_finished(IngestResult.STAGE) else None
    if span is not None:
        valid = valid & torch.from_numpy(frames_with_audio(span, len(own), own.fps, data.info.audio_delay_s))
    # Of covered frames, the PERSON folder's motion alone says that they teach nothing.
    return Motion.load(tracked).map(valid=valid)
