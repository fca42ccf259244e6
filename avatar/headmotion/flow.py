"""One second of motion from what went before and what is heard: response, forecast, and a flow that makes it a sample.

What the sound alone says about where head, eyes and brows are is a linear :class:`Response`: it adds to the motion and
never adds up, so that a long silence moves nobody away. What remains is first written as a Gaussian, the
:class:`Forecast`: mean and covariance of the next second given the seconds before. In its whitened
coordinates ``u`` a flow takes noise to motion (Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023) along
the trigonometric interpolant

    u(t) = cos(pi t / 2) noise + sin(pi t / 2) data

of Albergo and Vanden-Eijnden ("Building Normalizing Flows with Stochastic Interpolants", ICLR 2023). With it the flow
of a standard normal to itself stands still: a network that has learnt nothing leaves the Gaussian as it is, for any
number of steps, and what it learns are departures from it. No jump is possible where a second begins: the uncertainty
of a displacement vanishes there.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avatar.errors import AvatarError
from avatar.headmotion.normalizer import CHANNELS
from avatar.io.arrays import load_state
from avatar.io.checkpoint import load_tensors, save_tensors

FORMAT = "avatar-motion-flow-1"
WEIGHTS = Path(__file__).with_name("generator.safetensors")
RATE = 25.0  # rows per second inside, whatever the avatar's rate is
CONTEXT, WINDOW, AHEAD = 40, 25, 15  # rows known before, rows made, rows of sound after
PATCH = 5  # rows per token
SPEECH = 2  # loudness and voice activity
HEARD = CONTEXT + WINDOW + AHEAD
_REACH = 4  # rows on each side that a tap of the response averages
BEFORE = 25  # rows of sound before a row that it responds to; `AHEAD` after
TAPS = SPEECH * ((BEFORE + AHEAD - 2 * _REACH) // PATCH + 1)  # numbers that a response is made from
STEPS = 4  # of Heun's method: eight evaluations
_SIZE = len(CHANNELS)
_WIDTH, _LAYERS, _HEADS, _DROPOUT = 32, 2, 4, 0.2
_KEPT, _MODES = 0.9999, 200  # share of the variance, and dimensions at most
_PERSISTENCE = 0.8  # of velocity, per row
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
_RESPONSE_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
_FOLDS = 5
_APART = 0.3  # how much of the covariance between different channels is not believed


class Response:
    """What the sound around a row says about it, linearly.

    Args:
        weights: [n, C] for n smoothed taps of the sound.
        middle: [n] what the taps usually are: there the response is zero.
    """

    def __init__(self, weights: Tensor, middle: Tensor) -> None:
        self.weights, self.middle = weights, middle

    @staticmethod
    def of(z: Tensor, speech: Tensor) -> Response:
        """Fit it; how strongly it is held back is chosen for each channel on fifths that are left out.

        Args:
            z: [T, C] channels in spreads.
            speech: [T, SPEECH].
        """
        x = _taps(around(speech)).double()
        middle = x.mean(0)
        x, y = x - middle, z.double()
        folds = np.linspace(0, len(x), _FOLDS + 1).astype(int)
        index = np.arange(len(x))

        def solve(chosen: np.ndarray, ridge: float) -> Tensor:
            seen = x[chosen]
            return torch.linalg.solve(
                seen.T @ seen + ridge * len(seen) * torch.eye(x.shape[1], dtype=x.dtype), seen.T @ y[chosen]
            )

        def missed(ridge: float) -> Tensor:
            parts = []
            for a, b in itertools.pairwise(folds):
                rest = (index < a - CONTEXT) | (index >= b + CONTEXT)
                parts.append(y[a:b] - x[a:b] @ solve(rest, ridge) if rest.any() else y[a:b])
            return torch.cat(parts).square().mean(0)

        choices = [solve(index >= 0, ridge) for ridge in _RESPONSE_RIDGES]
        errors = torch.stack([y.square().mean(0), *(missed(ridge) for ridge in _RESPONSE_RIDGES)])
        best = errors.argmin(0)
        weights = torch.stack([torch.zeros_like(choices[0]), *choices])[best, :, torch.arange(_SIZE)].T
        return Response(weights.float(), middle.float())

    def __call__(self, speech: Tensor) -> Tensor:
        """[T, C] for speech [BEFORE + T + AHEAD, SPEECH]."""
        return (_taps(speech) - self.middle) @ self.weights


def around(speech: Tensor) -> Tensor:
    """[BEFORE + T + AHEAD, SPEECH] of speech [T, SPEECH]: before and after it what it begins and ends with."""
    return torch.cat([speech[:1].expand(BEFORE, -1), speech, speech[-1:].expand(AHEAD, -1)])


def _taps(speech: Tensor) -> Tensor:
    """[T, n] Hann-weighted means of 0.3 s of speech [BEFORE + T + AHEAD, SPEECH], every 0.2 s about each row."""
    window = torch.hann_window(2 * _REACH + 1, periodic=False)[None, None]
    smooth = torch.nn.functional.conv1d(speech.T[:, None], window / window.sum())[:, 0].T
    count = len(speech) - BEFORE - AHEAD
    return torch.cat([smooth[i : i + count] for i in range(0, BEFORE + AHEAD - 2 * _REACH + 1, PATCH)], 1)


def summary(context: Tensor) -> Tensor:
    """[B, 5 C] of context [B, CONTEXT, C]: place, velocity, acceleration, and where the last moments were."""
    last, velocity = context[:, -1], context[:, -1] - context[:, -2]
    before = context[:, -2] - context[:, -3]
    return torch.cat([last, velocity, velocity - before, context[:, -10:].mean(1) - last, context.mean(1) - last], 1)


def onwards(context: Tensor) -> Tensor:
    """[B, WINDOW, C] where the last velocity leads as it dies away: what a forecast corrects."""
    steps = (_PERSISTENCE ** torch.arange(1, WINDOW + 1)).cumsum(0)[:, None]
    return context[:, -1:] + steps * (context[:, -1:] - context[:, -2:-1])


@dataclass(frozen=True)
class Forecast:
    """The Gaussian of the next second.

    Attributes:
        scale: [5 C] spreads of the `summary`.
        weights: [5 C, WINDOW * C] mean displacement from `onwards`; somebody at rest stays there.
        trend: [WINDOW, C] what the windows that it was fitted to do beside that, on average. A video of short sentences
            holds more of their ends than of their beginnings: true of these windows, but second after second it would
            lead away.
        modes: [K, WINDOW * C] directions of what is uncertain, orthonormal; ``size`` [K] standard deviation along them.
    """

    scale: Tensor
    weights: Tensor
    trend: Tensor
    modes: Tensor
    size: Tensor

    @staticmethod
    def of(context: Tensor, target: Tensor, order: np.ndarray) -> Forecast:
        """Fit it.

        Args:
            context: [B, CONTEXT, C].
            target: [B, WINDOW, C] what came next.
            order: [B] when each was, in rows: what lies together is left out together to choose the ridge.
        """
        x = summary(context)
        scale = x.std(0) + 0.01
        x = torch.cat([x / scale, torch.ones(len(x), 1)], 1).double()
        y = (target - onwards(context)).flatten(1).double()
        edges = np.quantile(order, np.linspace(0, 1, _FOLDS + 1))
        edges[-1] += 1

        def solve(chosen: np.ndarray, ridge: float) -> Tensor:
            seen = x[chosen]
            hold = torch.full((x.shape[1],), ridge * len(seen), dtype=x.dtype)
            hold[-1] = 1e-6
            return torch.linalg.solve(seen.T @ seen + torch.diag(hold), seen.T @ y[chosen])

        def missed(ridge: float) -> float:
            total = 0.0
            for low, high in itertools.pairwise(edges):
                out = (order >= low) & (order < high)
                rest = (order < low - CONTEXT) | (order >= high + CONTEXT)
                total += float((y[out] - x[out] @ solve(rest if rest.any() else ~out, ridge)).square().sum())
            return total

        weights = solve(order == order, min(_RIDGES, key=missed))
        rest = y - x @ weights
        covariance = (rest.T @ rest / len(rest)).reshape(WINDOW, _SIZE, WINDOW, _SIZE)
        same = torch.eye(_SIZE, dtype=x.dtype)[None, :, None, :]
        covariance = covariance * (same + (1 - _APART) * (1 - same))
        power, modes = torch.linalg.eigh(covariance.reshape(WINDOW * _SIZE, WINDOW * _SIZE))
        power, modes = power.flip(0).clamp(min=1e-9), modes.flip(1)
        count = min(_MODES, int((power.cumsum(0) / power.sum() < _KEPT).sum()) + 1)
        return Forecast(
            scale=scale, weights=weights[:-1].float(), trend=weights[-1].float().unflatten(0, (WINDOW, _SIZE)),
            modes=modes[:, :count].T.float().contiguous(), size=power[:count].sqrt().float(),
        )  # fmt: skip

    def mean(self, context: Tensor) -> Tensor:
        """[B, WINDOW, C] after context [B, CONTEXT, C]."""
        moved = (summary(context) / self.scale) @ self.weights
        return onwards(context) + moved.unflatten(1, (WINDOW, _SIZE))

    def sample(self, mean: Tensor, u: Tensor) -> Tensor:
        """[B, WINDOW, C] at whitened coordinates u [B, K]."""
        return mean + ((u * self.size) @ self.modes).unflatten(1, (WINDOW, _SIZE))

    def whiten(self, mean: Tensor, target: Tensor) -> Tensor:
        """[B, K] the coordinates of ``target``."""
        return (target - mean).flatten(1) @ self.modes.T / self.size


class FlowNet(nn.Module):
    """A transformer over tokens of 0.2 s: velocity of the flow, in the frames' own space.

    How much moves, before and in the sample as it is, says more about what comes than where to: tokens hold its
    logarithm, and the network answers with a gain on the sample beside a shift.
    """

    def __init__(self) -> None:
        super().__init__()
        width = _WIDTH
        self.past = nn.Linear(PATCH * (_SIZE + SPEECH) + _SIZE + 1, width)
        self.now = nn.Linear(PATCH * (2 * _SIZE + SPEECH) + _SIZE + 1, width)
        self.later = nn.Linear(PATCH * SPEECH + 1, width)
        self.time = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Parameter(0.02 * torch.randn(HEARD // PATCH, width))
        layer = nn.TransformerEncoderLayer(
            width, _HEADS, 2 * width, dropout=_DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, _LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, _SIZE + PATCH * _SIZE)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, context: Tensor, speech: Tensor, known: Tensor, now: Tensor, whitened: Tensor, time: Tensor
    ) -> Tensor:
        """Velocity [B, WINDOW, C].

        Args:
            context: [B, CONTEXT, C].
            speech: [B, HEARD, SPEECH].
            known: [B] 1 where the sound is to be listened to, 0 where not.
            now: [B, WINDOW, C] the sample as it is.
            whitened: [B, WINDOW, C] its whitened coordinates in the frames' space.
            time: [B] of the flow, 0 to 1.
        """
        listened = known[:, None, None]
        sound = (speech * listened).unflatten(1, (-1, PATCH)).flatten(2)
        sound = torch.cat([sound, listened.expand(-1, sound.shape[1], -1)], 2)
        past, present, later = sound.split([n // PATCH for n in (CONTEXT, WINDOW, AHEAD)], 1)

        def patches(rows: Tensor) -> Tensor:
            return rows.unflatten(1, (-1, PATCH)).flatten(2)

        def amount(rows: Tensor, least: float) -> Tensor:
            return (rows.unflatten(1, (-1, PATCH)).square().mean(2) + least).log()

        speed = context.diff(dim=1, prepend=context[:, :1])
        x = torch.cat(
            [
                self.past(torch.cat([patches(context), 0.3 * amount(speed, 1e-4), past], 2)),
                self.now(torch.cat([patches(torch.cat([now, whitened], 2)), amount(whitened, 1e-2), present], 2)),
                self.later(later),
            ],
            1,
        )
        phase = time[:, None] * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])
        x = x + self.place + self.time(torch.cat([phase.sin(), phase.cos()], 1))[:, None]
        first = CONTEXT // PATCH
        gain, shift = self.out(self.body(x)[:, first : first + WINDOW // PATCH]).split([_SIZE, PATCH * _SIZE], 2)
        gain = gain.repeat_interleave(PATCH, 1)
        return gain * whitened + shift.unflatten(2, (PATCH, _SIZE)).flatten(1, 2)


def save_flow(net: FlowNet, path: Path, about: dict[str, Any]) -> None:
    """Write shared weights; ``about`` says what they were learnt from."""
    save_tensors(path, net.state_dict(), {"format": FORMAT, "about": about})


def shared_flow(path: Path = WEIGHTS) -> FlowNet:
    """The weights that come with the package, from which a person's are learnt.

    Raises:
        AvatarError: The file is missing, damaged, or of something else.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise AvatarError(f"{path} is not a flow of motion.", why=f"Its format is {metadata.get('format')!r}.")
    net = FlowNet()
    load_state(net, tensors, path)
    return net.eval()


