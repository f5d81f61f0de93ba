"""Exact geometry: which pixels an object covers, at a resolution finer than the image's, in whole numbers throughout.

Symbols: s = SUPERSAMPLING fine pixels per image pixel and direction. A *stencil* is the fine mask of one object on the
smallest patch of whole image pixels around it; where it lies in the image is decided later (``PlacedMask``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from pipeline_steps.mini_world.shapes import UNIT, outlines

cv2.setNumThreads(1)  # patches are far too small for threads to pay

SUPERSAMPLING = 4
"""Fine pixels per image pixel, in each direction: coverage has 17 levels."""

TURN = 1024
"""Angles are whole numbers, this many for a full turn."""

_TRIG_BITS = 14
SINES = tuple(round(math.sin(2 * math.pi * k / TURN) * (1 << _TRIG_BITS)) for k in range(TURN))
"""Table of sines times 2^14."""

_SHIFT = 4
"""Fractional bits of drawing coordinates, which are fine pixels times 2^4."""


def rotate(x: np.ndarray, y: np.ndarray, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn whole-number coordinates clockwise (y points down) by ``angle`` / TURN of a turn; int64 in and out."""
    sine, cosine = SINES[angle % TURN], SINES[(angle + TURN // 4) % TURN]
    half = 1 << (_TRIG_BITS - 1)
    return (x * cosine - y * sine + half) >> _TRIG_BITS, (x * sine + y * cosine + half) >> _TRIG_BITS


@dataclass(frozen=True)
class Stencil:
    """One object's shape on its own patch."""

    mask: np.ndarray  # bool ``[s*h, s*w]`` on a patch of h x w image pixels
    center: tuple[int, int]  # centre of the object on the patch, in fine pixels
    half: tuple[int, int]  # half width and half height before turning, in fine pixels
    angle: int  # turn, of TURN

    @cached_property
    def coverage(self) -> np.ndarray:
        """Covered fine pixels of each image pixel: int32 ``[h, w]``, 0 to s*s."""
        s = SUPERSAMPLING
        return cover(self.mask) if self.mask.size else np.zeros((self.mask.shape[0] // s, 0), np.int32)


def cover(mask: np.ndarray) -> np.ndarray:
    """Number of set fine pixels in each image pixel: bool ``[s*h, s*w]`` to int32 ``[h, w]``."""
    s = SUPERSAMPLING
    rows = mask.view(np.uint8).reshape(mask.shape[0] // s, s, -1).sum(1, dtype=np.uint8)
    return rows.reshape(rows.shape[0], -1, s).sum(2, dtype=np.int32)


def make_stencil(shape: str, half: tuple[int, int], angle: int, phase: tuple[int, int] = (0, 0)) -> Stencil:
    """Draw the shape ``shape`` on a patch of its own.

    Args:
        shape: a name that ``shapes.outlines`` knows.
        half: half width and half height before turning, in 1/16 of a fine pixel.
        angle: clockwise turn, of TURN.
        phase: offset of the centre inside an image pixel, in fine pixels (0 to s-1).
    """
    s, one = SUPERSAMPLING, 1 << _SHIFT
    contours = []
    for outline in outlines(shape):
        x = (outline[:, 0].astype(np.int64) * half[0] + UNIT // 2) // UNIT
        y = (outline[:, 1].astype(np.int64) * half[1] + UNIT // 2) // UNIT
        contours.append(np.stack(rotate(x, y, angle), axis=1))
    low, high = contours[0].min(0), contours[0].max(0)
    # Whole image pixels left of and above the centre, with one pixel of margin for the drawn border.
    before = [int(-(low[axis] - s * one) // (s * one)) for axis in (0, 1)]
    center = (before[0] * s + phase[0], before[1] * s + phase[1])
    size = [int(-(-(center[axis] * one + high[axis] + s * one) // (s * one))) for axis in (0, 1)]
    canvas = np.zeros((size[1] * s, size[0] * s), np.uint8)
    offset = np.array(center) * one
    cv2.fillPoly(canvas, [(contour + offset).astype(np.int32) for contour in contours], 1, cv2.LINE_8, _SHIFT)
    return Stencil(canvas.view(bool), center, (half[0] // one, half[1] // one), angle)


@dataclass
class PlacedMask:
    """A fine mask at a place in the image, cut at the image's border."""

    x: int  # left upper corner in fine pixels of the image
    y: int
    mask: np.ndarray  # bool ``[rows, columns]``

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image's fine grid that the mask lies on."""
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])

    def overlap(self, other: PlacedMask) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """The common rectangle as indices into ``self.mask`` and ``other.mask``; None if there is none."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.mask.shape[1], other.x + other.mask.shape[1])
        bottom = min(self.y + self.mask.shape[0], other.y + other.mask.shape[0])
        if left >= right or top >= bottom:
            return None
        own, others = (
            (slice(top - m.y, bottom - m.y), slice(left - m.x, right - m.x)) for m in (self, other)
        )  # fmt: skip
        return own, others


def place(stencil: Stencil, column: int, row: int, image_size: int) -> PlacedMask | None:
    """The stencil with its patch's corner at image pixel (column, row), cut at the border of a square image.

    None if nothing of the patch is inside.
    """
    s = SUPERSAMPLING
    height, width = stencil.mask.shape
    x, y, edge = column * s, row * s, image_size * s
    left, top = max(0, -x), max(0, -y)
    right, bottom = min(width, edge - x), min(height, edge - y)
    if left >= right or top >= bottom:
        return None
    return PlacedMask(x + left, y + top, stencil.mask[top:bottom, left:right].copy())
