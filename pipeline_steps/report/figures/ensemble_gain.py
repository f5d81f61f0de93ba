"""What each member brings to the ensemble: its boxes merged without it, and one member after the other.

Symbols: m members in the recipe's order.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_steps.analysis.measured import GROUP_COLUMNS
from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.precision import summarize
from pipeline_steps.evaluation.results import Results
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import (
    BAR,
    GROUP_COLOURS,
    GROUP_HATCHES,
    GROUP_LINES,
    GROUP_NAMES,
    MissingInputError,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline_steps.evaluation.ground_truth import GroundTruth

FIGURES = (*GROUP_COLUMNS, "AP_fixed")


def merged_boxes(inputs: Inputs, names: tuple[str, ...]) -> Results:
    """The ensemble's boxes on val if it had these members only, re-scored and capped as the recipe says.

    Raises:
        UserError: a table is missing, damaged or of another split.
    """
    from pipeline_steps.detections.ensemble import EnsembleMerger, check_members
    from pipeline_steps.detections.rescoring import alpha_by_category
    from pipeline_steps.inference.members import open_members

    recipe, categories = inputs.recipe, inputs.train_categories
    members = [member for member in recipe.ensemble.members if member.name in names]
    recipe = recipe.model_copy(update={"ensemble": recipe.ensemble.model_copy(update={"members": members})})
    alphas = alpha_by_category(categories.ids, categories.frequencies, recipe.ensemble.alpha)
    with ExitStack() as stack:
        opened, _ = open_members(recipe, inputs.boxes, categories, stack)
        check_members(opened, "val")
        merger = EnsembleMerger(opened, recipe.ensemble, alphas, recipe.ensemble.keep_per_image.val)
        images = list(merger)
    boxes = np.concatenate([image.boxes for image in images]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return Results(
        path=inputs.boxes[names[0]],
        image_ids=np.repeat([image.image_id for image in images], [len(image) for image in images]),
        category_ids=np.concatenate([image.category_ids for image in images]).astype(np.int64),
        scores=np.concatenate([image.rank_scores for image in images]).astype(np.float64),
        boxes=boxes,
        packed=None,
    )


def _row(inputs: Inputs, truth: GroundTruth, kind: str, label: str, names: tuple[str, ...]) -> dict[str, object]:
    settings = inputs.recipe.evaluation
    results = merged_boxes(inputs, names)
    evaluation = evaluate_lvis(truth, results, "bbox", settings.max_detections, settings.fixed_per_category)
    values = summarize(evaluation.capped, truth.frequencies)
    values |= {"AP_fixed": summarize(evaluation.fixed, truth.frequencies)["AP"]}
    figures = {key: np.nan if values[key] is None else values[key] for key in FIGURES}
    return {"kind": kind, "members": label, **figures}


def gain_frame(inputs: Inputs) -> pd.DataFrame:
    """Box AP of merged members. Columns: ``kind``, ``members``, AP, APr, APc, APf, AP_fixed in per cent.

    Rows of the kind ``added``: the first member, then one member more each time, up to all; of the kind ``left out``:
    all but one.

    Raises:
        MissingInputError: there are fewer than two members, or a member's boxes cannot be used.
    """
    from pipeline_steps.evaluation.ground_truth import read_ground_truth

    names = tuple(member.name for member in inputs.recipe.ensemble.members)
    if len(names) < 2:
        raise MissingInputError("the ensemble has only one member")
    if absent := [name for name in names if not inputs.boxes.get(name) or not inputs.boxes[name].is_file()]:
        raise MissingInputError(f"no boxes on val of the members {', '.join(absent)}")
    try:
        truth = read_ground_truth(inputs.paths.lvis_val, "bbox")
        rows = [
            _row(inputs, truth, "added", names[k] if k == 0 else f"+ {names[k]}", names[: k + 1])
            for k in range(len(names))
        ]
        for k, name in enumerate(names[:-1]):
            rows.append(_row(inputs, truth, "left out", f"without {name}", (*names[:k], *names[k + 1 :])))
    except UserError as error:
        raise MissingInputError(str(error)) from None
    last = {**rows[len(names) - 2], "kind": "left out", "members": f"without {names[-1]}"}  # the same merge
    return pd.DataFrame([*rows, last])


def ensemble_gain(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Left: AP as members are added; right: what is lost without each."""
    frame = gain_frame(inputs)
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
