"""Training of a person's motion generator: all but the flow in closed form, the flow in seconds on one core."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar.device import cpu_threads
from avatar.headmotion.flow import (
    AHEAD,
    CONTEXT,
    WINDOW,
    FlowNet,
    Forecast,
    velocity,
)
from avatar.headmotion.normalizer import mirrored

STEPS = 120  # of a person; more of them learn the minute by heart
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 64, 2e-3, 0.05
_UNCONDITIONAL = 0.15  # of the windows are learnt without the speech
_AMPLITUDE = 0.15  # copies move so much more, or less


@dataclass(frozen=True)
class Windows:
    """Training windows.

    Attributes:
        z: [N, CONTEXT + WINDOW, C] spreads.
        response: [N, CONTEXT + WINDOW, C] the linear effect of speech on them.
        speech: [N, SPAN, SPEECH].
        order: [N] row at which the new part begins.
    """

    z: Tensor
    response: Tensor
    speech: Tensor
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: np.ndarray | slice) -> Windows:
        return Windows(self.z[index], self.response[index], self.speech[index], self.order[index])

    def split(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Context [N, CONTEXT, C] and what came next [N, WINDOW, C], without the response where ``known`` [N] is 1."""
        free = self.z - known[:, None, None] * self.response
        return free[:, :CONTEXT], free[:, CONTEXT:]


def windows_of(
    z: Tensor, response: Tensor, speech: Tensor, valid: Tensor, segments: Sequence[tuple[int, int]]
) -> Windows:
    """Every window without a cut or a gap in it.

    Args:
        z: [T, C] channels in spreads, at `RATE`.
        response: [T, C].
        speech: [T, SPEECH]; beyond the end the last row holds.
        valid: [T] what was measured.
        segments: [start, end) rows without a cut inside.
    """
    bad = np.r_[0, np.cumsum(~valid.numpy())]
    starts = [s for a, b in segments for s in range(a + CONTEXT, b - WINDOW + 1)
              if bad[s + WINDOW] - bad[s - CONTEXT] <= WINDOW // 5]  # fmt: skip
    order = np.array(starts, int)
    rows = torch.from_numpy(order)[:, None]
    inside = rows + torch.arange(-CONTEXT, WINDOW)
    nearby = (rows + torch.arange(-CONTEXT, WINDOW + AHEAD)).clamp(max=len(speech) - 1)
    return Windows(z[inside], response[inside], speech[nearby], order)


def fit_forecast(windows: Windows) -> Forecast:
    """The Gaussian of windows and of their mirror images, the response taken out."""
    context, target = windows.split(torch.ones(len(windows)))
    context, target = (torch.cat([part, mirrored(part)]) for part in (context, target))
    return Forecast.of(context, target, np.concatenate([windows.order] * 2))


def flow_loss(net: FlowNet, base: Forecast, windows: Windows, known: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Mean square error of the velocity; pi^2 / 4 for a zero network on a Gaussian.

    Args:
        net: The flow.
        base: The forecast it starts from.
        windows: B of them.
        known: [B] 1 with the speech, 0 without.
        noise: [B, K] standard normal.
        time: [B] 0 to 1.
    """
    context, target = windows.split(known)
    mean = base.mean(context) + base.trend
    data = base.whiten(mean, target)
    phase = torch.pi / 2 * time[:, None]
    u = phase.cos() * noise + phase.sin() * data
    wanted = torch.pi / 2 * (phase.cos() * data - phase.sin() * noise)
    return (velocity(net, base, context, windows.speech, known, mean, u, time) - wanted).square().mean()


def fit_flow(
    net: FlowNet, windows: Windows, base: Forecast, listens: bool, steps: int = STEPS, seed: int = 0
) -> FlowNet:
    """Fine-tune a copy of a flow; the same seed gives the same weights, whatever the number of threads.

    Args:
        net: Where to begin.
        windows: What to learn from.
        base: The Gaussian of them.
        listens: Whether there is audio to learn from.
        steps: Of the optimizer.
        seed: Of every random choice.
    """
    rng = np.random.default_rng(seed)
    with cpu_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = copy.deepcopy(net).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            batch = varied(windows[rng.integers(0, len(windows), _BATCH)], rng)
            known = torch.from_numpy((rng.random(_BATCH) >= (_UNCONDITIONAL if listens else 1)).astype(np.float32))
            loss = flow_loss(net, base, batch, known, torch.randn(_BATCH, len(base.size)), torch.rand(_BATCH))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return net.eval()


def varied(windows: Windows, rng: np.random.Generator) -> Windows:
    """Augment windows: half of them mirrored, all of them scaled a little."""
    flip = torch.from_numpy(rng.random(len(windows)) < 0.5)[:, None, None]
    scale = torch.from_numpy(rng.uniform(1 - _AMPLITUDE, 1 + _AMPLITUDE, (len(windows), 1, 1)).astype(np.float32))
    z, response = (scale * torch.where(flip, mirrored(v), v) for v in (windows.z, windows.response))
    return Windows(z, response, windows.speech, windows.order)
