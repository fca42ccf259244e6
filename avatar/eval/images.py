"""What to look at beside the numbers: side-by-side frames, a contact sheet with mouths, and the mouth over time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avatar.eval.image_metrics import mouth_box
from avatar.io.images import write_jpeg, write_png
from avatar.writing import atomic_file

TILE = 240  # pixels: width of an image on the contact sheet
MOUTH_ZOOM = 3
LABEL_HEIGHT = 22


def side_by_side(images: dict[str, np.ndarray]) -> np.ndarray:
    """Labelled images of one height next to each other, uint8 RGB."""
    return np.concatenate([with_label(image, label) for label, image in images.items()], axis=1)


def pick_frames(opening: np.ndarray, count: int = 8) -> list[int]:
    """Frames for the contact sheet: from equal spans of time, alternately the most closed and the most open mouth.

    Args:
        opening: [T] mouth opening of the real video.
        count: How many.
    """
    spans = np.array_split(np.arange(len(opening)), min(count, len(opening)))
    known = np.nan_to_num(opening, nan=float(np.nanmedian(opening)) if np.isfinite(opening).any() else 0.0)
    return [int(s[(known[s].argmin if i % 2 == 0 else known[s].argmax)()]) for i, s in enumerate(spans)]


def contact_sheet(
    columns: list[dict[str, np.ndarray]], landmarks: list[np.ndarray], titles: list[str], tile: int = TILE
) -> np.ndarray:
    """A row of images per name in ``columns``, then a row of mouths per name, magnified.

    All mouths of a column are cut out at the same place, that of the first (real) image, so that a mouth in the
    wrong place shows.

    Args:
        columns: For each chosen frame the images by name, the real one first, uint8 RGB of one size.
        landmarks: For each chosen frame the real landmarks [478, 2] in pixels.
        titles: What to write over each column.
        tile: Width of a column in pixels; mouths are magnified three times where they fit into it.
    """
    size = next(iter(columns[0].values())).shape[1::-1]
    boxes = [mouth_box(points, size) for points in landmarks]
    sides = [min(tile, MOUTH_ZOOM * (x1 - x0)) for x0, _, x1, _ in boxes]
    sheet = []
    for images, (x0, y0, x1, y1), side, title in zip(columns, boxes, sides, titles, strict=True):
        tall = round(tile * size[1] / size[0])
        faces = [with_label(resize(p, tile, tall), f"{title}  {name}") for name, p in images.items()]
        mouths = []
        for name, image in images.items():
            cell = np.zeros((max(sides), tile, 3), np.uint8)
            cell[:side, (tile - side) // 2 :][:, :side] = resize(image[y0:y1, x0:x1], side, side)
            mouths.append(with_label(cell, f"mouth  {name}"))
        sheet.append(np.concatenate(faces + mouths, axis=0))
    return np.concatenate(sheet, axis=1)


def save_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 RGB as JPEG or PNG, by the suffix, atomically."""
    with atomic_file(path) as temporary:
        write_png(temporary, image) if path.suffix == ".png" else write_jpeg(temporary, image, quality=92)


def plot_openings(path: Path, openings: dict[str, np.ndarray], fps: float) -> None:
    """Mouth opening over time, one line per video, as PNG.

    Args:
        path: Where to.
        openings: Name to [T] relative opening; the first is the real video.
        fps: Frames per second.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = {"real": "0.15", "audio": "tab:orange", "tracked": "tab:blue"}
    for name, values in openings.items():
        axes.plot(np.arange(len(values)) / fps, values, label=name, linewidth=1.2, color=colors.get(name))
    axes.set(xlabel="seconds of the measured part", ylabel="mouth opening / eye distance")
    axes.margins(x=0)
    axes.legend(loc="upper right", ncols=len(openings))
    axes.grid(alpha=0.3)
    with atomic_file(path) as temporary:
        figure.savefig(str(temporary), dpi=110)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image at another size."""
    smaller = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def with_label(image: np.ndarray, label: str) -> np.ndarray:
    """An image, uint8 RGB, with its label on a bar above."""
    bar = np.full((LABEL_HEIGHT, image.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, label, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([bar, image], axis=0)
