"""Step: mask AP of the ensemble on val under other amounts of re-scoring and other caps per image."""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("sweep_rescoring", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run; names the data")
parser.add_argument(
    "--detections", type=Path, required=True, metavar="PARQUET", help="the ensemble's detections on val"
)
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="AP by factor of alpha and by cap")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.files import write_analysis
    from pipeline_steps.analysis.rescoring import sweep_rescoring

    recipe = load_recipe(arguments.recipe)
    swept, alpha, own = sweep_rescoring(recipe, arguments.detections)
    write_analysis(arguments.output, recipe, {"rescoring": swept}, alpha=alpha, alpha_of_recipe=own)
    print(swept.to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    run_recorded_step(parser, main)
