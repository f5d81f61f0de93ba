"""Figures of the ensemble: what members bring, re-scoring against alpha and the cap, scores by frequency group."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_steps.analysis.files import read_analysis
from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.matching import FALSE, TRUE
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import (
    BAR,
    GROUP_COLOURS,
    GROUP_HATCHES,
    GROUP_LINES,
    GROUP_NAMES,
    new_figure,
)


def ensemble_gain(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Left: AP as members are added; right: what is lost without each."""
    if len(inputs.recipe.ensemble.members) < 2:
        raise UserError("the ensemble has only one member")
    frame = read_analysis(inputs.ensemble_gain, inputs.recipe, "measure_ensemble_gain")["tables"]["gain"]
    added, left_out = frame[frame["kind"] == "added"], frame[frame["kind"] == "left out"]
    figure, (left, right) = new_figure(2, height=0.5 * len(added) + 2.1, width=8.4)
    places = np.arange(len(added))
    groups = dict(zip(GROUP_COLUMNS, GROUP_NAMES))
    for key, group in groups.items():
        line: dict[str, Any] = {"marker": ".", "linestyle": GROUP_LINES[group], "color": GROUP_COLOURS[group]}
        left.plot(places, added[key], label=GROUP_NAMES[group], **line)
    left.plot(places, added["AP_fixed"], ".:", color=GROUP_COLOURS["all"], label="AP_fixed")
    left.set_xticks(places, added["members"], rotation=20, ha="right", fontsize=9)
    left.set(title="one member after the other", ylabel="box AP, per cent")
    full = added.iloc[-1]
    for k, (key, group) in enumerate(groups.items()):
        at = places + (k - 1.5) * 0.2
        bar = {"color": GROUP_COLOURS[group], "hatch": GROUP_HATCHES[group], **BAR}
        right.barh(at, full[key] - left_out[key], 0.18, **bar)
    right.set_yticks(places, [text.removeprefix("without ") for text in left_out["members"]], fontsize=9)
    right.invert_yaxis()
    right.axvline(0, color="#4d4d4d", linewidth=0.8)
    right.grid(visible=False, axis="y")
    right.set(title="lost without it", xlabel="difference in box AP")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure, frame


_CURVES = {"AP": "all", "APr": "r", "APc": "c", "APf": "f", "AP_fixed": "all"}

_MARKERS = {"all": ".", "r": "^", "c": ".", "f": "."}
"""On the right dashes tell alphas apart, so rare categories also have a marker of their own."""


def rescoring(inputs: Inputs) -> Figure:
    """Curves: AP against alpha at the usual cap, and against the cap with and without re-scoring."""
    content = read_analysis(inputs.rescoring, inputs.recipe, "sweep_rescoring")
    frame = content["tables"]["rescoring"]
    whose, usual = ("the recipe's", 1.0) if content["alpha_of_recipe"] else ("the paper's", 0.0)
    cap = inputs.recipe.evaluation.max_detections
    figure, (left, right) = new_figure(2, height=3.7)
    by_factor = frame[frame["cap"] == frame.loc[~frame["factor"].isin((0, 1)), "cap"].iloc[0]]
    for key, group in _CURVES.items():
        style = ":" if key == "AP_fixed" else GROUP_LINES[group]
        label = "AP_fixed" if key == "AP_fixed" else f"AP, {GROUP_NAMES[group]}"
        look: dict[str, Any] = {"linestyle": style, "marker": _MARKERS[group], "color": GROUP_COLOURS[group]}
        left.plot(by_factor["factor"], by_factor[key], label=label, **look)
    left.axvline(usual, color="#8b949e", linewidth=0.8)
    addends = ", ".join(f"{group} {addend:g}" for group, addend in content["alpha"].items())
    left.set(title=f"at most {cap} per image", xlabel=f"times {whose} alpha\n({addends})", ylabel="AP, per cent")
    for factor, style in ((0.0, "--"), (1.0, "-")):
        by_cap = frame[frame["factor"] == factor]
        for key in ("AP", "APr", "APf"):
            group = _CURVES[key]
            right.plot(by_cap["cap"], by_cap[key], style, marker=_MARKERS[group], color=GROUP_COLOURS[group])
        right.plot([], [], style, color="black", label=f"{whose} alpha" if factor else "no re-scoring")
    right.axvline(cap, color="#8b949e", linewidth=0.8)
    right.set(title="against the cap", xlabel="detections per image that count", xscale="log")
    right.set_xticks(by_cap["cap"], [str(one) for one in by_cap["cap"]])
    right.minorticks_off()
    right.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5, columnspacing=1.0)
    return figure


def score_distributions(inputs: Inputs) -> Figure:
    """Histograms: the models' scores of right and wrong detections, one panel per frequency group."""
    tables = read_analysis(inputs.scores, inputs.recipe, "judge_detections")["tables"]
    histograms = tables["scores"].set_index(["frequency", "verdict"])
    totals = tables["totals"].set_index(["frequency", "verdict"])
    if not totals["detections"].any():
        raise UserError(f"{inputs.scores}: no detection counts in its image")
    figure, axes = new_figure(3, height=3.1)
    for panel, letter in zip(axes, "rcf"):
        for verdict, look in (
            (FALSE, {"color": "#b8bfc6", "label": "wrong"}),
            (TRUE, {"color": GROUP_COLOURS[letter], "alpha": 0.85, "label": "right"}),
        ):
            bins = histograms.loc[letter, verdict]
            edges = [*bins["low"], bins["high"].iloc[-1]]
            panel.hist(bins["low"], edges, weights=bins["detections"], **look)
        right, wrong = totals.loc[letter, TRUE], int(totals.loc[(letter, FALSE), "detections"])
        if right["detections"]:
            panel.axvline(right["median"], color="black", linewidth=1.1, linestyle=":", label="median of right")
        panel.set_title(f"{GROUP_NAMES[letter]}\n{int(right['detections']):,} right, {wrong:,} wrong")
        panel.set(xlabel="score", xscale="log", yscale="log", ylim=(0.7, None))
    axes[0].set_ylabel("detections")
    axes[-1].legend(loc="upper left", fontsize=8)
    return figure
