"""A clip of a web folder: motion in whole numbers, and audio in the formats that browsers play."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.errors import AvatarError
from avatar.export.web.format import Arrays, differences
from avatar.motion import Motion

COEFFICIENT_STEP = 0.002  # of their spread in the person's own motion
WARP_STEP = 0.0005  # centimetres
AUDIO_RATE = 48000  # hertz: Opus knows no other
# Ending, codec, FFmpeg's name of the container; the one that keeps its time exactly comes first.
AUDIO_FORMATS = (("opus", "libopus", "ogg"), ("m4a", "aac", "ipod"))


def clip_arrays(motion: Motion, coefficients: Float[Tensor, "T M"]) -> Arrays:
    """The arrays of a clip; see `avatar.export.web.format`."""
    values = coefficients.T.numpy()
    steps = np.maximum(np.abs(values).max(1, initial=0) / 32767, COEFFICIENT_STEP).astype(np.float32)
    return {
        "coefficient": differences(np.rint(values / steps[:, None])), "coefficient_step": steps, **pose_arrays(motion),
    }  # fmt: skip


def pose_arrays(motion: Motion) -> Arrays:
    """The arrays of head and torso; see `avatar.export.web.format`."""
    pose = torch.cat(
        [motion.head_rotation, motion.head_translation, motion.torso_rotation, motion.torso_translation], 1
    )
    warp = motion.torso_warp.T.numpy()
    warp_step = np.array([max(float(np.abs(warp).max(initial=0)) / 32767, WARP_STEP)], np.float32)
    return {
        "pose": pose.T.numpy().astype(np.float32),
        "warp": differences(np.rint(warp / warp_step)), "warp_step": warp_step,
    }  # fmt: skip


def write_audio(
    audio: Path, folder: Path, name: str, *, start: float, track: int | None, seconds: float, compact: bool
) -> list[str]:
    """Encode what a clip says, exactly as long as its motion, in each format that this FFmpeg can write.

    Args:
        audio: The file that is spoken.
        folder: Where the files go.
        name: Of the clip.
        start: Second of ``audio`` that belongs to the first frame; negative: silence comes first.
        track: Number of its audio track, from 1; None: the one that all readers choose.
        seconds: Of the clip.
        compact: Spend fewer bits.

    Returns:
        Names of the files.

    Raises:
        AvatarError: The audio cannot be read, or nothing can be written.
    """
    import av

    from avatar.io.audio import probe_audio
    from avatar.io.audio_decoder import decode

    info = probe_audio(audio, track)
    layout = "mono" if info.choice.channel is not None or compact else _layout(audio, info.choice.index)
    written: list[str] = []
    for suffix, codec, container in AUDIO_FORMATS:
        if codec in av.codecs_available:
            blocks = decode(audio, info.choice, start=info.start + start, rate=AUDIO_RATE, layout=layout)
            bits = (24_000 if suffix == "opus" else 40_000) if compact else (48_000 if suffix == "opus" else 80_000)
            bits = bits if layout == "mono" else round(1.5 * bits)
            total = round(seconds * AUDIO_RATE)
            _encode(folder / f"{name}.{suffix}", exactly(blocks, total), layout, (codec, container, bits))
            written.append(f"{name}.{suffix}")
    if not written:
        raise AvatarError("This FFmpeg can write neither Opus nor AAC, which browsers play.", fix="Reinstall PyAV.")
    return written


def exactly(blocks: Iterator[np.ndarray], total: int) -> Iterator[np.ndarray]:
    """Blocks [C, n] cut, or followed by silence, so that they hold ``total`` samples."""
    channels = 1
    for block in blocks:
        channels = len(block)
        yield block[:, :total]
        total -= min(total, block.shape[1])
        if not total:
            return
    yield np.zeros((channels, total), np.float32)


def _layout(audio: Path, index: int) -> str:
    from avatar.io.media import open_media

    with open_media(audio, "audio") as container:
        return "mono" if container.streams.audio[index].codec_context.channels == 1 else "stereo"


def _encode(path: Path, blocks: Iterator[np.ndarray], layout: str, how: tuple[str, str, int]) -> None:
    import av

    codec, container, bits = how
    options = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if container == "ipod" else {})
    with av.open(str(path), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=AUDIO_RATE, layout=layout)
        stream.codec_context.bit_rate = bits
        stream.codec_context.open()
        fifo, written = av.AudioFifo(), 0
        for block in blocks:
            if not block.shape[1]:
                continue
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), written
            written += block.shape[1]
            if stream.codec_context.format.name != "fltp":
                frame = _converted(frame, stream.codec_context.format.name, layout)
            fifo.write(frame)
            while (whole := fifo.read(stream.codec_context.frame_size or 960)) is not None:
                output.mux(stream.encode(whole))
        if (rest := fifo.read(0, partial=True)) is not None:
            output.mux(stream.encode(rest))
        output.mux(stream.encode(None))


def _converted(frame, kind: str, layout: str):  # pyright: ignore  # PyAV's frames
    import av

    samples = frame.to_ndarray()
    if kind in ("flt", "s16"):
        samples = samples.T.reshape(1, -1)
    if kind.startswith("s16"):
        samples = np.rint(samples.clip(-1, 1) * 32767).astype(np.int16)
    other = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout=layout)
    other.sample_rate, other.time_base, other.pts = frame.sample_rate, frame.time_base, frame.pts
    return other
