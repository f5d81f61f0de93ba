"""The comparison as files: Markdown, CSV, figures, and one self-contained page with all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline_steps.common.atomic import write_text
from pipeline_steps.report.ablations import figures, text
from pipeline_steps.report.ablations.mechanism import Mechanism, measure
from pipeline_steps.report.ablations.runs import METRICS, Runs
from pipeline_steps.report.ablations.statistics import describe
from pipeline_steps.report.ablations.tables import differences_frame, ratios_frame, runs_frame, settings_frame
from pipeline_steps.report.figures.style import MissingInputError, save
from pipeline_steps.report.grid import MISSING, Grid, markdown_table, number, with_spread
from pipeline_steps.report.page import PIXELS_PER_INCH, file_uri, html_page, part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

PAGE, MARKDOWN = "index.html", "ablations.md"


@dataclass(frozen=True)
class Section:
    """A part of the report: a heading, paragraphs, tables and figures (name, caption, how to draw)."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[tuple[list[str], list[list[str]]]] = ()
    figures: Sequence[tuple[str, str, Callable[[], Figure]]] = ()


def write_comparison(runs: Runs, folder: Path, benchmarks: Path | None = None) -> str:
    """Write everything into ``folder`` and return the Markdown.

    Args:
        runs: the compared models' files.
        folder: an existing folder.
        benchmarks: folder of the workflow's benchmark files, for the CPU time.
    """
    settings, differences, mechanism = settings_frame(runs), differences_frame(runs), measure(runs)
    quotients = ratios_frame(mechanism.quantities, runs.comparisons)
    for name, frame in {
        "runs": runs_frame(runs),
        "settings": settings,
        "differences": differences,
        "mechanism": _mechanism_frame(runs, mechanism),
        "quotients": quotients,
    }.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    sections = [
        _settings_section(runs, settings, benchmarks),
        _differences_section(runs, differences, mechanism),
        _mechanism_section(runs, mechanism, quotients),
    ]
    markdown = _markdown(runs, sections)
    write_text(folder / MARKDOWN, markdown)
    write_text(folder / PAGE, _page(runs, sections, folder))
    return markdown


def cpu_seconds(folder: Path | None) -> tuple[float, int]:
    """CPU seconds of all jobs that left a benchmark file, and their number."""
    total, jobs = 0.0, 0
    for path in sorted(folder.rglob("*.tsv")) if folder is not None else []:
        table = pd.read_csv(path, sep="\t")
        if "cpu_time" in table:
            total += float(pd.to_numeric(table["cpu_time"], errors="coerce").fillna(0).sum())
            jobs += 1
    return total, jobs


def _settings_section(runs: Runs, settings: pd.DataFrame, benchmarks: Path | None) -> Section:
    rows = [
        [
            row["setting"],
            str(row["n"]),
            *(with_spread(row[column], row[f"{column}_sd"]) for column in METRICS.values()),
            number(row["images_seen"]),
        ]
        for row in settings.to_dict("records")
    ]
    paragraphs = text.design(runs, settings)
    seconds, jobs = cpu_seconds(benchmarks)
    if jobs:
        paragraphs.append(text.cost(seconds, jobs))
    header = ["setting", "seeds", *METRICS.values(), "images seen"]
    return Section("Means over seeds", paragraphs, [(header, rows)])


def _differences_section(runs: Runs, differences: pd.DataFrame, mechanism: Mechanism) -> Section:
    rows = []
    for (setting, reference), group in differences.groupby(["setting", "reference"], sort=False):
        cells = [text.interval_cell(row) for row in group.to_dict("records")]
        rows.append([f"{setting} − {reference}", str(group["n"].max()), *cells])
        if group["report"].notna().any():
            rows.append(["the paper, on LVIS", "", *(number(value, signed=True) for value in group["report"])])
    paragraphs = [
        *text.findings(differences),
        *text.explanation(runs, differences, mechanism.frequent_per_rare),
    ]
    caption = (
        "Mean difference over pairs of equal seed and its 95 % interval; rings are the paper's differences on LVIS. "
        "An interval that crosses the grey line leaves the sign open."
    )
    drawn = [("differences", caption, lambda: figures.differences(differences))]
    return Section(
        "Differences between runs of equal seed",
        paragraphs,
        [(["difference", "pairs", *METRICS.values()], rows)],
        drawn,
    )


def _mechanism_frame(runs: Runs, mechanism: Mechanism) -> pd.DataFrame:
    """One row per run: ratios by group, negatives per positive of rare categories, scores of rare objects."""
    columns = {
        **{f"ratio_{letter}": mechanism.whole(letter, "ratio") for letter in "rcf"},
        "negatives_per_positive_r": mechanism.whole("r", "negatives_per_positive"),
        "matched_r": mechanism.matched,
        "median_score_matched_r": mechanism.median_score,
        "median_score_all_r": mechanism.median_score_of_all,
    }
    return pd.DataFrame(
        [
            {
                "setting": s,
                "seed": seed,
                **{name: values.get(s, {}).get(seed, np.nan) for name, values in columns.items()},
            }
            for s in runs.settings
            for seed in runs.models(s)
        ]
    )


def _spread(values: dict[int, float], digits: int = 1) -> str:
    sample = describe(list(values.values()))
    return with_spread(sample.mean, sample.sd, digits)


