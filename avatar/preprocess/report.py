"""Last stage: what is good and what is bad about this video, in plain words in the terminal and as a page of pictures.

The page is one HTML file with everything in it. Nothing here is needed for training.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from avatar import log
from avatar.checks import number, reading
from avatar.io.arrays import load_array
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import mouth_opening
from avatar.motion.motion import Motion
from avatar.preprocess import bundle
from avatar.preprocess.stage import StageContext
from avatar.preprocess.track import read_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avatar.cli.prepare import Config

NAME = "report"
INPUTS = ("ingest", "track", "refine", "parse", "sync")
VERSION = 1

SAMPLES = 8
SAMPLE_SIDE = 320
BLINK = 0.25  # an eye counts as closed when eyeBlink is this much above its median
SOFT = 0.5  # sharpness below this share of the median is blur
TURNED = 30.0  # degrees away from the median pose
OCCLUDED = 3.0  # reprojection error above this multiple of its median
LEAP = 2.0  # degrees between the measured pose and the smooth one
MAX_SPANS = 40
TINTS = {
    "hair": (150, 60, 200), "face": (240, 160, 90), "neck": (240, 220, 60), "clothes": (60, 120, 230),
    "mouth": (255, 40, 40), "lips": (255, 90, 160), "eyes": (60, 230, 230),
}  # fmt: skip

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em }
table { border-collapse: collapse } th, td { text-align: left; padding: .15em .9em .15em 0; vertical-align: top }
figure { display: inline-block; margin: .3em; max-width: 100% } figcaption { font-size: 12px; color: #555 }
img { max-width: 100% }"""

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One sentence about the video."""

    level: Level
    text: str


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What the findings and the plots are made from; per frame unless said otherwise.

    Attributes:
        fps: Frames per second.
        size: Side of the pictures in pixels.
        segments: Runs without a cut.
        test_start: The first held-out frame.
        motion: The Motion.
        residual: Reprojection error of the rigid points in pixels.
        raw_pose: [T, 6] poses before smoothing.
        opening: Gap of the lips over the height of the face.
        face_height: Pixels.
        sharpness: Spread of the Laplacian over the face.
        change: [T - 1] mean change of the picture from frame to frame, in grey levels.
        loudness: [T] dBFS, or None without sound.
        clipped: Share of the samples at full scale.
    """

    fps: float
    size: int
    segments: list[list[int]]
    test_start: int
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


