"""Figures from metrics files: AP by frequency group, by category, precision over recall."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline_steps.common.errors import UserError
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import (
    BAR,
    GROUP_COLOURS,
    GROUP_HATCHES,
    GROUP_LINES,
    GROUP_NAMES,
    new_figure,
    panels,
)
from pipeline_steps.report.grid import number

_WRITTEN: dict[str, Any] = {
    "textcoords": "offset points",
    "rotation": 90,
    "ha": "center",
    "va": "bottom",
    "fontsize": 8,
}
_WRITTEN |= {"fontweight": "bold", "bbox": {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"}}
_KEYS = {"all": "AP", "r": "APr", "c": "APc", "f": "APf"}


def ap_by_group(inputs: Inputs) -> Figure:
    """Bars: AP of each evaluation, overall and by frequency group; a mark where AP_fixed is."""
    entries = inputs.lvis_evaluations
    figure, (axes,) = new_figure(width=max(7.2, 1.3 * len(entries) + 2))
    places = np.arange(len(entries))
    for k, (group, key) in enumerate(_KEYS.items()):
        at = places + (k - 1.5) * 0.2
        values = [np.nan if (value := entry.get(key)) is None else value for entry in entries]
        fixed = [np.nan if (value := entry.get(f"{key}_fixed")) is None else value for entry in entries]
        axes.bar(
            at, values, 0.18, color=GROUP_COLOURS[group], hatch=GROUP_HATCHES[group], label=GROUP_NAMES[group], **BAR
        )
        axes.plot(at, fixed, "_", color="black", markersize=11, markeredgewidth=2, label="AP_fixed" if k == 3 else None)
        for x, value in zip(at, values):
            if not np.isnan(value):
                axes.annotate(number(value), (x, 0), (0.5, 3), **_WRITTEN)  # as the tables round
    labels = [f"{entry.name}\n({', '.join(entry.evaluated.split(', ')[::2])})" for entry in entries]
    axes.set_xticks(places, labels)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("AP, per cent")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def precision_recall(inputs: Inputs) -> Figure:
    """Curves: precision over recall at IoU 0.5, mean of the categories of a group, one panel per evaluation."""
    entries = [entry for entry in inputs.lvis_evaluations if entry.metrics.get("precision_at_recall")]
    if not entries:
        raise UserError("no metrics with precision at recall")
    figure, axes = panels(len(entries), 2.6, 2.6)
    for panel, entry in zip(axes, entries):
        for group, curve in entry.metrics["precision_at_recall"].items():
            if curve:
                look: dict[str, Any] = {
                    "color": GROUP_COLOURS[group],
                    "linestyle": GROUP_LINES[group],
                    "linewidth": 1.6,
                }
                panel.plot(np.linspace(0, 100, len(curve)), curve, label=GROUP_NAMES[group], **look)
        panel.set(
            title=entry.name, xlabel="recall, per cent", ylabel="precision, per cent", xlim=(0, 100), ylim=(0, 102)
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def ap_by_category(inputs: Inputs) -> Figure:
    """Points: AP of each category over its number of train images, one panel per evaluation."""
    tables = inputs.category_results()
    figure, axes = panels(len(tables), 2.6, 2.6)
    for panel, (name, table) in zip(axes, tables.items()):
        counts = {c.id: c.image_count for c in inputs.train_categories.categories}
        images = table["category_id"].map(counts).astype(float)
        dots = {"markersize": 4.0 if len(table) < 300 else 2.2, "alpha": 0.65, "markeredgewidth": 0}
        for group in "rcf":
            chosen = table["frequency"] == group
            look: dict[str, Any] = {"color": GROUP_COLOURS[group], "label": GROUP_NAMES[group], **dots}
            panel.plot(images[chosen], table["AP"][chosen], "o", **look)
        panel.set(
            title=name, xlabel="train images of the category", ylabel="AP, per cent", xscale="log", ylim=(-2, 102)
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, handletextpad=0.2)
    return figure
