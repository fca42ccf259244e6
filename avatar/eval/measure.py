"""Render, compare and track, frame by frame: every frame of every video is rendered once and none is kept.

Two settings. Self-reconstruction renders the held-out frames, which can be compared with the real ones. Novel audio
renders audio that nobody filmed: only what needs no real frame is measured, against the person's own held-out video.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar import log
from avatar.eval import ablations, bootstrap, face_metrics, identity, speech_metrics
from avatar.eval.face_metrics import FaceTrack, Segments
from avatar.eval.head_only import composite, without_head
from avatar.eval.helpers import Helpers
from avatar.eval.image_metrics import ImageMeter, RealFrame, frechet_distance, mouth_gradient_energy
from avatar.eval.summary import Series, as_real, summarise

if TYPE_CHECKING:
    from torch import Tensor

    from avatar.data import PersonDataset
    from avatar.eval.identity import Recogniser
    from avatar.eval.recorder import Recorder
    from avatar.eval.speech_metrics import Judge, Speech
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS
    from avatar.motion import Motion
    from avatar.preprocess.face_tracker import Tracker


@dataclass(kw_only=True)
class Tools:
    """What measures.

    Attributes:
        tracker: Tracks all videos.
        lpips: Metric network, or None.
        judge: Sync judge, or None.
        recogniser: Tells people apart, or None.
        recorder: Takes the images, or None.
        notes: Sentences for the user about what could not be measured; added to.
    """

    tracker: Tracker
    lpips: LPIPS | None = None
    judge: Judge | None = None
    recogniser: Recogniser | None = None
    recorder: Recorder | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Measurement:
    """What was measured, and what a report shows of it.

    Attributes:
        result: ``{"full_frame": {name: metrics}, "head_only": ..., "ablations": ..., "real": metrics}``; ``name`` is
            what drives the face. All metrics have ``intervals``.
        series: Per video, numbers per frame [T]. Videos are named "real", "DRIVE" and "DRIVE, head-only".
        samples: For some frames the images by video.
        landmarks: For the same frames the landmarks [478, 2] of the real video; with novel audio, of a rendered one.
    """

    result: dict[str, Any]
    series: dict[str, Series]
    samples: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    landmarks: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class _Video:
    """One video's faces and images; ``identity`` is that with the real frame, NaN where it was not looked at."""

    landmarks: list[np.ndarray] = field(default_factory=list)
    arkit: list[np.ndarray] = field(default_factory=list)
    meter: ImageMeter = field(default_factory=ImageMeter)
    identity: list[float] = field(default_factory=list)

    def look(self, tracker: Tracker, image: np.ndarray) -> np.ndarray:
        """Track a frame; returns its landmarks."""
        landmarks, arkit = tracker.track(image)
        self.landmarks.append(landmarks)
        self.arkit.append(arkit)
        return landmarks

    def meet(
        self, tracker: Tracker, image: np.ndarray, recogniser: Recogniser | None, person: np.ndarray | None
    ) -> None:
        """Track a rendered frame, and compare who is in it with the person."""
        found = self.look(tracker, image)
        self.identity.append(identity.similarity(_embedding(recogniser, image, found), person))

    @property
    def track(self) -> FaceTrack:
        return FaceTrack(landmarks=np.stack(self.landmarks), arkit=np.stack(self.arkit))


def head_only_name(drive: str) -> str:
    """The video of a driving motion under protocol ``head-only``."""
    return f"{drive}, head-only"


