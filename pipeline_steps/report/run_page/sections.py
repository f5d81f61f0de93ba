"""The sections of the page, each from the files that it needs; what is missing is said in its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path

import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.category_list import GROUPS
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import DrawnFigures
from pipeline_steps.report.figures.style import MissingInputError
from pipeline_steps.report.markdown import Grid, figure
from pipeline_steps.report.measured import GROUPS as GROUP_COLUMNS
from pipeline_steps.report.measured import Measured, like_published, read_all
from pipeline_steps.report.page import file_uri, page_parts
from pipeline_steps.report.run_page.files import RunFiles
from pipeline_steps.report.run_page.html_tables import grid_table, notes_list, sortable_table
from pipeline_steps.report.run_page.rule_graph import RuleGraph, benchmark_seconds, draw_graph
from pipeline_steps.report.run_page.state import TrainingState, training_curves, training_states, trainings_grid
from pipeline_steps.report.tables import comparison_grid, summary_grid

PIXELS_PER_INCH = 120
"""Size of the figures on the page."""


@dataclass
class Run:
    """What the sections are made from."""

    files: RunFiles
    figures: DrawnFigures
    styles: list[str] = field(default_factory=list)
    """Style of embedded pages, collected while the sections are made."""

    @cached_property
    def measured(self) -> list[Measured]:
        """All evaluations of the recipe, missing ones too."""
        return read_all(self.files.metrics.items(), self.files.recipe)

    @cached_property
    def variants(self) -> list[Measured]:
        """Evaluations of the recipe's variants, which only stand in tables of the report."""
        recipe = self.files.recipe
        return read_all([(name, self.files.metrics_of(name)) for name in recipe.variants], recipe)

    @cached_property
    def states(self) -> list[TrainingState]:
        """All trainings of the recipe."""
        return training_states(self.files, training_curves(self.files))


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    anchor: str
    title: str
    make: Callable[[Run], str]
    """Its content as HTML; empty if the recipe has no such thing."""


def absent(text: str) -> str:
    """A sentence in place of what is missing."""
    return f'<p class="absent">{escape(text)}</p>'


def figure_html(run: Run, name: str) -> str:
    """A figure with its caption, or why it is missing."""
    caption = CAPTIONS[name]
    if reason := run.figures.missing[name]:
        return absent(f"{caption.title}: not drawn. {reason}")
    path = run.figures.folder / f"{name}.svg"
    inches = re.search(r'<svg[^>]* width="([\d.]+)pt"', path.read_text(encoding="utf-8"))
    width = round(float(inches[1]) / 72 * PIXELS_PER_INCH) if inches else 900
    return (
        f'<figure id="figure-{name}"><div class="plot"><img alt="{escape(caption.title)}" width="{width}" '
        f'src="{file_uri(path)}"></div><figcaption><b>{escape(caption.title)}.</b> {escape(caption.text)}</figcaption>'
        "</figure>"
    )


