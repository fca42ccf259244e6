"""Which speech network drives a run's person, and the files that hold it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.data.run import MOTION, PERSONAL, SHARED, STREAMING
from avatar.errors import AvatarError
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.audio2motion.personal import PersonalSpeech
    from avatar.audio2motion.shared import SharedSpeech

CHOICES = ("auto", "personal", "shared", "streaming")


def load_speech(run: Path, fps: float, which: str = "auto") -> AudioToMotion:
    """Load a speech network of a run.

    Args:
        run: The RUN folder.
        fps: Of the avatar.
        which: ``personal``: the network trained on the person's own video. ``shared``: the one shared by all people,
            adapted to the person where the video had audio. ``auto``: the ensemble of both, with the weight that the
            personal one stores, or the one that the run has. ``streaming``: the shared one with at most 0.2 s of
            look-ahead, for audio that is still being spoken.

    Raises:
        AvatarError: ``which`` is unknown; the run has no personal network and it was asked for; a file cannot be read;
            an encoder's weights are not available.
    """
    if which not in CHOICES:
        raise AvatarError(f"There is no speech network {which!r}.", fix=f"Choose {', '.join(CHOICES)}.")
    if which == "personal":
        return load_personal(run)
    if which == "streaming":
        return load_streaming(run, fps)
    if which == "auto":
        if (Path(run) / PERSONAL).is_file():
            return _load_trained(run)
        log.info("The run has no personal speech network: the shared one drives the lips.")
    return load_shared(run, fps)


def networks_of(run: Path) -> str:
    """Name the networks that ``auto`` takes of a run: personal+shared, personal, or shared."""
    run = Path(run)
    if not (run / PERSONAL).is_file():
        return "shared"
    return "personal+shared" if (run / SHARED).is_file() else "personal"


def load_personal(run: Path) -> PersonalSpeech:
    """Load the personal network of a run.

    Raises:
        AvatarError: The run has none: its video had no audio or hardly a face, its lips did not follow the audio, or
            its training has not finished.
    """
    from avatar.audio2motion.personal import PersonalSpeech

    path = Path(run) / PERSONAL
    if not path.is_file():
        raise AvatarError(
            f"{run} cannot be driven by its own speech network: it holds no {PERSONAL}.",
            why="Its video had no audio, hardly showed the face, or has lips that do not follow its audio; or training "
            "was stopped before its last part.",
            fix="Finish training with `avatar train PERSON --out RUN --resume`, or render with --speech shared.",
        )
    return PersonalSpeech.load(path)


def load_shared(run: Path, fps: float) -> SharedSpeech:
    """Load the shared network as training adapted it to the person, or with the person's mouth alone.

    Raises:
        AvatarError: A file cannot be read, or the run holds hardly any motion.
    """
    from avatar.audio2motion.shared import SharedPrior, SharedSpeech

    if (Path(run) / SHARED).is_file():
        return SharedSpeech.load(Path(run) / SHARED)
    return SharedPrior.load().person(Motion.load(Path(run) / MOTION), fps)


def load_streaming(run: Path, fps: float) -> SharedSpeech:
    """Load the shared network with little look-ahead, as near to the person as the run has it.

    Raises:
        AvatarError: A file cannot be read, or the run holds hardly any motion.
    """
    from avatar.audio2motion.shared import SharedSpeech

    if (Path(run) / STREAMING).is_file():
        return SharedSpeech.load(Path(run) / STREAMING)
    return load_shared(run, fps).streaming()


def _load_trained(run: Path) -> AudioToMotion:
    """The personal network, together with the shared one where training adapted it."""
    from avatar.audio2motion.ensemble import Ensemble
    from avatar.audio2motion.shared import SharedSpeech

    personal = load_personal(run)
    if not (Path(run) / SHARED).is_file():
        return personal
    return Ensemble.of(personal, SharedSpeech.load(Path(run) / SHARED))
