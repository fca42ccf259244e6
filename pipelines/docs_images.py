"""Draw the images of the first pages: each step of the demo, and what people ask about.

``avatar demo --out demo && python -m pipelines.docs_images demo`` writes them into ``docs/images/``. All of them show
the synthetic subject.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from avatar.audio2motion.load import load_speech
from avatar.data import PersonDataset
from avatar.data.run import open_person
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.replay import drive_held_out
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.io.images import read_rgb, resize, write_jpeg
from avatar.motion import Motion
from avatar.motion.face_channels import mouth_opening, opening_change
from avatar.synth.wav import say_into_file

SIDE = 288  # pixels of a frame in a row
SENTENCES = ("Now I am talking, and my mouth moves.", "And now I am talking again.")
PAUSE = 2.0  # seconds between them
COLORS = {"hair": (214, 120, 40), "face": (70, 160, 220), "clothes": (90, 180, 90)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Draw the images of the first pages."""

    demo: Annotated[Path, tyro.conf.Positional]
    """Folder of `avatar demo`."""
    out: Path = Path("docs/images")
    """Folder for the images."""


def main(config: Config) -> None:
    """Write all images."""
    run = config.demo / "run"
    data, avatar = open_person(run), Avatar.load(run)
    frames, motion = spoken(data, avatar)
    drawn = {
        "step_film": film(data),
        "step_prepare": prepared(data),
        "step_train": trained(run),
        "step_speak": said(avatar, config.demo / "new.wav"),
        "question_wobble": wobble(data, frames),
        "question_neck": necks(data, frames, motion),
        "question_silence": silence(avatar, config.demo / "pause.wav"),
        "question_mouth": mouths(config.out / "nerf_methods.jpg"),
    }
    for name, image in drawn.items():
        write_jpeg(config.out / f"{name}.jpg", image, quality=88)
        print(f"{name}.jpg: {image.shape[1]}x{image.shape[0]}")


def row(images: list[np.ndarray], side: int = SIDE) -> np.ndarray:
    """Images side by side, each of one height."""
    return np.hstack([resize(image, (round(side * image.shape[1] / image.shape[0]), side)) for image in images])


def film(data: PersonDataset) -> np.ndarray:
    """Five frames of the film, with the mouth from closed to open."""
    order = np.argsort(mouth_opening(np.asarray(data.landmarks[: data.test_start])))
    picks = [order[round(share * (len(order) - 1))] for share in (0.05, 0.4, 0.7, 0.9, 0.99)]
    return row([data.image(int(frame)) for frame in sorted(picks)])


def prepared(data: PersonDataset) -> np.ndarray:
    """A frame, its landmarks, its masks, and the background."""
    frame = int(np.argmax(mouth_opening(np.asarray(data.landmarks[: data.test_start]))))
    image = data.image(frame)
    dotted = image.copy()
    for x, y in np.asarray(data.landmarks[frame])[:, :2]:
        cv2.circle(dotted, (round(float(x)), round(float(y))), 2, (40, 230, 120), -1, cv2.LINE_AA)
    masks, masked = data.masks(frame), image.astype(np.float32)
    for name, color in COLORS.items():
        part = masks[name][..., None] + (masks["neck"][..., None] if name == "face" else 0)
        masked += 0.6 * part.clip(0, 1) * (np.array(color, np.float32) - masked)
    return row([image, dotted, masked.clip(0, 255).astype(np.uint8), data.background_image])


def trained(run: Path) -> np.ndarray:
    """A filmed frame, and the avatar's after the first and the last preview of the training."""
    previews = sorted((run / "previews").glob("*.jpg"))
    first, last = (read_rgb(path) for path in (previews[0], previews[-1]))
    high, wide = first.shape[0] // 2, first.shape[1] // 3
    column = slice(2 * wide, 3 * wide)
    return row([first[:high, column], first[high:, column], last[high:, column]], 384)


def spoken(data: PersonDataset, avatar: Avatar) -> tuple[list[np.ndarray], Motion]:
    """The held-out frames, driven by their audio."""
    blocks = list(drive_held_out(data, load_speech(avatar.run, avatar.fps), data.test_start, data.num_frames))
    motion = Motion.cat(blocks)
    return [avatar.render(avatar.camera, motion, index).numpy() for index in range(len(motion))], motion


