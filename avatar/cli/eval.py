"""Measure an avatar on what it was never trained on; docs/evaluation.md defines every metric.

Self-reconstruction, the default, renders the held-out part of the person's video, driven by its tracked motion, by its
sound, and by the wrong part of its sound; of two drives the picture is also measured with less taken from the held-out
frames (`avatar.eval.ablations`). ``--audio`` renders a novel sound instead. Rendered and real video are
tracked anew with the same settings. Apart from ``date``, ``speed`` and ``peak_memory_bytes``, two evaluations on one
machine write the same numbers to the last digit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from avatar import log
from avatar.backends import RendererName, require
from avatar.device import DeviceName
from avatar.environment import environment, peak_memory
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.measure import Measurement, Tools
    from avatar.eval.recorder import Films
    from avatar.eval.speech_metrics import Speech, Word
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS
    from avatar.motion import Motion

FORMAT = "avatar-metrics-1"
SPEED_FRAMES = 100
NOVEL_SECONDS = 30.0  # of a novel sound are measured, where --frames does not say otherwise
SAMPLES = 5  # frames on the report's page of pictures
CONTACTS = 8  # frames on the contact sheet
SHORT_SECONDS = 30.0  # of held-out video; below, the result says how little was measured


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure an avatar on held-out frames, or on a novel sound."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    audio: Path | None = None
    """A sound to say instead: measures what needs no real frames, for the first 30 seconds or --frames of it."""
    words: Path | None = None
    """JSON of the words of the person's video, or of --audio, with their times: measures closure on p, b and m."""
    protocol: Literal["both", "ours"] = "both"
    """ours: everything is rendered. both: besides, the rendered head over the real torso, as papers measure."""
    drive: Literal["both", "tracked", "audio"] = "both"
    """What moves the face. With audio, the floor is measured too: lips from the wrong sound."""
    ablations: bool = True
    """Measure the picture also with the torso at rest and with the tracker's head poses: what numbers owe to them."""
    json: Path | None = None
    """Where the numbers go; default: metrics.json in the RUN folder, with --audio metrics_AUDIO.json."""
    report: Path | None = None
    """Folder for report.html and its video; default: --save-video, else a folder "report" in the RUN folder."""
    save_video: Path | None = None
    """Folder for pred.mp4, real.mp4, side_by_side.mp4, a contact sheet and a plot of the mouth."""
    person: Path | None = None
    """The PERSON folder, where it is not the one the avatar was trained from."""
    frames: int | None = None
    """Measure only the first so many frames."""
    renderer: RendererName = "native"
    """What draws the Gaussians: gsplat draws the same picture, on a CUDA GPU."""
    device: DeviceName = "auto"
    """Where to render and to compute LPIPS: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Measure, write the JSON, the report and the videos, and print tables."""
    from avatar.cli.render import open_person
    from avatar.eval import identity, report, report_html, speech_metrics
    from avatar.eval.face_tracker import FaceTracker
    from avatar.eval.measure import Tools
    from avatar.infer.avatar import Avatar
    from avatar.paths import write_json

    check(config)
    words = None if config.words is None else speech_metrics.read_words(config.words)
    avatar = Avatar.load(config.run, renderer=config.renderer, device=config.device, precision="float32")
    data = open_person(config.run, config.person)
    first, last = held_out(config, avatar, data)
    notes: list[str] = []
    lpips = load_lpips(notes) if config.audio is None else None
    if lpips is not None:
        lpips.to(avatar.device)
    if avatar.device.type == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False  # a metric is the same number on every device
    judge = speech_metrics.load_judge(notes)
    with FaceTracker() as tracker:
        recogniser = identity.load_recogniser(notes) if config.audio is None else None
        tools = Tools(tracker=tracker, lpips=lpips, judge=judge, recogniser=recogniser, notes=notes)
        if config.audio is None:
            measured, speed = reconstruct(config, avatar, data, first, last, words, tools)
        else:
            measured, speed = say(config, avatar, data, words, tools)
    frames = len(measured.series[next(iter(measured.result["drives"]))]["opening"])
    clips = None if config.audio is not None else count_clips(data, first, last)
    notes += shortness(frames, data.fps, clips)
    result = {
        "format": FORMAT,
        "setting": "self-reconstruction" if config.audio is None else "novel audio",
        "run": config.run.name,
        "person": data.folder.name,
        **environment(),
        "first_frame": first if config.audio is None else None,
        "frames": frames,
        "seconds": round(frames / data.fps, 3),
        "clips": clips,
        "real_frames": len(measured.series["real"]["opening"]),
        "fps": data.fps,
        "width": data.width,
        "height": data.height,
        **measured.result,
        "speed": speed,
        "model": avatar.info,
        "training": training(config.run),
        "peak_memory_bytes": peak_memory(),
        "notes": notes,
    }
    path = config.json or config.run / ("metrics.json" if config.audio is None else f"metrics_{config.audio.stem}.json")
    write_json(path, result)
    page = report_html.write(report_folder(config), result, measured)
    for table in report.tables(result):
        log.console.print(table)
    for line in report.summary_lines(result):
        log.console.print(line, markup=False)
    log.info(f"Numbers: {path}; pictures, plots and videos: {page}")
    log.next_command(f"avatar render {config.run} --audio SPEECH.wav --out {config.run}/speech.mp4")


