"""Propose rows for the category tables from the real category lists; people then add the verdicts.

Run it again after a change of the lists: rows that are in the tables keep relation, verdict and note as they are, and
rows added by hand stay. New candidates come without a verdict, and no recipe can use a table with such rows.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.category_matching import coco_sources, openimages_sources, update_table
from pipeline_steps.data.category_parents import update_parents
from pipeline_steps.data.lvis import read_category_list
from pipeline_steps.data.openimages_classes import read_vocabulary

parser = step_parser("make_category_tables", __doc__)
versions = "LVIS categories by version, e.g. v0.5=lvis_v0.5_train.json v1=lvis_v1_train.json"
add_named_files(parser, "--lvis", "VERSION=FILE", versions, least=1)
parser.add_argument("--coco", metavar="FILE", help="COCO categories, e.g. instances_val2017.json")
parser.add_argument("--openimages-classes", metavar="FILE", help="class-descriptions-boxable.csv")
parser.add_argument("--openimages-hierarchy", metavar="FILE", help="bbox_labels_600_hierarchy.json")
parser.add_argument("--wordnet", metavar="DIR", help="database files of WordNet 3.0, for the parents of categories")
parser.add_argument("--output", metavar="DIR", default="config/categories", help="folder of the tables")


def main(arguments: argparse.Namespace) -> None:
    """Update the tables whose source lists are given."""
    lists = {version: read_category_list(path) for version, path in arguments.lvis.items()}
    folder = Path(arguments.output)
    if not (arguments.coco or arguments.openimages_classes or arguments.wordnet):
        raise UserError("nothing to do: give --coco, --openimages-classes with --openimages-hierarchy, or --wordnet")
    if bool(arguments.openimages_classes) != bool(arguments.openimages_hierarchy):
        raise UserError("--openimages-classes and --openimages-hierarchy must be given together")
    if arguments.coco:
        update_table(folder / "coco_to_lvis.csv", coco_sources(read_category_list(arguments.coco)), lists)
    if arguments.openimages_classes:
        vocabulary = read_vocabulary(arguments.openimages_classes, arguments.openimages_hierarchy)
        update_table(folder / "openimages_to_lvis.csv", openimages_sources(vocabulary), lists)
    if arguments.wordnet:
        update_parents(folder / "parents.csv", lists, arguments.wordnet)


if __name__ == "__main__":
    run_step(parser, main)
