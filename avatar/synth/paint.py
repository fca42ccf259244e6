"""The synthetic person's textures, all painted by rule: skin, brows, lips, irises, hair, knit, teeth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from avatar.geometry.smoothstep import smoothstep
from avatar.synth.shapes import BROWS, EYE_RING, LIDS, LIP_RINGS


@dataclass(frozen=True)
class Look:
    """Colours of a person, sRGB 0 to 1."""

    skin: tuple[float, float, float] = (0.87, 0.68, 0.57)
    lips: tuple[float, float, float] = (0.74, 0.36, 0.35)
    hair: tuple[float, float, float] = (0.25, 0.155, 0.10)
    iris: tuple[float, float, float] = (0.36, 0.47, 0.40)
    shirt: tuple[float, float, float] = (0.13, 0.36, 0.42)
    wall: tuple[float, float, float] = (0.72, 0.74, 0.76)

    @staticmethod
    def of(seed: int) -> Look:
        """Seed 0 is the person of the documentation."""
        looks = [
            Look(),
            Look(skin=(0.55, 0.38, 0.29), lips=(0.50, 0.24, 0.24), hair=(0.10, 0.07, 0.06), iris=(0.25, 0.15, 0.09),
                 shirt=(0.62, 0.38, 0.14), wall=(0.62, 0.68, 0.66)),
            Look(skin=(0.90, 0.74, 0.66), hair=(0.62, 0.44, 0.24), iris=(0.35, 0.50, 0.66), shirt=(0.45, 0.20, 0.28),
                 wall=(0.70, 0.69, 0.74)),
            Look(skin=(0.74, 0.54, 0.42), hair=(0.14, 0.10, 0.09), iris=(0.30, 0.20, 0.12), shirt=(0.30, 0.34, 0.55),
                 wall=(0.75, 0.72, 0.68)),
        ]  # fmt: skip
        return looks[seed % len(looks)]


def textures(look: Look, uv: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 RGB textures by name.

    Args:
        look: Colours.
        uv: [468, 2] texture coordinates of the face.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    return {
        "skin": _skin(look, uv, rng),
        "neck": _neck(look, rng),
        "hair": _hair(look, rng),
        "back_hair": np.full((16, 16, 3), 1, np.float32) * _rgb(look.hair) * 0.35,
        "shirt": _knit(look, rng),
        "eye": _eye(look, rng),
        "upper_teeth": _teeth(upper=True),
        "lower_teeth": _teeth(upper=False),
        "tongue": _tongue(rng),
        "socket": np.full((8, 8, 3), (0.66, 0.50, 0.47), np.float32),
        "cavity": np.full((8, 8, 3), (0.17, 0.05, 0.05), np.float32),
        "scalp": _scalp(look, rng),
        "ear": _ear(look, rng),
        "collar": _cloth(rng),
        "glasses": np.full((8, 8, 3), (0.07, 0.06, 0.06), np.float32),
    }


def _rgb(colour: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(colour, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float] | float) -> np.ndarray:
    """Smooth noise with unit standard deviation; ``scale`` in pixels."""
    sx, sy = (scale, scale) if isinstance(scale, (int, float)) else scale
    small = (max(2, int(np.ceil(shape[0] / sy)) + 2), max(2, int(np.ceil(shape[1] / sx)) + 2))
    field = cv2.resize(rng.standard_normal(small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field / max(float(field.std()), 1e-6)


def _blob(size: int, centre: np.ndarray, radius: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """Gaussian spot [size, size]; centre and radius in texture units."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    dx, dy = x - centre[0], y - centre[1]
    c, s = np.cos(angle), np.sin(angle)
    return np.exp(-(((c * dx + s * dy) / radius[0]) ** 2) - ((-s * dx + c * dy) / radius[1]) ** 2)


def _curve(points: np.ndarray, count: int) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return CubicSpline(length / length[-1], points)(np.linspace(0, 1, count))


def _mask(size: int, polygon: np.ndarray, blur: float) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * size * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur)


def _stroke(size: int, curve: np.ndarray, width: float, blur: float) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(
        mask, [np.round(curve * size * 16).astype(np.int32)], False, 255, max(1, round(width)), cv2.LINE_AA, 4
    )
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur)