def count_clips(data: PersonDataset, first: int, last: int) -> int:
    """Continuous runs of frames, between two cuts, of which frames ``first`` to ``last`` (exclusive) show a part."""
    return sum(start < last and end > first for start, end in data.segments)


def shortness(frames: int, fps: float, clips: int | None) -> list[str]:
    """A note where little held-out video was measured; ``clips`` is None with a novel sound."""
    seconds = frames / fps
    if clips is None or seconds >= SHORT_SECONDS:
        return []
    of = "one clip" if clips == 1 else f"{clips} clips"
    return [f"{frames} frames of {of} are {seconds:.1f} s: little to measure on. Other video may read otherwise."]


def training(run: Path) -> dict[str, Any]:
    """What a run's training came to, and when, where and from which commit; ``earlier`` are parts before a resume."""
    from avatar.checks import Record, number
    from avatar.paths import read_json

    kept = (run / "training.json", run / "environment.json")
    result, place = (Record(read_json(path), path).data if path.is_file() else {} for path in kept)
    for name, value in result.items():  # they go into the JSON of the evaluation and its report
        if isinstance(value, int | float) and not isinstance(value, bool):
            number(value, f"{kept[0]}: {name}", -1e12, 1e12)
    return result | {name: place[name] for name in ("date", "commit", "hardware", "earlier") if name in place}


def check(config: Config) -> None:
    """Refuse options that contradict each other before anything slow happens."""
    if config.frames is not None and config.frames < 3:
        raise AvatarError(f"--frames {config.frames} is too few to measure motion.", "", "Give at least 3.")
    require(config.renderer)
    if config.json is not None:
        from avatar.cli.render import refuse_to_overwrite

        refuse_to_overwrite(config.json, config.audio, config.words)
    if config.audio is not None:
        from avatar.io.audio import stream_audio

        if config.drive == "tracked":
            raise AvatarError("--audio and --drive tracked exclude each other:", "nobody filmed that sound.")
        next(stream_audio(config.audio))


def held_out(config: Config, avatar: Avatar, data: PersonDataset) -> tuple[int, int]:
    """The held-out frames to measure, [first, last).

    Raises:
        AvatarError: The person is not the avatar's, or has too few.
    """
    first = data.test_start
    last = data.num_frames if config.frames is None else min(data.num_frames, first + config.frames)
    if (data.width, data.height) != (avatar.camera.width, avatar.camera.height):
        raise AvatarError(
            f"The person is {data.width}x{data.height}, the avatar {avatar.camera.width}x{avatar.camera.height}.",
            "It was trained from another one.",
            "Give the right --person.",
        )
    for name in ("num_frames", "test_start", "fps", "camera"):
        if avatar.person.get(name) != data.info[name]:
            raise AvatarError(
                f"{data.folder} is not the person that {avatar.run} was trained from:",
                f"its person.json has another {name}.", "Give the right --person.",
            )  # fmt: skip
    if last - first < 3:
        raise AvatarError(f"{data.folder} has {last - first} held-out frames,", "too few to measure motion.")
    return first, last


