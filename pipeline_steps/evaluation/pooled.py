"""AP_pool: all categories in one ranking, so that scores must mean the same in each of them.

Dave et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", section 5: detections are
matched within their category and counted as for AP_fixed, then ranked all together. An object counts the same in every
category, hence frequent categories dominate; AP_pool of a group ranks the detections of its categories.
"""

from __future__ import annotations

import numpy as np

from pipeline_steps.evaluation.ground_truth import FREQUENCIES
from pipeline_steps.evaluation.matched import MatchedDetections, precision_at_recalls
from pipeline_steps.evaluation.precision import IOU_THRESHOLDS

POOL_KEYS = ("AP_pool", *(f"AP{letter}_pool" for letter in FREQUENCIES))


def pooled_ap(table: MatchedDetections, frequencies: np.ndarray) -> dict[str, float | None]:
    """AP_pool over all categories and by group, in per cent; None without objects.

    Among equal scores the lower category position ranks first, then the lower image position, then file order.

    Args:
        table: detections that count for AP_fixed.
        frequencies: letters of the C categories; those of categories that do not count are in no group and "".
    """
    order = np.argsort(-table.scores, kind="stable")
    letters = frequencies[table.categories[order]]
    values: dict[str, float | None] = {}
    for key, group in zip(POOL_KEYS, (FREQUENCIES, *FREQUENCIES)):
        chosen = order[np.isin(letters, list(group))]
        objects = int(table.object_counts[np.isin(frequencies, list(group))].sum())
        curves = [
            precision_at_recalls(true[chosen], false[chosen], objects)
            for true, false in map(table.at, range(len(IOU_THRESHOLDS) if objects else 0))
        ]
        values[key] = 100 * float(np.mean(curves)) if objects else None
    return values
