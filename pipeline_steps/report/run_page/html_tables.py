"""Tables as HTML: as they are in Markdown, and a large one that is sorted and searched in the browser."""

from __future__ import annotations

import math

import pandas as pd
from markupsafe import Markup

from pipeline_steps.report.grid import MISSING, number
from pipeline_steps.report.page import data_uri, part


def _shown(value: object) -> tuple[str, str]:
    """A cell as it is shown, and the value that it is sorted by."""
    if isinstance(value, str):
        return value, value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return MISSING, ""
    return (number(value), f"{value:g}") if isinstance(value, float) else (f"{value:,}", str(value))


def sortable_table(frame: pd.DataFrame, text_columns: int, label: str) -> Markup:
    """A table whose columns sort on a click, with a field that shows only rows with certain words.

    Args:
        frame: text columns first; floats are shown with one decimal, missing values sort last.
        text_columns: number of text columns.
        label: what the rows are.
    """
    rows = [[_shown(value) for value in row] for row in frame.astype(object).itertuples(index=False)]
    csv = data_uri(frame.to_csv(index=False).encode(), "text/csv")
    return part("sortable", list(frame.columns), rows, text_columns, label, csv)
