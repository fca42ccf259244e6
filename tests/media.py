"""Small videos for tests of what reads videos: a public-domain portrait that comes with scikit-image, moved about."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.io.video_writer import VideoWriter

FPS = 10.0


def need_landmarker() -> None:
    """Skip the test on a machine without the face landmarker."""
    from avatar.assets import store as assets

    if not assets.available("face_landmarker"):
        pytest.skip("face_landmarker is not on this machine (avatar assets --fetch face_landmarker)")


def portrait() -> np.ndarray:
    """A face of about 120 pixels in a square of 256, uint8 RGB."""
    from skimage.data import astronaut

    return cv2.resize(np.ascontiguousarray(astronaut()[0:280, 90:370]), (256, 256), interpolation=cv2.INTER_AREA)


def with_open_mouth(picture: np.ndarray, pixels: float) -> np.ndarray:
    """The portrait with its lower lip pulled down, and the dark of the mouth between the lips."""
    middle, line, width = 121.4, 133.8, 38.3  # of the lips in `portrait`
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    below = np.clip(y - line, 0, None)
    pull = pixels * np.exp(-(((x - middle) / (0.6 * width)) ** 2) - (below / (1.2 * width)) ** 2)
    source = np.where(y > line, np.maximum(y - pull, line), y).astype(np.float32)
    image = cv2.remap(picture, x, source, cv2.INTER_LINEAR)
    image[(y > line) & (y - pull <= line) & (np.abs(x - middle) < 0.5 * width)] = (60, 20, 20)
    return image


def shifted(picture: np.ndarray, x: float, y: float, scale: float = 1.0) -> np.ndarray:
    """The picture moved and scaled about its middle, edges repeated."""
    size = picture.shape[0]
    middle = (1 - scale) * size / 2
    matrix = np.array([[scale, 0, middle + x], [0, scale, middle + y]])
    return cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def write_video(path: Path, frames: list[np.ndarray], audio: Path | None, fps: float = FPS) -> Path:
    """Write frames [H, W, 3] uint8 RGB and a sound file as mp4."""
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, fps, audio=audio) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_sound(path: Path, seconds: float, amplitude: float = 0.3) -> Path:
    """A hum that swells four times a second, 16 kHz mono WAV; amplitude 0 is silence."""
    import wave

    time = np.arange(int(seconds * 16000)) / 16000
    samples = amplitude * np.sin(2 * np.pi * 140 * time) * np.abs(np.sin(2 * np.pi * 2 * time))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype(np.int16).tobytes())
    return path


def talking_frames(count: int) -> list[np.ndarray]:
    """The portrait swaying a little, its mouth opening and closing."""
    faces = [with_open_mouth(portrait(), pixels) for pixels in (0.0, 6.0, 9.0, 3.0)]
    return [shifted(faces[k % 4], 3 * np.sin(k / 7), 2 * np.cos(k / 5)) for k in range(count)]


def talking(path: Path, seconds: float = 6.0, fps: float = FPS) -> Path:
    """A video of :func:`talking_frames`, with sound."""
    sound = write_sound(path.with_suffix(".wav"), seconds)
    return write_video(path, talking_frames(round(seconds * fps)), sound, fps)
