"""Images with their labels in the form that FiftyOne keeps in its database.

The form of a sample and of a label comes from FiftyOne itself: from a sample of every kind of value, made by its own
classes (:func:`pattern_sample`) and read back from the database. Here copies of it are filled in.

Symbols: g objects and d detections of an image, T IoU thresholds.
"""

from __future__ import annotations

import io
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.analysis.scenes import MISSED, Scene, SceneReader, Shape
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.records import Annotation, ImageRecord
from pipeline_steps.evaluation.matching import FALSE, TRUE, verdicts

if TYPE_CHECKING:
    import fiftyone as fo

IOU_THRESHOLDS = (0.5, 0.75)
TRUTH = "ground_truth"
FOUND, FOUND_BY_SOME = "found", "found by some"
"""Verdicts on objects, beside ``missed``: by every model, by at least one."""

Document = dict[str, Any]


def field_name(model: str) -> str:
    """Field that holds the predictions of ``model``."""
    return "predictions_" + re.sub(r"\W", "_", model)


def pattern_sample(models: Sequence[str]) -> fo.Sample:
    """A sample with a value in every field that samples and labels have here."""
    import fiftyone as fo

    def labels(**attributes: Any) -> fo.Detections:
        common: Document = {"label": "", "bounding_box": [0.0] * 4, "mask": np.ones((1, 1), bool), "tags": [""]}
        common |= {"frequency": "", "category_id": 0, "verdict": ""}
        return fo.Detections(detections=[fo.Detection(**common, **attributes)])

    sample = fo.Sample(
        filepath="/pattern.jpg",
        tags=[""],
        metadata=fo.ImageMetadata(width=1, height=1),
        image_id=0,
        verified_absent=[""],
        not_exhaustive=[""],
    )
    sample[TRUTH] = labels(annotation_id=0, area=0.0, not_exhaustive=False)
    for name in map(field_name, models):
        sample[name] = labels(confidence=0.0, rank_score=0.0, source="", matched_annotation=0)
        for verdict in (TRUE, FALSE, MISSED):
            sample[f"{name}_{verdict}"] = 0
    return sample


def _relative(box: Sequence[float], image: ImageRecord) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1 / image.width, y1 / image.height, (x2 - x1) / image.width, (y2 - y1) / image.height]


def _stored(mask: np.ndarray) -> bytes:
    """An array as FiftyOne stores it."""
    with io.BytesIO() as file:
        np.save(file, mask, allow_pickle=False)
        return zlib.compress(file.getvalue())


def _shape_of(shape: Shape, image: ImageRecord) -> Document:
    """Box and mask of a label; the mask is cut to its own box, as FiftyOne wants it."""
    box, mask = shape.box, None
    if shape.mask is not None:
        x, y, w, h = (int(value) for value in mask_utils.toBbox(shape.mask))
        if w and h:
            mask = _stored(mask_utils.decode(shape.mask)[y : y + h, x : x + w].astype(bool))
            box = (x, y, x + w, y + h)
    return {"bounding_box": _relative(box, image), "mask": mask}


class Documents:
    """Makes documents of images.

    Args:
        pattern: the document that :func:`pattern_sample` became.
        dataset: ground truth.
        readers: scenes of each model, at :data:`IOU_THRESHOLDS`.
        split: tag of every image.
    """

    def __init__(self, pattern: Document, dataset: LvisDataset, readers: Mapping[str, SceneReader], split: str) -> None:
        self._pattern, self._dataset, self._readers, self._split = pattern, dataset, readers, split

    def sample(self, image: ImageRecord, path: Path) -> Document:
        """The document of one image with all labels."""
        from bson import ObjectId

        annotations = self._dataset.annotations[image.id]
        categories = self._dataset.categories
        scenes = {name: reader.scene(image.id) for name, reader in self._readers.items()}
        document = {
            **self._pattern,
            "_id": ObjectId(),
            "_rand": random.Random(image.id).random(),  # what FiftyOne shuffles by
            "filepath": str(path.resolve()),
            "tags": [self._split],
            "metadata": {**self._pattern["metadata"], "width": image.width, "height": image.height},
            "image_id": image.id,
            "verified_absent": [categories.names[k] for k in categories.positions(image.neg_category_ids)],
            "not_exhaustive": [categories.names[k] for k in categories.positions(image.not_exhaustive_category_ids)],
            TRUTH: self._labels(TRUTH, image, self._truths(scenes, image, annotations)),
        }
        for model, scene in scenes.items():
            name, labels = field_name(model), self._predictions(scene, annotations)
            document[name] = self._labels(name, image, labels)
            for verdict in (TRUE, FALSE):
                document[f"{name}_{verdict}"] = sum(attributes["verdict"] == verdict for _, attributes in labels)
            document[f"{name}_{MISSED}"] = sum(shape.verdict == MISSED for shape in scene.truths)
        return document

    def _labels(self, field: str, image: ImageRecord, labels: list[tuple[Shape, Document]]) -> Document:
        from bson import ObjectId

        (pattern,) = self._pattern[field]["detections"]
        return {
            **self._pattern[field],
            "detections": [
                {
                    **pattern,
                    "_id": ObjectId(),
                    "label": shape.name,
                    "frequency": GROUPS[shape.letter],
                    "category_id": shape.category_id,
                    **_shape_of(shape, image),
                    **attributes,
                }
                for shape, attributes in labels
            ],
        }

    def _predictions(self, scene: Scene, annotations: list[Annotation]) -> list[tuple[Shape, Document]]:
        image = scene.image
        present = {annotation.category_id for annotation in annotations}
        categories = np.array([shape.category_id for shape in scene.detections], np.int64)
        negative, loose = image.neg_category_ids, image.not_exhaustive_category_ids
        by_threshold = [verdicts(row, categories, present, negative, loose) for row in scene.matches]
        labels = []
        for position, shape in enumerate(scene.detections):
            matched = int(scene.matches[0, position])
            attributes = {
                "tags": [f"{row[position]}@{iou:g}" for iou, row in zip(IOU_THRESHOLDS, by_threshold)],
                "verdict": by_threshold[0][position],
                "confidence": shape.score,
                "rank_score": shape.rank_score,
                "source": shape.source,
                "matched_annotation": annotations[matched].id if matched >= 0 else None,
            }
            labels.append((shape, attributes))
        return labels

    def _truths(
        self, scenes: Mapping[str, Scene], image: ImageRecord, annotations: list[Annotation]
    ) -> list[tuple[Shape, Document]]:
        first = next(iter(scenes.values()))
        labels = []
        for position, (shape, annotation) in enumerate(zip(first.truths, annotations)):
            tags = [
                f"{MISSED}@{iou:g}:{name}"
                for name, scene in scenes.items()
                for iou, row in zip(IOU_THRESHOLDS, scene.matches)
                if position not in row
            ]
            found = sum(scene.truths[position].verdict == TRUE for scene in scenes.values())
            attributes = {
                "tags": tags,
                "verdict": FOUND if found == len(scenes) else FOUND_BY_SOME if found else MISSED,
                "annotation_id": annotation.id,
                "area": float(annotation.area),
                "not_exhaustive": annotation.category_id in image.not_exhaustive_category_ids,
            }
            labels.append((shape, attributes))
        return labels
