"""Evaluation results as they are written: metrics (JSON) and one row per category (CSV).

Every metrics file has the keys :data:`KEYS`, in per cent (0..100) or null where there is no ground truth; everything
else in it says how they came about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.evaluation.analyses import Analyses
from pipeline_steps.evaluation.coco_ap import MAX_DETECTIONS, evaluate_coco
from pipeline_steps.evaluation.ground_truth import FREQUENCIES, GroundTruth, read_ground_truth
from pipeline_steps.evaluation.lvis_ap import Evaluator, LvisEvaluation, evaluate_lvis
from pipeline_steps.evaluation.precision import (
    Accumulated,
    by_category,
    group_curves,
    recall_by_category,
    recalls,
    summarize,
)
from pipeline_steps.evaluation.results import Results, read_results

FIXED_KEYS = ("AP_fixed", "APr_fixed", "APc_fixed", "APf_fixed")
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", *FIXED_KEYS)  # keys that every metrics file has


@dataclass(frozen=True)
class Figures:
    """Figures beyond :data:`KEYS`, from the same matching."""

    recall: bool = False  # AR by size and frequency group: ARs, ARm, ARl, ARr, ARc, ARf; and of each category
    fixed_sizes: bool = False  # AP50_fixed, AP75_fixed, APs_fixed, APm_fixed, APl_fixed
    boundary_ratio: float | None = None
    """Every AP of :data:`KEYS` by boundary IoU, too, as ``AP_boundary``, ``AP_boundary_fixed`` ..., with boundaries of
    this share of the image's diagonal."""

    def of(
        self, first: Accumulated, frequencies: np.ndarray, found: Mapping[str, Mapping[str, float | None]]
    ) -> dict[str, Any]:
        """The figures.

        Args:
            first: the evaluation itself, of which AR is taken.
            found: summaries by suffix: "" and, where they exist, "_fixed", "_boundary" and "_boundary_fixed".
        """
        metrics: dict[str, Any] = recalls(first, frequencies) if self.recall else {}
        if self.fixed_sizes and "_fixed" in found:
            metrics |= {f"{key}_fixed": found["_fixed"][key] for key in KEYS[1:6]}
        for suffix in ("_boundary", "_boundary_fixed"):
            if suffix in found:
                metrics |= {f"{key}{suffix}": found[suffix][key] for key in KEYS[:9]}
        if self.boundary_ratio is not None:
            metrics["boundary_ratio"] = self.boundary_ratio
        return metrics

    def columns(self, accumulated: Mapping[str, Accumulated | None]) -> dict[str, list[float | None]]:
        """The same by category, float[C] each."""
        columns = {"AR": _rounded(recall_by_category(first))} if self.recall and (first := accumulated[""]) else {}
        for suffix in ("_boundary", "_boundary_fixed"):
            if (one := accumulated.get(suffix)) is not None:
                columns[f"AP{suffix}"] = _rounded(by_category(one))
        return columns


def _summaries(
    accumulated: Mapping[str, Accumulated | None], frequencies: np.ndarray
) -> dict[str, dict[str, float | None]]:
    return {suffix: summarize(one, frequencies) for suffix, one in accumulated.items() if one is not None}


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
    figures: Figures = Figures(),
    analyses: Analyses | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """LVIS AP and AP_fixed of a detections file, and what else is asked for: the metrics, and a row per category.

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
    evaluation = evaluate_lvis(
        truth, results, iou_type, max_detections, fixed_per_category, evaluator,
        analyses.least if analyses else None, figures.boundary_ratio,
    )  # fmt: skip
    capped, uncapped = evaluation.capped.restricted_to(shared), evaluation.fixed.restricted_to(shared)
    every: dict[str, Accumulated | None] = {"": capped, "_fixed": uncapped}
    if figures.boundary_ratio is not None:
        every |= zip(("_boundary", "_boundary_fixed"), (one.restricted_to(shared) for one in evaluation.boundaries()))
    found = _summaries(every, truth.frequencies)
    values = found[""] | {f"{key}_fixed": found["_fixed"][key] for key in ("AP", "APr", "APc", "APf")}
    metrics = {
        **{key: values[key] for key in KEYS},
        "AR": values["AR"],
        **figures.of(capped, truth.frequencies, found),
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
    if analyses:
        metrics |= analyses.run(truth, results, *evaluation.tables, shared)
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
            **figures.columns(every),
        },
        train,
    )
    return metrics, table[shared]


def coco_metrics(
    annotations: Path, detections: Path, iou_type: str, evaluator: Evaluator, figures: Figures = Figures()
) -> tuple[dict[str, Any], pd.DataFrame]:
    """COCO AP of a detections file: the metrics (frequency groups and AP_fixed are null), and a row per category.

    Raises:
        UserError: see :func:`read_results`, :func:`evaluate_coco`.
    """
    results: Results = read_results(detections, iou_type)
    evaluation = evaluate_coco(annotations, results, iou_type, evaluator, figures.boundary_ratio)
    frequencies = np.full(len(evaluation.categories), "")
    every = {"": evaluation.accumulated, "_boundary": evaluation.boundary}
    found = _summaries(every, frequencies)
    values = found[""]
    metrics = {
        **{key: values.get(key) for key in KEYS},
        "AR": values["AR"],
        **figures.of(evaluation.accumulated, frequencies, found),
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
            **figures.columns(every),
        },
    )
    return metrics, table
