"""The verdict on every detection that counts, as one compact table: what confidence, errors and calibration stand on.

Detections are matched by the rules of the official evaluators: AP from this table is theirs to the last bit (tests
compare the precision arrays). Both selections (the cap per image, and the cap per category of AP_fixed) leave out the
lowest scores of a category in an image, so that a detection has the same verdict in both.

Symbols: n detections of the file, m that count and are judged, N images, C categories, g objects (crowd regions
included), T = 10 IoU thresholds, R = 101 recall levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.evaluation.boundary import boundary_ious, dilations
from pipeline_steps.evaluation.ground_truth import GroundTruth
from pipeline_steps.evaluation.match_kernels import match_ranked, precision_and_recall
from pipeline_steps.evaluation.overlaps import Overlaps, Shapes, box_shapes, mask_shapes, overlaps
from pipeline_steps.evaluation.precision import IOU_THRESHOLDS, Accumulated
from pipeline_steps.evaluation.results import Results

RECALLS = np.linspace(0.0, 1.0, 101)  # the R recall levels

SIZES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Pixels of all, small, medium and large objects, both ends included."""

CHUNK = 30_000  # detections whose masks are in memory at once


@dataclass(frozen=True)
class Objects:
    """g objects of the ground truth, by image and then in file order."""

    images: np.ndarray  # int64[g], position of the image
    categories: np.ndarray  # int64[g], position of the category
    crowd: np.ndarray  # bool[g]: regions (COCO); what they match is ignored, and they count as no object
    records: np.ndarray  # int64[g], position of the annotation in the file
    areas: np.ndarray  # float64[g], as annotated: by them objects are small, medium or large
    shapes: Shapes  # their masks or boxes


@dataclass(frozen=True)
class MatchedDetections:
    """m detections, ranked: by category, then descending score, then image, then file order."""

    rows: np.ndarray  # int64[m], row of the file
    images: np.ndarray  # int64[m], position of the image
    categories: np.ndarray  # int64[m], position of the category, ascending
    scores: np.ndarray  # float64[m], written scores
    true: np.ndarray  # uint16[m], bit t: matched at threshold t
    ignored: np.ndarray  # uint16[m], bit t: neither right nor wrong at threshold t
    targets: np.ndarray  # int64[m], object matched at IoU 0.5, or -1
    # uint16[3, m] each, the same among small, medium and large objects: others, what matches them, and what is
    # unmatched and of another size itself, are ignored
    sized_true: np.ndarray
    sized_ignored: np.ndarray
    # float64[2, m] and int64[2, m], see Overlaps; known where errors were asked for
    best: np.ndarray
    best_objects: np.ndarray
    objects: Objects  # the ground truth
    shape: tuple[int, int]  # N and C
    boundary: "MatchedDetections | None" = None
    """The same detections matched by the smaller one of mask IoU and boundary IoU, where that was asked for."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> "MatchedDetections":
        """Some of the detections: bool[m], or positions in ascending order."""
        names = ("rows", "images", "categories", "scores", "true", "ignored", "targets")
        wide = ("sized_true", "sized_ignored", "best", "best_objects")
        columns = {name: getattr(self, name)[..., chosen] for name in (*names, *wide)}
        return replace(self, **columns, boundary=None if self.boundary is None else self.boundary.take(chosen))

    @cached_property
    def bounds(self) -> np.ndarray:
        """int64[C + 1], where the detections of each category begin."""
        return np.searchsorted(self.categories, np.arange(self.shape[1] + 1))

    @cached_property
    def object_counts(self) -> np.ndarray:
        """int64[C], objects of each category."""
        return np.bincount(self.objects.categories[~self.objects.crowd], minlength=self.shape[1])

    def at(self, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        """Whether each detection is right, and whether it is wrong, at one of the thresholds: bool[m] each."""
        bit = np.uint16(1 << threshold)
        true = self.true & bit > 0
        return true, ~true & (self.ignored & bit == 0)

    def precision(self) -> np.ndarray:
        """The evaluators' precision array over all areas, float64[T, R, C]; -1 without objects."""
        return precision_and_recall(self.true, self.ignored, self.bounds, self.object_counts, RECALLS)[0]

    def accumulated(self) -> Accumulated:
        """Precision and recall as the evaluators give them, over all areas and by size."""
        objects = self.objects
        true, ignored = (self.true, *self.sized_true), (self.ignored, *self.sized_ignored)
        parts = []
        for k, (low, high) in enumerate(SIZES):
            inside = ~objects.crowd & (objects.areas >= low) & (objects.areas <= high)
            counts = np.bincount(objects.categories[inside], minlength=self.shape[1])
            parts.append(precision_and_recall(true[k], ignored[k], self.bounds, counts, RECALLS))
        return Accumulated(*(np.ascontiguousarray(np.stack(arrays, axis=-1)) for arrays in zip(*parts)))


