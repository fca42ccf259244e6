"""Stage: by how many seconds does audio come after video?

`avatar.sync.offset` measures it with the sync judge, and says why where it cannot. A delay that is not certain is not
corrected: a wrong correction is worse than none. What is held out is used only where the rest does not decide, as in
videos of a few seconds.

The clock: a frame stands on the screen from t / fps to (t + 1) / fps, so the audio that belongs to it is the one
at (t + 1/2) / fps. With that, takes known to be in sync measure within a frame of zero; what remains differs between
people (how far the lips run ahead of the voice), so delays below `TOLERANCE` are left alone. That is also less than
a viewer can notice (ITU-R BT.1359-1: 45 ms for audio that is early).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avatar.data.results import IngestResult, SyncResult
from avatar.io.arrays import save_array
from avatar.io.audio import load_audio
from avatar.preprocess.stage import StageContext
from avatar.sync.judge import SyncJudge
from avatar.sync.offset import Offset, measure

NAME = "sync"
INPUTS: tuple[str, ...] = ("ingest", "track")
VERSION = 4

TOLERANCE = 0.040  # seconds; see above


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on."""
    return {"audio_delay_s": ctx.config.audio_delay_s, "audio": ctx.config.audio, "test_start": ctx.test_start}


def run(ctx: StageContext, out: Path) -> SyncResult:
    """Measure the delay, or take the user's; writes curve.npy [L, 2] (delay, z-score)."""
    if not ctx.config.audio:
        return SyncResult(has_audio=False, audio_delay_s=0.0)
    if ctx.config.audio_delay_s != "auto":
        return SyncResult(has_audio=True, audio_delay_s=float(ctx.config.audio_delay_s), given=True)
    fps = ctx.person.result(IngestResult).fps
    landmarks = np.array(ctx.person.landmarks(mapped=True)[..., :2])
    landmarks[~ctx.person.valid()] = np.nan
    samples, judge = load_audio(ctx.person.audio_path), SyncJudge.load()
    # Cut, not masked: filters and lags reach over the border, and what is held out must change nothing.
    measured = measure(judge, landmarks[: ctx.test_start], samples, fps)
    if whole := measured.undecided:
        measured = measure(judge, landmarks, samples, fps)
    save_array(out / "curve.npy", np.stack([measured.delays, measured.curve], 1).astype(np.float32))
    result = SyncResult(
        has_audio=True, audio_delay_s=applied_delay(measured, fps), trusted=measured.trusted, doubt=measured.doubt,
        measured_delay_s=round(measured.audio_delay_s, 5), z_score=round(measured.z_score, 3),
        stability=round(measured.stability, 3), whole=whole,
    )  # fmt: skip
    return result


def applied_delay(measured: Offset, fps: float) -> float:
    """The delay to correct in seconds: zero where it is uncertain or too small to matter."""
    if not measured.trusted or abs(measured.audio_delay_s) < TOLERANCE:
        return 0.0
    # Hundredths of a frame, which `PersonInfo.audio_delay_frames` gives back.
    return round(measured.audio_delay_s * fps, 2) / fps


def describe(sync: SyncResult, fps: float) -> str:
    """Say in a sentence what is done about the delay."""
    delay, size = 1000 * sync.audio_delay_s, f"{1000 * abs(sync.audio_delay_s):.0f} ms"
    if sync.given:
        return f"The delay of audio is taken to be {delay:+.0f} ms, as given."
    if not sync.trusted:
        why = f": {sync.doubt}" if sync.doubt else ""
        return (
            f"The delay between audio and video could not be measured{why}. They are taken to be in sync; if they are "
            "not, pass --audio-delay-s SECONDS."
        )
    if not delay:
        return "Audio and video are in sync."
    way = "after" if delay > 0 else "before"
    return f"Audio comes {way} video by {size} ({fps * abs(sync.audio_delay_s):.1f} frames); this is corrected."