def reconstruct(
    config: Config, avatar: Avatar, data: PersonDataset, first: int, last: int, words: list[Word] | None, tools: Tools
) -> tuple[Measurement, dict[str, Any]]:
    """Self-reconstruction: the measurement, and the speed of rendering."""
    from avatar.audio2motion.load import sound_time
    from avatar.eval import face_metrics
    from avatar.eval import images as pictures
    from avatar.eval.ablations import ablated
    from avatar.eval.measure import measure_held_out, peer_name

    drives = choose_drives(config, avatar, data, first, last, tools.notes)
    speed = measure_speed(avatar, data, config, first, last, "audio" in drives)
    peer = config.protocol == "both" and avatar.can_render_head
    if config.protocol == "both" and not peer:
        tools.notes.append("The head-only protocol is left out: the method cannot draw the head alone.")
    shown = [name for name in drives if name != "shuffled"]
    sound = data.audio_path if data.audio_path.is_file() else None
    opening = face_metrics.relative_opening(np.asarray(data.landmarks[first:last]))
    contacts, samples = (pictures.pick_frames(opening, count) for count in (CONTACTS, SAMPLES))
    beside = {"side_by_side": ["real", *shown, *([peer_name(shown[0])] if peer else [])]}
    alone = {"real": ["real"]} | {f"pred_{n}" if i else "pred": [n] for i, n in enumerate(shown)}
    with films(config, beside, alone, data, sound, sound_time(data, first)) as recording:
        measured = measure_held_out(
            avatar, data, drives, first, last, replace(tools, films=recording),
            speech=heard(data, first, last, words), peer=peer,
            ablated=ablated(data, drives, first, last) if config.ablations else {},
            keep=frozenset((*contacts, *samples)),
        )  # fmt: skip
    if config.save_video is not None:
        columns = [{name: measured.samples[t][name] for name in ("real", *shown)} for t in contacts]
        titles = [f"{(first + t) / data.fps:.2f} s" for t in contacts]
        sheet = pictures.contact_sheet(columns, [measured.landmarks[t] for t in contacts], titles)
        pictures.save_image(config.save_video / "contact.jpg", sheet)
        openings = {name: measured.series[name]["opening"] for name in ("real", *shown)}
        pictures.plot_openings(config.save_video / "mouth.png", openings, data.fps)
    measured.samples = {t: measured.samples[t] for t in samples}
    return measured, speed


def say(
    config: Config, avatar: Avatar, data: PersonDataset, words: list[Word] | None, tools: Tools
) -> tuple[Measurement, dict[str, Any]]:
    """Novel audio: the measurement, and the speed of rendering."""
    from avatar.audio2motion.load import count_frames, load_speech
    from avatar.eval.driving import driven_novel
    from avatar.eval.measure import measure_novel

    assert config.audio is not None
    frames = min(count_frames(config.audio, data.fps), config.frames or round(NOVEL_SECONDS * data.fps))
    if frames < 3:
        raise AvatarError(f"{config.audio} is {frames / data.fps:.2f} s long,", "too short to measure motion.")
    drives = driven_novel(avatar, load_speech(config.run), config.audio, frames)
    speed = measure_speed(avatar, data, config, data.test_start, data.num_frames, True)
    samples = frozenset(np.linspace(0, frames - 1, min(SAMPLES, frames)).round().astype(int).tolist())
    speech = clip(config.audio, 0.0, frames, data.fps, words)
    with films(config, {"side_by_side": list(drives)}, {"pred": ["audio"]}, data, config.audio, 0.0) as recording:
        measured = measure_novel(
            avatar, data, drives, speech, replace(tools, films=recording),
            real_speech=heard(data, data.test_start, data.num_frames, None), keep=samples,
        )  # fmt: skip
    return measured, speed


def films(
    config: Config, beside: dict[str, list[str]], alone: dict[str, list[str]], data: PersonDataset,
    sound: Path | None, start: float,
) -> Films:  # fmt: skip
    """The videos to write: ``beside`` for the report, ``alone`` too where --save-video asks for them."""
    from avatar.eval.recorder import Films

    files = {report_folder(config) / f"{name}.mp4": videos for name, videos in beside.items()}
    if config.save_video is not None:
        files |= {config.save_video / f"{name}.mp4": videos for name, videos in (beside | alone).items()}
    return Films(files, (data.width, data.height), data.fps, sound, start)


