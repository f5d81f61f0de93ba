"""Index the COCO boxes of the LVIS train images, for COCO Ignore (paper, section 3.1).

LVIS and COCO annotate the same images: a background proposal on a COCO box may be an object that LVIS left out.
Boxes of crowds are left out: they are regions, not objects.
"""

import argparse
from pathlib import Path

import orjson

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.cli import step_parser
from pipeline_steps.data.coco import index_boxes
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("index_coco_boxes", __doc__)
parser.add_argument("--recipe", metavar="FILE", required=True, type=Path, help="recipe, e.g. config/challenge.yaml")
parser.add_argument("--output", metavar="FILE", required=True, type=Path, help="JSON to write")


def main(arguments: argparse.Namespace) -> None:
    boxes = index_boxes(load_recipe(arguments.recipe))
    with atomic_output(arguments.output) as temporary:
        temporary.write_bytes(orjson.dumps({"boxes": boxes}))


if __name__ == "__main__":
    run_recorded_step(parser, main)
