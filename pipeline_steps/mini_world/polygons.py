"""Visible regions as polygons, the way LVIS stores masks: several parts where something hides the middle, no holes.

The outline is followed on the corners of fine pixels, so polygons neither lose nor gain a border. A hole is joined to
the outline by a cut of no width, walked along in both directions (the usual key-hole): rasterisers that fill by parity,
pycocotools among them, leave the hole empty. Small losses: specks and holes under ``SMALLEST_PART`` are dropped, and
outlines are simplified by up to ``TOLERANCE`` (mean IoU with the visible mask 0.98 at 128 pixels, lowest about 0.9).
"""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from pipeline_steps.mini_world.stencil import SUPERSAMPLING, PlacedMask

SMALLEST_PART = 2.0
"""Parts and holes below this many square pixels are dropped (the largest part never)."""
TOLERANCE = 0.25
"""Greatest distance in pixels between an outline and its simplification."""

Polygon = list[float]


def _corners(mask: np.ndarray) -> np.ndarray:
    """The corners of all set pixels: bool ``[h, w]`` to uint8 ``[h + 1, w + 1]``."""
    corners = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.uint8)
    corners[:-1, :-1] |= mask
    corners[:-1, 1:] |= mask
    corners[1:, :-1] |= mask
    corners[1:, 1:] |= mask
    return corners


def _simplified(contour: np.ndarray) -> np.ndarray:
    simple = cv2.approxPolyDP(contour, TOLERANCE * SUPERSAMPLING, True)
    return (simple if len(simple) >= 3 else contour)[:, 0, :]


def _with_hole(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One closed outline around ``outer`` and, over a cut between the nearest corners, the other way round ``hole``."""
    differences = outer[:, None, :].astype(np.int64) - hole[None, :, :]
    nearest = int(np.argmin((differences * differences).sum(2)))
    i, j = divmod(nearest, len(hole))
    return np.concatenate([outer[: i + 1], hole[j:], hole[: j + 1], outer[i:]])


def polygons_of(part: PlacedMask) -> list[Polygon]:
    """Polygons ``[x1, y1, x2, y2, ...]`` in image pixels that cover the set pixels of ``part``.

    Coordinates are multiples of 1/SUPERSAMPLING. The list is empty if nothing is set.
    """
    contours, hierarchy = cv2.findContours(_corners(part.mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    limit = SMALLEST_PART * SUPERSAMPLING**2
    sizes = [cv2.contourArea(contour) for contour in contours]
    parents = hierarchy[0][:, 3]
    outer = [k for k in range(len(contours)) if parents[k] < 0]
    kept = [k for k in outer if sizes[k] >= limit] or [max(outer, key=lambda k: sizes[k])]
    polygons = []
    for k in kept:
        line = _simplified(contours[k])
        for child in range(len(contours)):
            if parents[child] == k and sizes[child] >= limit:
                line = _with_hole(line, _simplified(contours[child]))
        if len(line) >= 3:
            points = (line + np.array([part.x, part.y])) / SUPERSAMPLING
            polygons.append([float(value) for value in points.ravel()])
    return polygons


def box_of(polygons: list[Polygon]) -> list[float]:
    """Box ``[x, y, width, height]`` around polygons."""
    points = np.concatenate([np.array(polygon).reshape(-1, 2) for polygon in polygons])
    low, high = points.min(0), points.max(0)
    return [float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])]


def area_of(polygons: list[Polygon], height: int, width: int) -> float:
    """Area in pixels of the rasterised polygons, as the LVIS and COCO tools count it."""
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))))
