"""The page of a run: the figures that matter, what is missing, then sections, each from the files that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from markupsafe import Markup

from pipeline_steps.analysis.measured import GROUP_COLUMNS, like_published
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.recipe.schema import ENSEMBLE
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.page import html_page, part
from pipeline_steps.report.run_page.analyses import calibrated, how_sure, where_the_ap_goes
from pipeline_steps.report.run_page.headline import headline
from pipeline_steps.report.run_page.parts import Run, absent, embedded_page, sortable_table, table
from pipeline_steps.report.run_page.rule_graph import draw_graph, read_graph, rule_seconds
from pipeline_steps.report.run_page.state import trainings_grid
from pipeline_steps.report.tables import comparison_grid, details_grid, summary_grid
from pipeline_steps.run.provenance.manifest import manifest_path

Make = Callable[[Run], Markup]
SECTIONS: dict[str, tuple[str, Make]] = {}
"""The page from top to bottom: for each section its title, and what makes its content, which is empty if the recipe has
no such thing."""


def section(anchor: str, title: str) -> Callable[[Make], Make]:
    """The function below is a section; sections stand on the page in the order of this file."""

    def note(make: Make) -> Make:
        SECTIONS[anchor] = (title, make)
        return make

    return note


@section("results", "Results")
def _results(run: Run) -> Markup:
    details = table(details_grid(run.measured), heading=True)
    return table(summary_grid(run.measured, run.files.recipe)) + details + run.plot("ap_by_group")


@section("report", "Tables of the paper")
def _comparisons(run: Run) -> Markup:
    """The paper's tables that the recipe reproduces in part or whole."""
    recipe = run.files.recipe
    parts, said = [], set(summary_grid(run.measured, recipe).notes)
    for name, mapping in sorted(recipe.report.tables.items()):
        if any(mapping.values()):
            grid = comparison_grid(name, [*run.measured, *run.variants], recipe)
            grid = replace(grid, notes=[note for note in grid.notes if note not in said])
            parts.append(table(grid, heading=True))
    if not parts and like_published(recipe):
        return absent("This recipe reproduces no row of the paper's tables (report.tables names none).")
    return Markup("").join(parts)


@section("sure", "How sure")
def _sure(run: Run) -> Markup:
    return how_sure(run)


@section("errors", "Where the AP goes")
def _errors(run: Run) -> Markup:
    return where_the_ap_goes(run)


@section("calibration", "Calibration")
def _calibration(run: Run) -> Markup:
    return calibrated(run)


@section("ablations", "Settings compared over seeds")
def _ablations(run: Run) -> Markup:
    path = run.files.ablations_page
    return embedded_page(path, "") if path.is_file() else Markup()


@section("pictures", "Good and bad detections")
def _pictures(run: Run) -> Markup:
    return embedded_page(run.files.gallery, "python -m pipeline_steps.draw_predictions makes it.")


def category_frame(run: Run) -> pd.DataFrame:
    """One row per category: name, group, train images, objects on val, AP and AP_fixed of the ensemble, AP of others.

    Raises:
        UserError: there are no per-category results.
    """
    tables = Inputs.of(run.files).category_results()
    last = ENSEMBLE if ENSEMBLE in tables else list(tables)[-1]
    known = tables[last].set_index("category_id")
    frame = pd.DataFrame({"category": known["name"], "group": known["frequency"].map(GROUPS)}, index=known.index)
    for column, source in (("train images", "train_images"), ("objects on val", "annotations")):
        if source in known:
            frame[column] = known[source].astype("Int64")
    for column in ("AP", "AP_fixed"):
        frame[f"{column} {last}"] = known[column].astype(float)
    for name, categories in tables.items():
        if name != last:
            frame[f"AP {name}"] = categories.set_index("category_id")["AP"].astype(float)
    return frame.reset_index(drop=True)


