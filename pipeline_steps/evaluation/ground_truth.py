"""LVIS ground truth as the evaluator needs it, checked before anything is computed.

Symbols: N images, C categories, G annotations. "Judged" categories of an image are those that are annotated in it or
verified to be absent (``neg_category_ids``): LVIS is a federated data set, and a detection of any other category is
neither right nor wrong there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import read_json

FREQUENCIES = ("r", "c", "f")
"""Frequency letters of LVIS categories: rare, common, frequent."""

_IMAGE_FIELDS = ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")
_ANNOTATION_FIELDS = ("id", "image_id", "category_id", "area", "bbox")


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one split. Annotations without area are left out, as the official evaluator leaves them out."""

    path: Path
    """The file."""
    images: list[dict[str, Any]]
    """Image records, ascending id."""
    annotations: list[dict[str, Any]]
    """Annotation records in file order."""
    categories: list[dict[str, Any]]
    """Category records, ascending id."""

    @cached_property
    def image_ids(self) -> np.ndarray:
        """int64[N], ascending."""
        return np.array([image["id"] for image in self.images], np.int64)

    @cached_property
    def category_ids(self) -> np.ndarray:
        """int64[C], ascending."""
        return np.array([category["id"] for category in self.categories], np.int64)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Frequency letter of each category, str[C]."""
        return np.array([category["frequency"] for category in self.categories])

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, int64[N, 2]."""
        return np.array([(image["height"], image["width"]) for image in self.images], np.int64).reshape(-1, 2)

    @cached_property
    def annotation_pairs(self) -> np.ndarray:
        """Position of image and of category of each annotation, int64[G, 2]."""
        image_ids = np.array([annotation["image_id"] for annotation in self.annotations], np.int64)
        category_ids = np.array([annotation["category_id"] for annotation in self.annotations], np.int64)
        return np.stack(
            [np.searchsorted(self.image_ids, image_ids), np.searchsorted(self.category_ids, category_ids)], axis=1
        )

    @cached_property
    def judged(self) -> np.ndarray:
        """Whether a category is judged in an image, bool[N, C]."""
        judged = np.zeros((len(self.images), len(self.categories)), bool)
        judged[self.annotation_pairs[:, 0], self.annotation_pairs[:, 1]] = True
        for row, image in zip(judged, self.images):
            row[np.searchsorted(self.category_ids, image["neg_category_ids"])] = True
        return judged


def _require_fields(path: Path, kind: str, records: list[dict[str, Any]], names: tuple[str, ...], hint: str) -> None:
    for name in names:
        lacking = [record.get("id", position) for position, record in enumerate(records) if name not in record]
        if lacking:
            raise UserError(f"{path}: {kind} without {name!r}: {listing(lacking)} ({hint})")


def _sorted_by_id(path: Path, kind: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ordered = sorted(records, key=lambda record: record["id"])
    twice = [one["id"] for one, other in itertools.pairwise(ordered) if one["id"] == other["id"]]
    if twice:
        raise UserError(f"{path}: {kind} with the same id: {listing(twice)}")
    return ordered


def _known(path: Path, where: str, ids: list[int], known: set[int], kind: str) -> None:
    unknown = sorted(set(ids) - known)
    if unknown:
        raise UserError(f"{path}: {where} of unknown {kind}: {listing(unknown)} (damaged or mixed-up annotation file)")


def _check_annotations(path: Path, annotations: list[dict[str, Any]], iou_type: str) -> None:
    fields = (*_ANNOTATION_FIELDS, "segmentation") if iou_type == "segm" else _ANNOTATION_FIELDS
    hint = "box-only annotations can be evaluated with --iou-type bbox" if iou_type == "segm" else "damaged file"
    _require_fields(path, "annotations", annotations, fields, hint)
    _sorted_by_id(path, "annotations", annotations)
    if annotations and min(annotation["id"] for annotation in annotations) < 1:
        raise UserError(f"{path}: annotation ids must start at 1: the official evaluator takes 0 for 'no match'")
    flagged = [a["id"] for a in annotations if a.get("ignore") or a.get("iscrowd")]
    if flagged:
        raise UserError(
            f"{path}: annotations with iscrowd or ignore set: {listing(flagged)}; LVIS has none "
            "(is this a COCO file? then use --format coco)"
        )


def read_ground_truth(path: str | Path, iou_type: str) -> GroundTruth:
    """Read and check an LVIS annotation file.

    Args:
        path: annotations of train or val, or of a data set in the same format.
        iou_type: ``segm`` also asks for a segmentation in every annotation.

    Raises:
        UserError: the file is missing, truncated or no LVIS ground truth; the message names the field.
    """
    path = Path(path)
    content = read_json(path, "annotation file")
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an LVIS annotation object, found {type(content).__name__}")
    for section in ("images", "annotations", "categories"):
        if not isinstance(content.get(section), list):
            hint = " (image information of a test split has none: it cannot be evaluated)" * (section == "annotations")
            raise UserError(f"{path}: no list {section!r}{hint}")
        if not content[section] and section != "annotations":
            raise UserError(f"{path}: the list {section!r} is empty")
    images, annotations, categories = content["images"], content["annotations"], content["categories"]
    _require_fields(path, "categories", categories, ("id",), "damaged file")
    _require_fields(
        path, "categories", categories, ("frequency",), "no LVIS annotation file? COCO files: use --format coco"
    )
    wrong = [category["id"] for category in categories if category["frequency"] not in FREQUENCIES]
    if wrong:
        raise UserError(f"{path}: categories whose frequency is not r, c or f: {listing(wrong)}")
    _require_fields(path, "images", images, _IMAGE_FIELDS, "no LVIS annotation file?")
    images = _sorted_by_id(path, "images", images)
    categories = _sorted_by_id(path, "categories", categories)
    _check_annotations(path, annotations, iou_type)
    image_ids, category_ids = ({record["id"] for record in records} for records in (images, categories))
    _known(path, "annotations", [a["image_id"] for a in annotations], image_ids, "images")
    _known(path, "annotations", [a["category_id"] for a in annotations], category_ids, "categories")
    for name in ("neg_category_ids", "not_exhaustive_category_ids"):
        _known(path, name, [c for image in images for c in image[name]], category_ids, "categories")
    annotations = [annotation for annotation in annotations if 0 < annotation["area"] < float("inf")]
    return GroundTruth(path, images, annotations, categories)
