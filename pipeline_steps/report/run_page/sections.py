"""The sections of the page, each from the files that it needs; what is missing is said in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
from markupsafe import Markup

from pipeline_steps.analysis.measured import GROUP_COLUMNS, Measured, like_published, read_all
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input, read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import DrawnFigures
from pipeline_steps.report.figures.style import MissingInputError
from pipeline_steps.report.grid import Grid, number
from pipeline_steps.report.page import PIXELS_PER_INCH, file_uri, page_content, part
from pipeline_steps.report.run_page.files import RunFiles
from pipeline_steps.report.run_page.html_tables import sortable_table
from pipeline_steps.report.run_page.rule_graph import benchmark_seconds, draw_graph, read_graph
from pipeline_steps.report.run_page.state import TrainingState, training_curves, training_states, trainings_grid
from pipeline_steps.report.tables import ENSEMBLE, comparison_grid, details_grid, summary_grid


@dataclass
class Run:
    """What the sections are made from."""

    files: RunFiles
    figures: DrawnFigures

    @cached_property
    def measured(self) -> list[Measured]:
        """All evaluations of the recipe, missing ones too."""
        return read_all(self.files.metrics.items(), self.files.recipe)

    @cached_property
    def variants(self) -> list[Measured]:
        """Evaluations of the recipe's variants, which only stand in tables of the paper."""
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
    make: Callable[[Run], Markup]
    """Its content; empty if the recipe has no such thing."""


def absent(text: str) -> Markup:
    """A sentence in place of what is missing."""
    return part("absent", text)


def grid_table(grid: Grid) -> Markup:
    """A table with its notes, without its heading."""
    return part("table", grid, grid.title)


def figure_html(run: Run, name: str) -> Markup:
    """A figure with its caption, or why it is missing."""
    caption = CAPTIONS[name]
    if reason := run.figures.missing[name]:
        return absent(f"{caption.title}: not drawn. {reason}")
    path = note_input(run.figures.folder / f"{name}.svg")
    points = ElementTree.parse(path).getroot().get("width", "").removesuffix("pt")  # 72 to an inch
    width = round(float(points) / 72 * PIXELS_PER_INCH)
    return part("plot", f"figure-{name}", caption.title, caption.text, file_uri(path), width)


def figure_table(run: Run, name: str, columns: dict[str, str] | None = None) -> Markup:
    """The table that was written with a figure; empty if there is none.

    Args:
        run: the run.
        name: of the figure.
        columns: columns to show and what to call them; all of them under their names if not given.
    """
    path = run.figures.folder / f"{name}.csv"
    if run.figures.missing[name] or not path.is_file():
        return Markup()
    frame = pd.read_csv(note_input(path))
    frame = frame if columns is None else frame[list(columns)].rename(columns=columns)
    texts = sum(frame.dtypes.map(lambda kind: not pd.api.types.is_numeric_dtype(kind)))
    rows = [
        [
            number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            for value in row
        ]
        for row in frame.astype(object).itertuples(index=False)
    ]
    return grid_table(Grid(f"{CAPTIONS[name].title}, in figures", list(frame.columns), rows, texts, []))


def _ensemble(run: Run) -> Markup:
    columns = {"members": "members", **GROUP_COLUMNS, "AP_fixed": "AP_fixed"}
    return (
        figure_html(run, "ensemble_gain") + figure_table(run, "ensemble_gain", columns) + figure_html(run, "rescoring")
    )


def _samples(run: Run) -> Markup:
    return figure_html(run, "samples") + figure_table(run, "samples")


def _missing_annotations(run: Run) -> Markup:
    return embedded_page(run.files.missing_annotations, "python -m pipeline_steps.count_samples makes it.")


def _summary(run: Run) -> Markup:
    grid, details = summary_grid(run.measured, run.files.recipe), details_grid(run.measured)
    heading = part("heading", details.title)
    return grid_table(grid) + heading + grid_table(details) + figure_html(run, "ap_by_group")


def _comparisons(run: Run) -> Markup:
    """The paper's tables that the recipe reproduces in part or whole."""
    recipe = run.files.recipe
    parts, said = [], set(summary_grid(run.measured, recipe).notes)
    for name, mapping in sorted(recipe.report.tables.items()):
        if any(mapping.values()):
            grid = comparison_grid(name, [*run.measured, *run.variants], recipe)
            grid = replace(grid, notes=[note for note in grid.notes if note not in said])
            parts += [part("heading", grid.title), grid_table(grid)]
    if not parts and like_published(recipe):
        return absent("This recipe reproduces no row of the paper's tables (report.tables names none).")
    return Markup("").join(parts)


