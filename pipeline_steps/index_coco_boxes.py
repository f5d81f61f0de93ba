"""Index the COCO boxes of the LVIS train images, for COCO Ignore (paper, section 3.1).

LVIS and COCO annotate the same images: a background proposal on a COCO box may be an object that LVIS left out.
Boxes of crowds are left out: they are regions, not objects.
"""

from __future__ import annotations

import argparse
import logging

import orjson

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.coco import boxes_by_image, read_coco
from pipeline_steps.data.lvis import read_image_ids
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.step import run_recorded_step

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = step_parser("index_coco_boxes", __doc__ or "")
    parser.add_argument("--recipe", metavar="FILE", required=True, help="recipe, e.g. config/challenge.yaml")
    parser.add_argument("--output", metavar="FILE", required=True, help="JSON to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    recipe = load_recipe(arguments.recipe)
    paths = DatasetPaths(recipe)
    image_ids = read_image_ids(paths.lvis_train)
    coco = read_coco(paths.coco_train)
    annotations = sum(map(len, coco.annotations.values()))
    coco.findings.leave_out(paths.coco_train, annotations, recipe.data.max_unusable_annotations)
    unknown = sum(image_id not in coco.annotations for image_id in image_ids)
    if unknown == len(image_ids):
        raise UserError(f"{paths.coco_train} has none of the images of {paths.lvis_train}: not the same images")
    if unknown:
        log.warning("%d of %d LVIS train images are not in %s", unknown, len(image_ids), paths.coco_train)
    boxes = boxes_by_image(coco, image_ids)
    with atomic_output(arguments.output) as temporary:
        temporary.write_bytes(orjson.dumps({"boxes": boxes}))
    log.info("%d boxes of %d of %d LVIS train images", sum(map(len, boxes.values())), len(boxes), len(image_ids))


if __name__ == "__main__":
    run_recorded_step(build_parser(), main)
