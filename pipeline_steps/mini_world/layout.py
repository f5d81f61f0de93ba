"""Laying objects out in an image: sizes, places and depth, so that enough of every object stays visible.

Every object keeps at least ``MIN_VISIBLE`` of its pixels free of *all* others, whatever lies on top of what; so any
order of depth is good, and every object that was placed can be annotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline_steps.mini_world.stencil import SUPERSAMPLING, TURN, PlacedMask, Stencil, make_stencil, place

MIN_VISIBLE = 0.5
"""Share of an object's pixels inside the image that stays visible."""
MIN_VISIBLE_IN_GROUP = 0.3
"""The same for members of a cluster."""
MIN_INSIDE = 0.75
"""Share of an object's pixels that lies inside the image."""
USUAL_SIZES = 0.14, 0.36
"""Smallest and largest object as parts of the image's edge: 18 to 46 pixels in 128."""
TRIES = 30
TRIES_FOR_CERTAIN = 300

_UNITS = 16 * SUPERSAMPLING  # drawing units per image pixel


@dataclass(frozen=True)
class Wish:
    """An object that an image is to show."""

    shape: str  # name of its outline
    hue: int | None  # angle on the colour circle in degrees; None: any
    key: int | None  # LVIS category (0-based), or None if LVIS has none for it
    certain: bool = False  # the image is there for this object: it is placed first and always annotated
    group: int = 0  # members of one cluster share a number above 0
    depicted: bool = False  # hangs as a picture in a frame of its own


@dataclass
class Placed:
    """A wish with its stencil and place. ``column``, ``row``: image pixel of the patch's corner."""

    wish: Wish
    stencil: Stencil
    column: int
    row: int
    mask: PlacedMask
    free: np.ndarray = field(repr=False)
    area: int = 0
    frame: Placed | None = None

    @property
    def center(self) -> tuple[int, int]:
        """Centre in image pixels."""
        x, y = self.stencil.center
        return self.column + x // SUPERSAMPLING, self.row + y // SUPERSAMPLING

    @property
    def size(self) -> int:
        """Mean extent in image pixels."""
        return sum(self.stencil.half) // SUPERSAMPLING


def draw_size(rng: np.random.Generator, image_size: int, sizes: tuple[float, float] = USUAL_SIZES) -> int:
    """Extent of an object in drawing units; small ones are more frequent than large ones."""
    smallest = max(12 * _UNITS, round(sizes[0] * image_size * _UNITS))
    largest = max(smallest + _UNITS, round(sizes[1] * image_size * _UNITS))
    first, second = (int(value) for value in rng.integers(0, 1 << 16, size=2))
    return smallest + (((largest - smallest) * (first + min(first, second))) >> 17)


