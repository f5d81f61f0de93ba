"""Figures of data and trainings: the long tail, valid samples under the equalization loss, loss curves."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_steps.analysis.samples.table import group_frame, sample_frame
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import GROUP_COLOURS, new_figure, panels

_LOSSES = {
    "loss_cls": ("box classification", "#c8402f"),
    "loss_box_reg": ("box regression", "#c98a00"),
    "loss_mask": ("mask", "#1f6fb4"),
    "loss_rpn_cls": ("RPN objectness", "#4f9d69"),
    "loss_rpn_loc": ("RPN boxes", "#7a5ba6"),
}


def _openimages_after(inputs: Inputs) -> pd.Series | None:
    """Train images after OpenImages by category id, None if there is no summary."""
    path = inputs.paths.openimages_summary
    if not path.is_file():
        return None
    table = pd.read_csv(note_input(path))
    return table.set_index("category_id")["images_after"] if "images_after" in table else None


def long_tail(inputs: Inputs) -> Figure:
    """Curve: train images of each category, sorted, with what OpenImages adds to it."""
    categories = inputs.train_categories
    before = np.array([category.image_count or 0 for category in categories.categories])
    if not before.any():
        raise UserError(f"{inputs.paths.lvis_train} has no image counts")
    order = np.argsort(-before, kind="stable")
    after = _openimages_after(inputs)
    figure, (axes,) = new_figure()
    ranks = np.arange(1, len(order) + 1)
    for letter, name in GROUPS.items():
        chosen = categories.frequencies[order] == letter
        axes.bar(ranks[chosen], before[order][chosen], 1.0, color=GROUP_COLOURS[letter], label=f"LVIS, {name}")
    if after is not None:
        total = after.reindex(categories.ids).to_numpy(float)[order]
        chosen = total > before[order]
        axes.vlines(ranks[chosen], before[order][chosen], total[chosen], color="black", linewidth=0.9)
        axes.plot(ranks[chosen], total[chosen], ".", color="black", markersize=4, label="with OpenImages")
    axes.set(
        xlabel="categories, by number of LVIS train images",
        ylabel="train images",
        yscale="log",
        xlim=(0, len(order) + 1),
    )
    axes.set_ylim(bottom=0.8)
    axes.grid(visible=False, axis="x")
    axes.legend()
    return figure


def training_curves(inputs: Inputs) -> Figure:
    """Curves: losses of every training over the images that it has seen, one panel per model."""
    curves = inputs.training_curves()
    figure, axes = panels(len(curves), 2.6, 2.5, least=4.6)
    shown: dict[str, Any] = {}
    for panel, (name, curve) in zip(axes, curves.items()):
        others = [column for column in curve if column.startswith("loss_") and column not in _LOSSES]
        for column, (label, colour) in {**_LOSSES, **{c: (c.removeprefix("loss_"), "#8b949e") for c in others}}.items():
            if column in curve:
                (shown[label],) = panel.plot(curve["images"], curve[column], color=colour, linewidth=1.3)
        panel.set(title=name, xlabel="images seen", ylabel="loss", ylim=(0, None))
        panel.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=3)
    return figure


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
