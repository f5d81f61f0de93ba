"""Loading recipes: YAML files laid over each other with ``extends``, checked as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.explain import explain
from pipeline_steps.recipe.schema import Recipe, merged

CONFIG_FOLDER = Path(__file__).parents[2] / "config"
"""Where ``extends`` looks for a recipe that is not beside the one that names it."""


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"recipe not found: {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def _resolve_layers(values: dict[str, Any], folder: Path, origin: str, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    values = dict(values)
    base = values.pop("extends", None)
    if base is None:
        return values
    candidates = [folder / str(base), CONFIG_FOLDER / str(base)]
    path = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"{origin}: extends: {base!r} is neither in {folder} nor in {CONFIG_FOLDER}")
    if path in seen:
        raise UserError(f"{origin}: extends goes round in a circle at {path}")
    return merged(_resolve_layers(_read_yaml(path), path.parent, str(path), (*seen, path)), values)


def resolve_recipe(values: dict[str, Any], folder: Path = CONFIG_FOLDER, origin: str = "configuration") -> Recipe:
    """A checked recipe from raw values; ``extends`` is looked up in ``folder``, then in config/.

    Raises:
        UserError: unknown or wrong keys, with the nearest valid name.
    """
    layered = _resolve_layers(values, folder, origin)
    try:
        return Recipe.model_validate(layered)
    except ValidationError as error:
        problem = explain(error, Recipe).replace("\n", "\\n")  # a message is one line, whatever a value holds
        raise UserError(f"{origin}: {problem}") from None


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file and the recipes that it extends.

    Raises:
        UserError: the file is missing, no YAML, or has unknown or wrong keys.
    """
    path = Path(path)
    return resolve_recipe(_read_yaml(path), path.parent, str(path))


def recipe_text(recipe: Recipe) -> str:
    """A resolved recipe as YAML, with every key and no ``extends``; :func:`load_recipe` reads it back."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, width=120, allow_unicode=True)
