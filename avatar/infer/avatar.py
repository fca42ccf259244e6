"""`Avatar`: a trained run, ready to be looked at. The Python entry point for everything after training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avatar.backends import RendererName
from avatar.data.background import IMAGE, WHOLE
from avatar.data.bundle import run_folder
from avatar.data.person import PersonInfo
from avatar.data.run import BACKGROUND, MODEL, MOTION, PERSON, RunInfo, require_run
from avatar.device import OnDevice, Precision, choose_device
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.infer.backdrop import Backdrop
from avatar.infer.view_cone import LEAST_ZOOM, ViewCone
from avatar.io.images import read_rgb, resize
from avatar.methods.base import Method, check_output
from avatar.methods.registry import load_model
from avatar.motion import Motion
from avatar.native.library import runs_native

if TYPE_CHECKING:
    from avatar.infer.controls import Controls

MOST_AT_ONCE = 8  # frames
SMALL = 128  # pixels of the longer side, enough to see whether somebody is in the image
LEAST_COVERAGE = 1e-3  # share of the image; less is an empty room
BAKE_CHECKS = 24  # frames on which a baked form is compared with the trained one


def checked_motion(avatar: Avatar, motions: Iterable[Motion]) -> Iterator[Motion]:
    """Pass on blocks of motion, and refuse a motion that shows nothing but the background.

    Raises:
        AvatarError: Numbers are not finite, or the person is not in the first frame.
    """
    checked = False
    for block in motions:
        block.check_finite()
        if len(block) and not checked:
            checked = True
            if avatar.coverage(block, 0) < LEAST_COVERAGE:
                raise AvatarError(
                    "The motion leads out of the image: nothing of the person is in its first frame.",
                    fix="Check the motion, or fit it to this person with --retarget yes.",
                )
        yield block


class Avatar:
    """A trained avatar; a `avatar.infer.renderer.Renderer`.

    Attributes:
        run: The RUN folder.
        model: The trained model, of any method.
        camera: The camera that filmed the person, at the size of what was trained.
        view_camera: The same camera at the size of what `avatar render` shows: more than ``camera``, where the person
            was prepared with --frame bust or full. It goes with :meth:`view_background`.
        fps: Frame rate of the source video.
        device: Where it renders.
        pivot: World point [3] inside the head; free view turns around it.
        info: Facts to print: ``method``, ``bytes`` on disk, and what the method counts.
        person: The person.json of the source.
        cone: The directions from which it looks right; see :meth:`view`.
    """

    def __init__(
        self, run: Path, model: Method, person: PersonInfo, info: dict[str, Any], precision: Precision = "auto"
    ) -> None:
        if precision not in get_args(Precision):
            raise AvatarError(f'Precision "{precision}" is not understood.', fix="Give auto, float32 or bfloat16.")
        self.run = run
        self.model = model.eval()
        self.playback = model.playback(precision)
        self.person = person
        self.info = info
        self.camera = person.source_camera()
        self.view_camera = person.view_camera()
        self.fps = person.fps
        self.device = model.device
        self.pivot = model.pivot.cpu()
        self.cone = ViewCone.of_run(run)
        self._on_device = OnDevice(self.device)
        self._backdrop = Backdrop(self.model)

    @staticmethod
    def load(
        run: Path | str, baked: bool = False, renderer: RendererName = "native", device: str = "auto",
        precision: Precision = "auto",
    ) -> Avatar:  # fmt: skip
        """Open a RUN folder.

        Args:
            run: The folder, or a bundle (`avatar export --format bundle`).
            baked: Play its baked form (`avatar export --format baked`): faster, nearly the same.
            renderer: Backend that draws. All draw the same, so it need not be the one that the run was trained with.
            device: Where to render: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one and the CUDA library
                is built. A run renders on either, wherever it was trained.
            precision: Of networks: ``float32``; ``bfloat16``, whose frames differ by a tenth of a grey level (root mean
                square); or ``auto`` for the latter where the processor is faster with it.

        Raises:
            AvatarError: The folder is missing, training has not finished in it, or its method is not installed. Or it
                is not baked though ``baked`` asks for it. Or the device or a backend is not available or unknown.
        """
        run = run_folder(Path(run))
        require_run(run)
        path = run / MODEL
        if not path.is_file():
            raise AvatarError(f"{run} holds no trained avatar ({MODEL}).",
                              fix=f"Train one: avatar create VIDEO --out {run}")  # fmt: skip
        RunInfo.read(run)  # one of another version is refused as a whole
        place = choose_device(device)
        person = PersonInfo.read(run / PERSON)
        model, meta = load_model(path, renderer)
        if (size := (person.width, person.height)) != (meta["width"], meta["height"]):
            raise AvatarError(
                f"{run / PERSON} says {size[0]}x{size[1]} pixels, {path} {meta['width']}x{meta['height']}.",
                why="They do not belong together.",
                fix=f"Train it again, or restore {PERSON} from the PERSON folder.",
            )
        if baked:
            model.load_baked(run)
        info = {"method": model.name, **model.stats(), "bytes": path.stat().st_size}
        avatar = Avatar(run, model.to(place), person, info, precision)
        if avatar.coverage(model.reference_motion(avatar.fps), 0) < LEAST_COVERAGE:
            raise AvatarError(f"{path} shows nothing:", why="nothing of it is in front of the camera.",
                              fix="Train it again.")  # fmt: skip
        return avatar

    def speak(
        self,
        audio: Path | str | Iterable[np.ndarray],
        controls: Controls | None = None,
        camera: Camera | None = None,
        background: UInt8[np.ndarray, "H W 3"] | None = None,
    ) -> Iterator[UInt8[Tensor, "H W 3"]]:
        """Frames, uint8 RGB [H, W, 3] on the CPU at ``self.fps``, of an avatar saying something, in constant memory.

        Args:
            audio: A file, anything that FFmpeg reads. Or audio that is still being spoken, in chunks of 16 kHz mono
                float32: a frame comes as soon as 0.2 s of audio after its time are there. See `Session` for a clock.
            controls: How it does so: ``Controls(emotion=("happy:0.7",), pose=("still",))``.
            camera: Where from; by default as filmed, of what was trained.
            background: uint8 RGB [H, W, 3] behind the person; by default that of what was trained.

        Raises:
            AvatarError: The audio cannot be read, the speech network is not available, or a control is not understood.
        """
        from avatar.infer.controls import Controls
        from avatar.infer.planner import plan_motion
        from avatar.infer.sources import AudioFile, checked_samples

        view, how = camera or self.camera, controls or Controls()
        behind = None if background is None else torch.from_numpy(background)
        if isinstance(audio, str | Path):
            chunks = AudioFile(audio)
            frames, level = chunks.frames(self.fps), chunks.voice_db
        else:
            chunks, frames, level = map(checked_samples, audio), None, None
            self.render(view, Motion.zeros(1, self.fps), 0)  # the first one is slow: before the audio begins
        plan = plan_motion(self, how, frames=frames, camera=lambda _: view.position, voice_db=level)
        for block in checked_motion(self, plan.stream(chunks)):
            for index in range(len(block)):
                yield self.render(view, block, index, behind).cpu()

    def view(self, azimuth: float, elevation: float = 0.0, zoom: float = 1.0, beyond: bool = False) -> Camera:
        """The filming camera turned around the head, stopped where the avatar does not look right any more.

        Args:
            azimuth: Degrees; positive moves the camera to its right.
            elevation: Degrees; positive moves the camera up.
            zoom: Factor on the size of what is shown, 1 and more: what lies beyond the frame's edge was not filmed.
            beyond: Do not stop it. `cone` says how far is good.
        """
        if not beyond:
            azimuth, elevation = self.cone.clamped(azimuth, elevation, softness=0.0)
            zoom = max(zoom, LEAST_ZOOM)
        return self.camera.orbit(self.pivot, azimuth, elevation, zoom)

    @property
    def frames_at_once(self) -> int:
        """How many frames of a video are best drawn at the same time, each by one thread.

        On a CPU one per core: threads inside a frame wait for each other wherever speech and encoding take a core
        from one of them. More than a few are held up by the Python around the kernels, and by the encoder.
        """
        if self.device.type != "cpu" or not runs_native(self.model.background):
            return 1
        return min(MOST_AT_ONCE, torch.get_num_threads())

    def view_background(self, camera: Camera) -> UInt8[np.ndarray, "H W 3"] | None:
        """Read the background of the whole frame, to be given to :meth:`render` with ``view_camera``.

        Args:
            camera: ``view_camera``, or that at another size.

        Returns:
            uint8 RGB [H, W, 3]; None where `avatar render` shows no more than was trained.

        Raises:
            AvatarError: Its file is missing, damaged, or of another size.
        """
        view = self.person.view
        if view is None:
            return None
        path, size = self.run / BACKGROUND, (camera.width, camera.height)
        image = read_rgb(
            path, f"Copy it from the PERSON folder (background/{WHOLE}{IMAGE}), or train the avatar again."
        )
        if image.shape[1::-1] != (view.width, view.height):
            raise AvatarError(
                f"{path} has {image.shape[1]}x{image.shape[0]} pixels, {self.run / PERSON} says "
                f"{view.width}x{view.height}.", fix=f"Copy it from the PERSON folder (background/{WHOLE}{IMAGE}).",
            )  # fmt: skip
        return image if image.shape[1::-1] == size else resize(image, size)

    def render(
        self, camera: Camera, motion: Motion, index: int, background: UInt8[Tensor, "H W 3"] | None = None
    ) -> UInt8[Tensor, "H W 3"]:
        """Draw one frame.

        Args:
            camera: Viewpoint; ``self.camera`` or one derived from it.
            motion: A motion track; like the camera, it may be on any device and must not be changed in place.
            index: Its frame to show.
            background: uint8 RGB [H, W, 3] behind the person; by default the background of the video. It is given
                without zoom: where the camera zooms in, it is enlarged too.

        Returns:
            uint8 RGB [H, W, 3] on ``self.device``, which may be changed.
        """
        with torch.inference_mode():
            image = self.playback(*self._placed(camera, motion, index, background))
        return _ordinary(image)

    def draw(
        self, camera: Camera, motion: Motion, index: int, background: UInt8[Tensor, "H W 3"] | None = None
    ) -> UInt8[Tensor, "H W 3"]:
        """Draw the same as :meth:`render` without what playback prepared, such as a CUDA graph."""
        with torch.inference_mode():
            image = self.model.draw(*self._placed(camera, motion, index, background))
        return _ordinary(image)

    def _placed(
        self, camera: Camera, motion: Motion, index: int, background: Tensor | None
    ) -> tuple[Camera, Motion, int, Tensor | None]:
        behind = self._backdrop(camera, background)
        behind = None if behind is None else behind.to(self.device, non_blocking=True)
        return self._on_device(camera), self._on_device(motion), index, behind

    @torch.no_grad()
    def coverage(self, motion: Motion, index: int) -> float:
        """Share of the filming camera's image that the person covers in a frame, 0 to 1, from a small image.

        Raises:
            AvatarError: The image holds numbers that are not finite.
        """
        shrink = min(1.0, SMALL / max(self.camera.width, self.camera.height))
        small = self.camera.resized(*(max(2, round(n * shrink)) for n in (self.camera.width, self.camera.height)))
        out = self.model(self._on_device(motion), index, self._on_device(small))
        check_output(out, (small.height, small.width), self.model.name)
        if not bool(torch.isfinite(out.rgb).all() and torch.isfinite(out.alpha).all()):
            raise AvatarError(f"{self.run} cannot be rendered: its images hold NaN or infinite numbers.",
                              fix="Check the motion and the controls, or train it again.")  # fmt: skip
        return float(out.alpha.mean())

    @property
    def can_render_head(self) -> bool:
        """Whether the method can draw the head alone."""
        return "head" in self.model.parts

    def render_head(self, camera: Camera, motion: Motion, index: int) -> Float[Tensor, "H W 4"]:
        """Draw the head alone (face, mouth, hair; not the neck), hidden where neck and torso are in front of it.

        Args:
            camera, motion, index: As for :meth:`render`.

        Returns:
            float32 [H, W, 4] on ``self.device``: RGB times coverage, and coverage.

        Raises:
            AvatarError: The method cannot; see ``can_render_head``.
        """
        return self._render_part("head", camera, motion, index)

    @property
    def can_render_person(self) -> bool:
        """Whether the method can draw the person without the background."""
        return "person" in self.model.parts

    def render_person(self, camera: Camera, motion: Motion, index: int) -> Float[Tensor, "H W 4"]:
        """Draw the person without the background.

        Args:
            camera, motion, index: As for :meth:`render`.

        Returns:
            float32 [H, W, 4] on ``self.device``: RGB times coverage, and coverage.

        Raises:
            AvatarError: The method cannot; see ``can_render_person``.
        """
        return self._render_part("person", camera, motion, index)

    def _render_part(self, part: str, camera: Camera, motion: Motion, index: int) -> Tensor:
        if part not in self.model.parts:
            raise AvatarError(f"The method {self.model.name} cannot draw the {part} alone.")
        with torch.inference_mode():
            out = self.model(self._on_device(motion), index, self._on_device(camera), part=part)
            image = torch.cat([out.rgb, out.alpha], -1)
        return _ordinary(image)

    def bake(self, modes: int) -> tuple[Path, list[float]]:
        """Write a form of the model into the RUN folder that plays faster, and play that from now on.

        Args:
            modes: Dimensions of the approximation.

        Returns:
            The file, and the PSNR in dB of some frames of the training motion against the trained model.

        Raises:
            AvatarError: The method has no such form, ``modes`` is out of range, or the run has no motion.
        """
        motion = Motion.load(self.run / MOTION).to(self.device)
        frames = torch.linspace(0, len(motion) - 1, 2 * BAKE_CHECKS + 1)[1::2].long().tolist()
        exact = [self.render(self.camera, motion, frame).float() for frame in frames]
        path = self.model.bake(self.run, motion, modes)
        self.model.load_baked(self.run)
        errors = [
            (self.render(self.camera, motion, frame).float() - image).square().mean()
            for frame, image in zip(frames, exact, strict=True)
        ]
        return path, [float(10 * (255**2 / error.clamp_min(1e-3)).log10()) for error in errors]


def _ordinary(image: Tensor) -> Tensor:
    """An image of inference mode as one that may be changed in place; on the CPU without a copy."""
    return torch.from_numpy(image.numpy()) if image.device.type == "cpu" else image.clone()
