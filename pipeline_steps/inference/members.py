"""The ensemble of a recipe: its members with their tables and LVIS categories, merged and re-scored into one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.expert_categories import expert_lvis_ids, expert_tables
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.detections.ensemble import EnsembleMember, EnsembleMerger, check_members
from pipeline_steps.detections.rescoring import alpha_by_category
from pipeline_steps.detections.table import TableReader, TableWriter, table_metadata
from pipeline_steps.inference.sharding import SHARD_KEY
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.schema import names
from pipeline_steps.run.stage_settings import merging

log = logging.getLogger(__name__)


def open_members(
    recipe: Recipe, files: Mapping[str, Path], categories: CategoryList, stack: ExitStack
) -> tuple[list[EnsembleMember], dict[str, Path]]:
    """Open the tables of all members of ``ensemble.members``.

    Args:
        files: table of each member.
        stack: closes the tables.

    Returns:
        The members in the recipe's order, and the category tables that were used.

    Raises:
        UserError: a table is missing, damaged or a shard, or a category table does not fit.
    """
    tables_used: dict[str, Path] = {}
    experts = {expert.name for expert in recipe.experts}
    members = []
    for entry in recipe.ensemble.members:
        if entry.name in experts:
            lvis_ids = expert_lvis_ids(recipe, entry.name, categories)
            tables_used |= {path.stem: path for path in expert_tables(recipe, entry.name)}
        else:
            lvis_ids = {category_id: category_id for category_id in categories.ids.tolist()}
        reader = stack.enter_context(TableReader(files[entry.name], masks=False))
        shard = reader.metadata.get(SHARD_KEY, {"count": 1})
        if shard["count"] != 1:
            raise UserError(
                f"member {entry.name}: {reader.path} is shard {shard['index']} of {shard['count']}: "
                "gather all of them first"
            )
        members.append(EnsembleMember(entry.name, reader, lvis_ids, entry.name in experts, entry.weight))
    return members, tables_used


def _checked(recipe: Recipe, given: Mapping[str, Path]) -> dict[str, Path]:
    """The file of each member, in the recipe's order."""
    expected = names(recipe.ensemble.members)
    if missing := [name for name in expected if name not in given]:
        raise UserError(f"--detections: no file for the members {listing(missing)} of ensemble.members")
    if strangers := [name for name in given if name not in expected]:
        raise UserError(f"--detections: {listing(strangers)} not among ensemble.members ({', '.join(expected)})")
    return {name: given[name] for name in expected}


def rescore_ensemble(recipe: Recipe, given: Mapping[str, Path], lvis: Path, split: str, output: Path) -> None:
    """Write the merged and re-scored boxes of the members of ``ensemble.members``.

    Args:
        given: table of each member.
        lvis: file with categories and frequency.
        split: that the tables are of.

    Raises:
        UserError: a member has no file or a file no member; tables that do not fit each other, the split or LVIS.
    """
    files, categories = _checked(recipe, given), read_categories(lvis)
    alphas = alpha_by_category(categories.ids, categories.frequencies, recipe.ensemble.alpha)
    keep = getattr(recipe.ensemble.keep_per_image, split)
    with ExitStack() as stack:
        members, tables_used = open_members(recipe, files, categories, stack)
        check_members(members, split)
        metadata = table_metadata(
            recipe.name,
            "rescore_ensemble",
            {"split": split, "keep_per_image": keep, "ensemble": merging(recipe)},
            {"categories": lvis, **files, **tables_used},
        )
        merger = EnsembleMerger(members, recipe.ensemble, alphas, keep)
        progress = Progress("merging", len(merger.image_ids), "images")
        with TableWriter(output, metadata) as writer:
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
