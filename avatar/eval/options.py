"""What `avatar eval` is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar.backends import RendererName, require
from avatar.device import DeviceName
from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to measure, and where the results go."""

    audio: Path | None = None
    """Audio to speak instead: measures what needs no real frames, for its first 30 seconds or --frames."""
    drive: Literal["both", "tracked", "audio"] = "both"
    """What drives the face. With audio, a floor is measured too: lips from the wrong part of the audio."""
    protocol: Literal["both", "full-frame"] = "both"
    """full-frame: everything is rendered. both: also head-only, the rendered head over the real torso, as in papers."""
    frames: int | None = None
    """Measure only the first so many frames."""
    save_video: Path | None = None
    """Folder for pred.mp4, real.mp4, side_by_side.mp4, a contact sheet and a plot of the mouth."""
    words: Path | None = None
    """JSON of the words with their times, of the person's video or of --audio. Measures lip closure on p, b and m."""
    ablations: bool = True
    """Also measure the image with the torso at rest, and with the head poses of the tracker."""
    views: bool = False
    """Measure free view in full: all views, ten frames, and what `avatar train --hold-out-yaw` left out. Every report
    has a small form of it."""
    truth: Path | None = None
    """Folder of `avatar synth`: with --views, compare with its subject, drawn from the same cameras. The avatar must be
    made from its video."""
    json: Path | None = None
    """File for the numbers; default: metrics.json in the RUN folder, with --audio metrics_AUDIO.json."""
    per_frame: Path | None = None
    """CSV for the numbers of every frame, of all videos that are measured."""
    against: Path | None = None
    """CSV of --per-frame of another avatar on the same frames: prints how much this one differs, with intervals."""
    report: Path | None = None
    """Folder for report.html and its video; default: --save-video, else a folder "report" in the RUN folder."""
    person: Path | None = None
    """The PERSON folder, where it is not the one the avatar was trained from."""
    renderer: RendererName = "native"
    """Renderer of the Gaussians: gsplat draws the same image, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render and to compute LPIPS. auto: a GPU where there is one and the CUDA library is built."""

    def check(self) -> None:
        """Refuse options that contradict each other before anything slow happens.

        Raises:
            AvatarError: They do, or a file cannot be used.
        """
        if self.frames is not None and self.frames < 3:
            raise AvatarError(f"--frames {self.frames} is too few to measure motion.", fix="Give at least 3.")
        require(self.renderer)
        if self.truth is not None and not self.views:
            raise AvatarError("--truth is measured with --views only.", fix="Give --views too.")
        if self.json is not None:
            from avatar.data.outputs import refuse_to_overwrite

            refuse_to_overwrite(self.json, self.audio, self.words)
        if self.per_frame is not None:
            from avatar.data.outputs import refuse_to_overwrite

            refuse_to_overwrite(self.per_frame, self.audio, self.words, self.against)
        if self.audio is not None and (self.per_frame or self.against) is not None:
            raise AvatarError(
                f"{'--against' if self.per_frame is None else '--per-frame'} is for held-out frames,",
                why="and --audio has none.", fix="Leave one of them out.",
            )  # fmt: skip
        if self.audio is not None:
            from avatar.io.audio import stream_audio

            if self.drive == "tracked":
                raise AvatarError("--audio and --drive tracked exclude each other:", why="nobody filmed that audio.")
            next(stream_audio(self.audio))

    def report_folder(self, run: Path) -> Path:
        """Where report.html goes."""
        name = "report" if self.audio is None else f"report_{self.audio.stem}"
        return self.report or self.save_video or run / name

    def json_path(self, run: Path) -> Path:
        """Where the numbers go."""
        return self.json or run / ("metrics.json" if self.audio is None else f"metrics_{self.audio.stem}.json")
