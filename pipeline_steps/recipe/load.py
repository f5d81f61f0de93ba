"""Loading recipes: YAML files laid over each other with ``extends``, checked as a whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import nearest_file
from pipeline_steps.recipe.layers import by_name, explain, merged
from pipeline_steps.recipe.schema import Recipe

CONFIG_FOLDER = Path(__file__).parents[2] / "config"
"""Where ``extends`` looks for a recipe that is not beside the one that names it."""

DEFAULT = CONFIG_FOLDER / "challenge.yaml"
"""What changes are laid over that name no recipe."""


def shipped_or_own(name: str | Path) -> Path:
    """A file that a recipe names: as it is named, or, where only that is there, beside config/ (from any folder)."""
    path = Path(name)
    shipped = CONFIG_FOLDER.parent / path
    return shipped if not path.exists() and shipped.exists() else path


Layer: TypeAlias = tuple[str, dict[str, Any]]
"""Where keys and values come from, and they themselves."""

NAMED_LISTS = ("pretraining", "models", "experts", "weights")
"""Lists of entries with names that other keys refer to."""


def is_whole(layer: dict[str, Any]) -> bool:
    """Whether keys and values are a recipe, or extend one; else they are changes of another."""
    return "extends" in layer or isinstance(layer.get("models"), list)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Keys and values of a recipe file, ``extends`` as it stands there.

    Raises:
        UserError: the file is missing, no YAML (file and line are named), or no mapping.
    """
    path = Path(path)
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


def _bases(origin: str, values: dict[str, Any], folder: Path, seen: tuple[Path, ...] = ()) -> list[Layer]:
    """The recipes that ``values`` extend, the lowest first."""
    base = values.get("extends")
    if base is None:
        return []
    candidates = [folder / str(base), CONFIG_FOLDER / str(base)]
    path = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
    if path is None:
        near = nearest_file(candidates[0]) or nearest_file(candidates[1])
        raise UserError(f"{origin}: extends: {base!r} is neither in {folder} nor in {CONFIG_FOLDER}{near}")
    if path in seen:
        raise UserError(f"{origin}: extends is circular at {path}")
    own = read_yaml(path)
    return [*_bases(str(path), own, path.parent, (*seen, path)), (str(path), own)]


def _lost(problem: str, layers: list[Layer], laid: list[dict[str, Any]]) -> str:
    """What to say where ``problem`` names an entry of a list that a layer replaced or took away; or nothing."""
    for (where, layer), before, after in zip(layers, laid, laid[1:]):
        for key in NAMED_LISTS:
            entries = by_name(before.get(key)) or {}
            lost = [name for name in entries if name not in (by_name(after.get(key)) or {})]
            if not any(repr(name) in problem for name in lost):
                continue
            if isinstance(layer[key], dict):
                return f" ({where} takes away {', '.join(lost)} of the inherited `{key}`)"
            return (
                f" (`{key}` of {where} replaces the inherited list as a whole, which had {', '.join(lost)} too: give a "
                "mapping by name to change the list, or repeat the entries that you want to keep)"
            )
    return ""


def resolve_recipe(
    values: dict[str, Any],
    folder: Path = CONFIG_FOLDER,
    origin: str = "configuration",
    files: Sequence[str | Path] = (),
) -> Recipe:
    """A checked recipe from raw values; ``extends`` is looked up beside the file that has it, then in config/.

    Args:
        values: keys and values of the recipe, whose folder is ``folder``.
        origin: what the values are called in messages.
        files: recipes that the values are laid over, later ones over earlier ones. All of them lie over what the last
            ``extends`` among them names.

    Raises:
        UserError: unknown or wrong keys, with the nearest valid name; a null that takes away nothing.
    """
    given = [(str(file), read_yaml(file), Path(file).parent) for file in files] + [(origin, values, folder)]
    extending = [one for one in given if one[1].get("extends") is not None]
    layers = [*(_bases(*extending[-1]) if extending else []), *((where, layer) for where, layer, _ in given)]
    laid: list[dict[str, Any]] = [{}]
    for where, layer in layers:
        own = {key: value for key, value in layer.items() if key != "extends"}
        try:
            laid.append(merged(laid[-1], own, Recipe))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    try:
        return Recipe.model_validate(laid[-1])
    except ValidationError as error:
        problem = explain(error, Recipe).replace("\n", "\\n")  # a message is one line, whatever a value holds
        raise UserError(f"{origin}: {problem}{_lost(problem, layers, laid)}") from None


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
