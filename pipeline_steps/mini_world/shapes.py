"""Outlines of the mini world's objects, as closed polygons in whole numbers: the unit circle has radius ``UNIT``.

Rounding to whole numbers removes the last-bit differences between mathematics libraries. x grows to the right, y down.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

UNIT = 4096
"""Radius of the unit circle in outline coordinates."""

SHAPES = (
    "disk", "square", "triangle", "star", "cross", "ring", "crescent", "hexagon", "heart", "arrow", "bar", "gear",
)  # fmt: skip
"""Shapes of LVIS categories: each comes in several hues, every hue is a category of its own."""

EXTRA_SHAPES = ("bolt", "drop", "clover", "fish", "mushroom", "house")
"""Shapes that no LVIS category has; they come in any hue."""

Points = list[tuple[float, float]]


def _circle(points: int = 48, radius: float = 1.0) -> Points:
    angles = [2 * math.pi * k / points for k in range(points)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _arc(x: float, y: float, radius: float, start: float, stop: float, points: int) -> Points:
    """Points on a circle from angle ``start`` to ``stop``, both in half turns, both ends included."""
    angles = [math.pi * (start + (stop - start) * k / (points - 1)) for k in range(points)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _star() -> Points:
    radii = [0.42 if k % 2 else 1.0 for k in range(10)]
    angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _cross() -> Points:
    w = 0.36
    quarter = [(-w, -1.0), (w, -1.0), (w, -w)]
    points: Points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


def _heart() -> Points:
    points = []
    for k in range(48):
        t = 2 * math.pi * k / 48
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3 / 16.5, -y / 16.5))
    return points


def _gear() -> Points:
    radii = [0.7 if (k // 2) % 2 else 1.0 for k in range(32)]
    return [(r * math.cos(math.pi * k / 16), r * math.sin(math.pi * k / 16)) for k, r in enumerate(radii)]


def _fish() -> Points:
    body = _arc(0.2, 0.85, 1.15, 1.26, 1.74, 12) + _arc(0.2, -0.85, 1.15, 0.26, 0.74, 12)
    return [(-0.5, 0.0), (-1.0, -0.6), (-0.86, 0.0), (-1.0, 0.6), *body[12:][::-1], *body[:12][::-1]]


_OUTLINES: dict[str, list[Points]] = {
    "disk": [_circle()],
    "square": [[(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]],
    "triangle": [[(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)]],
    "star": [_star()],
    "cross": [_cross()],
    "ring": [_circle(), _circle(radius=0.5)],
    "crescent": [_arc(0.15, 0.0, 1.0, 0.35, 1.65, 30) + _arc(0.5, 0.0, 0.72, 1.6, 0.4, 30)],
    "hexagon": [_circle(points=6)],
    "heart": [_heart()],
    "arrow": [[(-1.0, -0.3), (0.1, -0.3), (0.1, -0.85), (1.0, 0.0), (0.1, 0.85), (0.1, 0.3), (-1.0, 0.3)]],
    "bar": [[(-1.0, -0.36), (1.0, -0.36), (1.0, 0.36), (-1.0, 0.36)]],
    "gear": [_gear()],
    "bolt": [[(0.25, -1.0), (-0.65, 0.15), (-0.1, 0.15), (-0.3, 1.0), (0.65, -0.25), (0.08, -0.25)]],
    "house": [[(0.0, -1.0), (0.95, -0.15), (0.7, -0.15), (0.7, 0.85), (-0.7, 0.85), (-0.7, -0.15), (-0.95, -0.15)]],
    "drop": [[(0.0, -1.0), *_arc(0.0, 0.3, 0.68, -0.12, 1.12, 30)]],
    "clover": [
        _arc(0.0, -0.45, 0.5, 0.85, 2.15, 16)
        + _arc(0.48, 0.3, 0.5, -0.4, 0.7, 16)
        + [(0.13, 0.6), (0.3, 1.0), (-0.3, 1.0), (-0.13, 0.6)]
        + _arc(-0.48, 0.3, 0.5, 0.3, 1.4, 16)
    ],
    "fish": [_fish()],
    "mushroom": [[*_arc(0.0, 0.0, 0.95, 1.0, 2.0, 24), (0.32, 0.1), (0.4, 0.95), (-0.4, 0.95), (-0.32, 0.1)]],
    "frame": [[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]],
}


@cache
def outlines(name: str) -> tuple[np.ndarray, ...]:
    """Closed outlines of the shape ``name``: int32 arrays ``[points, 2]`` (x, y); a second one is a hole."""
    return tuple(
        np.array([[round(x * UNIT), round(y * UNIT)] for x, y in points], np.int32) for points in _OUTLINES[name]
    )
