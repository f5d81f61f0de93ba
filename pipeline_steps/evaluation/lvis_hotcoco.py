"""LVIS precision through hotcoco, an evaluator in Rust.

Its precision array is bit-identical to the official one if the detections are prepared as here (tests compare them).

Symbols: n detections in file order, m those that can change a result.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import hotcoco
import numpy as np

from pipeline_steps.common.files import without_garbage_collection
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results


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


def accumulate(
    truth: GroundTruth,
    results: Results,
    images: np.ndarray,
    categories: np.ndarray,
    iou_type: str,
    selections: list[np.ndarray],
) -> list[Accumulated]:
    """Precision and recall of each selection of the detections.

    Args:
        truth: ground truth.
        results: n detections.
        images: int64[n], position of each detection's image.
        categories: int64[n], position of each detection's category, -1 for unknown ones.
        iou_type: ``segm`` or ``bbox``.
        selections: bool[n] each, after the caps.
    """
    judged = (categories >= 0) & truth.judged[images, categories]
    rows = np.flatnonzero(judged & np.logical_or.reduce(selections))
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
        done: list[tuple[np.ndarray, Accumulated]] = []
        for selection in selections:
            chosen = selection[rows] & (areas > 0)
            same = next((result for other, result in done if np.array_equal(other, chosen)), None)
            if same is None:
                picked = np.flatnonzero(chosen)
                same = _accumulate(
                    coco,
                    columns[picked],
                    None if masks is None else [masks[position] for position in picked.tolist()],
                    areas[picked],
                    iou_type,
                    len(truth.categories),
                )
            done.append((chosen, same))
    return [result for _, result in done]