def measure_held_out(
    avatar: Avatar,
    data: PersonDataset,
    driving: dict[str, Motion],
    first: int,
    last: int,
    tools: Tools,
    *,
    speech: Speech | None = None,
    head_only: bool = True,
    ablated: dict[str, Motion] | None = None,
    keep: frozenset[int] = frozenset(),
) -> Measurement:
    """Self-reconstruction: every held-out frame, by every driving motion, against the real one.

    Args:
        avatar: Anything with the `Renderer` protocol and ``camera``; for protocol ``head-only`` also ``render_head``.
        data: The person, real frames and masks.
        driving: Name to motion of the frames ``first`` to ``last`` (exclusive).
        first, last: Frames of the person.
        tools: What measures.
        speech: The audio of these frames.
        head_only: Whether to measure protocol ``head-only`` besides.
        ablated: Further motions of these frames (`avatar.eval.ablations`), of which the image alone is measured.
        keep: Frames, counted from ``first``, whose images are kept as samples.
    """
    segments = [(max(a, first) - first, min(b, last) - first) for a, b in data.segments if a < last and b > first]
    starts = {a for a, _ in segments}
    recognise_every = max(1, round(identity.EVERY_SECONDS * data.fps))
    videos = {name: _Video() for name in ("real", *driving, *(map(head_only_name, driving) if head_only else ()))}
    ablated = ablated or {}
    ablated_meters = {name: ImageMeter() for name in ablated}
    samples: dict[int, dict[str, np.ndarray]] = {}
    with log.progress() as bar, Helpers() as helpers:
        task = bar.add_task("Measuring", total=last - first, info="")
        for t in range(last - first):
            image, masks = data.image(first + t), data.masks(first + t)
            points = videos["real"].look(tools.tracker, image)
            real = RealFrame(image, masks, points, tools.lpips, after_cut=t in starts)
            videos["real"].meter.observe(real)
            recogniser = tools.recogniser if t % recognise_every == 0 else None
            person = _embedding(recogniser, image, points)
            background, headless = _behind(data, first + t, image, masks, head_only)
            rendered = _rendered(avatar, driving, t, background, headless)
            for name, drawn in rendered.items():
                videos[name].meet(tools.tracker, drawn, recogniser, person)
            images = {"real": image, **rendered}
            meters = [(videos[name].meter, drawn) for name, drawn in rendered.items()]
            with_less = _rendered(avatar, ablated, t, background, None)
            meters += [(ablated_meters[name], drawn) for name, drawn in with_less.items()]
            helpers.start([partial(meter.compare, drawn, real) for meter, drawn in meters])
            if tools.recorder is not None:
                tools.recorder.write(images)
            if t in keep:
                samples[t] = images
            bar.advance(task)
    measured = _compare_videos(videos, data, driving, segments, speech, tools)
    measured.result["ablations"] = {name: _images(m.series(), data.fps) for name, m in ablated_meters.items()}
    measured.samples, measured.landmarks = samples, {t: videos["real"].landmarks[t] for t in samples}
    return measured


def _behind(
    data: PersonDataset, frame: int, image: np.ndarray, masks: dict[str, np.ndarray], head_only: bool
) -> tuple[Tensor | None, np.ndarray | None]:
    """The background to render over where the camera moves, and the real frame without its head for ``head-only``."""
    import torch

    behind = data.background(frame) if data.camera_moves or head_only else None
    headless = None if behind is None or not head_only else without_head(image, masks, behind)
    return torch.from_numpy(behind) if behind is not None and data.camera_moves else None, headless


def _rendered(
    avatar: Avatar, driving: dict[str, Motion], t: int, background: Tensor | None, headless: np.ndarray | None
) -> dict[str, np.ndarray]:
    """A frame by each driving motion; also its head alone over the real frame where that is given without its head."""
    images: dict[str, np.ndarray] = {}
    for name, motion in driving.items():
        images[name] = avatar.render(avatar.camera, motion, t, background=background).cpu().numpy()
        if headless is not None:
            head = avatar.render_head(avatar.camera, motion, t).cpu().numpy()
            images[head_only_name(name)] = composite(head, headless)
    return images


def _compare_videos(
    videos: dict[str, _Video], data: PersonDataset, driving: Iterable[str], segments: Segments, speech: Speech | None,
    tools: Tools,
) -> Measurement:  # fmt: skip
    """Numbers of self-reconstruction, from what was seen of the videos."""
    tracks = {name: video.track for name, video in videos.items()}
    series: dict[str, Series] = {}
    for name, video in videos.items():
        own = face_metrics.face_series(tracks[name], data.width, data.fps, segments) | video.meter.series()
        own |= _speech_series(own["opening"], series.get("real", own)["opening"], speech, data.fps, segments)
        if name != "real":
            own |= face_metrics.compared_series(tracks[name], tracks["real"], data.width, segments)
            own["identity"] = np.array(video.identity)
        series[name] = own
    metrics: dict[str, dict[str, Any]] = {}
    for name, video in videos.items():
        compared = series[name] if name == "real" else series[name] | as_real(series["real"])
        metrics[name] = _own(compared, tracks[name], data.fps)
        metrics[name] |= speech_metrics.sync_metrics(tools.judge, tracks[name], speech, data.fps, tools.notes)
        if name != "real":
            lag = face_metrics.lag_correlation(
                series[name]["opening"], series["real"]["opening"], segments, face_metrics.most_lag(data.fps)
            )
            pooled, reference = video.meter.pooled, videos["real"].meter.pooled
            metrics[name] |= {
                "mouth_best_correlation": lag.best_correlation,
                "mouth_lag_frames": lag.lag,
                "frechet_alex": frechet_distance(np.stack(pooled), np.stack(reference)) if len(pooled) > 1 else None,
            }
    result = {
        "full_frame": {name: metrics[name] for name in driving},
        "head_only": {name: metrics[head_only_name(name)] for name in driving if head_only_name(name) in metrics},
        "real": metrics["real"],
    }
    return Measurement(result=_clean(result), series=series)