def _blend(image: np.ndarray, colour: Sequence[float] | np.ndarray, mask: np.ndarray, strength: float = 1.0) -> None:
    image += (np.asarray(colour, np.float32) - image) * (mask[..., None] * strength)


def _skin(look: Look, uv: np.ndarray, rng: np.random.Generator, size: int = 1024) -> np.ndarray:
    skin = np.asarray(look.skin, np.float32)
    image = np.ones((size, size, 3), np.float32) * skin
    warm, deep = skin * (1.02, 0.80, 0.76), skin * (0.72, 0.56, 0.50)
    # large and small variation
    image *= 1 + 0.020 * _noise(rng, (size, size), 120)[..., None] * _rgb((0.6, 1.0, 1.1))
    image *= 1 + 0.012 * _noise(rng, (size, size), 14)[..., None] * _rgb((0.5, 1.0, 1.0))
    image *= 1 + 0.014 * _noise(rng, (size, size), 2.6)[..., None]
    for v, radius, amount in ((50, 0.085, 0.40), (280, 0.085, 0.40), (205, 0.06, 0.3), (425, 0.06, 0.3),
                              (4, 0.04, 0.45), (199, 0.05, 0.25), (9, 0.06, 0.15)):  # fmt: skip
        _blend(image, warm, _blob(size, uv[v], (radius, radius)), amount)
    _freckles(image, uv, deep, rng)

    for side, sign in (("Right", -1.0), ("Left", 1.0)):
        lids = {k: _curve(uv[list(v)], 60) for k, v in LIDS[side].items()}
        centre = uv[list(EYE_RING[side])].mean(0)
        inner = uv[LIDS[side]["upper"][-1]]
        brow_low = uv[BROWS[side][0][2]]
        _blend(image, deep, _blob(size, (centre * 0.6 + brow_low * 0.4), (0.075, 0.030)), 0.42)  # the socket
        _blend(image, deep * (1, 0.95, 1.0), _blob(size, inner + (-sign * 0.014, 0.0), (0.020, 0.035)), 0.40)
        _blend(image, deep, _blob(size, centre + (0, 0.058), (0.06, 0.014)), 0.14)  # below the eye
        crease = lids["upper"] + np.stack([np.zeros(60), -0.017 - 0.012 * np.sin(np.linspace(0, np.pi, 60))], 1)
        _blend(image, deep * 0.75, _stroke(size, crease[4:57], 3, 2.2), 0.9)
        _blend(image, (0.10, 0.06, 0.05), _stroke(size, lids["upper"][:57], 5, 1.6), 0.95)
        _blend(image, deep * 0.55, _stroke(size, lids["lower"][2:52], 3, 1.8), 0.65)
        _brow(image, look, [uv[list(edge)] for edge in BROWS[side]], sign, rng)

    # nose: wings, nostrils, light on the ridge
    for wing, hole, sign in ((98, 97, -1), (327, 326, 1)):
        _blend(image, deep, _blob(size, uv[wing] + (sign * 0.010, -0.008), (0.010, 0.022)), 0.45)
        nostril = uv[hole] * 0.55 + uv[wing] * 0.45 + (0, -0.010)
        _blend(image, (0.20, 0.08, 0.07), _blob(size, nostril, (0.0155, 0.0085), sign * 0.35), 0.95)
        _blend(
            image, deep * 0.9, _stroke(size, _curve(uv[[48, 64, 98] if sign < 0 else [278, 294, 327]], 20), 3, 3), 0.6
        )
        flank = uv[[193, 122, 198, 131] if sign < 0 else [417, 351, 420, 360]]
        _blend(image, deep, _stroke(size, _curve(flank, 30), 12, 9), 0.32)
    _blend(image, np.minimum(skin * 1.12, 1), _blob(size, uv[5], (0.011, 0.055)), 0.5)
    _blend(image, (1.0, 0.93, 0.88), _blob(size, uv[4] + (-0.003, -0.004), (0.011, 0.010)), 0.55)
    _blend(image, deep, _blob(size, uv[94], (0.022, 0.007)), 0.35)
    _blend(image, deep, _blob(size, uv[2] + (0, 0.004), (0.03, 0.008)), 0.30)
    for cheek, lip in ((203, 61), (423, 291)):  # fold between nose and mouth
        _blend(
            image, deep, _stroke(size, _curve(np.stack([uv[cheek], uv[cheek] * 0.4 + uv[lip] * 0.6]), 20), 5, 7), 0.35
        )
    _blend(image, deep, _blob(size, uv[18] + (0, 0.008), (0.055, 0.010)), 0.42)  # under the lower lip
    _blend(image, deep, _blob(size, uv[164], (0.008, 0.018)), 0.22)
    _lips(image, look, uv, rng)
    _blend(image, deep, np.clip(_edge(size, uv), 0, 1), 0.25)
    return image