def velocity(
    net: FlowNet, base: Forecast, context: Tensor, speech: Tensor, known: Tensor, mean: Tensor, u: Tensor, time: Tensor
) -> Tensor:
    """[B, K] where the flow takes whitened coordinates ``u`` [B, K] at ``time`` [B]; see :class:`FlowNet`."""
    whitened = (u @ base.modes).unflatten(1, (WINDOW, _SIZE))
    return net(context, speech, known, base.sample(mean, u), whitened, time).flatten(1) @ base.modes.T


@torch.no_grad()
def sample(net: FlowNet, base: Forecast, context: Tensor, speech: Tensor, noise: Tensor, guidance: float) -> Tensor:
    """The next second [WINDOW, C], without the response: the flow's equation by Heun's method.

    Classifier-free guidance (Ho and Salimans, 2022): what the sound adds counts ``guidance`` times.

    Args:
        net: The flow.
        base: The forecast that it starts from.
        context: [CONTEXT, C] without the response.
        speech: [HEARD, SPEECH].
        noise: [K] standard normal for a sample; zeros for the calmest one.
        guidance: 0 does not listen, 1 is as learnt.
    """
    pair = context.expand(2, -1, -1), speech.expand(2, -1, -1), torch.tensor([0.0, 1.0])
    mean = base.mean(context[None])

    def push(u: Tensor, time: float) -> Tensor:
        flow = velocity(net, base, *pair, mean.expand(2, -1, -1), u.expand(2, -1), torch.full((2,), time))
        return torch.lerp(flow[0], flow[1], guidance)

    u, step = noise, 1 / STEPS
    for i in range(STEPS):
        first = push(u, i * step)
        u = u + step / 2 * (first + push(u + step * first, (i + 1) * step))
    return base.sample(mean, u[None])[0]
