"""The typed recipe: one declaration of every configuration key, loading with layers, schema and documentation."""

from pipeline_steps.recipe.load import load_recipe, resolve_recipe
from pipeline_steps.recipe.schema import Recipe

__all__ = ["Recipe", "load_recipe", "resolve_recipe"]
