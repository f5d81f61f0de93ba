"""The comparison as files: Markdown, CSV, figures, and one self-contained page with all of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline_steps.analysis.ablations.runs import METRICS, Runs
from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.report.ablations import figures, text
from pipeline_steps.report.figures.style import save
from pipeline_steps.report.grid import Grid, markdown_table, number, with_spread
from pipeline_steps.report.page import PIXELS_PER_INCH, file_uri, html_page, part, render

log = logging.getLogger(__name__)

PAGE, MARKDOWN = "index.html", "ablations.md"

MECHANISM = {
    "discouraging / encouraging: rare": ("ratio_r", 2),
    "common": ("ratio_c", 2),
    "frequent": ("ratio_f", 2),
    "rare: valid negatives per positive": ("negatives_per_positive_r", 0),
    "rare objects matched, %": ("matched_r", 1),
    "their median score": ("median_score_matched_r", 3),
    "median score, unmatched as 0": ("median_score_all_r", 3),
}
"""Columns of the mechanism's table: what they hold, and with how many decimals."""


@dataclass(frozen=True)
class Section:
    """A part of the comparison: a heading, tables, paragraphs and plots."""

    title: str
    tables: list[Grid]
    paragraphs: list[str]
    plots: list[Markup]


def write_comparison(recipe: Recipe, content: dict[str, Any], folder: Path) -> str:
    """Write everything into ``folder`` and return the Markdown.

    Args:
        content: from :func:`pipeline_steps.analysis.files.read_analysis`, of the compute_ablations step.
    """
    runs, tables = Runs(recipe), content["tables"]
    tables["settings"]["images_seen"] = tables["settings"]["images_seen"].astype("Int64")
    for name in ("runs", "settings", "differences", "mechanism", "quotients"):
        tables[name].to_csv(folder / f"{name}.csv", index=False)
    sections = [
        _settings_section(runs, content),
        _differences_section(runs, content, folder),
        _mechanism_section(runs, content, folder),
    ]
    title = f"Recipe {recipe.name}: settings compared over seeds"
    mini = "Data: the embedded mini world, not LVIS. " if recipe.data.source == "mini" else ""
    note = f"{mini}AP is mask AP in per cent."
    markdown = _markdown(title, note, sections)
    write_text(folder / MARKDOWN, markdown)
    page = render("ablations.html", sections=sections)
    write_text(folder / PAGE, html_page(title, page, [note], heading="Settings compared over seeds"))
    return markdown


def _markdown(title: str, note: str, sections: list[Section]) -> str:
    parts = [f"# {title}", note]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [markdown_table(grid.header, grid.rows) for grid in section.tables]
        if section.paragraphs:
            parts.append("\n".join(f"- {paragraph}" for paragraph in section.paragraphs))
    return "\n\n".join(parts) + "\n"


def _plot(name: str, caption: str, draw: Callable[[], Figure], folder: Path) -> Markup:
    try:
        drawn = draw()
    except UserError as error:
        log.info("%s is not drawn: %s", name, error)
        return part("absent", f"{name} is not drawn: {error}.")
    save(drawn, folder, name)
    width = round(drawn.get_figwidth() * PIXELS_PER_INCH)
    return part("plot", f"ablation-{name}", caption, "", file_uri(folder / f"{name}.svg"), width)


def _section(title: str, tables: list[tuple[list[str], list[list[str]]]], lines: list[str], *plots: Markup) -> Section:
    grids = [Grid(f"{title}, table {k}", header, rows, 1, []) for k, (header, rows) in enumerate(tables, 1)]
    return Section(title, grids, lines, list(plots))