@section("categories", "By category")
def _categories(run: Run) -> Markup:
    try:
        frame = category_frame(run)
    except UserError as error:
        return absent(f"Not shown: {error}.")
    hint = (
        "A click on a column sorts by it, a second click the other way round. Categories without objects on val have "
        "no AP."
    )
    return part("paragraphs", [hint]) + sortable_table(frame, 2, "categories") + run.plot("ap_by_category")


@section("scores", "Scores, precision and recall")
def _scores(run: Run) -> Markup:
    return run.plot("scores", "precision_recall")


@section("ensemble", "Ensemble and re-scoring")
def _ensemble(run: Run) -> Markup:
    columns = {"members": "members", **GROUP_COLUMNS, "AP_fixed": "AP_fixed"}
    return run.plot("ensemble_gain") + run.plotted("ensemble_gain", columns) + run.plot("rescoring")


@section("equalization", "What the equalization loss changes")
def _equalization(run: Run) -> Markup:
    return run.plot("samples") + run.plotted("samples")


@section("missing-annotations", "Missing annotations")
def _missing_annotations(run: Run) -> Markup:
    return embedded_page(run.files.missing_annotations, "python -m pipeline_steps.count_samples makes it.")


@section("data", "Long tail")
def _long_tail(run: Run) -> Markup:
    recipe = run.files.recipe
    without = Markup() if recipe.data.openimages.enabled else absent("This recipe uses no OpenImages images.")
    return without + run.plot("long_tail")


@section("training", "Training")
def _training(run: Run) -> Markup:
    return table(trainings_grid(run.files, run.states)) + run.plot("training")


@section("workflow", "Workflow")
def _workflow(run: Run) -> Markup:
    try:
        graph = read_graph(
            read_json(run.files.rule_graph, "list of rules", "a run of the workflow writes it", note=False)
        )
    except UserError as error:
        return absent(f"Not drawn: {error}.")
    except (AttributeError, KeyError, TypeError, ValueError):
        return absent(f"Not drawn: {run.files.rule_graph} is not a list of rules.")
    if not graph:
        return absent(f"Not drawn: {run.files.rule_graph} names no rules.")
    caption = (
        "What is made from what, top to bottom; edges that a longer way implies are left out. Number of jobs, and the "
        "time of all jobs of a rule one after the other."
    )
    return draw_graph(graph, {name: rule_seconds(run.files.benchmarks, name) for name in graph}, caption)


@section("origin", "Where this comes from")
def _origin(run: Run) -> Markup:
    """Recipe, code and hardware, from the manifest of the last evaluation that has one."""
    recipe = run.files.recipe
    lines = [
        f"Recipe {recipe.name}, LVIS {recipe.lvis_version}, seed {recipe.seed}; all its values: recipe.yaml in "
        f"{run.files.root}."
    ]
    for name in reversed(recipe.evaluations):
        try:
            manifest = read_json(manifest_path(run.files.metrics.of(name=name)), "manifest", note=False)
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


def _problems(run: Run) -> list[str]:
    """What of the recipe is not there, in the order in which it is made."""
    problems = [state.problem for state in run.states if state.problem]
    problems += [f"{entry.name}: not evaluated. {entry.missing}" for entry in run.measured if entry.missing]
    return problems


def run_page(run: Run) -> str:
    """The page of a run as HTML, one file that needs no network."""
    recipe = run.files.recipe
    shown = [(anchor, title, content) for anchor, (title, make) in SECTIONS.items() if (content := make(run))]
    if problems := _problems(run):
        listed = Markup("").join(part("absent", problem) for problem in problems)
        shown.insert(0, ("missing", "Missing in this run", listed))
    lead = []
    if recipe.data.source == "mini":
        lead.append("Data: the embedded mini world, not LVIS. Its figures compare models with each other only.")
    content = part("headline", headline(run.measured)) + Markup("").join(part("section", *one) for one in shown)
    links = [(anchor, title) for anchor, title, _ in shown]
    return html_page(f"Recipe {recipe.name}: report", content, lead, links)
