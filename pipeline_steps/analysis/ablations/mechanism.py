"""What the loss does to gradients and to the scores of rare objects, in every run that left the files for it.

A *ratio* is the sum of discouraging gradients over a group's categories divided by the sum of encouraging ones; ratios
of sums are defined also where single categories have no positive sample in a window of the training.

Symbols: g objects of a group in the ground truth. AP_fixed compares scores within a category only; their height also
decides which categories get the places under the cap per image.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.analysis.ablations.runs import Runs
from pipeline_steps.analysis.scenes import match_image, truth_masks
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.lvis import LvisDataset, read_lvis
from pipeline_steps.detections.table import iter_images
from pipeline_steps.run.data_files import DatasetPaths

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


class GroupObjects:
    """The objects of one frequency group of a data set with masks, by image."""

    def __init__(self, dataset: LvisDataset, letter: str = "r") -> None:
        of_group = set(dataset.categories.ids[dataset.categories.frequencies == letter].tolist())
        self.by_image: dict[int, tuple[np.ndarray, list[Any]]] = {}
        """Category ids and masks of an image's objects, by image id."""
        for image in dataset.images:
            chosen = [a for a in dataset.annotations[image.id] if a.category_id in of_group]
            masks = truth_masks(dataset, chosen, image)
            if any(mask is None for mask in masks):
                raise UserError(f"{dataset.path}: objects without masks in image {image.id}")
            if chosen:
                self.by_image[image.id] = np.array([a.category_id for a in chosen]), masks
        self.sizes = {image.id: [image.height, image.width] for image in dataset.images}

    def __len__(self) -> int:
        return sum(len(categories) for categories, _ in self.by_image.values())

    def matched_scores(self, table: str | Path) -> np.ndarray:
        """Score of the detection that each object is matched with (mask IoU of at least 0.5), float[g]; NaN if none.

        In the order of :attr:`by_image`.

        Args:
            table: detections table with masks; the model's own scores count.

        Raises:
            UserError: the table is damaged or has no masks.
        """
        scores = {image_id: np.full(len(categories), np.nan) for image_id, (categories, _) in self.by_image.items()}
        for image in iter_images(table):
            if image.image_id not in self.by_image:
                continue
            if image.rles is None:
                raise UserError(f"{table} has no masks")
            truth_categories, truth_masks = self.by_image[image.image_id]
            own = image.take(np.isin(image.category_ids, truth_categories))
            (matches,) = match_image(truth_categories, truth_masks, own, self.sizes[image.image_id])
            scores[image.image_id][matches[matches >= 0]] = own.scores[matches >= 0]
        return np.concatenate(list(scores.values())) if scores else np.zeros(0)


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
