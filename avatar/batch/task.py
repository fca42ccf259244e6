"""One job of a batch: what is rendered, what is wrong with it, and which file is it already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.backends import RendererName
from avatar.data.bundle import run_folder
from avatar.data.person import PersonInfo
from avatar.data.run import FILES, MODEL, PERSON, RunInfo, require_run
from avatar.device import Precision
from avatar.errors import AvatarError
from avatar.infer.controls import Controls, files_of
from avatar.infer.speaking import Speaking
from avatar.paths import file_sha256
from avatar.provenance.disclosure import DisclosureOptions

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar
    from avatar.provenance.disclosure import Disclosure

VERSION = 1  # of what is rendered: a higher one renders all jobs anew
SPEECH = ".speech.wav"  # ending of the audio that is written beside the video of a text
_PREFIX = "avatar-job-"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How avatars are loaded, see `Avatar.load`, and how videos say that a program made them."""

    baked: bool = False
    renderer: RendererName = "native"
    device: str = "auto"
    precision: Precision = "auto"
    disclosure: DisclosureOptions = field(default_factory=DisclosureOptions)

    def load(self, run: Path) -> Avatar:
        """Load an avatar.

        Raises:
            AvatarError: It cannot be loaded.
        """
        from avatar.infer.avatar import Avatar

        return Avatar.load(run, self.baked, self.renderer, self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job of a batch.

    Attributes:
        line: Line of the table.
        name: Of its video, below the folder of all videos.
        run: RUN folder.
        out: The mp4 to write.
        speaking: What is said.
        controls: How.
        camera: Camera path, as ``--camera`` takes it.
        size: Longer side of the video in pixels; None: as prepared.
        frames: Stop after this many; None: all.
    """

    line: int
    name: str
    run: Path
    out: Path
    speaking: Speaking
    controls: Controls
    camera: str | None = None
    size: int | None = None
    frames: int | None = None

    def check(self) -> None:
        """Refuse options that contradict each other or are not understood; what they name is checked beside it.

        Raises:
            AvatarError: Something is missing, cannot be read, or is not understood.
        """
        from avatar.audio2motion.load import CHOICES
        from avatar.infer import jobs
        from avatar.infer.camera_path import CameraPath

        jobs.check_source(self.speaking, self.controls, None, "tracked")
        if self.controls.speech not in CHOICES:
            raise AvatarError(f"There is no speech network '{self.controls.speech}'.", fix=f"Choose {_list(CHOICES)}.")
        jobs.check_extent(self.size, self.frames)
        CameraPath.parse(self.camera)
        jobs.video_path(self.run, self.out, self.speaking, self.controls, None)
        if self.speaking.text is not None and not any(c.isalnum() for c in self.speaking.text):
            raise AvatarError("The text has nothing to say.", fix="Give at least one word.")

    def inputs(self) -> list[Path]:
        """What it reads beside its avatar: files, and folders of other avatars.

        Raises:
            AvatarError: A control is not understood.
        """
        return [*filter(None, [self.speaking.audio]), *files_of(self.controls)]

    def outputs(self) -> list[Path]:
        """What it writes."""
        return [self.out] if self.speaking.text is None else [self.out, self.out.with_suffix(SPEECH)]

    def mark(self, loading: Loading, content: Callable[[Path], list[str]]) -> str:
        """Name what is rendered, by the content of all that goes into it; it is written into the video.

        Args:
            loading: How the avatar is loaded.
            content: :func:`content_of`, or one that remembers it.
        """
        facts = {
            "version": VERSION, "run": content(self.run), "loading": asdict(loading),
            "speaking": asdict(replace(self.speaking, audio=None)),
            "controls": {name: value for name, value in asdict(self.controls).items() if not isinstance(value, Path)},
            "files": [content(path) for path in self.inputs()], "camera": self.camera, "size": self.size,
            "camera_file": content(Path(self.camera)) if self.camera else [], "frames": self.frames,
        }  # fmt: skip
        return _PREFIX + hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def render(self, avatar: Avatar, mark: str, disclosure: Disclosure) -> int:
        """Render it; the file appears when it is whole.

        Args:
            avatar: The avatar of its RUN folder.
            mark: What `mark` named.
            disclosure: How the video says that a program made it.

        Returns:
            Frames that were rendered.

        Raises:
            AvatarError: Something cannot be rendered, read or written.
        """
        from avatar.infer import jobs
        from avatar.infer.camera_path import CameraPath
        from avatar.infer.video import render_file, resize

        audio = self.speaking.open(self.out)
        path = jobs.limited_path(avatar, CameraPath.parse(self.camera), self.controls.beyond, self.camera or "")
        job = jobs.speech_job(avatar, self.controls, audio, path).limited(self.frames)
        return render_file(avatar, job, resize(avatar.view_camera, self.size), path, self.out, disclosure, mark).frames


def mark_of(video: Path) -> str:
    """Read the mark in a video that `Task.render` wrote; empty where there is none."""
    from avatar.io.media import open_media

    try:
        with open_media(video) as container:
            text = container.metadata.get("comment", "")
    except AvatarError:  # not there, or no video
        return ""
    return text if text.startswith(_PREFIX) else ""


def run_problem(run: Path) -> str:
    """Say why a RUN folder or a bundle holds no avatar; empty where it does."""
    try:
        run = run_folder(run)
        require_run(run)
        if not (run / MODEL).is_file():
            fix = f"Train one: avatar create VIDEO --out {log.word(run)}"
            raise AvatarError(f"{run} holds no trained avatar ({MODEL}).", fix=fix)
        RunInfo.read(run)
        PersonInfo.read(run / PERSON)
    except AvatarError as error:
        return str(error)
    return ""


def audio_problem(path: Path, track: int | None) -> str:
    """Say why an audio file cannot be read, of which the first second is; empty where it can."""
    from avatar.io.audio import open_audio

    try:
        _, chunks = open_audio(path, track=track)
        next(chunks, None)
    except AvatarError as error:
        return str(error)
    return ""


def voice_problem(engine: str, voice: str | None, language: str) -> str:
    """Say why a text cannot be spoken; empty where it can."""
    from avatar.io.text_to_speech import open_tts

    try:
        open_tts(engine, voice, language)
    except AvatarError as error:
        return str(error)
    return ""


def content_of(path: Path) -> list[str]:
    """Hashes of a file, or of the parts of a RUN folder; empty for what is neither."""
    if path.is_dir():
        return [f"{name} {file_sha256(path / name)}" for name in sorted(FILES) if (path / name).is_file()]
    return [file_sha256(path)] if path.is_file() else []


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
