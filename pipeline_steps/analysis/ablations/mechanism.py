"""What the loss does to gradients and to the scores of rare objects, in every run that left the files for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.analysis.ablations.gradients import category_ratios, group_ratios, read_gradients
from pipeline_steps.analysis.ablations.runs import Runs
from pipeline_steps.analysis.ablations.scores import GroupObjects
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import LvisDataset, read_lvis
from pipeline_steps.run.data_files import DatasetPaths

log = logging.getLogger(__name__)

OF_RUNS = ["ratio_r", "ratio_c", "ratio_f", "negatives_per_positive_r"]
OF_RUNS += ["matched_r", "median_score_matched_r", "median_score_all_r"]


@dataclass(frozen=True)
class Mechanism:
    """Quantities of the runs; a run without the file for one has NaN, or no rows, in its place."""

    runs: pd.DataFrame
    """One row per run: ``setting``, ``seed``; over the whole training the ratio of each group and the valid negatives
    per positive of rare categories (:func:`group_ratios`); the share of rare objects of val that a detection of their
    category matches (mask IoU 0.5), in per cent, the median score of these detections, and the same with 0 for objects
    without one."""
    groups: pd.DataFrame
    """Ratio of each setting, group and window of the training: ``images`` where it ends, mean ``ratio`` over the seeds,
    ``low`` and ``high`` their range."""
    categories: pd.DataFrame
    """Mean ratio of each setting and category over the whole training, and the category's train ``images``."""
    facts: dict[str, Any] = field(default_factory=dict)
    """``frequent_per_rare``: annotated train objects of all frequent categories for each object that a rare category
    has in the mean, or None; ``rare_objects`` of val; ``problems``: what could not be read."""


def measure(runs: Runs) -> Mechanism:
    """Read gradient records and detections of all runs; what is missing or damaged is told in ``problems``."""
    paths = DatasetPaths(runs.recipe)
    problems: list[str] = []
    values: dict[tuple[str, int], dict[str, float]] = {(setting, seed): {} for setting, seed, _ in runs.all()}
    groups, categories = [], []
    facts: dict[str, Any] = {"frequent_per_rare": None, "rare_objects": 0, "problems": problems}
    try:
        train, val = read_lvis(paths.lvis_train, "train"), read_lvis(paths.lvis_val, "val")
        objects = GroupObjects(val)
    except UserError as error:
        problems.append(str(error))
    else:
        facts |= {"frequent_per_rare": _frequent_per_rare(train), "rare_objects": len(objects)}
        images = dict(zip(train.category_ids, train.image_counts.tolist(), strict=True))
        for setting, seed, path in runs.existing(runs.gradients):
            try:
                table = read_gradients(path, train.categories)
            except UserError as error:
                problems.append(str(error))
                continue
            ratios, single = group_ratios(table), category_ratios(table)
            groups.append(ratios.assign(setting=setting))
            categories.append(single.assign(setting=setting, images=single["category_id"].map(images)))
            whole = ratios[ratios["window"] == -1].set_index("frequency")
            values[setting, seed] |= {f"ratio_{letter}": ratio for letter, ratio in whole["ratio"].items()}
            if "r" in whole.index:
                values[setting, seed]["negatives_per_positive_r"] = whole.loc["r", "negatives_per_positive"]
        for setting, seed, path in runs.existing(runs.detections):
            try:
                values[setting, seed] |= _of_rare(objects.matched_scores(path))
            except UserError as error:
                problems.append(str(error))
            log.info("scores of rare objects: %s, seed %d", setting, seed)
    rows = [{"setting": setting, "seed": seed, **found} for (setting, seed), found in values.items()]
    return Mechanism(
        runs=pd.DataFrame(rows, columns=["setting", "seed", *OF_RUNS]).replace([np.inf, -np.inf], np.nan),
        groups=_ranges(groups),
        categories=_means(categories),
        facts=facts,
    )


def _ranges(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and range over seeds of :func:`group_ratios` of each run, in its windows."""
    columns = ["setting", "frequency", "images", "ratio", "low", "high"]
    rows = []
    for setting, table in _by_setting(parts):
        for (letter, images), own in table[table["window"] >= 0].groupby(["frequency", "images"]):
            ratios = own["ratio"].to_numpy()
            rows.append((setting, letter, images, ratios.mean(), ratios.min(), ratios.max()))
    return pd.DataFrame(rows, columns=columns)


def _means(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over seeds of :func:`category_ratios` of each run; ratios that are no positive number are left out."""
    columns = ["setting", "category_id", "frequency", "images", "ratio"]
    means = []
    for setting, table in _by_setting(parts):
        table = table[np.isfinite(table["ratio"]) & (table["ratio"] > 0)]
        keys = ["category_id", "frequency", "images"]
        means.append(table.groupby(keys, as_index=False)["ratio"].mean().assign(setting=setting)[columns])
    return pd.concat(means, ignore_index=True) if means else pd.DataFrame(columns=columns)


def _by_setting(parts: list[pd.DataFrame]) -> Iterable[tuple[str, pd.DataFrame]]:
    return pd.concat(parts).groupby("setting", sort=False) if parts else ()


def _frequent_per_rare(train: LvisDataset) -> float | None:
    rare, frequent = (train.categories.frequencies == letter for letter in "rf")
    counts = train.instance_counts
    return float(counts[frequent].sum() / counts[rare].mean()) if rare.any() else None


def _of_rare(scores: np.ndarray) -> dict[str, float]:
    """What a run says of rare objects, from the scores that they are matched with."""
    if not len(scores):
        return {}
    found = {"matched_r": 100 * float(np.isfinite(scores).mean())}
    if np.isfinite(scores).any():
        found["median_score_matched_r"] = float(np.nanmedian(scores))
    return {**found, "median_score_all_r": float(np.median(np.nan_to_num(scores)))}
