"""Film the synthetic person: video, audio and exact ground truth, and on request the flaws that real videos have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from avatar.data.consent import BESIDE, SYNTHETIC
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.log import track
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import encode
from avatar.paths import write_json
from avatar.synth import acting as performance
from avatar.synth import speech
from avatar.synth.appearance import Appearance
from avatar.synth.shot import Shot
from avatar.synth.subject import Subject
from avatar.synth.truth import Truth, write_truth
from avatar.synth.wav import write_padded_wav

SCRIPT = (
    "Good morning, and welcome. My name does not matter much, because I was painted by a program.",
    "Every freckle on my face and every strand of my hair comes from a formula.",
    "Please watch my lips: they move with the sounds that you hear, and they meet on every p, b and m.",
    "Maybe you have a few minutes to spare. Find a window, sit up straight, and look into the camera.",
    "Speak slowly and clearly, as you would to a good friend across the table.",
    "The quick brown fox jumps over the lazy dog, while five boxing wizards watch from above.",
    "We were away a year ago, and nobody knew where the blue boat would take us.",
    "She should choose a sharper photograph. The judge measured the beige garage and the treasure.",
    "Thirty three thieves thought that they thrilled the throne throughout Thursday.",
    "Big brown bears prefer wild berries, and baby pandas munch on bamboo leaves.",
    "How about coffee? You could join us at four. I often leave home before it rains.",
    "Huge ships move through foggy harbours, and small children wave from the shore.",
    "Thank you for listening. If you want to see me say something else, give me any sound file you like.",
    "A warm voice travels further than a loud one, or so my grandmother used to say.",
    "Put the apple pie by the open window and bring me the purple umbrella.",
    "Few people believe that music improves memory, but most of them hum anyway.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What can be wrong with a video. The default is none of it."""

    audio: str = "speech"
    """speech, silent (a track of zeros) or none (no track)."""
    faces: int = 1
    """How many people are in the image: 0, 1, or 2 of equal size."""
    face_scale: float = 1.0
    """Size of the face relative to a portrait; 0.2 is a person far away."""
    cut_every: float = 0.0
    """Seconds between cuts, where the person jumps to another place and size; 0 is one take."""
    audio_delay_s: float = 0.0
    """Seconds by which the audio comes after the video."""
    rotation: int = 0
    """Rotation flag in degrees (90, 180 or 270): the image is stored turned, and players turn it back."""
    variable_rate: bool = False
    """Frames at irregular times."""
    absent: float = 0.0
    """Share of the video, at its start, in which nobody is in the image."""


@dataclass(frozen=True, kw_only=True)
class SynthResult:
    """What `make_subject` wrote.

    Attributes:
        video: The video file.
        audio: The speech as 16-bit wav (not shifted), or None without an audio track.
        truth: Motion per frame, exact: ``arkit``, ``face``, poses in the camera's frame, gaze.
        landmarks: float32 [T, 478, 2], pixels.
        shape: float32 [478, 3], neutral face in head axes, centimetres.
        focal, cx, cy: The camera in pixels.
        width, height: Image size as shown.
        phones: The phones, in seconds.
        blinks: Seconds of full closure.
        cuts: First frames of the takes after the first.
    """

    video: Path
    audio: Path | None
    truth: Motion
    landmarks: np.ndarray
    shape: np.ndarray
    focal: float
    cx: float
    cy: float
    width: int
    height: int
    phones: tuple[speech.Phone, ...]
    blinks: tuple[float, ...]
    cuts: tuple[int, ...]


