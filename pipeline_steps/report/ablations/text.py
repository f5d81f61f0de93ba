"""What the comparison says in words; every statement follows from the intervals and the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline_steps.report.ablations.runs import METRICS, Runs
from pipeline_steps.report.ablations.statistics import CONFIDENCE, describe
from pipeline_steps.report.grid import MISSING, number

LVIS_FREQUENT_PER_RARE = 48_000
"""Annotated objects of all frequent categories for each object that a rare category has in the mean: LVIS v0.5 train,
629,862 over 13.06 (from the instance counts of its category list)."""

FLOOR = 2.0
"""Points of AP below which a mean is called close to 0."""


def design(runs: Runs, settings: pd.DataFrame) -> list[str]:
    """How the comparison was made."""
    recipe = runs.recipe
    counts = sorted({len(runs.models(setting)) for setting in runs.settings})
    seen = settings["images_seen"].dropna().unique().tolist()
    lines = []
    if recipe.report.ablations.note:
        lines.append(recipe.report.ablations.note)
    lines.append(
        f"{' or '.join(map(str, counts))} seeds for each setting. A difference is taken between runs of the same seed; "
        "± is the standard deviation over seeds."
    )
    if len(seen) == 1:
        lines.append(f"Every setting sees {seen[0]:,} images in all, those of its COCO pre-training counted.")
        lines += _pretraining(runs)
    else:
        lines.append("The settings do not all see the same number of images (pre-training counted): see the table.")
    lines += [f"{name}: missing. {why}" for name, why in runs.missing().items()]
    return lines


def _pretraining(runs: Runs) -> list[str]:
    """Which settings spend some of the images on pre-training."""
    shares: dict[tuple[int, int], list[str]] = {}
    for setting in runs.settings:
        for model in runs.models(setting).values():
            own = runs.recipe.training_of(model).schedule.images
            before = runs.recipe.images_seen(model) - own
            if before and setting not in shares.setdefault((before, own), []):
                shares[before, own].append(setting)
    return [
        f"{' and '.join(settings)}: {before:,} of them in pre-training, which leaves {own:,} of LVIS. The paper "
        "does not say that its pre-training shortens the training on LVIS."
        for (before, own), settings in shares.items()
    ]


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row.setting} − {row.reference} {row.metric} ({number(row.difference, signed=True)}"
        + ("" if np.isnan(row.report) else f", report {number(row.report, signed=True)}")
        + ")"
        for row in rows.itertuples()
    )


def findings(differences: pd.DataFrame) -> list[str]:
    """What shows, what does not, and how many intervals would leave out 0 by chance."""
    judged = differences[differences["finding"] != "missing"]
    reported = judged[judged["report"].notna() & (judged["report"] != 0)]
    lines = []
    for kind, words in (
        ("as reported", "The paper's sign shows"),
        ("opposite", "The opposite of the paper's sign shows"),
    ):
        rows = reported[reported["finding"] == kind]
        lines.append(
            f"{words} in {len(rows)} of {len(reported)} differences that the paper has"
            + (f": {_listed(rows)}." if len(rows) else ".")
        )
    rows = reported[reported["finding"] == "open"]
    if len(rows):
        lines.append(f"It does not show, the interval holding 0, in {len(rows)}: {_listed(rows)}.")
    rows = judged[judged["finding"].isin(["higher", "lower"])]
    if len(rows):
        lines.append(f"Differences that the paper does not give: {_listed(rows)}.")
    if len(judged):
        chance = (1 - CONFIDENCE) * len(judged)
        lines.append(
            f"Each of the {len(judged)} intervals covers {CONFIDENCE:.0%} by itself; if nothing differed, about "
            f"{chance:.1f} of them would leave out 0 by chance."
        )
    return lines


def explanation(runs: Runs, differences: pd.DataFrame, frequent_per_rare: float | None) -> list[str]:
    """Why EQL may do less here than in the paper, said only where its sign does not show on the mini world.

    Args:
        runs: the comparison.
        differences: from :func:`pipeline_steps.report.ablations.tables.differences_frame`.
        frequent_per_rare: annotated objects of frequent categories per object of a rare category, or None.
    """
    if runs.recipe.data.source != "mini" or frequent_per_rare is None:
        return []
    losses = {s: {runs.recipe.training_of(m).loss for m in runs.models(s).values()} for s in runs.settings}
    of_loss = [
        row
        for row in differences.itertuples()
        if losses[row.setting] == {"eql"}
        and losses[row.reference] == {"sigmoid"}
        and row.finding in ("open", "opposite")
    ]
    absent = [row.metric for row in of_loss if row.report > 0]
    if not absent:
        return []
    floor = [
        f"{column} is {mean:.1f} with {setting}: so close to 0 that a difference could hardly show at this length of "
        "training."
        for setting in dict.fromkeys(row.reference for row in of_loss if row.report > 0)
        for key, column in METRICS.items()
        if column in absent and (mean := describe(list(runs.values(setting, key).values())).mean) < FLOOR
    ]
    return [
        *floor,
        f"Why EQL's gain need not show here ({', '.join(absent)}): the loss takes away what objects of other "
        "categories do to rare ones, and a small world has far fewer of these negative samples for each positive one "
        f"than LVIS. For each annotated object of a rare category this world has {frequent_per_rare:,.0f} of frequent "
        f"categories; LVIS v0.5 has about {LVIS_FREQUENT_PER_RARE:,}. What the loss does to gradients and scores is "
        "shown below; whether that moves AP is another question. The objects whose discouragement the loss drops are "
        "also those from which a category has to be told apart, here mostly objects of the same shape in another hue.",
    ]


def mechanism_findings(contrast: Sequence[str], quotients: pd.DataFrame, negatives: Mapping[str, float]) -> list[str]:
    """What EQL does to gradients and scores of rare categories, from the intervals.

    Args:
        contrast: the sigmoid setting and the EQL setting; anything else says nothing.
        quotients: from :func:`pipeline_steps.report.ablations.tables.ratios_frame`.
        negatives: valid negative samples per positive one of rare categories, mean over seeds, by setting.
    """
    if len(contrast) != 2:
        return []
    reference, setting = contrast
    lines = []
    for row in quotients[(quotients["setting"] == setting) & (quotients["reference"] == reference)].itertuples():
        if row.n < 2:
            continue
        moved = "rises" if row.low > 1 else "falls" if row.high < 1 else "does not clearly move"
        moved = "hardly moves" if round(row.low, 2) == round(row.high, 2) == 1 else moved
        lines.append(
            f"{setting} against {reference}, {row.quantity}: {moved}, times {row.quotient:.2f} "
            f"[{row.low:.2f}, {row.high:.2f}] over {row.n} pairs."
        )
    if reference in negatives and setting in negatives:
        share = 1 - negatives[setting] / negatives[reference]
        lines.append(
            f"The loss takes away {share:.0%} of the valid negative samples of rare categories: those on objects of "
            "other categories. Negative samples on background stay."
        )
    return lines


def cost(seconds: float, jobs: int) -> str:
    """CPU time of all jobs, and what it is on two idle cores."""
    return f"{jobs} jobs took {seconds / 60:.0f} CPU minutes: about {seconds / 120:.0f} minutes on two idle cores."


def interval_cell(row: pd.Series) -> str:
    """``difference [low, high]``, with the paper's difference behind it."""
    if np.isnan(row["difference"]):
        return MISSING
    text = number(row["difference"], signed=True)
    if not np.isnan(row["low"]):
        text += f" [{row['low']:+.1f}, {row['high']:+.1f}]"
    return text
