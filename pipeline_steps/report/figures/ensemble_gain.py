"""What each member brings to the ensemble, as measured by :mod:`pipeline_steps.analysis.ensemble_gain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_steps.analysis.files import read_analysis
from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.common.errors import UserError
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import (
    BAR,
    GROUP_COLOURS,
    GROUP_HATCHES,
    GROUP_LINES,
    GROUP_NAMES,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