def _stencil(rng: np.random.Generator, shape: str, extent: int, upright: bool = False) -> Stencil:
    aspect = int(rng.integers(230, 283))  # width over height, of 256
    half = (extent * aspect // 512, extent * 256 // (2 * aspect))
    turn = TURN // 12 if not upright else TURN // 60
    angle = int(rng.integers(-turn, turn + 1))
    x, y = rng.integers(0, SUPERSAMPLING, size=2).tolist()
    return make_stencil(shape, half, angle, (x, y))


class Arrangement:
    """The objects of one image while they are being placed."""

    def __init__(self, rng: np.random.Generator, image_size: int, sizes: tuple[float, float] = USUAL_SIZES) -> None:
        self.rng, self.image_size, self.sizes = rng, image_size, sizes
        self.placed: list[Placed] = []

    def _accept(self, wish: Wish, stencil: Stencil, x: int, y: int) -> Placed | None:
        """Try the place with the stencil's centre at image pixel (x, y)."""
        column, row = x - stencil.center[0] // SUPERSAMPLING, y - stencil.center[1] // SUPERSAMPLING
        mask = place(stencil, column, row, self.image_size)
        if mask is None:
            return None
        area = int(np.count_nonzero(mask.mask))
        if area < MIN_INSIDE * np.count_nonzero(stencil.mask):
            return None
        candidate = Placed(wish, stencil, column, row, mask, mask.mask.copy(), area)
        losses = []
        for other in self.placed:
            grouped = wish.group > 0 and wish.group == other.wish.group
            needed = MIN_VISIBLE_IN_GROUP if grouped or other.wish.group else MIN_VISIBLE
            reach = (candidate.size + other.size) * (28 if grouped else 30) // 100
            dx, dy = x - other.center[0], y - other.center[1]
            if dx * dx + dy * dy < reach * reach:
                return None
            common = mask.overlap(other.mask)
            if common is None:
                continue
            own, others = common
            free = other.free.copy()
            free[others] &= ~mask.mask[own]
            if np.count_nonzero(free) < needed * other.area:
                return None
            losses.append((other, free))
            candidate.free[own] &= ~other.mask.mask[others]
        needed = MIN_VISIBLE_IN_GROUP if wish.group else MIN_VISIBLE
        if np.count_nonzero(candidate.free) < needed * area:
            return None
        for other, free in losses:
            other.free = free
        self.placed.append(candidate)
        return candidate

    def _place_anywhere(self, wish: Wish, extent: int, shape: str = "") -> Placed | None:
        stencil = _stencil(self.rng, shape or wish.shape, extent, upright=shape == "frame")
        margin = extent * 2 // (5 * _UNITS)
        for _ in range(TRIES_FOR_CERTAIN if wish.certain else TRIES):
            x, y = (int(value) for value in self.rng.integers(margin, self.image_size - margin, size=2))
            if (placed := self._accept(wish, stencil, x, y)) is not None:
                return placed
        return None

    def _place_cluster(self, members: Sequence[Wish]) -> None:
        """Small objects of one category close together; members that find no room are left out."""
        extent = max(12 * _UNITS, draw_size(self.rng, self.image_size, self.sizes) * 5 // 8)
        spread = extent * 3 // (2 * _UNITS)
        low, high = spread, self.image_size - spread
        x, y = (int(value) for value in self.rng.integers(low, max(low + 1, high), size=2))
        for member in members:
            size = extent * int(self.rng.integers(80, 121)) // 100
            stencil = _stencil(self.rng, member.shape, size)
            for _ in range(TRIES):
                dx, dy = (int(value) for value in self.rng.integers(-spread, spread + 1, size=2))
                if self._accept(member, stencil, x + dx, y + dy) is not None:
                    break

    def _place_depiction(self, wish: Wish) -> None:
        """A frame with room around it, and the object on its canvas."""
        extent = self.image_size * _UNITS * int(self.rng.integers(34, 44)) // 100
        frame = self._place_anywhere(Wish("frame", None, None), extent, "frame")
        if frame is None:
            return
        stencil = _stencil(self.rng, wish.shape, extent * int(self.rng.integers(44, 52)) // 100)
        x, y = frame.center
        column, row = x - stencil.center[0] // SUPERSAMPLING, y - stencil.center[1] // SUPERSAMPLING
        mask = place(stencil, column, row, self.image_size)
        if mask is not None:
            area = int(np.count_nonzero(mask.mask))
            self.placed.append(Placed(wish, stencil, column, row, mask, mask.mask.copy(), area, frame))

    def fill(self, wishes: Sequence[Wish]) -> None:
        """Place all wishes: certain ones first, then clusters, depictions, and the rest."""
        for wish in wishes:
            if wish.certain:
                self._place_anywhere(wish, draw_size(self.rng, self.image_size, self.sizes))
        for group in sorted({wish.group for wish in wishes if wish.group}):
            self._place_cluster([wish for wish in wishes if wish.group == group])
        for wish in wishes:
            if wish.depicted:
                self._place_depiction(wish)
        for wish in wishes:
            if not (wish.certain or wish.group or wish.depicted):
                self._place_anywhere(wish, draw_size(self.rng, self.image_size, self.sizes))

    def by_depth(self) -> list[Placed]:
        """Objects from the bottom to the top, in random order; a picture lies directly on its frame."""
        pictures = {id(item.frame): item for item in self.placed if item.frame is not None}
        loose = [item for item in self.placed if item.frame is None]
        order = []
        for k in self.rng.permutation(len(loose)):
            order.append(loose[k])
            if id(loose[k]) in pictures:
                order.append(pictures[id(loose[k])])
        return order
