"""Which detections count: the cap per image, the cap per category, and the categories that are judged in an image.

Symbols: n detections in file order. All selections are stable: among equal scores the earlier row of the file wins.
"""

from __future__ import annotations

import numpy as np


def _rank_in_group(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """0-based rank of each row within its group by descending score, ties by position, int64[n]."""
    order = np.lexsort((-scores, groups))  # lexsort is stable: ties stay in file order
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    lengths = np.diff(np.append(starts, len(ordered)))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return ranks


def within_image_cap(image_ids: np.ndarray, scores: np.ndarray, cap: int) -> np.ndarray:
    """The ``cap`` highest scores of each image, whatever their categories (LVIS: 300).

    Args:
        image_ids: int64[n].
        scores: float64[n], written scores.
        cap: detections per image that count.

    Returns:
        bool[n].
    """
    return _rank_in_group(image_ids, scores) < cap


def within_category_cap(category_ids: np.ndarray, scores: np.ndarray, cap: int) -> np.ndarray:
    """The ``cap`` highest scores of each category over the data set (AP_fixed: 10,000).

    Dave et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", section 4: without a cap
    per image, categories do not compete for places, and a score is compared with scores of its own category only.

    Args:
        category_ids: int64[n].
        scores: float64[n], written scores.
        cap: detections per category that count.

    Returns:
        bool[n].
    """
    return _rank_in_group(category_ids, scores) < cap


def most_per_image(image_ids: np.ndarray) -> int:
    """The largest number of detections of an image."""
    return int(np.unique(image_ids, return_counts=True)[1].max(initial=0))
