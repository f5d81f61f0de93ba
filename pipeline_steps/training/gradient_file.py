"""The gradient record of a training as a table beside the model: one row per window and category.

Columns: ``window`` from 0; ``images``, at which it ends; ``category_id``; and the sums of
:mod:`pipeline_steps.modeling.gradient_record`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.modeling.gradient_record import QUANTITIES
from pipeline_steps.run.result_files import GRADIENTS_FILE


def write_gradients(folder: Path, sums: torch.Tensor | None, category_ids: list[int], images: int) -> None:
    """Write ``gradients.csv``, or remove that of an earlier training if nothing was recorded.

    Args:
        folder: the model's folder.
        sums: Tensor[W, 4, C], or None.
        category_ids: the data set's own id of each of the C positions.
        images: images of the whole training.
    """
    path = folder / GRADIENTS_FILE
    if sums is None:
        path.unlink(missing_ok=True)
        return
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["window", "images", "category_id", *QUANTITIES])
        for window, table in enumerate(sums.permute(0, 2, 1).tolist()):
            end = images * (window + 1) // len(sums)
            rows.writerows(
                [window, end, category, *(f"{v:.8g}" for v in values)]
                for category, values in zip(category_ids, table, strict=True)
            )
