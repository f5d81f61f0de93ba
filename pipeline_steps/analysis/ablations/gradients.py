"""Discouraging and encouraging gradients of the classification loss by frequency group, from the records of trainings.

A *ratio* is the sum of discouraging gradients over a group's categories divided by the sum of encouraging ones; ratios
of sums are defined also where single categories have no positive sample in a window of the training.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input
from pipeline_steps.data.categories import CategoryList

COLUMNS = ["window", "images", "category_id", "encouraging", "discouraging", "positives", "negatives"]
"""Columns of gradients.csv, as the training writes them."""


def read_gradients(path: str | Path, categories: CategoryList) -> pd.DataFrame:
    """A record with the frequency letter of each category.

    Raises:
        UserError: damaged, or of other categories.
    """
    try:
        table = pd.read_csv(note_input(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a gradient record: {error}") from None
    if list(table) != COLUMNS or set(table["category_id"]) != set(categories.ids.tolist()):
        raise UserError(f"{path} is not a gradient record of the categories of {categories.origin}")
    letters = dict(zip(categories.ids.tolist(), categories.frequencies, strict=True))
    return table.assign(frequency=table["category_id"].map(letters))


def group_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Discouraging over encouraging gradient and negatives per positive, by group: over each window and the whole.

    Args:
        table: from :func:`read_gradients`.

    Returns:
        Columns ``frequency``, ``window`` (-1: whole training), ``images`` (where it ends), ``ratio``,
        ``negatives_per_positive``.
    """
    whole = table.assign(window=-1, images=table["images"].max())
    sums = pd.concat([table, whole]).groupby(["frequency", "window", "images"], as_index=False).sum()
    sums["ratio"] = sums["discouraging"] / sums["encouraging"]
    sums["negatives_per_positive"] = sums["negatives"] / sums["positives"]
    return sums[["frequency", "window", "images", "ratio", "negatives_per_positive"]]


def category_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """The ratio of each category over the whole training: columns ``category_id``, ``frequency``, ``ratio``."""
    sums = table.groupby(["category_id", "frequency"], as_index=False)[["encouraging", "discouraging"]].sum()
    return sums.assign(ratio=sums["discouraging"] / sums["encouraging"])[["category_id", "frequency", "ratio"]]
