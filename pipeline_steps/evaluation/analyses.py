"""What is asked of an evaluation beyond AP and AP_fixed: AP_pool, calibration, intervals and errors.

AP_pool ranks all categories together, so that scores must mean the same in each of them. Dave et al., "Evaluating
Large-Vocabulary Object Detectors: The Devil is in the Details", section 5: detections are matched within their category
and counted as for AP_fixed, then ranked all together. An object counts the same in every category, hence frequent
categories dominate; AP_pool of a group ranks the detections of its categories.

Calibration: whether a score of 0.7 is right seven times in ten. A detection is right if it matches an object at IoU
0.5. Unjudged and ignored detections are left out.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.data.category_parents import read_parents
from pipeline_steps.evaluation.bootstrap import intervals
from pipeline_steps.evaluation.errors import BACKGROUND_IOU, ErrorAnalysis, related_categories
from pipeline_steps.evaluation.ground_truth import FREQUENCIES, GroundTruth
from pipeline_steps.evaluation.matched import MatchedDetections, precision_at_recalls
from pipeline_steps.evaluation.precision import IOU_THRESHOLDS
from pipeline_steps.evaluation.results import Results

log = logging.getLogger(__name__)

POOL_KEYS = ("AP_pool", *(f"AP{letter}_pool" for letter in FREQUENCIES))
BINS = 10  # bins of equal width between 0 and 1; a re-scored detection above 1 is in the last


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


@dataclass(frozen=True)
class Analyses:
    """Which of them are wanted."""

    pool: bool = False  # AP_pool
    bootstrap: int = 0  # resamples of the images for intervals; 0 for none
    seed: int = 0  # seed of the resamples
    errors: bool = False  # TIDE's errors and the confusions
    parents: Path | None = None  # table of the parents of categories, for near-synonyms
    calibration: bool = False  # reliability of scores

    def __bool__(self) -> bool:
        return self.pool or self.bootstrap > 0 or self.errors or self.calibration

    @property
    def least(self) -> float | None:
        """Overlap from which on objects of other categories are looked at; None if nothing asks for them."""
        return BACKGROUND_IOU if self.errors else None

    def run(
        self,
        truth: GroundTruth,
        results: Results,
        capped: MatchedDetections,
        fixed: MatchedDetections,
        counted: np.ndarray,
    ) -> dict[str, Any]:
        """What metrics files hold of them.

        Args:
            capped: those that count for AP, matched with :attr:`least`.
            fixed: those that count for AP_fixed.
            counted: bool[C], categories that count.

        Raises:
            UserError: a damaged table of parents.
        """
        frequencies = np.where(counted, truth.frequencies, "")
        metrics: dict[str, Any] = pooled_ap(fixed, frequencies) if self.pool else {}
        if self.bootstrap:
            metrics["bootstrap"] = intervals(capped, fixed, frequencies, self.bootstrap, self.seed, counted)
        if self.errors:
            analysis = ErrorAnalysis(capped, frequencies, self._related(truth))
            metrics["errors"] = {"groups": analysis.summary(), "confusions": analysis.confusions(truth)}
        if self.calibration:
            metrics["calibration"] = calibration(capped, frequencies, results.model_scores)
        return metrics

    def _related(self, truth: GroundTruth) -> np.ndarray | None:
        if self.parents is None:
            return None
        parents = read_parents(self.parents, truth.categories)
        if parents is None:
            log.warning("%s has no category of %s: near-synonyms are not told apart", self.parents, truth.path)
            return None
        return related_categories(parents)
