"""Draw the mini world: a small procedural data set in the formats of LVIS, COCO and OpenImages.

    python -m pipeline_steps.make_mini --recipe config/mini.yaml --output datasets/mini

Settings are the recipe's data.mini. The four folders openimages/, coco/, categories/ and lvis/ are made beside the
final ones and put in place when all are complete; then mini_world.json is written, with the settings and a digest of
every folder. A run that finds it, with the same settings and undamaged folders, changes nothing (a new version of the
generator counts as other settings). Anything else below
the output (derived/ for example) is left alone.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.mini_world import make_mini
from pipeline_steps.recipe import load_recipe

parser = step_parser("make_mini", __doc__)
parser.add_argument("--recipe", required=True, type=Path, help="recipe file; its data.mini is used")
parser.add_argument("--output", required=True, type=Path, help="folder of the data set (datasets_root)")


def main(arguments: argparse.Namespace) -> None:
    make_mini(load_recipe(arguments.recipe), arguments.output)


if __name__ == "__main__":
    run_step(parser, main)
