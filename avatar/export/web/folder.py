"""Make a web folder: choose what is stored, fit the basis, and write Gaussians, background, clips and page."""

from __future__ import annotations

import itertools
import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar import log
from avatar.data.run import MOTION
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.web import format as web
from avatar.export.web.basis import Frame, fit_basis
from avatar.export.web.clip import clip_arrays, write_audio
from avatar.export.web.controls import Control, controls_of
from avatar.export.web.page import write_page
from avatar.export.web.shown import LEAST, kept, shown, small
from avatar.export.web.speech import write_speech
from avatar.export.web.splats import StoredGaussians, stored
from avatar.geometry.cameras import EPS2D, Camera
from avatar.geometry.warp import COLUMNS, ROWS
from avatar.infer.avatar import Avatar
from avatar.methods.animated import AnimatedGaussians, draw_splats
from avatar.motion import Motion
from avatar.motion.statistics import MotionStats
from avatar.provenance.disclosure import Disclosure
from avatar.provenance.source_type import TRAINED
from avatar.writing import atomic_dir

SAMPLES, CLIP_SAMPLES = 128, 64  # frames of the person's motion, and of the clip, that the basis is fitted to
LOOKS, CHECKS = 24, 6  # frames that are looked at, and on which the folder is compared with the avatar
MOST_CLIPS = 100
LEAST_PSNR = 34.0  # dB; below it a warning says so
LONGEST_NAME = 80, 120  # characters and bytes of a clip's name, to which a number and endings are added


class Named(NamedTuple):
    """What a clip is called, and its file name."""

    title: str
    name: str

    @staticmethod
    def beside(title: str, clips: Sequence[dict[str, Any]]) -> Named:
        """A name that none of the clips has; a taken one gets a number from 2 on."""
        name = clip_name(title)
        taken = {str(clip["name"]).casefold() for clip in clips}  # some disks do not tell a from A
        if name.casefold() not in taken:
            return Named(title, name)
        number = next(n for n in itertools.count(2) if f"{name}-{n}".casefold() not in taken)
        return Named(f"{title} {number}", f"{name}-{number}")


@dataclass(frozen=True)
class Quality:
    """How much of an avatar is stored.

    Attributes:
        modes: Of the basis.
        step: Least step of a mode; see `avatar.export.web.splats.stored`.
        background: Quality of the background as WebP.
        compact: Whether Gaussians that hardly show are left out.
    """

    modes: int
    step: float
    background: int
    compact: bool


FULL, COMPACT = Quality(32, 0.1, 92, False), Quality(16, 0.4, 80, True)


def new_folder(
    source: ExportSource, path: Path, clip: Named, name: str, model: str, compact: bool, disclosure: Disclosure,
    speech: bool = False,
) -> list[float]:  # fmt: skip
    """Write a folder with one clip.

    Args:
        source: The avatar, and what it does in the clip.
        path: The folder.
        clip: What the clip is called.
        name: Of the avatar.
        model: SHA-256 of its model.
        compact: Make it small.
        disclosure: How the background says where it comes from.
        speech: Add what speaks audio files and the microphone.

    Returns:
        PSNR in dB of some frames to the avatar's own images.
    """
    avatar, motion = source.avatar, source.motion
    assert avatar is not None and motion is not None
    gaussians = avatar.model.animated()
    stats = MotionStats.of(Motion.load(avatar.run / MOTION))
    controls = controls_of(stats)
    arrays, order = _stored(avatar, gaussians, motion, stats, controls, COMPACT if compact else FULL)
    reader = StoredGaussians(arrays, order, gaussians)
    manifest = {"format": web.FORMAT, "name": name, "fps": avatar.fps, "model": model, "gaussians": len(order),
                "compact": compact, "digitalSourceType": TRAINED, **_geometry(avatar, gaussians),
                "background": web.BACKGROUND, "clips": [],
                "controls": [_stored_control(reader, stats.rest, c) for c in controls]}  # fmt: skip
    with atomic_dir(path) as folder:
        web.write_twice(folder, web.GAUSSIANS, web.pack(arrays))
        (folder / web.ORDER).write_bytes(web.pack({"order": order.numpy().astype(np.uint32)}))
        _write_background(avatar, folder / web.BACKGROUND, (COMPACT if compact else FULL).background)
        disclosure.finish(folder / web.BACKGROUND)
        write_page(folder, name, path.resolve().name)
        if speech:
            _write_speech(avatar, folder, stats, reader, gaussians, manifest)
        psnr = _write_clip(source, folder, clip, reader, gaussians, manifest)
        web.write_manifest(folder, manifest)
    return psnr


