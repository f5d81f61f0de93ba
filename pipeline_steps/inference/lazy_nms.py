"""Lazy NMS on the CPU: candidates in chunks of descending score, until enough detections are kept.

Symbols: R proposals, C categories, n candidates of a chunk, k kept detections; a flat index is proposal * C + category.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import numpy as np
import torch
from torch import Tensor

from pipeline_steps.inference.nms_kernels import find_between, keep_greedily

FIRST_CHUNK = 2048
"""Candidates looked at first; the total is four times as many after each further chunk."""

_SAMPLE = 16384


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
