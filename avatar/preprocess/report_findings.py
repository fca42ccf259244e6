"""What is good and what is bad about a video, measured on what the stages found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from avatar.audio.levels import frame_levels, frames_with_audio
from avatar.data.results import (
    Finding,
    FlaggedSpan,
    IngestResult,
    Level,
    ParseResult,
    RefineResult,
    Segments,
    SyncResult,
    TrackResult,
)  # fmt: skip
from avatar.io.audio import stream_audio
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import mouth_opening
from avatar.motion.motion import Motion
from avatar.preprocess.stage import StageContext
from avatar.preprocess.sync import describe
from avatar.preprocess.unusable import KEPT_SHARE, runs, within

BLINK = 0.25  # an eye counts as closed when eyeBlink is this much above its median
SOFT = 0.5  # sharpness below this share of the median is blur
TURNED = 30.0  # degrees away from the median pose
OCCLUDED = 3.0  # reprojection error above this multiple of its median
LEAP = 2.0  # degrees between the measured pose and the smooth one
FULL_SCALE = 32700 / 32768  # from here on samples count as clipped
MUTE = 1.0  # seconds of a face without audio from which it is told in words
MENTIONED = 0.4  # seconds of a covered mouth from which it is told in words
ZOOM = 1.1  # a face that is this many times as large in another part of the video counts as zoomed
MAX_SPANS = 40
LEAVES_SHARE = 0.02  # of the frames in which the person may reach out of the trained part without a word


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What the findings and the plots are made from; per frame unless said otherwise.

    Attributes:
        fps: Frames per second.
        segments: Runs without a cut.
        test_start: The first held-out frame.
        found: bool [T], whether there is a face.
        still: bool [T], whether it stands still like a photo.
        covered: bool [T], whether something is before the mouth.
        motion: The Motion.
        residual: Reprojection error of the rigid points in pixels.
        raw_pose: [T, 6] poses before smoothing.
        opening: Gap of the lips over the height of the face.
        face_height: Pixels.
        sharpness: Spread of the Laplacian over the face.
        change: [T - 1] mean change of the image from frame to frame, in grey levels.
        loudness: [T] dBFS, NaN where the audio has not begun or has ended; None without audio.
        clipped: Share of the samples at full scale.
    """

    fps: float
    segments: Segments
    test_start: int
    found: np.ndarray
    still: np.ndarray
    covered: np.ndarray
    motion: Motion
    residual: np.ndarray
    raw_pose: np.ndarray
    opening: np.ndarray
    face_height: np.ndarray
    sharpness: np.ndarray
    change: np.ndarray
    loudness: np.ndarray | None
    clipped: float

    @property
    def valid(self) -> np.ndarray:
        return self.motion.valid.numpy()

    @property
    def turn(self) -> np.ndarray:
        """[T, 3] head rotation in degrees relative to its median: pitch, yaw, roll."""
        rotation = np.degrees(self.motion.head_rotation.numpy())
        return rotation - np.median(rotation, axis=0)


def measure(ctx: StageContext) -> Measurements:
    """Collect the measurements of the earlier stages."""
    person, frames = ctx.person, ctx.frames
    ingest = person.result(IngestResult)
    landmarks = person.landmarks(frames)
    height = np.ptp(landmarks[..., 1], axis=1)
    loudness, clipped = None, 0.0
    if ingest.has_audio:
        loudness, clipped = frame_loudness(person.audio_path, ingest.num_frames, ingest.fps)
        if ingest.audio_span is not None:
            loudness[~frames_with_audio(ingest.audio_span, frames, ingest.fps)] = np.nan
    return Measurements(
        fps=ingest.fps, segments=person.result(TrackResult).segments, test_start=ctx.test_start,
        found=person.valid(frames), still=within(person.result(RefineResult).still, frames),
        covered=within(person.result(ParseResult).covered, frames), motion=person.face_motion(),
        residual=person.residual(frames), raw_pose=person.raw_pose(frames), opening=mouth_opening(landmarks) / height,
        face_height=height, sharpness=person.sharpness(frames), change=person.change(frames), loudness=loudness,
        clipped=clipped,
    )  # fmt: skip


def frame_loudness(path: Path, frames: int, fps: float) -> tuple[np.ndarray, float]:
    """Measure the level [T] of an audio file in dBFS, per frame, and the share of samples at full scale."""
    clipped = samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal clipped, samples
        for chunk in stream_audio(path):
            clipped += int(np.count_nonzero(np.abs(chunk) >= FULL_SCALE))
            samples += len(chunk)
            yield chunk

    levels = frame_levels(counted(), frames, fps)
    return levels, clipped / samples


def judge(data: Measurements) -> list[Finding]:
    """Say all that is worth saying about image, motion and audio, one finding each."""
    say = _Findings()
    _judge_length(data, say)
    _judge_seen(data, say)
    _judge_pose(data, say)
    _judge_zoom(data, say)
    _judge_mouth(data, say)
    _judge_frames(data, say)
    _judge_audio(data, say)
    return say.found


