"""How the metrics are shown in the terminal, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avatar import log
from avatar.eval import ablations, lips, terminal, view_tables, whole_frame
from avatar.infer.renderer import counts_text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table


@dataclass(frozen=True)
class Shown:
    """How a metric is shown.

    Attributes:
        label: What it is, with its unit.
        spec: Number format.
        meaning: One sentence for the report.
    """

    label: str
    spec: str
    meaning: str


SHOWN: dict[str, Shown] = {
    "psnr": Shown("PSNR, whole frame (dB)", ".2f", "Pixel error of the whole frame. More is better."),
    "psnr_face": Shown("PSNR, face (dB)", ".2f", "The same inside the face mask."),
    "ssim": Shown("SSIM, whole frame", ".4f", "Structural similarity; 1 is the same. Papers' windows and "
                  "colours differ: not comparable."),
    "ssim_face": Shown("SSIM, face", ".4f", "The same inside the face mask."),
    "lpips": Shown("LPIPS (Alex)", ".4f", "Perceptual distance of the whole frame. Less is better."),
    "frechet_alex": Shown(
        "Fréchet (Alex; not FID)", ".3f",
        "How far the rendered frames as a set are from the real ones, in features of the network behind LPIPS and in "
        "units of the real frames' variance. It is not FID: another network, and comparable only for one person.",
    ),
    "identity": Shown("identity similarity (dlib)", ".3f", "Cosine of face embeddings of rendered and real frames, two "
                      "a second. One person reads about 0.98, two people 0.85; not comparable to other networks'."),
    "lmd": Shown("LMD, lips aligned (px of 512)", ".2f", "Mean distance of 40 landmarks of the lips, each frame's mean "
                 "position taken out. Papers take other landmarks: not comparable."),
    "lmd_raw": Shown("LMD, as placed (px of 512)", ".2f", "The same with the position."),
    "mouth_correlation": Shown("mouth correlation", ".3f", "How the opening follows the real one over time."),
    "mouth_lag_frames": Shown("mouth lag (frames)", "+d", "Positive: the rendered mouth is late."),
    "mouth_best_correlation": Shown("mouth correlation at that lag", ".3f", "At that lag."),
    "mouth_range": Shown("mouth range / real", ".2f", "1 is as lively as the person."),
    "lower_face_error": Shown("lower-face blendshapes", ".4f", "Mean absolute difference of the tracked ARKit "
                              "coefficients of jaw, mouth and nose; stands in for the action-unit error of papers."),
    "upper_face_error": Shown("upper-face blendshapes", ".4f", "The same for brows, eyelids and cheeks."),
    "gaze_error": Shown("gaze error (degrees)", ".2f", "Angle between rendered and real gaze, eyes open."),
    "sync_confidence": Shown("sync judge, confidence", ".3f", "How much better the best offset of audio and mouth is "
                             "than the median offset; near 0 where they have nothing to do with each other."),
    "sync_audio_delay_s": Shown("sync judge, audio delay (s)", "+.3f", "Positive: audio after video."),
    "sync_distance": Shown("sync judge, distance", ".3f", "At the best offset. Less is better."),
    "closure": Shown("lips closed on p, b, m", ".0%", "Share of these consonants within 0.08 s of which the lips "
                     "close."),
    "silence_motion": Shown("mouth, silence / speech", ".3f", "Spread of the opening's velocity in pauses "
                            "of 0.3 s and more, over that in speech."),
    "mouth_sharpness": Shown("mouth sharpness / real", ".3f", "Gradient energy of mouth crops over the real one."),
    "pose_jitter": Shown("pose jitter (px of 512)", ".3f", "Root mean square of the second difference over time of "
                         "landmarks on bone."),
    "pose_jitter_ratio": Shown("pose jitter / real", ".2f", "Above 1 the head shakes more than the person's."),
    "pose_wobble": Shown("pose wobble (px of 512)", ".3f", "Jitter against the real video: the person's own "
                         "movement taken out."),
    "seam_temporal": Shown("seam, flicker / real", ".2f", "Energy of the second difference over time around the "
                           "borders of head, neck and clothes. The real one includes the camera's noise."),
    "seam_spatial": Shown("seam, edges / real", ".2f", "Gradient energy there."),
    "blinks": Shown("blinks", "d", "In the measured part."),
    "blinks_per_minute": Shown("blinks per minute", ".1f", "People blink 10 to 30 times a minute."),
    "frames_without_face": Shown("frames without a face", "d", "In which the tracker finds none."),
}  # fmt: skip

TABLES = {
    "full_frame": "everything rendered (protocol full-frame)",
    "head_only": "rendered head over the real torso and background (protocol head-only)",
    "ablations": "everything rendered, with less taken from the held-out frames",
}
NO_INTERVALS = "too short for a 95 % interval"
MARK = "*"  # after numbers of lips that chance explains as well
ABLATED = ("tracked", "audio")  # motions that the ablations are shown beside


def columns(result: dict[str, Any], table: str) -> dict[str, dict[str, Any]]:
    """Metrics by the title of their column: each drive and the real video, or each drive and its ablations."""
    if table != "ablations":
        marked = {"marks": lips.marks(result.get("lips"))}
        drives = {n: v | marked if n in lips.SPOKEN else v for n, v in result[table].items()}
        return drives | {"real": result["real"]}
    shown: dict[str, dict[str, Any]] = {}
    for drive in (name for name in ABLATED if name in result["full_frame"]):
        whole = result["full_frame"][drive]
        shown[drive] = {key: whole[key] for key in (*ablations.METRICS, "intervals")}
        shown |= {
            ablations.TITLES[name]: values
            for name, values in result["ablations"].items()
            if ablations.TITLES[name].startswith(drive)
        }
    return shown


def scope(result: dict[str, Any]) -> str:
    """How much was measured, when, and from which commits: what stands over every table."""
    words = f"{result['frames']} frames, {result['frames'] / result['fps']:.1f} s, of "
    if result["first_frame"] is None:
        real = result["real_frames"]
        words += f"audio that nobody filmed (real: {real} held-out frames, {real / result['fps']:.1f} s)"
    else:
        words += "held-out video"
    words += f"; evaluated {stamp(result)}"
    trained = result.get("training") or {}
    if not trained.get("date"):
        return words
    begun = "".join(f", begun {stamp(part)}" for part in trained.get("earlier", [])[:1])
    return f"{words}, trained {stamp(trained)}{begun}"


def has_intervals(shown: dict[str, dict[str, Any]]) -> bool:
    """Whether any of the columns of a table has an interval."""
    return any(values["intervals"] for values in shown.values())


def stamp(record: dict[str, Any]) -> str:
    """Date and commit of a record."""
    commit = record.get("commit")
    if not commit:
        return f"{record['date'][:10]} (commit unknown)"
    hexadecimal, _, changed = commit.partition("+")
    return f"{record['date'][:10]} at commit {hexadecimal[:10]}{' with uncommitted changes' if changed else ''}"


def rows(shown: dict[str, dict[str, Any]]) -> list[str]:
    """The metrics that at least one column has."""
    return [key for key in SHOWN if any(values.get(key) is not None for values in shown.values())]


def tables(result: dict[str, Any], width: int) -> list[Table]:
    """Make terminal tables, one per protocol and one of the ablations, with half of the 95 % intervals.

    A table has a column per driving motion, and one for the real video where that has a number. It is at most
    ``width`` characters wide.
    """
    out = []
    for name, title in TABLES.items():
        if not result.get(name):
            continue
        shown = columns(result, name)
        interval = "± half of the 95 % interval" if has_intervals(shown) else NO_INTERVALS
        caption = f"{result['setting']}, {title}; {interval}\n{scope(result)}"
        keys = rows(shown)
        cells = {column: [_cell(key, values) for key in keys] for column, values in shown.items()}
        if any(cell.mark for column in cells.values() for cell in column):
            caption += f"\n{MARK} {lips.CHANCE}"
        out += terminal.tables(caption, [SHOWN[key].label for key in keys], cells, width)
    if shown := differences(result):
        caption = f"{difference_title(result)}; 95 % intervals"
        keys = rows(shown)
        cells = {column: [_difference_cell(key, values) for key in keys] for column, values in shown.items()}
        out += terminal.tables(caption, [SHOWN[key].label for key in keys], cells, width)
    return out


def differences(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Differences from another avatar by the title of their column; empty where none was given with --against."""
    videos = (result.get("against") or {"videos": {}})["videos"]
    marked = {"marks": lips.marks(result.get("lips"))}  # what is too little for a number is too little for this
    shown = {name: values for name, values in videos.items() if not name.startswith("shuffled")}
    return {name: v | marked if name.partition(",")[0] in lips.SPOKEN else v for name, v in shown.items()}