def _mechanism_section(runs: Runs, mechanism: Mechanism, quotients: pd.DataFrame) -> Section:
    columns = [
        ("discouraging / encouraging: rare", mechanism.whole("r", "ratio"), 2),
        ("common", mechanism.whole("c", "ratio"), 2),
        ("frequent", mechanism.whole("f", "ratio"), 2),
        ("rare: valid negatives per positive", mechanism.whole("r", "negatives_per_positive"), 0),
        ("rare objects matched, %", mechanism.matched, 1),
        ("their median score", mechanism.median_score, 3),
        ("median score, unmatched as 0", mechanism.median_score_of_all, 3),
    ]
    rows = [
        [setting, *(_spread(values.get(setting, {}), digits) for _, values, digits in columns)]
        for setting in runs.settings
    ]
    compared = [
        [f"{setting} / {reference}", *(_quotient(row) for row in group.to_dict("records"))]
        for (setting, reference), group in quotients.groupby(["setting", "reference"], sort=False)
    ]
    names = list(mechanism.quantities)
    contrast = _contrast(runs)
    negatives = {
        setting: describe(list(by_seed.values())).mean
        for setting, by_seed in mechanism.whole("r", "negatives_per_positive").items()
        if by_seed
    }
    paragraphs = [
        *text.mechanism_findings(contrast, quotients, negatives),
        "Gradients at the logits of a category are summed over the sampled proposals of the training: discouraging "
        "ones from proposals that are not of the category, encouraging ones from those that are. Valid samples are "
        "those with a weight above 0 in the loss.",
        f"A rare object of val ({mechanism.rare_objects} in all) is matched if a detection of its category overlaps "
        "it with a mask IoU of at least 0.5; the score is the model's own.",
        *mechanism.problems,
    ]
    over_training = {setting: mechanism.groups.get(setting, {}) for setting in contrast}
    by_category = {setting: mechanism.categories.get(setting, {}) for setting in contrast}
    return Section(
        "The mechanism: gradients and scores of rare categories",
        paragraphs,
        [(["setting", *(name for name, _, _ in columns)], rows), (["quotient of pairs", *names], compared)],
        [
            (
                "gradients",
                "Ratio of discouraging to encouraging gradient over the training, by frequency group; the band is the "
                "range over seeds. Above the grey line a category is pushed down more than up.",
                lambda: figures.ratios_over_training(over_training),
            ),
            (
                "gradients_by_category",
                "The same over the whole training for each category, mean over seeds; the paper's figure 1 (b) counts "
                "samples where this sums gradients.",
                lambda: figures.ratios_by_category(by_category, mechanism.image_counts),
            ),
            (
                "rare_scores",
                "Median score of the matched rare objects of val in each run; grey lines join runs of a seed, red is "
                "the mean.",
                lambda: figures.rare_scores(mechanism.median_score),
            ),
        ],
    )


def _contrast(runs: Runs) -> list[str]:
    """What the gradient figures show: the settings of the first comparison of EQL with sigmoid."""

    def loss(setting: str) -> set[str]:
        return {runs.recipe.training_of(model).loss for model in runs.models(setting).values()}

    for setting, reference in runs.comparisons:
        if loss(setting) == {"eql"} and loss(reference) == {"sigmoid"}:
            return [reference, setting]
    return runs.settings[:3]


def _quotient(row: dict[str, Any]) -> str:
    if not row["n"]:
        return MISSING
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['quotient']:.2f}{interval}"


def _title(runs: Runs) -> str:
    return f"Recipe {runs.recipe.name}: settings compared over seeds"


def _note(runs: Runs) -> list[str]:
    mini = "Data: the embedded mini world, not LVIS. AP is mask AP in per cent."
    return [mini if runs.recipe.data.source == "mini" else "AP is mask AP in per cent."]


def _markdown(runs: Runs, sections: Sequence[Section]) -> str:
    parts = [f"# {_title(runs)}", *_note(runs)]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [markdown_table(header, rows) for header, rows in section.tables]
        if section.paragraphs:
            parts.append("\n".join(f"- {paragraph}" for paragraph in section.paragraphs))
    return "\n\n".join(parts) + "\n"


def _plot(name: str, caption: str, draw: Callable[[], Figure], folder: Path) -> Markup:
    try:
        drawn = draw()
    except MissingInputError as error:
        log.info("%s is not drawn: %s", name, error)
        return part("absent", f"{name} is not drawn: {error}.")
    save(drawn, folder, name)
    width = round(drawn.get_figwidth() * PIXELS_PER_INCH)
    return part("plot", f"ablation-{name}", caption, "", file_uri(folder / f"{name}.svg"), width)


def _page(runs: Runs, sections: Sequence[Section], folder: Path) -> str:
    content = Markup()
    for section in sections:
        content += part("heading", section.title)
        for position, (header, rows) in enumerate(section.tables, 1):
            label = f"{section.title}, table {position}"
            content += part("table", Grid(label, header, rows, 1, []), label)
        content += part("paragraphs", section.paragraphs)
        content += Markup().join(_plot(*one, folder) for one in section.figures)
    return html_page(_title(runs), content, _note(runs), heading="Settings compared over seeds")
