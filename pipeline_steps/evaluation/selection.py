"""Which detections count: the cap per image, the cap per category, and the categories that are judged in an image.

Symbols: n detections in file order. All selections are stable: among equal scores the earlier row of the file wins.
"""

import numpy as np


def within_cap(groups: np.ndarray, scores: np.ndarray, cap: int) -> np.ndarray:
    """Whether a detection is among the ``cap`` highest scores of its group.

    Groups are images, whatever the categories (LVIS: 300), or categories over the data set (AP_fixed: 10,000): Dave et
    al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", section 4: without a cap per
    image, categories do not compete for places, and a score is compared with scores of its own category only.

    Args:
        groups: int64[n], image or category of each.
        scores: float64[n], written scores.
        cap: detections per group that count.

    Returns:
        bool[n].
    """
    keep = np.ones(len(groups), bool)
    values, counts = np.unique(groups, return_counts=True)
    rows = np.flatnonzero(np.isin(groups, values[counts > cap]))  # only crowded groups need sorting
    order = rows[np.lexsort((-scores[rows], groups[rows]))]  # lexsort is stable: ties stay in file order
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    keep[order] = ranks < cap
    return keep


def most_per_image(images: np.ndarray) -> int:
    """The largest number of detections of an image, of positions or ids that are not below 0."""
    return int(np.bincount(images).max(initial=0))