def category_frame(run: Run) -> pd.DataFrame:
    """One row per category: name, group, train images, objects on val, AP and AP_fixed of the ensemble, AP of others.

    Raises:
        MissingInputError: there are no per-category results.
    """
    tables = run.files.inputs().category_results()
    last = ENSEMBLE if ENSEMBLE in tables else list(tables)[-1]
    known = tables[last].set_index("category_id")
    frame = pd.DataFrame({"category": known["name"], "group": known["frequency"].map(GROUPS)}, index=known.index)
    for column, source in (("train images", "train_images"), ("objects on val", "annotations")):
        if source in known:
            frame[column] = known[source].astype("Int64")
    for column in ("AP", "AP_fixed"):
        frame[f"{column} {last}"] = known[column].astype(float)
    for name, table in tables.items():
        if name != last:
            frame[f"AP {name}"] = table.set_index("category_id")["AP"].astype(float)
    return frame.reset_index(drop=True)


def _categories(run: Run) -> Markup:
    try:
        frame = category_frame(run)
    except MissingInputError as error:
        return absent(f"Not shown: {error}.")
    hint = (
        "A click on a column sorts by it, a second click the other way round. Categories without objects on val have "
        "no AP."
    )
    table = sortable_table(frame, 2, "categories")
    return part("paragraphs", [hint]) + table + figure_html(run, "ap_by_category")


def embedded_page(path: Path, remedy: str) -> Markup:
    """The content of one of our pages.

    Args:
        path: the page.
        remedy: what makes it, for the sentence that stands in its place if it is missing.
    """
    try:
        return page_content(path)
    except UserError as error:
        return absent(f"Not shown: {error}. {remedy}")


def _gallery(run: Run) -> Markup:
    return embedded_page(run.files.gallery, "python -m pipeline_steps.draw_predictions makes it.")


def _ablations(run: Run) -> Markup:
    path = run.files.ablations
    return embedded_page(path, "") if path.is_file() else Markup()


def _figures(*names: str) -> Callable[[Run], Markup]:
    return lambda run: Markup("").join(figure_html(run, name) for name in names)


def _long_tail(run: Run) -> Markup:
    recipe = run.files.recipe
    without = Markup() if recipe.data.openimages.enabled else absent("This recipe uses no OpenImages images.")
    return without + figure_html(run, "long_tail")


def _training(run: Run) -> Markup:
    return grid_table(trainings_grid(run.files, run.states)) + figure_html(run, "training")


def _workflow(run: Run) -> Markup:
    try:
        graph = read_graph(
            read_json(run.files.rule_graph, "list of rules", "a run of the workflow writes it", note=False)
        )
    except UserError as error:
        return absent(f"Not drawn: {error}.")
    except (AttributeError, KeyError, TypeError, ValueError):
        return absent(f"Not drawn: {run.files.rule_graph} is no list of rules.")
    if not graph:
        return absent(f"Not drawn: {run.files.rule_graph} names no rules.")
    benchmarks = run.files.root / "benchmarks"
    caption = (
        "What is made from what, top to bottom; edges that a longer way implies are left out. Number of jobs, and the "
        "time of all jobs of a rule one after the other."
    )
    return draw_graph(graph, {name: benchmark_seconds(benchmarks, name) for name in graph}, caption)


def _origin(run: Run) -> Markup:
    """Recipe, code and hardware, from the manifest of the last evaluation that has one."""
    recipe = run.files.recipe
    lines = [
        f"Recipe {recipe.name}, LVIS {recipe.lvis_version}, seed {recipe.seed}; all its values: recipe.yaml in "
        f"{run.files.root}."
    ]
    for path in reversed(run.files.metrics.values()):
        try:
            manifest = read_json(path.with_name("metrics.manifest.json"), "manifest", note=False)
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
    return part("notes", lines)


SECTIONS = (
    Section("results", "Results", _summary),
    Section("report", "Tables of the paper", _comparisons),
    Section("ablations", "Settings compared over seeds", _ablations),
    Section("pictures", "Good and bad detections", _gallery),
    Section("categories", "By category", _categories),
    Section("scores", "Scores, precision and recall", _figures("scores", "precision_recall")),
    Section("ensemble", "Ensemble and re-scoring", _ensemble),
    Section("equalization", "What the equalization loss changes", _samples),
    Section("missing-annotations", "Missing annotations", _missing_annotations),
    Section("data", "Long tail", _long_tail),
    Section("training", "Training", _training),
    Section("workflow", "Workflow", _workflow),
    Section("origin", "Where this comes from", _origin),
)
"""The page from top to bottom."""
