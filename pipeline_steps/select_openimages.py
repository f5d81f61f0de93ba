"""Choose OpenImages images and write them as LVIS-format training data.

--dataset openimages_train: images for LVIS categories with few images, in LVIS categories. --dataset
openimages_own_train: the first images of a seeded order, in OpenImages' own classes, for an OpenImages expert.

First the images are chosen from the annotation files alone; --list-only stops there and writes their names, one a line
as train/<ImageID>, as downloaders expect. Without it the image files must be there: their sizes are read.
"""

import argparse

import orjson

from pipeline_steps.common.atomic import atomic_output, write_text
from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.openimages.dataset import build_dataset, select, summary_csv
from pipeline_steps.openimages.own import build_own_dataset, own_summary_csv, select_own
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("select_openimages", __doc__)
parser.add_argument("--recipe", metavar="FILE", required=True, help="recipe, e.g. config/challenge.yaml")
parser.add_argument(
    "--dataset",
    choices=("openimages_train", "openimages_own_train"),
    default="openimages_train",
    help="training set as the recipe's `datasets` name it (default: openimages_train)",
)
parser.add_argument("--output", metavar="FILE", help="LVIS-format JSON to write")
parser.add_argument("--summary", metavar="FILE", help="CSV to write: images and boxes of each category")
parser.add_argument("--list-only", metavar="FILE", help="only write the names of the chosen images to this file")


def main(arguments: argparse.Namespace) -> None:
    if bool(arguments.list_only) == bool(arguments.output and arguments.summary):
        raise UserError("give either --output and --summary, or --list-only")
    recipe = load_recipe(arguments.recipe)
    own = arguments.dataset == "openimages_own_train"
    selection = select_own(recipe) if own else select(recipe)
    if arguments.list_only:
        write_text(arguments.list_only, "".join(f"train/{name}\n" for name in selection.image_ids))
        return
    dataset = build_own_dataset(recipe, selection) if own else build_dataset(recipe, selection)
    with atomic_output(arguments.output) as temporary:
        temporary.write_bytes(orjson.dumps(dataset))
    summary = own_summary_csv if own else summary_csv
    write_text(arguments.summary, summary(selection, dataset))


if __name__ == "__main__":
    run_recorded_step(parser, main)
