"""The dial on the page: the views that are good, and where the page looks from."""

from __future__ import annotations

from avatar.infer.view_cone import ViewCone

WIDE, HIGH = 70.0, 36.0  # degrees from the middle to the rim
INSIDE, OUTSIDE = "#7bc47f", "#f0a35e"
AT_BORDER = 0.97  # share of the way to the border
BEYOND = "Beyond what was filmed"
UNKNOWN = "how far is good was not measured"


def dial(cone: ViewCone, azimuth: float, elevation: float) -> str:
    """Draw the limits of a cone, and a dot at a view (degrees), as HTML."""
    limits = cone.limits()
    ratio = limits.ratio(azimuth, elevation)
    inside = ratio <= 1.001
    color = INSIDE if inside else OUTSIDE
    said = "" if ratio < AT_BORDER else ": at the view limit" if inside else f": {BEYOND.lower()}"
    at = min(max(azimuth, -WIDE), WIDE), min(max(elevation, -HIGH), HIGH)
    words = f"{round(azimuth)}°, {round(elevation)}°{said}"
    note = "" if cone.measured else f'<div style="opacity:.6">{UNKNOWN}</div>'
    # Elevation is up, SVG's y is down. Each quarter of the border is a quarter of an ellipse.
    border = (
        f"M{limits.right:.1f} 0A{limits.right:.1f} {limits.up:.1f} 0 0 0 0 {-limits.up:.1f}"
        f"A{limits.left:.1f} {limits.up:.1f} 0 0 0 {-limits.left:.1f} 0"
        f"A{limits.left:.1f} {limits.down:.1f} 0 0 0 0 {limits.down:.1f}"
        f"A{limits.right:.1f} {limits.down:.1f} 0 0 0 {limits.right:.1f} 0Z"
    )
    return (
        '<div style="text-align:center;font-size:12px;padding:2px 12px">'
        f'<svg viewBox="{-WIDE} {-HIGH} {2 * WIDE} {2 * HIGH}" style="width:60%" role="img" aria-label="View">'
        f'<rect x="{-WIDE}" y="{-HIGH}" width="{2 * WIDE}" height="{2 * HIGH}" rx="6" fill="#8882"/>'
        f'<path d="M-{WIDE} 0H{WIDE}M0 -{HIGH}V{HIGH}" stroke="#8886" stroke-width=".5"/>'
        f'<path d="{border}" fill="{INSIDE}44" stroke="{INSIDE}" stroke-width="1"/>'
        f'<circle cx="{at[0]:.1f}" cy="{-at[1]:.1f}" r="3" fill="{color}"/></svg><div>{words}</div>{note}</div>'
    )
