"""Which parts of the method earn their place: the same short training with one thing changed at a time.

Each row is a run per seed in OUT, trained by `avatar train`, measured by `avatar eval` on the held-out frames; finished
ones are kept, so an interrupted ablation goes on where it was. OUT takes one person and one number of steps, and the
record names the commits of all runs. Writes ablation.json, a Markdown table, and a picture of the mouth of each row
beside the real one. All seeds of a row see the same frames held out, so the spread of a row is that of the training;
what lies within it is no difference.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.data import PersonDataset
from avatar.data.run import CONFIG
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.eval.images import contact_sheet, save_image
from avatar.infer.avatar import Avatar
from avatar.methods.registry import DEFAULT
from avatar.motion.face_channels import mouth_opening
from avatar.paths import read_json, write_json
from avatar.train import config as options
from avatar.train.run import train
from avatar.writing import atomic_file
from pipelines import kept

# Changes to a training configuration, by the name of its row.
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "embedding instead of tri-plane": {"model": {"levels": 0, "embedding": 32}},
    "embedding beside tri-plane": {"model": {"embedding": 16}},
    "smooth neighbours": {"model": {"loss": {"smoothness": 1.0}}},
    "embedding, smooth neighbours": {"model": {"levels": 0, "embedding": 32, "loss": {"smoothness": 1.0}}},
    "coarse tri-plane (32)": {"model": {"finest": 32}},
    "fine tri-plane (512)": {"model": {"finest": 512}},
    "clothes deformed as well": {"model": {"deform_torso": True}},
    "positions and opacity only": {"model": {"deforms": ("means", "opacities")}},
    "no change of colour": {"model": {"deforms": ("means", "scales", "opacities")}},
    "tracker's poses": {"optim": {"poses_start": 1.0}, "schedule": {"align_passes": 0}},
    "hidden Gaussians may grow": {"model": {"loss": {"scale_reg": 0.0}}},
    "no weight on mouth and eyes": {"loss": {"mouth": 0.0, "eyes": 0.0}},
    "perceptual loss": {"loss": {"lpips": 0.05}},
    "perceptual loss without the mouth enlarged": {"loss": {"lpips": 0.05, "mouth_lpips": 0.0}},
    "free of their surfaces": {"model": {"loss": {"surface": 0.0, "thickness": 0.0}}},
    "real background alone": {"model": {"loss": {"random_background": 0.0}}},
}
COLUMNS = {
    "psnr": ("PSNR", ".2f"), "psnr_face": ("PSNR face", ".2f"), "lpips": ("LPIPS", ".4f"), "lmd": ("LMD px", ".2f"),
    "pose_wobble": ("wobble px", ".3f"), "mouth_sharpness": ("mouth sharpness", ".3f"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to train, and for how long."""

    person: Annotated[Path, tyro.conf.Positional]
    """PERSON folder."""
    out: Path
    """Folder of the runs."""
    steps: int = 2000
    """Of each run, with the capacity of a draft."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which."""
    seeds: int = 1
    """Trainings of each row, with the seeds 0, 1, 2 and so on."""
    docs: Path | None = None
    """Folder to copy ablation.json and the table to."""


def row_folder(config: Config, name: str, seed: int) -> Path:
    """RUN folder of a training."""
    return config.out / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"


def run_once(config: Config, name: str, seed: int) -> dict[str, float | None]:
    """Train and measure one row with one seed; its metrics on tracked motion, None where nothing measured one."""
    evaluate = importlib.import_module("avatar.cli.eval")
    folder = row_folder(config, name, seed)
    if not (folder / "metrics.json").is_file():
        # The quickest speech network: lips are tracked here, so that none is asked.
        base = options.from_preset(DEFAULT, "draft", person=config.person, out=folder, seed=seed, speech_encoder="mel")
        base = replace(base, schedule=replace(base.schedule, steps=config.steps))
        chosen = options.with_values(base, ROWS[name], name)
        train(replace(chosen, resume=(folder / CONFIG).is_file()))
        evaluate.main(evaluate.Config(run=folder, person=config.person, drive="tracked", protocol="full-frame"))
    metrics, training = read_json(folder / "metrics.json"), read_json(folder / "training.json")
    row = {key: metrics["full_frame"]["tracked"].get(key) for key in COLUMNS}
    return row | {"seconds": training["seconds"], "bytes": metrics["model"]["bytes"]}


