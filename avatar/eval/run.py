"""Measure an avatar on what it was never trained on; docs/evaluation.md defines every metric.

Self-reconstruction, the default, renders the held-out part of the person's video. The face is driven by the tracked
motion, by the audio, and by the wrong part of the audio. The image is also measured with less taken from the held-out
frames (`avatar.eval.ablations`). Novel audio measures what needs no real frame. Rendered and real video are tracked
anew with the same settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avatar.environment import environment, peak_memory
from avatar.errors import AvatarError
from avatar.eval.options import EvalOptions

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.measure import Measurement, Tools
    from avatar.eval.views import ViewMeasurement
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS

FORMAT = "avatar-metrics-3"


class Evaluation(NamedTuple):
    """What was measured, and the files that hold it.

    Attributes:
        result: The numbers, as in the JSON.
        json: The file of the numbers.
        report: The page with images, plots and videos.
    """

    result: dict[str, Any]
    json: Path
    report: Path


def evaluate(run: Path, options: EvalOptions) -> Evaluation:
    """Measure, and write the JSON, the report and the videos.

    Apart from ``date``, ``speed`` and ``peak_memory_bytes``, two evaluations on one machine write the same numbers to
    the last digit.

    Raises:
        AvatarError: RUN, its person or an option is unsuitable.
    """
    from avatar.data.person import PersonFolder
    from avatar.data.results import IngestResult
    from avatar.data.run import open_person, require_video
    from avatar.eval import per_frame, report_html, speech_metrics, whole_frame
    from avatar.eval.settings import held_out, reconstruct, speak
    from avatar.infer.avatar import Avatar
    from avatar.paths import write_json
    from avatar.preprocess.face_tracker import FaceTracker, face_window
    from avatar.writing import NewFile

    options.check()
    words = None if options.words is None else speech_metrics.read_words(options.words)
    other = None if options.against is None else per_frame.read(options.against)
    require_video(run, "Measuring")
    avatar = Avatar.load(run, renderer=options.renderer, device=options.device, precision="float32")
    data = open_person(run, options.person)
    frames = held_out(avatar, data, options.frames)
    if other is not None:
        other.require_frames(*frames)
    check_views(run, options, data)
    outputs = (options.per_frame, options.json_path(run), options.report_folder(run) / report_html.PAGE)
    for output in filter(None, outputs):
        NewFile(output).drop()  # where it cannot be written, say so before an hour of measuring
    with FaceTracker(face_window(PersonFolder(data.folder).result(IngestResult))) as tracker:
        tools = load_tools(tracker, avatar, compared=options.audio is None)
        measure = reconstruct if options.audio is None else speak
        measured, speed = measure(run, options, avatar, data, words, tools)
        views = look_around(run, options, avatar, data, tools)
    whole = None if options.audio is not None else whole_frame.measure(avatar, data, *frames, tools.notes)
    against = None if other is None else per_frame.compared(measured.series, other, data.fps, tools.notes)
    result = assemble(run, options, avatar, data, measured, speed, tools.notes) | {"views": views.result}
    if whole is not None:
        result["whole_frame"] = whole
    if against is not None:
        result["against"] = against
    if options.per_frame is not None:
        per_frame.write(options.per_frame, measured.series, data.test_start, data.fps)
    path = options.json_path(run)
    write_json(path, result)
    return Evaluation(result, path, report_html.write(options.report_folder(run), result, measured, views))


def check_views(run: Path, options: EvalOptions, data: PersonDataset) -> None:
    """Refuse what free view cannot be measured with, before anything slow happens.

    Raises:
        AvatarError: The truth is that of another video, or what the run says about left-out frames is damaged.
    """
    from avatar.eval.held_out_yaw import left_out

    if options.views:
        left_out(run, data)
    if options.truth is not None:
        from avatar.eval.view_truth import require_same_video
        from avatar.synth.truth import read_truth

        require_same_video(read_truth(options.truth), data)


def look_around(
    run: Path, options: EvalOptions, avatar: Avatar, data: PersonDataset, tools: Tools
) -> ViewMeasurement:  # fmt: skip
    """Measure free view: a small form on every report, all with --views."""
    from avatar.eval import view_truth
    from avatar.eval.held_out_yaw import measure_held_out_yaw
    from avatar.eval.views import measure_views

    measured = measure_views(avatar, data, tools, quick=not options.views)
    if options.views:
        measured.result["held_out_yaw"] = measure_held_out_yaw(run, avatar, data, tools)
    if options.truth is not None:
        truth = view_truth.measure(avatar, data, options.truth, tools.lpips)
        measured.result["truth"], measured.truth = truth.result, truth.samples
    return measured


def load_tools(tracker: Any, avatar: Avatar, compared: bool) -> Tools:
    """The networks that measure; what is not available is noted.

    Args:
        tracker: Tracks all videos.
        avatar: Says on which device LPIPS runs.
        compared: Whether frames are compared with real ones, which LPIPS and the recogniser are for.
    """
    from avatar.eval import identity, speech_metrics
    from avatar.eval.measure import Tools

    notes: list[str] = []
    lpips = load_lpips(notes) if compared else None
    if lpips is not None:
        lpips.to(avatar.device)
    if avatar.device.type == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False  # a metric is the same number on every device
    judge = speech_metrics.load_judge(notes)
    recogniser = identity.load_recogniser(notes) if compared else None
    return Tools(tracker=tracker, lpips=lpips, judge=judge, recogniser=recogniser, notes=notes)


def load_lpips(notes: list[str]) -> LPIPS | None:
    """The LPIPS network, or None with a note that says why there is none."""
    from avatar.losses.lpips import LPIPS

    try:
        return LPIPS.load()
    except AvatarError as error:
        notes.append(f"LPIPS was not measured: {error}")
        return None


def assemble(
    run: Path, options: EvalOptions, avatar: Avatar, data: PersonDataset, measured: Measurement, speed: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """All numbers, as they are written to JSON."""
    from avatar.audio2motion.load import networks_of
    from avatar.data.run import RunInfo
    from avatar.eval import facts, lips

    frames = len(measured.series[next(iter(measured.result["full_frame"]))]["opening"])
    reconstructed = options.audio is None
    first = data.test_start
    clips = facts.count_clips(data, first, first + frames) if reconstructed else None
    notes = [*notes, *facts.shortness(frames, data.fps, clips)]
    seen = np.isfinite(measured.series["real"]["opening"])
    unseen = facts.unseen(seen, data.motion.valid.numpy()[first : first + len(seen)])
    verdict = judge_lips(data, measured, first) if reconstructed else None
    return {
        "format": FORMAT,
        "setting": "self-reconstruction" if reconstructed else "novel audio",
        "run": run.name,
        "person": data.folder.name,
        **environment(),
        "first_frame": first if reconstructed else None,
        "frames": frames,
        "seconds": round(frames / data.fps, 3),
        "clips": clips,
        "speech": networks_of(run) if "audio" in measured.result["full_frame"] else None,
        "real_frames": len(seen),
        "fps": data.fps,
        "width": data.width,
        "height": data.height,
        **measured.result,
        "lips": verdict,
        "warnings": unseen or lips.warnings(verdict, measured.result["full_frame"]),
        "speed": speed,
        "model": avatar.info,
        "training": RunInfo.read(run).training(),
        "peak_memory_bytes": peak_memory(),
        "notes": notes,
    }


def judge_lips(data: PersonDataset, measured: Measurement, first: int) -> dict[str, Any] | None:
    """What the numbers of lips are worth (`avatar.eval.lips`); None where no lips were driven by audio."""
    from avatar.eval import lips

    if not set(lips.SPOKEN) <= measured.series.keys():
        return None
    seen = np.isfinite(measured.series["real"]["opening"])
    seconds = lips.speaking_seconds(
        data.audio_path, seen, first, data.num_frames, data.info.audio_delay_frames, data.fps
    )
    return lips.judge(measured.series, seconds, data.fps)
