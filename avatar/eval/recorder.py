"""Write the measured videos as mp4 files with audio."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from avatar.eval.images import LABEL_HEIGHT, side_by_side

if TYPE_CHECKING:
    from avatar.io.video_writer import VideoWriter
    from avatar.provenance.disclosure import Disclosure


@final
class Recorder:
    """Writes mp4 files of one or of several labelled videos side by side. Use as a context manager.

    Args:
        files: Each file, and the videos in it.
        size: Width and height of a video.
        fps: Frames per second.
        audio: Audio file that goes into all of them, or None.
        start: Second of it that belongs to the first frame.
        run: RUN folder whose avatar is shown, which says who agreed to it.
    """

    def __init__(
        self, files: dict[Path, list[str]], size: tuple[int, int], fps: float, audio: Path | None, start: float,
        run: Path,
    ) -> None:  # fmt: skip
        self._files, self._size, self._fps, self._audio, self._start = files, size, fps, audio, start
        self._run = run
        self._stack = ExitStack()
        self._writers: list[tuple[VideoWriter, list[str]]] = []

    def __enter__(self) -> Recorder:
        from avatar.io.video_writer import VideoWriter

        width, height = self._size
        for path, videos in self._files.items():
            several = len(videos) > 1
            size = (width * len(videos), height + LABEL_HEIGHT) if several else (width, height)
            writer = VideoWriter(
                path, *size, self._fps, self._audio, self._start, disclosure=self._disclosure(videos)
            )  # fmt: skip
            self._writers.append((self._stack.enter_context(writer), videos))
        return self

    def _disclosure(self, videos: list[str]) -> Disclosure | None:
        """How a file of these videos says that a program made it; None for what a camera saw alone."""
        from avatar.data.disclosed import disclosed
        from avatar.provenance.source_type import COMPOSITE, TRAINED

        if videos == ["real"]:
            return None
        return disclosed(self._run, source_type=COMPOSITE if "real" in videos else TRAINED)

    def write(self, images: dict[str, np.ndarray]) -> None:
        """Add a frame of each video, uint8 RGB [H, W, 3] by its name."""
        for writer, videos in self._writers:
            shown = {name: images[name] for name in videos}
            writer.write(side_by_side(shown) if len(videos) > 1 else images[videos[0]])

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]
