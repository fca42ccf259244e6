"""Colours of a video as SDR BT.709: high dynamic range is tone mapped, other primaries are converted.

The standards' own numbers: the display light of HLG and PQ is computed as BT.2100 says, its reference white of
203 cd/m2 (BT.2408) becomes the white of SDR, and what is brighter is rolled off. One table of three dimensions holds
it all, so that a frame costs one interpolated look-up per pixel.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

# Numbers of H.273 (as FFmpeg's enums).
UNTAGGED = 2
PQ, HLG = 16, 18
BT709, BT2020 = 1, 9
_GAMMA = 2.4  # of SDR displays, BT.1886
WHITE = 203.0  # cd/m2, reference white of HDR, BT.2408
DARK_WHITE = 100.0  # where the white of SDR (BT.1886) was put by converters that leave out BT.2408
_DARK_PEAKS = 97.0, 112.0  # cd/m2 that a thousandth of such a recording exceeds
_DARK_TOP = 130.0  # cd/m2 that hardly a pixel of any of its frames exceeds
_CLIPPED = 0.82  # of that light is exceeded by a hundredth: white was clipped there, and is not merely dim
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # cd/m2 of the nominal display, and its system gamma, BT.2100
_SHOULDER = 0.95  # of the SDR signal: what is brighter is compressed
_NODES = 49  # of the table, per side
_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
# Chromaticities of red, green, blue and white, H.273. Those of BT.601 (5, 6, 7, 22) belong to no screen of today: many
# telephones and encoders write them beside pictures of BT.709, and players show them as such. So they are left alone.
_PRIMARIES = {
    BT709: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),  # BT.470 M
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
_NAMES = {BT709: "BT.709", BT2020: "BT.2020", 11: "DCI-P3", 12: "Display P3"}


class ColourKind(tuple[int, int]):
    """Transfer and primaries of a frame, as H.273 numbers them, reduced to what makes a difference."""

    __slots__ = ()

    @property
    def hdr(self) -> str | None:
        """Name of the high dynamic range transfer, or None."""
        return {PQ: "PQ", HLG: "HLG"}.get(self[0])

    @property
    def plain(self) -> bool:
        """Whether the frame is SDR BT.709 already."""
        return self.hdr is None and self[1] == BT709

    def __str__(self) -> str:
        primaries = _NAMES.get(self[1], f"primaries {self[1]}")
        return f"{self.hdr}, {primaries}" if self.hdr else primaries


def colour_of(frame: av.VideoFrame) -> ColourKind:
    """Read what a decoded frame says of its colours; untagged is BT.709, and BT.2020 where it is HDR."""
    transfer = frame.color_trc if frame.color_trc in (PQ, HLG) else BT709
    primaries = frame.color_primaries
    if primaries not in _PRIMARIES:
        primaries = BT709 if transfer == BT709 else BT2020
    return ColourKind((transfer, primaries))


def container_colours(stream: av.VideoStream) -> tuple[int, int, int] | None:
    """Read transfer, primaries and matrix that a container gives, before anything is decoded; None for SDR BT.709."""
    context = stream.codec_context
    tags = context.color_trc, context.color_primaries, context.colorspace
    return tags if tags[0] in (PQ, HLG) or tags[1] in _PRIMARIES.keys() - {BT709} else None


def complete_colours(frame: av.VideoFrame, tags: tuple[int, int, int] | None) -> None:
    """Give a frame whose coded stream leaves out its colours those of the container."""
    if tags is None:
        return
    if frame.color_trc == UNTAGGED:
        frame.color_trc = tags[0]
    if frame.color_primaries == UNTAGGED:
        frame.color_primaries = tags[1]
    if frame.colorspace == UNTAGGED:
        frame.colorspace = tags[2]


@functools.lru_cache(maxsize=4)
def sdr_table(kind: ColourKind, white: float = WHITE) -> np.ndarray:
    """Table from R'G'B' of a kind to SDR R'G'B' of BT.709: [nodes, nodes, nodes, 3] float32 in 0..1, red slowest.

    Light of ``white`` cd/m2 becomes the white of SDR.
    """
    side = np.linspace(0, 1, _NODES)
    coded = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1)
    light = display_light(coded, kind) * (WHITE / white) @ (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(kind[1])).T
    shown = np.clip(light, 0, None) ** (1 / _GAMMA)
    return (np.clip(shown, 0, 1) if kind.hdr is None else _rolled_off(shown)).astype(np.float32)


def display_light(coded: np.ndarray, kind: ColourKind) -> np.ndarray:
    """Compute the linear light that a display makes of a signal, 1 for reference white (BT.2100, tables 4 and 5).

    Args:
        coded: [..., 3] R'G'B' in 0..1.
        kind: Its transfer and primaries.

    Returns:
        [..., 3] linear RGB of the same primaries.
    """
    if kind.hdr == "PQ":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = coded ** (1 / m2)
        return 10_000 / WHITE * (np.clip(root - c1, 0, None) / (c2 - c3 * root)) ** (1 / m1)
    if kind.hdr == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
        luminance = scene @ _to_xyz(kind[1])[1]
        return _HLG_PEAK / WHITE * luminance[..., None] ** (_HLG_GAMMA - 1) * scene
    return coded**_GAMMA


def _rolled_off(shown: np.ndarray) -> np.ndarray:
    """SDR signal with what is above the shoulder compressed, up to the nominal peak of HDR."""
    reach = ((_HLG_PEAK / WHITE) ** (1 / _GAMMA) - _SHOULDER) / (1 - _SHOULDER)
    above = np.clip((shown - _SHOULDER) / (1 - _SHOULDER), 0, reach)
    return np.minimum(shown, _SHOULDER) + (1 - _SHOULDER) * above / (1 + above) * (1 + reach) / reach


def _to_xyz(primaries: int) -> np.ndarray:
    """Matrix [3, 3] from linear RGB to XYZ (SMPTE RP 177); white is that of D65 for all."""
    *corners, white = _PRIMARIES[primaries]
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in corners]).T
    light = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, light)
    d65 = np.array([_D65[0] / _D65[1], 1.0, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return _adapted(light, d65) @ matrix


def _adapted(white: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Matrix [3, 3] that adapts XYZ from one white to another (Bradford)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.linalg.inv(bradford) @ np.diag((bradford @ wanted) / (bradford @ white)) @ bradford


def peak_light(frame: av.VideoFrame, kind: ColourKind) -> tuple[float, float, float]:
    """Light in cd/m2 that a hundredth, a thousandth and a ten-thousandth of an HDR frame exceed."""
    from av.video.reformatter import Colorspace, Interpolation

    scale = max(1, max(frame.width, frame.height) // 320)
    small = frame.reformat(
        width=frame.width // scale, height=frame.height // scale, format="rgb48le", interpolation=Interpolation.POINT,
        src_colorspace=Colorspace.BT2020 if frame.colorspace == UNTAGGED else None,
    )  # fmt: skip
    light = display_light(small.to_ndarray() / 65535, kind).max(-1)
    hundredth, thousandth, top = np.percentile(light, (99, 99.9, 99.99)) * WHITE
    return float(hundredth), float(thousandth), float(top)


def white_of(peaks: list[tuple[float, float, float]]) -> float:
    """Choose the light in cd/m2 that becomes the white of SDR, from the peaks of some frames."""
    if not peaks:
        return WHITE
    hundredth, thousandth, _ = np.mean(peaks, axis=0)
    low, high = _DARK_PEAKS
    brightest = max(top for _, _, top in peaks)
    dark = low < thousandth < high and brightest < _DARK_TOP and hundredth > _CLIPPED * thousandth
    return DARK_WHITE if dark else WHITE


class ColourGraph:
    """Converts RGB frames of one kind of colours and one size, by FFmpeg's interpolated look-up."""

    def __init__(self, kind: ColourKind, frame: av.VideoFrame, white: float = WHITE) -> None:
        from av.filter import Graph

        table = sdr_table(kind, white).transpose(2, 1, 0, 3).reshape(-1, 3)  # red fastest
        lines = "\n".join(["%.5f %.5f %.5f"] * len(table)) % tuple(table.ravel().tolist())
        self._key = (kind, frame.width, frame.height, frame.format.name)
        self.graph = Graph()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.cube"
            path.write_text(f"LUT_3D_SIZE {_NODES}\n{lines}\n")
            source: Any = self.graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            table_filter = self.graph.add("lut3d", file=str(path), interp="tetrahedral")
        self.graph.link_nodes(source, table_filter, self.graph.add("buffersink")).configure()

    def fits(self, kind: ColourKind, frame: av.VideoFrame) -> bool:
        """Whether a frame is of the kind and size that this was made for."""
        return self._key == (kind, frame.width, frame.height, frame.format.name)

    def convert(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Convert a frame."""
        self.graph.vpush(frame)
        return self.graph.vpull()