def options(config: Config) -> dict[str, Any]:
    """What the result depends on, apart from the other stages: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> dict[str, Any]:
    """Write report.html; returns the findings, which :func:`tell` says in the terminal."""
    data = measure(ctx)
    findings = judge(data) + judge_sync(ctx.result("sync"), data.fps)
    flags = flag_spans(data)
    (out / "report.html").write_text(page(ctx, data, findings, flags), encoding="utf-8")
    return {
        "findings": [{"level": f.level, "text": f.text} for f in findings],
        "flagged": [{"start": a, "end": b, "reason": reason} for a, b, reason in flags],
        "blinks": count_blinks(data.motion.arkit.numpy()),
    }


def measure(ctx: StageContext) -> Measurements:
    """Collect the measurements of the earlier stages."""
    ingest = ctx.result("ingest")
    landmarks = load_array(ctx.folder("track") / "landmarks.npy", f"{ctx.frames} 478 3")
    height = np.ptp(landmarks[..., 1], axis=1)
    loudness, clipped = None, 0.0
    if ingest["has_audio"]:
        loudness, clipped = frame_loudness(ctx.folder("ingest") / "audio.wav", ingest["num_frames"], ingest["fps"])
    return Measurements(
        fps=ingest["fps"], size=ingest["size"], segments=ctx.result("track")["segments"],
        test_start=ctx.test_start, motion=Motion.load(ctx.folder("refine") / "motion.safetensors"),
        residual=load_array(ctx.folder("refine") / "residual.npy", f"{ctx.frames}", finite=False),
        raw_pose=load_array(ctx.folder("refine") / "raw_pose.npy", f"{ctx.frames} 6", finite=False),
        opening=mouth_opening(landmarks) / height, face_height=height,
        sharpness=load_array(ctx.folder("track") / "sharpness.npy", f"{ctx.frames}", finite=False),
        change=load_array(ctx.folder("track") / "change.npy", f"{ctx.frames - 1}", finite=False),
        loudness=loudness, clipped=clipped,
    )  # fmt: skip


def frame_loudness(path: Path, frames: int, fps: float) -> tuple[np.ndarray, float]:
    """Level of the sound [T] in dBFS at each frame, and the share of samples at full scale."""
    import wave

    with reading(path, "a WAV file", "Run `avatar prepare --force`."), wave.open(str(path)) as file:
        rate = number(file.getframerate(), f"{path}: the sample rate", 1, 1e6)
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    edges = np.minimum(np.round(np.arange(frames + 1) * rate / fps).astype(int), len(samples))
    mean = np.diff(power[edges]) / np.maximum(np.diff(edges), 1)
    return 10 * np.log10(mean / 32768**2 + 1e-10), float((np.abs(samples.astype(np.int32)) >= 32700).mean())


def judge(data: Measurements) -> list[Finding]:
    """Everything worth saying about picture, motion and sound."""
    found: list[Finding] = []

    def say(level: Level, text: str) -> None:
        found.append(Finding(level, text))

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
    missing = 1 - data.valid.mean()
    if missing > 0.02:
        say("bad" if missing > 0.15 else "note", f"The face is missing in {missing:.1%} of the frames.")
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
        say("note" if cuts * 30 > seconds else "good", f"There are {cuts} cuts (a part lasts {median:.1f} s); handled.")
    range_ = float(np.ptp(np.percentile(data.opening, [5, 95])))
    if range_ < 0.025:
        say("bad", "The mouth hardly opens: there is little to learn talking from.")
    closed = (data.opening < 0.012).mean()
    if closed < 0.03:
        say("note", "The lips are hardly ever closed; a few seconds of silence with closed lips would help.")
    blinks = count_blinks(data.motion.arkit.numpy())
    if blinks == 0:
        say("note", "Not one blink was seen; the avatar's eyelids will not have been learnt.")
    soft = soft_frames(data).mean()
    if soft > 0.05:
        say("note", f"{soft:.0%} of the frames are blurred.")
    repeats = float((data.change < 0.02).mean()) if len(data.change) else 0.0
    if repeats > 0.1:
        say("note", f"{repeats:.0%} of the frames repeat the one before: the true frame rate is lower.")
    if data.loudness is not None:
        speech, floor = np.percentile(data.loudness, [90, 5])
        if speech < -40:
            say("note", f"The voice is very quiet ({speech:.0f} dB).")
        if speech - floor < 15:
            say("bad", f"The voice is only {speech - floor:.0f} dB above the noise or the music.")
        elif speech - floor > 25:
            say("good", f"The voice is {speech - floor:.0f} dB above the noise.")
        if data.clipped > 1e-3:
            say("note", f"The sound is overdriven ({data.clipped:.1%} of it is clipped).")
    else:
        say("note", "There is no sound: the avatar can be shown and moved, but it cannot talk.")
    return found


def judge_sync(sync: dict[str, Any], fps: float) -> list[Finding]:
    """What is to be said about the offset between sound and picture."""
    if not sync.get("has_audio"):
        return []
    offset = float(sync.get("offset_frames", 0.0))
    if sync.get("given"):
        return [Finding("good", f"The sound is taken to be {offset:+.1f} frames late, as given.")]
    if not sync.get("trusted", True):
        return [Finding("note", "Whether sound and picture are in sync could not be measured; they are taken to be.")]
    if offset:
        way = "late" if offset > 0 else "early"
        text = f"The sound is {way} by {abs(offset):.1f} frames ({1000 * abs(offset) / fps:.0f} ms); this is corrected."
        return [Finding("note", text)]
    return [Finding("good", "Sound and picture are in sync.")]


def soft_frames(data: Measurements) -> np.ndarray:
    """[T] whether the face is blurred, compared with the sharpness that is usual in its segment."""
    usual = np.zeros(len(data.sharpness))
    for start, end in data.segments:
        usual[start:end] = np.median(data.sharpness[start:end])
    return data.valid & (data.sharpness < SOFT * usual)


def flag_spans(data: Measurements) -> list[tuple[int, int, str]]:
    """Spans [start, end) of frames to look at, with the reason, longest first."""
    off = np.degrees(np.linalg.norm(data.raw_pose[:, :3] - data.motion.head_rotation.numpy(), axis=1))
    reasons = {
        "no face": ~data.valid,
        "blurred": soft_frames(data),
        "turned far": np.abs(data.turn[:, 1]) > TURNED,
        "covered or mistracked": data.valid & (data.residual > OCCLUDED * np.median(data.residual[data.valid])),
        "the pose leaps": data.valid & (off > LEAP),
    }
    spans = [(a, b, reason) for reason, flags in reasons.items() for a, b in runs(flags)]
    return sorted(spans, key=lambda s: s[0] - s[1])[:MAX_SPANS]


def runs(flags: np.ndarray, bridge: int = 3) -> list[tuple[int, int]]:
    """[start, end) of the true runs; runs fewer than ``bridge`` frames apart are one."""
    spans: list[tuple[int, int]] = []
    for index in np.flatnonzero(flags).tolist():
        if spans and index - spans[-1][1] < bridge:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def count_blinks(arkit: np.ndarray) -> int:
    """Number of times that both eyes close, from ARKit coefficients [T, 52]."""
    closed = np.minimum(arkit[:, INDEX["eyeBlinkLeft"]], arkit[:, INDEX["eyeBlinkRight"]])
    return len(runs(closed > np.median(closed) + BLINK))


def tell(ctx: StageContext) -> None:
    """Print the findings of a finished report."""
    result, fps = ctx.result(NAME), ctx.result("ingest")["fps"]
    marks = {"good": ("+", "green"), "note": ("o", "yellow"), "bad": ("-", "red")}
    log.info("\nThis video:")
    for level, mark in marks.items():
        for finding in result["findings"]:
            if finding["level"] == level:
                log.item(finding["text"], *mark)
    if flagged := result["flagged"]:
        longest = flagged[0]
        log.info(
            f"  {len(flagged)} span(s) to look at; the longest is {longest['start'] / fps:.1f} to "
            f"{longest['end'] / fps:.1f} s: {longest['reason']}."
        )
    log.info(f"Pictures and plots: {ctx.folder(NAME) / 'report.html'}")


def page(ctx: StageContext, data: Measurements, findings: list[Finding], flags: list[tuple[int, int, str]]) -> str:
    """The whole HTML page."""
    ingest, refine = ctx.result("ingest"), ctx.result("refine")
    facts = {
        "Video": f"{Path(ingest['source']).name}, {ingest['source_size'][0]}x{ingest['source_size'][1]}"
        + (", variable frame rate" if ingest["variable_rate"] else ""),
        "Used": f"{ingest['size']}x{ingest['size']}, {ingest['fps']:.3g} frames/s, {ingest['num_frames']} frames, "
        f"{len(data.segments)} segments",
        "Camera": f"focal length {refine['camera']['focal']:.0f} px, face {refine['distance_cm']:.0f} cm away "
        "(a single video shows this only roughly)",
        "Reprojection error": f"{refine['reprojection_px']:.2f} px (median over frames of the rigid points' mean)",
        "Pose jitter": f"{refine['jitter_before_deg']:.3f} degrees in single frames, "
        f"{refine['jitter_after_deg']:.3f} after the joint fit",
        "Blinks": str(count_blinks(data.motion.arkit.numpy())),
    }
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    listed = "".join(f'<li class="{f.level}">{html.escape(f.text)}</li>' for f in findings)
    table = "".join(
        f"<tr><td>{a / data.fps:.2f}</td><td>{b / data.fps:.2f}</td><td>{a}-{b - 1}</td><td>{reason}</td></tr>"
        for a, b, reason in flags
    )
    figures = "".join(
        f'<figure><img src="{picture}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for picture, caption in sample_pictures(ctx, data)
    )
    flagged = (
        f"<table><tr><th>from s</th><th>to s</th><th>frames</th><th>reason</th></tr>{table}</table>"
        if flags
        else "<p>Nothing stands out.</p>"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(ctx.person.name)}: quality of the video</title><style>
{STYLE} .good::marker {{ content: "+ "; color: #197a33 }}
.note::marker {{ content: "o "; color: #a76b00 }} .bad::marker {{ content: "- "; color: #b3261e }}
</style></head><body>
<h1>{html.escape(ctx.person.name)}</h1>
<h2>In words</h2><ul>{listed}</ul>
<h2>In numbers</h2><table>{rows}</table>
<h2>Frames</h2>
<p>Green: landmarks of this frame. Red: the one rigid face in this frame's pose. Lines: the head's axes.
Tints: masks.</p>
{figures}
<h2>Over time</h2><p>Grey bands are flagged, dotted lines are cuts, the held-out last tenth is shaded blue.</p>
<img src="{plots(data, flags)}" alt="plots over time">
<h2>Spans to look at</h2>{flagged}
</body></html>
"""


