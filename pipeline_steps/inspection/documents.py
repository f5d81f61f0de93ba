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
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.analysis.scenes import MISSED, Scene, Shape
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.records import Annotation, ImageRecord
from pipeline_steps.evaluation.errors import ERRORS, error_codes
from pipeline_steps.evaluation.matching import FALSE, TRUE

if TYPE_CHECKING:
    import fiftyone as fo

IOU_THRESHOLDS = (0.5, 0.75)
TRUTH = "ground_truth"
FOUND, FOUND_BY_SOME = "found", "found by some"
"""Verdicts on objects, beside ``missed``: by every model, by at least one."""

UNEXPLAINED = "missed"
"""Tag of objects that no detection matches, nor would match if it were fixed (TIDE's missed), before the model."""

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
        own: Document = {"confidence": 0.0, "rank_score": 0.0, "source": "", "matched_annotation": 0}
        sample[name] = labels(**own, error="", confused_with="")
        for verdict in (TRUE, FALSE, MISSED):
            sample[f"{name}_{verdict}"] = 0
    return sample


def _stored(mask: np.ndarray) -> bytes:
    """An array as FiftyOne stores it."""
    with io.BytesIO() as file:
        np.save(file, mask, allow_pickle=False)
        return zlib.compress(file.getvalue())


def _label(shape: Shape, image: ImageRecord) -> Document:
    """What every label has; its mask is cut to its own box, as FiftyOne wants it."""
    (x1, y1, x2, y2), mask = shape.box, None
    if shape.mask is not None:
        x, y, w, h = (int(value) for value in mask_utils.toBbox(shape.mask))
        if w and h:
            mask = _stored(mask_utils.decode(shape.mask)[y : y + h, x : x + w].astype(bool))
            x1, y1, x2, y2 = x, y, x + w, y + h
    return {
        "label": shape.name,
        "frequency": GROUPS[shape.letter],
        "category_id": shape.category_id,
        "bounding_box": [x1 / image.width, y1 / image.height, (x2 - x1) / image.width, (y2 - y1) / image.height],
        "mask": mask,
    }


def errors_of(scene: Scene) -> tuple[list[str], list[int]]:
    """TIDE's error of each detection that is drawn, "" for none, and the object that it is about, or -1.

    An object is what a classification or a localisation error is about; see :mod:`pipeline_steps.evaluation.errors`.
    """
    if not scene.detections or not scene.truths:
        false = [verdict == FALSE for verdict in scene.verdicts[0]]
        return [ERRORS[4] if wrong else "" for wrong in false], [-1] * len(false)
    every = (*scene.detections, *scene.truths)
    by_masks = all(shape.mask is not None for shape in every)
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (shape.box for shape in every)]
    shapes: list[Any] = [shape.mask for shape in every] if by_masks else boxes
    count = len(scene.detections)
    ious = np.asarray(mask_utils.iou(shapes[:count], shapes[count:], [0] * len(scene.truths)))
    own, theirs = (np.array([s.category_id for s in group]) for group in (scene.detections, scene.truths))
    same, other = (np.where(alike, ious, 0.0) for alike in (own[:, None] == theirs, own[:, None] != theirs))
    codes = error_codes(np.array(scene.verdicts[0]) == FALSE, same.max(axis=1), other.max(axis=1))
    aims = np.select([codes == 1, codes == 0], [same.argmax(axis=1), other.argmax(axis=1)], -1)
    return [ERRORS[code] if code >= 0 else "" for code in codes.tolist()], aims.tolist()


def _predictions(scene: Scene, annotations: Sequence[Annotation]) -> list[Document]:
    """Labels of what a model says of an image."""
    labels, (errors, aims) = [], errors_of(scene)
    for position, shape in enumerate(scene.detections):
        matched = int(scene.matches[0, position])
        own = {
            "tags": [f"{row[position]}@{iou:g}" for iou, row in zip(IOU_THRESHOLDS, scene.verdicts)],
            "verdict": shape.verdict,
            "error": errors[position],
            "confused_with": scene.truths[aims[position]].name if errors[position] == ERRORS[0] else "",
            "confidence": shape.score,
            "rank_score": shape.rank_score,
            "source": shape.source,
            "matched_annotation": annotations[matched].id if matched >= 0 else None,
        }
        labels.append(_label(shape, scene.image) | own)
    return labels


def _truths(scenes: Mapping[str, Scene], image: ImageRecord, annotations: Sequence[Annotation]) -> list[Document]:
    """Labels of what is annotated in an image, with what the models miss of it."""
    labels = []
    aimed = {name: errors_of(scene)[1] for name, scene in scenes.items()}
    for position, annotation in enumerate(annotations):
        shapes = [scene.truths[position] for scene in scenes.values()]
        found = sum(shape.verdict == TRUE for shape in shapes)
        own = {
            "tags": [
                f"{MISSED}@{iou:g}:{name}"
                for name, scene in scenes.items()
                for iou, row in zip(IOU_THRESHOLDS, scene.matches)
                if position not in row
            ]
            + [
                f"{UNEXPLAINED}:{name}"
                for name, scene in scenes.items()
                if position not in scene.matches[0] and position not in aimed[name]
            ],
            "verdict": FOUND if found == len(scenes) else FOUND_BY_SOME if found else MISSED,
            "annotation_id": annotation.id,
            "area": float(annotation.area),
            "not_exhaustive": annotation.category_id in image.not_exhaustive_category_ids,
        }
        labels.append(_label(shapes[0], image) | own)
    return labels


def image_document(pattern: Document, dataset: LvisDataset, scenes: Mapping[str, Scene], **own: Any) -> Document:
    """The document of one image with all labels.

    Args:
        pattern: the document that :func:`pattern_sample` became.
        scenes: the image with the detections of each model, at :data:`IOU_THRESHOLDS`.
        own: what else the sample has: ``filepath`` and ``tags``.
    """
    from bson import ObjectId

    image = next(iter(scenes.values())).image
    annotations, categories = dataset.annotations[image.id], dataset.categories
    document = {
        **pattern,
        "_id": ObjectId(),
        "_rand": random.Random(image.id).random(),  # what FiftyOne shuffles by
        "metadata": {**pattern["metadata"], "width": image.width, "height": image.height},
        "image_id": image.id,
        "verified_absent": [categories.names[k] for k in categories.positions(image.neg_category_ids)],
        "not_exhaustive": [categories.names[k] for k in categories.positions(image.not_exhaustive_category_ids)],
        **own,
    }
    labels = {TRUTH: _truths(scenes, image, annotations)}
    for model, scene in scenes.items():
        name = field_name(model)
        labels[name] = _predictions(scene, annotations)
        for verdict in (TRUE, FALSE):
            document[f"{name}_{verdict}"] = scene.verdicts[0].count(verdict)
        document[f"{name}_{MISSED}"] = sum(shape.verdict == MISSED for shape in scene.truths)
    for name, found in labels.items():
        (form,) = pattern[name]["detections"]
        document[name] = {**pattern[name], "detections": [{**form, "_id": ObjectId(), **label} for label in found]}
    return document