def _edge(size: int, uv: np.ndarray) -> np.ndarray:
    from avatar.geometry.mesh import FACE_OVAL

    return 1 - _mask(size, uv[list(FACE_OVAL)] * 0.94 + uv[list(FACE_OVAL)].mean(0) * 0.06, 30)


def _freckles(image: np.ndarray, uv: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> None:
    size = len(image)
    mask = np.zeros((size, size), np.float32)
    for v, spread, count in ((50, 0.055, 70), (280, 0.055, 70), (5, 0.03, 40), (10, 0.1, 20), (152, 0.1, 12)):
        for x, y in rng.normal(uv[v], (spread, spread * 0.55), (count, 2)):
            centre = (int(x * size * 16), int(y * size * 16))
            cv2.circle(mask, centre, int(rng.uniform(14, 30)), float(rng.uniform(0.10, 0.34)), -1, cv2.LINE_AA, 4)
    _blend(image, colour * (1.05, 0.95, 0.8), cv2.GaussianBlur(mask, (0, 0), 1.0))


def _brow(image: np.ndarray, look: Look, edges: list[np.ndarray], sign: float, rng: np.random.Generator) -> None:
    """Single hairs between the lower and the upper edge, lying outwards, denser in the middle of the band."""
    size = len(image)
    low, high = (_curve(e, 200) for e in edges)
    t = np.linspace(0, 1, 200)[:, None]  # 0 at the tail, 1 at the inner end
    # a tapering band with an arch two thirds out, its inner end lowered to the lower edge
    middle = low * 0.45 + high * 0.55 + (high - low) * (0.30 * np.exp(-(((t - 0.38) / 0.28) ** 2)) - 0.30 * t**3)
    half = (high - low) * (0.10 + 0.26 * np.sin(np.pi * np.clip(0.12 + 0.75 * t, 0, 1)))
    low, high = middle - half, middle + half
    mask = np.zeros((size, size), np.uint8)
    for _ in range(420):
        s, h = rng.beta(1.15, 1.0), rng.beta(1.6, 1.6)
        k = int(np.clip(s, 0.0, 0.985) * 199)
        root = low[k] * (1 - h) + high[k] * h
        along = low[max(k - 12, 0)] - low[min(k + 12, 199)]
        along /= np.linalg.norm(along) + 1e-9
        up = (high[k] - low[k]) / (np.linalg.norm(high[k] - low[k]) + 1e-9)
        rise = 0.75 * s**3 + 0.15 - 0.5 * (h - 0.3)
        tip = root + (along + up * rise) * rng.uniform(0.009, 0.018)
        bend = (root + tip) / 2 + up * 0.0012
        hair = np.round(np.stack([root, bend, tip]) * size * 16).astype(np.int32)
        cv2.polylines(mask, [hair], False, int(rng.uniform(120, 235)), 1, cv2.LINE_AA, 4)
    soft = _mask(size, np.concatenate([low, high[::-1]]), 5) * 0.45
    strokes = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.7)
    _blend(image, np.asarray(look.hair) * 0.75, np.clip(soft + strokes, 0, 1), 0.92)


