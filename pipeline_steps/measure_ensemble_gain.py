"""Step: what each member brings to the ensemble, as box AP on val of its members merged one after the other.

Also of all members but one. Merges as ``rescore_ensemble`` does, once for each of these sets.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("measure_ensemble_gain", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run; names the data")
add_named_files(parser, "--boxes", "NAME=PARQUET", "boxes of each member on val", least=1)
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="box AP of each set of members")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.ensemble_gain import ensemble_gain
    from pipeline_steps.analysis.files import write_analysis

    recipe = load_recipe(arguments.recipe)
    gain = ensemble_gain(recipe, arguments.boxes)
    write_analysis(arguments.output, recipe, {"gain": gain})
    print(gain.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    run_recorded_step(parser, main)
