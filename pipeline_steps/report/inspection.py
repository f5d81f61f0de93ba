"""A FiftyOne data set of one split: ground truth and any model's predictions, with verdicts and saved views.

Labels carry tags such as ``true@0.5`` (matched at IoU 0.5), ``false@0.75``, ``ignored@0.5`` and ``unjudged@0.5``, and
objects of the ground truth ``missed@0.5:NAME`` for each model that does not find them. Verdicts are those of the
official evaluator.

Symbols: g objects and d detections of an image, T IoU thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.category_list import GROUPS
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.paths import DatasetPaths
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.evaluation.matching import verdicts
from pipeline_steps.report.scenes import MISSED, Scene, SceneReader, Shape

if TYPE_CHECKING:
    import fiftyone as fo

IOU_THRESHOLDS = (0.5, 0.75)
HIGH_SCORE = 0.5
"""Score from which a wrong detection is in the view of confident mistakes."""

TRUTH = "ground_truth"
_BATCH = 64


@dataclass(frozen=True)
class InspectionSettings:
    """What goes into the data set."""

    name: str
    """Name of the FiftyOne data set; one of that name is replaced."""
    split: str
    images: int | None = None
    """Images at most; None takes all."""
    min_score: float = 0.1
    """Detections of a lower score (the model's own) are left out."""


def field_name(model: str) -> str:
    """Field that holds the predictions of ``model``."""
    return "predictions_" + re.sub(r"\W", "_", model)


def _relative(box: Sequence[float], image: ImageRecord) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1 / image.width, y1 / image.height, (x2 - x1) / image.width, (y2 - y1) / image.height]


def _label(shape: Shape, image: ImageRecord, tags: list[str], **attributes: Any) -> fo.Detection:
    """A FiftyOne detection; its mask is cut to the mask's own box, as FiftyOne wants it."""
    import fiftyone as fo

    box, mask = shape.box, None
    if shape.mask is not None:
        pixels = mask_utils.decode(shape.mask)
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            mask = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(bool)
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    group = GROUPS[shape.letter]
    return fo.Detection(
        label=shape.name,
        bounding_box=_relative(box, image),
        mask=mask,
        tags=tags,
        frequency=group,
        category_id=shape.category_id,
        **attributes,
    )


def _predictions(scene: Scene, annotations: list[Any]) -> tuple[fo.Detections, dict[str, int]]:
    """Labels of one model's detections, and how many are right and wrong at the first threshold."""
    import fiftyone as fo

    image = scene.image
    present = {annotation.category_id for annotation in annotations}
    categories = np.array([shape.category_id for shape in scene.detections], np.int64)
    negative, loose = image.neg_category_ids, image.not_exhaustive_category_ids
    by_threshold = [verdicts(row, categories, present, negative, loose) for row in scene.matches]
    labels = []
    for position, shape in enumerate(scene.detections):
        tags = [f"{row[position]}@{iou:g}" for iou, row in zip(IOU_THRESHOLDS, by_threshold)]
        matched = int(scene.matches[0, position])
        labels.append(
            _label(
                shape,
                image,
                tags,
                confidence=shape.score,
                rank_score=shape.rank_score,
                source=shape.source,
                matched_annotation=annotations[matched].id if matched >= 0 else None,
            )
        )
    counts = {verdict: by_threshold[0].count(verdict) for verdict in ("true", "false")}
    return fo.Detections(detections=labels), counts


def _truths(scenes: Mapping[str, Scene], image: ImageRecord, annotations: list[Any], first: Scene) -> fo.Detections:
    import fiftyone as fo

    labels = []
    for position, (shape, annotation) in enumerate(zip(first.truths, annotations)):
        tags = [
            f"{MISSED}@{iou:g}:{name}"
            for name, scene in scenes.items()
            for iou, row in zip(IOU_THRESHOLDS, scene.matches)
            if position not in row
        ]
        labels.append(
            _label(
                shape,
                image,
                tags,
                annotation_id=annotation.id,
                area=annotation.area,
                not_exhaustive=annotation.category_id in image.not_exhaustive_category_ids,
            )
        )
    return fo.Detections(detections=labels)