def sample_pictures(ctx: StageContext, data: Measurements) -> list[tuple[str, str]]:
    """Frames spread over time and the extremes, drawn on, as data URLs with captions."""
    count = len(data.motion)
    turn = data.turn
    wanted = dict.fromkeys(np.linspace(0, count - 1, SAMPLES).astype(int).tolist(), "")
    extremes = {
        "farthest to the left": turn[:, 1].argmin(), "farthest to the right": turn[:, 1].argmax(),
        "widest mouth": data.opening.argmax(), "largest error": np.where(data.valid, data.residual, 0).argmax(),
    }  # fmt: skip
    wanted |= {int(i): name for name, i in extremes.items()}
    landmarks = load_array(ctx.folder("track") / "landmarks.npy", f"{ctx.frames} 478 3", mapped=True)
    shape = load_array(ctx.folder("refine") / "shape.npy", "478 3").astype(np.float64)
    camera = ctx.result("refine")["camera"]
    pictures = []
    for index, name in sorted(wanted.items()):
        picture = tint(read_rgb(ctx.frame_path(index)), ctx.person, index)
        pose = data.motion[index : index + 1]
        state = bundle.Solution(
            focal=camera["focal"], shape=shape, rotation=pose.head_rotation.numpy().astype(np.float64),
            translation=pose.head_translation.numpy().astype(np.float64),
        )  # fmt: skip
        drawn = draw_face(picture, landmarks[index, :, :2], state, np.array([camera["cx"], camera["cy"]]))
        caption = f"{index / data.fps:.1f} s" + (f", {name}" if name else "")
        pictures.append((data_url(drawn), caption))
    return pictures