def measure_novel(
    avatar: Avatar,
    data: PersonDataset,
    driving: dict[str, Motion],
    speech: Speech,
    tools: Tools,
    *,
    real_speech: Speech | None = None,
    keep: frozenset[int] = frozenset(),
) -> Measurement:
    """Novel audio: what needs no real frame, beside the person's own held-out video.

    Ratios to the real video compare with the mean over its held-out frames; their intervals know of the rendered
    frames only.

    Args:
        avatar: Anything with the `Renderer` protocol, ``camera`` and ``fps``.
        data: The person.
        driving: Name to motion, all of one length.
        speech: The novel audio.
        tools: What measures.
        real_speech: The audio of the person's held-out frames.
        keep: Frames whose images are kept as samples.
    """
    frames, (first, last) = len(next(iter(driving.values()))), (data.test_start, data.num_frames)
    videos = {name: _Video() for name in ("real", *driving)}
    sharpness: dict[str, list[float]] = {name: [] for name in videos}
    samples: dict[int, dict[str, np.ndarray]] = {}
    with log.progress() as bar:
        task = bar.add_task("Measuring", total=last - first + frames, info="")
        for t in range(first, last):
            image = data.image(t)
            sharpness["real"].append(mouth_gradient_energy(image, videos["real"].look(tools.tracker, image)))
            bar.advance(task)
        for t in range(frames):
            images = {name: avatar.render(avatar.camera, m, t).cpu().numpy() for name, m in driving.items()}
            for name, image in images.items():
                sharpness[name].append(mouth_gradient_energy(image, videos[name].look(tools.tracker, image)))
            if tools.recorder is not None:
                tools.recorder.write(images)
            if t in keep:
                samples[t] = images
            bar.advance(task)
    tracks = {name: video.track for name, video in videos.items()}
    heard = {name: real_speech if name == "real" else speech for name in tracks}
    measured = _compare_novel(tracks, sharpness, heard, data, frames, tools)
    measured.samples, measured.landmarks = samples, {t: tracks[next(iter(driving))].landmarks[t] for t in samples}
    return measured


def _compare_novel(
    tracks: dict[str, FaceTrack], sharpness: dict[str, list[float]], speech: dict[str, Speech | None],
    data: PersonDataset, frames: int, tools: Tools,
) -> Measurement:  # fmt: skip
    """Numbers of novel audio, from what was seen of the videos; the real one comes first."""
    first = data.test_start
    held_out = [(max(a, first) - first, b - first) for a, b in data.segments if b > first]
    series: dict[str, Series] = {}
    result: dict[str, Any] = {"full_frame": {}}
    for name, track in tracks.items():
        segments, heard = held_out if name == "real" else [(0, frames)], speech[name]
        own = face_metrics.face_series(track, data.width, data.fps, segments)
        own["mouth_gradient"] = np.array(sharpness[name])
        real = series.get("real", own)
        series[name] = own | _speech_series(own["opening"], real["opening"], heard, data.fps, segments)
        compared = dict(series[name])
        if name != "real":  # of other frames: only their level can be compared
            for key in ("mouth_gradient", "jitter"):
                compared[f"real_{key}"] = np.full(frames, bootstrap.value(bootstrap.mean, real[key]) or np.nan)
        metrics = _own(compared, track, data.fps)
        metrics |= speech_metrics.sync_metrics(tools.judge, track, heard, data.fps, tools.notes)
        if name == "real":
            result["real"] = metrics
        else:
            result["full_frame"][name] = metrics
    return Measurement(result=_clean(result), series=series)


def _embedding(recogniser: Recogniser | None, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray | None:
    return None if recogniser is None or np.isnan(landmarks).any() else recogniser.embed(image, landmarks)


def _speech_series(
    opening: np.ndarray, real_opening: np.ndarray, speech: Speech | None, fps: float, segments: Segments
) -> Series:
    if speech is None:
        return {}
    series = speech_metrics.stillness_series(opening, speech, fps, segments)
    if speech.closures is not None:
        series["closed"] = speech_metrics.closed_at(opening, real_opening, speech.closures, fps)
    return series


def _own(series: Series, track: FaceTrack, fps: float) -> dict[str, Any]:
    """Metrics that are statistics of series, and counts."""
    counts = {"blinks": int(series["blink"].sum()), "frames_without_face": int((~track.seen).sum())}
    return summarise(series, fps) | counts


def _images(series: Series, fps: float) -> dict[str, Any]:
    """Metrics of the image alone, and their intervals."""
    return summarise({name: series[name] for name in ablations.METRICS if name in series}, fps, ablations.METRICS)


def _clean(result: dict[str, Any]) -> dict[str, Any]:
    """The real video without the metrics that compare with it; intervals last."""
    result["real"] = {k: v for k, v in result["real"].items() if v is not None}
    for metrics in (result["real"], *result["full_frame"].values(), *result.get("head_only", {}).values()):
        metrics["intervals"] = metrics.pop("intervals")
    return result