def _lips(image: np.ndarray, look: Look, uv: np.ndarray, rng: np.random.Generator) -> None:
    size = len(image)
    colour = np.asarray(look.lips, np.float32)
    for name, light in (("upper", 0.92), ("lower", 1.06)):
        outer, inner = (_curve(uv[list(LIP_RINGS[name][k])], 80) for k in (0, 3))
        mask = _mask(size, np.concatenate([outer, inner[::-1]]), 3.0)
        creases = _noise(rng, (size, size), (3.0, 40.0)) * 0.055 + _noise(rng, (size, size), 3) * 0.02
        shade = light * (1 + creases)[..., None]
        image += (colour * shade - image) * (mask * 0.86)[..., None]
        middle = (outer * 0.5 + inner * 0.5)[20:60]
        _blend(image, np.minimum(colour * 1.35 + 0.10, 1), _stroke(size, middle, 6 if name == "lower" else 3, 6), 0.38)
        _blend(image, colour * 0.45, _stroke(size, inner, 3, 2.0), 0.75)
        if name == "upper":
            _blend(
                image, np.minimum(np.asarray(look.skin) * 1.1, 1), _stroke(size, outer[15:65] + (0, -0.006), 3, 3), 0.35
            )
    for corner in (61, 291):
        _blend(image, colour * 0.45, _blob(size, uv[corner], (0.010, 0.007)), 0.6)


