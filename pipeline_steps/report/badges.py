"""Numbers beside objects in a picture, placed so that none covers another.

Symbols: n numbers; sizes and places in pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

USUAL = 1 / 24
"""Height of a number as a share of the longer edge; less where many numbers have to share an image."""

_DIGIT = 0.62
"""Width of a bold digit as a share of the height of its box, margins left out."""


@dataclass(frozen=True)
class Badge:
    """A number in a box."""

    x: float
    y: float
    """Middle of the box."""
    w: float
    h: float
    moved: bool
    """Whether it had to stand so far off its object that a line should lead there."""


def _widths(count: int, height: float) -> np.ndarray:
    return np.array([(_DIGIT * len(str(number)) + 0.35) * height for number in range(1, count + 1)])


def _fits(count: int, height: float, edge: tuple[int, int]) -> bool:
    """Whether boxes cannot leave a later one without a place, wherever they stand.

    Each keeps the middles of others out of a rectangle of at most twice its size. If these, made wider by the step of
    the grid of places, do not fill the image, then a whole cell of the grid is free, and so is a point of it.
    """
    widest, step = _widths(count, height).max(), height / 8
    room = max(0.0, edge[0] - widest - step) * max(0.0, edge[1] - height - step)
    return count * (2 * widest + step) * (2 * height + step) < room


def place_badges(wanted: Sequence[tuple[float, float]], edge: tuple[int, int]) -> list[Badge]:
    """Places of the numbers 1, 2, ... n, each as near to where it is wanted as those before it leave room.

    The height is chosen so that there is a free place for every number, whatever is wanted.

    Args:
        wanted: n points x, y.
        edge: width and height of the image.
    """
    width, height = edge
    count = len(wanted)
    if not count:
        return []
    size = USUAL * max(edge)
    while not _fits(count, size, edge):
        size *= 0.9
    widths, step = _widths(count, size), size / 8
    rows, columns = np.meshgrid(np.arange(size / 2, height - size / 2, step), np.arange(0, width, step), indexing="ij")
    taken = np.empty((0, 3))  # x, y, width
    badges = []
    for (x, y), own in zip(wanted, widths.tolist()):
        # First exactly where it is wanted, moved into the image; then the nearest free point of a fine grid.
        x, y = min(max(x, own / 2), width - own / 2), min(max(y, size / 2), height - size / 2)
        at_x, at_y = x, y
        if not _free(np.array([x]), np.array([y]), own, size, taken)[0]:
            inside = (columns >= own / 2) & (columns <= width - own / 2)
            xs, ys = columns[inside], rows[inside]
            free = _free(xs, ys, own, size, taken)
            distance = np.where(free, np.hypot(xs - x, ys - y), np.inf)
            best = int(distance.argmin())
            at_x, at_y = float(xs[best]), float(ys[best])
        taken = np.vstack([taken, [at_x, at_y, own]])
        badges.append(Badge(at_x, at_y, own, size, math.hypot(at_x - x, at_y - y) > size))
    return badges


def _free(xs: np.ndarray, ys: np.ndarray, own: float, size: float, taken: np.ndarray) -> np.ndarray:
    """Whether a box of width ``own`` at each place covers none of those that stand."""
    free = np.ones(len(xs), bool)
    for x, y, other in taken:
        free &= (np.abs(xs - x) >= (own + other) / 2) | (np.abs(ys - y) >= size)
    return free
