"""Step: settings compared over seeds, as the recipe's ``report.ablations`` asks for.

Writes a folder: means with their spread and differences between runs of equal seed with confidence intervals, as
Markdown (also printed), CSV and one self-contained page with figures; and what each setting does to the gradients of
the classification loss and to the scores of rare objects. Missing runs are shown as missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_directory
from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step


def build_parser() -> argparse.ArgumentParser:
    """Command line of the step."""
    parser = step_parser("compare_settings", __doc__)
    parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
    for option, files, text in (
        ("--metrics", "NAME=JSON", "metrics.json of each model"),
        ("--detections", "NAME=PARQUET", "detections table on val of each model, for the scores of rare objects"),
        ("--gradients", "NAME=CSV", "gradients.csv of each model (training.record_gradients)"),
    ):
        add_named_files(parser, option, files, text)
    parser.add_argument("--benchmarks", type=Path, metavar="DIR", help="benchmark files of the run, for its CPU time")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of tables, figures and page")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    from pipeline_steps.report.ablations.runs import Runs
    from pipeline_steps.report.ablations.write import write_comparison

    recipe = load_recipe(arguments.recipe)
    if not recipe.report.ablations.comparisons:
        raise UserError(f"{arguments.recipe}: report.ablations.comparisons names nothing to compare")
    runs = Runs(
        recipe=recipe,
        metrics=arguments.metrics,
        detections=arguments.detections,
        gradients=arguments.gradients,
    )
    with atomic_directory(arguments.output) as folder:
        print(write_comparison(runs, folder, arguments.benchmarks))


if __name__ == "__main__":
    run_recorded_step(build_parser(), main)
