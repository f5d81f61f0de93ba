"""Step: the page of a run, one self-contained HTML file: tables, figures, pictures, workflow.

It uses what exists below the results folder and says what is missing, so an unfinished run has a page too.
"""

import argparse
import tempfile
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("write_report", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
parser.add_argument(
    "--results", type=Path, metavar="DIR", help="folder of the run's results (default: results/<recipe>)"
)
parser.add_argument(
    "--figures", type=Path, metavar="DIR", help="figures that the plot step has drawn (default: draw them now)"
)
parser.add_argument("--output", type=Path, required=True, metavar="HTML", help="the page")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.report.figures.index import draw_figures, read_figures
    from pipeline_steps.report.figures.inputs import Inputs
    from pipeline_steps.report.run_page.parts import Run
    from pipeline_steps.report.run_page.sections import run_page
    from pipeline_steps.run.result_files import ResultFiles

    recipe = load_recipe(arguments.recipe)
    files = ResultFiles(recipe, arguments.results)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.figures:
            figures = read_figures(arguments.figures)
        else:
            figures = draw_figures(Inputs.of(files), Path(temporary))
        page = run_page(Run(files, figures))
    write_text(arguments.output, page)
    print(f"{arguments.output}: {len(page.encode()) / 1e6:.1f} MB, {len(figures.drawn)} figures")


if __name__ == "__main__":
    run_recorded_step(parser, main)
