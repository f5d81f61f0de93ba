"""Validation errors as messages for people: the key, what is wrong, and the nearest valid name."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _section_at(root: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section class found by walking ``location`` down from ``root``; list indices are skipped."""
    section: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if _is_section(section) else None
        if field is None:
            return None
        section = next((inner for inner in getattr(field.annotation, "__args__", ()) if _is_section(inner)), None)
        section = section or field.annotation
    return section if _is_section(section) else None


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Every problem of a validation error of ``root`` in one line, separated by semicolons."""
    problems = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            section = _section_at(root, location[:-1])
            valid = sorted(section.model_fields) if section else []
            near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
            problems.append(f"unknown key {key!r}; {hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}" if key else message)
    return "; ".join(problems)
