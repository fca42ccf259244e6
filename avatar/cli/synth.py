"""Film a synthetic person who speaks, with exact ground truth for tracking and lip shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from avatar.errors import AvatarError

BEGUN = ".synth-begun"  # marks a folder of this command until all of it is there


@dataclass(frozen=True, kw_only=True)
class Config:
    """Film a synthetic person."""

    out: Path
    """Folder, or an .mp4 file: then the truth lies beside it in FILE.truth."""
    seconds: float | None = None
    """Length of the video. Default: 30, or as long as --text takes."""
    size: int = 512
    """Side of the square image in pixels."""
    fps: float = 25.0
    """Frames per second."""
    seed: Annotated[int, tyro.conf.arg(aliases=["-s"])] = 0
    """Another person and another performance; everything else being equal, the same seed gives the same video."""
    text: str = ""
    """What to say, in English. Default: a built-in text."""
    voice: Literal["auto", "neural", "buzz"] = "auto"
    """neural needs hibari-tts; buzz is a plain synthesiser that is always there."""
    hair: Literal["long", "short", "tied", "auto"] = "long"
    """Hair of the person: on the shoulders, cut short, or drawn back into a bun; auto chooses by the seed."""
    glasses: bool = False
    """Let the person wear glasses."""
    collar: bool = False
    """Let the person wear a shirt with a folded collar."""


def main(config: Config) -> None:
    """Film the person, and write the video and its ground truth.

    Raises:
        AvatarError: --out holds something else, an option is out of range, or another process writes there.
    """
    from avatar.data.consent import BESIDE
    from avatar.log import info, next_command, word
    from avatar.synth.appearance import Appearance
    from avatar.synth.make import make_subject
    from avatar.writing import contents, one_writer

    single = config.out.suffix.lower() == ".mp4"
    if not single and config.out.is_file():
        raise AvatarError(f"{config.out} is a file.", fix="Name a folder or an .mp4 file for --out.")
    folder = config.out.with_suffix(".truth") if single else config.out
    seconds = config.seconds if config.seconds is not None or config.text else 30.0
    look = Appearance.choose(config.seed, config.hair, config.glasses, config.collar)
    with one_writer(folder):
        mark = folder / BEGUN
        if not mark.is_file() and not (folder / "truth.json").is_file():
            mine = (config.out, config.out.with_suffix(BESIDE)) if single else ()
            taken = next((path for path in mine if path.exists()), folder if contents(folder) else None)
            if taken is not None:
                raise AvatarError(
                    f"{taken} is there already, and was not made by this command.", fix="Choose another --out."
                )
        mark.touch()  # what is left of a filming that was interrupted may be replaced
        result = make_subject(
            folder, seconds, config.size, config.fps, config.seed, text=config.text, voice=config.voice,
            appearance=look, quiet=False,
        )  # fmt: skip
        video = result.video
        if single:
            video.with_suffix(BESIDE).replace(config.out.with_suffix(BESIDE))
            video = video.replace(config.out)
        mark.unlink()
    info(f"{video}: {len(result.truth)} frames of {result.width}x{result.height}, focal length {result.focal:.0f} px;")
    info(f"the truth is in {folder}: truth.safetensors (Motion), truth.json, shape.npy, landmarks.npy, audio.wav.")
    next_command(f"avatar prepare {word(video)} --out person")
