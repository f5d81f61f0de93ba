"""What the comparison says in words; every statement follows from the intervals and the recipe."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline_steps.report.ablations.runs import Runs
from pipeline_steps.report.ablations.statistics import CONFIDENCE
from pipeline_steps.report.markdown import MISSING, figure

LVIS_FREQUENT_PER_RARE = 48_000
"""Annotated objects of all frequent categories for each object that a rare category has in the mean: LVIS v0.5 train,
629,862 over 13.06 (from the instance counts of its category list)."""

FINDINGS = {
    "as reported": "the report's sign shows",
    "opposite": "the opposite of the report's sign shows",
    "higher": "higher",
    "lower": "lower",
    "open": "open: the interval holds 0",
    "missing": "missing: fewer than two pairs",
}
"""Words for :func:`pipeline_steps.report.ablations.tables.finding`."""


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
    else:
        lines.append("The settings do not all see the same number of images (pre-training counted): see the table.")
    lines += [f"{name}: missing. {why}" for name, why in runs.missing().items()]
    return lines


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row.setting} − {row.reference} {row.metric} ({figure(row.difference, signed=True)}"
        + ("" if np.isnan(row.report) else f", report {figure(row.report, signed=True)}")
        + ")"
        for row in rows.itertuples()
    )


def findings(differences: pd.DataFrame) -> list[str]:
    """What shows, what does not, and how many intervals would leave out 0 by chance."""
    judged = differences[differences["finding"] != "missing"]
    reported = judged[judged["report"].notna() & (judged["report"] != 0)]
    lines = []
    for kind, words in (
        ("as reported", "The report's sign shows"),
        ("opposite", "The opposite of the report's sign shows"),
    ):
        rows = reported[reported["finding"] == kind]
        lines.append(
            f"{words} in {len(rows)} of {len(reported)} differences that the report has"
            + (f": {_listed(rows)}." if len(rows) else ".")
        )
    rows = reported[reported["finding"] == "open"]
    if len(rows):
        lines.append(f"It does not show, the interval holding 0, in {len(rows)}: {_listed(rows)}.")
    rows = judged[judged["finding"].isin(["higher", "lower"])]
    if len(rows):
        lines.append(f"Differences that the report does not give: {_listed(rows)}.")
    if len(judged):
        chance = (1 - CONFIDENCE) * len(judged)
        lines.append(
            f"Each of the {len(judged)} intervals covers {CONFIDENCE:.0%} by itself; if nothing differed, about "
            f"{chance:.1f} of them would leave out 0 by chance."
        )
    return lines


def explanation(runs: Runs, differences: pd.DataFrame, frequent_per_rare: float | None) -> list[str]:
    """Why EQL may do less here than in the report, said only where its sign does not show on the mini world.

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
    return [
        f"Why EQL's gain need not show here ({', '.join(absent)}): the loss takes away what objects of other "
        "categories do to rare ones, and a small world has far fewer of these negative samples for each positive one "
        f"than LVIS. For each annotated object of a rare category this world has {frequent_per_rare:,.0f} of frequent "
        f"categories; LVIS v0.5 has about {LVIS_FREQUENT_PER_RARE:,}. What the loss does to gradients and scores is "
        "shown below; whether that moves AP is another question."
    ]


def cost(seconds: float, jobs: int) -> str:
    """CPU time of all jobs, and what it is on two idle cores."""
    return f"{jobs} jobs took {seconds / 60:.0f} CPU minutes: about {seconds / 120:.0f} minutes on two idle cores."


def cell(mean: float, sd: float) -> str:
    """``mean ± sd`` for a table."""
    if np.isnan(mean):
        return MISSING
    return figure(mean) if np.isnan(sd) else f"{mean:.1f} ± {sd:.1f}"


def interval_cell(row: pd.Series) -> str:
    """``difference [low, high]``, with the report's difference behind it."""
    if np.isnan(row["difference"]):
        return MISSING
    text = figure(row["difference"], signed=True)
    if not np.isnan(row["low"]):
        text += f" [{row['low']:+.1f}, {row['high']:+.1f}]"
    return text