def add_clip(
    source: ExportSource, path: Path, clip: Named, manifest: dict[str, Any], speech: bool = False
) -> list[float]:  # fmt: skip
    """Add a clip to a folder; a clip of the same name is replaced. Arguments and result as for :func:`new_folder`.

    Raises:
        AvatarError: The folder is damaged, or full.
    """
    assert source.avatar is not None
    if len(manifest["clips"]) >= MOST_CLIPS:
        raise AvatarError(f"{path} holds {MOST_CLIPS} clips already.", fix="Export another folder.")
    gaussians = source.avatar.model.animated()
    arrays, order = web.unpack(path / web.GAUSSIANS), web.unpack(path / web.ORDER).get("order")
    if order is None or len(order) != len(arrays.get("opacity", ())) or order.max(initial=0) >= len(gaussians):
        raise AvatarError(f"{path / web.ORDER} is damaged.", fix="Export the folder again, with --overwrite.")
    reader = StoredGaussians(arrays, torch.from_numpy(order.astype(np.int64)), gaussians)
    with atomic_dir(path) as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        if speech:
            stats = MotionStats.of(Motion.load(source.avatar.run / MOTION))
            _write_speech(source.avatar, folder, stats, reader, gaussians, manifest)
        psnr = _write_clip(source, folder, clip, reader, gaussians, manifest)
        web.write_manifest(folder, manifest)
    return psnr


def clip_name(title: str) -> str:
    """The file name of a clip, made from any text: letters and digits of any script, with - for all else."""
    one = unicodedata.normalize("NFC", title)  # or the same name from another disk would be another
    kept = "".join(c if c in "_-" or unicodedata.category(c)[0] in "LMN" else " " for c in one)
    characters, most = LONGEST_NAME
    name = re.sub(" +", "-", kept).strip("-")[:characters]
    return name.encode()[:most].decode(errors="ignore") or "clip"