def draw_face(picture: np.ndarray, landmarks: np.ndarray, state: bundle.Solution, centre: np.ndarray) -> np.ndarray:
    """Landmarks green, the posed rigid face red, the head's axes, on a picture of `SAMPLE_SIDE` pixels."""
    import cv2

    scale = 2 * SAMPLE_SIDE / picture.shape[0]  # drawn at twice the size, so that the dots stay apart
    canvas = cv2.resize(picture, (2 * SAMPLE_SIDE, 2 * SAMPLE_SIDE), interpolation=cv2.INTER_CUBIC)
    for points, colour in ((landmarks, (40, 230, 60)), (bundle.project(state, centre)[0], (230, 40, 40))):
        for x, y in points * scale:
            cv2.circle(canvas, (int(x), int(y)), 1, colour, -1, cv2.LINE_AA)
    origin = state.shape[1]  # the tip of the nose
    axes = bundle.Solution(
        focal=state.focal, shape=origin + np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, -5]]),
        rotation=state.rotation, translation=state.translation,
    )  # fmt: skip
    ends = (bundle.project(axes, centre)[0] * scale).astype(int).tolist()
    for end, colour in zip(ends[1:], ((230, 60, 60), (60, 200, 60), (70, 110, 255)), strict=True):
        cv2.line(canvas, ends[0], end, colour, 3, cv2.LINE_AA)
    return cv2.resize(canvas, (SAMPLE_SIDE, SAMPLE_SIDE), interpolation=cv2.INTER_AREA)


