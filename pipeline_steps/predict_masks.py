"""Multi-scale masks for the boxes of a detections table, averaged over the given models.

Every box is looked at in each of testing.mask_scales by each model of --weights; the mean of the soft masks, cut at
0.5, is stored as run lengths in column rle. Masks are class-agnostic, so boxes of any origin can be given. All rows and
other columns stay as they are; a mask may be empty. With --shards n, job k does the k-th share of the images;
gather_shards puts the shares together, and the result does not depend on n.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.detections.table import ImageDetections, TableReader, table_metadata
from pipeline_steps.recipe import Recipe, load_recipe
from pipeline_steps.recipe.schema import names
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.step import run_recorded_step


def build_parser() -> argparse.ArgumentParser:
    """Command line of the step."""
    parser = step_parser("predict_masks", __doc__ or "")
    parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
    add_named_files(parser, "--weights", "NAME=model.pth", "models to average", least=1)
    parser.add_argument("--boxes", required=True, type=Path, metavar="FILE.parquet", help="detections table with boxes")
    parser.add_argument("--split", required=True, choices=("val", "test"), help="split that the boxes are of")
    parser.add_argument("--shard", type=int, default=0, help="which share of the images, from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shares")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.parquet", help="detections table to write")
    return parser


def check_mask_models(recipe: Recipe, given: Iterable[str]) -> None:
    """Refuse names that the recipe does not have."""
    known = names((*recipe.models, *recipe.experts))
    if strangers := [name for name in given if name not in known]:
        raise UserError(f"--weights: recipe {recipe.name} has no {listing(strangers)}; it has {', '.join(known)}")


def check_split(reader: TableReader, split: str) -> None:
    """Refuse a table that says that it is of another split."""
    stated = (reader.metadata.get("arguments") or {}).get("split", split)
    if stated != split:
        raise UserError(f"{reader.path} has boxes of split {stated!r}, but --split is {split!r}")


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    recipe = load_recipe(arguments.recipe)
    files: dict[str, Path] = arguments.weights
    check_mask_models(recipe, files)
    paths = DatasetPaths(recipe)
    annotations = paths.annotations(arguments.split)
    dataset = read_lvis(annotations, "test_info")
    with TableReader(arguments.boxes, masks=False) as reader:
        check_split(reader, arguments.split)
        if strangers := [image_id for image_id in reader.image_ids if image_id not in dataset.image_by_id]:
            raise UserError(
                f"{arguments.boxes}: {len(strangers)} of {len(reader.image_ids)} image ids are not in {annotations} "
                f"({listing(strangers)}): is it a table of another data set or split?"
            )
        _predict(arguments, recipe, files, paths, reader, [dataset.image_by_id[id_] for id_ in reader.image_ids])


def _predict(
    arguments: argparse.Namespace,
    recipe: Recipe,
    files: dict[str, Path],
    paths: DatasetPaths,
    reader: TableReader,
    images: list[ImageRecord],
) -> None:
    from pipeline_steps.inference.detector import load_detector
    from pipeline_steps.inference.multi_scale_masks import predict_rles
    from pipeline_steps.inference.sharding import ImageBatch
    from pipeline_steps.inference.streaming import Work, settings_of
    from pipeline_steps.inference.views import RenderedImages

    testing = recipe.testing
    work = Work.plan(paths, images, testing.mask_scales, testing, arguments.shard, arguments.shards)
    detectors = [load_detector(recipe, name, file) for name, file in files.items()]
    models, precisions = [detector.module for detector in detectors], [detector.precision for detector in detectors]

    def predict(batch: ImageBatch, pixels: RenderedImages) -> list[ImageDetections]:
        given = [reader.image(image.id) for image in batch.images]
        for detections in given:
            _check_boxes(detections, pixels.image_size, reader.path)
        rles = predict_rles(models, pixels, [detections.boxes for detections in given], precisions)
        return [replace(detections, rles=of_image) for detections, of_image in zip(given, rles)]

    keys = ("mask_scales", "longer_edge", "horizontal_flip", "batch_images")
    metadata = table_metadata(
        recipe.name,
        "predict_masks",
        {
            **{key: value for key, value in (reader.metadata.get("arguments") or {}).items() if key == "model"},
            "mask_models": list(files),
            "split": arguments.split,
            "testing": {**settings_of(testing, *keys), "precision": dict(zip(files, precisions))},
        },
        {"boxes": arguments.boxes, "annotations": paths.annotations(arguments.split), **files},
    )
    work.run(arguments.output, metadata, f"masks of {', '.join(files)}", predict)


def _check_boxes(detections: ImageDetections, image_size: tuple[int, int], path: Path) -> None:
    height, width = image_size
    x1, y1, x2, y2 = detections.boxes.T
    inside = (x1 >= 0) & (y1 >= 0) & (x2 >= x1) & (y2 >= y1) & (x2 <= width) & (y2 <= height)
    if not inside.all():
        box = detections.boxes[int(inside.argmin())].tolist()
        raise UserError(
            f"{path}: image {detections.image_id} has a box {box} that is no x1 y1 x2 y2 inside of {width} x {height} "
            "pixels: is it a table of another data set?"
        )


if __name__ == "__main__":
    run_recorded_step(build_parser(), main)
