"""Make what an avatar of one photo moves by: `avatar/motion/population.safetensors`.

    python -m pipelines.photo_population PERSON... [--out FILE]

A basis of landmark displacements is fitted to prepared people, to their mirror images, and to the displacement fields
that were designed for the synthetic subject, which decide about what those people never do. The mouth of somebody who
talks is that of the first person. Only people whose tracks may be published belong here: GRID speaker 1 (CC-BY-4.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from avatar.assets.canonical_face import canonical_face
from avatar.data import PersonDataset
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.smoothstep import smoothstep
from avatar.io.checkpoint import save_tensors
from avatar.motion.arkit import MOUTH
from avatar.motion.face_channels import CHANNELS, IRIS, LIP_CHANNELS, encode
from avatar.motion.population import FILE, FORMAT
from avatar.preprocess.head_fit import canonical_in_head_axes
from avatar.synth.shapes import displacement_fields

DESIGNED = 0.02  # share of the weight of the designed fields
DRAWS = 4000  # mouths drawn from them
SECONDS = 40.0  # of somebody who talks
RIDGE = 1e-3  # of each channel's energy


def designed(seed: int = 0) -> np.ndarray:
    """Displacements [DRAWS, 478, 3] of coefficients drawn at random from the designed fields, centimetres."""
    canonical = canonical_in_head_axes(canonical_face()[0])
    fields = displacement_fields(canonical[:468])
    rng = np.random.default_rng(seed)
    coefficients = rng.random((DRAWS, len(fields))) ** 3 * (rng.random((DRAWS, len(fields))) < 0.3)
    moved = np.einsum("nk,kvd->nvd", coefficients, fields)
    return np.concatenate([moved, np.zeros((DRAWS, 10, 3))], 1)


def tracked(folder: Path) -> tuple[np.ndarray, PersonDataset]:
    """Displacements [T, 478, 3] of the training frames of a PERSON folder, and the person."""
    data = PersonDataset(folder)
    frames, motion = data.train_frames, data.motion
    lifted = landmarks_to_head(
        torch.from_numpy(np.asarray(data.landmarks[frames])[..., :2]), torch.from_numpy(data.shape),
        motion.head_rotation[frames], motion.head_translation[frames], data.camera,
    )  # fmt: skip
    return (lifted - torch.from_numpy(data.shape)).numpy(), data


def mirror() -> np.ndarray:
    """Landmark [478] on the other side of the face for each."""
    points = canonical_in_head_axes(canonical_face()[0])[:468]
    other = np.linalg.norm(points[:, None] * [-1, 1, 1] - points, axis=-1).argmin(1)
    return np.concatenate([other, IRIS["left"], IRIS["right"]])


def fit_basis(parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Basis [38, 478 * 3] by ridge regression over displacements [N, 478, 3], each part with its share."""
    other, gram, right = mirror(), 0.0, 0.0
    for moved, share in parts:
        for values in (moved, moved[:, other] * [-1, 1, 1]):
            channels = encode(values).astype(np.float64)
            weight = share / len(values)
            gram = gram + weight * channels.T @ channels
            right = right + weight * channels.T @ values.reshape(len(values), -1)
    gram = np.asarray(gram)
    gram += RIDGE * np.diag(gram.diagonal())  # lids and brows move less than lips, and are worth as much
    return np.linalg.solve(gram, np.asarray(right)) * reach()


def reach() -> np.ndarray:
    """How far each channel reaches, [38, 478 * 3]: lips and jaw do not move the eyes, lids and brows not the mouth.

    Tracked, they do a little, because head poses lean with the expression.
    """
    points = canonical_in_head_axes(canonical_face()[0])
    height, lid, nose = points[:, 1], points[[145, 374], 1].mean(), points[2, 1]
    below = smoothstep(height, lid + 0.2, lid + 1.6)
    above = 1 - smoothstep(height, (lid + nose) / 2, nose)
    part = np.where(np.isin(np.arange(len(CHANNELS)), LIP_CHANNELS)[:, None], below, above)
    return np.repeat(part, 3, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    people = [tracked(folder) for folder in options.people]
    share = (1 - DESIGNED) / len(people)
    basis = fit_basis([(designed(), DESIGNED), *((moved, share) for moved, _ in people)])
    data = people[0][1]
    motion = data.motion[data.train_frames][: round(SECONDS * data.fps)]
    tensors = {
        "basis": torch.from_numpy(basis).half(), "face": motion.face[:, list(LIP_CHANNELS)].half(),
        "arkit": motion.arkit[:, list(MOUTH)].half(),
    }  # fmt: skip
    about = {"people": [folder.name for folder in options.people], "frames": sum(len(moved) for moved, _ in people)}
    save_tensors(options.out, tensors, {"format": FORMAT, "fps": data.fps, "about": about})
    for folder, (moved, _) in zip(options.people, people, strict=True):
        left = moved - (encode(moved) @ basis).reshape(moved.shape)
        print(f"{folder.name}: {np.sqrt((moved**2).mean()):.4f} cm of movement, {np.sqrt((left**2).mean()):.4f} left")


if __name__ == "__main__":
    main()
