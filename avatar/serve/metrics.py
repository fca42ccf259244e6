"""What the service counts and times, as Prometheus text."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping

import numpy as np

KEPT = 1024  # newest values of a stage, of which the percentiles are computed
QUANTILES = (0.5, 0.95)
STAGES = {
    "take": "Seconds to take a frame's audio and lips from the queue, speech network included",
    "draw": "Seconds to render a frame",
    "encode": "Seconds to encode a frame",
    "out": "Seconds from the time of a frame to the moment its image is handed to the network",
    "shown": "Seconds from the time of a frame to the page that shows it, as pages report it",
    "agent": "Seconds from the end of a turn to the first words of the agent's answer",
    "audio_delay": "Seconds by which audio comes after its image on the page (> 0: audio after video)",
}
COUNTERS = {
    "sessions_total": "Listeners that were let in",
    "refused_total": "Requests that were refused",
    "frames_total": "Frames whose audio was sent",
    "images_total": "Images that were sent",
    "images_skipped_total": "Images that were left out because rendering or the network was too slow",
    "slow_listeners_total": "Listeners that were let go because they read too slowly",
    "interruptions_total": "Interruptions",
    "agent_failures_total": "Turns that the agent did not answer, or not to the end",
}
GAUGES = {
    "sessions": "Listeners now",
    "queued_audio_seconds": "Seconds of audio that wait to be spoken, of all listeners",
    "queued_images": "Images that wait to be sent, of all listeners",
}


class Metrics:
    """Counters, gauges and times of stages; may be used from any thread, and its memory is bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self._gauges: dict[str, float] = dict.fromkeys(GAUGES, 0)
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def count(self, name: str, more: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += more

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name] = value

    def time(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        with self._lock:
            self._seconds[stage].append(seconds)

    def value(self, name: str) -> float:
        """A counter or a gauge."""
        with self._lock:
            return self._counts[name] if name in self._counts else self._gauges[name]

    def quantile(self, stage: str, share: float) -> float:
        """A percentile of a stage's newest times, seconds; NaN where it never ran."""
        with self._lock:
            values = list(self._seconds[stage])
        return float(np.quantile(values, share)) if values else float("nan")

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        lines: list[str] = []
        for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge")):
            for name, about in names.items():
                lines += [f"# HELP avatar_{name} {about}.", f"# TYPE avatar_{name} {kind}"]
                lines += [f"avatar_{name} {self.value(name):.10g}"]
        lines += ["# HELP avatar_stage_seconds Seconds of a stage.", "# TYPE avatar_stage_seconds gauge"]
        lines += [f"# {stage}: {about}." for stage, about in STAGES.items()]
        for stage in STAGES:
            for share in QUANTILES:
                value = self.quantile(stage, share)
                if value == value:
                    lines.append(f'avatar_stage_seconds{{stage="{stage}",quantile="{share:g}"}} {value:.6f}')
        return "\n".join(lines) + "\n"


def merged(texts: Mapping[str, str]) -> str:
    """Join Prometheus texts into one, in which each value has the name of its text as the label ``replica``.

    Args:
        texts: What `Metrics.text` gives, by name.
    """
    heads: dict[str, list[str]] = {}  # by metric: what is said about it, and its values
    values: dict[str, list[str]] = {}
    for name, text in texts.items():
        metric = ""
        for line in text.splitlines():
            if line.startswith("#"):
                if line.startswith("# HELP "):
                    metric = line.split()[2]
                said = heads.setdefault(metric, [])
                said += [line] if line not in said else []
            elif line:
                label, value = line.rsplit(" ", 1)
                plain, _, rest = label.partition("{")
                label = f'{plain}{{replica="{name}"' + (f",{rest}" if rest else "}")
                values.setdefault(plain, []).append(f"{label} {value}")
    return "".join(f"{line}\n" for metric, said in heads.items() for line in [*said, *values.get(metric, ())])
