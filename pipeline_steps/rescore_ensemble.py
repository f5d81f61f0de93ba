"""Merge the boxes of all members and experts into one table, ranked by score and category frequency.

Members, their weights, the fusion method and the α of re-scoring are set in the recipe's ``ensemble``
section; detections of experts are mapped by the category tables of the ``data`` section. The output is ordered by image
id, has at most ``ensemble.keep_per_image`` detections each, and no masks.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.inference.members import rescore_ensemble
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("rescore_ensemble", __doc__)
parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
parser.add_argument(
    "--categories", required=True, type=Path, metavar="LVIS.json", help="LVIS file with categories and frequency"
)
add_named_files(parser, "--detections", "NAME=FILE", "boxes of every member", least=1)
parser.add_argument("--split", required=True, choices=("val", "test"), help="split of the tables")
parser.add_argument("--output", required=True, type=Path, metavar="FILE.parquet", help="merged detections")


def main(arguments: argparse.Namespace) -> None:
    recipe, detections = load_recipe(arguments.recipe), arguments.detections
    rescore_ensemble(recipe, detections, arguments.categories, arguments.split, arguments.output)


if __name__ == "__main__":
    run_recorded_step(parser, main)
