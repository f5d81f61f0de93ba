"""Which detections of one image are right, by the rules of the official evaluator: for pictures, tags and figures.

The figures of merit come from the evaluators; this gives the verdict on each single detection.

Symbols: g objects of the ground truth, d detections, T IoU thresholds.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

TRUE, FALSE, IGNORED, UNJUDGED = "true", "false", "ignored", "unjudged"
"""Verdicts: matched; wrong; unmatched in a category that is not exhaustively annotated in the image; of a category of
which the ground truth says nothing in the image."""


def match_detections(
    truth_categories: np.ndarray,
    truth_shapes: Sequence[Any],
    categories: np.ndarray,
    scores: np.ndarray,
    shapes: Sequence[Any],
    iou_thresholds: Sequence[float] = (0.5,),
) -> np.ndarray:
    """Match detections to objects of their category, highest score first, each to the free object it overlaps most.

    Among objects of equal IoU the later one is taken, as in the official evaluator.

    Args:
        truth_categories: int[g].
        truth_shapes: g RLE objects, or g boxes x, y, width, height.
        categories: int[d].
        scores: float[d], written scores.
        shapes: d shapes of the same kind as ``truth_shapes``.

    Returns:
        int64[T, d], index of the matched object or -1.
    """
    matches = np.full((len(iou_thresholds), len(scores)), -1, np.int64)
    for category in np.intersect1d(truth_categories, categories):
        truth = np.flatnonzero(truth_categories == category)
        found = np.flatnonzero(categories == category)
        found = found[np.argsort(-scores[found], kind="stable")]
        pair_shapes = [shapes[k] for k in found.tolist()], [truth_shapes[k] for k in truth.tolist()]
        ious = np.asarray(mask_utils.iou(*pair_shapes, [0] * len(truth))).reshape(len(found), len(truth))
        for row, threshold in zip(matches, iou_thresholds):
            free = np.ones(len(truth), bool)
            for detection, overlaps in zip(found, ious):
                candidates = np.where(free, overlaps, -1.0)
                best = len(truth) - 1 - int(np.argmax(candidates[::-1]))
                if candidates[best] >= min(threshold, 1 - 1e-10):
                    free[best] = False
                    row[detection] = truth[best]
    return matches


def verdicts(
    matches: np.ndarray,
    categories: np.ndarray,
    present: Collection[int],
    negative: Collection[int],
    not_exhaustive: Collection[int],
) -> list[str]:
    """Verdict on each detection at one threshold.

    Args:
        matches: int64[d], a row of :func:`match_detections`.
        categories: int[d].
        present: categories that are annotated in the image.
        negative: categories that are verified to be absent from it.
        not_exhaustive: categories of which not every object is annotated in it.
    """
    judged, loose = (np.isin(categories, list(ids)) for ids in ({*present, *negative}, not_exhaustive))
    return np.select([matches >= 0, ~judged, loose], [TRUE, UNJUDGED, IGNORED], FALSE).tolist()
