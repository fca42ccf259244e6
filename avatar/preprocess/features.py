"""Stage: speech features and loudness, one row per picture, with the sound-picture offset taken out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio.features import FrameFeatureStream
from avatar.io.audio import stream_audio

if TYPE_CHECKING:
    from avatar.cli.prepare import Config
    from avatar.preprocess.stage import StageContext

NAME = "features"
INPUTS: tuple[str, ...] = ("ingest", "sync")
VERSION = 2


def options(config: Config) -> dict[str, Any]:
    """What the result depends on."""
    return {"audio": config.audio, "audio_features": config.audio_features}


def run(ctx: StageContext, out: Path) -> dict[str, Any]:
    """Write audio.npy [T, F] and energy.npy [T]; nothing for a video without sound.

    Raises:
        AvatarError: The encoder that was asked for cannot be had.
    """
    if not ctx.config.audio:
        return {"has_audio": False}
    encoder = speech_encoder(ctx.config.audio_features)
    offset = float(ctx.result("sync")["offset_frames"])
    fps = float(ctx.result("ingest")["fps"])
    stream = FrameFeatureStream(encoder, fps, num_frames=ctx.frames, offset=offset)
    blocks = [stream.push(chunk) for chunk in stream_audio(ctx.folder("ingest") / "audio.wav", start=0.0)]
    blocks.append(stream.finish())
    np.save(out / "audio.npy", np.concatenate([b.features for b in blocks]))
    np.save(out / "energy.npy", np.concatenate([b.energy for b in blocks]))
    return {"has_audio": True, "encoder": encoder.config, "dim": encoder.dim, "fps": fps, "offset_frames": offset}
