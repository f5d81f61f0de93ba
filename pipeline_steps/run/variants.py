"""Where the results of a recipe and of its variants lie, and which of them are shared.

A variant has the same folders as the recipe itself, below ``variants/<name>/``. Boxes that the recipe, or a variant
named before, predicts with the same settings are not predicted again.
"""

from __future__ import annotations

from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.run.stage_settings import boxes_settings


def with_variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe and its variants by the folder of their results, relative to the recipe's: ``""`` is the recipe."""
    return {"": recipe} | {f"variants/{name}/": recipe.variant(name) for name in recipe.variants}


def boxes_folder(recipes: dict[str, Recipe], folder: str) -> str:
    """The key of ``recipes`` (see :func:`with_variants`) under which the boxes lie that ``folder``'s are made from."""
    wanted = boxes_settings(recipes[folder])
    return next(other for other, recipe in recipes.items() if boxes_settings(recipe) == wanted)
