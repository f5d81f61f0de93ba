"""What the loss does to gradients and to the scores of rare objects, in every run that left the files for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.report.ablations.gradients import category_ratios, group_ratios, read_gradients
from pipeline_steps.report.ablations.runs import Runs
from pipeline_steps.report.ablations.scores import GroupObjects
from pipeline_steps.run.data_files import DatasetPaths

log = logging.getLogger(__name__)

BySeed = dict[str, dict[int, float]]
Frames = dict[str, dict[int, "pd.DataFrame"]]
"""Setting -> value by seed."""


@dataclass(frozen=True)
class Mechanism:
    """Quantities of the runs by setting and seed; a run without the file for one is left out of it."""

    frequent_per_rare: float | None = None
    """Annotated train objects of all frequent categories for each object that a rare category has in the mean."""
    image_counts: dict[int, int] = field(default_factory=dict)
    """Train images by category id."""
    groups: Frames = field(default_factory=dict)
    """:func:`group_ratios` of each run."""
    categories: Frames = field(default_factory=dict)
    """:func:`category_ratios` of each run."""
    rare_objects: int = 0
    """Rare objects of val."""
    matched: BySeed = field(default_factory=dict)
    """Share of them that a detection of their category matches (mask IoU 0.5), in per cent."""
    median_score: BySeed = field(default_factory=dict)
    """Median score of these detections; objects without one are left out."""
    median_score_of_all: BySeed = field(default_factory=dict)
    """The same with 0 for objects without one."""
    problems: tuple[str, ...] = ()
    """What could not be read."""

    def whole(self, letter: str, column: str) -> BySeed:
        """A column of :attr:`groups` over the whole training."""
        result: BySeed = {}
        for setting, by_seed in self.groups.items():
            result[setting] = {}
            for seed, table in by_seed.items():
                found = table[(table["frequency"] == letter) & (table["window"] == -1)][column]
                if len(found) and np.isfinite(found.iloc[0]):
                    result[setting][seed] = float(found.iloc[0])
        return result

    @property
    def quantities(self) -> dict[str, BySeed]:
        """Quantities that are compared as quotients, by name."""
        ratios = {
            f"discouraging / encouraging gradient, {name}": self.whole(letter, "ratio")
            for letter, name in (("r", "rare"), ("c", "common"), ("f", "frequent"))
        }
        return {**ratios, "median score of matched rare objects": self.median_score}


def measure(runs: Runs) -> Mechanism:
    """Read gradient records and detections of all runs; what is missing or damaged is told in ``problems``."""
    paths = DatasetPaths(runs.recipe)
    try:
        train, val = read_lvis(paths.lvis_train, "train"), read_lvis(paths.lvis_val, "val")
        objects = GroupObjects(val)
    except UserError as error:
        return Mechanism(problems=(str(error),))
    rare, frequent = (train.categories.frequencies == letter for letter in "rf")
    counts = train.instance_counts
    groups, categories, problems = _gradients(runs, train.categories)
    matched, medians, of_all = _scores(runs, objects, problems)
    return Mechanism(
        frequent_per_rare=float(counts[frequent].sum() / counts[rare].mean()) if rare.any() else None,
        image_counts=dict(zip(train.category_ids, train.image_counts.tolist(), strict=True)),
        groups=groups,
        categories=categories,
        rare_objects=len(objects),
        matched=matched,
        median_score=medians,
        median_score_of_all=of_all,
        problems=tuple(problems),
    )


def _gradients(runs: Runs, categories: CategoryList) -> tuple[Frames, Frames, list[str]]:
    groups: Frames = {}
    single: Frames = {}
    problems = []
    for setting in runs.settings:
        groups[setting], single[setting] = {}, {}
        for seed, path in runs.files(runs.gradients, setting).items():
            try:
                table = read_gradients(path, categories)
            except UserError as error:
                problems.append(str(error))
                continue
            groups[setting][seed], single[setting][seed] = group_ratios(table), category_ratios(table)
    return groups, single, problems


def _scores(runs: Runs, objects: GroupObjects, problems: list[str]) -> tuple[BySeed, BySeed, BySeed]:
    matched: BySeed = {}
    medians: BySeed = {}
    of_all: BySeed = {}
    for setting in runs.settings:
        matched[setting], medians[setting], of_all[setting] = {}, {}, {}
        for seed, path in runs.files(runs.detections, setting).items():
            try:
                scores = objects.matched_scores(path)
            except UserError as error:
                problems.append(str(error))
                continue
            if not len(scores):
                continue
            matched[setting][seed] = 100 * float(np.isfinite(scores).mean())
            of_all[setting][seed] = float(np.median(np.nan_to_num(scores)))
            if np.isfinite(scores).any():
                medians[setting][seed] = float(np.nanmedian(scores))
        log.info("scores of rare objects: %s, %d runs", setting, len(matched[setting]))
    return matched, medians, of_all
