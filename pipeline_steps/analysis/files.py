"""Files of what was computed for figures and tables: JSON with the recipe's name, facts, and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.recipe import Recipe


def write_analysis(path: str | Path, recipe: Recipe, tables: Mapping[str, pd.DataFrame], **facts: Any) -> None:
    """Write tables and facts, which are JSON values; numbers keep every digit, NaN and infinity become null."""
    split = {}
    for name, table in tables.items():
        rows = table.replace([np.inf, -np.inf], np.nan).astype(object)
        split[name] = {"columns": list(table), "rows": rows.where(table.notna() & rows.notna(), None).values.tolist()}
    write_json(path, {"recipe": recipe.name, **facts, "tables": split})


def read_analysis(path: Path | None, recipe: Recipe, step: str) -> dict[str, Any]:
    """What :func:`write_analysis` has written, ``tables`` as data frames.

    Raises:
        UserError: missing, damaged or of another recipe.
    """
    if path is None or not path.is_file():
        raise UserError(f"no results of {step} ({path or 'none given'}); this step computes them")
    content = read_json(path, f"file of {step}")
    try:
        if content["recipe"] != recipe.name:
            raise UserError(f"{path} belongs to recipe {content['recipe']!r}, not {recipe.name!r}")
        tables = {name: pd.DataFrame(one["rows"], columns=one["columns"]) for name, one in content["tables"].items()}
        for table in tables.values():
            table[table.columns[table.isna().all()]] = np.nan  # numbers, not objects
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a file of {step} ({error!r})") from None
    return {**content, "tables": tables}
