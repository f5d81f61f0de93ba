"""Which LVIS category each of an expert's own categories stands for."""

from __future__ import annotations

from pathlib import Path

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_tables import load_mapping
from pipeline_steps.data.openimages_classes import class_numbers, read_class_names
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths


def expert_lvis_ids(recipe: Recipe, name: str, categories: CategoryList) -> dict[int, int]:
    """LVIS category id by own category id, for the categories that an expert shares with LVIS.

    The recipe's category tables, relations and verdicts say what is shared; ``categories`` are those of LVIS.

    Raises:
        UserError: a table is missing or does not fit, or there is no such expert.
    """
    table = recipe.expert(name).category_table
    mapping = load_mapping(recipe, table, categories)
    if table == "coco":
        return mapping.by_number()
    paths = DatasetPaths(recipe)
    numbers = class_numbers(read_class_names(paths.openimages_classes))
    unknown = [str(row) for row in mapping.rows if row.source_id not in numbers]
    if unknown:
        raise UserError(f"{paths.openimages_table}: classes that {paths.openimages_classes} lacks: {listing(unknown)}")
    return {numbers[mid]: lvis_id for mid, lvis_id in mapping.lvis_ids.items()}


def expert_tables(recipe: Recipe, name: str) -> list[Path]:
    """Files that :func:`expert_lvis_ids` reads besides the categories of LVIS."""
    paths = DatasetPaths(recipe)
    from_coco = recipe.expert(name).category_table == "coco"
    return [paths.coco_table] if from_coco else [paths.openimages_table, paths.openimages_classes]
