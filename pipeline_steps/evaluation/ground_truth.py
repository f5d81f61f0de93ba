"""LVIS ground truth as the evaluator needs it, checked before anything is computed.

Symbols: N images, C categories, G annotations. "Judged" categories of an image are those that are annotated in it or
verified to be absent (``neg_category_ids``): LVIS is a federated data set, and a detection of any other category is
neither right nor wrong there.
"""

import copy
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.files import read_json, without_garbage_collection
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import LEFT_OUT
from pipeline_steps.data.checks.masks import add_findings, chunks
from pipeline_steps.data.lvis import LvisDataset, read_lvis

log = logging.getLogger(__name__)

FREQUENCIES = ("r", "c", "f")  # frequency letters of LVIS categories: rare, common, frequent


@dataclass(frozen=True, eq=False)  # equal and hashed by identity: what is made from it can be kept
class GroundTruth:
    """Ground truth of one split. Annotations without area are left out, as the official evaluator leaves them out."""

    path: Path  # the file
    images: list[dict[str, Any]]  # image records, ascending id
    annotations: list[dict[str, Any]]  # annotation records in file order
    categories: list[dict[str, Any]]  # category records, ascending id

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
        judged = self._listed("neg_category_ids")
        judged[self.annotation_pairs[:, 0], self.annotation_pairs[:, 1]] = True
        return judged

    @cached_property
    def loose(self) -> np.ndarray:
        """Whether not every object of a category is annotated in an image, bool[N, C]."""
        return self._listed("not_exhaustive_category_ids")

    def _listed(self, key: str) -> np.ndarray:
        listed = np.zeros((len(self.images), len(self.categories)), bool)
        for row, image in zip(listed, self.images):
            row[np.searchsorted(self.category_ids, image[key])] = True
        return listed


def require_masks(dataset: LvisDataset, iou_type: str) -> None:
    """Refuse ground truth whose masks cannot be evaluated, and name in the log what no detection can match.

    Args:
        iou_type: ``bbox`` leaves the masks unread.

    Raises:
        UserError: an annotation without mask, or with a damaged one.
    """
    findings = copy.deepcopy(dataset.findings)
    if iou_type == "segm":
        annotations = [annotation for group in dataset.annotations.values() for annotation in group]
        images = [dataset.image_by_id[annotation.image_id] for annotation in annotations]
        with without_garbage_collection():
            for part, masks in chunks(annotations, images):
                add_findings(masks.codes, annotations[part], catalogue.MASKS, findings)
    findings.refuse(dataset.path, "evaluation")
    for kind in findings.kinds.values():
        if kind.check.training == LEFT_OUT and not kind.check.evaluation:
            log.warning(
                "%s: %d objects that no detection can match: %s: %s",
                dataset.path, kind.count, kind.check.name, "; ".join(kind.examples),
            )  # fmt: skip


def read_ground_truth(path: str | Path, iou_type: str) -> GroundTruth:
    """Read and check an LVIS annotation file.

    Args:
        path: annotations of train or val, or of a data set in the same format.
        iou_type: ``segm`` also asks for a sound segmentation in every annotation.

    Raises:
        UserError: the file is missing, truncated or no LVIS ground truth; the message names annotation and image.
    """
    path = Path(path)
    require_masks(read_lvis(path, "val"), iou_type)
    content = read_json(path, "annotation file")
    images, categories = (sorted(content[key], key=lambda record: record["id"]) for key in ("images", "categories"))
    annotations = [annotation for annotation in content["annotations"] if annotation["area"] > 0]
    return GroundTruth(path, images, annotations, categories)
