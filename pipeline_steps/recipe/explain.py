"""Validation errors as messages for people: the key, what is wrong, and the nearest valid name."""

import difflib
from functools import reduce

from pydantic import BaseModel, ValidationError

from pipeline_steps.recipe.layers import kind_at


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
