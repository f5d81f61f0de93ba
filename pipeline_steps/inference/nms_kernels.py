"""Compiled loops of the lazy NMS (CPU). Arithmetic is float32, operation by operation as in torchvision's nms kernel.

Symbols: n candidates of one chunk; C categories; K capacity of the list of kept detections; a flat index is
proposal * C + category.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_EXPONENT = np.uint32(0x7F800000)
_BLOCK = 64


@njit(cache=True, nogil=True)
def all_finite(bits: np.ndarray) -> bool:
    """Whether no float32, given as its uint32 bits, is infinite or NaN."""
    bad = 0
    for i in range(bits.size):
        bad += (bits[i] & _EXPONENT) == _EXPONENT
    return bad == 0


@njit(cache=True, nogil=True)
def count_above(values: np.ndarray, threshold: np.float32) -> int:
    """Number of values > threshold."""
    count = 0
    for i in range(values.size):
        count += values[i] > threshold
    return count


@njit(cache=True, nogil=True)
def find_between(values: np.ndarray, low: np.float32, high: np.float32, include_low: bool) -> np.ndarray:
    """Positions, ascending, of the values with low < value < high, or low <= value < high. Returns int64[n].

    Most values are below ``low``: a block is searched one by one only if it holds a hit.
    """
    size = values.size
    if include_low:
        low = np.nextafter(low, np.float32(-np.inf))
    found = np.empty(1024, np.int64)
    count = 0
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        hits = 0
        for i in range(start, stop):
            hits += (values[i] > low) & (values[i] < high)
        if hits == 0:
            continue
        if count + hits > found.size:
            larger = np.empty(max(2 * found.size, count + hits), np.int64)
            larger[:count] = found[:count]
            found = larger
        for i in range(start, stop):
            if values[i] > low and values[i] < high:
                found[count] = i
                count += 1
    return found[:count]


@njit(cache=True, nogil=True, error_model="numpy")
def keep_greedily(
    boxes: np.ndarray,
    categories: np.ndarray,
    threshold: float,
    kept_boxes: np.ndarray,
    kept_previous: np.ndarray,
    kept_position: np.ndarray,
    last_of_category: np.ndarray,
    kept: int,
) -> int:
    """Greedy per-category NMS over candidates in order of rank, continuing from the ``kept`` detections so far.

    Args:
        boxes: float32[n, 4], best first.
        categories: int64[n].
        threshold: a candidate whose IoU with a kept box of its category is above this is dropped. The IoU is a float32
            and the comparison is made in float64, as torchvision does. 0/0 (two boxes without area) drops nothing.
        kept_boxes: float32[K, 4], boxes kept so far; filled in.
        kept_previous: int64[K], the kept detection before this one in the same category, or -1; filled in.
        kept_position: int64[K], position of a kept detection in its chunk; filled in.
        last_of_category: int64[C], the last kept detection of each category, or -1; updated.
        kept: how many are kept so far; stops at K.

    Returns:
        How many are kept now.
    """
    capacity = kept_position.size
    zero = np.float32(0)
    for i in range(boxes.shape[0]):
        if kept >= capacity:
            break
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x2 - x1) * (y2 - y1)
        category = categories[i]
        other = last_of_category[category]
        while other >= 0:
            box = kept_boxes[other]
            width = max(zero, min(box[2], x2) - max(box[0], x1))
            height = max(zero, min(box[3], y2) - max(box[1], y1))
            intersection = width * height
            other_area = (box[2] - box[0]) * (box[3] - box[1])
            overlap = intersection / (other_area + area - intersection)
            if np.float64(overlap) > threshold:
                break
            other = kept_previous[other]
        if other >= 0:
            continue
        kept_boxes[kept] = boxes[i]
        kept_position[kept] = i
        kept_previous[kept] = last_of_category[category]
        last_of_category[category] = kept
        kept += 1
    return kept