def precision_at_recalls(true: np.ndarray, false: np.ndarray, objects: int) -> np.ndarray:
    """Interpolated precision, float64[R], of ranked detections: bool[k] right, bool[k] wrong; of ``objects`` > 0."""
    found, mistakes = np.cumsum(true, dtype=np.float64), np.cumsum(false, dtype=np.float64)
    precision = found / (mistakes + found + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(found / objects, RECALLS, side="left")]


def _rles(annotations: Sequence[dict[str, Any]], sizes: list[list[int]]) -> list[bytes]:
    """Compressed masks of annotations, those of an image after each other."""
    rles: list[bytes] = []
    for (_, size), pairs in groupby(zip(annotations, sizes), key=lambda pair: (pair[0]["image_id"], pair[1])):
        segmentations = [annotation["segmentation"] for annotation, _ in pairs]
        polygons = [polygon for one in segmentations if isinstance(one, list) for polygon in one]
        drawn = iter(mask_utils.frPyObjects(polygons, *size) if polygons else [])  # in one call: half of the time
        for one in segmentations:
            if isinstance(one, list):
                parts = [next(drawn) for _ in one]
                rles.append((parts[0] if len(parts) == 1 else mask_utils.merge(parts))["counts"])
            elif isinstance(one["counts"], list):
                rles.append(mask_utils.frPyObjects(one, *size)["counts"])
            else:
                rles.append(one["counts"].encode() if isinstance(one["counts"], str) else one["counts"])
    return rles


@lru_cache(maxsize=1)
def read_objects(truth: GroundTruth, iou_type: str) -> Objects:
    """The objects of ``truth``, with masks or boxes as ``iou_type`` asks; drawn once for all systems and settings."""
    images, categories = truth.annotation_pairs.T.reshape(2, -1)
    order = np.argsort(images, kind="stable")
    annotations = [truth.annotations[position] for position in order.tolist()]
    sizes = truth.sizes[images[order]]
    if iou_type == "segm":
        shapes = mask_shapes(_rles(annotations, sizes.tolist()), sizes[:, 0])
    else:
        shapes = box_shapes(np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4))
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    areas = np.array([a["area"] for a in annotations], np.float64)
    return Objects(images[order], categories[order], crowd, order, areas, shapes)


