"""Propose rows for the category tables from the real category lists; verdicts are then written by people.

Run it again after a change of the lists: rows that are in the tables keep relation, verdict and note as they are, and
rows added by hand stay. New candidates come without a verdict, and no recipe can use a table with such rows.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from pathlib import Path

import msgspec

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import add_named_files, run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_matching import SourceCategory, propose_rows
from pipeline_steps.data.category_tables import COLUMNS, VERSIONS_COLUMN, TableRow, parse_rows
from pipeline_steps.data.openimages_classes import read_vocabulary
from pipeline_steps.data.records import Category

log = logging.getLogger(__name__)


def read_category_list(path: str) -> CategoryList:
    """Categories of an annotation file, or of a file that is a plain list of categories."""
    content = read_json(path, "category list")
    try:
        listed = content["categories"] if isinstance(content, dict) else content
        return CategoryList(msgspec.convert(listed, list[Category]), path)
    except (KeyError, msgspec.ValidationError) as error:
        raise UserError(f"{path} has no usable list 'categories': {error}") from None


def format_table(rows: list[TableRow]) -> str:
    """The rows as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, VERSIONS_COLUMN])
    for row in rows:
        writer.writerow([*(getattr(row, column) for column in COLUMNS), " ".join(row.lvis_versions)])
    return text.getvalue()


def update_table(path: Path, sources: list[SourceCategory], lists: dict[str, CategoryList]) -> None:
    """Write the table at ``path`` with the candidates that it does not have yet."""
    reviewed = parse_rows(path) if path.exists() else []
    rows = propose_rows(sources, lists, reviewed)
    write_text(path, format_table(rows))
    waiting = sum(not row.verdict for row in rows)
    log.info("%s: %d rows, %d kept, %d wait for a verdict", path, len(rows), len(reviewed), waiting)


def build_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = step_parser("make_category_tables", __doc__ or "")
    versions = "LVIS categories by version, e.g. v0.5=lvis_v0.5_train.json v1=lvis_v1_train.json"
    add_named_files(parser, "--lvis", "VERSION=FILE", versions, least=1)
    parser.add_argument("--coco", metavar="FILE", help="COCO categories, e.g. instances_val2017.json")
    parser.add_argument("--openimages-classes", metavar="FILE", help="class-descriptions-boxable.csv")
    parser.add_argument("--openimages-hierarchy", metavar="FILE", help="bbox_labels_600_hierarchy.json")
    parser.add_argument("--output", metavar="DIR", default="config/categories", help="folder of the tables")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Update the tables whose source lists are given."""
    lists = {version: read_category_list(path) for version, path in arguments.lvis.items()}
    folder = Path(arguments.output)
    if not (arguments.coco or arguments.openimages_classes):
        raise UserError("nothing to do: give --coco, or --openimages-classes with --openimages-hierarchy")
    if bool(arguments.openimages_classes) != bool(arguments.openimages_hierarchy):
        raise UserError("--openimages-classes and --openimages-hierarchy belong together")
    if arguments.coco:
        coco = read_category_list(arguments.coco).categories
        sources = [SourceCategory(str(category.id), category.name) for category in coco]
        update_table(folder / "coco_to_lvis.csv", sources, lists)
    if arguments.openimages_classes:
        vocabulary = read_vocabulary(arguments.openimages_classes, arguments.openimages_hierarchy)
        sources = [
            SourceCategory(mid, name, vocabulary.parents.get(mid, ()))
            for mid, name in sorted(vocabulary.names.items(), key=lambda item: (item[1].lower(), item[0]))
        ]
        update_table(folder / "openimages_to_lvis.csv", sources, lists)


if __name__ == "__main__":
    run_step(build_parser(), main)
