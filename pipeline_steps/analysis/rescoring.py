"""Re-scoring swept: AP of the ensemble's detections against alpha and against the cap per image.

Alpha is what is added to scores, one addend for each frequency group.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_steps.analysis.average_precision import average_precision
from pipeline_steps.detections.rescoring import alpha_by_category, rank_scores
from pipeline_steps.detections.table import read_table
from pipeline_steps.evaluation.ground_truth import GroundTruth, read_ground_truth
from pipeline_steps.evaluation.results import Results, read_results
from pipeline_steps.evaluation.selection import most_per_image
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.testing import RescoringAlpha
from pipeline_steps.run.data_files import DatasetPaths

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # by which the addends are multiplied


def rescored(truth: GroundTruth, results: Results, alpha: RescoringAlpha, factor: float = 1.0) -> Results:
    """``results`` ranked as the ensemble ranks with ``factor`` times ``alpha``.

    Args:
        results: with the models' own scores.
    """
    scaled = RescoringAlpha(**{group: factor * addend for group, addend in alpha.model_dump().items()})
    alphas = alpha_by_category(truth.category_ids, truth.frequencies, scaled)
    known = np.isin(results.category_ids, truth.category_ids)
    scores = results.scores.copy()
    scores[known] = rank_scores(scores[known], results.category_ids[known], alphas)
    return replace(results, scores=scores)


def _caps(usual: int, kept: int) -> list[int]:
    """Caps to try: around the usual one, up to what is kept per image."""
    tried = {max(1, round(usual * factor)) for factor in (0.1, 0.2, 1 / 3, 0.5, 1, 2)}
    return sorted({cap for cap in tried if cap < kept} | {kept})


def sweep_rescoring(recipe: Recipe, detections: Path) -> tuple[pd.DataFrame, dict[str, float], bool]:
    """Mask AP under each alpha at the usual cap, and under each cap with and without re-scoring.

    Args:
        detections: the ensemble's table on val, with masks.

    Returns:
        Columns ``factor`` (of alpha), ``cap`` (per image), AP, APr, APc, APf, AP_fixed in per cent; the addends of
        factor 1, and whether they are the recipe's: for a recipe that adds nothing they are the paper's.

    Raises:
        UserError: table or ground truth are missing, damaged, or of different data sets.
    """
    truth = read_ground_truth(DatasetPaths(recipe).lvis_val, "segm")
    results = read_results(detections, "segm")
    results = replace(results, scores=read_table(detections, ["score"])["score"].to_numpy().astype(float))
    kept, usual = most_per_image(results.image_ids), recipe.evaluation.max_detections
    own = any(recipe.ensemble.alpha.model_dump().values())
    alpha = recipe.ensemble.alpha if own else RescoringAlpha()
    rows = []
    for factor in FACTORS:
        again = rescored(truth, results, alpha, factor)
        for cap in _caps(usual, kept) if factor in (0, 1) else [min(usual, kept)]:
            rows.append({"factor": factor, "cap": cap, **average_precision(truth, again, "segm", recipe, cap)})
    return pd.DataFrame(rows), alpha.model_dump(), own
