"""What the sections of the page are put together from: tables, plots, other pages, and a word where one is missing."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from markupsafe import Markup

from pipeline_steps.analysis.measured import Measured, read_all
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import DrawnFigures
from pipeline_steps.report.grid import Grid, number
from pipeline_steps.report.page import PIXELS_PER_INCH, data_uri, file_uri, page_content, part
from pipeline_steps.report.run_page.state import TrainingState, training_states
from pipeline_steps.run.result_files import ResultFiles


@dataclass
class Run:
    """What the sections are made from."""

    files: ResultFiles
    figures: DrawnFigures

    @cached_property
    def measured(self) -> list[Measured]:
        """All evaluations of the recipe, missing ones too."""
        return self._read(self.files.recipe.evaluations)

    @cached_property
    def variants(self) -> list[Measured]:
        """Evaluations of the recipe's variants, which only stand in tables of the paper."""
        return self._read(self.files.recipe.variants)

    def _read(self, names: Iterable[str]) -> list[Measured]:
        return read_all({name: self.files.metrics.of(name=name) for name in names}, self.files.recipe)

    @cached_property
    def states(self) -> list[TrainingState]:
        """All trainings of the recipe."""
        return training_states(self.files)

    def plot(self, *names: str) -> Markup:
        """Plots with their captions, or why they are missing."""
        return Markup("").join(map(self._plot, names))

    def _plot(self, name: str) -> Markup:
        caption = CAPTIONS[name]
        if reason := self.figures.missing[name]:
            return absent(f"{caption.title}: not drawn. {reason}")
        path = note_input(self.figures.folder / f"{name}.svg")
        points = ElementTree.parse(path).getroot().get("width", "").removesuffix("pt")  # 72 to an inch
        width = round(float(points) / 72 * PIXELS_PER_INCH)
        return part("plot", f"figure-{name}", caption.title, caption.text, file_uri(path), width)

    def plotted(self, name: str, columns: dict[str, str] | None = None) -> Markup:
        """The table that was written with a plot; empty if there is none.

        Args:
            columns: columns to show and what to call them; all of them under their names if not given.
        """
        path = self.figures.folder / f"{name}.csv"
        if self.figures.missing[name] or not path.is_file():
            return Markup()
        frame = pd.read_csv(note_input(path))
        frame = frame if columns is None else frame[list(columns)].rename(columns=columns)
        texts = sum(frame.dtypes.map(lambda kind: not pd.api.types.is_numeric_dtype(kind)))
        rows = [[_shown(value)[0] for value in row] for row in frame.astype(object).itertuples(index=False)]
        return table(Grid(f"{CAPTIONS[name].title}, in figures", list(frame.columns), rows, texts, []))


def absent(text: str) -> Markup:
    """A sentence in place of what is missing."""
    return part("absent", text)


def table(grid: Grid, heading: bool = False) -> Markup:
    """A table with its notes, and with its heading if asked for."""
    return (part("heading", grid.title) if heading else Markup()) + part("table", grid, grid.title)


def _shown(value: Any) -> tuple[str, str]:
    """A cell as it is shown, and the value that it is sorted by."""
    if isinstance(value, str):
        return value, value
    return number(value), "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def sortable_table(frame: pd.DataFrame, text_columns: int, label: str) -> Markup:
    """A table whose columns sort on a click, with a field that shows only rows with certain words.

    Args:
        frame: text columns first; floats are shown with one decimal, missing values sort last.
    """
    rows = [[_shown(value) for value in row] for row in frame.astype(object).itertuples(index=False)]
    csv = data_uri(frame.to_csv(index=False).encode(), "text/csv")
    return part("sortable", list(frame.columns), rows, text_columns, label, csv)


def embedded_page(path: Path, step: str) -> Markup:
    """The content of one of our pages.

    Args:
        step: what makes it, for the sentence that stands in its place if it is missing.
    """
    try:
        return page_content(path)
    except UserError as error:
        return absent(f"Not shown: {error}. python -m pipeline_steps.{step} makes it.")
