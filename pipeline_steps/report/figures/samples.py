"""The effect of the equalization loss on the valid samples of each category (the paper, figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import GROUP_COLOURS, MissingInputError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN, EQUALIZED, BACKGROUND = "#6e7781", "#c8402f", "#a9b1ba"


def sample_frame(inputs: Inputs) -> pd.DataFrame:
    """Counts of the count_samples step, most frequent categories first.

    Raises:
        MissingInputError: the file is missing, damaged or of another recipe.
    """
    if inputs.samples is None or not inputs.samples.is_file():
        raise MissingInputError(
            f"no counted samples ({inputs.samples or 'none given'}); the step count_samples makes them"
        )
    try:
        content = read_json(inputs.samples, "counted samples")
        if content["recipe"] != inputs.recipe.name:
            raise MissingInputError(f"{inputs.samples} belongs to recipe {content['recipe']!r}")
        frame = pd.DataFrame(content["categories"])
        return frame.sort_values(["train_images", "category_id"], ascending=[False, True]).reset_index(drop=True)
    except UserError as error:
        raise MissingInputError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise MissingInputError(f"{inputs.samples} is not a file of the count_samples step ({error!r})") from None


def group_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums over the categories of each group, and medians of the ratios.

    Columns: group, positives, negatives from other objects without and with the equalization loss, the share that is
    left, negatives from background, and the median over categories of negatives from other objects per positive.
    """
    rows = []
    for group in GROUPS.values():
        own = frame[frame["group"] == group]
        plain, equalized = own["negatives_from_objects"], own["negatives_from_objects_equalized"]
        positives = own["positives"].clip(lower=1)
        rows.append(
            {
                "categories": group,
                "positives": int(own["positives"].sum()),
                "negatives from other objects": int(plain.sum()),
                "with EQL": int(equalized.sum()),
                "left, %": 100.0 * equalized.sum() / max(1, plain.sum()),
                "from background": int(own["negatives_from_background"].sum()),
                "median ratio": float((plain / positives).median()),
                "median ratio with EQL": float((equalized / positives).median()),
            }
        )
    return pd.DataFrame(rows)


def samples(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """(a) valid samples of each category, (b) negatives per positive; categories sorted by frequency."""
    frame = sample_frame(inputs)
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