def said(avatar: Avatar, audio: Path) -> np.ndarray:
    """Five frames of a new sentence, from its first second on."""
    frames = [frame.numpy() for frame in avatar.speak(audio)]
    return row([frames[round(share * (len(frames) - 1))] for share in (0.1, 0.25, 0.4, 0.6, 0.8)])


def wobble(data: PersonDataset, frames: list[np.ndarray]) -> np.ndarray:
    """One row of pixels across the cheeks over time, filmed above, rendered below; time to the right."""
    level = round(float(np.median(np.asarray(data.landmarks[data.test_start :])[:, 4, 1])))  # the tip of the nose
    real = [data.image(data.test_start + index)[level] for index in range(len(frames))]
    strips = [np.stack(rows, 1) for rows in (real, [frame[level] for frame in frames])]
    gap = np.full((8, len(frames), 3), 255, np.uint8)
    return resize(np.vstack([strips[0], gap, strips[1]]), (960, 2 * 300 + 5))


def necks(data: PersonDataset, frames: list[np.ndarray], motion: Motion) -> np.ndarray:
    """The neck in four frames, from turned to the right to turned to the left: filmed above, rendered below."""
    order = np.argsort(motion.head_rotation[:, 1].numpy())
    picks = [int(order[round(share * (len(order) - 1))]) for share in (0.0, 0.35, 0.65, 1.0)]
    rows: list[list[np.ndarray]] = [[], []]
    for index in picks:
        chin = np.asarray(data.landmarks[data.test_start + index])[152, :2]
        half = round(0.19 * data.width)
        x, y = (round(float(v)) for v in chin)
        y = min(y + half // 2, data.height - half)
        box = slice(y - half, y + half), slice(max(0, x - half), x + half)
        rows[0].append(data.image(data.test_start + index)[box])
        rows[1].append(frames[index][box])
    return np.vstack([row(images, 240) for images in rows])


def silence(avatar: Avatar, path: Path) -> np.ndarray:
    """The opening of the mouth above the audio of two sentences with a pause between them, and six of its frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = []
    for seed, text in enumerate(SENTENCES):
        say_into_file(text, 100 + seed, path)
        parts += [load_audio(path), np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)]
    samples = np.concatenate(parts[:-1])
    plan = plan_motion(avatar, Controls(), frames=round(len(samples) / SAMPLE_RATE * avatar.fps))
    motion = Motion.cat([plan.push(samples), plan.finish()])
    opening = opening_change(motion.face).numpy()
    seconds = np.arange(len(motion)) / avatar.fps
    begin, end = (len(parts[0]) / SAMPLE_RATE + shift for shift in (0.0, PAUSE))
    times = [0.35 * begin, 0.7 * begin, begin + 0.25 * PAUSE, begin + 0.6 * PAUSE, end + 0.8, end + 1.4]
    figure = Figure(figsize=(9.6, 3.0), dpi=100)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.plot(seconds, opening - opening.min(), color="#1f77b4")
    upper.set_ylabel("opening, cm")
    lower.plot(np.arange(len(samples)) / SAMPLE_RATE, samples, color="#888888", linewidth=0.3)
    lower.set_ylabel("audio")
    lower.set_xlabel("seconds")
    lower.set_xlim(0, len(samples) / SAMPLE_RATE)
    for axes, time in itertools.product((upper, lower), times):
        axes.axvline(time, color="#d62728", linewidth=0.8, linestyle=":")
    figure.tight_layout()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plot = np.asarray(canvas.buffer_rgba())[..., :3]
    shown = [avatar.render(avatar.camera, motion, round(time * avatar.fps)).numpy() for time in times]
    return np.vstack([plot, row(shown, plot.shape[1] // len(shown))])


def mouths(page: Path) -> np.ndarray:
    """The mouths of an image of `pipelines.compare`: filmed, Gaussians, field, without the labels between them."""
    image = read_rgb(page)
    grey = np.median(image[:8])  # of labels; beside mouths it is black
    label = (np.abs(image.mean(2) - grey) < 6).mean(1) > 0.5
    begins = np.flatnonzero(label[:-1] & ~label[1:]) + 1
    ends = np.flatnonzero(~label[:-1] & label[1:]) + 1
    return np.vstack([image[begins[n] : ends[n]] for n in (3, 4, 5)])


if __name__ == "__main__":
    main(tyro.cli(Config))
