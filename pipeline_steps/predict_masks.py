"""Multi-scale masks for the boxes of a detections table, averaged over the given models.

Every box is tested at each of testing.mask_scales by each model of --weights; the mean of the soft masks, cut at
0.5, is stored as run lengths in column rle. Masks are class-agnostic, so boxes of any origin can be given. All rows and
other columns stay as they are; a mask may be empty. With --shards n, job k processes the k-th share of the images;
gather_shards joins the shares, and the result does not depend on n.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.inference.sharding import Part, add_part_options
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("predict_masks", __doc__)
parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
add_named_files(parser, "--weights", "NAME=model.pth", "models to average", least=1)
parser.add_argument("--boxes", required=True, type=Path, metavar="FILE.parquet", help="detections table with boxes")
add_part_options(parser, "split of the boxes")


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    for name in arguments.weights:
        recipe.tested(name)
    from pipeline_steps.inference.predictions import predict_masks  # imports torch: seconds

    predict_masks(recipe, arguments.weights, arguments.boxes, Part.from_options(arguments))


if __name__ == "__main__":
    run_recorded_step(parser, main)