def report_folder(config: Config) -> Path:
    """Where report.html goes."""
    name = "report" if config.audio is None else f"report_{config.audio.stem}"
    return config.report or config.save_video or config.run / name


def heard(data: PersonDataset, first: int, last: int, words: list[Word] | None) -> Speech | None:
    """The sound of frames ``first`` to ``last`` (exclusive) of a person; None without sound."""
    from avatar.audio2motion.load import sound_time

    if not data.audio_path.is_file():
        return None
    return clip(data.audio_path, sound_time(data, first), last - first, data.fps, words)


def clip(sound: Path, start: float, frames: int, fps: float, words: list[Word] | None) -> Speech:
    """A part of a sound file from second ``start`` on, silence where it ends early, and where lips close in it."""
    import itertools

    from avatar.eval.speech_metrics import Speech, closure_times
    from avatar.io.audio import SAMPLE_RATE, stream_audio

    wanted = round(frames / fps * SAMPLE_RATE)
    chunks = itertools.islice(stream_audio(sound, start=start), wanted // SAMPLE_RATE + 1)
    samples = np.concatenate([*chunks, np.zeros(wanted, np.float32)])[:wanted]
    closures = None if words is None else (closure_times(words) - start) * fps
    return Speech(samples=samples, closures=closures)


def choose_drives(
    config: Config, avatar: Avatar, data: PersonDataset, first: int, last: int, notes: list[str]
) -> dict[str, Motion]:
    """The motion of each drive. With ``both``, a person without sound is measured on tracked motion only."""
    from avatar.audio2motion.load import load_speech
    from avatar.eval.driving import driven_held_out

    drives: dict[str, Motion] = {}
    if config.drive in ("both", "audio"):
        try:
            drives |= driven_held_out(data, load_speech(config.run), first, last)
        except AvatarError as error:
            if config.drive == "audio":
                raise
            notes.append(f"Not measured with audio: {error}")
    if config.drive in ("both", "tracked"):
        drives["tracked"] = data.motion[first:last]
    return drives


def load_lpips(notes: list[str]) -> LPIPS | None:
    """The LPIPS network, or None with a note that says why there is none."""
    from avatar.losses.lpips import LPIPS

    try:
        return LPIPS.load()
    except AvatarError as error:
        notes.append(f"LPIPS was not measured: {error}")
        return None


def measure_speed(
    avatar: Avatar, data: PersonDataset, config: Config, first: int, last: int, with_speech: bool
) -> dict[str, Any]:
    """Time the pipeline of `avatar render` on some held-out frames, before anything else of eval is in memory."""
    from avatar.audio2motion.load import drive_held_out, load_speech, sound_time
    from avatar.cli.render import Job, render_video
    from avatar.infer.camera_path import CameraPath
    from avatar.io.video_writer import VideoWriter

    last = min(last, first + SPEED_FRAMES)
    avatar.render(avatar.camera, data.motion, first)  # the first frame fills caches
    blocks: Iterable[Motion] = [data.motion[first:last]]
    if with_speech:
        blocks = drive_held_out(data, load_speech(config.run), first, last)
    sound = data.audio_path if data.audio_path.is_file() else None
    with tempfile.TemporaryDirectory(prefix="avatar-eval-") as folder:
        path = Path(folder) / "speed.mp4"
        with VideoWriter(path, data.width, data.height, data.fps, sound, sound_time(data, first)) as writer:
            job = Job(iter(blocks), last - first, None, 0.0)
            timing = render_video(
                avatar, job, avatar.camera, CameraPath.parse(None), writer, at_once=avatar.frames_at_once
            )
    return {
        "frames": timing.frames,
        "render_fps": timing.frames / timing.render_seconds,
        "end_to_end_fps": timing.frames / timing.seconds,
        "device": avatar.device.type,
        "with_speech": with_speech,
        "peak_memory_bytes": peak_memory(),
    }
