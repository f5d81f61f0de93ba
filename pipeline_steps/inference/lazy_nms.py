"""Lazy NMS on the CPU: candidates in chunks of descending score, until enough detections are kept.

Arithmetic of the compiled loops is float32, operation by operation as in torchvision's nms kernel.

Symbols: R proposals, C categories, n candidates of a chunk, k kept detections, K capacity of their list; a flat index
is proposal * C + category.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import numpy as np
import torch
from numba import njit
from torch import Tensor

FIRST_CHUNK = 2048
"""Candidates looked at first; the total is four times as many after each further chunk."""

_SAMPLE = 16384
_EXPONENT = np.uint32(0x7F800000)
_BLOCK = 64


def split_index(index: Tensor, categories: int) -> tuple[Tensor, Tensor]:
    """Proposal and category of flat indices LongTensor[n]."""
    proposals = torch.div(index, categories, rounding_mode="floor")
    return proposals, index - proposals * categories


class KeptDetections:
    """The detections that greedy NMS has kept so far."""

    def __init__(self, capacity: int, categories: int) -> None:
        self.boxes = np.empty((capacity, 4), np.float32)
        self.position = np.empty(capacity, np.int64)
        self.count = 0
        self._previous = np.empty(capacity, np.int64)
        self._last = np.full(categories, -1, np.int64)

    @property
    def full(self) -> bool:
        return self.count == len(self.position)

    def extend(self, boxes: Tensor, categories: Tensor, threshold: float) -> slice:
        """Go on with further candidates in order of rank; returns the slice of those that were kept."""
        before = self.count
        self.count = keep_greedily(
            boxes.contiguous().numpy(),
            categories.contiguous().numpy(),
            float(threshold),
            self.boxes,
            self._previous,
            self.position,
            self._last,
            before,
        )
        return slice(before, self.count)


def select_lazily(
    boxes_of: Callable[[Tensor, Tensor], Tensor],
    flat: Tensor,
    categories: int,
    count: int,
    threshold: np.float32,
    nms_threshold: float,
    top_k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The ``top_k`` best detections (negative: all) after per-category NMS; see ``postprocess.select_detections``.

    Args:
        boxes_of: (proposals LongTensor[n], categories LongTensor[n]) -> clipped boxes float32[n, 4].
        flat: finite scores float32[R * C].
        count: how many of them are above ``threshold``.

    Returns:
        (boxes[k, 4], scores[k], categories[k], proposal_index[k]).
    """
    values = flat.numpy()
    sample = _sample(values, categories)
    kept = KeptDetections(count if top_k < 0 else min(top_k, count), categories)
    found_index = []
    seen, wanted, high = 0, FIRST_CHUNK if top_k >= 0 else count, np.float32(np.inf)
    while not kept.full and seen < count:
        low = np.float32(-np.inf)
        rank = wanted * len(sample) // len(values)
        if wanted < count and rank < len(sample):
            low = np.partition(sample, len(sample) - 1 - rank)[len(sample) - 1 - rank]
        last = low <= threshold
        found = find_between(values, threshold if last else low, high, not last)
        found = found[np.argsort(-values[found], kind="stable")]
        proposals, category = split_index(torch.from_numpy(found), categories)
        keep = kept.extend(boxes_of(proposals, category), category, nms_threshold)
        found_index.append(found[kept.position[keep]])
        seen, wanted, high = seen + len(found), 4 * wanted, low
    index = torch.from_numpy(np.concatenate(found_index)) if found_index else torch.zeros(0, dtype=torch.long)
    proposals, category = split_index(index, categories)
    return torch.from_numpy(kept.boxes[: kept.count].copy()), flat[index], category, proposals


def _sample(values: np.ndarray, categories: int) -> np.ndarray:
    """About 16,000 of the scores, evenly over proposals and categories: from them the chunks' bounds are guessed.

    The guess decides the speed, never the result.
    """
    stride = max(1, len(values) // _SAMPLE)
    while gcd(stride, categories) > 1:
        stride += 1
    return values[::stride]


# ---- compiled loops -------------------------------------------------------------------------------------------------


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
