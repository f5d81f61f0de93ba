"""The effect of the equalization loss on the valid samples of each category (the paper, figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_steps.analysis.samples.table import group_frame, sample_frame
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import GROUP_COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN, EQUALIZED, BACKGROUND = "#6e7781", "#c8402f", "#a9b1ba"


def samples(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """(a) valid samples of each category, (b) negatives per positive; categories sorted by frequency."""
    frame = sample_frame(inputs.samples, inputs.recipe)
    figure, (left, right) = new_figure(2, height=3.8, width=8.4)
    ranks = np.arange(1, len(frame) + 1)
    positives = frame["positives"].to_numpy(float)
    columns = (
        ("negatives_from_background", BACKGROUND, ":", "negatives: background"),
        ("negatives_from_objects", PLAIN, "-", "negatives: other objects, sigmoid loss"),
        ("negatives_from_objects_equalized", EQUALIZED, "-", "negatives: other objects, equalization loss"),
    )
    shown = {"linewidth": 0, "marker": ".", "markersize": 4} if len(frame) < 300 else {"linewidth": 0.9}
    for column, colour, style, label in columns:
        counts = frame[column].to_numpy(float)
        line = {"linewidth": 1.4} if column.endswith("background") else shown
        left.plot(ranks, np.where(counts > 0, counts, np.nan), style, color=colour, label=label, **line)
        ratio = np.divide(counts, positives, out=np.full(len(frame), np.nan), where=positives > 0)
        right.plot(ranks, np.where(ratio > 0, ratio, np.nan), style, color=colour, **line)
    left.plot(ranks, np.where(positives > 0, positives, np.nan), "-", color="black", label="positives", **shown)
    for panel, title in ((left, "(a) valid samples"), (right, "(b) negatives per positive")):
        panel.set(title=title, xlabel="categories, by number of train images", yscale="log", xlim=(0, len(frame) + 1))
        for letter, group in GROUPS.items():
            own = ranks[(frame["group"] == group).to_numpy()]
            if len(own):
                panel.axvspan(own[0] - 0.5, own[-1] + 0.5, color=GROUP_COLOURS[letter], alpha=0.07, linewidth=0)
    left.set_ylabel("pairs of proposal and category")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure, group_frame(frame)
