"""Merge the boxes of all members and experts into one table, ranked by score and category frequency.

Members and their weights, the way of merging and the addends of the re-scoring are in the recipe's ``ensemble``
section; detections of experts pass through the category tables of the ``data`` section. The output has the images in
ascending id, at most ``ensemble.keep_per_image`` detections each, and no masks.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.detections.ensemble import EnsembleMerger, check_members
from pipeline_steps.detections.rescoring import alpha_by_category
from pipeline_steps.detections.table import TableWriter, table_metadata
from pipeline_steps.inference.members import open_members
from pipeline_steps.recipe import Recipe, load_recipe
from pipeline_steps.recipe.schema import names
from pipeline_steps.run.provenance.step import run_recorded_step

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the step."""
    parser = step_parser("rescore_ensemble", __doc__ or "")
    parser.add_argument("--recipe", required=True, help="recipe file")
    parser.add_argument(
        "--categories", required=True, metavar="LVIS.json", help="LVIS file with categories and frequency"
    )
    add_named_files(parser, "--detections", "NAME=FILE", "boxes of every member", least=1)
    parser.add_argument("--split", required=True, choices=("val", "test"), help="split that the tables are of")
    parser.add_argument("--output", required=True, metavar="FILE.parquet", help="merged detections")
    return parser


def member_files(recipe: Recipe, given: Mapping[str, Path]) -> dict[str, Path]:
    """The file of each member, in the recipe's order.

    Raises:
        UserError: a member has no file, or a file has no member.
    """
    expected = names(recipe.ensemble.members)
    missing = [name for name in expected if name not in given]
    strangers = [name for name in given if name not in expected]
    if missing:
        raise UserError(f"--detections: no file for the members {listing(missing)} of ensemble.members")
    if strangers:
        raise UserError(f"--detections: {listing(strangers)} not among ensemble.members ({', '.join(expected)})")
    return {name: given[name] for name in expected}


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    recipe = load_recipe(arguments.recipe)
    files = member_files(recipe, arguments.detections)
    categories = read_categories(arguments.categories)
    alphas = alpha_by_category(categories.ids, categories.frequencies, recipe.ensemble.alpha)
    keep = getattr(recipe.ensemble.keep_per_image, arguments.split)
    with ExitStack() as stack:
        members, tables_used = open_members(recipe, files, categories, stack)
        check_members(members, arguments.split)
        metadata = table_metadata(
            recipe.name,
            "rescore_ensemble",
            {
                "split": arguments.split,
                "keep_per_image": keep,
                "ensemble": recipe.ensemble.model_dump(exclude={"keep_per_image"}),
            },
            {"categories": arguments.categories, **files, **tables_used},
        )
        merger = EnsembleMerger(members, recipe.ensemble, alphas, keep)
        progress = Progress("merging", len(merger.image_ids), "images")
        with TableWriter(arguments.output, metadata) as writer:
            for detections in merger:
                writer.write_image(detections.image_id, detections)
                progress.advance()
            for member in members:
                used, unmapped = merger.used[member.name], merger.unmapped[member.name]
                log.info(
                    "%s: %d detections, %d more of categories that LVIS does not share", member.name, used, unmapped
                )
                if unmapped and not used:
                    raise UserError(
                        f"member {member.name}: none of the {unmapped} detections in {member.table.path} has a "
                        "category of its category table; is it the table of another model?"
                    )


if __name__ == "__main__":
    run_recorded_step(build_parser(), main)
