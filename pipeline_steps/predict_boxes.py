"""Multi-scale box detections of one model on a split, as a detections table.

Every image of the split is tested at each of testing.box_scales; the detections of all scales are merged per category.
Category ids are those of the data set that the model was trained on; rank_score is the score. With --shards n, job k
processes the k-th share of the images; gather_shards joins the shares, and the result does not depend on n.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.inference.sharding import Part, add_part_options
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("predict_boxes", __doc__)
parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
parser.add_argument("--model", required=True, help="name of a model or expert of the recipe")
parser.add_argument("--weights", required=True, type=Path, help="its model.pth")
add_part_options(parser, "split to test")


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    name = recipe.tested(arguments.model).name
    from pipeline_steps.inference.predictions import predict_boxes  # imports torch: seconds

    predict_boxes(recipe, name, arguments.weights, Part.from_options(arguments))


if __name__ == "__main__":
    run_recorded_step(parser, main)
