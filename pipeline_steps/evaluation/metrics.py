"""Evaluation results as they are written: metrics (JSON) and one row per category (CSV).

Every metrics file has the keys :data:`KEYS`, in per cent (0..100) or null where there is no ground truth; everything
else in it says how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.evaluation.coco_ap import MAX_DETECTIONS, evaluate_coco
from pipeline_steps.evaluation.ground_truth import FREQUENCIES, GroundTruth, read_ground_truth
from pipeline_steps.evaluation.lvis_ap import Evaluator, LvisEvaluation, evaluate_lvis
from pipeline_steps.evaluation.precision import by_category, group_curves, summarize
from pipeline_steps.evaluation.results import Results, read_results

FIXED_KEYS = ("AP_fixed", "APr_fixed", "APc_fixed", "APf_fixed")
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", *FIXED_KEYS)
"""Keys that every metrics file has."""


def _inputs(**files: Path) -> dict[str, Any]:
    return {name: {"file": path.name, "sha256": file_digest(path)} for name, path in files.items()}


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 4) for value in values.tolist()]


def _category_rows(
    categories: list[dict[str, Any]], columns: dict[str, Any], train: CategoryList | None = None
) -> pd.DataFrame:
    counts = {category.id: category.image_count for category in train.categories} if train is not None else {}
    return pd.DataFrame(
        {
            "category_id": [category["id"] for category in categories],
            "name": [category.get("name", "") for category in categories],
            "frequency": [category.get("frequency", "") for category in categories],
            # Not the ground truth's own image_count: in a val file it counts val images.
            "train_images": pd.array([counts.get(category["id"]) for category in categories], dtype="Int64"),
            **columns,
        }
    )


def _lvis_counts(truth: GroundTruth, evaluation: LvisEvaluation) -> dict[str, Any]:
    present = np.unique(truth.annotation_pairs[:, 1])
    return {
        "images": len(truth.images),
        "images_with_detections": evaluation.images_with_detections,
        "annotations": len(truth.annotations),
        "detections": evaluation.detections,
        "detections_of_unknown_categories": evaluation.unknown_categories,
        "categories_with_ground_truth": {
            "all": len(present),
            **{letter: int((truth.frequencies[present] == letter).sum()) for letter in FREQUENCIES},
        },
    }


def lvis_metrics(
    annotations: Path,
    detections: Path,
    iou_type: str,
    max_detections: int,
    fixed_per_category: int,
    evaluator: Evaluator,
    train: CategoryList | None = None,
    lvis_ids: Mapping[int, int] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """LVIS AP and AP_fixed of a detections file: the metrics, and a row per category.

    ``train_images`` of the rows is the ``image_count`` in ``train``, the categories of the train file; without them,
    or without a count there, it is missing.

    ``lvis_ids`` is for an expert: LVIS category id by own category id. Detections of other categories are left out
    before any cap, and the figures and rows are those of the LVIS categories that it names.

    Raises:
        UserError: see :func:`read_ground_truth`, :func:`read_results`, :func:`evaluate_lvis`; an expert without any
            detection of a shared category.
    """
    truth = read_ground_truth(annotations, iou_type)
    results = read_results(detections, iou_type)
    shared = np.ones(len(truth.categories), bool)
    if lvis_ids is not None:
        results = results.mapped(lvis_ids)
        shared = np.isin(truth.category_ids, list(lvis_ids.values()))
        if not len(results):
            raise UserError(f"{detections}: no detection of a category that is shared with {annotations}")
    evaluation = evaluate_lvis(truth, results, iou_type, max_detections, fixed_per_category, evaluator)
    capped, uncapped = evaluation.capped.restricted_to(shared), evaluation.fixed.restricted_to(shared)
    fixed = summarize(uncapped, truth.frequencies)
    values = summarize(capped, truth.frequencies)
    values |= {f"{key}_fixed": fixed[key] for key in ("AP", "APr", "APc", "APf")}
    metrics = {
        **{key: values[key] for key in KEYS},
        "AR": values["AR"],
        "format": "lvis",
        "iou_type": iou_type,
        "evaluator": evaluator,
        "recipe": results.recipe,
        "max_detections": max_detections,
        "fixed_per_category": fixed_per_category,
        "detections_per_image": evaluation.detections_per_image,
        **({} if lvis_ids is None else {"shared_categories": int(shared.sum())}),
        "counts": _lvis_counts(truth, evaluation),
        "precision_at_recall": group_curves(capped, truth.frequencies),
        "inputs": _inputs(annotations=annotations, detections=detections),
    }
    pairs = truth.annotation_pairs
    count = len(truth.categories)
    table = _category_rows(
        truth.categories,
        {
            "annotations": np.bincount(pairs[:, 1], minlength=count),
            "annotated_images": np.bincount(np.unique(pairs, axis=0)[:, 1], minlength=count),
            "detections": evaluation.counted,
            "AP": _rounded(by_category(capped)),
            "AP_fixed": _rounded(by_category(uncapped)),
        },
        train,
    )
    return metrics, table[shared]


def coco_metrics(
    annotations: Path, detections: Path, iou_type: str, evaluator: Evaluator
) -> tuple[dict[str, Any], pd.DataFrame]:
    """COCO AP of a detections file: the metrics (frequency groups and AP_fixed are null), and a row per category.

    Raises:
        UserError: see :func:`read_results`, :func:`evaluate_coco`.
    """
    results: Results = read_results(detections, iou_type)
    evaluation = evaluate_coco(annotations, results, iou_type, evaluator)
    values = summarize(evaluation.accumulated, np.full(len(evaluation.categories), ""))
    metrics = {
        **{key: values.get(key) for key in KEYS},
        "AR": values["AR"],
        "format": "coco",
        "iou_type": iou_type,
        "evaluator": evaluator,
        "recipe": results.recipe,
        "max_detections": MAX_DETECTIONS,
        "counts": {
            "images": evaluation.images,
            "annotations": int(evaluation.annotations.sum()),
            "detections": len(results),
            "detections_left_out": evaluation.left_out,
        },
        "inputs": _inputs(annotations=annotations, detections=detections),
    }
    table = _category_rows(
        evaluation.categories,
        {
            "annotations": evaluation.annotations,
            "detections": evaluation.counted,
            "AP": _rounded(by_category(evaluation.accumulated)),
        },
    )
    return metrics, table
