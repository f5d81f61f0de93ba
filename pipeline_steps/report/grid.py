"""Tables as they are shown: numbers as text, and Markdown that also reads well in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import pandas as pd

MISSING = "–"  # what stands for a number that there is not


@dataclass(frozen=True)
class Grid:
    """A table as it is shown, with its heading and what has to be said about it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    text_columns: int  # so many columns from the left hold text, the others numbers
    notes: list[str]

    def markdown(self) -> str:
        """Heading, table and notes."""
        table = markdown_table(self.header, self.rows, self.text_columns)
        return f"# {self.title}\n\n{table}\n\n" + "".join(f"- {note}\n" for note in self.notes)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table with padded columns.

    Args:
        text_columns: so many columns from the left are aligned left, the others right.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    rule = ["-" * width if k < text_columns else "-" * (width - 1) + ":" for k, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if k < text_columns else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:])])


def number(value: float | None, signed: bool = False, digits: int = 1) -> str:
    """A number as people read it: counts whole, with commas; all else (AP in per cent) with ``digits`` decimals."""
    if value is None or pd.isna(value):
        return MISSING
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def with_spread(mean: float | None, spread: float, digits: int = 1) -> str:
    """``mean ± spread`` (a standard deviation, half an interval); the mean alone if there is no spread."""
    return number(mean, digits=digits) + ("" if pd.isna(spread) else f" ± {spread:.{digits}f}")
