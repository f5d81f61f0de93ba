"""Predictions on a split as detections tables: the boxes of one model, and masks for the boxes of any."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.detections.table import ImageDetections, TableReader, table_metadata
from pipeline_steps.inference.detector import load_detector, require_categories
from pipeline_steps.inference.multi_scale import detect_boxes, predict_rles
from pipeline_steps.inference.sharding import ImageBatch, Part
from pipeline_steps.inference.streaming import Work
from pipeline_steps.inference.views import RenderedImages
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.schema import names
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.stage_settings import box_testing, mask_testing

log = logging.getLogger(__name__)


def predict_boxes(recipe: Recipe, name: str, weights: Path, part: Part) -> None:
    """Write the multi-scale boxes of the model or expert ``name``.

    Raises:
        UserError: wrong settings or files; see the message.
    """
    paths, testing = DatasetPaths(recipe), recipe.testing
    annotations = paths.annotations(part.split)
    dataset = read_lvis(annotations, "test_info")
    work = Work(paths, dataset.images, testing.box_scales, testing, part)
    detector = load_detector(recipe, name, weights)
    if name not in names(recipe.experts):  # theirs are mapped where members are merged
        require_categories(detector, weights, dataset.category_ids, annotations)

    def predict(batch: ImageBatch, pixels: RenderedImages) -> list[ImageDetections]:
        result = []
        found = detect_boxes(detector.module, pixels, testing, detector.precision)
        for image, detections in zip(batch.images, found):
            boxes, scores, categories, _ = (values.cpu().numpy() for values in detections)
            result.append(
                ImageDetections(image.id, detector.category_ids[categories], scores, scores, boxes, detector.name)  # type: ignore[arg-type]  # one name for all
            )
        return result

    tested = {**box_testing(recipe), "precision": detector.precision}
    metadata = table_metadata(
        recipe.name,
        "predict_boxes",
        {"model": name, "split": part.split, "testing": tested},
        {"weights": weights, "annotations": annotations},
    )
    rows = work.run(metadata, f"boxes of {name}", predict)
    if not rows and work.batches:
        log.warning("%s found nothing in %s: has it been trained?", name, part.split)


def predict_masks(recipe: Recipe, files: Mapping[str, Path], boxes: Path, part: Part) -> None:
    """Write the detections of the table ``boxes`` with masks, averaged over models, whose files are given by name.

    Raises:
        UserError: wrong settings or files; see the message.
    """
    paths, testing = DatasetPaths(recipe), recipe.testing
    annotations = paths.annotations(part.split)
    image_by_id = read_lvis(annotations, "test_info").image_by_id
    with TableReader(boxes, masks=False) as reader:
        stated = reader.metadata.get("arguments") or {}
        if (split := stated.get("split", part.split)) != part.split:
            raise UserError(f"{boxes} has boxes of split {split!r}, but --split is {part.split!r}")
        if strangers := [image_id for image_id in reader.image_ids if image_id not in image_by_id]:
            raise UserError(
                f"{boxes}: {len(strangers)} of {len(reader.image_ids)} image ids are not in {annotations} "
                f"({listing(strangers)}): is it a table of another data set or split?"
            )
        images = [image_by_id[image_id] for image_id in reader.image_ids]
        work = Work(paths, images, testing.mask_scales, testing, part)
        detectors = [load_detector(recipe, name, file) for name, file in files.items()]
        models, precisions = [detector.module for detector in detectors], [detector.precision for detector in detectors]

        def predict(batch: ImageBatch, pixels: RenderedImages) -> list[ImageDetections]:
            given = [reader.image(image.id) for image in batch.images]
            for detections in given:
                _check_boxes(detections, pixels.image_size, boxes)
            rles = predict_rles(models, pixels, [detections.boxes for detections in given], precisions)
            return [replace(detections, rles=of_image) for detections, of_image in zip(given, rles)]

        tested = {**mask_testing(recipe), "precision": dict(zip(files, precisions))}
        metadata = table_metadata(
            recipe.name,
            "predict_masks",
            {
                **{key: value for key, value in stated.items() if key == "model"},
                "mask_models": list(files),
                "split": part.split,
                "testing": tested,
            },
            {"boxes": boxes, "annotations": annotations, **files},
        )
        work.run(metadata, f"masks of {', '.join(files)}", predict)


def _check_boxes(detections: ImageDetections, image_size: tuple[int, int], path: Path) -> None:
    height, width = image_size
    x1, y1, x2, y2 = detections.boxes.T
    inside = (x1 >= 0) & (y1 >= 0) & (x2 >= x1) & (y2 >= y1) & (x2 <= width) & (y2 <= height)
    if not inside.all():
        box = detections.boxes[int(inside.argmin())].tolist()
        raise UserError(
            f"{path}: image {detections.image_id} has a box {box} that is not x1 y1 x2 y2 inside {width} x {height} "
            "pixels: is it a table of another data set?"
        )
