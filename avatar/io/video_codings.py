"""How videos are coded: container, codecs and pixels of what `avatar.io.video_writer` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Coding:
    """A container and what is in it, by FFmpeg's names.

    Attributes:
        container: Muxer.
        muxing: Its options.
        codec: Encoder of the images.
        options: Its options; those of x264's quality and speed are added to none.
        pixels: Pixel format without alpha.
        alpha: Pixel format with alpha; empty: it has none.
        audio: Encoder of the audio.
        rates: Sample rates that the audio may have; others become the last one.
        copies_aac: Whether AAC may be taken over as it is.
    """

    container: str
    muxing: Mapping[str, str] = field(default_factory=dict)
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str
    alpha: str = ""
    audio: str
    rates: tuple[int, ...]
    copies_aac: bool = False


MP4 = Coding(
    container="mp4", muxing={"movflags": "+faststart"}, codec="libx264", pixels="yuv420p", audio="aac",
    rates=(16000, 22050, 24000, 32000, 44100, 48000), copies_aac=True,
)  # fmt: skip
# Constant quality; alternate reference frames cannot carry alpha.
WEBM = Coding(
    container="webm", codec="libvpx-vp9",
    options={"crf": "24", "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"},
    pixels="yuv420p", alpha="yuva420p", audio="libopus", rates=(48000,),
)  # fmt: skip
MOV = Coding(
    container="mov", codec="prores_ks", options={"profile": "4444", "alpha_bits": "16", "vendor": "apl0"},
    pixels="yuv444p10le", alpha="yuva444p10le", audio="pcm_s16le", rates=(16000, 22050, 24000, 32000, 44100, 48000),
)  # fmt: skip
