"""Figures of a comparison: differences with their intervals, gradients over the training, scores of rare objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_steps.common.errors import UserError
from pipeline_steps.report.figures.style import GROUP_COLOURS, GROUP_NAMES, new_figure

_METRIC_COLOURS = {"AP_r": GROUP_COLOURS["r"], "AP_c": GROUP_COLOURS["c"], "AP_f": GROUP_COLOURS["f"]}
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "x", "^", "+")


def differences(frame: pd.DataFrame) -> Figure:
    """Mean difference of each comparison with its interval, one panel per metric; a ring is the paper's difference.

    Args:
        frame: from :func:`pipeline_steps.analysis.ablations.tables.differences_frame`.
    """
    shown = frame[frame["n"] > 0]
    if shown.empty:
        raise UserError("no pair of runs with metrics")
    pairs = list(dict.fromkeys(zip(shown["setting"], shown["reference"])))
    metrics = list(dict.fromkeys(shown["metric"]))
    figure, axes = new_figure(len(metrics), width=2.0 * len(metrics) + 1.4, height=0.42 * len(pairs) + 1.5)
    places = {pair: -k for k, pair in enumerate(pairs)}
    for panel, metric in zip(axes, metrics):
        rows = shown[shown["metric"] == metric]
        at = [places[pair] for pair in zip(rows["setting"], rows["reference"])]
        colour = _METRIC_COLOURS.get(metric, GROUP_COLOURS["all"])
        panel.axvline(0, color="#8b949e", linewidth=1.0)
        panel.hlines(at, rows["low"], rows["high"], color=colour, linewidth=2.2, label="ours, 95 % interval")
        panel.plot(rows["difference"], at, "o", color=colour, markersize=5)
        panel.plot(rows["report"], at, "o", color="black", markersize=7, fillstyle="none", label="paper, on LVIS")
        panel.set(title=metric, xlabel="points of AP", ylim=(-len(pairs) + 0.4, 0.6))
        panel.set_yticks(list(places.values()), [])
        panel.grid(visible=False, axis="y")
    axes[0].set_yticks(list(places.values()), [f"{setting} − {reference}" for setting, reference in pairs])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def ratios_over_training(ratios: Mapping[str, pd.DataFrame]) -> Figure:
    """Discouraging over encouraging gradient in each window, one panel per group, one line per setting.

    Args:
        ratios: by setting, :attr:`pipeline_steps.analysis.ablations.mechanism.Mechanism.groups`.
    """
    if all(table.empty for table in ratios.values()):
        raise UserError("no gradient records (training.record_gradients)")
    figure, axes = new_figure(3, width=8.4, height=3.3)
    for panel, letter in zip(axes, "rcf"):
        for k, (setting, table) in enumerate(ratios.items()):
            own = table[table["frequency"] == letter]
            if own.empty:
                continue
            look: dict[str, Any] = {
                "marker": _MARKERS[k % len(_MARKERS)],
                "color": GROUP_COLOURS[letter],
                "label": setting,
            }
            panel.plot(own["images"], own["ratio"], _LINES[k % len(_LINES)], **look)
            band: dict[str, Any] = {"color": GROUP_COLOURS[letter], "alpha": 0.15, "linewidth": 0}
            panel.fill_between(own["images"], own["low"], own["high"], **band)
        panel.axhline(1, color="#8b949e", linewidth=0.8)
        panel.set(title=GROUP_NAMES[letter], xlabel="images of the training", yscale="log", xlim=(0, None))
        panel.legend(fontsize=8)
    _common_ratios(axes)
    axes[0].set_ylabel("discouraging / encouraging")
    return figure


def _common_ratios(panels: Sequence[Axes]) -> None:
    """One logarithmic scale with plain numbers for all panels."""
    low = min(panel.get_ylim()[0] for panel in panels)
    high = max(panel.get_ylim()[1] for panel in panels)
    ticks = [factor * 10.0**power for power in range(-3, 6) for factor in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    for panel in panels:
        panel.set_ylim(low, high)
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()


def ratios_by_category(ratios: Mapping[str, pd.DataFrame]) -> Figure:
    """The ratio of each category over the whole training, categories sorted by their train images, a panel per setting.

    Args:
        ratios: by setting, :attr:`pipeline_steps.analysis.ablations.mechanism.Mechanism.categories`.
    """
    ratios = {setting: table for setting, table in ratios.items() if len(table)}
    if not ratios:
        raise UserError("no gradient records (training.record_gradients)")
    figure, axes = new_figure(len(ratios), width=4.2 * len(ratios), height=3.3)
    for panel, (setting, table) in zip(axes, ratios.items()):
        table = table.sort_values("images", ascending=False).reset_index(drop=True)
        for letter in "fcr":
            own = table[table["frequency"] == letter]["ratio"]
            look: dict[str, Any] = {"color": GROUP_COLOURS[letter], "label": GROUP_NAMES[letter], "markersize": 3.5}
            panel.plot(own.index + 1, own, "o", **look)
        panel.axhline(1, color="#8b949e", linewidth=0.8)
        panel.set(title=setting, xlabel="categories, by number of train images", yscale="log")
    _common_ratios(axes)
    axes[0].set_ylabel("discouraging / encouraging")
    axes[0].legend(fontsize=8)
    return figure


def rare_scores(mechanism: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """Median score of matched rare objects in each run; a line joins the runs of a seed.

    Args:
        mechanism: one row per run, :attr:`pipeline_steps.analysis.ablations.mechanism.Mechanism.runs`.
        means: its means by setting.
    """
    column = "median_score_matched_r"
    means = means[means[column].notna()]
    if means.empty:
        raise UserError("no detections tables")
    settings = means["setting"].tolist()
    figure, (axes,) = new_figure(width=max(4.2, 1.0 * len(settings) + 1.5), height=3.3)
    by_seed = mechanism[mechanism["setting"].isin(settings)].pivot(index="seed", columns="setting", values=column)
    for _, values in by_seed.dropna(how="all").iterrows():
        axes.plot(range(len(settings)), values[settings], ".-", color="#b8bfc6", linewidth=0.9)
    look: dict[str, Any] = {"color": GROUP_COLOURS["r"], "markersize": 26, "markeredgewidth": 2.5}
    axes.plot(range(len(settings)), means[column], "_", **look)
    axes.set_xticks(range(len(settings)), settings)
    axes.set(ylabel="median score", xlim=(-0.5, len(settings) - 0.5))
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    return figure
