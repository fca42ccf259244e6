"""A tiny prepared person, made without tracking: a drawn face whose motion is known. For tests of what comes after."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch

from avatar.data import PersonDataset
from avatar.data.person import PersonInfo
from avatar.data.results import IngestResult, Intrinsics, ParseResult, StageResult, TrackResult
from avatar.geometry.cameras import MEDIAPIPE_TO_HEAD, Camera
from avatar.geometry.mesh import FACE_OVAL
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.audio import write_wav
from avatar.methods import registry
from avatar.methods.base import Method
from avatar.methods.gaussian import coverage
from avatar.methods.gaussian.config import DensifyConfig, GaussianConfig
from avatar.methods.options import LossConfig, MethodConfig, Schedule
from avatar.motion import Motion
from avatar.motion.face_channels import EYE_UPPER, LIPS_INNER, LIPS_OUTER, encode
from avatar.paths import write_json
from avatar.train.config import TrainConfig
from avatar.train.run import describe, open_run, save_tracking
from avatar.train.trainer import Trainer


def canonical_shape() -> np.ndarray:
    """MediaPipe's canonical face in head axes, with ten iris points added, [478, 3]."""
    from avatar.assets.canonical_face import canonical_face

    vertices = canonical_face()[0] * MEDIAPIPE_TO_HEAD.numpy()
    right, left = vertices[[33, 133]].mean(0), vertices[[362, 263]].mean(0)
    return np.concatenate([vertices, np.repeat(right[None], 5, 0), np.repeat(left[None], 5, 0)]).astype(np.float32)


def person_info(**changes: Any) -> PersonInfo:
    """What person.json says about somebody; the fields that matter to a test are given."""
    frames = changes.get("num_frames", 100)
    usual: dict[str, Any] = {
        "width": 96, "height": 96, "fps": 25.0, "num_frames": frames, "test_start": int(frames * 0.9),
        "segments": ((0, frames),), "camera": Intrinsics(focal=200.0, cx=48.0, cy=48.0), "has_audio": True,
    }  # fmt: skip
    return PersonInfo(**usual | changes)


def ingest_result(**changes: Any) -> IngestResult:
    """What the stage `ingest` says about somebody; the fields that matter to a test are given."""
    usual: dict[str, Any] = {
        "width": 96, "height": 96, "fps": 25.0, "num_frames": 100, "source_size": (96, 96), "crop": (0, 0, 96, 96)
    }  # fmt: skip
    return IngestResult(**usual | changes)


def write_result(folder: Path, result: StageResult) -> None:
    """Finish a stage by hand."""
    write_json(folder / result.STAGE / "stage.json", {"key": "drawn", "result": result.to_json()})


