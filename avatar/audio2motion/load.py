"""From sound to the motion that is rendered: lips from the speech, everything else from the person's own video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar import log
from avatar.audio2motion.ensemble import Ensemble
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, probe_audio, stream_audio
from avatar.motion import Motion
from avatar.motion.mouth import FACE, MOUTH

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.audio2motion.shared import PriorSpeech
    from avatar.data import PersonDataset

CONTEXT_SECONDS = 1.0  # of sound before a held-out span: the speech network never starts in the middle of a word
OWN, ADAPTED, LIVE = "speech.safetensors", "prior.safetensors", "live.safetensors"  # in a RUN folder


def choose_speech(run: Path, fps: float, which: str = "auto") -> AudioToMotion:
    """What turns sound into the lips of a run's person.

    Args:
        run: The RUN folder.
        fps: Of the avatar.
        which: ``own``, the network learnt from the person's own video; ``prior``, the one shared by all people, adapted
            to the person where the video had sound; ``auto``, what the run has: both together, or either; ``live``, the
            prior with 0.2 s of look-ahead at most, for sound that is still being spoken.

    Raises:
        AvatarError: ``own``, and the run has none; or a file cannot be read; or the prior's asset cannot be had.
    """
    if which == "own":
        return own_speech(run)
    if which == "live":
        return live_speech(run, fps)
    if which == "auto":
        if (Path(run) / OWN).is_file():
            return load_speech(run)
        log.info("The run has no speech network of its own: the prior shared by all people speaks.")
    return adapted_prior(run) if (Path(run) / ADAPTED).is_file() else prior_speech(run, fps)


def load_speech(run: Path) -> AudioToMotion:
    """What a run learnt from its person's sound: its own network, with the adapted prior where there is one.

    Raises:
        AvatarError: See :func:`own_speech`.
    """
    own = own_speech(run)
    return Ensemble([own, adapted_prior(run)]) if (Path(run) / ADAPTED).is_file() else own


def own_speech(run: Path) -> AudioToMotion:
    """The audio-to-motion network of a run.

    Raises:
        AvatarError: The run has none, because its video had no sound or its training has not finished.
    """
    path = Path(run) / OWN
    if not path.is_file():
        raise AvatarError(
            f"{run} cannot be driven by sound: it holds no {OWN}.",
            why="Either its video had no sound, or training was stopped before its last part.",
            fix="Finish training with `avatar train PERSON --out RUN --resume`, or render with --speech prior.",
        )
    from avatar.audio2motion.personal import PersonalSpeech

    return PersonalSpeech.load(path)


def live_speech(run: Path, fps: float) -> PriorSpeech:
    """The prior with little look-ahead, as near to the person as the run has it.

    Raises:
        AvatarError: A file cannot be read, the prior's asset cannot be had, or the run holds hardly any motion.
    """
    from avatar.audio2motion.shared import PriorSpeech

    if (Path(run) / LIVE).is_file():
        return PriorSpeech.load(Path(run) / LIVE)
    speech = adapted_prior(run) if (Path(run) / ADAPTED).is_file() else prior_speech(run, fps)
    return speech.live()


def adapted_prior(run: Path) -> PriorSpeech:
    """The prior as a run's training adapted it to the person's speech.

    Raises:
        AvatarError: It cannot be read.
    """
    from avatar.audio2motion.shared import PriorSpeech

    return PriorSpeech.load(Path(run) / ADAPTED)


def prior_speech(run: Path, fps: float) -> PriorSpeech:
    """The prior shared by all people with the mouth of a run's person, whose video need not have had sound.

    Raises:
        AvatarError: The run holds no motion, or hardly any.
    """
    from avatar.audio2motion.shared import SharedPrior

    return SharedPrior.load().person(Motion.load(Path(run) / "motion.safetensors"), fps)


def with_lips(base: Motion, speech: Motion) -> Motion:
    """``base`` with the mouth, jaw and cheeks of ``speech``; both of the same length."""
    mouth, lips = base.arkit.clone(), base.face.clone()
    mouth[:, MOUTH] = speech.arkit[:, MOUTH]
    lips[:, FACE] = speech.face[:, FACE]
    return base.map(arkit=mouth, face=lips)


def drive_held_out(data: PersonDataset, speech: AudioToMotion, first: int, last: int) -> Iterator[Motion]:
    """Frames ``first`` to ``last`` (exclusive) of a person as papers reconstruct them: lips from the sound alone, head
    pose, torso, gaze and upper face as tracked."""
    lead = min(first, round(CONTEXT_SECONDS * data.fps))
    chunks = stream_audio(data.audio_path, start=sound_time(data, first - lead))
    samples = round((last - first + lead) / data.fps * SAMPLE_RATE)
    yield from _onto(data.motion[first:last], _skip(speech.stream(_exactly(chunks, samples)), lead))


def sound_time(data: PersonDataset, frame: int) -> float:
    """Second of the person's audio file that belongs to a frame, the measured delay corrected."""
    return (frame + data.info.audio_delay_frames) / data.fps


def count_frames(audio: Path, fps: float) -> int:
    """Video frames that begin within a sound file; decodes it where the header does not say how long it is."""
    seconds = probe_audio(audio).duration
    if not seconds:
        seconds = sum(len(chunk) for chunk in stream_audio(audio, 10.0)) / SAMPLE_RATE
    return max(1, int(np.ceil(seconds * fps - 1e-6)))


def _onto(base: Motion, blocks: Iterable[Motion]) -> Iterator[Motion]:
    """Lay blocks of speech over a base track, and end with it."""
    done = 0
    for block in blocks:
        block = block[: len(base) - done]
        if len(block):
            yield with_lips(base[done : done + len(block)], block)
            done += len(block)


def _skip(blocks: Iterable[Motion], count: int) -> Iterator[Motion]:
    for block in blocks:
        dropped = min(count, len(block))
        count -= dropped
        if dropped < len(block):
            yield block[dropped:]


def _exactly(chunks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The first ``samples`` samples; silence where the sound is shorter."""
    for chunk in chunks:
        if samples <= 0:
            return
        yield chunk[:samples]
        samples -= len(chunk)
    while samples > 0:
        yield np.zeros(min(samples, SAMPLE_RATE), np.float32)
        samples -= SAMPLE_RATE