def _neck(look: Look, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    image = np.ones((size, size, 3), np.float32) * np.asarray(look.skin, np.float32)
    v = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    u = np.linspace(-1, 1, size, dtype=np.float32)[None]
    shadow = 0.50 * (1 - smoothstep(v, 0.25, 0.78)) * np.exp(-((u / 0.8) ** 4)) + 0.25 * np.abs(u) ** 2
    image *= 1 - shadow[..., None] * _rgb((0.75, 1.0, 1.05))
    image *= 1 + 0.012 * _noise(rng, (size, size), 3)[..., None]
    tendon = np.exp(-(((np.abs(u) - 0.10 - 0.28 * (1 - v)) / 0.05) ** 2)) * smoothstep(v, 0.45, 0.8)
    return image * (1 + 0.05 * tendon[..., None]) * (1 - 0.25 * smoothstep(v, 0.9, 1.0))[..., None]


def _hair(look: Look, rng: np.random.Generator) -> np.ndarray:
    height, width = 1024, 1024
    fine = _noise(rng, (height, width), (1.6, 260.0))
    lock = _noise(rng, (height, width), (14.0, 500.0))
    broad = _noise(rng, (height, width), (60.0, 700.0))
    tone = 1 + 0.20 * fine + 0.20 * lock + 0.12 * broad
    base = np.asarray(look.hair, np.float32)
    image = base * np.clip(tone, 0.25, 2.2)[..., None]
    bright = np.clip(fine * 0.5 + lock * 0.6 - 0.7, 0, 2)[..., None]
    image = image + bright * base * _rgb((0.55, 0.50, 0.42))
    v = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.clip(image * (0.70 + 0.45 * smoothstep(v, 0.0, 0.12)) * (1 + 0.25 * smoothstep(v, 0.5, 1.0)), 0, 1)


def _knit(look: Look, rng: np.random.Generator, size: int = 1024) -> np.ndarray:
    """A knitted jumper with lighter stripes and a ribbed collar."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    period = 12.0
    column = x / period
    stitch = np.abs(((column % 1) - 0.5) * 2)
    rows = (y / 10.0 + 0.55 * stitch) % 1
    weave = 0.80 + 0.20 * np.sin(np.pi * rows) * (0.55 + 0.45 * np.sin(np.pi * (column % 1)))
    base = np.ones((size, size, 3), np.float32) * np.asarray(look.shirt, np.float32)
    v = y / size
    stripe = ((v * 9.0 + 0.15) % 1 < 0.30) & (v > 0.16)
    base[stripe] = np.asarray(look.shirt, np.float32) * 0.35 + _rgb((0.93, 0.90, 0.84)) * 0.65
    collar = v < 0.055
    weave = np.where(collar, 0.82 + 0.18 * np.abs(np.sin(np.pi * x / 9.0)), weave)
    weave = np.where(np.abs(v - 0.055) < 0.004, 0.55, weave)
    image = base * weave[..., None] * (1 + 0.05 * _noise(rng, (size, size), 60)[..., None])
    image *= 1 + 0.05 * rng.standard_normal((size, size, 1)).astype(np.float32)
    return np.clip(image, 0, 1)


def _eye(look: Look, rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """View of an eyeball from the front; its outline is the unit circle."""
    from avatar.synth.body import EYE_RADIUS, IRIS_RADIUS

    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size * 2 - 1
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    image = np.ones((size, size, 3), np.float32) * _rgb((0.93, 0.90, 0.88))
    image *= (1 - 0.30 * smoothstep(r, 0.45, 1.0))[..., None]
    image[..., 1:] *= (1 - 0.10 * smoothstep(r, 0.5, 0.95))[..., None]
    iris = IRIS_RADIUS / EYE_RADIUS
    rho = r / iris
    spokes = np.interp(
        phi, np.linspace(-np.pi, np.pi, 181), np.convolve(rng.standard_normal(183), [0.25, 0.5, 0.25])[1:182]
    )
    colour = np.asarray(look.iris, np.float32) * (
        1 + 0.28 * spokes[..., None] * np.clip(1.2 - np.abs(rho - 0.6), 0, 1)[..., None]
    )
    colour = colour * (0.65 + 0.75 * np.exp(-(((rho - 0.55) / 0.25) ** 2)))[..., None]
    colour = colour + _rgb((0.22, 0.12, 0.03)) * np.exp(-(((rho - 0.48) / 0.12) ** 2))[..., None]
    colour *= (1 - 0.75 * smoothstep(rho, 0.80, 1.02))[..., None]
    inside = 1 - smoothstep(rho, 0.97, 1.06)
    image += (colour - image) * inside[..., None]
    image *= smoothstep(rho, 0.36, 0.43)[..., None] * 0.97 + 0.03
    return np.clip(image, 0, 1)


def _teeth(upper: bool, width: int = 512, height: int = 96) -> np.ndarray:
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    widths = (
        np.array([0.17, 0.135, 0.15, 0.14, 0.14, 0.15]) if upper else np.array([0.10, 0.115, 0.13, 0.14, 0.16, 0.18])
    )
    borders = np.concatenate([[0], np.cumsum(widths)])
    image = np.ones((height, width, 3), np.float32) * _rgb((0.93, 0.90, 0.84))
    distance = np.abs(np.abs(x)[..., None] - borders).min(-1)
    image *= (1 - 0.38 * np.exp(-((distance / 0.010) ** 2)))[..., None]
    image *= (1 - 0.55 * smoothstep(np.abs(x), 0.25, 1.0))[..., None]
    gum = 1 - smoothstep(y, 0.12, 0.30)
    image += (_rgb((0.66, 0.34, 0.34)) - image) * gum[..., None]
    return image * (1 - 0.22 * (1 - y))[..., None] * (1.0 if upper else 0.82)


def _tongue(rng: np.random.Generator, size: int = 128) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    image = np.ones((size, size, 3), np.float32) * _rgb((0.66, 0.30, 0.30))
    image *= (1 + 0.05 * _noise(rng, (size, size), 3) - 0.18 * np.exp(-(((x - 0.5) / 0.05) ** 2)))[..., None]
    return image * (1 - 0.65 * smoothstep(y, 0.1, 0.9))[..., None]


def _scalp(look: Look, rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """Skin behind the ears and of the nape."""
    image = np.ones((size, size, 3), np.float32) * _rgb(look.skin) * _rgb((0.93, 0.89, 0.88))
    return image * (1 + 0.014 * _noise(rng, (size, size), 3)[..., None])


def _ear(look: Look, rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """Rows from the middle of an ear to its rim and on to its back; redder and darker in the hollow."""
    v = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    hollow = 0.55 * (1 - smoothstep(v, 0.05, 0.45)) + 0.22 * np.exp(-(((v - 0.56) / 0.06) ** 2))
    image = np.ones((size, size, 3), np.float32) * _rgb(look.skin) * _rgb((1.0, 0.92, 0.90))
    image *= 1 - hollow[..., None] * _rgb((0.55, 0.75, 0.78))
    return image * (1 + 0.012 * _noise(rng, (size, size), 3)[..., None])


def _cloth(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """White shirt cloth with a seam along its edge."""
    v = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    image = np.ones((size, size, 3), np.float32) * _rgb((0.90, 0.91, 0.93))
    image *= 1 - 0.10 * np.exp(-(((v - 0.93) / 0.008) ** 2))[..., None]
    return image * (1 + 0.010 * _noise(rng, (size, size), 2)[..., None])
