"""The training loop of any method: one frame a step, previews, checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar import log
from avatar.checks import Record, reading, whole
from avatar.data import PersonDataset
from avatar.data.run import CHECKPOINT, MODEL
from avatar.device import choose_device
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.io.images import write_jpeg
from avatar.losses.lpips import LPIPS
from avatar.methods.base import Method, RenderOutput, TrainState, check_output
from avatar.methods.batch import Batch
from avatar.methods.model_file import save_model
from avatar.methods.registry import method
from avatar.motion import Motion
from avatar.train import perceptual
from avatar.train.batches import FrameSampler, image_loss, prefetch
from avatar.train.config import TrainConfig, changes_text, settings
from avatar.train.event_log import EventLog
from avatar.train.finite import all_finite, check_learnt
from avatar.train.interrupt import Interrupt
from avatar.train.poses import PoseCorrection
from avatar.train.same_person import motion_hash
from avatar.writing import atomic_dir, atomic_file

_SNAPSHOT_EVERY = 200
_SETTLE_EVERY = 20  # steps between looks at what a GPU computed
_MAX_ROLLBACKS = 3


class Trainer:
    """Optimises the model of a method on a prepared person.

    It owns the image losses, pose correction, snapshots and checkpoints. Parameter groups, regularizers and callbacks,
    such as densification, come from the method.

    Args:
        data: The person; frames that are left out, and those from ``test_start`` on, are never read.
        config: All options.
        model: Trained further; by default a new one of the person.

    On the CPU each step is checked before it changes anything. On a GPU that would make the processor wait for it in
    every step, so steps are launched unseen and settled together (:meth:`_settle`): their losses are read and logged,
    and if one was not finite, all since the last snapshot are taken back. Nothing is kept (snapshot, checkpoint,
    callback) that is not settled.

    Raises:
        AvatarError: The device is not available.
    """

    def __init__(self, data: PersonDataset, config: TrainConfig, model: Method | None = None) -> None:
        self.data, self.config = data, config
        self.steps = config.schedule.steps
        self.step = 0
        self.device = choose_device(config.device)
        model = model or method(config.method).from_person(data, config.model, config.seed)
        self.model = model.to(self.device).train()
        self.motion = data.motion.to(self.device)
        self.optimizer = torch.optim.Adam(self._groups(), betas=(0.9, 0.99), fused=True)
        self.callbacks = self.model.callbacks()
        self.poses = PoseCorrection(data.num_frames, data.segments).to(self.device)
        self.sampler = FrameSampler(data, config.seed)
        self.psnr = self.seconds = 0.0
        self._lpips: LPIPS | None = None
        self._perceptual_wanted = config.loss.lpips > 0
        self._snapshot: dict[str, Tensor] | None = None
        self._snapshot_step = 0
        self._rollbacks = 0
        self.finished = False  # whether the method has looked back
        self.saved: int | None = None  # step of the checkpoint that a resume would go on from
        self._banned: set[int] = set()
        self._cameras: dict[tuple[int, int], Camera] = {}
        self._launched: list[tuple[int, int, dict[str, Tensor]]] = []  # step, frame and terms of what is not settled

    # -- optimiser ---------------------------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        return [
            {"name": group.name, "params": list(group.params), "lr": group.lr, "start": group.lr, "eps": group.eps,
             "final": self.config.optim.final if group.final is None else group.final, "warmup": group.warmup}
            for group in self.model.param_groups()
        ]  # fmt: skip

    def _learnt(self) -> list[Tensor]:
        return [*(p for group in self.optimizer.param_groups for p in group["params"]), self.poses.knots]

    def _decay(self) -> None:
        progress = self.step / self.steps
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.step + 1) / group["warmup"]) if group["warmup"] else 1.0
            group["lr"] = group["start"] * warm * group["final"] ** progress

    # -- one step ----------------------------------------------------------------------------------------------------

    def _render(self, index: int, background: Tensor, augment: bool) -> RenderOutput:
        """Draw a whole frame, at the size of its background."""
        motion, camera, noise = self._inputs(index, background, augment)
        out = self.model(motion, 0, camera, noise=noise, background=background)
        return check_output(out, tuple(background.shape[:2]), self.model.name)

    def _render_part(self, frame: Batch, part: Batch, augment: bool) -> RenderOutput:
        """Draw what a method chose of a frame."""
        motion, camera, noise = self._inputs(frame.index, frame.image, augment)
        if part.pixels is not None:
            out = self.model.forward_pixels(motion, 0, camera, part.pixels, noise=noise, background=part.background)
        else:
            camera = camera if part.box is None else camera.cropped(*part.box)
            out = self.model(motion, 0, camera, noise=noise, background=part.background)
        return check_output(out, tuple(part.image.shape[:-1]), self.model.name)

    def _inputs(self, index: int, image: Tensor, augment: bool) -> tuple[Motion, Camera, Tensor | None]:
        """The corrected motion of a frame, the camera of an image's size, and the noise of this step."""
        size = image.shape[1], image.shape[0]
        if size not in self._cameras:
            self._cameras[size] = self.data.camera.resized(*size).to(self.device)
        noise, width = None, self.model.condition_width
        if augment and width:
            generator = torch.Generator().manual_seed(self.config.seed * 7_919 + self.step)
            noise = torch.randn(width, generator=generator) * self.config.optim.condition_noise
            noise = noise.to(self.device, non_blocking=True)
        return self.poses.at(self.motion, index), self._cameras[size], noise

    def _loss(self, out: RenderOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.config.loss
        loss, parts = image_loss(out.rgb, batch, weights.ssim)
        # Uncertain mask edges say nothing about coverage: only confident pixels count.
        sure = ((batch.person - 0.5).abs() * 2).square()
        coverage = ((out.alpha - batch.person).abs() * sure).mean()
        loss = loss + weights.alpha * coverage
        parts["alpha"] = coverage.detach()
        for name, term in self.model.regularizers(out, batch, self.step / self.steps).items():
            loss = loss + term
            parts[name] = term.detach()
        late = self.step >= weights.lpips_start * self.steps
        if self._perceptual_wanted and late and batch.pixels is None:
            distance = self._perceptual(out.rgb, batch)
            if distance is not None:
                loss = loss + weights.lpips * distance
                parts["lpips"] = distance.detach()
        return loss, parts

    def _perceptual(self, image: Tensor, batch: Batch) -> Tensor | None:
        if self._lpips is None:
            try:
                self._lpips = LPIPS.load().to(self.device)
            except AvatarError as error:
                log.warn(f"training goes on without the perceptual loss: {error}")
                self._perceptual_wanted = False
                return None
        draw = np.random.default_rng((self.config.seed, self.step, 1)).random(3)
        chosen = perceptual.parts(image, batch, self.config.loss.mouth_lpips, draw)
        return torch.stack([weight * self._lpips(drawn, real) for drawn, real, weight in chosen]).sum()

    def train_step(self, batch: Batch) -> dict[str, Tensor] | None:
        """Make one optimisation step; return what its loss consists of.

        On the CPU, None when the numbers were not finite (nothing was changed). On a GPU the step is made all the same,
        and the entry ``finite`` says whether it was good.
        """
        look = self.device.type == "cpu"
        self._decay()
        part = self.model.sample(batch, self.step / self.steps, np.random.default_rng((self.config.seed, self.step, 2)))
        out = self._render_part(batch, part, augment=True)
        loss, parts = self._loss(out, part)
        finite = torch.isfinite(loss)
        if look and not finite:
            return None
        if not loss.requires_grad:
            raise AvatarError(f"What the method {self.model.name!r} draws depends on none of its parameters.",
                              fix="Report it to those who wrote the method.")  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        self.poses.knots.grad = None
        loss.backward()
        sums = [p.grad.sum() for p in self._learnt() if p.grad is not None]
        steady = torch.isfinite(torch.stack(sums)).all()  # a sum is finite only if every term is
        if look and not steady:
            return None
        if not look:
            parts["finite"] = (finite & steady).float()
        self.optimizer.step()
        rates = self.config.optim
        if self.step >= rates.poses_start * self.steps:
            self.poses.step(batch.index, rates.poses * rates.final ** (self.step / self.steps))
        for callback in self.callbacks:
            callback.after_backward(out)
        return parts

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, folder: Path) -> None:
        """Train to the end, or until Ctrl-C, which ends the step and saves; a second one stops at once instead."""
        sizes = self._sizes()
        began = time.perf_counter()
        before = self.seconds
        with EventLog(folder / "log") as curves, log.progress() as bar, Interrupt() as interrupt:
            task = bar.add_task("train", total=self.steps, completed=self.step, info="")
            try:
                while self.step < self.steps and not interrupt.pressed:
                    for batch in prefetch(self.data, self.sampler, sizes, self.step, self.config.loss, self.device):
                        if not self._launched and self._snapshot_due():
                            self._take_snapshot()
                        parts = {} if batch.index in self._banned else self.train_step(batch)
                        bad = batch.index if parts is None else None
                        if parts:
                            self._launched.append((self.step + 1, batch.index, parts))
                        if bad is None and self._settles(self.step + 1):
                            bad = self._settle(curves)
                        if bad is not None:
                            self._roll_back(bad)
                            bar.update(task, completed=self.step)
                            break
                        self.step += 1
                        # No later step would find out that the last one broke the model.
                        if self.step == self.steps and not all_finite(self._learnt()):
                            self._roll_back(batch.index)
                            break
                        self._maintain()
                        self.seconds = before + time.perf_counter() - began
                        bar.update(task, completed=self.step, info=self._status())
                        if self.step % self.config.preview_every == 0 or self.step == self.steps:
                            self.preview(folder / "previews" / f"{self.step:06d}.jpg")
                        if self.step % self.config.save_every == 0 and self.step < self.steps:
                            self.save(folder)
                        if interrupt.pressed:
                            break
            except KeyboardInterrupt:
                if interrupt.pressed > 1:  # in the middle of a step, which nothing exact goes on from
                    raise
                interrupt.pressed = 1
            if interrupt.pressed and (bad := self._settle(curves)) is not None:
                self._roll_back(bad)
        if interrupt.pressed:
            self.save(folder)
            raise KeyboardInterrupt
        check_learnt([self.sampler(step) for step in range(self.steps)], self._banned)
        if not self.finished:
            self.save(folder)  # Ctrl-C loses no step while the method looks back
            self._finish()
        self.save(folder)

    def _finish(self) -> None:
        """Let the method look back at the training frames."""
        frames = torch.from_numpy(self.data.train_frames).to(self.device)
        self.model.eval()
        self.model.finish(self.poses.corrected(self.motion)[frames], self.data.camera.to(self.device))
        self.model.train()
        self.finished = True

    def _snapshot_due(self) -> bool:
        return self._snapshot is None or self.step - self._snapshot_step >= _SNAPSHOT_EVERY

    def _settles(self, step: int) -> bool:
        """Whether all up to a step must be known to be good before the next: always so on the CPU."""
        config = self.config
        every = (_SETTLE_EVERY, config.preview_every, config.save_every)
        changes = any(callback.due(step, self.steps) for callback in self.callbacks)
        return self.device.type == "cpu" or step == self.steps or changes or any(step % n == 0 for n in every)

    def _settle(self, curves: EventLog) -> int | None:
        """Read and log the losses of the launched steps; the frame of the first that was not finite, or None."""
        launched, self._launched = self._launched, []
        if not launched:
            return None
        values = iter(torch.stack([value for *_, parts in launched for value in parts.values()]).tolist())
        for step, frame, parts in launched:
            numbers = {name: next(values) for name in parts}
            if not numbers.pop("finite", 1.0):
                return frame
            self._report(curves, step, numbers)
        return None

    def _sizes(self) -> list[tuple[int, int]]:
        full = (self.data.width, self.data.height)
        half = (full[0] // 2, full[1] // 2)
        switch = int(self.config.schedule.half_until * self.steps)
        return [half if s < switch and min(half) >= 128 else full for s in range(self.steps)]

    def _maintain(self) -> None:
        for callback in self.callbacks:
            if callback.due(self.step, self.steps):
                callback.after_step(TrainState(self.step, self.steps, self.config.seed, self.optimizer))

    def _status(self) -> str:
        counts = "".join(f"  {value:g} {name}" for name, value in self.model.stats().items())
        return f"PSNR {self.psnr:.2f}{counts}"

    def _report(self, curves: EventLog, step: int, parts: dict[str, float]) -> None:
        psnr = -10 * math.log10(max(parts.pop("mse"), 1e-10))
        self.psnr = psnr if self.psnr == 0 else 0.98 * self.psnr + 0.02 * psnr
        if step % 20 == 0:
            numbers = {"psnr": self.psnr} | self.model.stats() | parts
            curves.add({f"train/{name}": value for name, value in numbers.items()}, step)

    def preview(self, path: Path) -> None:
        """Real beside rendered, for three training frames of different mouth opening."""
        from avatar.motion.face_channels import mouth_opening

        frames = self.data.train_frames[:: max(1, len(self.data.train_frames) // 200)]
        order = np.argsort(mouth_opening(np.asarray(self.data.landmarks[frames])))
        picks = frames[order[[len(order) // 10, len(order) // 2, len(order) - 1 - len(order) // 20]]]
        self.model.eval()
        rows = []
        with torch.no_grad():
            for index in picks:
                background = torch.from_numpy(self.data.background(int(index))).float() / 255
                image = self._render(int(index), background.to(self.device), augment=False).rgb
                rows.append(np.vstack([self.data.image(int(index)), to_uint8(image)]))
        self.model.train()
        with atomic_file(path) as temporary:
            write_jpeg(temporary, np.hstack(rows), quality=88)

    def align_held_out(self) -> None:
        """Find the corrections of the held-out frames, whose poses the avatar was not trained with.

        This is tracking, not training: nothing but the head poses changes, and training is over.
        """
        frames = np.concatenate([self.data.left_out, self.data.test_frames])
        rates, passes = self.config.optim, self.config.schedule.align_passes
        shuffle = np.random.default_rng(self.config.seed).permutation
        order = [int(index) for _ in range(passes) for index in shuffle(frames)]
        tracked = self.poses.knots.detach().clone()
        sizes = [(self.data.width, self.data.height)] * len(order)
        batches = prefetch(self.data, order.__getitem__, sizes, 0, self.config.loss, self.device)
        wanted = [p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad]
        for done, batch in enumerate(log.track(batches, "aligning held-out frames", len(order))):
            part = self.model.sample(batch, 1.0, np.random.default_rng((self.config.seed, done, 3)))
            image = self._render_part(batch, part, augment=False).rgb
            if not image.requires_grad:  # the method does not draw where the head is: there is nothing to align
                break
            self.poses.knots.grad = None
            ((image - part.image).abs() * part.weight).mean().backward()
            self.poses.step(batch.index, rates.poses * rates.final ** (done / len(order)), centred=False)
        if not torch.isfinite(self.poses.knots).all():
            log.warn("The poses of held-out frames could not be aligned: not finite numbers. They stay as tracked.")
            self.poses.knots.data.copy_(tracked)
        for parameter in wanted:
            parameter.requires_grad_(True)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as flat tensors."""
        tensors = {f"model.{k}": v for k, v in self.model.train_state().items()}
        for group in self.optimizer.param_groups:
            for i, parameter in enumerate(group["params"]):
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{group['name']}.{i}.{key}"] = value
        for callback in self.callbacks:
            tensors |= {f"callbacks.{callback.name}.{k}": v for k, v in callback.state().items()}
        tensors |= {f"poses.{k}": v for k, v in self.poses.state_dict().items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state`; the model may have other sizes than the current one."""
        self.model.load_train_state(_below("model.", tensors))
        self.optimizer = torch.optim.Adam(self._groups(), betas=(0.9, 0.99), fused=True)
        for group in self.optimizer.param_groups:
            for i, parameter in enumerate(group["params"]):
                found = _below(f"optimizer.{group['name']}.{i}.", tensors)
                state = {k: v.to(self.device, copy=True) for k, v in found.items()}
                if state:
                    self.optimizer.state[parameter] = state
        for callback in self.callbacks:
            callback.load_state(_below(f"callbacks.{callback.name}.", tensors))
        self.poses.load_state_dict(_below("poses.", tensors))

    def _take_snapshot(self) -> None:
        self._snapshot = {k: v.detach().clone() for k, v in self.state().items()}
        self._snapshot_step = self.step

    def _roll_back(self, frame: int) -> None:
        self._launched = []
        self._rollbacks += 1
        if self._rollbacks > _MAX_ROLLBACKS or self._snapshot is None:
            raise AvatarError(
                f"Training broke down {self._rollbacks} times: the numbers are no longer finite.",
                why=f"The last time at step {self.step} on frame {frame}.", see="training-breaks-down",
                fix="Lower the learning rates (see `avatar train --help`) or prepare the video again.",
            )  # fmt: skip
        log.warn(
            f"step {self.step}: not a finite number on frame {frame}; back to step {self._snapshot_step}, "
            "and this frame is left out from now on."
        )
        self._banned.add(frame)
        self.load_state(self._snapshot)
        self.step = self._snapshot_step

    def save(self, folder: Path) -> None:
        """Write the full training state, then the model: a kill between the two leaves something to go on from."""
        with atomic_dir((folder / CHECKPOINT).parent) as temporary:
            meta = {
                "step": self.step, "psnr": self.psnr, "seconds": self.seconds, "banned": sorted(self._banned),
                "rollbacks": self._rollbacks, "finished": self.finished, "settings": settings(self.config),
                "motion": motion_hash(self.data.motion),
            }  # fmt: skip
            save_tensors(temporary / CHECKPOINT.name, self.state(), meta)
        self.saved = self.step
        self.save_model(folder / MODEL)

    def save_model(self, path: Path) -> None:
        """Write what rendering needs."""
        save_model(path, self.model, self.data.width, self.data.height, self.step)

    def resume(self, folder: Path) -> None:
        """Go on from the last checkpoint of a RUN folder.

        Raises:
            AvatarError: The checkpoint is missing or damaged, or was trained with other settings.
        """
        path = folder / CHECKPOINT
        tensors, meta = load_tensors(path)
        about = Record(meta, path)
        earlier, now = about.record("settings").data, settings(self.config)
        if earlier != now:
            raise AvatarError(
                f"{folder} was trained with other settings{changes_text(earlier, now)}.",
                why="A resumed run must keep them.", see="resumed-with-other-settings",
                fix="Give the same options as before, or choose another --out.",
            )  # fmt: skip
        step = about.whole("step", 0, self.steps)
        banned = {whole(frame, about.place("banned"), 0, self.data.num_frames - 1) for frame in about.list("banned")}
        with reading(path, "a checkpoint of this training", "Train again with --overwrite."):
            self.load_state(tensors)
        self.step, self.psnr, self.seconds = step, about.number("psnr", -1e3, 1e3), about.number("seconds", 0, 1e9)
        self.finished, self.saved = about.flag("finished"), step
        self._banned, self._rollbacks = banned, about.whole("rollbacks", 0, _MAX_ROLLBACKS)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def to_uint8(image: Tensor) -> np.ndarray:
    """Float RGB 0..1 [H, W, 3], on any device, to uint8."""
    return (image.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
