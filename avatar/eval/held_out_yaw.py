"""Turned heads of the person that training never saw, against frontal frames that it never saw either.

`avatar train --hold-out-yaw` leaves both out (`avatar.data.yaw`). Their head poses are corrected as those of the
held-out part are, which is another part and is not mixed with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar import log
from avatar.checks import Record
from avatar.data.run import TRAINING, RunInfo
from avatar.data.yaw import KEY, HeldOutYaw
from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.image_metrics import RealFrame, network_features, psnr

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.measure import Tools
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS

MOST = 200  # frames of each kind that are measured
METRICS = ("psnr_face", "psnr", "lpips")
BOTH = ("turned", "frontal")
_BLOCK_SECONDS = 1.0  # of frames that come in pieces of at most half a second from all over the training part


def measure_held_out_yaw(run: Path, avatar: Avatar, data: PersonDataset, tools: Tools) -> dict[str, Any] | None:
    """Compare frames that training left out for their yaw with the real ones; None where it left out none.

    Returns:
        For ``turned`` and ``frontal`` the frames measured, and means with intervals; ``difference`` is the first minus
        the second.

    Raises:
        AvatarError: What the run says about them is damaged.
    """
    kept = left_out(run, data)
    if kept is None:
        return None
    series = {name: _compared(avatar, data, getattr(kept, name), tools.lpips, name) for name in BOTH}
    result: dict[str, Any] = {"share": kept.share, "yaw": [*kept.yaw]}
    draws: dict[str, dict[str, np.ndarray]] = {}
    blocks = np.inf
    for seed, (name, own) in enumerate(series.items()):
        every = _every(getattr(kept, name))
        resamples = Bootstrap(len(own["psnr"]), data.fps / every, seed, _BLOCK_SECONDS)
        blocks = min(blocks, resamples.blocks)
        draws[name] = {key: resamples.values(bootstrap.mean, values) for key, values in own.items()}
        intervals = {key: pair for key, values in own.items() if (pair := resamples.interval(bootstrap.mean, values))}
        means = {key: bootstrap.value(bootstrap.mean, values) for key, values in own.items()}
        result[name] = {"frames": len(own["psnr"]), **means, "intervals": intervals}
    turned, frontal = (result[name] for name in BOTH)
    known = [key for key in turned if key in METRICS and None not in (turned[key], frontal[key])]
    sure = [key for key in known if key in turned["intervals"] and key in frontal["intervals"]]
    less = {key: turned[key] - frontal[key] for key in known}
    between = {key: draws["turned"][key] - draws["frontal"][key] for key in sure}
    intervals = {key: bootstrap.widened(values, less[key], blocks) for key, values in between.items()}
    result["difference"] = {**less, "intervals": intervals}
    return result


def left_out(run: Path, data: PersonDataset) -> HeldOutYaw | None:
    """What a run says about frames left out of its training for their yaw; None where there are none.

    Raises:
        AvatarError: It is damaged.
    """
    kept = RunInfo.read(run).training().get(KEY)
    return None if kept is None else HeldOutYaw.parse(Record(kept, f"{run / TRAINING}: {KEY}"), data.test_start)


def _every(frames: tuple[int, ...]) -> int:
    """Of so many frames one is measured."""
    return max(1, -(-len(frames) // MOST))


def _compared(
    avatar: Avatar, data: PersonDataset, frames: tuple[int, ...], lpips: LPIPS | None, name: str
) -> dict[str, np.ndarray]:
    rows: list[dict[str, float]] = []
    chosen = frames[:: _every(frames)]
    with log.progress() as bar:
        task = bar.add_task(f"Measuring {name} frames left out of training", total=len(chosen), info="")
        for frame in chosen:
            background = torch.from_numpy(data.background(frame)) if data.camera_moves else None
            image = avatar.render(avatar.camera, data.motion, frame, background=background).cpu().numpy()
            real = RealFrame(data.image(frame), data.masks(frame), np.full((478, 2), np.nan), lpips)
            values = image.astype(np.float32) / 255
            row = {"psnr_face": psnr(values, real.values, real.face), "psnr": psnr(values, real.values)}
            if lpips is not None:
                with torch.inference_mode():
                    row["lpips"] = float(lpips.distance(network_features(lpips, values), real.features))
            rows.append(row)
            bar.advance(task)
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}
