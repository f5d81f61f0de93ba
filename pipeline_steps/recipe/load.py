"""Loading recipes: YAML layers, nearest-name hints for misspelt keys, JSON schema."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline_steps.common.errors import UserError
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


def _section(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section class at ``location`` of a recipe, for hints about its valid keys."""
    section: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if isinstance(section, type) and issubclass(section, BaseModel) else None
        if field is None:
            return None
        section = field.annotation
        for argument in getattr(section, "__args__", ()):
            section = argument
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None


def explain(error: ValidationError, origin: str) -> str:
    """One line per problem: key, what is wrong, nearest valid name."""
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location) or "recipe"
        if problem["type"] == "extra_forbidden":
            section = _section(location[:-1])
            valid = sorted(section.model_fields) if section else []
            near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
            lines.append(f"unknown key {key!r}; {hint}")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return f"{origin}: " + "; ".join(lines)


def resolve_recipe(values: dict[str, Any], folder: Path = CONFIG_FOLDER, origin: str = "configuration") -> Recipe:
    """A checked recipe from raw values; ``extends`` is looked up in ``folder``, then in config/.

    Raises:
        UserError: unknown or wrong keys, with the nearest valid name.
    """
    layered = _resolve_layers(values, folder, origin)
    try:
        return Recipe.model_validate(layered)
    except ValidationError as error:
        raise UserError(explain(error, origin)) from None


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file and the recipes that it extends.

    Raises:
        UserError: the file is missing, no YAML, or has unknown or wrong keys.
    """
    path = Path(path)
    return resolve_recipe(_read_yaml(path), path.parent, str(path))
