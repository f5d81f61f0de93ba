"""AP by frequency group and AP_fixed of detections in memory, as analyses of the ensemble compare them."""

import numpy as np

from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.precision import summarize
from pipeline_steps.evaluation.results import Results
from pipeline_steps.recipe import Recipe

FIGURES = (*GROUP_COLUMNS, "AP_fixed")


def average_precision(
    truth: GroundTruth, results: Results, iou_type: str, recipe: Recipe, cap: int | None = None
) -> dict[str, float]:
    """:data:`FIGURES` in per cent, NaN where there is no ground truth.

    Args:
        cap: per image, in place of the recipe's.
    """
    settings = recipe.evaluation
    evaluation = evaluate_lvis(truth, results, iou_type, cap or settings.max_detections, settings.fixed_per_category)
    values = summarize(evaluation.capped, truth.frequencies)
    values |= {"AP_fixed": summarize(evaluation.fixed, truth.frequencies)["AP"]}
    return {key: np.nan if (value := values[key]) is None else value for key in FIGURES}