def row(runs: list[dict[str, float | None]]) -> dict[str, Any]:
    """Mean of each number over the seeds, None where a seed lacks it, and all of them."""
    known = {key: [value for run in runs if (value := run[key]) is not None] for key in runs[0]}
    means = {key: float(np.mean(of)) if len(of) == len(runs) else None for key, of in known.items()}
    return means | {"seeds": runs}


def made(config: Config, names: list[str]) -> dict[str, Any]:
    """When and from which commits rows were trained and measured, as records keep it."""
    runs = [row_folder(config, name, seed) for name in names for seed in range(config.seeds)]
    return {
        "training": {run.name: kept.trained_at(run) for run in runs},
        "measured": {run.name: kept.measured_at(read_json(run / "metrics.json")) for run in runs},
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown: means, and smallest and largest where there is more than one seed."""
    titles = [title for title, _ in COLUMNS.values()]
    lines = [f"| | {' | '.join(titles)} | MB |", "|---" * (len(titles) + 2) + "|"]
    for name, means in rows.items():
        cells = []
        for key, (_, spec) in COLUMNS.items():
            values = sorted(run[key] for run in means["seeds"] if run[key] is not None)
            spread = f" ({values[0]:{spec}} to {values[-1]:{spec}})" if len(values) > 1 else ""
            cells.append("-" if means[key] is None else f"{means[key]:{spec}}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} | {means['bytes'] / 1e6:.1f} |")
    return "\n".join(lines) + "\n"


def sheet(config: Config, names: list[str]) -> np.ndarray:
    """The held-out frame with the widest mouth, and its mouth magnified: real, then each row; uint8 RGB."""
    data = PersonDataset(config.person)
    opening = mouth_opening(np.asarray(data.landmarks[data.test_frames]))
    frame = int(data.test_frames[opening.argmax()])
    pictures = {"real": data.image(frame)}
    for name in names:
        avatar = Avatar.load(row_folder(config, name, 0))
        motion = PersonDataset(config.person, avatar.run / "tracking.safetensors").motion
        behind = torch.from_numpy(data.background(frame)) if data.camera_moves else None
        pictures[name] = avatar.render(avatar.camera, motion, frame, background=behind).cpu().numpy()
    return contact_sheet([{name: picture} for name, picture in pictures.items()],
                         [np.asarray(data.landmarks[frame])] * len(pictures), list(pictures))  # fmt: skip


def main(config: Config) -> None:
    """Run what is missing and write the results so far after each row."""
    unknown = set(config.rows) - set(ROWS)
    if unknown:
        raise AvatarError(f"There is no row {sorted(unknown)[0]!r}.", fix=f"Choose from: {'; '.join(ROWS)}.")
    if config.seeds < 1:
        raise AvatarError("--seeds must be 1 or more.")
    kept.require(config.out, kept.person(config.person) | {"steps": config.steps})
    rows: dict[str, dict[str, Any]] = {}
    for name in config.rows:
        rows[name] = row([run_once(config, name, seed) for seed in range(config.seeds)])
        picture = sheet(config, list(rows))
        for folder in filter(None, (config.out, config.docs)):
            found = environment() | {"steps": config.steps, "rows": rows} | made(config, list(rows))
            write_json(folder / "ablation.json", found)
            save_image(folder / "ablation.jpg", picture)
            with atomic_file(folder / "ablation.md") as temporary:
                temporary.write_text(f"# Ablation\n\n{table(rows)}")
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Config))
