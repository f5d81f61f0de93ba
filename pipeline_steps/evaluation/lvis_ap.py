"""LVIS AP and AP_fixed of a detections file.

Two selections of the same detections are evaluated: at most 300 per image (LVIS AP), and no cap per image but at most
10,000 per category over the data set (AP_fixed). The order of work matters for equality with the official evaluator:
first the cap, with detections of unknown categories counted; then detections that cannot change the result are left
out (categories that are not judged in the image, boxes and masks without area); then IoU, matching and precision.

Symbols: n detections in file order, N images, C categories.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.evaluation import lvis_official
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.matched import MatchedDetections, match_results, read_objects
from pipeline_steps.evaluation.precision import Accumulated
from pipeline_steps.evaluation.results import Results
from pipeline_steps.evaluation.selection import most_per_image, within_cap

Evaluator = Literal["compiled", "official"]


@dataclass(frozen=True)
class LvisEvaluation:
    """Result of :func:`evaluate_lvis`."""

    capped: Accumulated  # under the cap per image
    fixed: Accumulated  # without a cap per image, with the cap per category
    tables: tuple[MatchedDetections, MatchedDetections]
    """The detections behind both, matched by our own matching whoever evaluates."""
    detections: int  # detections in the file
    detections_per_image: int  # the most detections that an image has in the file: AP_fixed cannot see beyond it
    images_with_detections: int  # images that have any
    unknown_categories: int  # detections of categories that the ground truth does not have
    counted: np.ndarray  # detections of each category that count under the cap per image, judged or not, int64[C]

    def boundaries(self) -> tuple[Accumulated, Accumulated]:
        """``capped`` and ``fixed`` by boundary IoU, which must have been asked for."""
        first, second = (table.boundary for table in self.tables)
        assert first is not None
        assert second is not None
        return _accumulated(first, second)


def _accumulated(first: MatchedDetections, second: MatchedDetections) -> tuple[Accumulated, Accumulated]:
    found = first.accumulated()
    return found, found if second is first else second.accumulated()


def _positions(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Position of each id in the ascending ``known`` ids, -1 for unknown ones."""
    positions = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[positions] == ids, positions, -1)


def _check(truth: GroundTruth, results: Results, images: np.ndarray, categories: np.ndarray) -> None:
    if (images < 0).any():
        unknown = np.unique(results.image_ids[images < 0])
        raise UserError(
            f"{results.path}: {len(unknown)} image ids that {truth.path} does not have: {listing(unknown.tolist())}; "
            "these are detections of another data set or split"
        )
    if (categories < 0).all():
        unknown = np.unique(results.category_ids)
        raise UserError(
            f"{results.path}: no category id is known to {truth.path} (found {listing(unknown.tolist())}); "
            "these are detections of another data set"
        )


def evaluate_lvis(
    truth: GroundTruth,
    results: Results,
    iou_type: str,
    max_detections: int = 300,
    fixed_per_category: int = 10000,
    evaluator: Evaluator = "compiled",
    least: float | None = None,
    boundary_ratio: float | None = None,
) -> LvisEvaluation:
    """Evaluate ``results`` against ``truth``.

    Args:
        results: detections with boxes or masks as ``iou_type`` asks.
        max_detections: cap per image for AP.
        fixed_per_category: cap per category for AP_fixed.
        evaluator: ``compiled``, ours, on :class:`MatchedDetections`; or ``official`` for the lvis package: the same
            figures to the last bit, in much more time and memory.
        least, boundary_ratio: see :func:`match_results`.

    Raises:
        UserError: image ids or all category ids unknown, masks of a wrong size or damaged.
    """
    images = _positions(results.image_ids, truth.image_ids)
    categories = _positions(results.category_ids, truth.category_ids)
    _check(truth, results, images, categories)
    capped = within_cap(images, results.scores, max_detections)
    fixed = within_cap(results.category_ids, results.scores, fixed_per_category)
    both = match_results(
        results, images, categories, capped | fixed, truth.judged, truth.loose, read_objects(truth, iou_type),
        truth.sizes, least, boundary_ratio=boundary_ratio,
    )  # fmt: skip
    first, second = (both if chosen[both.rows].all() else both.take(chosen[both.rows]) for chosen in (capped, fixed))
    if evaluator == "compiled":
        found = _accumulated(first, second)
    else:
        found = lvis_official.accumulate(truth, results, images, iou_type, (capped, fixed))
    known = categories >= 0
    return LvisEvaluation(
        *found,
        tables=(first, second),
        detections=len(results),
        detections_per_image=most_per_image(images),
        images_with_detections=int(np.count_nonzero(np.bincount(images))),
        unknown_categories=int((~known).sum()),
        counted=np.bincount(categories[capped & known], minlength=len(truth.categories)),
    )
