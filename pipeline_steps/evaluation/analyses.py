"""What is asked of an evaluation beyond AP and AP_fixed: AP_pool, intervals, errors and calibration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.data.category_parents import read_parents
from pipeline_steps.evaluation.bootstrap import intervals
from pipeline_steps.evaluation.calibration import calibration
from pipeline_steps.evaluation.errors import BACKGROUND_IOU, ErrorAnalysis, related_categories
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.matched import MatchedDetections
from pipeline_steps.evaluation.pooled import pooled_ap
from pipeline_steps.evaluation.results import Results

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analyses:
    """Which of them are wanted."""

    pool: bool = False
    """AP_pool."""
    bootstrap: int = 0
    """Resamples of the images for intervals; 0 for none."""
    seed: int = 0
    """Seed of the resamples."""
    errors: bool = False
    """TIDE's errors and the confusions."""
    parents: Path | None = None
    """Table of the parents of categories, for near-synonyms."""
    calibration: bool = False
    """Reliability of scores."""

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
            truth: ground truth.
            results: n detections.
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
