"""The comparison as data frames: runs, settings, differences, gradients, scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.analysis.published import TABLES
from pipeline_steps.recipe import Recipe
from pipeline_steps.report.ablations.runs import METRICS, Runs
from pipeline_steps.report.ablations.statistics import Difference, describe, paired_difference, paired_ratio


def runs_frame(runs: Runs) -> pd.DataFrame:
    """One row per run: setting, seed, model, images seen (with pre-training), metrics in per cent (NaN if missing)."""
    rows = []
    for setting in runs.settings:
        for seed, model in runs.models(setting).items():
            values = {column: runs.values(setting, key).get(seed, np.nan) for key, column in METRICS.items()}
            seen = runs.recipe.images_seen(model)
            rows.append({"setting": setting, "seed": seed, "model": model.name, "images_seen": seen, **values})
    return pd.DataFrame(rows)


def settings_frame(runs: Runs) -> pd.DataFrame:
    """One row per setting: number of runs, and of those missing, images seen, mean and standard deviation."""
    rows = []
    for setting in runs.settings:
        models = runs.models(setting)
        seen = {runs.recipe.images_seen(model) for model in models.values()}
        found = len(runs.values(setting, "AP"))
        row: dict[str, object] = {"setting": setting, "n": found, "missing": len(models) - found}
        row["images_seen"] = seen.pop() if len(seen) == 1 else None
        for key, column in METRICS.items():
            sample = describe(list(runs.values(setting, key).values()))
            row |= {column: sample.mean, f"{column}_sd": sample.sd}
        rows.append(row)
    return pd.DataFrame(rows).astype({"images_seen": "Int64"})


def published_difference(recipe: Recipe, setting: str, reference: str) -> dict[str, float]:
    """Difference that the paper prints for two settings, by metric; empty if no table of it has both.

    The recipe's ``report.tables`` say which settings are rows of the paper's tables.
    """
    for name, table in TABLES.items():
        rows = {}
        for row, models in recipe.report.tables.get(name, {}).items():
            for wanted in (setting, reference):
                if set(models) == {model.name for model in recipe.replicates(wanted)}:
                    rows[wanted] = table.rows.get(row)
        if rows.get(setting) and rows.get(reference):
            return {key: getattr(rows[setting], key) - getattr(rows[reference], key) for key in GROUP_COLUMNS}
    return {}


def differences_frame(runs: Runs) -> pd.DataFrame:
    """One row per comparison and metric.

    Columns ``setting``, ``reference``, ``metric``, ``n`` (pairs of equal seed), ``difference``, ``sd``, ``low`` and
    ``high`` (interval), ``report`` (the paper's difference, NaN if it has none), ``finding`` (:func:`finding`).
    """
    rows = []
    for setting, reference in runs.comparisons:
        published = published_difference(runs.recipe, setting, reference)
        for key, column in METRICS.items():
            found = paired_difference(runs.values(setting, key), runs.values(reference, key))
            theirs = round(published.get(key, np.nan), 6)
            rows.append(
                {
                    "setting": setting,
                    "reference": reference,
                    "metric": column,
                    "n": found.n,
                    "difference": found.mean,
                    "sd": found.sd,
                    "low": found.low,
                    "high": found.high,
                    "report": theirs,
                    "finding": finding(found, theirs),
                }
            )
    return pd.DataFrame(rows)


def finding(difference: Difference, published: float) -> str:
    """What an interval says beside the paper's difference.

    Returns:
        ``missing`` (fewer than two pairs), ``open`` (the interval holds 0), or that it does not: ``as reported``,
        ``opposite``, or, where the paper gives no difference or 0, ``higher`` and ``lower``.
    """
    if difference.n < 2 or np.isnan(difference.low):
        return "missing"
    if not difference.sign:
        return "open"
    if np.isnan(published) or published == 0:
        return "higher" if difference.sign > 0 else "lower"
    return "as reported" if difference.sign == np.sign(published) else "opposite"


def ratios_frame(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], comparisons: list[tuple[str, str]]
) -> pd.DataFrame:
    """Paired quotients of positive quantities.

    Args:
        values: quantity -> setting -> value by seed.
        comparisons: settings and their references.

    Returns:
        One row per comparison and quantity: ``setting``, ``reference``, ``quantity``, ``n``, ``quotient`` (geometric
        mean over pairs), ``low``, ``high``.
    """
    rows = []
    for setting, reference in comparisons:
        for quantity, by_setting in values.items():
            found = paired_ratio(by_setting.get(setting, {}), by_setting.get(reference, {}))
            rows.append(
                {
                    "setting": setting,
                    "reference": reference,
                    "quantity": quantity,
                    "n": found.n,
                    "quotient": found.mean,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return pd.DataFrame(rows, columns=["setting", "reference", "quantity", "n", "quotient", "low", "high"])
