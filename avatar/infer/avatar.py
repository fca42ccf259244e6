"""`Avatar`: a trained run, ready to be looked at. The Python entry point for everything after training."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from avatar import log
from avatar.backends import RendererName
from avatar.data.person import FILE, PersonInfo
from avatar.device import OnDevice, Precision, choose_device
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS
from avatar.geometry.cameras import Camera
from avatar.methods.gaussian.cuda_graph import FrameGraphs
from avatar.methods.gaussian.model import GaussianAvatar, resized
from avatar.motion import Motion
from avatar.native.library import multiplies_bfloat16, runs_native

if TYPE_CHECKING:
    from avatar.infer.controls import Controls

MOST_AT_ONCE = 8  # frames
SMALL = 128  # pixels of the longer side, where only is looked whether there is something to see
LEAST_COVERAGE = 1e-3  # share of the picture; less is an empty room
NEIGHBOURS = 15  # that vote on whether a Gaussian belongs to the head


class Renderable(Protocol):
    """Anything that shows a motion from a camera."""

    def render(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
        """Frame ``index`` of ``motion`` as uint8 RGB [H, W, 3]; see :meth:`Avatar.render`."""
        ...


def shown(avatar: Avatar, motions: Iterable[Motion]) -> Iterator[Motion]:
    """Blocks of motion, those refused that would show nothing but the background.

    Raises:
        AvatarError: Numbers are not finite, or the person is not in the first frame.
    """
    looked = False
    for block in motions:
        block.check_finite()
        if len(block) and not looked:
            looked = True
            if avatar.coverage(block, 0) < LEAST_COVERAGE:
                raise AvatarError(
                    "The motion leads out of the picture: nothing of the person is in its first frame.",
                    fix="Check the motion, or fit it to this person with --retarget yes.",
                )
        yield block


class Avatar:
    """A trained avatar.

    Attributes:
        camera: The camera that filmed the person.
        fps: Frame rate of the source video.
        device: Where it renders.
        head_pivot: World point [3] inside the head; free view turns around it.
        info: What the model file says: method, number of Gaussians, bytes on disk.
        person: The person.json of the source.
    """

    def __init__(
        self, run: Path, model: GaussianAvatar, person: PersonInfo, info: dict[str, Any],
        precision: Precision = "auto",
    ) -> None:  # fmt: skip
        self.run = run
        self.model = model.eval()
        if precision not in ("auto", "float32", "bfloat16"):
            raise AvatarError(f'Precision "{precision}" is not understood.', fix="Give auto, float32 or bfloat16.")
        # A basis is read off few Gaussians: there is nothing to gain, and it was baked from the exact ones.
        gains = model.plate.device.type == "cpu" and model.baked is None and multiplies_bfloat16()
        half = precision == "bfloat16" or (precision == "auto" and gains)
        model.code_dtype = torch.bfloat16 if half else torch.float32
        self.person = person
        self.info = info
        self.camera = person.source_camera()
        self.fps = person.fps
        self.device = model.plate.device
        self.head_pivot = model.pivot.cpu()
        self._on_device = OnDevice(self.device)
        # gsplat and the torch reference wait for the GPU within a frame.
        recordable = self.device.type == "cuda" and model.config.renderer == "native" and runs_native(model.plate)
        self._graphs = FrameGraphs(model, self.draw) if recordable else None

    @staticmethod
    def load(
        run: Path, baked: bool = False, renderer: RendererName = "native", device: str = "auto",
        precision: Precision = "auto",
    ) -> Avatar:  # fmt: skip
        """Open a RUN folder.

        Args:
            run: The folder.
            baked: Play its baked basis (`avatar bake`) instead of the trained field: faster, nearly the same.
            renderer: What draws it. All draw the same, so it need not be the one that the run was trained with.
            device: Where to render: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one and the CUDA library
                is built. A run renders on either, wherever it was trained.
            precision: Of the deformation network: ``float32``; ``bfloat16``, whose pictures differ by a tenth of a grey
                level (root mean square); or ``auto`` for the latter where the processor is faster with it.

        Raises:
            AvatarError: The folder is missing, training has not finished in it, ``baked`` and it is not baked, the
                device or a backend that it needs cannot be had, or a word is not among those above.
        """
        run = Path(run)
        if not run.is_dir():
            raise AvatarError(f"There is no run folder {run}.", fix=f"Make one: avatar create VIDEO --out {run}")
        path = run / "model.safetensors"
        if not path.is_file():
            raise AvatarError(f"{run} holds no trained avatar (model.safetensors).",
                              fix=f"Train one: avatar create VIDEO --out {run}")  # fmt: skip
        place = choose_device(device)
        person = PersonInfo.read(run / FILE)
        model, meta = GaussianAvatar.read(path, renderer)
        if (size := (person.width, person.height)) != (meta["width"], meta["height"]):
            raise AvatarError(
                f"{run / FILE} says {size[0]}x{size[1]} pixels, {path} {meta['width']}x{meta['height']}.",
                why="They do not belong together.", fix=f"Train it again, or restore {FILE} from the PERSON folder.",
            )  # fmt: skip
        if baked:
            from avatar.methods.gaussian.bake import load

            model.baked = load(run, model)
        info = {"method": meta["method"], "gaussians": meta["count"], "bytes": path.stat().st_size}
        avatar = Avatar(run, model.to(place), person, info, precision)
        if avatar.coverage(model.reference_motion(avatar.fps), 0) < LEAST_COVERAGE:
            raise AvatarError(f"{path} shows nothing:", why="its Gaussians are not before the camera that filmed.",
                              fix="Train it again.")  # fmt: skip
        return avatar

    def speak(
        self,
        audio: Path | str | Iterable[np.ndarray],
        controls: Controls | None = None,
        camera: Camera | None = None,
    ) -> Iterator[Tensor]:
        """Frames, uint8 RGB [H, W, 3] on the CPU at ``self.fps``, of an avatar saying something, in constant memory.

        Args:
            audio: A file, anything that FFmpeg reads. Or sound that is still being spoken, in chunks of 16 kHz mono
                float32: a frame comes as soon as 0.2 s of sound after its time are there.
            controls: How it does so: ``Controls(emotion=("happy:0.7",), pose=("still",))``.
            camera: Where from; by default as filmed.

        Raises:
            AvatarError: The sound cannot be read, what speaks cannot be had, or a control is not understood.
        """
        from avatar.infer.controls import Controls
        from avatar.infer.planner import plan_motion, respond

        view, how = camera or self.camera, controls or Controls()
        if isinstance(audio, str | Path):
            motions = plan_motion(self, how, Path(audio), lambda _: view.position).motions
        else:
            motions = respond(self, how, audio, lambda _: view.position)
            self.render(view, Motion.zeros(1, self.fps), 0)  # the first one takes seconds: before the sound begins
        for block in shown(self, motions):
            for index in range(len(block)):
                yield self.render(view, block, index).cpu()

    @property
    def frames_at_once(self) -> int:
        """How many frames of a video are best drawn at the same time, each by one thread.

        On a CPU one per core: threads inside a frame wait for each other wherever speech and encoding take a core
        from one of them. More than a few are held up by the Python around the kernels, and by the encoder.
        """
        if self.device.type != "cpu" or not runs_native(self.model.plate):
            return 1
        return min(MOST_AT_ONCE, torch.get_num_threads())

    @torch.inference_mode()
    def render(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
        """One frame.

        Args:
            camera: Where from; ``self.camera`` or one derived from it.
            motion: A motion track; like the camera, it may be on any device and must not be changed in place.
            index: Its frame to show.
            background: uint8 RGB [H, W, 3] behind the person; by default the plate.

        Returns:
            uint8 RGB [H, W, 3] on ``self.device``.
        """
        if self._graphs is not None:
            behind = None if background is None else background.to(self.device, non_blocking=True)
            try:
                return self._graphs.render(self._on_device(camera), self._on_device(motion), index, behind)
            except RuntimeError as error:
                cause = str(error).partition("\n")[0]  # torch adds pages
                log.warn(f"No CUDA graph could be made of a frame, so it is drawn kernel by kernel: {cause}")
                self._graphs = None
        return self.draw(camera, motion, index, background)

    @torch.inference_mode()
    def draw(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
        """The same as :meth:`render`, which on a GPU replays a recording of this."""
        camera, motion = self._on_device(camera), self._on_device(motion)
        behind = None
        if background is not None:
            behind = resized(background.to(self.device, non_blocking=True).float() / 255, camera)
        image = self.model(motion, index, camera, background=behind).image
        return image.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)

    @torch.no_grad()
    def coverage(self, motion: Motion, index: int) -> float:
        """Share of the filming camera's picture that the person covers in a frame, 0 to 1, from a small picture.

        Raises:
            AvatarError: The picture is not made of finite numbers.
        """
        shrink = min(1.0, SMALL / max(self.camera.width, self.camera.height))
        small = self.camera.resized(*(max(2, round(n * shrink)) for n in (self.camera.width, self.camera.height)))
        out = self.model(self._on_device(motion), index, self._on_device(small))
        if not bool(torch.isfinite(out.image).all() and torch.isfinite(out.alpha).all()):
            raise AvatarError(f"{self.run} cannot be rendered: its pictures hold NaN or infinite numbers.",
                              fix="Check the motion and the controls, or train it again.")  # fmt: skip
        return float(out.alpha.mean())

    @torch.inference_mode()
    def render_head(self, camera: Camera, motion: Motion, index: int) -> Tensor:
        """The head alone (face, mouth, hair; not the neck), hidden where neck and torso are in front of it.

        Args:
            camera, motion, index: As for :meth:`render`.

        Returns:
            float32 [H, W, 4] on ``self.device``: RGB times coverage, and coverage.
        """
        camera, motion = self._on_device(camera), self._on_device(motion)
        return self.model(motion, index, camera, layer=self._head).image

    @functools.cached_property
    def _head(self) -> Tensor:
        """[N, 1] 1 for Gaussians of the head: those most of whose nearest neighbours began as face, mouth or hair.

        In training some wander over the jaw line; where they are counts for more than where they came from.
        """
        from scipy.spatial import KDTree

        means = self.model.gaussians.means.detach().cpu().numpy()
        began = (self.model.gaussians.region < REGIONS.index("neck")).cpu().numpy()
        near = np.asarray(KDTree(means).query(means, k=min(NEIGHBOURS, len(means)))[1]).reshape(len(means), -1)
        return torch.from_numpy(began[near].mean(1) > 0.5).float()[:, None].to(self.device)
