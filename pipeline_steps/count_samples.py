"""Step: what the box head of a trained model learns from, with and without the equalization loss.

Runs training images through the trained model, draws proposals as training would, and counts for each category the
samples that have a weight in the classification loss. Also draws images in which annotations are missing.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_json, write_text
from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("count_samples", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
parser.add_argument("--model", required=True, metavar="NAME", help="an LVIS model of the recipe, with any loss")
parser.add_argument("--weights", type=Path, required=True, metavar="PTH", help="its trained weights")
parser.add_argument("--images", type=int, metavar="N", help="training images (default: report.sample_images)")
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="counts per category")
parser.add_argument("--page", type=Path, required=True, metavar="HTML", help="page of missing annotations")


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    from pipeline_steps.analysis.samples.collect import collect_samples  # imports torch and detectron2: seconds
    from pipeline_steps.report.missing import missing_page

    collected = collect_samples(
        recipe, arguments.model, arguments.weights, arguments.images or recipe.report.sample_images
    )
    title = f"Recipe {recipe.name}: missing annotations"
    write_text(arguments.page, missing_page(title, collected.missing, collected.examples))
    write_json(arguments.output, collected.counts, indent=1)


if __name__ == "__main__":
    run_recorded_step(parser, main)
