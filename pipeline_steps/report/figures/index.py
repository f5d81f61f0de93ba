"""All figures of a run: which function draws which, and the list of those that could be drawn."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.report.figures import ensemble, results, training
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import save

LIST = "figures.json"  # file beside the figures: for each figure why it is missing, or an empty text

FIGURES: dict[str, Callable[[Inputs], Figure | tuple[Figure, pd.DataFrame]]] = {
    "ap_by_group": results.ap_by_group,
    "ap_by_category": results.ap_by_category,
    "scores": ensemble.score_distributions,
    "precision_recall": results.precision_recall,
    "rescoring": ensemble.rescoring,
    "ensemble_gain": ensemble.ensemble_gain,
    "samples": training.samples,
    "long_tail": training.long_tail,
    "training": training.training_curves,
}
"""Draws each figure of :data:`CAPTIONS`, some with a table of its numbers, or raises UserError."""


@dataclass(frozen=True)
class DrawnFigures:
    """Figures in a folder."""

    folder: Path
    missing: dict[str, str]  # why a figure is missing, by name; empty for figures that are there

    @property
    def drawn(self) -> list[str]:
        """Names of the figures that are there."""
        return [name for name, reason in self.missing.items() if not reason]


def draw_figures(inputs: Inputs, folder: Path) -> DrawnFigures:
    """Draw every figure that the inputs allow into ``folder``, as SVG and PNG, and its table, if any, as CSV."""
    missing = {}
    for name in CAPTIONS:
        try:
            drawn = FIGURES[name](inputs)
            figure, table = drawn if isinstance(drawn, tuple) else (drawn, None)
            save(figure, folder, name)
            if table is not None:
                table.to_csv(folder / f"{name}.csv", index=False)
            missing[name] = ""
        except UserError as error:
            logging.info("%s is not drawn: %s", name, error)
            missing[name] = str(error)
    write_json(folder / LIST, missing, indent=1)
    return DrawnFigures(folder, missing)


def read_figures(folder: Path) -> DrawnFigures:
    """The figures that :func:`draw_figures` left in ``folder``; those that are not there are missing."""
    try:
        listed = read_json(folder / LIST, "list of figures")
    except UserError as error:
        return DrawnFigures(folder, dict.fromkeys(CAPTIONS, str(error)))
    absent = f"not in {folder}: draw the figures again"
    reasons = {name: str(listed.get(name, absent)) if isinstance(listed, dict) else absent for name in CAPTIONS}
    return DrawnFigures(
        folder, {name: r or ("" if (folder / f"{name}.svg").is_file() else absent) for name, r in reasons.items()}
    )
