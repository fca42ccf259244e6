"""Measure an avatar on the held-out part of its video, or on novel audio; docs/evaluation.md defines every metric."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.eval.options import EvalOptions

GROUPS = {
    "measurement": ("words", "ablations", "views", "truth"),
    "output": ("json", "report"),
    "input": ("person",),
    "hardware": ("renderer", "device"),
}


@dataclass(frozen=True, kw_only=True)
class Config(EvalOptions):
    """Measure an avatar on held-out frames, or on novel audio."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""


def main(config: Config) -> None:
    """Measure, write the JSON, the report and the videos, and print tables.

    Raises:
        AvatarError: See `avatar.eval.run.evaluate`.
    """
    from avatar.data.bundle import refuse_bundle
    from avatar.eval import report
    from avatar.eval.run import evaluate

    refuse_bundle(config.run, "Measuring")
    options = EvalOptions(**{field.name: getattr(config, field.name) for field in fields(EvalOptions)})
    report.show(*evaluate(config.run, options))
    log.next_command(
        f"avatar render {log.word(config.run)} --audio SPEECH.wav --out {log.word(config.run / 'speech.mp4')}"
    )
