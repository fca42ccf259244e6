"""Words for what is done to the pictures and the time stamps of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby

from avatar.io.clock import Jump
from avatar.io.frames import Look, same_shape
from avatar.io.media import Treatment
from avatar.io.survey import Survey

_HOUR = 3600.0
_WRAPPED = 2**33 / 90_000 / 2  # seconds, half of what MPEG's counters hold: more is a step back that ran over
_HELD_FRAMES = 1.5  # that the last one stands for
_STILL_LEVELS = 0.6  # of change: less may be a repeat
_LEAST_FRAMES = 50  # a shorter video is not judged
_REPEATS_TOLD = 0.1  # of the frames
_STANDING = 12  # frames without a change are no repeats: a title, a black intro


def time_treatments(
    jumps: list[Jump], start: float, variable: bool, stored: Fraction, fps: Fraction, held: float, seen: Survey
) -> Iterator[Treatment]:
    """Say what was done about time stamps and the frame rate.

    Args:
        jumps: Where stamps started again or leapt.
        start: Time of the first frame that is read, in seconds on the mended clock.
        variable: Whether frames come at uneven times.
        stored: Frames per second of the file.
        fps: Frames per second that are read.
        held: Frames that the last one stands for.
        seen: The surveyed frames.
    """
    if jumps:
        first = jumps[0]
        again = first.leap < 0 or first.leap > _WRAPPED
        what = "start again" if again else f"leap forward by {_long(first.leap)}"
        where = f"at second {first.at - start:.1f}"
        where = where if len(jumps) == 1 else f"at {len(jumps)} places, the first {where}"
        yield Treatment("joined", f"The time stamps {what} {where}; the parts were joined there without a gap.")
    if variable:
        yield Treatment(
            "even-rate", f"Frames came at uneven times and were resampled to {_rate(fps)} frames per second."
        )
    if fps != stored:
        yield Treatment(
            "repeats-removed",
            f"The file repeats frames: {_rate(fps)} frames per second were stored as {_rate(stored)}; "
            "the repeats were left out.",
        )
    elif not variable and (share := _repeats(seen)) > _REPEATS_TOLD:
        yield Treatment(
            "repeats-kept", f"About {share:.0%} of the frames repeat the one before, in no pattern; they were kept."
        )
    if held > _HELD_FRAMES:
        yield Treatment("held-frame", f"The last frame is shown for {held / float(stored):.1f} s.")


def image_treatments(seen: Survey, look: Look, declared: Fraction | None) -> Iterator[Treatment]:
    """Say what is done to the pictures.

    Args:
        seen: The surveyed frames.
        look: What they are brought to.
        declared: Width of a pixel by its height, as the header says.
    """
    orientation, _ = seen.orientations.most_common(1)[0]
    if orientation.turn:
        yield Treatment("turned", f"The picture was turned by {orientation.turn} degrees clockwise, as the file asks.")
    if orientation.mirrored:
        yield Treatment("mirrored", "The picture was mirrored left to right, as the file asks.")
    if orientation.slant:
        yield Treatment("slant", f"The file asks for {orientation.slant:.1f} degrees more, which were left out.")
    if len(seen.orientations) > 1:
        yield Treatment("turns", "The recording was turned on its way; every part of it stands upright.")
    pixel, _ = seen.pixels.most_common(1)[0]
    if pixel != 1:
        yield Treatment(
            "square-pixels",
            f"Pixels of {pixel.numerator}:{pixel.denominator} were made square: "
            f"the picture has {look.width}x{look.height}.",
        )
    elif declared and abs(declared - 1) > 0.5:
        shape = f"{declared.numerator}:{declared.denominator}"
        yield Treatment(
            "pixel-shape", f"The file says that pixels are {shape}, which cannot be; they were kept square."
        )
    if len(seen.sizes) > 1:
        others = [size for size in seen.sizes if size != seen.size]
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(others))
        fitted = all(same_shape(size, seen.size) for size in others)
        edges = "" if fitted else ", with black edges where the shape differs"
        yield Treatment(
            "one-size", f"The size changes ({listed}); all frames were brought to {look.width}x{look.height}{edges}."
        )
    yield from _colours(seen, look)
    yield from _fields(seen)


def _colours(seen: Survey, look: Look) -> Iterator[Treatment]:
    for kind in seen.colours:
        if kind.hdr:
            yield Treatment(
                "tone-mapped",
                f"High dynamic range ({kind}) was tone mapped to SDR BT.709, white at {look.white:.0f} cd/m2.",
            )
        elif not kind.plain:
            yield Treatment("primaries", f"Colours of {kind} were converted to BT.709.")


def _fields(seen: Survey) -> Iterator[Treatment]:
    if seen.interlaced is not None:
        order = "top" if seen.interlaced == "tff" else "bottom"
        flag = "" if seen.flagged else ", though it is not marked as such"
        part = "in some parts " if seen.partly else ""
        yield Treatment(
            "deinterlaced", f"The picture was interlaced {part}({order} field first){flag}; it was deinterlaced."
        )
    elif seen.flagged > 0.5 * len(seen.times):
        yield Treatment("interlaced-flag", "The file is marked as interlaced, but its frames are not; they were kept.")


def _repeats(seen: Survey) -> float:
    known = [change for change in seen.changes if change == change]
    stretches = [len(list(same)) for still, same in groupby(known, lambda change: change < _STILL_LEVELS) if still]
    return sum(length for length in stretches if length < _STANDING) / max(_LEAST_FRAMES, len(known))


def _rate(fps: Fraction) -> str:
    return f"{float(fps):.5g}"


def _long(seconds: float) -> str:
    return f"{seconds / _HOUR:.1f} hours" if seconds >= _HOUR else f"{seconds:.0f} s"