class _Findings:
    """Collects findings: `say("note", "...")`."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def __call__(self, level: Level, text: str) -> None:
        self.found.append(Finding(level=level, text=text))


def _judge_length(data: Measurements, say: _Findings) -> None:
    seconds = len(data.motion) / data.fps
    if seconds < 45:
        say("bad", f"The video is {seconds:.0f} s long; the mouth is learnt from few sounds. 3 to 5 minutes are good.")
    elif seconds < 150:
        say("note", f"The video is {seconds:.0f} s long, which works; 3 to 5 minutes make better lips.")
    else:
        say("good", f"The video is {seconds / 60:.1f} minutes long.")
    height = float(np.median(data.face_height))
    if height < 110:
        say("bad", f"The face is only {height:.0f} pixels high: teeth and eyes will be soft.")
    elif height < 190:
        say("note", f"The face is {height:.0f} pixels high; 200 or more show teeth and eyes better.")
    else:
        say("good", f"The face is {height:.0f} pixels high.")


def _judge_seen(data: Measurements, say: _Findings) -> None:
    """Say where there is no face, a still image, or something before the mouth."""
    share = 1 - data.found.mean()
    if share > 0.02:
        where = spans_in_words(~data.found, data.fps)
        text = f"The face is missing in {share:.1%} of the frames ({where}); they are left out."
        say("bad" if share > 0.15 else "note", text)
    if data.still.any():
        where = spans_in_words(data.still, data.fps)
        text = f"The image stands still {where}, whatever is said; this is left out of training. Cut it out."
        say("bad" if data.still.mean() > 0.15 else "note", text)
    hidden = data.covered.sum() / max(1, data.found.sum())
    if hidden > 1 - KEPT_SHARE:
        say(
            "bad",
            f"Something is before the mouth or the chin for {data.covered.sum() / data.fps:.0f} of "
            f"{len(data.covered) / data.fps:.0f} s, such as a microphone: the avatar learns it as a part of the face. "
            "Film with a free mouth.",
        )
    elif data.covered.sum() > MENTIONED * data.fps:
        where = spans_in_words(data.covered, data.fps)
        text = f"Something is before the mouth or the chin {where}, such as a hand; this is left out of training."
        say("bad" if hidden > 0.15 else "note", text)
    held_out = data.found[data.test_start :]
    if len(held_out) and held_out.mean() < 0.5:
        text = f"Of the held-out last part only {held_out.mean():.0%} shows the face, so nothing can be measured on it."
        say("bad", f"{text} Cut off the end of the video.")


def spans_in_words(flags: np.ndarray, fps: float) -> str:
    """Say where flags [T] are set: the longest two spans, and how many there are besides."""
    spans = sorted(runs(flags), key=lambda span: span[0] - span[1])
    told = " and ".join(f"from {a / fps:.1f} to {b / fps:.1f} s" for a, b in sorted(spans[:2]))
    return told + (f" and {len(spans) - 2} more times" if len(spans) > 2 else "")


def _judge_pose(data: Measurements, say: _Findings) -> None:
    seconds, height = len(data.motion) / data.fps, float(np.median(data.face_height))
    error = float(np.median(data.residual[data.valid])) / height
    text = f"The head is tracked to {error * height:.2f} pixels ({100 * error:.2f} % of the face)."
    say("good" if error < 0.006 else "note" if error < 0.012 else "bad", text)
    spread = np.ptp(np.percentile(data.turn, [3, 97], axis=0), axis=0)
    if spread[1] < 6:
        say("note", f"The head hardly turns ({spread[1]:.0f} degrees sideways): the sides of the face are guesses.")
    else:
        say("good", f"The head turns by {spread[1]:.0f} degrees sideways and nods by {spread[0]:.0f}.")
    if (np.abs(data.turn[:, 1]) > TURNED).mean() > 0.1:
        say("note", "The face often turns far to the side, where landmarks are inexact.")
    if len(data.segments) > 1:
        median = float(np.median([b - a for a, b in data.segments])) / data.fps
        cuts = len(data.segments) - 1
        text = "There is one cut" if cuts == 1 else f"There are {cuts} cuts"
        say("note" if cuts * 30 > seconds else "good", f"{text} (a part lasts {median:.1f} s); handled.")


def _judge_zoom(data: Measurements, say: _Findings) -> None:
    """Say where the face changes its size at a cut: an enlarged image, or another take."""
    distance = data.motion.head_translation[:, 2].numpy()
    parts = [(a, np.median(distance[a:b][data.found[a:b]])) for a, b in data.segments
             if b - a >= data.fps / 2 and data.found[a:b].any()]  # fmt: skip
    changes = [(start, max(here / there, there / here)) for (_, there), (start, here) in pairwise(parts)]
    zoomed = [(start, ratio) for start, ratio in changes if ratio > ZOOM]
    if zoomed:
        start, ratio = max(zoomed, key=lambda change: change[1])
        more = f" and at {len(zoomed) - 1} more" if len(zoomed) > 1 else ""
        say(
            "note",
            f"The zoom changes at the cut at {start / data.fps:.1f} s ({ratio:.2f} times as large){more}: the "
            "head, and what is behind it, are learnt better from takes of one zoom.",
        )


def _judge_mouth(data: Measurements, say: _Findings) -> None:
    range_ = float(np.ptp(np.percentile(data.opening, [5, 95])))
    if range_ < 0.025:
        say("bad", "The mouth hardly opens: there is little to learn talking from.")
    closed = (data.opening < 0.012).mean()
    if closed < 0.03:
        say("note", "The lips are hardly ever closed; a few seconds of silence with closed lips would help.")
    blinks = count_blinks(data.motion.arkit.numpy())
    if blinks == 0:
        say("note", "Not one blink was seen; the avatar's eyelids will not have been learnt.")


def _judge_frames(data: Measurements, say: _Findings) -> None:
    soft = soft_frames(data).mean()
    if soft > 0.05:
        say("note", f"{soft:.0%} of the frames are blurred.")
    shown = (data.found & ~data.still)[1:]
    repeats = float((data.change < 0.02)[shown].mean()) if shown.any() else 0.0
    if repeats > 0.1:
        say("note", f"{repeats:.0%} of the frames repeat the one before: the true frame rate is lower.")


def _judge_audio(data: Measurements, say: _Findings) -> None:
    if data.loudness is None:
        say("note", "There is no audio: the avatar will speak with the shared model.")
        return
    mute = np.isnan(data.loudness)
    if (mute & data.found).sum() > MUTE * data.fps:
        where = spans_in_words(mute, data.fps)
        text = f"There is no audio {where}: whatever the mouth does there, the avatar learns it as silence."
        say("bad", f"{text} Cut this part out.")
    # The silence that was put in is no noise floor.
    speech, floor = np.percentile(data.loudness[~mute], [90, 5]) if not mute.all() else (-100.0, -100.0)
    if speech < -40:
        say("note", f"The voice is very quiet ({speech:.0f} dB).")
    if speech - floor < 15:
        say("bad", f"The voice is only {speech - floor:.0f} dB above the noise or the music.")
    elif speech - floor > 25:
        say("good", f"The voice is {speech - floor:.0f} dB above the noise.")
    if data.clipped > 1e-3:
        say("note", f"The audio is overdriven ({data.clipped:.1%} of it is clipped).")


def judge_sync(sync: SyncResult, fps: float) -> list[Finding]:
    """Say what is to be said about the delay between audio and video."""
    if not sync.has_audio:
        return []
    level: Level = "good" if sync.given or not sync.audio_delay_s else "note"
    return [Finding(level=level if sync.trusted else "bad", text=describe(sync, fps))]


def judge_frame(leaves: float) -> list[Finding]:
    """Say where the person reaches out of the part that is trained, given the share of such frames."""
    if leaves <= LEAVES_SHARE:
        return []
    text = (
        f"The person reaches out of the trained part in {leaves:.0%} of the frames, with a hand, or because something "
        "behind was taken for clothes; what is outside is shown as background. Cut these parts of the video out, or "
        "give --frame head, with which nothing outside is shown."
    )
    return [Finding(level="note" if leaves < 0.1 else "bad", text=text)]


def soft_frames(data: Measurements) -> np.ndarray:
    """Tell for each frame [T] whether the face is blurred, compared with the sharpness that is usual in its segment."""
    usual = np.zeros(len(data.sharpness))
    for start, end in data.segments:
        usual[start:end] = np.median(data.sharpness[start:end])
    return data.valid & (data.sharpness < SOFT * usual)


def flag_spans(data: Measurements) -> list[FlaggedSpan]:
    """Find the spans of frames to look at, longest first."""
    off = np.degrees(np.linalg.norm(data.raw_pose[:, :3] - data.motion.head_rotation.numpy(), axis=1))
    reasons = {
        "no face": ~data.found,
        "a still image": data.still,
        "the mouth is covered": data.covered,
        "blurred": soft_frames(data),
        "turned far": np.abs(data.turn[:, 1]) > TURNED,
        "covered or mistracked": data.valid & (data.residual > OCCLUDED * np.median(data.residual[data.valid])),
        "the pose leaps": data.valid & (off > LEAP),
    }
    spans = [FlaggedSpan(start=a, end=b, reason=why) for why, flags in reasons.items() for a, b in runs(flags)]
    return sorted(spans, key=lambda span: span.start - span.end)[:MAX_SPANS]


def count_blinks(arkit: np.ndarray) -> int:
    """Count how often both eyes close, from ARKit coefficients [T, 52]."""
    closed = np.minimum(arkit[:, INDEX["eyeBlinkLeft"]], arkit[:, INDEX["eyeBlinkRight"]])
    return len(runs(closed > np.median(closed) + BLINK))
