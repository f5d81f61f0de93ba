"""Checks of boxes against the sizes of their images, for all annotations at once.

Symbols: n annotations; boxes are x, y, width, height in pixels; sizes are height, width.
"""

from __future__ import annotations

import numpy as np

from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import LEFT_OUT, Check

TOLERANCE = 1.0
"""Pixels by which boxes and polygons of the published files leave their image or differ from each other by rounding."""

MIN_EXTENT = 0.005
"""Pixels: published boxes are rounded to 0.01. The regression targets of much smaller ones are infinite in float32."""


def codes_of(checks: tuple[Check | None, ...], consequence: str = LEFT_OUT) -> np.ndarray:
    """bool[len(checks)]: whether training does ``consequence`` where the check of a code failed."""
    return np.array([check is not None and check.training == consequence for check in checks])


def clipped_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 of boxes, clipped to their images; float64[n, 4]."""
    low = np.maximum(boxes[:, :2], 0.0)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], sizes[:, ::-1])
    return np.concatenate([low, high], axis=1)


def check_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What is wrong with each box.

    Args:
        boxes: float64[n, 4].
        sizes: int64[n, 2] of the image of each.

    Returns:
        int8[n], codes of ``catalogue.BOXES``; the gravest of each.
    """
    low, extent = boxes[:, :2], boxes[:, 2:]
    high, edges = low + extent, sizes[:, ::-1]
    corners = clipped_corners(boxes, sizes)
    visible = corners[:, 2:] - corners[:, :2]
    codes = np.zeros(len(boxes), np.int8)
    # The gravest last: it stands.
    for check, failed in (
        (catalogue.BOX_OUTSIDE, (low < -TOLERANCE) | (high > edges + TOLERANCE)),
        (catalogue.TINY_BOX, visible < MIN_EXTENT),
        (catalogue.BOX_BEYOND, visible <= 0),
        (catalogue.TINY_BOX, extent < MIN_EXTENT),
        (catalogue.NO_EXTENT, extent <= 0),
        (catalogue.NEGATIVE_BOX, extent < 0),
    ):
        codes[failed.any(axis=1)] = catalogue.BOXES.index(check)
    return codes
