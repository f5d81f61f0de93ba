"""COCO AP, for models that are trained on COCO categories.

Every category counts in every image (COCO is annotated exhaustively), crowd regions are ignored, at most 100 detections
per image and category count. Evaluated by hotcoco, or by pycocotools as the official evaluator.

Symbols: n detections in file order, C categories, T, R, A as in :mod:`pipeline_steps.evaluation.precision`.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import read_json, without_garbage_collection
from pipeline_steps.data.coco import read_coco
from pipeline_steps.evaluation.ground_truth import require_masks
from pipeline_steps.evaluation.lvis_official import as_records
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results

MAX_DETECTIONS = 100
"""Detections of one category in one image that count (COCO)."""


@dataclass(frozen=True)
class CocoEvaluation:
    """Result of :func:`evaluate_coco`."""

    accumulated: Accumulated
    """Precision and recall at :data:`MAX_DETECTIONS`."""
    categories: list[dict[str, Any]]
    """Category records, ascending id."""
    images: int
    """Annotated images."""
    annotations: np.ndarray
    """Annotations of each category without crowds, int64[C]."""
    counted: np.ndarray
    """Detections of each category on annotated images, int64[C]."""
    left_out: int
    """Detections on images or of categories that the annotations do not have."""


def _needed(content: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """The keys that the evaluators use: others were not checked."""
    annotation = ("id", "image_id", "category_id", "area", "bbox", "iscrowd", *["segmentation"] * (iou_type == "segm"))
    keys = {"images": ("id", "height", "width"), "annotations": annotation}
    return {
        "categories": content["categories"],
        **{name: [{key: r[key] for key in kept if key in r} for r in content[name]] for name, kept in keys.items()},
    }


def evaluate_coco(path: str | Path, results: Results, iou_type: str, evaluator: str = "hotcoco") -> CocoEvaluation:
    """Evaluate ``results`` against the COCO annotations ``path``.

    Detections on images that the annotations do not have are left out and counted: the images of LVIS v1 val, for one,
    are not all in COCO val.

    Args:
        path: COCO annotation file.
        results: detections with COCO category ids.
        iou_type: ``segm`` or ``bbox``.
        evaluator: ``hotcoco``, or ``official`` for pycocotools.

    Raises:
        UserError: the annotations are damaged, or no detection belongs to them.
    """
    path = Path(path)
    require_masks(read_coco(path, keep_crowds=True, purpose="evaluation"), iou_type)
    content = _needed(read_json(path, "annotation file"), iou_type)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    category_ids = np.array([category["id"] for category in categories])
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    known = np.isin(results.image_ids, list(sizes)) & np.isin(results.category_ids, category_ids)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise UserError(
            f"{results.path}: no detection has an image id and a category id of {path} "
            f"(category ids found: {listing(np.unique(results.category_ids).tolist())})"
        )
    with without_garbage_collection(), contextlib.redirect_stdout(io.StringIO()):
        records = as_records(results, rows, np.array([sizes[image] for image in results.image_ids[rows].tolist()]))
        if evaluator == "official":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            truth = COCO()
            truth.dataset = content
            truth.createIndex()
            run = COCOeval(truth, truth.loadRes(records), iou_type)
        else:
            import hotcoco

            coco = hotcoco.COCO(content)
            run = hotcoco.COCOeval(coco, coco.load_res(records), iou_type)
        run.evaluate()
        run.accumulate()
    place = {category_id: position for position, category_id in enumerate(category_ids.tolist())}
    annotated = [place[a["category_id"]] for a in content["annotations"] if not a.get("iscrowd")]
    return CocoEvaluation(
        accumulated=Accumulated(
            *(np.ascontiguousarray(run.eval[name][..., -1]) for name in ("precision", "recall"))  # last: at most 100
        ),
        categories=categories,
        images=len(sizes),
        annotations=np.bincount(annotated, minlength=len(categories)),
        counted=np.bincount(np.searchsorted(category_ids, results.category_ids[rows]), minlength=len(categories)),
        left_out=int((~known).sum()),
    )
