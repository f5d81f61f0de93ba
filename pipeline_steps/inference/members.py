"""The members of a recipe's ensemble with their tables, and the LVIS category of each of their own categories."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import load_mapping
from pipeline_steps.data.category_list import CategoryList
from pipeline_steps.data.paths import DatasetPaths
from pipeline_steps.detections.ensemble import Member
from pipeline_steps.detections.table import TableReader
from pipeline_steps.inference.sharding import SHARD_KEY
from pipeline_steps.recipe import Recipe


def open_members(
    recipe: Recipe, files: Mapping[str, Path], categories: CategoryList, stack: ExitStack
) -> tuple[list[Member], dict[str, Path]]:
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
    kinds = {expert.name: expert.category_table for expert in recipe.experts}
    paths = DatasetPaths(recipe)
    members = []
    for entry in recipe.ensemble.members:
        kind = kinds.get(entry.name)
        if kind is None:
            lvis_ids = {category_id: category_id for category_id in categories.ids.tolist()}
        elif kind == "coco":
            lvis_ids = load_mapping(recipe, "coco", categories).by_number()
            tables_used["coco_to_lvis"] = paths.coco_table
        else:
            known = load_mapping(recipe, "openimages", categories).known_lvis_ids
            lvis_ids = {category_id: category_id for category_id in known}
            tables_used["openimages_to_lvis"] = paths.openimages_table
        reader = stack.enter_context(TableReader(files[entry.name], masks=False))
        shard = reader.metadata.get(SHARD_KEY, {"count": 1})
        if shard["count"] != 1:
            raise UserError(
                f"member {entry.name}: {reader.path} is shard {shard['index']} of {shard['count']}: "
                "gather all of them first"
            )
        members.append(Member(entry.name, reader, lvis_ids, kind is not None, entry.weight))
    return members, tables_used
