"""Step: settings compared over seeds in numbers, as the recipe's ``report.ablations`` asks for.

Means with their spread, differences between runs of equal seed with confidence intervals, and what each setting does
to the gradients of the classification loss and to the scores of rare objects. The step compare_settings shows them.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("compute_ablations", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run; names the data")
add_named_files(parser, "--metrics", "NAME=JSON", "metrics.json of each model")
about = "detections table on val of each model, for the scores of rare objects"
add_named_files(parser, "--detections", "NAME=PARQUET", about)
add_named_files(parser, "--gradients", "NAME=CSV", "gradients.csv of each model (training.record_gradients)")
parser.add_argument("--benchmarks", type=Path, metavar="DIR", help="benchmark files of the run, for its CPU time")
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="all tables of the comparison")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.ablations.runs import Runs
    from pipeline_steps.analysis.ablations.tables import compare
    from pipeline_steps.analysis.files import write_analysis

    recipe = load_recipe(arguments.recipe)
    if not recipe.report.ablations.comparisons:
        raise UserError(f"{arguments.recipe}: report.ablations.comparisons names nothing to compare")
    runs = Runs(recipe, arguments.metrics, arguments.detections, arguments.gradients)
    tables, facts = compare(runs, arguments.benchmarks)
    write_analysis(arguments.output, recipe, tables, **facts)


if __name__ == "__main__":
    run_recorded_step(parser, main)
