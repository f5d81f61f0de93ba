"""Step: settings compared over seeds, as tables (Markdown, also printed, and CSV), figures and one self-contained page.

Shows what the step compute_ablations has computed. Missing runs are shown as missing.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_directory
from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("compare_settings", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
parser.add_argument(
    "--ablations", type=Path, required=True, metavar="JSON", help="result of the compute_ablations step"
)
parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of tables, figures and page")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.files import read_analysis
    from pipeline_steps.report.ablations.write import write_comparison

    recipe = load_recipe(arguments.recipe)
    content = read_analysis(arguments.ablations, recipe, "compute_ablations")
    with atomic_directory(arguments.output) as folder:
        print(write_comparison(recipe, content, folder))


if __name__ == "__main__":
    run_recorded_step(parser, main)