def _stored(
    avatar: Avatar, gaussians: AnimatedGaussians, motion: Motion, stats: MotionStats, controls: Sequence[Control],
    quality: Quality,
) -> tuple[web.Arrays, Tensor]:  # fmt: skip
    """Choose the Gaussians, fit the basis, and quantise both."""
    looks = _spread(stats.track, LOOKS // 2) + _spread(motion, LOOKS // 2)
    limits = avatar.cone.limits()
    corners = [(0, 0), (-limits.left, 0), (limits.right, 0), (0, -limits.down), (0, limits.up)]
    cameras = [small(avatar.view_camera.orbit(avatar.pivot, *corner), avatar.camera) for corner in corners]
    total, most = shown(gaussians, looks, cameras)
    keep = kept(gaussians, looks, cameras, most) if quality.compact else most >= LEAST
    frames = _spread(stats.track, SAMPLES) + _spread(motion, CLIP_SAMPLES)
    frames += [(control.moved(stats.rest, value), 0) for control in controls for value in {control.low, control.high}]
    basis = fit_basis(gaussians, frames, total, quality.modes)
    return stored(gaussians, basis, keep, quality.step)


def _spread(motion: Motion, count: int) -> list[Frame]:
    """Frames of a motion, evenly over its time."""
    count = min(count, len(motion))
    return [(motion, index) for index in torch.linspace(0, len(motion) - 1, count).long().tolist()]


def _geometry(avatar: Avatar, gaussians: AnimatedGaussians) -> dict[str, Any]:
    """Camera, view limits and skinning, as the manifest has them."""
    camera, skinning = avatar.view_camera, gaussians.skinning
    return {
        "camera": {"width": camera.width, "height": camera.height, "focal": camera.focal, "cx": camera.cx,
                   "cy": camera.cy, "eps2d": EPS2D, "enlarged": camera.enlarged},
        "pivot": avatar.pivot.tolist(), "limits": avatar.cone.limits()._asdict(),
        "skinning": {
            "head_rotation": skinning.head_rotation.tolist(), "head_translation": skinning.head_translation.tolist(),
            "torso_pivot": skinning.torso_pivot.tolist(), "warp_box": skinning.warp_box.tolist(),
            "warp_grid": [ROWS, COLUMNS],
        },
    }  # fmt: skip


def _stored_control(reader: StoredGaussians, rest: Motion, control: Control) -> dict[str, Any]:
    """A control as the manifest has it: the change of the coefficients from rest to its end."""
    high = reader.coefficients(control.moved(rest, control.high), 0)
    low = reader.coefficients(control.moved(rest, min(control.low, 0)), 0)
    change = (high - low) / (control.high - min(control.low, 0))
    return {"name": control.name, "title": control.title, "low": control.low, "high": control.high,
            "coefficients": [round(value, 5) for value in change.tolist()]}  # fmt: skip


def _write_background(avatar: Avatar, path: Path, quality: int) -> None:
    import cv2

    camera = avatar.view_camera
    image = avatar.view_background(camera)
    if image is None:
        image = (avatar.model.background_at(camera).clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
    done, data = cv2.imencode(".webp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise AvatarError("This OpenCV cannot write WebP.", fix="Reinstall opencv-contrib-python.")
    path.write_bytes(data.tobytes())


def _write_clip(
    source: ExportSource, folder: Path, named: Named, reader: StoredGaussians, gaussians: AnimatedGaussians,
    manifest: dict[str, Any],
) -> list[float]:  # fmt: skip
    """Write the files of a clip, and note it in the manifest."""
    motion, (title, name) = source.motion, named
    assert motion is not None and source.avatar is not None
    motion.check_finite()
    rows = [reader.coefficients(motion, index) for index in log.track(range(len(motion)), "fitting frames")]
    coefficients = torch.stack(rows)
    file = f"{web.CLIPS}/{name}.bin"
    # Some disks do not tell a from A. What is replaced must not stay in a folder that is published.
    replaced = [one for one in manifest["clips"] if one["name"].casefold() == name.casefold()]
    for old in (path for one in replaced for path in (one["file"], one["file"] + web.TWIN, *one["audio"])):
        (folder / web.CLIPS / Path(old).name).unlink(missing_ok=True)
    web.write_twice(folder, file, web.pack(clip_arrays(motion, coefficients)))
    audio: list[str] = []
    if source.audio is not None:
        audio = write_audio(
            source.audio, folder / web.CLIPS, name, start=source.audio_start, track=source.audio_track,
            seconds=len(motion) / motion.fps, compact=bool(manifest.get("compact")),
        )  # fmt: skip
    clip = {"name": name, "title": title, "file": file, "frames": len(motion),
            "audio": [f"{web.CLIPS}/{one}" for one in audio]}  # fmt: skip
    manifest["clips"] = [*(one for one in manifest["clips"] if one not in replaced), clip]
    psnr = _psnr(source.avatar, reader, gaussians, motion, coefficients)
    if min(psnr) < LEAST_PSNR:
        log.warn(
            f"The clip {name} moves the face as the folder cannot show: {min(psnr):.1f} dB PSNR at worst. "
            "Export it as a folder of its own."
        )
    return psnr


def _write_speech(
    avatar: Avatar, folder: Path, stats: MotionStats, reader: StoredGaussians, gaussians: AnimatedGaussians,
    manifest: dict[str, Any],
) -> None:  # fmt: skip
    """Write what hears and moves the lips, note it in the manifest, and say how exact the face is."""
    manifest["speech"], motion, coefficients = write_speech(folder, avatar, stats, reader.coefficients)
    psnr = _psnr(avatar, reader, gaussians, motion, coefficients)
    how = (
        f"PSNR of speech in the page to the avatar's images: {sum(psnr) / len(psnr):.1f} dB, {min(psnr):.1f} at worst."
    )
    (log.warn if min(psnr) < LEAST_PSNR else log.info)(how)


def _psnr(
    avatar: Avatar, reader: StoredGaussians, gaussians: AnimatedGaussians, motion: Motion,
    coefficients: Float[Tensor, "T M"],
) -> list[float]:  # fmt: skip
    """PSNR in dB of what the folder shows of some frames, to the avatar's own images."""
    camera: Camera = small(avatar.camera, avatar.camera)
    behind = avatar.model.background_at(avatar.camera).cpu()
    behind = torch.nn.functional.interpolate(
        behind.permute(2, 0, 1)[None], (camera.height, camera.width), mode="area"
    )[0].permute(1, 2, 0)  # fmt: skip
    found: list[float] = []
    for _, index in _spread(motion, CHECKS):
        exact = draw_splats(gaussians.posed(motion, index), camera, behind)[0]
        posed = reader.rest.posed(motion, index, reader.changes(coefficients[index]))
        error = (draw_splats(posed, camera, behind)[0].clamp(0, 1) - exact.clamp(0, 1)).square().mean()
        found.append(float(-10 * error.clamp_min(1e-10).log10()))
    return found
