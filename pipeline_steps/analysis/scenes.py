"""Images with their ground truth and detections as shapes with verdicts, ready to be drawn.

Symbols: g objects of the ground truth and d drawn detections of one image. Boxes are x1 y1 x2 y2, contours lists of
points x y, both in pixels of the image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import Findings
from pipeline_steps.data.checks.masks import add_findings, read_masks
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.records import Annotation, ImageRecord
from pipeline_steps.detections.record import ImageDetections
from pipeline_steps.detections.table import TableReader
from pipeline_steps.evaluation.matching import TRUE, match_detections, verdicts

MATCH_IOU = 0.5  # IoU from which a detection of the right category is drawn as right
MISSED = "missed"  # verdict on an object of the ground truth that no drawn detection matches; ``true`` if one does


@dataclass(frozen=True)
class Shape:
    """One object or detection."""

    category_id: int
    name: str
    letter: str  # frequency letter of the category
    verdict: str  # ``true``, ``false``, ``ignored``, ``unjudged``; for ground truth ``true`` or ``missed``
    mask: dict[str, Any] | None  # RLE object, or None if there is only a box
    box: tuple[float, float, float, float]  # x1 y1 x2 y2
    score: float | None = None  # the model's own score, None for ground truth
    rank_score: float | None = None  # what it is ranked by: the score and what re-scoring adds
    source: str = ""  # model that it comes from

    def contours(self) -> list[np.ndarray]:
        """Outlines along the pixel edges, float[n, 2] each; the box if there is no mask."""
        if self.mask is None:
            x1, y1, x2, y2 = self.box
            return [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])]
        pixels = mask_utils.decode(self.mask)
        zoom = max(1, 512 // max(pixels.shape))  # contours run through pixel centres: small images need finer ones
        fine = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
        found, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        simple = [cv2.approxPolyDP(contour, 0.7, closed=True)[:, 0] for contour in found]
        return [(contour + 0.5) / zoom for contour in simple if len(contour) > 2]

    def outline(self) -> str:
        """The contours as the path of an SVG."""
        return "".join("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in contour) + "Z" for contour in self.contours())

    def centre(self) -> tuple[float, float]:
        """A point well inside."""
        x1, y1, x2, y2 = self.box
        if self.mask is None:
            return (x1 + x2) / 2, (y1 + y2) / 2
        inside = cv2.distanceTransform(np.pad(mask_utils.decode(self.mask), 1), cv2.DIST_L2, 3)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        return float(column) - 0.5, float(row) - 0.5


@dataclass(frozen=True)
class Scene:
    """One image with what is in it and what was found."""

    image: ImageRecord
    truths: list[Shape]
    detections: list[Shape]  # descending rank score; verdicts at the reader's first IoU threshold
    matches: np.ndarray  # int64[T, d], object that each detection matches at each IoU threshold of the reader, or -1
    verdicts: list[list[str]]  # T lists of d verdicts on the detections, at each IoU threshold of the reader

    def count(self, letter: str, verdict: str) -> int:
        """Number of shapes of a frequency group with a verdict; ``true`` and ``missed`` count objects."""
        shapes = self.truths if verdict in (TRUE, MISSED) else self.detections
        return sum(shape.letter == letter and shape.verdict == verdict for shape in shapes)


def truth_masks(dataset: LvisDataset, annotations: list[Annotation], image: ImageRecord) -> list[dict[str, Any] | None]:
    """Masks of the annotations of an image as RLE objects; None where there is none.

    Raises:
        UserError: a damaged mask.
    """
    findings, masks = Findings(), read_masks(annotations, [image] * len(annotations))
    add_findings(masks.codes, annotations, catalogue.MASKS, findings)
    findings.kinds.pop(catalogue.NO_MASK.name, None)
    findings.refuse(dataset.path, "evaluation")
    size = [image.height, image.width]
    return [
        None
        if value is None
        else {"size": size, "counts": rle}
        if rle
        else mask_utils.merge(mask_utils.frPyObjects(value, image.height, image.width))
        for value, rle in zip(masks.values, masks.rles)
    ]


def match_image(
    categories: np.ndarray,
    shapes: Sequence[Any],
    found: ImageDetections,
    size: Sequence[int] | None,
    iou_thresholds: Sequence[float] = (MATCH_IOU,),
) -> np.ndarray:
    """Match the detections of an image to its objects, highest rank score first.

    Args:
        categories: int[g], of the objects.
        shapes: g RLE objects, or g boxes x, y, width, height (lists, as pycocotools wants them).
        size: height and width of the masks, if these are compared; None compares boxes.

    Returns:
        int64[T, d], index of the matched object or -1.
    """
    own: list[Any] = [{"size": size, "counts": rle} for rle in found.rles or ()]
    if size is None:
        corners, extents = found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]
        own = np.concatenate([corners, extents], axis=1).astype(float).tolist()
    return match_detections(categories, shapes, found.category_ids, found.rank_scores, own, iou_thresholds)


def _competing(found: ImageDetections, chosen: np.ndarray) -> np.ndarray:
    """bool[d]: those chosen, bool[d], and what ranks above one of them in its category and may take its object."""
    _, category = np.unique(found.category_ids, return_inverse=True)
    least = np.full(category.max(initial=-1) + 1, np.inf)
    np.minimum.at(least, category[chosen], found.rank_scores[chosen])
    return found.rank_scores >= least[category]


@dataclass(frozen=True)
class Judged:
    """Objects and detections of one image."""

    image: ImageRecord
    annotations: list[Annotation]
    objects: list[dict[str, Any] | None]  # masks of the annotations as RLE objects; None where there is none
    found: ImageDetections  # d detections, descending rank score
    matches: np.ndarray  # int64[T, d], as in Scene
    verdicts: list[list[str]]  # T lists of d verdicts


class SceneReader:
    """Scenes of a data set with the detections of a table.

    Args:
        min_score: detections of a lower score (the model's own, whatever re-scoring adds) are not drawn. The verdicts
            on the others are those of all detections.
        iou_thresholds: T thresholds of :attr:`Scene.matches`, the first of which gives the verdicts.

    Raises:
        UserError: the table is damaged, or no image of it is in the data set.
    """

    def __init__(
        self,
        dataset: LvisDataset,
        table: str | Path,
        min_score: float,
        iou_thresholds: Sequence[float] = (MATCH_IOU,),
    ) -> None:
        self.dataset, self.min_score, self.iou_thresholds = dataset, min_score, tuple(iou_thresholds)
        self._reader = TableReader(table)
        if self._reader.image_ids and not set(self._reader.image_ids) & set(dataset.image_by_id):
            raise UserError(f"{table}: none of its images is in {dataset.path}; these are detections of another split")

    def __iter__(self) -> Iterator[Scene]:
        """All images, first those of the table in its order, then those without detections."""
        others = sorted(set(self.dataset.image_by_id) - set(self.with_detections))
        return (self.scene(image_id) for image_id in [*self.with_detections, *others])

    @property
    def with_detections(self) -> list[int]:
        """Images of the data set that have detections, in the order of the table."""
        return [image_id for image_id in self._reader.image_ids if image_id in self.dataset.image_by_id]

    def judged(self, image_id: int) -> Judged:
        """Objects and detections of one image with all verdicts."""
        image, annotations = self.dataset.image_by_id[image_id], self.dataset.annotations[image_id]
        found = self._reader.image(image_id)
        # Unknown categories have no name.
        chosen = (found.scores >= self.min_score) & np.isin(found.category_ids, self.dataset.categories.ids)
        found = found.take(_competing(found, chosen))
        objects = truth_masks(self.dataset, annotations, image)
        by_masks = found.rles is not None and all(mask is not None for mask in objects)
        shapes = objects if by_masks else [list(annotation.bbox) for annotation in annotations]
        size = [image.height, image.width] if by_masks else None
        categories = np.array([annotation.category_id for annotation in annotations], np.int64)
        matches = match_image(categories, shapes, found, size, self.iou_thresholds)
        # What was needed for the verdicts only goes, unless re-scoring differs within a category there is none.
        chosen = found.scores >= self.min_score
        found, matches = found.take(chosen), matches[:, chosen]
        present, negative, loose = set(categories.tolist()), image.neg_category_ids, image.not_exhaustive_category_ids
        told = [verdicts(row, found.category_ids, present, negative, loose) for row in matches]
        return Judged(image, annotations, objects, found, matches, told)

    def scene(self, image_id: int) -> Scene:
        """The scene of one image."""
        one = self.judged(image_id)
        missed = np.where(np.isin(np.arange(len(one.annotations)), one.matches[0]), TRUE, MISSED).tolist()
        truths = []
        for annotation, mask, verdict in zip(one.annotations, one.objects, missed):
            x, y, w, h = annotation.bbox
            truths.append(self._shape(annotation.category_id, verdict, mask, (x, y, x + w, y + h)))
        found, size = one.found, [one.image.height, one.image.width]
        rles = [None] * len(found) if found.rles is None else [{"size": size, "counts": rle} for rle in found.rles]
        rows = zip(found.category_ids.tolist(), one.verdicts[0], rles, map(tuple, found.boxes.tolist()))
        scores = zip(found.scores.tolist(), found.rank_scores.tolist(), found.sources.tolist())
        detections = [self._shape(*row, *values) for row, values in zip(rows, scores)]
        return Scene(one.image, truths, detections, one.matches, one.verdicts)

    def _shape(self, category_id: int, *judged: Any) -> Shape:
        """A shape from what follows its category's name and letter."""
        categories = self.dataset.categories
        position = int(categories.positions([category_id])[0])
        return Shape(category_id, categories.names[position], str(categories.frequencies[position]), *judged)
