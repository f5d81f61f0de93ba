"""LVIS precision through the official lvis package: slow and large, the reference.

The package is of numpy 1.x times and needs ``numpy.float``; it is given back while the evaluator runs, and only then.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results


@contextmanager
def numpy_float_alias() -> Iterator[None]:
    """``numpy.float`` as it was before numpy 1.24, inside the block only."""
    if "float" in vars(np):
        yield
        return
    vars(np)["float"] = float
    try:
        yield
    finally:
        del vars(np)["float"]


def as_records(results: Results, rows: np.ndarray, sizes: np.ndarray) -> list[dict[str, Any]]:
    """Detections ``rows`` as a results file holds them: masks without boxes, or boxes without masks."""
    columns = zip(results.image_ids[rows].tolist(), results.category_ids[rows].tolist(), results.scores[rows].tolist())
    records = [{"image_id": image, "category_id": category, "score": score} for image, category, score in columns]
    if results.packed is not None:
        for record, size, counts in zip(records, sizes.tolist(), results.sound_masks(rows, sizes)[0].texts()):
            record["segmentation"] = {"size": size, "counts": counts}
    else:
        assert results.boxes is not None
        for record, box in zip(records, results.boxes[rows].tolist()):
            record["bbox"] = box
    return records


def accumulate(
    truth: GroundTruth,
    results: Results,
    images: np.ndarray,
    iou_type: str,
    selections: tuple[np.ndarray, np.ndarray],
) -> tuple[Accumulated, Accumulated]:
    """Precision and recall of two selections of the detections.

    Args:
        images: int64[n], position of each detection's image.
        selections: bool[n] each, after the caps.

    Raises:
        UserError: the lvis package is not installed.
    """
    try:
        from lvis import LVIS, LVISEval, LVISResults
    except ImportError as error:
        raise UserError(
            f"the official evaluator needs the lvis package: {error}; or use --evaluator compiled"
        ) from None
    logging.getLogger("lvis").setLevel(logging.ERROR)
    done = []
    for selection in selections:
        rows = np.flatnonzero(selection)
        lvis_truth = LVIS(str(truth.path))
        # The caps were applied before, hence no cap here.
        records = as_records(results, rows, truth.sizes[images[rows]])
        evaluation = LVISEval(lvis_truth, LVISResults(lvis_truth, records, max_dets=-1), iou_type)
        with numpy_float_alias():
            evaluation.evaluate()
            evaluation.accumulate()
        done.append(Accumulated(evaluation.eval["precision"], evaluation.eval["recall"]))
    return done[0], done[1]