def make_subject(
    out_dir: Path,
    seconds: float | None = 6.0,
    size: int = 256,
    fps: float = 25.0,
    seed: int = 0,
    *,
    text: str = "",
    voice: str = "auto",
    width: int | None = None,
    height: int | None = None,
    appearance: Appearance | None = None,
    flaws: Flaws | None = None,
    motion: float = 1.0,
    supersample: int = 2,
    quiet: bool = True,
    video_name: str = "video.mp4",
) -> SynthResult:
    """Film a synthetic subject and write the video, its audio and the exact truth into a folder.

    The truth is ``truth.safetensors``, ``truth.json``, ``shape.npy`` and ``landmarks.npy``.

    Args:
        out_dir: Folder; made if needed.
        seconds: Length; None: as long as the text takes.
        size: Side of the square image in pixels, unless ``width`` and ``height`` are given.
        fps: Frames per second.
        seed: The performance and, but for multiples of 4, another person.
        text, voice: As for `avatar.synth.speech.speak`; without text a built-in one, in an order by the seed.
        width, height: Image size, any.
        appearance: Hair, glasses and collar; by default as in the documentation.
        flaws: What shall be wrong.
        motion: Scale of the head motion; 1 is yaw, pitch and roll up to 12, 6 and 4 degrees.
        supersample: Samples per pixel and axis.
        quiet: Show no progress.
        video_name: File name of the video.

    Raises:
        AvatarError: An option makes no sense, or a file cannot be written.
    """
    flaws = flaws or Flaws()
    check_options(seconds, size, fps, flaws)
    said = _speech(text, seconds, voice, seed)
    frames = max(1, round((seconds or said.seconds) * fps))
    out_dir.mkdir(parents=True, exist_ok=True)
    write_padded_wav(audio := out_dir / "audio.wav", said.samples, frames / fps)
    stage = _Stage(width or size, height or size, flaws.face_scale)
    person = Subject(seed, stage.rest, stage.detail, appearance)
    truth, closures = act(said, frames, fps, stage.rest, seed, motion)
    truth, cuts = _cut(truth, stage, flaws, seed)
    truth, landmarks = _with_face(truth, person, stage)
    images = _film(_people(person, flaws, stage, seed), truth, stage, supersample, round(flaws.absent * frames), seed)
    images = images if quiet else track(images, "Filming", frames)
    _write_video(out_dir / video_name, images, stage, fps, said.samples, flaws, frames)
    write_truth(out_dir, Truth(person, truth, stage.camera), landmarks, _events(said, closures, cuts))
    return SynthResult(
        video=out_dir / video_name, audio=None if flaws.audio == "none" else audio, truth=truth, landmarks=landmarks,
        shape=person.shape, focal=stage.focal, cx=stage.cx, cy=stage.cy, width=stage.width, height=stage.height,
        phones=said.phones, blinks=tuple(closures), cuts=tuple(cuts),
    )  # fmt: skip


def check_options(seconds: float | None, size: int, fps: float, flaws: Flaws | None = None) -> None:
    """Refuse what cannot be filmed.

    Raises:
        AvatarError: An option is out of range.
    """
    flaws = flaws or Flaws()
    if seconds is not None and not 0 < seconds <= 3600:
        raise AvatarError(f"A length of {seconds} seconds makes no sense.", fix="Choose 1 to 3600.")
    if not 32 <= size <= 2048:
        raise AvatarError(f"An image size of {size} makes no sense.", fix="Choose 32 to 2048 pixels.")
    if not 1 <= fps <= 120:
        raise AvatarError(f"{fps} frames per second make no sense.", fix="Choose 1 to 120.")
    if flaws.audio not in ("speech", "silent", "none") or flaws.faces not in (0, 1, 2):
        raise AvatarError(f"Unknown flaws: audio={flaws.audio!r}, faces={flaws.faces}.")
    if flaws.rotation not in (0, 90, 180, 270):
        raise AvatarError(f"A rotation flag of {flaws.rotation} degrees does not exist.", fix="Use 0, 90, 180 or 270.")


class _Stage:
    """The camera and where the person stands in front of it."""

    def __init__(self, width: int, height: int, face_scale: float) -> None:
        short = min(width, height)
        self.width, self.height = width, height
        self.focal = 2.0 * short
        self.cx, self.cy = width / 2, height / 2
        distance = 86.0 / face_scale
        self.rest = np.array([0.0, -0.052 * distance * 0.5, distance])
        pixels = 7 * short / 512 * face_scale * 24  # roughly: the face in the image
        self.detail = 1.0 if pixels > 130 else 0.5 if pixels > 50 else 0.25

    @property
    def camera(self) -> Camera:
        return Camera.source(self.focal, self.cx, self.cy, self.width, self.height)

    def project(self, face: np.ndarray, truth: Motion) -> np.ndarray:
        rotation = axis_angle_to_matrix(truth.head_rotation.double()).numpy()
        world = np.einsum("tij,tvj->tvi", rotation, face) + truth.head_translation.double().numpy()[:, None]
        return (world[..., :2] / world[..., 2:] * self.focal + (self.cx, self.cy)).astype(np.float32)