def figure_table(run: Run, name: str, columns: dict[str, str] | None = None) -> str:
    """The table that was written with a figure; empty if there is none.

    Args:
        run: the run.
        name: of the figure.
        columns: columns to show and what to call them; all of them under their names if not given.
    """
    path = run.figures.folder / f"{name}.csv"
    if run.figures.missing[name] or not path.is_file():
        return ""
    frame = pd.read_csv(path)
    frame = frame if columns is None else frame[list(columns)].rename(columns=columns)
    texts = sum(frame.dtypes.map(lambda kind: not pd.api.types.is_numeric_dtype(kind)))
    rows = [
        [
            figure(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            for value in row
        ]
        for row in frame.astype(object).itertuples(index=False)
    ]
    return grid_table(Grid("", list(frame.columns), rows, texts, []))


def _ensemble(run: Run) -> str:
    columns = {"members": "members", **GROUP_COLUMNS, "AP_fixed": "AP_fixed"}
    return (
        figure_html(run, "ensemble_gain") + figure_table(run, "ensemble_gain", columns) + figure_html(run, "rescoring")
    )


def _samples(run: Run) -> str:
    return figure_html(run, "samples") + figure_table(run, "samples")


def _missing_annotations(run: Run) -> str:
    return embedded_page(run, run.files.missing_annotations, "python -m pipeline_steps.count_samples makes it.")


def _summary(run: Run) -> str:
    return grid_table(summary_grid(run.measured, run.files.recipe)) + figure_html(run, "ap_by_group")


def _comparisons(run: Run) -> str:
    """The report's tables that the recipe reproduces in part or whole."""
    recipe = run.files.recipe
    parts, said = [], set(summary_grid(run.measured, recipe).notes)
    for name, mapping in sorted(recipe.report.tables.items()):
        if any(mapping.values()):
            grid = comparison_grid(name, [*run.measured, *run.variants], recipe)
            grid = replace(grid, notes=[note for note in grid.notes if note not in said])
            parts.append(f"<h3>{escape(grid.title)}</h3>{grid_table(grid)}")
    if not parts and not like_published(recipe):
        return ""
    if not parts:
        return absent("This recipe reproduces no row of the report's tables (report.tables names none).")
    return "".join(parts)


def category_frame(run: Run) -> pd.DataFrame:
    """One row per category: name, group, train images, objects on val, AP of each evaluation, AP_fixed of the last.

    Raises:
        MissingInputError: there are no per-category results.
    """
    tables = run.files.inputs().category_results()
    frame: pd.DataFrame | None = None
    for name, table in tables.items():
        known = table.set_index("category_id")
        if frame is None:
            frame = pd.DataFrame(index=known.index)
            frame["category"], frame["group"] = known["name"], known["frequency"].map(GROUPS)
            for column, source in (("train images", "train_images"), ("objects on val", "annotations")):
                if source in known:
                    frame[column] = known[source].astype("Int64")
        frame[f"AP {name}"] = known["AP"].astype(float)
    assert frame is not None
    frame[f"AP_fixed {name}"] = known["AP_fixed"].astype(float)
    return frame.reset_index(drop=True)


def _categories(run: Run) -> str:
    try:
        frame = category_frame(run)
    except MissingInputError as error:
        return absent(f"Not shown: {error}.")
    hint = (
        "<p>A click on a column sorts by it, a second click the other way round. Categories without objects on val "
        "have no AP.</p>"
    )
    return hint + sortable_table(frame, 2, "categories") + figure_html(run, "ap_by_category")


def embedded_page(run: Run, path: Path, remedy: str, within: str = "") -> str:
    """The content of one of our pages, its headings one level lower.

    Args:
        run: the run; the page's style is added to its styles.
        path: the page.
        remedy: what makes it, for the sentence that stands in its place if it is missing.
        within: anchor of the section that its style is confined to; empty: its classes are its own.
    """
    try:
        style, body = page_parts(path)
    except UserError as error:
        return absent(f"Not shown: {error}. {remedy}")
    run.styles.append(f"#{within} {{{style}}}\n" if within else style)
    body = re.sub(r"<h1>.*?</h1>", "", body)
    if within:
        body = re.sub(r' id="([^"]*)"', rf' id="{within}-\1"', body)
    return re.sub(r"<(/?)h([23])>", lambda m: f"<{m[1]}h{int(m[2]) + 1}>", body)


def _gallery(run: Run) -> str:
    return embedded_page(run, run.files.gallery, "python -m pipeline_steps.draw_predictions makes it.")


def _ablations(run: Run) -> str:
    path = run.files.ablations
    return embedded_page(run, path, "", within="ablations") if path.is_file() else ""


def _figures(*names: str) -> Callable[[Run], str]:
    return lambda run: "".join(figure_html(run, name) for name in names)


def _long_tail(run: Run) -> str:
    recipe = run.files.recipe
    without = "" if recipe.data.openimages.enabled else absent("This recipe uses no OpenImages images.")
    return without + figure_html(run, "long_tail")


def _training(run: Run) -> str:
    return grid_table(trainings_grid(run.files, run.states)) + figure_html(run, "training")


def _workflow(run: Run) -> str:
    try:
        graph = RuleGraph.from_json(read_json(run.files.rule_graph, "list of rules", "a run of the workflow writes it"))
    except UserError as error:
        return absent(f"Not drawn: {error}.")
    except (AttributeError, KeyError, TypeError, ValueError):
        return absent(f"Not drawn: {run.files.rule_graph} is no list of rules.")
    if not graph.jobs:
        return absent(f"Not drawn: {run.files.rule_graph} names no rules.")
    benchmarks = run.files.root / "benchmarks"
    caption = (
        "What is made from what, top to bottom; edges that a longer way implies are left out. Number of jobs, and the "
        "time of all jobs of a rule one after the other."
    )
    drawn = draw_graph(graph, {name: benchmark_seconds(benchmarks, name) for name in graph.jobs})
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def _origin(run: Run) -> str:
    """Recipe, code and hardware, from the manifest of the last evaluation that has one."""
    recipe = run.files.recipe
    lines = [
        f"Recipe {recipe.name}, LVIS {recipe.lvis_version}, seed {recipe.seed}; all its values: recipe.yaml in "
        f"{run.files.root}."
    ]
    for path in reversed(run.files.metrics.values()):
        try:
            manifest = read_json(path.with_name("metrics.manifest.json"), "manifest")
            code, hardware, packages = manifest["code"], manifest["hardware"], manifest["packages"]
            devices = ", ".join(map(str, hardware["gpus"])) or "no GPU"
            changed = ", with changes that are not committed" if code.get("changed") else ""
            lines += [
                f"Evaluated {manifest['times']['ended']} by code {code.get('commit') or code.get('digest')}{changed}.",
                f"On {hardware['processors']} x {hardware['processor']}, {hardware['memory_gb']} GB, {devices}; Python "
                f"{packages['python']}, torch {packages.get('torch', 'not installed')}.",
            ]
            break
        except (UserError, KeyError, TypeError):
            continue
    lines.append("Every result has a manifest beside it (NAME.manifest.json) with its command, inputs and digests.")
    return notes_list(lines)


SECTIONS = (
    Section("results", "Results", _summary),
    Section("report", "Tables of the report", _comparisons),
    Section("ablations", "Settings compared over seeds", _ablations),
    Section("categories", "By category", _categories),
    Section("scores", "Scores, precision and recall", _figures("scores", "precision_recall")),
    Section("ensemble", "Ensemble and re-scoring", _ensemble),
    Section("equalization", "What the equalization loss changes", _samples),
    Section("missing-annotations", "Missing annotations", _missing_annotations),
    Section("data", "Long tail", _long_tail),
    Section("training", "Training", _training),
    Section("workflow", "Workflow", _workflow),
    Section("origin", "Where this comes from", _origin),
    Section("pictures", "Good and bad detections", _gallery),
)
"""The page from top to bottom."""
