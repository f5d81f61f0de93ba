"""The whole comparison as data frames: runs, settings, differences, quotients, and what the loss does to gradients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.analysis.ablations.mechanism import OF_RUNS, measure
from pipeline_steps.analysis.ablations.runs import METRICS, Runs
from pipeline_steps.analysis.ablations.statistics import Sample, describe, paired_difference, paired_ratio
from pipeline_steps.analysis.benchmarks import job_seconds
from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.analysis.published import TABLES
from pipeline_steps.recipe import Recipe

QUOTIENTS = {
    "ratio_r": "discouraging / encouraging gradient, rare",
    "ratio_c": "discouraging / encouraging gradient, common",
    "ratio_f": "discouraging / encouraging gradient, frequent",
    "median_score_matched_r": "median score of matched rare objects",
}
"""Columns of the mechanism that are compared as quotients, and what they are called."""


def runs_frame(runs: Runs) -> pd.DataFrame:
    """One row per run: setting, seed, model, images seen (with pre-training), metrics in per cent (NaN if missing)."""
    rows = []
    for setting, seed, model in runs.all():
        entry = runs.measured[model.name]
        values = {column: entry.get(key) if entry.is_lvis_mask_ap else None for key, column in METRICS.items()}
        seen = runs.recipe.images_seen(model)
        rows.append({"setting": setting, "seed": seed, "model": model.name, "images_seen": seen, **values})
    return pd.DataFrame(rows).astype(dict.fromkeys(METRICS.values(), float))


def means_frame(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row per setting: mean of each column over the runs that have it, and standard deviation (``_sd``)."""
    rows = []
    for setting, own in frame.groupby("setting", sort=False):
        row: dict[str, object] = {"setting": setting}
        for column in columns:
            sample = describe(own[column].dropna())
            row |= {column: sample.mean, f"{column}_sd": sample.sd}
        rows.append(row)
    return pd.DataFrame(rows)


def settings_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting: number of runs, and of those missing, images seen, mean and standard deviation.

    Args:
        frame: from :func:`runs_frame`.
    """
    runs, means = frame.groupby("setting", sort=False), means_frame(frame, list(METRICS.values()))
    found, seen = runs["AP"].count().to_numpy(), runs["images_seen"]
    means.insert(1, "n", found)
    means.insert(2, "missing", runs.size().to_numpy() - found)
    means.insert(3, "images_seen", seen.first().where(seen.nunique() == 1).astype("Int64").to_numpy())
    return means


def _by_seed(frame: pd.DataFrame, setting: str, column: str) -> dict[int, float]:
    """A column of a setting's runs by seed, for the runs that have it."""
    return frame[frame["setting"] == setting].set_index("seed")[column].dropna().to_dict()


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


def differences_frame(runs: Runs, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison and metric.

    Columns ``setting``, ``reference``, ``metric``, ``n`` (pairs of equal seed), ``difference``, ``sd``, ``low`` and
    ``high`` (interval), ``report`` (the paper's difference, NaN if it has none), ``finding`` (:func:`finding`).

    Args:
        frame: from :func:`runs_frame`.
    """
    rows = []
    for setting, reference in runs.comparisons:
        published = published_difference(runs.recipe, setting, reference)
        for key, column in METRICS.items():
            found = paired_difference(_by_seed(frame, setting, column), _by_seed(frame, reference, column))
            theirs = round(published.get(key, np.nan), 6)
            about = (setting, reference, column, found.n, found.mean, found.sd, found.low, found.high)
            rows.append((*about, theirs, finding(found, theirs)))
    names = ["setting", "reference", "metric", "n", "difference", "sd", "low", "high", "report", "finding"]
    return pd.DataFrame(rows, columns=names)


def finding(difference: Sample, published: float) -> str:
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


def quotients_frame(runs: Runs, mechanism: pd.DataFrame) -> pd.DataFrame:
    """Paired quotients of the positive quantities of :data:`QUOTIENTS`.

    Args:
        mechanism: one row per run, from :func:`pipeline_steps.analysis.ablations.mechanism.measure`.

    Returns:
        One row per comparison and quantity: ``setting``, ``reference``, ``quantity``, ``n``, ``quotient`` (geometric
        mean over pairs), ``low``, ``high``.
    """
    rows = []
    for setting, reference in runs.comparisons:
        for column, quantity in QUOTIENTS.items():
            found = paired_ratio(_by_seed(mechanism, setting, column), _by_seed(mechanism, reference, column))
            rows.append((setting, reference, quantity, found.n, found.mean, found.low, found.high))
    return pd.DataFrame(rows, columns=["setting", "reference", "quantity", "n", "quotient", "low", "high"])


def compare(runs: Runs, benchmarks: Path | None = None) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Compute everything that is shown of the compared settings.

    Args:
        benchmarks: folder of the workflow's benchmark files, for the CPU time.

    Returns:
        Tables ``runs``, ``settings``, ``differences``, ``mechanism``, ``mechanism_means`` over seeds, ``quotients``,
        ``gradients`` and ``categories``; and the facts of :class:`Mechanism`, ``missing`` models, CPU ``seconds`` and
        ``jobs``.
    """
    mechanism, frame = measure(runs), runs_frame(runs)
    tables = {
        "runs": frame,
        "settings": settings_frame(frame),
        "differences": differences_frame(runs, frame),
        "mechanism": mechanism.runs,
        "mechanism_means": means_frame(mechanism.runs, OF_RUNS),
        "quotients": quotients_frame(runs, mechanism.runs),
        "gradients": mechanism.groups,
        "categories": mechanism.categories,
    }
    seconds, jobs = job_seconds(sorted(benchmarks.rglob("*.tsv")) if benchmarks else [], "cpu_time")
    return tables, {**mechanism.facts, "missing": runs.missing(), "seconds": seconds, "jobs": jobs}
