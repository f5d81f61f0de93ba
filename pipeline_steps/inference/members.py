"""The members of a recipe's ensemble with their tables, and the LVIS category of each of their own categories."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.expert_categories import expert_lvis_ids, expert_tables
from pipeline_steps.detections.ensemble import EnsembleMember
from pipeline_steps.detections.table import TableReader
from pipeline_steps.inference.sharding import SHARD_KEY
from pipeline_steps.recipe import Recipe


def open_members(
    recipe: Recipe, files: Mapping[str, Path], categories: CategoryList, stack: ExitStack
) -> tuple[list[EnsembleMember], dict[str, Path]]:
    """Open the tables of all members of ``ensemble.members``.

    Args:
        recipe: the recipe.
        files: table of each member.
        categories: of LVIS.
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