def make_person(folder: Path, *, frames: int = 40, size: int = 96, fps: float = 25.0) -> Path:
    """Write a PERSON folder: a head that turns and speaks before a plain wall."""
    shape = canonical_shape()
    camera = Camera.source(2.2 * size, size / 2, size / 2, size, size)
    time = np.arange(frames) / fps
    opening = (0.5 - 0.5 * np.cos(2 * np.pi * 2.5 * time)).astype(np.float32)
    displacement = np.zeros((frames, 478, 3), np.float32)
    displacement[:, [*LIPS_INNER[1:10], *LIPS_OUTER[1:10], 152, 148, 377, 176, 400], 1] = opening[:, None]
    rotation = torch.from_numpy(np.stack([0.05 * np.sin(3 * time), 0.2 * np.sin(2 * time), 0 * time], -1)).float()
    translation = torch.tensor([0.0, 1.0, 62.0]).repeat(frames, 1)
    world = (torch.from_numpy(shape + displacement)) @ axis_angle_to_matrix(rotation).mT + translation[:, None]
    pixels = camera.project(world).numpy()

    motion = Motion.zeros(frames, fps).map(
        head_rotation=rotation, head_translation=translation, face=torch.from_numpy(encode(displacement))
    )
    for name in ("ingest/frames", "track", "refine", "pose", "parse/masks", "background"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    background = np.full((size, size, 3), (40, 90, 140), np.uint8)
    cv2.imwrite(str(folder / "background/background.png"), background[..., ::-1])
    for i in range(frames):
        image, mask = _draw(background, pixels[i], size)
        cv2.imwrite(str(folder / f"ingest/frames/{i:06d}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        small = cv2.resize(mask, (256, 256), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"parse/masks/{i:06d}.png"), small[..., [2, 1, 0, 3]])
    landmarks = np.concatenate([pixels, np.zeros((frames, 478, 1))], -1).astype(np.float32)
    np.save(folder / "track/landmarks.npy", landmarks)
    np.save(folder / "track/blendshapes.npy", motion.arkit.numpy())
    np.save(folder / "track/valid.npy", np.ones(frames, bool))
    np.save(folder / "refine/shape.npy", shape)
    motion.save(folder / "refine/motion.safetensors")
    motion.save(folder / "pose/motion.safetensors")
    motion.save(folder / "motion.safetensors")
    tone = 0.2 * np.sin(2 * np.pi * 220 * np.arange(int(16000 * frames / fps)) / 16000)
    write_wav(folder / "ingest/audio.wav", tone.astype(np.float32))
    results: tuple[StageResult, ...] = (
        ingest_result(width=size, height=size, crop=(0, 0, size, size), fps=fps, num_frames=frames),
        TrackResult(segments=[(0, frames)]),
        ParseResult(keyframes=list(range(frames)), method="drawn"),
    )
    for result in results:
        write_result(folder, result)
    person_info(
        width=size, height=size, fps=fps, num_frames=frames, test_start=int(frames * 0.9), segments=((0, frames),),
        camera=Intrinsics(focal=camera.focal, cx=camera.cx, cy=camera.cy), source="drawn",
        crop=(0, 0, size, size),
    ).write(folder / "person.json")  # fmt: skip
    return folder


def _draw(background: np.ndarray, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn frame, and its soft masks as RGBA: hair, skin, clothes, background."""
    image = background.copy()
    mask = np.zeros((size, size, 4), np.uint8)
    mask[..., 3] = 255

    def fill(polygon: np.ndarray, color: tuple[int, int, int], channel: int) -> None:
        cv2.fillPoly(image, [np.round(polygon * 16).astype(np.int32)], color, cv2.LINE_AA, 4)
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)],
                     tuple(255 if c == channel else 0 for c in range(4)), cv2.LINE_8, 4)  # fmt: skip

    oval = points[list(FACE_OVAL)]
    centre, chin = oval.mean(0), points[152]
    height = np.ptp(oval[:, 1])
    torso = np.array([[-0.9, 2.5], [-0.75, 0.35], [-0.2, 0.15], [0.2, 0.15], [0.75, 0.35], [0.9, 2.5]]) * height
    fill(torso + [size / 2, chin[1]], (60, 60, 80), 2)
    fill(np.array([[-0.2, -0.2], [0.2, -0.2], [0.22, 0.3], [-0.22, 0.3]]) * height + chin, (190, 140, 120), 1)
    fill((oval - centre) * 1.18 + centre - [0, 0.12 * height], (70, 45, 30), 0)
    fill(oval, (220, 170, 150), 1)
    fill(points[list(LIPS_OUTER)], (180, 80, 80), 1)
    fill(points[list(LIPS_INNER)], (60, 20, 20), 1)
    for side in EYE_UPPER.values():
        cv2.circle(image, tuple(np.round(points[side[0]]).astype(int)), max(1, size // 40), (30, 30, 30), -1)
    return image, mask


def small_config(person: Path, out: Path, steps: int = 4, **model) -> TrainConfig:
    """A training run of seconds."""
    return TrainConfig(
        person=person,
        out=out,
        device="cpu",
        model=GaussianConfig(
            **{
                "initial_gaussians": 600,
                "max_gaussians": 800,
                "levels": 3,
                "finest": 32,
                "hidden": 16,
                "densify": DensifyConfig(refine_every=2, refine_start=0.0, refine_stop=0.9),
            }
            | model
        ),
        loss=LossConfig(lpips=0.0),
        schedule=Schedule(steps=steps, half_until=0.0),
        preview_every=10_000,
        save_every=10_000,
    )


def new_trainer(config: TrainConfig) -> Trainer:
    """A trainer of a new model. What is measured of the same person is measured once."""
    files = sorted(path for path in config.person.rglob("*") if path.is_file())
    content = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    model = _untrained(config.person, content, config.method, config.model, config.seed)
    return QuickTrainer(PersonDataset(config.person), config, copy.deepcopy(model))


class QuickTrainer(Trainer):
    """Looks at few frames for what they show: half of the time of so short a training."""

    def run(self, folder: Path) -> None:
        with mock.patch.object(coverage, "FRAMES", 4):
            super().run(folder)


@functools.lru_cache(maxsize=4)
def _untrained(person: Path, content: tuple, method: str, model: MethodConfig, seed: int) -> Method:
    return registry.method(method).from_person(PersonDataset(person), model, seed)


def train(config: TrainConfig, model: Method | None = None) -> Trainer:
    """Train as `avatar train` does, without its speech network: ``model``, or a new one."""
    folder = open_run(config)
    trainer = new_trainer(config) if model is None else QuickTrainer(PersonDataset(config.person), config, model)
    data = trainer.data
    describe(folder, config, data)
    trainer.run(folder)
    save_tracking(trainer, folder)
    return trainer