def _overlaps_of(
    results: Results, rows: np.ndarray, image_sizes: np.ndarray, images: np.ndarray, categories: np.ndarray,
    objects: Objects, least: float | None, boundary_ratio: float | None,
) -> tuple[np.ndarray, Overlaps]:  # fmt: skip
    """Areas of the detections ``rows`` and what they overlap, a chunk of them in memory at a time."""
    object_sizes = image_sizes[objects.images]
    areas, parts, sizes = [np.zeros(0)], [], image_sizes[images]
    for begin in range(0, max(1, len(rows)), CHUNK):
        part = slice(begin, begin + CHUNK)
        if results.boxes is None:
            found = mask_shapes(results.sound_masks(rows[part], sizes[part])[0], sizes[part, 0])
        else:
            found = box_shapes(results.boxes[rows[part]])
        areas.append(found.areas)
        one = overlaps(
            found, images[part], categories[part], objects.shapes, objects.images, objects.categories, objects.crowd,
            least,
        )  # fmt: skip
        if boundary_ratio is not None:
            heights, ds = object_sizes[:, 0], dilations(object_sizes, boundary_ratio)
            smaller = boundary_ious(found, objects.shapes, one, objects.crowd, heights, ds)
            one = replace(one, boundary_ious=smaller)
        parts.append(replace(one, rows=one.rows + begin))
    wide = ("best", "objects")
    names = (*wide, "rows", "targets", "ious", *["boundary_ious"] * (boundary_ratio is not None))
    columns = {n: np.concatenate([getattr(part, n) for part in parts], axis=1 if n in wide else 0) for n in names}
    return np.concatenate(areas), Overlaps(**columns)


def match_results(
    results: Results,
    images: np.ndarray,
    categories: np.ndarray,
    chosen: np.ndarray,
    judged: np.ndarray,
    loose: np.ndarray,
    objects: Objects,
    sizes: np.ndarray,
    least: float | None = None,
    empty_counts: bool = False,
    boundary_ratio: float | None = None,
) -> MatchedDetections:
    """Match detections to objects.

    Args:
        results: n detections.
        images: int64[n], position of the image of each.
        categories: int64[n], position of the category of each, -1 for unknown ones.
        chosen: bool[n], those that count under the caps. Within a category of an image the highest scores.
        judged: bool[N, C], where a detection can be right or wrong.
        loose: bool[N, C], where an unmatched one is ignored: not every object is annotated.
        sizes: int64[N, 2], height and width of each image.
        least: for errors: overlap with any object from this IoU on (TIDE: 0.1); None leaves that out.
        empty_counts: detections without area count as wrong (COCO) instead of not at all (LVIS).
        boundary_ratio: width of the boundary as a share of the image's diagonal, to match by boundary IoU, too; None
            leaves that out.
    """
    rows = np.flatnonzero(chosen & (categories >= 0) & judged[images, categories])
    at, of = images[rows], categories[rows]
    areas, found = _overlaps_of(results, rows, sizes, at, of, objects, least, boundary_ratio)
    cells = of * len(sizes) + at
    order = np.lexsort((-results.scores[rows], cells))  # stable: ties stay in file order
    if not empty_counts:
        order = order[areas[order] > 0]
    # The pairs of each detection, in the new order.
    begin, end = np.searchsorted(found.rows, order), np.searchsorted(found.rows, order, side="right")
    first = np.concatenate([[0], np.cumsum(end - begin)])
    pairs = np.repeat(begin - first[:-1], end - begin) + np.arange(first[-1])
    cells, free, areas = cells[order], loose[at, of][order], areas[order]

    def matched(ious: np.ndarray, boundary: MatchedDetections | None = None) -> MatchedDetections:
        sized = []
        for low, high in SIZES:
            outside = (objects.areas < low) | (objects.areas > high)
            others = free | (areas < low) | (areas > high)
            sized.append(
                match_ranked(
                    cells, first, found.targets[pairs], ious[pairs], objects.crowd, outside, others, IOU_THRESHOLDS
                )
            )
        true, ignored, targets = (np.stack(columns) for columns in zip(*sized))
        return MatchedDetections(
            rows[order], at[order], of[order], results.scores[rows[order]], true[0], ignored[0], targets[0],
            true[1:], ignored[1:], found.best[:, order], found.objects[:, order], objects,
            (len(sizes), judged.shape[1]), boundary,
        )  # fmt: skip

    table = matched(found.ious, None if found.boundary_ious is None else matched(found.boundary_ious))
    return table.take(np.lexsort((-table.scores, table.categories)))  # stable: ties stay by image, then in file order
