"""Frames of a person's own video again, with their real poses: as tracked, or with the lips of its audio or another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from avatar import log
from avatar.audio2motion.base import drive
from avatar.audio2motion.load import load_speech
from avatar.data.consent import require
from avatar.data.outputs import refuse_to_overwrite
from avatar.data.run import open_person, require_video
from avatar.infer.video import Job
from avatar.io.audio import SAMPLE_RATE, stream_audio
from avatar.motion import Motion
from avatar.motion.mouth import with_lips

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.infer.sources import AudioFile

CONTEXT_SECONDS = 1.0  # of audio before a held-out span: the speech network never starts in the middle of a word


def replay_job(
    avatar: Avatar, split: Literal["test", "train"], lips: Literal["tracked", "audio"], speech: str,
    person: Path | None, out: Path,
) -> Job:  # fmt: skip
    """Plan to render the held-out or the training frames of the person's own video.

    Args:
        avatar: The avatar.
        split: Which frames.
        lips: What moves the lips.
        speech: Name of the speech network, for lips that the audio moves.
        person: PERSON folder; None: the one that the avatar was trained from.
        out: The file to write, which must not be the video itself.

    Raises:
        AvatarError: The person or its audio cannot be read, or ``out`` is its video.
    """
    require_video(avatar.run, "--split")
    data = open_person(avatar.run, person)
    refuse_to_overwrite(out, Path(data.info.source or os.devnull))
    first, last = (data.test_start, data.num_frames) if split == "test" else (0, data.test_start)
    motions = iter([data.motion[first:last]])
    if lips == "audio":
        motions = drive_held_out(data, load_speech(avatar.run, avatar.fps, speech), first, last)
    has_audio = data.audio_path.is_file()
    return Job(
        motions=motions, frames=last - first, audio=data.audio_path if has_audio else None,
        audio_start=audio_second(data, first) if has_audio else 0.0,
        background=(lambda n: data.whole_background(first + n)) if data.camera_moves else None,
    )  # fmt: skip


def dubbing_job(avatar: Avatar, audio: AudioFile, speech: str, person: Path | None, out: Path) -> Job:
    """Plan to render the person's own video with what another audio says.

    Lips, jaw and cheeks follow the audio; head, torso, gaze, lids and brows are as filmed, and so is the background.
    All of the person is drawn by the avatar. It lasts as long as the audio, at most as long as the video.

    Args:
        avatar: The avatar.
        audio: What is said.
        speech: Name of the speech network.
        person: PERSON folder; None: the one that the avatar was trained from.
        out: The file to write, which must not be the video itself.

    Raises:
        AvatarError: Nobody agreed to dubbing, or the person cannot be read.
    """
    require_video(avatar.run, "--dub")
    require(avatar.run, "dubbing", "to say in the video what was not said")
    data = open_person(avatar.run, person)
    refuse_to_overwrite(out, Path(data.info.source or os.devnull))
    wanted = audio.frames(avatar.fps)
    frames = min(wanted, data.num_frames)
    if frames < wanted:
        log.warn(f"The video ends after {frames / avatar.fps:.1f} s, the audio after {wanted / avatar.fps:.1f} s: "
                 "what comes later is cut off.")  # fmt: skip
    return Job(
        motions=dubbed(data.motion[:frames], load_speech(avatar.run, avatar.fps, speech), audio, audio.voice_db),
        frames=frames, audio=audio.path, audio_track=audio.track,
        background=data.whole_background if data.camera_moves else None,
    )  # fmt: skip


def dubbed(
    base: Motion, speech: AudioToMotion, audio: Iterable[np.ndarray], voice_db: float | None = None
) -> Iterator[Motion]:
    """A motion with the lips of an audio.

    Args:
        base: What was filmed.
        speech: Drives the lips.
        audio: Chunks of samples; silence where they are shorter than the motion.
        voice_db: Level of the voice in them, see `avatar.audio2motion.base.gain_for`.

    Yields:
        As many frames as ``base`` has.
    """
    at = 0
    for block in drive(speech, _exactly(audio, round(len(base) / base.fps * SAMPLE_RATE)), voice_db):
        block = block[: len(base) - at]
        if len(block):
            yield with_lips(base[at : at + len(block)], block)
        at += len(block)


def drive_held_out(data: PersonDataset, speech: AudioToMotion, first: int, last: int) -> Iterator[Motion]:
    """Drive frames ``first`` to ``last`` (exclusive) of a person as papers reconstruct them.

    Lips come from the audio alone; head pose, torso, gaze and upper face are as tracked.
    """
    lead = min(first, round(CONTEXT_SECONDS * data.fps))
    chunks = stream_audio(data.audio_path, start=audio_second(data, first - lead))
    samples = round((last - first + lead) / data.fps * SAMPLE_RATE)
    base, done = data.motion[first:last], -lead
    for block in drive(speech, _exactly(chunks, samples)):
        spoken = block[max(0, -done) : max(0, len(base) - done)]
        at, done = max(0, done), done + len(block)
        if len(spoken):
            yield with_lips(base[at : at + len(spoken)], spoken)


def audio_second(data: PersonDataset, frame: int) -> float:
    """Second of the person's audio file that belongs to a frame, the audio delay corrected."""
    return (frame + data.info.audio_delay_frames) / data.fps


def _exactly(chunks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The first ``samples`` samples; silence where the audio is shorter."""
    for chunk in chunks:
        if samples <= 0:
            return
        yield chunk[:samples]
        samples -= len(chunk)
    while samples > 0:
        yield np.zeros(min(samples, SAMPLE_RATE), np.float32)
        samples -= SAMPLE_RATE
