"""Checks of single boxes and masks against the size of their image."""

from __future__ import annotations

from itertools import chain
from math import isfinite
from typing import Any

TOLERANCE = 1.0
"""Pixels by which boxes and polygons of the published files leave their image or differ from each other by rounding."""


def numbers(values: Any, count: int | None = None) -> bool:
    """Whether ``values`` is a list of finite numbers (of the given length)."""
    return (
        isinstance(values, list)
        and (count is None or len(values) == count)
        and all(isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) for value in values)
    )


def box_problem(box: Any, width: float, height: float) -> str | None:
    """What is wrong with x, y, width, height in an image of the given size."""
    if not numbers(box, 4):
        return "box is not four finite numbers"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "box without extent"
    if x < -TOLERANCE or y < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE:
        return "box outside its image"
    return None


def _polygon_problem(polygons: list[Any], box: list[float], width: float, height: float) -> str | None:
    if not polygons:
        return "empty segmentation"
    for polygon in polygons:
        if not numbers(polygon):
            return "polygon is no list of finite numbers"
        if len(polygon) % 2 or len(polygon) < 6:
            return "polygon of less than three points or an odd number of coordinates"
    xs, ys = list(chain.from_iterable(p[0::2] for p in polygons)), list(chain.from_iterable(p[1::2] for p in polygons))
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if left < -TOLERANCE or top < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE:
        return "polygon outside its image"
    x, y, w, h = box
    if max(abs(left - x), abs(top - y), abs(right - x - w), abs(bottom - y - h)) > 2 * TOLERANCE:
        return "polygon does not fill its box"
    return None


def mask_problem(mask: Any, box: list[float], width: int, height: int) -> str | None:
    """What is wrong with a segmentation whose box is sound."""
    if isinstance(mask, list):
        return _polygon_problem(mask, box, width, height)
    if isinstance(mask, dict) and "counts" in mask:
        if mask.get("size") != [height, width]:
            return "RLE of another size than its image"
        counts = mask["counts"]
        if isinstance(counts, list) and (not numbers(counts) or min(counts) < 0 or sum(counts) != width * height):
            return "RLE counts do not add up to the image"
        return None if isinstance(counts, (list, str)) else "RLE counts are neither list nor string"
    return "segmentation is neither polygons nor RLE"
