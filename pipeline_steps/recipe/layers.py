"""Layers of a recipe: what a file says is laid over what it extends, key by key; what is wrong with it, in words."""

import difflib
from functools import reduce
from types import GenericAlias
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline_steps.common.errors import listing


def is_section(kind: Any) -> bool:
    """Whether a type is a group of keys."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def kind_at(kind: Any, key: Any) -> Any:
    """Type of what stands at ``key`` of a section, a mapping or a list; ``object`` where none is declared."""
    if is_section(kind):
        return kind.model_fields[key].annotation if key in kind.model_fields else object
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else object


def by_name(entries: Any) -> dict[str, Any] | None:
    """Entries of a list that all have names, by name; None for anything else."""
    named = isinstance(entries, list) and all(isinstance(entry, dict) and "name" in entry for entry in entries)
    return {entry["name"]: entry for entry in entries} if named else None


def merged(base: dict[str, Any], overlay: dict[str, Any], kind: Any = object, place: str = "") -> dict[str, Any]:
    """``overlay`` laid over ``base``: mappings merge key by key, everything else (lists too) is replaced.

    ``null`` takes away what is below, except where null is a value of the key. A mapping over a list of entries with
    names changes the entries that it names, takes away those that it sets to null, and adds the others at the end.

    Args:
        kind: type of both. Where it is not declared, null is passed on: overrides that are laid over something else.
        place: where both are, for messages; with a dot at its end.

    Raises:
        ValueError: a null that takes away nothing, or a whole section.
    """
    result = dict(base)
    for key, value in overlay.items():
        inner, below, at = kind_at(kind, key), result.get(key), f"{place}{key}"
        entries = by_name([] if below is None and "name" in getattr(kind_at(inner, 0), "model_fields", ()) else below)
        if value is None and is_section(inner) and is_section(kind):
            raise ValueError(f"{at} is empty: give a key of it, or leave it out")
        if value is None and type(None) not in get_args(inner):
            if key in result:
                del result[key]
            elif kind is object:
                result[key] = None
            else:
                near = difflib.get_close_matches(str(key), [name for name in base if isinstance(name, str)], 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"inherited: {listing(base) or 'nothing'}"
                raise ValueError(f"{at}: null takes away what is inherited, and there is no {str(key)!r}; {hint}")
        elif isinstance(value, dict) and entries is not None and get_origin(inner) is not dict:
            changed = merged(entries, value, GenericAlias(dict, (str, kind_at(inner, 0))), f"{at}.")
            result[key] = [
                {"name": name, **entry} if isinstance(entry, dict) else entry for name, entry in changed.items()
            ]
        elif isinstance(value, dict):
            result[key] = merged(below if isinstance(below, dict) else {}, value, inner, f"{at}.")
        else:
            result[key] = value
    return result


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Every problem of a validation error of ``root`` in one line, separated by semicolons."""
    problems = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            valid = sorted(getattr(reduce(kind_at, location[:-1], root), "model_fields", ()))
            near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
            problems.append(f"unknown key {key!r}; {hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}" if key else message)
    return "; ".join(problems)
