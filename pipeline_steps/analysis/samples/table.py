"""Counted samples as tables: by category, and summed over the frequency groups."""

from pathlib import Path

import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.recipe import Recipe


def sample_frame(path: Path | None, recipe: Recipe) -> pd.DataFrame:
    """Counts of the count_samples step, most frequent categories first.

    Raises:
        UserError: the file is missing, damaged or of another recipe.
    """
    if path is None or not path.is_file():
        raise UserError(f"no counted samples ({path or 'none given'}); the step count_samples makes them")
    content = read_json(path, "counted samples")
    try:
        if content["recipe"] != recipe.name:
            raise UserError(f"{path} belongs to recipe {content['recipe']!r}")
        frame = pd.DataFrame(content["categories"])
        return frame.sort_values(["train_images", "category_id"], ascending=[False, True]).reset_index(drop=True)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a file of the count_samples step ({error!r})") from None


def group_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums over the categories of each group, and medians of the ratios.

    Columns: group, positives, negatives from other objects without and with the equalization loss, the share that is
    left, negatives from background, and the median over categories of negatives from other objects per positive.
    """
    rows = []
    for group in GROUPS.values():
        own = frame[frame["group"] == group]
        sums = own.sum(numeric_only=True).astype(int)
        plain, equalized = own["negatives_from_objects"], own["negatives_from_objects_equalized"]
        positives = own["positives"].clip(lower=1)
        rows.append(
            {
                "categories": group,
                "positives": sums["positives"],
                "negatives from other objects": sums[plain.name],
                "with EQL": sums[equalized.name],
                "left, %": 100.0 * equalized.sum() / max(1, plain.sum()),
                "from background": sums["negatives_from_background"],
                "median ratio": float((plain / positives).median()),
                "median ratio with EQL": float((equalized / positives).median()),
            }
        )
    return pd.DataFrame(rows)
