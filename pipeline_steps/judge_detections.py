"""Step: how many of the ensemble's detections on val are right and wrong, by the models' score and frequency group."""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("judge_detections", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run; names the data")
parser.add_argument(
    "--detections", type=Path, required=True, metavar="PARQUET", help="the ensemble's detections on val"
)
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="histograms of scores")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.files import write_analysis
    from pipeline_steps.analysis.scores import judge_scores

    recipe = load_recipe(arguments.recipe)
    histograms, totals = judge_scores(recipe, arguments.detections)
    write_analysis(arguments.output, recipe, {"scores": histograms, "totals": totals})
    print(totals.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    run_recorded_step(parser, main)