def _settings_section(runs: Runs, content: dict[str, Any]) -> Section:
    settings = content["tables"]["settings"]
    rows = [
        [
            row["setting"],
            str(row["n"]),
            *(with_spread(row[column], row[f"{column}_sd"]) for column in METRICS.values()),
            number(row["images_seen"]),
        ]
        for row in settings.to_dict("records")
    ]
    paragraphs = text.design(runs, settings, content["missing"])
    if content["jobs"]:
        minutes = content["seconds"] / 60
        paragraphs.append(
            f"{content['jobs']} jobs took {minutes:.0f} CPU minutes: about {minutes / 2:.0f} minutes on two idle cores."
        )
    return _section("Means over seeds", [(["setting", "seeds", *METRICS.values(), "images seen"], rows)], paragraphs)


def _differences_section(runs: Runs, content: dict[str, Any], folder: Path) -> Section:
    settings, differences = content["tables"]["settings"], content["tables"]["differences"]
    rows = []
    for (setting, reference), group in differences.groupby(["setting", "reference"], sort=False):
        cells = [text.interval_cell(r.difference, r.low, r.high, signed=True) for r in group.itertuples()]
        rows.append([f"{setting} − {reference}", str(group["n"].max()), *cells])
        if group["report"].notna().any():
            rows.append(["the paper, on LVIS", "", *(number(value, signed=True) for value in group["report"])])
    paragraphs = text.findings(differences)
    paragraphs += text.explanation(runs, settings, differences, content["frequent_per_rare"])
    caption = (
        "Mean difference over pairs of equal seed and its 95 % interval; rings are the paper's differences on LVIS. "
        "An interval that crosses the grey line leaves the sign open."
    )
    return _section(
        "Differences between runs of equal seed",
        [(["difference", "pairs", *METRICS.values()], rows)],
        paragraphs,
        _plot("differences", caption, lambda: figures.differences(differences), folder),
    )


def _mechanism_section(runs: Runs, content: dict[str, Any], folder: Path) -> Section:
    tables = content["tables"]
    means, quotients, mechanism = tables["mechanism_means"], tables["quotients"], tables["mechanism"]
    rows = [
        [row["setting"], *(with_spread(row[c], row[f"{c}_sd"], digits) for c, digits in MECHANISM.values())]
        for row in means.to_dict("records")
    ]
    compared = [
        [f"{one} / {other}", *(text.interval_cell(r.quotient, r.low, r.high, 2) for r in group.itertuples())]
        for (one, other), group in quotients.groupby(["setting", "reference"], sort=False)
    ]
    paragraphs = [
        *text.mechanism_findings(runs, quotients, means),
        "Gradients at the logits of a category are summed over the sampled proposals of the training: discouraging "
        "ones from proposals that are not of the category, encouraging ones from those that are. Valid samples are "
        "those with a weight above 0 in the loss.",
        f"A rare object of val ({content['rare_objects']} in all) is matched if a detection of its category overlaps "
        "it with a mask IoU of at least 0.5; the score is the model's own.",
        *content["problems"],
    ]
    # The gradients of the first comparison of EQL with sigmoid, or of the first settings.
    shown = list(runs.equalized[0])[::-1] if runs.equalized else runs.settings[:3]

    def of_shown(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        return {setting: table[table["setting"] == setting] for setting in shown}

    return _section(
        "The mechanism: gradients and scores of rare categories",
        [(["setting", *MECHANISM], rows), (["quotient of pairs", *quotients["quantity"].unique()], compared)],
        paragraphs,
        _plot(
            "gradients",
            "Ratio of discouraging to encouraging gradient over the training, by frequency group; the band is the "
            "range over seeds. Above the grey line a category is pushed down more than up.",
            lambda: figures.ratios_over_training(of_shown(tables["gradients"])),
            folder,
        ),
        _plot(
            "gradients_by_category",
            "The same over the whole training for each category, mean over seeds; the paper's figure 1 (b) counts "
            "samples where this sums gradients.",
            lambda: figures.ratios_by_category(of_shown(tables["categories"])),
            folder,
        ),
        _plot(
            "rare_scores",
            "Median score of the matched rare objects of val in each run; grey lines join runs of a seed, red is "
            "the mean.",
            lambda: figures.rare_scores(mechanism, means),
            folder,
        ),
    )
