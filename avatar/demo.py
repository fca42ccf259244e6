"""Everything once: a synthetic person is filmed, becomes an avatar, and says something new."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avatar.errors import AvatarError
from avatar.log import console, info, track
from avatar.writing import contents, one_writer

SETTINGS = "demo.json"  # in the folder of a demo
MEASURED = 150  # held-out frames: enough to see whether all is well; `avatar eval` measures the rest


def demo(folder: Path, quality: str, seconds: float, size: int, seed: int, text: str) -> None:
    """Make what is missing of a demo in a folder of its own.

    Args:
        folder: For everything.
        quality: Preset of the training.
        seconds: Length of the synthetic video.
        size: Side of its image, pixels.
        seed: Another seed is another person.
        text: What the avatar says in the end, in English.

    Raises:
        AvatarError: The folder holds something else, another process writes to it, or the text has nothing to say.
    """
    from avatar.preprocess.ingest import MIN_SECONDS
    from avatar.synth.make import check_options
    from avatar.synth.wav import say_into_file

    check_options(seconds, size, 25.0)
    if seconds < MIN_SECONDS:
        raise AvatarError(f"--seconds {seconds:g} is too short.", fix=f"Give at least {MIN_SECONDS:g}; 48 is usual.")
    with one_writer(folder):
        _claim(folder, {"quality": quality, "seconds": seconds, "size": size, "seed": seed})
        video, run, speech, result = (
            folder / name for name in ("subject/video.mp4", "run", "new.wav", "new.mp4")
        )  # fmt: skip
        say_into_file(text, seed + 100, speech)  # a text with nothing to say is refused before minutes of work
        console.rule("1/4 Film a synthetic person")
        _film(video, seconds, size, seed)
        console.rule("2/4 Prepare the video and train the avatar")
        _create(video, run, quality)
        console.rule("3/4 Let the avatar say something new")
        _speak(run, speech, result)
        said = f"The avatar says a sentence that it was not trained on: {result}"
        info(f"{said}\nOpen it while the rest is measured.")
        console.rule("4/4 Measure the avatar on what it was not trained on")
        _measure(run)
        info(f"\n{said}", "bold")
        info(f"The video it learnt from: {video}")


def _film(video: Path, seconds: float, size: int, seed: int) -> None:
    from avatar.synth.make import make_subject

    if (video.parent / "truth.json").is_file() and video.is_file():
        info(f"{video} is there already.")
    else:
        make_subject(video.parent, seconds, size, seed=seed, quiet=False)


def _create(video: Path, run: Path, quality: str) -> None:
    from avatar.create import create, person_folder
    from avatar.methods.registry import DEFAULT
    from avatar.preprocess.config import PrepareConfig
    from avatar.train.config import from_preset

    train = from_preset(DEFAULT, quality, person=person_folder(run), out=run)
    create(video, PrepareConfig(), train, None)


def _speak(run: Path, speech: Path, result: Path) -> None:
    from avatar.data.disclosed import disclosed
    from avatar.infer.avatar import Avatar
    from avatar.infer.sources import AudioFile
    from avatar.io.video_writer import VideoWriter

    avatar = Avatar.load(run)
    camera, frames = avatar.camera, AudioFile(speech).frames(avatar.fps)
    with VideoWriter(result, camera.width, camera.height, avatar.fps, speech, disclosure=disclosed(run)) as writer:
        for frame in track(avatar.speak(speech), "Rendering", frames):
            writer.write(frame.numpy())


def _measure(run: Path) -> None:
    from avatar.create import measure
    from avatar.eval.options import EvalOptions

    with one_writer(run):
        measure(run, EvalOptions(save_video=run / "eval", frames=MEASURED))


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Remember the settings, so that a rerun goes on and another demo does not mix into this one."""
    from avatar.paths import read_json, write_json

    record = folder / SETTINGS
    if record.is_file():
        if read_json(record) != settings:
            raise AvatarError(
                f"{folder} holds a demo with other settings.", fix="Choose another --out, or delete that folder."
            )
    elif contents(folder):
        raise AvatarError(f"{folder} is not empty.", fix="Choose another --out.")
    else:
        write_json(record, settings)
