"""What each member brings to the ensemble: its boxes merged without it, and one member after the other."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_steps.analysis.average_precision import average_precision
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.detections.ensemble import EnsembleMerger, check_members
from pipeline_steps.detections.rescoring import alpha_by_category
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.results import Results
from pipeline_steps.inference.members import open_members
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths


def merged_boxes(
    recipe: Recipe, boxes: Mapping[str, Path], categories: CategoryList, names: tuple[str, ...]
) -> Results:
    """The ensemble's boxes on val if it had these members only, re-scored and capped as the recipe says.

    Raises:
        UserError: a table is missing, damaged or of another split.
    """
    members = [member for member in recipe.ensemble.members if member.name in names]
    recipe = recipe.model_copy(update={"ensemble": recipe.ensemble.model_copy(update={"members": members})})
    alphas = alpha_by_category(categories.ids, categories.frequencies, recipe.ensemble.alpha)
    with ExitStack() as stack:
        opened, _ = open_members(recipe, boxes, categories, stack)
        check_members(opened, "val")
        images = list(EnsembleMerger(opened, recipe.ensemble, alphas, recipe.ensemble.keep_per_image.val))
    merged = np.concatenate([image.boxes for image in images]).astype(np.float64)
    merged[:, 2:] -= merged[:, :2]
    return Results(
        path=boxes[names[0]],
        image_ids=np.repeat([image.image_id for image in images], [len(image) for image in images]),
        category_ids=np.concatenate([image.category_ids for image in images]).astype(np.int64),
        scores=np.concatenate([image.rank_scores for image in images]).astype(np.float64),
        boxes=merged,
        packed=None,
    )


def ensemble_gain(recipe: Recipe, boxes: Mapping[str, Path]) -> pd.DataFrame:
    """Box AP of merged members. Columns: ``kind``, ``members``, AP, APr, APc, APf, AP_fixed in per cent.

    Rows of the kind ``added``: the first member, then one member more each time, up to all; of the kind ``left out``:
    all but one. Each subset of the members is merged and evaluated once.

    Args:
        recipe: with the members, the way of merging and the caps.
        boxes: boxes table of each member on val.

    Raises:
        UserError: there are fewer than two members, or a member's boxes are missing or cannot be used.
    """
    names = tuple(member.name for member in recipe.ensemble.members)
    if len(names) < 2:
        raise UserError("the ensemble has only one member: there is nothing to leave out")
    if absent := [name for name in names if name not in boxes]:
        raise UserError(f"no boxes of the members {', '.join(absent)}")
    paths = DatasetPaths(recipe)
    categories, truth = read_categories(paths.lvis_train), read_ground_truth(paths.lvis_val, "bbox")
    subsets = [("added", f"+ {name}" if k else name, names[: k + 1]) for k, name in enumerate(names)]
    subsets += [("left out", f"without {name}", (*names[:k], *names[k + 1 :])) for k, name in enumerate(names)]
    found = {
        subset: average_precision(truth, merged_boxes(recipe, boxes, categories, subset), "bbox", recipe)
        for subset in dict.fromkeys(subset for _, _, subset in subsets)
    }
    return pd.DataFrame([{"kind": kind, "members": label, **found[subset]} for kind, label, subset in subsets])
