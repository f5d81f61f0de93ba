"""Numbers and names beside objects in a picture, placed so that none covers another.

Symbols: n numbers or names; sizes and places in pixels of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

USUAL = 1 / 24  # height of a number as a share of the longer edge; less where many numbers have to share an image
_DIGIT = 0.62  # width of a bold digit as a share of the height of its box, margins left out
GRID = 3  # distance between the places that are tried for a name
COVERING = 150  # A name moves this far rather than cover objects with its whole box


@dataclass(frozen=True)
class Badge:
    """A number in a box."""

    x: float
    y: float  # middle of the box
    w: float
    h: float
    moved: bool  # whether it had to stand so far off its object that a line should lead there


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
    ys, xs = _grid(np.arange(size / 2, height - size / 2, step), np.arange(0, width, step))
    taken: list[tuple[float, float, float, float]] = []
    badges = []
    for (x, y), own in zip(wanted, widths.tolist()):
        # Exactly where it is wanted, moved into the image, or at the nearest free point of a fine grid.
        x, y = min(max(x, own / 2), width - own / 2), min(max(y, size / 2), height - size / 2)
        inside = (xs >= own / 2) & (xs <= width - own / 2)
        near_x, near_y = np.append(x, xs[inside]), np.append(y, ys[inside])
        place = _best(near_x, near_y, (own, size), taken, np.hypot(near_x - x, near_y - y))
        at_x, at_y = place or (x, y)
        taken.append((at_x, at_y, own, size))
        badges.append(Badge(at_x, at_y, own, size, math.hypot(at_x - x, at_y - y) > size))
    return badges


def place_names(
    boxes: Sequence[tuple[float, float, float, float]], sizes: Sequence[tuple[float, float]], objects: np.ndarray
) -> list[tuple[float, float] | None]:
    """Middles of names beside their objects, off all objects where there is room, and None where no room is left.

    Args:
        boxes: n objects x1 y1 x2 y2, the most important first.
        sizes: width and height of each name.
        objects: uint8[H, W], 1 where an object is that no name should cover.
    """
    below = cv2.integral(objects).astype(float)
    taken: list[tuple[float, float, float, float]] = []
    places = []
    for (x1, y1, x2, y2), (w, h) in zip(boxes, sizes):
        rooms = objects.shape[0] - math.ceil(h), objects.shape[1] - math.ceil(w)
        top, left = _grid(*(np.arange(0, max(0, room + 1), GRID) for room in rooms))
        bottom, right = top + math.ceil(h), left + math.ceil(w)
        covered = below[bottom, right] - below[top, right] - below[bottom, left] + below[top, left]
        away = np.hypot(
            np.maximum(0, np.maximum(x1 - right, left - x2)), np.maximum(0, np.maximum(y1 - bottom, top - y2))
        )
        aside = np.abs(left + w / 2 - (x1 + x2) / 2) / 20 + (top > y1) * 2  # rather in the middle, and above
        place = _best(left + w / 2, top + h / 2, (w, h), taken, away + aside + COVERING * covered / (w * h))
        taken += [] if place is None else [(*place, w, h)]
        places.append(place)
    return places


def _grid(ys: np.ndarray, xs: np.ndarray) -> list[np.ndarray]:
    """y and x of all points of a grid."""
    return [axis.ravel() for axis in np.meshgrid(ys, xs, indexing="ij")]


def _best(
    xs: np.ndarray,
    ys: np.ndarray,
    size: tuple[float, float],
    taken: Sequence[tuple[float, float, float, float]],
    price: np.ndarray,
) -> tuple[float, float] | None:
    """The cheapest of the places ``xs``, ``ys`` where a box of ``size`` covers none of those that stand (x y w h)."""
    free = np.ones(len(xs), bool)
    for x, y, w, h in taken:
        free &= (np.abs(xs - x) >= (size[0] + w) / 2) | (np.abs(ys - y) >= (size[1] + h) / 2)
    if not free.any():
        return None
    best = int(np.where(free, price, np.inf).argmin())
    return float(xs[best]), float(ys[best])
