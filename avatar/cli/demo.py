"""See everything once without any input: film a synthetic person, train the avatar, let it say something new."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar.errors import AvatarError

NEW_SENTENCE = (
    "Hello! Nobody ever filmed me saying this. My picture was learnt from a minute of video, "
    "and my lips follow whatever sound you give me."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path = Path("avatar-demo")
    """Folder for everything: the filmed video, the avatar, and what it says."""
    quality: Literal["draft", "standard", "high"] = "draft"
    """Training effort, as in `avatar create`."""
    seconds: float = 48.0
    """Length of the synthetic video that the avatar is trained on."""
    size: int = 512
    """Side of the picture in pixels."""
    seed: int = 0
    """Another seed is another person."""
    say: str = NEW_SENTENCE
    """The new sentence, in English."""


def main(config: Config) -> None:
    """Make what is missing.

    Raises:
        AvatarError: The folder holds something else, or another process writes to it.
    """
    from avatar.writing import one_writer

    with one_writer(config.out):
        show(config)


def show(config: Config) -> None:
    """Make what is missing in a folder that nobody else writes to."""
    from avatar.log import console, info, next_command

    out = config.out
    _claim(config)
    video, run, speech, result = out / "subject" / "video.mp4", out / "run", out / "new.wav", out / "new.mp4"

    console.rule("1/3 Film a synthetic person")
    if (out / "subject" / "truth.json").is_file() and video.is_file():
        info(f"{video} is there already.")
    else:
        from avatar.synth.make import make_subject

        make_subject(video.parent, config.seconds, config.size, seed=config.seed, quiet=False)

    console.rule("2/3 Prepare the video and train the avatar")
    from avatar.cli import create

    create.main(create.Config(video=video, out=run, quality=config.quality))

    console.rule("3/3 Let the avatar say something new")
    from avatar.cli import render

    _say(config.say, config.seed, speech)
    render.main(render.Config(run=run, audio=speech, out=result))
    info(f"\nThe avatar says a sentence that it was not trained on: {result}", "bold")
    info(f"The video it learnt from: {video}")
    next_command(f"avatar create YOUR_VIDEO.mp4 --out runs/me --quality {config.quality}")


def _claim(config: Config) -> None:
    """Remember the settings, so that a rerun goes on and another demo does not mix into this one."""
    from avatar.paths import read_json, write_json
    from avatar.writing import contents

    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("out", "say")}
    record = config.out / "demo.json"
    if record.is_file():
        if read_json(record) != json.loads(json.dumps(settings)):
            raise AvatarError(
                f"{config.out} holds a demo with other settings.", fix="Choose another --out, or delete that folder."
            )
    elif contents(config.out):
        raise AvatarError(f"{config.out} is not empty.", fix="Choose another --out.")
    else:
        write_json(record, settings)


def _say(text: str, seed: int, path: Path) -> None:
    from avatar.synth import speech
    from avatar.synth.make import write_sound
    from avatar.writing import atomic_file

    said = speech.join([speech.silence(0.3), speech.speak(text, seed=seed + 100), speech.silence(0.5)])
    with atomic_file(path) as temporary:
        write_sound(temporary, said.samples)
