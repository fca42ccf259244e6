"""Frames on a GPU as a CUDA graph: the hundred kernels of a frame are recorded once and launched as one.

How the rules of capture (CUDA semantics, "CUDA Graphs", in PyTorch's manual) are kept:

- Addresses do not change: motion, camera and background are copied into the same tensors before each replay. The
  model's tensors stay where they are; the cached code and the basis, which may be replaced, are compared by identity.
- Lazy work (loading kernels, filling caches, cuBLAS) is done by a warm-up on another stream, nothing of it in capture.
- Nothing in a frame waits for the GPU or copies from the CPU: lists of (tile, Gaussian) pairs have a fixed length
  (:class:`avatar.native.pair_capacity`). Whether it was enough is read after the replay, where an ordinary frame would
  have read the number itself; if not, the frame is recorded again with longer lists.
- Random numbers are not used.
"""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar import log
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.methods.base import Playback
from avatar.motion import Motion
from avatar.native import pair_capacity

if TYPE_CHECKING:
    from avatar.methods.gaussian.model import GaussianModel

PAIRS_PER_GAUSSIAN = 4  # at first: a head that fills the image has about as many at 512x512
WARM_UP = 3  # frames before recording, as PyTorch's manual has it
KEPT = 4  # graphs, each with the memory of a frame
_RECORDING = threading.Lock()  # of the process: only one capture may be under way in it


class FrameGraph:
    """Frames of one image size, with or without a background. Everything is on the current CUDA device.

    Args:
        draw: Draws the image of a camera, a motion, its frame and a background.
        camera, motion, index, background: A first frame to record.
        pairs: Length of the lists of pairs.
    """

    def __init__(
        self, draw: Playback, camera: Camera, motion: Motion, index: int, background: Tensor | None, pairs: int
    ) -> None:
        self._draw = draw
        self._camera = replace(camera, viewmat=camera.viewmat.clone())
        self._motion = motion.map(**{name: row.clone() for name, row in _rows(motion, index).items()})
        self._background = None if background is None else background.clone()
        self._inputs = [self._camera.viewmat, self._camera.K, *_rows(self._motion, 0).values()]
        self._record(pairs)

    def render(self, camera: Camera, motion: Motion, index: int, background: Tensor | None) -> Tensor:
        """Draw a frame; waits for it."""
        given = [camera.viewmat, camera.K, *_rows(motion, index).values()]
        for static, value in zip(self._inputs, given, strict=True):
            static.copy_(value)
        if self._background is not None and background is not None:
            self._background.copy_(background)
        self._graph.replay()
        if self._capacity.overflowed():
            self._record(2 * self._capacity.count)
            self._graph.replay()
        return self._image.clone()  # the next replay writes over it

    def _record(self, pairs: int) -> None:
        # After a capture that fails, torch leaves its stream the current one of the thread: here it is put back.
        with _RECORDING, torch.cuda.stream(torch.cuda.current_stream()):
            while not self._recorded(pairs):
                pairs *= 2

    def _recorded(self, pairs: int) -> bool:
        """Record the frame; false where its lists need to be longer."""
        frame = (self._camera, self._motion, 0, self._background)
        stream = torch.cuda.Stream()
        with pair_capacity(pairs) as self._capacity:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._draw(*frame)
            torch.cuda.current_stream().wait_stream(stream)
            if self._capacity.overflowed():
                return False
            self._graph = torch.cuda.CUDAGraph()
            # By default all captures share one stream, which may be another GPU's. Speech and encoding run in threads
            # of their own, and are none of its business.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._image = self._draw(*frame)
        return True


class FrameGraphs:
    """Playback of a model with a graph for each of the last few image sizes.

    Where no graph can be made of a frame, there is a warning, and frames are drawn kernel by kernel from then on.

    Args:
        model: On a CUDA device, no longer trained.
    """

    def __init__(self, model: GaussianModel) -> None:
        self._model, self._draw = model, model.draw
        self._graphs: dict[tuple[object, ...], FrameGraph] = {}
        self._read: tuple[object, object] = (None, None)  # by the graphs, and replaced at times
        self._lock = threading.Lock()
        self._works = True

    @torch.no_grad()
    def __call__(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
        """Draw a frame, with all arguments on the GPU; waits for it."""
        if self._works:
            try:
                return self._replay(camera, motion, index, background)
            except (RuntimeError, AvatarError) as error:  # of torch, and of the kernels
                cause = str(error).partition("\n")[0]  # torch adds pages
                log.warn(f"No CUDA graph could be made of a frame, so it is drawn kernel by kernel: {cause}")
                self._works = False
        return self._draw(camera, motion, index, background)

    def _replay(self, camera: Camera, motion: Motion, index: int, background: Tensor | None) -> Tensor:
        # A stream belongs to the current device, and each new thread begins with the first one.
        with self._lock, torch.cuda.device(self._model.device):
            read = self._model.spatial_code(), self._model.baked
            if read[0] is not self._read[0] or read[1] is not self._read[1]:
                self._graphs.clear()
                self._read = read
            behind = None if background is None else (background.dtype, background.shape)
            key = (camera.width, camera.height, camera.eps2d, behind)
            graph = self._graphs.pop(key, None)
            if graph is None:
                pairs = PAIRS_PER_GAUSSIAN * len(self._model.gaussians)
                graph = FrameGraph(self._draw, camera, motion, index, background, pairs)
            self._graphs[key] = graph  # the most recent last
            if len(self._graphs) > KEPT:
                del self._graphs[next(iter(self._graphs))]
            return graph.render(camera, motion, index, background)


def _rows(motion: Motion, index: int) -> dict[str, Tensor]:
    """The tensors of one frame of a motion, as a motion of one frame."""
    tensors = {field.name: getattr(motion, field.name) for field in fields(motion)}
    return {name: x[index][None] for name, x in tensors.items() if isinstance(x, Tensor)}