def _sample(
    image: ImageRecord, readers: Mapping[str, SceneReader], dataset: LvisDataset, path: Path, split: str
) -> fo.Sample:
    import fiftyone as fo

    annotations = dataset.annotations[image.id]
    scenes = {name: reader.scene(image.id) for name, reader in readers.items()}
    names = dataset.categories.names
    sample = fo.Sample(
        filepath=str(path.resolve()),
        tags=[split],
        metadata=fo.ImageMetadata(width=image.width, height=image.height),
        image_id=image.id,
        verified_absent=[names[k] for k in dataset.categories.positions(image.neg_category_ids)],
        not_exhaustive=[names[k] for k in dataset.categories.positions(image.not_exhaustive_category_ids)],
    )
    first = next(iter(scenes.values()))
    sample[TRUTH] = _truths(scenes, image, annotations, first)
    for name, scene in scenes.items():
        labels, counts = _predictions(scene, annotations)
        sample[field_name(name)] = labels
        sample[f"{field_name(name)}_true"] = counts["true"]
        sample[f"{field_name(name)}_false"] = counts["false"]
        sample[f"{field_name(name)}_missed"] = sum(shape.verdict == MISSED for shape in scene.truths)
    return sample


def _save_views(data: fo.Dataset, models: Sequence[str]) -> None:
    from fiftyone import ViewField as F

    for model in models:
        name = field_name(model)
        missed = F("tags").contains([f"{MISSED}@{IOU_THRESHOLDS[0]:g}:{model}"])
        rare = data.filter_labels(TRUTH, (F("frequency") == "rare") & missed)
        data.save_view(f"rare misses: {model}", rare, description="Rare objects that no detection matches at IoU 0.5")
        wrong = F("tags").contains([f"false@{IOU_THRESHOLDS[0]:g}"]) & (F("confidence") >= HIGH_SCORE)
        data.save_view(
            f"confident mistakes: {model}",
            data.filter_labels(name, wrong).sort_by(F(f"{name}.detections.confidence").max(), reverse=True),
            description=f"Wrong detections with a score of at least {HIGH_SCORE:g}, highest first",
        )
    data.save_view(
        "not exhaustive",
        data.match(F("not_exhaustive").length() > 0),
        description="Images with categories of which not every object is annotated",
    )


def build_inspection(
    dataset: LvisDataset, paths: DatasetPaths, tables: Mapping[str, Path], settings: InspectionSettings
) -> fo.Dataset:
    """Make the FiftyOne data set; it stays in the database until it is made anew or deleted.

    Args:
        dataset: ground truth of the split.
        paths: where the images lie.
        tables: detections table of each model, at least one.
        settings: see there.

    Raises:
        UserError: a table is damaged or of another split, or images are missing on disk.
    """
    import fiftyone as fo

    fields = [field_name(model) for model in tables]
    if len(set(fields)) < len(fields):
        raise UserError(f"model names must differ in letters and digits: {', '.join(tables)}")
    readers = {name: SceneReader(dataset, table, settings.min_score, IOU_THRESHOLDS) for name, table in tables.items()}
    images = sorted(dataset.images, key=lambda image: image.id)[: settings.images]
    absent = [path for image in images if not (path := paths.image_path(image)).is_file()]
    if absent:
        raise UserError(f"{len(absent)} images of {dataset.path} are missing, first {absent[0]}: run the data stage")
    data = fo.Dataset(settings.name, overwrite=True)
    progress = Progress("inspection", len(images), "images")
    for begin in range(0, len(images), _BATCH):
        batch = images[begin : begin + _BATCH]
        samples = [_sample(i, readers, dataset, paths.image_path(i), settings.split) for i in batch]
        data.add_samples(samples, dynamic=True, progress=False)
        progress.advance(len(batch))
    _save_views(data, list(tables))
    data.persistent = True
    return data
