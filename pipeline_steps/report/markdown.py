"""Tables as text cells, and as Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "–"
"""What stands for a figure that there is not."""


@dataclass(frozen=True)
class Grid:
    """A table as it is shown, with its heading and what has to be said about it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    text_columns: int
    """So many columns from the left hold text, the others figures."""
    notes: list[str]

    def markdown(self) -> str:
        """Heading, table and notes."""
        table = markdown_table(self.header, self.rows, self.text_columns)
        return f"# {self.title}\n\n{table}\n\n" + "".join(f"- {note}\n" for note in self.notes)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table with padded columns.

    Args:
        header: column names.
        rows: cells as text, one per column.
        text_columns: so many columns from the left are aligned left, the others right.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    rule = ["-" * width if k < text_columns else "-" * (width - 1) + ":" for k, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if k < text_columns else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:])])


def figure(value: float | None, signed: bool = False) -> str:
    """A figure in per cent with one decimal, as the report prints them."""
    if value is None or value != value:
        return MISSING
    return f"{value:+.1f}" if signed else f"{value:.1f}"
