"""LPIPS against a numpy implementation written from the paper, and as a loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.losses.lpips import LAYERS, LPIPS


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    channels = 3
    for i, (out, kernel, *_) in enumerate(LAYERS):
        fan = channels * kernel * kernel
        weights[f"features.Conv_{i}.weight"] = (
            torch.randn(out, channels, kernel, kernel, generator=generator) / fan**0.5
        )
        weights[f"features.Conv_{i}.bias"] = 0.1 * torch.randn(out, generator=generator)
        weights[f"lin{i}.weight"] = torch.rand(1, out, 1, 1, generator=generator)
        channels = out
    return weights


def real_weights() -> Path:
    folder = os.environ.get("AVATAR_ASSETS")
    path = Path(folder or "", "lpips_alex.safetensors")
    if not folder or not path.is_file():
        pytest.skip("AVATAR_ASSETS with lpips_alex.safetensors is not set")
    return path


def numpy_lpips(a: np.ndarray, b: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    """The definition, for pictures [H, W, 3] in 0..1, in float64 and without torch."""

    def conv(x: np.ndarray, w: np.ndarray, bias: np.ndarray, stride: int, pad: int) -> np.ndarray:
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
        return np.einsum("chwij,ocij->ohw", windows, w, optimize=True) + bias[:, None, None]

    def pool(x: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((3, 4))

    def features(x: np.ndarray) -> list[np.ndarray]:
        x = x.transpose(2, 0, 1).astype(np.float64) * 2 - 1
        x = (x - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[:, None, None]
        out = []
        for i, (stride, pad) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
            x = pool(x) if i in (1, 2) else x
            w, bias = weights[f"features.Conv_{i}.weight"], weights[f"features.Conv_{i}.bias"]
            x = np.maximum(conv(x, w.astype(np.float64), bias.astype(np.float64), stride, pad), 0)
            out.append(x)
        return out

    total = 0.0
    for i, (fa, fb) in enumerate(zip(features(a), features(b), strict=True)):
        fa = fa / (np.sqrt((fa**2).sum(0)) + 1e-10)
        fb = fb / (np.sqrt((fb**2).sum(0)) + 1e-10)
        total += float(((fa - fb) ** 2 * weights[f"lin{i}.weight"].reshape(-1, 1, 1)).sum(0).mean())
    return total


def pictures() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:72, :64] / 64
    a = np.stack([0.5 + 0.5 * np.sin(9 * x), y / 1.2, np.hypot(x - 0.5, y - 0.5)], -1).astype(np.float32)
    return a, np.roll(a, 5, 1) * 0.8


@pytest.mark.parametrize("kind", ["random", "real"])
def test_equals_the_definition(kind: str) -> None:
    network = LPIPS(random_weights()) if kind == "random" else LPIPS.load(real_weights())
    weights = {
        f"features.Conv_{i}.{n}": getattr(network, f"{n}{i}").numpy() for i in range(5) for n in ("weight", "bias")
    }
    weights |= {f"lin{i}.weight": getattr(network, f"head{i}").numpy() for i in range(5)}
    a, b = pictures()
    measured = network(torch.from_numpy(a), torch.from_numpy(b))
    assert measured.shape == ()
    assert float(measured) == pytest.approx(numpy_lpips(a, b, weights), rel=1e-4)


def test_real_network_orders_distortions() -> None:
    network = LPIPS.load(real_weights())
    a, _ = (torch.from_numpy(p) for p in pictures())
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    distances = [float(network(a, (a + s * noise).clamp(0, 1))) for s in (0.0, 0.02, 0.1, 0.4)]
    assert distances[0] == 0
    assert distances == sorted(distances) and distances[-1] > 0.3


def test_batch_symmetry_and_order_of_channels() -> None:
    network = LPIPS(random_weights())
    a, b = (torch.from_numpy(p) for p in pictures())
    both = network(torch.stack([a, b, a]), torch.stack([b, a, a]))
    torch.testing.assert_close(both, torch.stack([network(a, b), network(a, b), torch.zeros(())]), rtol=1e-4, atol=1e-6)
    assert float(network(a.flip(-1), b.flip(-1))) != pytest.approx(float(both[0]), rel=1e-3)


def test_as_a_loss_it_pulls_the_picture_and_never_makes_nan() -> None:
    network = LPIPS(random_weights())
    target = torch.zeros(40, 40, 3)
    image = torch.full((40, 40, 3), 0.5, requires_grad=True)
    before = network(image, target)
    before.backward()
    assert image.grad is not None and bool(torch.isfinite(image.grad).all())
    with torch.no_grad():
        image -= 1e-3 * image.grad / image.grad.abs().max()
    assert network(image, target).item() < before.item()
    dead = {k: torch.zeros_like(v) for k, v in random_weights().items()}
    image.grad = None
    LPIPS(dead)(image, target).backward()
    assert image.grad is not None and bool(torch.isfinite(image.grad).all())


def test_bad_file_and_small_pictures(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(1)}, str(tmp_path / "w.safetensors"))
    with pytest.raises(AvatarError, match="LPIPS"):
        LPIPS.load(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="31"):
        LPIPS(random_weights())(torch.zeros(20, 40, 3), torch.zeros(20, 40, 3))
