"""Multi-scale box detections of one model on a split, as a detections table.

Every image of the split is looked at in each of testing.box_scales; the scales' detections are merged per category.
Category ids are those of the data set that the model was trained on; rank_score is the score. With --shards n, job k
does the k-th share of the images; gather_shards puts the shares together, and the result does not depend on n.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.detections.table import ImageDetections, table_metadata
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.schema import names
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.step import run_recorded_step

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the step."""
    parser = step_parser("predict_boxes", __doc__ or "")
    parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
    parser.add_argument("--model", required=True, help="name of a model or expert of the recipe")
    parser.add_argument("--weights", required=True, type=Path, help="its model.pth")
    parser.add_argument("--split", required=True, choices=("val", "test"), help="images to look at")
    parser.add_argument("--shard", type=int, default=0, help="which share of the images, from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shares")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.parquet", help="detections table to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    recipe = load_recipe(arguments.recipe)
    models, experts = names(recipe.models), names(recipe.experts)
    if arguments.model not in (*models, *experts):
        known = ", ".join([*models, *experts])
        raise UserError(f"recipe {recipe.name} has no model and no expert {arguments.model!r}; it has {known}")
    paths = DatasetPaths(recipe)
    annotations = paths.annotations(arguments.split)
    dataset = read_lvis(annotations, "test_info")

    from pipeline_steps.inference.detector import load_detector, require_categories
    from pipeline_steps.inference.multi_scale_boxes import BoxSettings, detect_boxes
    from pipeline_steps.inference.sharding import ImageBatch
    from pipeline_steps.inference.streaming import Work, settings_of
    from pipeline_steps.inference.views import RenderedImages

    testing = recipe.testing
    work = Work.plan(paths, dataset.images, testing.box_scales, testing, arguments.shard, arguments.shards)
    detector = load_detector(recipe, arguments.model, arguments.weights)
    if arguments.model not in experts:  # an expert's categories are mapped where members are merged
        require_categories(detector, arguments.weights, dataset.category_ids, annotations)
    settings = BoxSettings(
        testing.score_threshold, testing.nms_iou, testing.keep_per_image, testing.scale_fusion, detector.precision
    )

    def predict(batch: ImageBatch, pixels: RenderedImages) -> list[ImageDetections]:
        found = detect_boxes(detector.module, pixels, settings)
        result = []
        for image, detections in zip(batch.images, found):
            boxes, scores, categories, _ = (values.cpu().numpy() for values in detections)
            result.append(
                ImageDetections(image.id, detector.category_ids[categories], scores, scores, boxes, detector.name)  # type: ignore[arg-type]  # one name for all
            )
        return result

    keys = ("box_scales", "longer_edge", "horizontal_flip", "score_threshold", "nms_iou", "scale_fusion", "proposals")
    metadata = table_metadata(
        recipe.name,
        "predict_boxes",
        {
            "model": arguments.model,
            "split": arguments.split,
            "testing": {
                **settings_of(testing, *keys, "keep_per_image", "batch_images"),
                "precision": detector.precision,
            },
        },
        {"weights": arguments.weights, "annotations": annotations},
    )
    rows = work.run(arguments.output, metadata, f"boxes of {arguments.model}", predict)
    if not rows and work.batches:
        log.warning("%s found nothing in %s: is it trained?", arguments.model, arguments.split)


if __name__ == "__main__":
    run_recorded_step(build_parser(), main)
