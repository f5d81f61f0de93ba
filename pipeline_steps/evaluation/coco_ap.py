"""COCO AP, for models that are trained on COCO categories.

Every category counts in every image (COCO is annotated exhaustively), crowd regions are ignored, at most 100 detections
per image and category count. Evaluated by our own matching, or by pycocotools as the official evaluator.

Symbols: n detections in file order, C categories, T, R, A as in :mod:`pipeline_steps.evaluation.precision`.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import read_json, without_garbage_collection
from pipeline_steps.data.coco import read_coco
from pipeline_steps.evaluation.ground_truth import GroundTruth, require_masks
from pipeline_steps.evaluation.lvis_official import as_records
from pipeline_steps.evaluation.matched import MatchedDetections, match_results, read_objects
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results
from pipeline_steps.evaluation.selection import within_cap

MAX_DETECTIONS = 100  # detections of one category in one image that count (COCO)


@dataclass(frozen=True)
class CocoEvaluation:
    """Result of :func:`evaluate_coco`."""

    accumulated: Accumulated  # precision and recall at MAX_DETECTIONS
    boundary: Accumulated | None  # the same by boundary IoU, where that was asked for
    categories: list[dict[str, Any]]  # category records, ascending id
    images: int  # annotated images
    annotations: np.ndarray  # annotations of each category without crowds, int64[C]
    counted: np.ndarray  # detections of each category on annotated images, int64[C]
    left_out: int  # detections on images or of categories that the annotations do not have


def _needed(content: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """The keys that the evaluators use: others were not checked."""
    annotation = ("id", "image_id", "category_id", "area", "bbox", "iscrowd", *["segmentation"] * (iou_type == "segm"))
    keys = {"images": ("id", "height", "width"), "annotations": annotation}
    return {
        "categories": content["categories"],
        **{name: [{key: r[key] for key in kept if key in r} for r in content[name]] for name, kept in keys.items()},
    }


def _match(
    path: Path, content: dict[str, Any], results: Results, rows: np.ndarray, iou_type: str, ratio: float | None
) -> MatchedDetections:
    """Detections ``rows``, matched: every category is judged in every image."""
    images, categories = (sorted(content[key], key=lambda record: record["id"]) for key in ("images", "categories"))
    truth = GroundTruth(path, images, content["annotations"], categories)
    place = np.zeros((2, len(results)), np.int64)
    place[0, rows] = np.searchsorted(truth.image_ids, results.image_ids[rows])
    place[1, rows] = np.searchsorted(truth.category_ids, results.category_ids[rows])
    chosen = np.zeros(len(results), bool)
    cells = place[0, rows] * len(categories) + place[1, rows]
    chosen[rows] = within_cap(cells, results.scores[rows], MAX_DETECTIONS)
    every = np.ones((len(images), len(categories)), bool)
    return match_results(
        results, place[0], place[1], chosen, every, ~every, read_objects(truth, iou_type), truth.sizes,
        empty_counts=True, boundary_ratio=ratio,
    )  # fmt: skip


def _by_package(
    content: dict[str, Any], results: Results, rows: np.ndarray, sizes: dict[int, tuple[int, int]], iou_type: str
) -> Accumulated:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with without_garbage_collection(), contextlib.redirect_stdout(io.StringIO()):
        records = as_records(results, rows, np.array([sizes[image] for image in results.image_ids[rows].tolist()]))
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(records), iou_type)
        run.evaluate()
        run.accumulate()
    # The last number of detections is 100.
    return Accumulated(*(np.ascontiguousarray(run.eval[name][..., -1]) for name in ("precision", "recall")))


def evaluate_coco(
    path: str | Path,
    results: Results,
    iou_type: str,
    evaluator: str = "compiled",
    boundary_ratio: float | None = None,
) -> CocoEvaluation:
    """Evaluate ``results`` against the COCO annotations ``path``.

    Detections on images that the annotations do not have are left out and counted: the images of LVIS v1 val, for one,
    are not all in COCO val.

    Args:
        results: detections with COCO category ids.
        evaluator: ``compiled``, ours, or ``official`` for pycocotools.
        boundary_ratio: see :func:`match_results`.

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
    table = _match(path, content, results, rows, iou_type, boundary_ratio)
    official = evaluator == "official"
    place = {category_id: position for position, category_id in enumerate(category_ids.tolist())}
    annotated = [place[a["category_id"]] for a in content["annotations"] if not a.get("iscrowd")]
    return CocoEvaluation(
        accumulated=_by_package(content, results, rows, sizes, iou_type) if official else table.accumulated(),
        boundary=None if table.boundary is None else table.boundary.accumulated(),
        categories=categories,
        images=len(sizes),
        annotations=np.bincount(annotated, minlength=len(categories)),
        counted=np.bincount(np.searchsorted(category_ids, results.category_ids[rows]), minlength=len(categories)),
        left_out=int((~known).sum()),
    )
