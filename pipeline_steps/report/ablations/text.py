"""What the comparison says in words; every statement follows from the intervals and the recipe."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline_steps.analysis.ablations.runs import METRICS, Runs
from pipeline_steps.analysis.ablations.statistics import CONFIDENCE
from pipeline_steps.report.grid import number

LVIS_FREQUENT_PER_RARE = 48_000
"""Annotated objects of all frequent categories for each object that a rare category has in the mean: LVIS v0.5 train,
629,862 over 13.06 (from the instance counts of its category list)."""

FLOOR = 2.0  # points of AP below which a mean is called close to 0


def design(runs: Runs, settings: pd.DataFrame, missing: Mapping[str, str]) -> list[str]:
    """How the comparison was made.

    Args:
        settings: from :func:`pipeline_steps.analysis.ablations.tables.settings_frame`.
    """
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
    lines += [f"{name}: missing. {why}" for name, why in missing.items()]
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
        + ("" if np.isnan(row.report) else f", paper {number(row.report, signed=True)}")
        + ")"
        for row in rows.itertuples()
    )


def findings(differences: pd.DataFrame) -> list[str]:
    """What shows, what does not, and how many intervals would leave out 0 by chance."""
    judged = differences[differences["finding"] != "missing"]
    reported = judged[judged["report"].notna() & (judged["report"] != 0)]
    lines = []
    for kind, words in (
        ("as reported", "The sign is the paper's"),
        ("opposite", "The sign is opposite to the paper's"),
    ):
        rows = reported[reported["finding"] == kind]
        lines.append(
            f"{words} in {len(rows)} of {len(reported)} differences that the paper has"
            + (f": {_listed(rows)}." if len(rows) else ".")
        )
    rows = reported[reported["finding"] == "open"]
    if len(rows):
        lines.append(f"It is open, because the interval contains 0, in {len(rows)}: {_listed(rows)}.")
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


def explanation(
    runs: Runs, settings: pd.DataFrame, differences: pd.DataFrame, frequent_per_rare: float | None
) -> list[str]:
    """Why EQL may do less here than in the paper, said only where its sign does not show on the mini world.

    Args:
        settings: from :func:`pipeline_steps.analysis.ablations.tables.settings_frame`.
        differences: from :func:`pipeline_steps.analysis.ablations.tables.differences_frame`.
        frequent_per_rare: annotated objects of frequent categories per object of a rare category, or None.
    """
    if runs.recipe.data.source != "mini" or frequent_per_rare is None:
        return []
    hidden = differences[differences["finding"].isin(["open", "opposite"]) & (differences["report"] > 0)]
    hidden = hidden.loc[[pair in runs.equalized for pair in zip(hidden["setting"], hidden["reference"])]]
    absent = hidden["metric"].tolist()
    if not absent:
        return []
    means = settings.set_index("setting")
    floor = [
        f"{column} is {means.loc[setting, column]:.1f} with {setting}: too close to 0 for a difference to "
        "show after this length of training."
        for setting in hidden["reference"].unique()
        for column in METRICS.values()
        if column in absent and means.loc[setting, column] < FLOOR
    ]
    return [
        *floor,
        f"Why EQL's gain need not show here ({', '.join(absent)}): the loss removes what objects of other "
        "categories do to rare ones, but a small world has far fewer of these negative samples for each positive one "
        f"than LVIS. For each annotated object of a rare category this world has {frequent_per_rare:,.0f} of frequent "
        f"categories; LVIS v0.5 has about {LVIS_FREQUENT_PER_RARE:,}. What the loss does to gradients and scores is "
        "shown below; whether that moves AP is another question. The negative samples that the loss removes are also "
        "those from which a category has to be told apart, here mostly objects of the same shape in another hue.",
    ]


def mechanism_findings(runs: Runs, quotients: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """What EQL does to gradients and scores of rare categories, from the intervals; its first comparison with sigmoid.

    Args:
        quotients: from :func:`pipeline_steps.analysis.ablations.tables.quotients_frame`.
        means: mechanism of each setting, over seeds.
    """
    if not runs.equalized:
        return []
    setting, reference = runs.equalized[0]
    lines = []
    own = quotients[(quotients["setting"] == setting) & (quotients["reference"] == reference) & (quotients["n"] > 1)]
    for row in own.itertuples():
        moved = "rises" if row.low > 1 else "falls" if row.high < 1 else "does not clearly move"
        moved = "hardly moves" if round(row.low, 2) == round(row.high, 2) == 1 else moved
        lines.append(
            f"{setting} against {reference}, {row.quantity}: {moved}, times {row.quotient:.2f} "
            f"[{row.low:.2f}, {row.high:.2f}] over {row.n} pairs."
        )
    negatives = means.set_index("setting")["negatives_per_positive_r"]
    share = 1 - negatives[setting] / negatives[reference]
    if not np.isnan(share):
        lines.append(
            f"The loss removes {share:.0%} of the valid negative samples of rare categories: those on objects of "
            "other categories. Negative samples on background stay."
        )
    return lines


def interval_cell(value: float, low: float, high: float, digits: int = 1, signed: bool = False) -> str:
    """``value [low, high]``."""
    text = number(value, signed, digits)
    return text if np.isnan(low) else f"{text} [{number(low, signed, digits)}, {number(high, signed, digits)}]"