def _speech(text: str, seconds: float | None, voice: str, seed: int) -> speech.Speech:
    """The text, or as much of the script as fits; breathing pauses between sentences."""
    if text:
        parts = [speech.silence(0.3), speech.speak(text, voice, seed), speech.silence(0.4)]
    else:
        rng = np.random.default_rng(seed)
        order = np.arange(len(SCRIPT)) if seed == 0 else rng.permutation(len(SCRIPT))
        parts = [speech.silence(0.4)]
        total, k = 0.4, 0
        while total < (seconds or 60.0):
            sentence = speech.speak(SCRIPT[order[k % len(order)]], voice, seed + k)
            parts += [sentence, speech.silence(float(rng.uniform(0.1, 0.5)))]
            total += sentence.seconds + parts[-1].seconds
            k += 1
    said = speech.join(parts)
    if seconds is None:
        return said
    missing = seconds - said.seconds
    if missing > 0:
        return speech.join([said, speech.silence(missing)])
    keep = round(seconds * speech.RATE)
    samples = said.samples[:keep].copy()
    fade = min(len(samples), speech.RATE // 50)
    samples[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    phones = tuple(speech.Phone(p.symbol, p.start, min(p.end, seconds)) for p in said.phones if p.start < seconds)
    return speech.Speech(samples, phones)


def act(
    said: speech.Speech, frames: int, fps: float, rest: np.ndarray, seed: int, motion: float = 1.0
) -> tuple[Motion, list[float]]:
    """Act out a speech.

    Args:
        said: Audio with phone times.
        frames: Length in frames.
        fps: Frames per second.
        rest: World position of the head's origin at rest.
        seed: Fixes head motion, blinks, gaze and brows.
        motion: Scale of the head motion.

    Returns:
        The Motion (``face`` still zero) and the seconds at which the eyes are closed.
    """
    rng = np.random.default_rng([seed, 7])
    times = (np.arange(frames) + 0.5) / fps  # the middle of the exposure
    arkit = performance.lips(said, times)

    def wander(seconds: float) -> np.ndarray:
        return performance.smooth_noise(frames, fps, seconds, rng)

    degrees = np.stack([6 * (0.7 * wander(2.2) + 0.3 * wander(0.8)), 12 * wander(3.0), 4 * wander(2.6)], 1) * motion
    rotation = np.deg2rad(degrees)
    sway = np.stack([0.5 * wander(4.0), 0.12 * np.sin(2 * np.pi * times / 4.1), 0.3 * wander(5.0)], 1) * motion
    shift = np.stack([0.9 * wander(2.5), 0.35 * wander(2.0), 1.0 * wander(4.0)], 1) * motion
    turn = np.deg2rad(np.stack([0.5 * wander(4.0), 1.5 * wander(4.5), 0.8 * wander(5.0)], 1)) * motion
    head_translation = rest + sway + shift
    lid, closures = performance.blinks(frames, fps, rng)
    gaze = _gaze(rotation, head_translation, frames, fps, rng)
    for side in ("Left", "Right"):
        arkit[:, INDEX[f"eyeBlink{side}"]] = lid
        arkit[:, INDEX[f"browOuterUp{side}"]] = np.clip(0.5 * wander(1.2) + 0.1, 0, 1)
        arkit[:, INDEX[f"eyeLookUp{side}"]] = np.clip(gaze[:, 1] / 0.6, 0, 1)
        arkit[:, INDEX[f"eyeLookDown{side}"]] = np.clip(-gaze[:, 1] / 0.6, 0, 1) * (1 - lid)
        towards_left = gaze[:, 0] / 0.6 * (1 if side == "Left" else -1)
        arkit[:, INDEX[f"eyeLookOut{side}"]] = np.clip(towards_left, 0, 1)
        arkit[:, INDEX[f"eyeLookIn{side}"]] = np.clip(-towards_left, 0, 1)
    arkit[:, INDEX["browInnerUp"]] = np.clip(0.6 * wander(1.4), 0, 1)
    frown = np.clip(0.5 * wander(1.8) - 0.15, 0, 1)
    smile = np.clip(0.35 * wander(3.0), 0, 1)
    for side in ("Left", "Right"):
        arkit[:, INDEX[f"browDown{side}"]] = frown
        arkit[:, INDEX[f"mouthSmile{side}"]] = np.clip(arkit[:, INDEX[f"mouthSmile{side}"]] + smile, 0, 1)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    track_ = Motion.zeros(frames, fps).map(
        arkit=tensor(arkit), head_rotation=tensor(rotation), head_translation=tensor(head_translation),
        gaze=tensor(gaze), torso_rotation=tensor(turn), torso_translation=tensor(sway),
    )  # fmt: skip
    return track_, closures


def _gaze(
    rotation: np.ndarray, translation: np.ndarray, frames: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Eyes on the camera, with glances elsewhere."""
    matrices = axis_angle_to_matrix(torch.from_numpy(rotation)).numpy()
    towards = np.einsum("tji,tj->ti", matrices, -translation)
    gaze = np.stack([np.arctan2(towards[:, 0], -towards[:, 2]), np.arctan2(-towards[:, 1], -towards[:, 2])], 1)
    glance = np.zeros((frames, 2))
    at = 0
    while at < frames:
        length = int(rng.uniform(0.7, 2.5) * fps)
        glance[at : at + length] = rng.normal(0, (0.06, 0.035)) if rng.random() < 0.75 else rng.normal(0, (0.2, 0.08))
        at += length
    kernel = np.array([0.25, 0.5, 0.25])
    glance = np.stack([np.convolve(np.pad(g, 1, "edge"), kernel, "valid") for g in glance.T], 1)
    return np.clip(gaze + glance, -0.5, 0.5)


def _cut(truth: Motion, stage: _Stage, flaws: Flaws, seed: int) -> tuple[Motion, list[int]]:
    """Other places, sizes and poses after each cut."""
    if flaws.cut_every <= 0:
        return truth, []
    rng = np.random.default_rng([seed, 11])
    every = max(1, round(flaws.cut_every * truth.fps))
    cuts = list(range(every, len(truth), every))
    translation, rotation = truth.head_translation.clone(), truth.head_rotation.clone()
    torso = truth.torso_translation.clone()
    for start in cuts:
        shift = torch.tensor([*rng.uniform(-5, 5, 2), rng.uniform(-8, 12)], dtype=torch.float32)
        translation[start : start + every] += shift
        torso[start : start + every] += shift
        rotation[start : start + every, 1] += float(rng.uniform(-0.2, 0.2))
    return truth.map(head_translation=translation, head_rotation=rotation, torso_translation=torso), cuts


def _with_face(truth: Motion, person: Subject, stage: _Stage) -> tuple[Motion, np.ndarray]:
    """The Motion with the face's channels, and the landmarks [T, 478, 2] in pixels."""
    face = np.stack([person.landmarks(a, g) for a, g in zip(truth.arkit.numpy(), truth.gaze.numpy())])
    truth = truth.map(face=torch.from_numpy(encode(face - person.shape)))
    return truth, stage.project(face, truth)


def _people(person: Subject, flaws: Flaws, stage: _Stage, seed: int) -> list[tuple[Subject, np.ndarray]]:
    """(Who, shift of everything in centimetres); far to near does not matter, they stand side by side."""
    if flaws.faces < 2:
        return [(person, np.zeros(3))] * flaws.faces
    apart = np.array([11.5, 0, 60.0])
    return [(person, apart * (-1, 1, 1)), (Subject(seed + 1, stage.rest, stage.detail, person.appearance), apart)]


def _film(
    people: list[tuple[Subject, np.ndarray]], truth: Motion, stage: _Stage, supersample: int, absent: int, seed: int
) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3], a few drawn at a time."""
    size = (stage.width * supersample, stage.height * supersample)
    wall = _wall(people[0][0].look.wall if people else (0.72, 0.74, 0.76), size, seed)
    head = axis_angle_to_matrix(truth.head_rotation.double()).numpy()
    torso = axis_angle_to_matrix(truth.torso_rotation.double()).numpy()
    numbers = {n: getattr(truth, n).numpy().astype(float) for n in ("head_translation", "torso_translation", "gaze")}
    arkit = truth.arkit.numpy()

    def frame(t: int) -> np.ndarray:
        canvas = wall.copy()
        for subject, shift in people if t >= absent else []:
            shot = Shot(arkit[t], head[t], numbers["head_translation"][t] + shift, numbers["gaze"][t], torso[t],
                        numbers["torso_translation"][t] + shift)  # fmt: skip
            subject.draw(canvas, shot, stage.focal * supersample, stage.cx * supersample, stage.cy * supersample)
        image = cv2.resize(canvas, (stage.width, stage.height), interpolation=cv2.INTER_AREA)
        grain = np.random.default_rng([seed, t]).standard_normal(image.shape[:2], np.float32)[..., None]
        return np.clip(image * 255 + 0.9 * grain + 0.5, 0, 255).astype(np.uint8)

    workers, ahead = 2, 6
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(frame, t) for t in range(min(ahead, len(truth)))]
        for t in range(len(truth)):
            image = waiting.pop(0).result()
            if t + ahead < len(truth):
                waiting.append(pool.submit(frame, t + ahead))
            yield image


def _wall(colour: tuple[float, float, float], size: tuple[int, int], seed: int) -> np.ndarray:
    """A painted studio wall, lighter behind the person."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x / width - 0.42, y / height - 0.40
    light = 1.06 - 0.45 * (x * x + 0.8 * y * y)
    rng = np.random.default_rng([seed, 3])
    cloud = cv2.resize(rng.standard_normal((9, 9)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    cloud += 0.5 * cv2.resize(rng.standard_normal((33, 33)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(colour, np.float32) * (light * (1 + 0.018 * cloud))[..., None]


# --- files --------------------------------------------------------------------------------------------------------


def _soundtrack(folder: Path, samples: np.ndarray, flaws: Flaws, seconds: float) -> Path | None:
    """Write the audio of the video, with its flaws; None without an audio track."""
    if flaws.audio == "none":
        return None
    path = folder / "soundtrack.wav"
    delay = round(flaws.audio_delay_s * speech.RATE)
    samples = samples * (0 if flaws.audio == "silent" else 1)
    write_padded_wav(path, np.concatenate([np.zeros(max(delay, 0), np.float32), samples[max(-delay, 0) :]]), seconds)
    return path


def _write_video(
    path: Path, images: Iterable[np.ndarray], stage: _Stage, fps: float, samples: np.ndarray, flaws: Flaws, frames: int
) -> None:
    from avatar.io.video_writer import VideoWriter

    audio = _soundtrack(path.parent, samples, flaws, frames / fps)
    turns = flaws.rotation // 90
    width, height = (stage.height, stage.width) if turns % 2 else (stage.width, stage.height)
    if flaws.variable_rate:
        from avatar.synth.flawed import write_variable_rate

        write_variable_rate(path, images, width, height, fps, audio)
    else:
        with VideoWriter(path, width, height, fps, audio=audio) as writer:
            for image in images:
                writer.write(np.ascontiguousarray(np.rot90(image, turns)))
    if turns:
        from avatar.synth.flawed import set_rotation

        set_rotation(path, flaws.rotation)
    if audio is not None:
        audio.unlink()
    write_json(path.with_suffix(BESIDE), SYNTHETIC.as_json())


def _events(said: speech.Speech, closures: list[float], cuts: list[int]) -> dict[str, Any]:
    """What happens in the video, for truth.json."""
    return {
        "phones": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in said.phones],
        "blinks": [round(b, 3) for b in closures],
        "cuts": cuts,
    }