def tint(picture: np.ndarray, person: Path, index: int) -> np.ndarray:
    """The picture with the masks coloured."""
    from avatar.preprocess.parse import load_masks

    masks = load_masks(person, index, picture.shape[1::-1])
    mixed = picture.astype(np.float32)
    for name, colour in TINTS.items():
        share = 0.35 * masks[name][..., None]
        mixed = mixed * (1 - share) + share * np.array(colour, np.float32)
    return mixed.astype(np.uint8)


def data_url(picture: np.ndarray) -> str:
    """A uint8 RGB picture as a JPEG in a data URL."""
    import cv2

    data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def plots(data: Measurements, flags: list[tuple[int, int, str]]) -> str:
    """Error, pose, jitter, mouth and eyes, and loudness over time, as a PNG in a data URL."""
    from matplotlib.figure import Figure

    time = np.arange(len(data.motion)) / data.fps
    arkit = data.motion.arkit.numpy()
    off = np.degrees(data.raw_pose[:, :3] - data.motion.head_rotation.numpy())
    panels: list[tuple[str, dict[str, np.ndarray]]] = [
        ("reprojection error, px", {"": data.residual}),
        ("head, degrees from the median", {n: data.turn[:, k] for k, n in enumerate(("pitch", "yaw", "roll"))}),
        ("shake removed, degrees", {n: off[:, k] for k, n in enumerate(("pitch", "yaw", "roll"))}),
        ("lip gap / face height", {"": data.opening}),
        ("eye closed", {"left": arkit[:, INDEX["eyeBlinkLeft"]], "right": arkit[:, INDEX["eyeBlinkRight"]]}),
        ("sharpness of the face", {"": data.sharpness}),
    ]
    if data.loudness is not None:
        panels.append(("loudness, dB", {"": np.maximum(data.loudness, -80)}))
    figure = Figure(figsize=(11, 1.7 * len(panels)), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (title, lines) in zip(all_axes, panels, strict=True):
        for name, values in lines.items():
            axes.plot(time, values, linewidth=0.7, label=name)
        if len(lines) > 1:
            axes.legend(loc="upper right", fontsize=7, ncols=3)
        axes.set_title(title, fontsize=9, loc="left")
        axes.margins(x=0)
        axes.tick_params(labelsize=8)
        for start, end, _ in flags:
            axes.axvspan(start / data.fps, end / data.fps, color="0.5", alpha=0.25, linewidth=0)
        for start, _ in data.segments[1:]:
            axes.axvline(start / data.fps, color="0.4", linewidth=0.4, linestyle=":")
        axes.axvspan(data.test_start / data.fps, len(time) / data.fps, color="tab:blue", alpha=0.07, linewidth=0)
    all_axes[-1].set_xlabel("seconds", fontsize=8)
    return figure_url(figure)


def figure_url(figure: Figure) -> str:
    """A matplotlib figure as a PNG in a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
