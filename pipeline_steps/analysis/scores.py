"""Scores of right and wrong detections: histograms of the models' own scores by frequency group."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_steps.analysis.scenes import SceneReader
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.evaluation.matching import FALSE, TRUE
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths

EDGES = np.logspace(-3, 0, 31)  # edges of the bins; what lies outside counts in the first or the last one


def judge_scores(recipe: Recipe, detections: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count the detections on val that are right and wrong (IoU 0.5) by score; others do not count in their image.

    Returns:
        Histograms with the columns ``frequency``, ``verdict``, ``low``, ``high`` (edges), ``detections``; and totals
        with ``frequency``, ``verdict``, ``detections`` and ``median``, NaN without detections.

    Raises:
        UserError: table or ground truth are missing, damaged, or of different data sets.
    """
    dataset = read_lvis(DatasetPaths(recipe).lvis_val, "val")
    categories = dataset.categories
    found: dict[tuple[str, str], list[np.ndarray]] = {(letter, v): [] for letter in "rcf" for v in (TRUE, FALSE)}
    reader = SceneReader(dataset, detections, min_score=-np.inf)
    for one in map(reader.judged, reader.with_detections):
        letters = categories.frequencies[categories.positions(one.found.category_ids)]
        for (letter, verdict), parts in found.items():
            parts.append(one.found.scores[(letters == letter) & (np.array(one.verdicts[0]) == verdict)])
    counts, totals = [], []
    for (letter, verdict), parts in found.items():
        scores = np.concatenate([np.zeros(0), *parts])
        group = {"frequency": letter, "verdict": verdict}
        histogram, _ = np.histogram(np.clip(scores, EDGES[0], EDGES[-1]), EDGES)
        for low, high, count in zip(EDGES, EDGES[1:], histogram.tolist()):
            counts.append({**group, "low": low, "high": high, "detections": count})
        totals.append({**group, "detections": len(scores), "median": np.median(scores) if len(scores) else np.nan})
    return pd.DataFrame(counts), pd.DataFrame(totals)
