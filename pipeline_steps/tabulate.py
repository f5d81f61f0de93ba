"""Step: the results of a run as a table, in Markdown and CSV; the Markdown is also printed.

Without ``--table`` the summary: one row per evaluation. With ``--table table3`` that table of the paper with our
figures beside it, or ours alone if the data are not those of the paper; the recipe's ``report.tables`` says which
evaluations belong to which row. Missing metrics are shown as missing.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_output, write_text
from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("tabulate", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
add_named_files(parser, "--metrics", "NAME=JSON", "metrics of each evaluation")
parser.add_argument(
    "--table",
    metavar="NAME",
    help="table1 .. table5 of the paper, or lvis_v1 (later publications), instead of the summary",
)
parser.add_argument("--output", type=Path, required=True, metavar="MD", help="the table as Markdown")
parser.add_argument("--csv", type=Path, metavar="CSV", help="the table as CSV, unrounded")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.measured import read_all
    from pipeline_steps.report.tables import comparison_frame, comparison_grid, summary_frame, summary_grid

    recipe = load_recipe(arguments.recipe)
    measured = read_all(arguments.metrics, recipe)
    if arguments.table:
        grid = comparison_grid(arguments.table, measured, recipe)
        frame = comparison_frame(arguments.table, measured, recipe)
    else:
        grid, frame = summary_grid(measured, recipe), summary_frame(measured)
    text = grid.markdown()
    if arguments.csv:
        with atomic_output(arguments.csv) as temporary:
            frame.to_csv(temporary, index=False)
    write_text(arguments.output, text)
    print(text)


if __name__ == "__main__":
    run_recorded_step(parser, main)
