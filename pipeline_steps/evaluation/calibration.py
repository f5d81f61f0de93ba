"""Whether a score of 0.7 is right seven times in ten: reliability of the detections that are judged.

A detection is right if it matches an object at IoU 0.5. Unjudged and ignored detections are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_steps.evaluation.ground_truth import FREQUENCIES
from pipeline_steps.evaluation.matched import MatchedDetections

BINS = 10
"""Bins of equal width between 0 and 1; a re-scored detection above 1 is in the last."""


def reliability(scores: np.ndarray, true: np.ndarray) -> dict[str, Any] | None:
    """Expected calibration error and the bins that it is made of, in per cent; None without detections.

    ECE is the mean over detections of the difference between the share that is right and the mean score, in their bin
    (Guo et al., "On Calibration of Modern Neural Networks", equation 3).

    Args:
        scores: float64[k].
        true: bool[k].
    """
    if not len(scores):
        return None
    bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    held = np.maximum(counts, 1)
    mean, right = (100 * np.bincount(bins, values, BINS) / held for values in (scores, true.astype(np.float64)))
    return {
        "ece": round(float((counts * np.abs(right - mean)).sum() / len(scores)), 4),
        "detections": len(scores),
        "bins": [
            {"from": k / BINS, "detections": n, "score": round(m, 4), "right": round(r, 4)}
            for k, (n, m, r) in enumerate(zip(counts.tolist(), mean.tolist(), right.tolist()))
            if n
        ],
    }


def calibration(
    table: MatchedDetections, frequencies: np.ndarray, model_scores: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Reliability of the score that is ranked by and of the models' own, over all categories and by group.

    Args:
        table: detections that count for AP.
        frequencies: letters of the C categories, "" for those that do not count.
        model_scores: float64[n], the models' own scores of all rows of the file; None if it has none.
    """
    true, false = table.at(0)
    letters = frequencies[table.categories]
    scores = {"rank_score": table.scores} | ({} if model_scores is None else {"score": model_scores[table.rows]})
    groups = {"all": (true | false) & (letters != ""), **{f: (true | false) & (letters == f) for f in FREQUENCIES}}
    return {
        name: {group: reliability(values[chosen], true[chosen]) for group, chosen in groups.items()}
        for name, values in scores.items()
    }
