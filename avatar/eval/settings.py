"""The two settings of `avatar eval`: self-reconstruction of the held-out video, and novel audio."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.audio2motion.load import load_speech
from avatar.errors import AvatarError
from avatar.eval import face_metrics, images
from avatar.eval.measure import Measurement, Tools, head_only_name, measure_held_out, measure_novel
from avatar.eval.recorder import Recorder
from avatar.eval.speed import measure_speed

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.options import EvalOptions
    from avatar.eval.speech_metrics import Speech, Word
    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

NOVEL_SECONDS = 30.0  # of novel audio are measured, where --frames does not say otherwise
SAMPLES = 5  # frames on the report's page
CONTACTS = 8  # frames on the contact sheet


def held_out(avatar: Avatar, data: PersonDataset, frames: int | None) -> tuple[int, int]:
    """The held-out frames to measure, [first, last); at most ``frames``.

    Raises:
        AvatarError: The person is not the avatar's, or has too few.
    """
    first = data.test_start
    last = data.num_frames if frames is None else min(data.num_frames, first + frames)
    if (data.width, data.height) != (avatar.camera.width, avatar.camera.height):
        raise AvatarError(
            f"The person is {data.width}x{data.height}, the avatar {avatar.camera.width}x{avatar.camera.height}.",
            why="It was trained from another one.",
            fix="Give the right --person.",
        )
    for name in ("num_frames", "test_start", "fps", "camera"):
        if getattr(avatar.person, name) != getattr(data.info, name):
            raise AvatarError(
                f"{data.folder} is not the person that {avatar.run} was trained from:",
                why=f"its person.json has another {name}.", fix="Give the right --person.",
            )  # fmt: skip
    if last - first < 3:
        raise AvatarError(f"{data.folder} has {last - first} held-out frames,", why="too few to measure motion.")
    return first, last


def reconstruct(
    run: Path, options: EvalOptions, avatar: Avatar, data: PersonDataset, words: list[Word] | None, tools: Tools
) -> tuple[Measurement, dict[str, Any]]:
    """Measure self-reconstruction, and the speed of rendering."""
    from avatar.eval.ablations import ablated
    from avatar.infer.replay import audio_second

    first, last = held_out(avatar, data, options.frames)
    driving = choose_driving(run, options.drive, data, first, last, tools.notes)
    speed = measure_speed(avatar, data, first, last, load_speech(run, data.fps) if "audio" in driving else None)
    head_only = options.protocol == "both" and avatar.can_render_head
    if options.protocol == "both" and not head_only:
        tools.notes.append("The head-only protocol is left out: the method cannot draw the head alone.")
    shown = [name for name in driving if name != "shuffled"]
    audio = data.audio_path if data.audio_path.is_file() else None
    opening = face_metrics.relative_opening(np.asarray(data.landmarks[first:last]))
    contacts, samples = (images.pick_frames(opening, count) for count in (CONTACTS, SAMPLES))
    beside = {"side_by_side": ["real", *shown, *([head_only_name(shown[0])] if head_only else [])]}
    alone = {"real": ["real"]} | {f"pred_{n}" if i else "pred": [n] for i, n in enumerate(shown)}
    with record(run, options, beside, alone, data, audio, audio_second(data, first)) as recorder:
        measured = measure_held_out(
            avatar, data, driving, first, last, replace(tools, recorder=recorder),
            speech=held_out_speech(data, first, last, words), head_only=head_only,
            ablated=ablated(data, driving, first, last) if options.ablations else {},
            keep=frozenset((*contacts, *samples)),
        )  # fmt: skip
    if options.save_video is not None:
        save_images(options.save_video, measured, ["real", *shown], contacts, first, data.fps)
    measured.samples = {t: measured.samples[t] for t in samples}
    return measured, speed


def save_images(
    folder: Path, measured: Measurement, shown: list[str], frames: list[int], first: int, fps: float
) -> None:
    """Write a contact sheet of some frames, and a plot of the mouth opening."""
    columns = [{name: measured.samples[t][name] for name in shown} for t in frames]
    titles = [f"{(first + t) / fps:.2f} s" for t in frames]
    images.save_image(
        folder / "contact.jpg", images.contact_sheet(columns, [measured.landmarks[t] for t in frames], titles)
    )
    images.plot_openings(folder / "mouth.png", {name: measured.series[name]["opening"] for name in shown}, fps)


def speak(
    run: Path, options: EvalOptions, avatar: Avatar, data: PersonDataset, words: list[Word] | None, tools: Tools
) -> tuple[Measurement, dict[str, Any]]:
    """Measure novel audio, and the speed of rendering."""
    from avatar.eval.driving import driven_novel
    from avatar.infer.sources import AudioFile

    audio = options.audio
    assert audio is not None
    file = AudioFile(audio)
    frames = min(file.frames(data.fps), options.frames or round(NOVEL_SECONDS * data.fps))
    speech = load_speech(run, data.fps)
    driving = driven_novel(avatar, speech, file, frames)
    frames = len(driving["audio"])
    if frames < 3:
        raise AvatarError(f"{audio} is {frames / data.fps:.2f} s long,", why="too short to measure motion.")
    speed = measure_speed(avatar, data, data.test_start, data.num_frames, speech)
    samples = frozenset(np.linspace(0, frames - 1, min(SAMPLES, frames)).round().astype(int).tolist())
    heard = clip(audio, None, frames, data.fps, words)
    with record(run, options, {"side_by_side": list(driving)}, {"pred": ["audio"]}, data, audio, 0.0) as recorder:
        measured = measure_novel(
            avatar, data, driving, heard, replace(tools, recorder=recorder),
            real_speech=held_out_speech(data, data.test_start, data.num_frames, None), keep=samples,
        )  # fmt: skip
    return measured, speed


def choose_driving(
    run: Path, drive: str, data: PersonDataset, first: int, last: int, notes: list[str]
) -> dict[str, Motion]:
    """The motions that drive the face. With ``both``, a person without audio is measured on tracked motion only."""
    from avatar.eval.driving import driven_held_out

    driving: dict[str, Motion] = {}
    if drive in ("both", "audio"):
        try:
            driving |= driven_held_out(data, load_speech(run, data.fps), first, last)
        except AvatarError as error:
            if drive == "audio":
                raise
            notes.append(f"Not measured with audio: {error}")
    if drive in ("both", "tracked"):
        driving["tracked"] = data.motion[first:last]
    return driving


def record(
    run: Path, options: EvalOptions, beside: dict[str, list[str]], alone: dict[str, list[str]], data: PersonDataset,
    audio: Path | None, start: float,
) -> Recorder:  # fmt: skip
    """The recorder of the videos: ``beside`` for the report, ``alone`` too where --save-video asks for them."""
    files = {options.report_folder(run) / f"{name}.mp4": videos for name, videos in beside.items()}
    if options.save_video is not None:
        files |= {options.save_video / f"{name}.mp4": videos for name, videos in (beside | alone).items()}
    return Recorder(files, (data.width, data.height), data.fps, audio, start, run)


def held_out_speech(data: PersonDataset, first: int, last: int, words: list[Word] | None) -> Speech | None:
    """The audio of frames ``first`` to ``last`` (exclusive) of a person; None without audio."""
    from avatar.infer.replay import audio_second

    if not data.audio_path.is_file():
        return None
    return clip(data.audio_path, audio_second(data, first), last - first, data.fps, words)


def clip(audio: Path, start: float | None, frames: int, fps: float, words: list[Word] | None) -> Speech:
    """Read a part of an audio file from second ``start`` on, and where lips close in it.

    It is silent where the file ends early. None is its first sample, which words count from too, and lips are driven
    from: in some files that is not at second 0.
    """
    from avatar.eval.speech_metrics import Speech, closure_times
    from avatar.io.audio import SAMPLE_RATE, stream_audio

    wanted = round(frames / fps * SAMPLE_RATE)
    chunks = itertools.islice(stream_audio(audio, start=start), wanted // SAMPLE_RATE + 1)
    samples = np.concatenate([*chunks, np.zeros(wanted, np.float32)])[:wanted]
    closures = None if words is None else (closure_times(words) - (start or 0.0)) * fps
    return Speech(samples=samples, closures=closures)
