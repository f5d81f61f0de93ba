"""Loading recipes: YAML files laid over each other with ``extends``, checked as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import nearest_file
from pipeline_steps.recipe.explain import explain
from pipeline_steps.recipe.schema import Recipe, merged

CONFIG_FOLDER = Path(__file__).parents[2] / "config"
"""Where ``extends`` looks for a recipe that is not beside the one that names it."""


def shipped_or_own(name: str | Path) -> Path:
    """A file that a recipe names: as it is named, or, where only that is there, beside config/ (from any folder)."""
    path = Path(name)
    shipped = CONFIG_FOLDER.parent / path
    return shipped if not path.exists() and shipped.exists() else path


Layer: TypeAlias = tuple[str, dict[str, Any]]
"""Where keys and values come from, and they themselves."""

NAMED_LISTS = ("pretraining", "models", "experts", "weights")
"""Lists of entries with names that other keys refer to."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a recipe file, ``extends`` as it stands there.

    Raises:
        UserError: the file is missing, no YAML (file and line are named), or no mapping.
    """
    if not path.is_file():
        raise UserError(f"recipe not found: {path}{nearest_file(path)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, [error.context, error.problem]))
        raise UserError(f"{path}{place}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def _layers(values: dict[str, Any], folder: Path, origin: str, seen: tuple[Path, ...] = ()) -> list[Layer]:
    """``values`` and the recipes that they extend, the lowest first."""
    own = (origin, {key: value for key, value in values.items() if key != "extends"})
    base = values.get("extends")
    if base is None:
        return [own]
    candidates = [folder / str(base), CONFIG_FOLDER / str(base)]
    path = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
    if path is None:
        near = nearest_file(candidates[0]) or nearest_file(candidates[1])
        raise UserError(f"{origin}: extends: {base!r} is neither in {folder} nor in {CONFIG_FOLDER}{near}")
    if path in seen:
        raise UserError(f"{origin}: extends goes round in a circle at {path}")
    return [*_layers(read_yaml(path), path.parent, str(path), (*seen, path)), own]


def _names(layer: dict[str, Any], key: str) -> list[str]:
    entries = layer.get(key)
    found = [entry.get("name") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [name for name in found if isinstance(name, str)]


def _replaced(problem: str, layers: list[Layer]) -> str:
    """What to say where ``problem`` names an entry of a list that a later layer replaced; or nothing."""
    for key in NAMED_LISTS:
        giving = [(origin, _names(layer, key)) for origin, layer in layers if key in layer]
        where, kept = giving[-1] if giving else ("", [])
        for _, names in reversed(giving[:-1]):
            lost = [name for name in names if name not in kept]
            if any(repr(name) in problem for name in lost):
                return (
                    f" (`{key}` of {where} replaces the inherited list as a whole, which had {', '.join(lost)} too: "
                    "lists are not merged, so repeat the entries that you want to keep)"
                )
    return ""


def resolve_recipe(
    values: dict[str, Any],
    folder: Path = CONFIG_FOLDER,
    origin: str = "configuration",
    files: Sequence[str | Path] = (),
) -> Recipe:
    """A checked recipe from raw values; ``extends`` is looked up in ``folder``, then in config/.

    Args:
        values: keys and values.
        folder: folder of the recipe.
        origin: what the values are called in messages.
        files: recipes that Snakemake has laid over each other to make ``values``, for messages only.

    Raises:
        UserError: unknown or wrong keys, with the nearest valid name.
    """
    layers = _layers(values, folder, origin)
    try:
        return Recipe.model_validate(reduce(merged, (layer for _, layer in layers)))
    except ValidationError as error:
        problem = explain(error, Recipe).replace("\n", "\\n")  # a message is one line, whatever a value holds
        laid = [layer for file in files for layer in _layers(read_yaml(Path(file)), Path(file).parent, str(file))]
        raise UserError(f"{origin}: {problem}{_replaced(problem, laid or layers)}") from None


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file and the recipes that it extends.

    Raises:
        UserError: the file is missing, no YAML, or has unknown or wrong keys.
    """
    path = Path(path)
    return resolve_recipe(read_yaml(path), path.parent, str(path))


def recipe_text(recipe: Recipe) -> str:
    """A resolved recipe as YAML, with every key and no ``extends``; :func:`load_recipe` reads it back."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, width=120, allow_unicode=True)
