"""Options that control what an avatar does, shared by the commands that make it move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.motion.timeline import Span

Repeated = tyro.conf.UseAppendAction[tuple[str, ...]]
TIMED = ("lip-scale", "emotion", "pose", "pose-scale", "blink", "gaze")


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Options that end in VALUE[@TIME] can be given again for other times.

    `1.5@2.0-3.5` is in seconds of the audio, `1.5@4-` until its end, `1.5@please` for a word of --words.
    """

    speech: Literal["auto", "personal", "shared", "streaming"] = "auto"
    """Speech network that drives the lips. Choose personal for the one trained on the person's own video, and shared
    for the one of all people, which needs no audio in that video. By default, auto takes the ensemble of both, or the
    one there is. For live audio, streaming is shared with a look-ahead of 0.2 s at most."""
    motion: Path | None = None
    """Drive the avatar by a motion file (.safetensors, or ARKit as .csv or .json) or by somebody's video. The motion of
    a video is fitted to this person. With --audio, that audio goes into the video."""
    retarget: Literal["auto", "yes", "no"] = "auto"
    """With --motion: whether to fit the source's rest and range to this person. auto fits a video, not a file."""
    pose: Annotated[Repeated, tyro.conf.arg(metavar="POSE[@TIME]")] = ()
    """Head motion: own (default), generated, still, or that of a motion file or a video. The person's own is a
    smooth loop of what was filmed. Generated is new motion that goes with the audio."""
    pose_guidance: float = 1.0
    """Guidance of `--pose generated` by the audio, 0 (none) to 3; 1 is as trained."""
    pose_noise: float = 1.0
    """Sampling temperature of `--pose generated`, 0 (deterministic) to 1.5."""
    pose_scale: Annotated[Repeated, tyro.conf.arg(metavar="FACTOR[@TIME]")] = ()
    """Amplitude of the head and body motion, 0 to 3."""
    lip_scale: Annotated[Repeated, tyro.conf.arg(metavar="FACTOR[@TIME]")] = ()
    """Amplitude of the lips, 0 to 3. Lips that close stay closed."""
    emotion: Annotated[Repeated, tyro.conf.arg(metavar="MIX[@TIME]")] = ()
    """happy, sad, angry, surprised, afraid, disgusted or contemptuous: happy:0.7, happy:0.5+surprised:0.3,
    happy/upper (or lower)."""
    emotion_limit: float = 1.0
    """How far an emotion may move mouth and eyes, in multiples of the person's own range."""
    blink: Annotated[Repeated, tyro.conf.arg(metavar="RATE[@TIME]")] = ()
    """Blinks per minute, 0 for none, or own."""
    gaze: Annotated[Repeated, tyro.conf.arg(metavar="GAZE[@TIME]")] = ()
    """Where the eyes look: X,Y in degrees in the head (to the person's left and up), camera, or free. Eyes stop at 30
    degrees aside and at 25 up or down."""
    style: Path | None = None
    """Move lips, brows and head as far as the person of another RUN, motion file or video does."""
    idle: float = 0.0
    """Seconds that the avatar waits, breathes and blinks before and after the audio; alone: how long it waits. A live
    avatar does so whenever nothing is said."""
    words: Path | None = None
    """JSON of word times, {"unit": "seconds", "words": [[start, end, word], ...]}, for @WORD."""
    timeline: Path | None = None
    """JSON of controls over time; see --print-timeline. Options are added to it."""
    print_timeline: Path | None = None
    """Write the controls in effect as such a JSON, to start from."""
    beyond: bool = False
    """Go beyond the view limits: camera and head turn as far as asked, however it looks. By default both stop softly
    where the avatar was not filmed. The person's own head motion stays as it is."""
    seed: int = 0
    """Chooses the loop of head motion, or what is generated, and the times of blinks."""

    def check(self) -> None:
        """Refuse numbers out of range, files that are not there, and timed controls that are no tuples of strings.

        Raises:
            AvatarError: Something is.
        """
        if not 0 <= self.idle <= 600:
            raise AvatarError(f"--idle {self.idle:g} is out of range.", fix="It goes from 0 to 600 seconds.")
        if self.idle and self.motion is not None:
            raise AvatarError("--idle and --motion exclude each other.")
        if not 0 <= self.emotion_limit <= 10:
            raise AvatarError(f"--emotion-limit {self.emotion_limit:g} is out of range.", fix="It goes from 0 to 10.")
        if self.seed < 0:
            raise AvatarError(f"--seed {self.seed} is out of range.", fix="It must not be negative.")
        if self.retarget != "auto" and self.motion is None:
            raise AvatarError("--retarget belongs to --motion.")
        for name in ("motion", "style"):
            path = getattr(self, name)
            if path is not None and not path.exists():
                raise AvatarError(f"--{name} {path} does not exist.")
        from avatar.headmotion.generator import GUIDANCE, NOISE
        from avatar.headmotion.loop import POSES
        from avatar.motion.timeline import is_path

        spans = self.spans()
        generated = any(span.control == "pose" and span.value == "generated" for span in spans)
        for name, value, (low, high) in (
            ("--pose-guidance", self.pose_guidance, GUIDANCE), ("--pose-noise", self.pose_noise, NOISE)
        ):  # fmt: skip
            if not low <= value <= high:
                raise AvatarError(f"{name} {value:g} is out of range.", fix=f"It goes from {low:g} to {high:g}.")
            if value != 1 and not generated:
                raise AvatarError(f"{name} belongs to --pose generated.")
        for span in spans:
            if span.control == "pose" and span.value not in POSES and not is_path(span.value):
                raise AvatarError(
                    f"There is no head pose '{span.value}' and no file of that name.",
                    fix=f"Choose {', '.join(POSES)}, a motion file or a video.",
                )

    def write_timeline(self) -> None:
        """Write the controls in effect to the file of --print-timeline, if there is one."""
        from avatar.motion.timeline import to_json
        from avatar.paths import write_json

        if self.print_timeline is not None:
            write_json(self.print_timeline, to_json(self.spans()))

    def spans(self) -> list[Span]:
        """All timed controls: those of the timeline file, then those of the options.

        Raises:
            AvatarError: One of them is not understood, or is no tuple of strings.
        """
        from avatar.motion import timeline

        for control in TIMED:
            _require_strings(control.replace("-", "_"), getattr(self, control.replace("-", "_")))
        words = () if self.words is None else timeline.load_words(self.words)
        spans = [] if self.timeline is None else timeline.load(self.timeline)
        for control in TIMED:
            for text in getattr(self, control.replace("-", "_")):
                spans += timeline.from_option(control, text, words)
        return spans


def files_of(controls: Controls) -> list[Path]:
    """What controls read: files, and folders of other avatars.

    Raises:
        AvatarError: One of the timed controls is not understood.
    """
    poses = [Path(span.value) for span in controls.spans() if span.control == "pose"]
    return [*filter(None, (controls.motion, controls.style, controls.words, controls.timeline)), *poses]


def _require_strings(name: str, values: object) -> None:
    """Refuse a plain string, which would be taken letter by letter, and items that are none."""
    items = tuple(values) if isinstance(values, tuple | list) else (values,)
    if isinstance(values, tuple | list) and all(isinstance(item, str) for item in items):
        return
    raise AvatarError(f"Controls({name}={values!r}) is no tuple of strings.", fix=f"Give {name}={(*map(str, items),)}.")
