"""LVIS and COCO precision through hotcoco, an evaluator in Rust that knows nothing of ours.

Its LVIS precision array is bit-identical to the official one if the detections are prepared as here.

Symbols: n detections in file order, m those that can change a result.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from pipeline_steps.common.files import without_garbage_collection
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.lvis_official import as_records
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results
from pipeline_steps.evaluation.selection import within_cap


def _masks(
    truth: GroundTruth, results: Results, images: np.ndarray, rows: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """RLE objects of ``rows`` and their areas; detections of an image share the list that holds its size."""
    sizes = [size.tolist() for size in truth.sizes]
    packed, areas = results.sound_masks(rows, truth.sizes[images[rows]])
    masks = [{"size": sizes[image], "counts": text} for image, text in zip(images[rows].tolist(), packed.texts())]
    return masks, areas.astype(np.float64)


def _ground_truth(truth: GroundTruth, iou_type: str) -> hotcoco.COCO:
    shape = "segmentation" if iou_type == "segm" else "bbox"
    names = ("id", "image_id", "category_id", "area", "bbox", shape)
    return hotcoco.COCO(
        {
            "images": [
                {
                    name: image[name]
                    for name in ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")
                }
                for image in truth.images
            ],
            "annotations": [{name: annotation[name] for name in names} for annotation in truth.annotations],
            "categories": [
                {"id": category["id"], "name": str(category["id"]), "frequency": category["frequency"]}
                for category in truth.categories
            ],
        }
    )


def _accumulate(
    coco: hotcoco.COCO,
    columns: np.ndarray,
    masks: Any,
    areas: np.ndarray,
    iou_type: str,
    category_count: int,
) -> Accumulated:
    with contextlib.redirect_stdout(io.StringIO()):
        detections = coco.load_res(columns, segmentation=masks)
        if masks is not None and len(columns):
            # The area ranges go by the mask's area, as in results files without boxes; it was taken from the boxes.
            detections.update_anns(ids=np.arange(1, len(columns) + 1), area=areas)
        # The caps were applied before; this marks the detections as final for the LVIS protocol.
        run = hotcoco.COCOeval(coco, detections.cap_detections_per_image(None), iou_type, lvis_style=True)
        run.params.max_dets = [max(1, len(columns))]  # else 300 of one category in one image
        run.evaluate()
        run.accumulate()
        result = run.eval
    assert result is not None
    precision, recall = (np.ascontiguousarray(result[name][..., 0]) for name in ("precision", "recall"))
    assert precision.shape == (10, 101, category_count, 4), precision.shape
    return Accumulated(precision, recall)


def evaluate_lvis(
    truth: GroundTruth, results: Results, iou_type: str, max_detections: int, fixed_per_category: int
) -> list[Accumulated]:
    """Precision and recall under the cap per image, and under the cap per category."""
    images = np.searchsorted(truth.image_ids, results.image_ids)
    categories = np.minimum(np.searchsorted(truth.category_ids, results.category_ids), len(truth.category_ids) - 1)
    judged = (truth.category_ids[categories] == results.category_ids) & truth.judged[images, categories]
    capped = within_cap(images, results.scores, max_detections)
    fixed = within_cap(results.category_ids, results.scores, fixed_per_category)
    rows = np.flatnonzero(judged)
    with without_garbage_collection():
        coco = _ground_truth(truth, iou_type)
        masks = None
        if iou_type == "segm":
            masks, areas = _masks(truth, results, images, rows)
            boxes = np.zeros((len(rows), 4))
        else:
            assert results.boxes is not None
            boxes = results.boxes[rows]
            areas = boxes[:, 2] * boxes[:, 3]
        columns = np.concatenate(
            [results.image_ids[rows, None], boxes, results.scores[rows, None], results.category_ids[rows, None]], axis=1
        ).astype(np.float64)
        found = []
        for selection in (capped, fixed):
            picked = np.flatnonzero(selection[rows] & (areas > 0))
            chosen = None if masks is None else [masks[position] for position in picked.tolist()]
            found.append(_accumulate(coco, columns[picked], chosen, areas[picked], iou_type, len(truth.categories)))
        return found


def evaluate_coco(path: Path, results: Results, iou_type: str) -> Accumulated:
    """Precision and recall by the COCO protocol of at most 100 detections."""
    truth = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    rows = np.flatnonzero(np.isin(results.category_ids, [category["id"] for category in truth["categories"]]))
    records = as_records(results, rows, np.array([sizes[image] for image in results.image_ids[rows].tolist()]))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = hotcoco.COCO(truth)
        run = hotcoco.COCOeval(coco, coco.load_res(records), iou_type)
        run.evaluate()
        run.accumulate()
    return Accumulated(*(np.ascontiguousarray(run.eval[name][..., -1]) for name in ("precision", "recall")))