def difference_title(result: dict[str, Any]) -> str:
    """What the table of `differences` shows."""
    return f"This avatar minus that of {result['against']['file']}, on the same frames"


def signed(key: str, value: float | None) -> str:
    """A difference as it is shown."""
    return "-" if value is None else format(value, SHOWN[key].spec if "d" in SHOWN[key].spec else f"+{SHOWN[key].spec}")


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Speed, size and memory in words."""
    speed, model = result["speed"], result["model"]
    parts = "speech and " if speed["with_speech"] else ""
    rates = f"Rendering alone {speed['render_fps']:.1f} frames/s; with {parts}encoding to mp4 "
    rates += f"{speed['end_to_end_fps']:.1f} frames/s."
    sizes = ", ".join(filter(None, (counts_text(model), f"{(model.get('bytes') or 0) / 1e6:.1f} MB")))
    size = f"Method {model.get('method')}: {sizes}; "
    size += f"peak memory {result['peak_memory_bytes'] / 1e9:.2f} GB."
    driven = [f"Speech network that drives the lips: {result['speech']}."] if result["speech"] else []
    return [rates, size, *driven, *(f"Note: {note}" for note in result["notes"])]


def show(result: dict[str, Any], numbers: Path, page: Path) -> None:
    """Print the tables and where the files are; takes what `avatar.eval.run.evaluate` returns."""
    width = log.console.width
    shown = [*tables(result, width), *whole_frame.in_terminal(result.get("whole_frame"), width)]
    for table in [*shown, *view_tables.in_terminal(result["views"], width)]:
        log.console.print(table)
    for line in summary_lines(result):
        log.console.print(line, markup=False)
    for warning in result["warnings"]:
        log.warn(warning)
    log.info(f"Numbers: {numbers}; images, plots and videos: {page}")


def mark(key: str, values: dict[str, Any]) -> str:
    """What is to be said of a metric of a column, such as "too short"; empty where nothing is."""
    return values.get("marks", {}).get(key, "") if values.get(key) is not None else ""


def number(key: str, value: float | None) -> str:
    """A metric's value as it is shown."""
    return "-" if value is None else format(value, SHOWN[key].spec)


def _cell(key: str, values: dict[str, Any]) -> terminal.Cell:
    text, interval, said = number(key, values.get(key)), values["intervals"].get(key), mark(key, values)
    if said == lips.TOO_SHORT:
        return terminal.Cell(said)  # a number would be read
    spread = "" if interval is None else f"±{number(key, (interval[1] - interval[0]) / 2)}"
    return terminal.Cell(text, spread, MARK if said else "")


def _difference_cell(key: str, values: dict[str, Any]) -> terminal.Cell:
    interval, said = values["intervals"].get(key), mark(key, values)
    if said == lips.TOO_SHORT:
        return terminal.Cell(said)
    spread = "" if interval is None else " to ".join(signed(key, bound) for bound in interval)
    return terminal.Cell(signed(key, values.get(key)), spread, MARK if said else "")
