"""All figures of a run: which there are, what they say, and the page that shows them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_steps.common.atomic import write_text
from pipeline_steps.report.figures import rescoring, results, training
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import MissingInputError, save
from pipeline_steps.report.page import file_uri, html_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
PIXELS_PER_INCH = 120
"""Size of the figures on the page."""

_STYLE = """
.plot { overflow-x: auto; background: #fff; border-radius: 4px; padding: 0.4rem; }
.plot img { display: block; min-width: min(34rem, 130vw); max-width: 100%; height: auto; margin: 0 auto; }
"""


@dataclass(frozen=True)
class FigureKind:
    """One figure of a report."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    """What to see in it."""
    draw: Callable[[Inputs], Figure]
    """Draws it, or raises MissingInputError."""


FIGURES = (
    FigureKind(
        "ap_by_group",
        "AP by frequency group",
        "Mask or box AP of every model on val. The short black lines are AP_fixed: where a line stands well below its "
        "bar, the model gains from how categories share the places under the cap per image rather than from better "
        "scores.",
        results.ap_by_group,
    ),
    FigureKind(
        "rescoring",
        "Re-scoring: where the gain comes from",
        "The ensemble's detections on val ranked anew. Left: AP against alpha, which is added to the scores of rare "
        "categories (half of it to common ones); the grey line is the recipe's alpha. AP_fixed cannot change: within a "
        "category the order stays. Right: overall (grey), rare (red) and frequent (blue) AP against the cap per image; "
        "the grey line is the recipe's cap. Where the cap does not bind, re-scoring does nothing. The table holds only "
        "what was kept per image under the recipe's alpha.",
        rescoring.rescoring,
    ),
    FigureKind(
        "scores",
        "Scores by frequency group",
        "The models' scores, before re-scoring, of the ensemble's detections on val that count: right ones (IoU of at "
        "least 0.5 with an object of the category) and wrong ones. Compare the medians of the right ones between the "
        "groups: re-scoring is meant to make up for their distance. Both axes are logarithmic.",
        rescoring.score_distributions,
    ),
    FigureKind(
        "precision_recall",
        "Precision and recall",
        "Precision over recall at IoU 0.5, the mean over the categories of a group. A curve that falls early is "
        "limited by wrong detections, one that ends early by objects that are never found.",
        results.precision_recall,
    ),
    FigureKind(
        "ap_by_category",
        "AP and number of train images",
        "One point for each category with ground truth on val. Rare categories have few objects on val, so their "
        "points scatter widely.",
        results.ap_by_category,
    ),
    FigureKind(
        "long_tail",
        "The long tail of the training data",
        "Train images of each category, sorted by their number in LVIS, which decides what is rare, common or "
        "frequent. Black: with the chosen OpenImages images, for categories that both data sets share.",
        training.long_tail,
    ),
    FigureKind(
        "training",
        "Training curves",
        "Losses of every training over the images seen, as means between two reports. Box-classification losses of "
        "different loss functions cannot be compared with each other.",
        training.training_curves,
    ),
)


def draw_figures(inputs: Inputs, folder: Path, title: str, note: str = "") -> list[str]:
    """Draw every figure that the inputs allow into ``folder``, and the page that shows them.

    Returns:
        Names of the figures that were drawn. The others are named on the page, with what is missing for them.
    """
    drawn, shown, absent = [], [], []
    for kind in FIGURES:
        try:
            figure = kind.draw(inputs)
        except MissingInputError as error:
            logging.info("%s is not drawn: %s", kind.name, error)
            absent.append(f"<li>{escape(kind.title)}: {escape(str(error))}</li>")
            continue
        save(figure, folder, kind.name)
        drawn.append(kind.name)
        width = round(figure.get_figwidth() * PIXELS_PER_INCH)
        shown.append(
            f'<section id="{kind.name}"><h2>{escape(kind.title)}</h2><figure><div class="plot"><img alt='
            f'"{escape(kind.title)}" width="{width}" src="{file_uri(folder / f"{kind.name}.svg")}"></div>'
            f"<figcaption>{escape(kind.caption)}</figcaption></figure></section>"
        )
    links = "".join(f'<a href="#{kind.name}">{escape(kind.title)}</a>' for kind in FIGURES if kind.name in drawn)
    missing = f"<h2>Not drawn</h2><ul>{''.join(absent)}</ul>" if absent else ""
    text = (
        f"<h1>{escape(title)}</h1>{f'<p>{escape(note)}</p>' if note else ''}<nav>{links}</nav>{''.join(shown)}{missing}"
    )
    write_text(folder / PAGE, html_page(title, text, _STYLE))
    return drawn
